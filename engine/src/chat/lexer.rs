//! Divides a template into text, raw blocks and tags, and tags into tokens, as Jinja's lexer does.

use std::ops::Range;

use crate::{Error, Result};

use super::rewrite::RESERVED;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Text,
    Number,
    Operator,
}

/// A token of an expression: where it stands in the source, and what it is replaced by.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: Range<usize>,
    pub(super) before: String,
    pub(super) text: Option<String>,
    pub(super) after: String,
}

/// A piece of a template.
pub(super) enum Piece {
    /// Text and comments: copied as they are.
    Copy(Range<usize>),
    /// `{{ … }}` or `{% … %}`: the tokens, and the range of all of it.
    Tag {
        block: bool,
        at: Range<usize>,
        line: usize,
        tokens: Vec<Token>,
    },
    /// A raw block: the sign before `raw`, the text, the sign after `endraw`.
    Raw {
        open: Option<char>,
        text: String,
        close: Option<char>,
    },
}

/// Brackets nest at most this deep.
const MAX_BRACKETS: usize = 64;
pub(super) fn fail(line: usize, what: impl AsRef<str>) -> Error {
    Error::Template {
        what: format!("line {line}: {}", what.as_ref()),
    }
}

fn line_of(source: &str, at: usize) -> usize {
    source.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Divides a template into text and tags.
pub(super) fn split(source: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut line = 1;
    let mut counted = 0;
    while let Some(start) = next_tag(source, at) {
        line += source.as_bytes()[counted..start]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        counted = start;
        let inner = start + 2;
        match source.as_bytes()[start + 1] {
            b'#' => {
                let Some(end) = source[inner..].find("#}") else {
                    return Err(fail(line, "a comment is not closed"));
                };
                pieces.push(Piece::Copy(at..inner + end + 2));
                at = inner + end + 2;
            }
            b'%' => {
                pieces.push(Piece::Copy(at..start));
                if let Some((sign, body)) = simple_tag(&source[inner..], "raw") {
                    let body = inner + body;
                    let (piece, end) = raw(source, line, sign, body)?;
                    pieces.push(piece);
                    at = end;
                } else {
                    let (tokens, end) = tokens(source, line, inner, "%}")?;
                    pieces.push(Piece::Tag {
                        block: true,
                        at: start..end,
                        line,
                        tokens,
                    });
                    at = end;
                }
            }
            _ => {
                pieces.push(Piece::Copy(at..start));
                let (tokens, end) = tokens(source, line, inner, "}}")?;
                pieces.push(Piece::Tag {
                    block: false,
                    at: start..end,
                    line,
                    tokens,
                });
                at = end;
            }
        }
    }
    pieces.push(Piece::Copy(at..source.len()));
    Ok(pieces)
}

fn next_tag(source: &str, from: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    (from..bytes.len().saturating_sub(1))
        .find(|&i| bytes[i] == b'{' && matches!(bytes[i + 1], b'{' | b'%' | b'#'))
}

/// `rest` stands behind `{%`. Where the tag is nothing but `name`: the sign before it and where the tag ends.
fn simple_tag(rest: &str, name: &str) -> Option<(Option<char>, usize)> {
    let sign = rest.chars().next().filter(|c| matches!(c, '-' | '+'));
    let inner = rest.get(sign.map_or(0, char::len_utf8)..)?;
    let inner = inner.trim_start().strip_prefix(name)?.trim_start();
    let end = inner
        .strip_prefix(['-', '+'])
        .unwrap_or(inner)
        .strip_prefix("%}")?;
    Some((sign, rest.len() - end.len()))
}

/// A raw block whose text begins at `body`.
fn raw(source: &str, line: usize, open: Option<char>, body: usize) -> Result<(Piece, usize)> {
    let trims_start = source[..body].ends_with("-%}");
    let mut from = body;
    while let Some(found) = source[from..].find("{%") {
        let start = from + found;
        if let Some((sign, end)) = simple_tag(&source[start + 2..], "endraw") {
            let end = start + 2 + end;
            let mut text = &source[body..start];
            if trims_start {
                text = text.trim_start();
            }
            match sign {
                Some('-') => text = text.trim_end(),
                Some(_) => {}
                None => {
                    // lstrip_blocks: white space between the line's beginning and the tag goes.
                    let line_start = text.rfind('\n').map(|i| i + 1);
                    if let Some(i) = line_start
                        && text[i..].chars().all(char::is_whitespace)
                    {
                        text = &text[..i];
                    }
                }
            }
            let close = source[..end]
                .strip_suffix("%}")
                .and_then(|tag| tag.chars().next_back());
            let close = close.filter(|c| matches!(c, '-' | '+'));
            return Ok((
                Piece::Raw {
                    open,
                    text: text.to_owned(),
                    close,
                },
                end,
            ));
        }
        from = start + 2;
    }
    Err(fail(line, "a raw block is not closed"))
}

/// The tokens of a tag whose inside begins at `at`, and where the tag ends.
fn tokens(source: &str, line: usize, at: usize, closing: &str) -> Result<(Vec<Token>, usize)> {
    let bytes = source.as_bytes();
    let mut tokens: Vec<Token> = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    let mut i = at + usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
    loop {
        let rest = &source[i..];
        let skipped = rest.len() - rest.trim_start().len();
        i += skipped;
        let rest = &source[i..];
        let Some(c) = rest.chars().next() else {
            return Err(fail(line, format!("a tag is not closed, expected '{closing}'")));
        };
        if open.is_empty() {
            let signed = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if signed.starts_with(closing) && (closing == "%}" || !rest.starts_with('+')) {
                return Ok((tokens, i + (rest.len() - signed.len()) + 2));
            }
        }
        let here = || line_of(source, i);
        let (kind, len) = if c == '_' || c.is_alphabetic() {
            let len = rest
                .find(|c: char| c != '_' && !c.is_alphanumeric())
                .unwrap_or(rest.len());
            if rest.starts_with(RESERVED) {
                return Err(fail(
                    here(),
                    format!("names that begin with '{RESERVED}' are reserved"),
                ));
            }
            (Kind::Name, len)
        } else if c.is_ascii_digit() {
            let after_dot = tokens
                .last()
                .is_some_and(|t| &source[t.at.clone()] == "." && t.at.end == i);
            (Kind::Number, number_len(rest, after_dot))
        } else if matches!(c, '"' | '\'') {
            let Some(len) = string_len(rest, c) else {
                return Err(fail(here(), "a string is not closed"));
            };
            (Kind::Text, len)
        } else {
            let long = ["**", "//", "==", "!=", "<=", ">="]
                .iter()
                .any(|op| rest.starts_with(op));
            if !long && !"+-*/%~|.,:()[]{}<>=".contains(c) {
                return Err(fail(here(), format!("unexpected character {c:?}")));
            }
            match c {
                '(' | '[' | '{' => {
                    open.push(c as u8);
                    if open.len() > MAX_BRACKETS {
                        return Err(Error::Limit {
                            what: format!("line {}: the depth of brackets in the chat template", here()),
                            found: open.len() as u64,
                            limit: MAX_BRACKETS as u64,
                        });
                    }
                }
                ')' | ']' | '}' => {
                    let opener = match c {
                        ')' => b'(',
                        ']' => b'[',
                        _ => b'{',
                    };
                    if open.pop() != Some(opener) {
                        return Err(fail(here(), format!("unexpected '{c}'")));
                    }
                }
                _ => {}
            }
            (Kind::Operator, if long { 2 } else { 1 })
        };
        let mut token = Token {
            kind,
            at: i..i + len,
            before: String::new(),
            text: None,
            after: String::new(),
        };
        if kind == Kind::Text && rest[..len].contains('\\') {
            let value = unescape(&rest[1..len - 1]).map_err(|what| fail(here(), what))?;
            let mut text = String::new();
            quote(&value, &mut text);
            token.text = Some(text);
        }
        tokens.push(token);
        i += len;
    }
}

fn number_len(rest: &str, after_dot: bool) -> usize {
    let digits = |s: &str| {
        s.find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
            .unwrap_or(s.len())
    };
    let mut len = digits(rest);
    let hex = rest.starts_with("0x") || rest.starts_with("0X");
    let fraction = rest
        .get(len + 1..)
        .is_some_and(|tail| tail.starts_with(|c: char| c.is_ascii_digit()));
    if !after_dot && rest[len..].starts_with('.') && fraction {
        len += 1 + digits(&rest[len + 1..]);
    }
    let exponent = !hex && rest[..len].ends_with(['e', 'E']);
    if exponent && rest[len..].starts_with(['+', '-']) {
        len += 1 + digits(&rest[len + 1..]);
    }
    len
}

fn string_len(rest: &str, delimiter: char) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == delimiter => return Some(i + 1),
            _ => {}
        }
    }
    None
}

