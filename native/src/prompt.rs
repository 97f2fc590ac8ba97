//! From what was typed to tokens: escape sequences, and a note where a text brings the begin token along that the model
//! adds by itself.

use anyhow::Result;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use crate::failure::Usage;
use crate::settings::Verbosity;

/// The text with the escape sequences replaced that llama.cpp replaces: `\n`, `\t`, `\r`, `\\`, `\"`, `\'`, and `\xHH`,
/// which is a byte. Any other stays as it is written.
pub(crate) fn unescape(text: &str) -> Result<String, Usage> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (read, taken) = match (byte, after) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [c @ (b'\\' | b'"' | b'\''), ..]) => (*c, 2),
            (b'\\', [b'x', high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (digit(*high) << 4 | digit(*low), 4)
            }
            _ => (byte, 1),
        };
        out.push(read);
        rest = &rest[taken..];
    }
    String::from_utf8(out).map_err(|_| {
        Usage(format!(
            "`{text}`: the bytes of its \\x.. sequences make no UTF-8 text"
        ))
    })
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

/// Says that a text typed at the command line has escape sequences which nobody asked to read.
pub(crate) fn note_unread_escapes(verbosity: Verbosity, text: &str) {
    if text.contains("\\n") {
        verbosity
            .note("note: `\\n` in the prompt is a backslash and an n; -e (--escape) reads it as a line feed");
    }
}

/// The tokens of a text.
pub(crate) fn tokens(
    verbosity: Verbosity,
    tokenizer: &Tokenizer,
    text: &str,
    options: EncodeOptions,
) -> Result<Vec<u32>> {
    let ids = tokenizer.encode(text, options)?;
    if let [first, second, ..] = *ids
        && options.add_special
        && first == second
        && tokenizer.add_bos()
        && tokenizer.bos() == Some(first)
    {
        let written = tokenizer.token_bytes(first, true).unwrap_or_default();
        verbosity.note(&format!(
            "note: the text begins with `{0}`, and the model puts one before it: there are two now; leave `{0}` out",
            String::from_utf8_lossy(written)
        ));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn escapes_are_those_of_llama_cpp() {
        assert_eq!(unescape(r#"a\n\t\r\\\"\'b"#).unwrap(), "a\n\t\r\\\"'b");
        assert_eq!(unescape(r"\x41\xc3\xa9\x4").unwrap(), "A\u{e9}\\x4");
        assert_eq!(unescape(r"\\n \q \").unwrap(), r"\n \q \");
        assert_eq!(unescape("").unwrap(), "");
        assert!(unescape(r"\xff").is_err());
    }
}
