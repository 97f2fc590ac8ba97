//! How vocabularies write bytes as text: GPT-2's printable alphabet, `<0xXX>` byte tokens, and U+2581 for a
//! space.

/// U+2581 LOWER ONE EIGHTH BLOCK, SentencePiece's sign for a space.
pub(super) const SPACE_MARK: &str = "\u{2581}";

/// The character that stands for `byte` in GPT-2's alphabet (`bytes_to_unicode` of its encoder.py): printable
/// Latin-1 stands for itself, the 68 others follow from U+0100 in ascending order.
#[cfg(test)]
pub(super) fn byte_to_char(byte: u8) -> char {
    (0..=u32::from('\u{143}'))
        .filter_map(char::from_u32)
        .find(|&c| char_to_byte(c) == Some(byte))
        .expect("every byte has a character")
}

/// The byte that `c` stands for in GPT-2's alphabet; `None` for a character outside it.
pub(super) fn char_to_byte(c: char) -> Option<u8> {
    let shifted = |from: u32| u8::try_from(u32::from(c) - from).ok();
    match u32::from(c) {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => shifted(0),
        // 0x00-0x20, then 0x7f-0xa0, then 0xad
        0x100..=0x120 => shifted(0x100),
        0x121..=0x142 => shifted(0x121 - 0x7f),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the bytes that `text` stands for in GPT-2's alphabet. Where a character is outside it, `out` may have
/// grown by a part, and the result is `false`.
pub(super) fn decode_alphabet(text: &[u8], out: &mut Vec<u8>) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| {
        text.chars().all(|c| {
            let byte = char_to_byte(c);
            out.extend(byte);
            byte.is_some()
        })
    })
}

/// The byte of a token `<0xXX>`: exactly two hexadecimal digits, no sign, nothing else.
pub(super) fn parse_byte_token(text: &[u8]) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16);
    match *text {
        [b'<', b'0', b'x', high, low, b'>'] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    }
}

/// The text of the byte token of `byte`, as SentencePiece writes it.
pub(super) fn byte_token(byte: u8) -> [u8; 6] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [
        b'<',
        b'0',
        b'x',
        HEX[usize::from(byte >> 4)],
        HEX[usize::from(byte & 15)],
        b'>',
    ]
}

/// Appends the bytes that `text` stands for where Python's escapes are read (`\n`, `\xe4`); a backslash before
/// anything else stands for what follows it.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let digit = |c: u8| char::from(c).to_digit(16);
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, after) = match (first, tail) {
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'x', high, low, after @ ..]) if digit(*high).and(digit(*low)).is_some() => {
                let hex = digit(*high).unwrap_or(0) * 16 + digit(*low).unwrap_or(0);
                (hex as u8, after)
            }
            (b'\\', [next, after @ ..]) => (*next, after),
            (byte, after) => (byte, after),
        };
        out.push(byte);
        rest = after;
    }
}

/// Appends `text` with every U+2581 turned back into a space.
pub(super) fn unescape_spaces(text: &[u8], out: &mut Vec<u8>) {
    let mark = SPACE_MARK.as_bytes();
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(mark) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        let mut chars: Vec<char> = (0..=255).map(byte_to_char).collect();
        for (byte, &c) in chars.iter().enumerate() {
            assert_eq!(char_to_byte(c), Some(byte as u8));
        }
        assert_eq!((chars[b' ' as usize], chars[b'\n' as usize]), ('Ġ', 'Ċ'));
        chars.sort_unstable();
        chars.dedup();
        assert_eq!(chars.len(), 256);
        assert_eq!(char_to_byte('\u{144}'), None);
        let mut out = Vec::new();
        assert!(decode_alphabet("Ġhé".as_bytes(), &mut out));
        assert_eq!(out, b" h\xe9");
        assert!(!decode_alphabet("a b".as_bytes(), &mut out));
    }

    #[test]
    fn escapes_are_read() {
        let of = |text: &str| {
            let mut out = Vec::new();
            unescape(text.as_bytes(), &mut out);
            out
        };
        assert_eq!(of(r"a\t\n\r\\\'\xe4\xBD\x00"), b"a\t\n\r\\'\xe4\xbd\0");
        assert_eq!(of(r"\xg1\x1"), b"xg1x1");
        assert_eq!(of("\\"), b"\\");
    }

    #[test]
    fn byte_tokens_take_two_hex_digits_only() {
        for byte in 0..=255 {
            assert_eq!(parse_byte_token(&byte_token(byte)), Some(byte));
        }
        for bad in [
            "<0x+1>", "<0x-1>", "<0x1>", "<0x001>", "<0X0A>", "<0x0g>", "0x0A", "",
        ] {
            assert_eq!(parse_byte_token(bad.as_bytes()), None, "{bad}");
        }
    }
}