/// A string literal for minijinja.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Python's escapes (its reference, "String and Bytes literals"); one that is not known keeps its backslash.
fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut high_surrogate: Option<u32> = None;
    while let Some(c) = chars.next() {
        let mut code = None;
        if c != '\\' {
            out.push(c);
        } else {
            match chars.next() {
                None => out.push('\\'),
                Some('\n') => {}
                Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                Some('a') => out.push('\x07'),
                Some('b') => out.push('\x08'),
                Some('f') => out.push('\x0c'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('v') => out.push('\x0b'),
                Some(first @ '0'..='7') => {
                    let mut value = first.to_digit(8).unwrap_or(0);
                    for _ in 0..2 {
                        if let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) {
                            value = value * 8 + digit;
                            chars.next();
                        }
                    }
                    code = Some(value);
                }
                Some(kind @ ('x' | 'u' | 'U')) => {
                    let digits = match kind {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let mut value = 0u32;
                    for _ in 0..digits {
                        let digit = chars.next().and_then(|c| c.to_digit(16));
                        let digit = digit.ok_or_else(|| format!("truncated \\{kind} escape in a string"))?;
                        value = value.wrapping_mul(16) + digit;
                    }
                    code = Some(value);
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
            }
        }
        let Some(code) = code else {
            if high_surrogate.is_some() {
                return Err("half a surrogate pair in a string".into());
            }
            continue;
        };
        let code = match (high_surrogate.take(), code) {
            (None, 0xd800..=0xdbff) => {
                high_surrogate = Some(code);
                continue;
            }
            (Some(high), 0xdc00..=0xdfff) => 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00),
            (Some(_), _) => return Err("half a surrogate pair in a string".into()),
            (None, code) => code,
        };
        out.push(
            char::from_u32(code).ok_or_else(|| "an escape that is no character in a string".to_owned())?,
        );
    }
    if high_surrogate.is_some() {
        return Err("half a surrogate pair in a string".into());
    }
    Ok(out)
}
