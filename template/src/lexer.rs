//! Divides a template into tokens, as Jinja's lexer does with `trim_blocks` and `lstrip_blocks`.
//!
//! White space around tags is settled here: a newline after a block or comment goes, and so does white space between
//! the beginning of a line and a block or comment; `-` strips all, `+` nothing. What is left of the text is
//! [`Token::Data`].

use std::sync::Arc;

use crate::error::{Error, Result};

/// Longest template, in bytes; the longest of well-known models is about 20 KB.
const MAX_SOURCE: usize = 256 * 1024;
/// Brackets nest at most this deep.
const MAX_BRACKETS: usize = 64;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// Text outside of tags.
    Data(String),
    /// `{{`
    PrintBegin,
    /// `}}`
    PrintEnd,
    /// `{%`
    BlockBegin,
    /// `%}`
    BlockEnd,
    Name(Arc<str>),
    Text(String),
    Int(i128),
    Float(f64),
    /// An operator, bracket or separator.
    Op(&'static str),
    /// The end of the template.
    End,
}

/// The operators, the longer ones before their beginnings.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";", "!",
];

/// An error with its line.
pub(crate) fn error(line: u32, what: impl AsRef<str>) -> Error {
    Error::Template {
        what: format!("line {line}: {}", what.as_ref()),
    }
}

/// White space as Python's `str.isspace` and `\s` have it.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// The tokens of a template with their lines; the last one is [`Token::End`].
pub(crate) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    if source.len() > MAX_SOURCE {
        return Err(Error::Limit {
            what: "the chat template's length in bytes".into(),
            found: source.len() as u64,
            limit: MAX_SOURCE as u64,
        });
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut lexer = Lexer {
        // A newline at the very end goes.
        rest: source.strip_suffix('\n').unwrap_or(&source),
        line: 1,
        line_begins: true,
        tokens: Vec::new(),
    };
    lexer.template()?;
    lexer.tokens.push((Token::End, lexer.line));
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    /// The text that follows stands at the beginning of a line.
    line_begins: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'a> Lexer<'a> {
    fn fail<T>(&self, what: impl AsRef<str>) -> Result<T> {
        Err(error(self.line, what))
    }

    /// Takes `len` bytes.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.line += taken.bytes().filter(|&b| b == b'\n').count() as u32;
        taken
    }

    fn take_space(&mut self) {
        let len = self.rest.len() - self.rest.trim_start_matches(is_space).len();
        self.take(len);
    }

    fn template(&mut self) -> Result<()> {
        loop {
            // One walk for all three: a search for one that is not there would walk to the end for every tag.
            let begin = self
                .rest
                .match_indices('{')
                .map(|(at, _)| at)
                .find(|at| matches!(self.rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
            let Some(at) = begin else {
                self.data(self.rest.len(), None, false);
                return Ok(());
            };
            let after = &self.rest[at + 2..];
            let sign = after.chars().next().filter(|c| matches!(c, '-' | '+'));
            match self.rest.as_bytes()[at + 1] {
                b'{' => {
                    self.data(at, sign, false);
                    self.take(2 + sign.map_or(0, char::len_utf8));
                    self.tag(Token::PrintBegin, Token::PrintEnd)?;
                }
                b'#' => {
                    self.data(at, sign, true);
                    self.take(2 + sign.map_or(0, char::len_utf8));
                    let Some(end) = self.rest.find("#}") else {
                        return self.fail("a comment is not closed");
                    };
                    let comment = self.take(end);
                    self.end_of_block(comment.ends_with('-'), comment.ends_with('+'));
                }
                _ => {
                    self.data(at, sign, true);
                    if let Some(len) = raw_tag(self.rest, "raw") {
                        self.raw(len)?;
                    } else {
                        self.take(2 + sign.map_or(0, char::len_utf8));
                        self.tag(Token::BlockBegin, Token::BlockEnd)?;
                    }
                }
            }
        }
    }

    /// The text before a tag, `len` bytes; `sign` stands in the tag, and a `block` takes white space of its line.
    fn data(&mut self, len: usize, sign: Option<char>, block: bool) {
        let line = self.line;
        let mut text = self.take(len);
        match sign {
            Some('-') => text = text.trim_end_matches(is_space),
            Some(_) => {}
            None if block => {
                let begin = text.rfind('\n').map_or(0, |at| at + 1);
                if (begin > 0 || self.line_begins) && text[begin..].chars().all(is_space) {
                    text = &text[..begin];
                }
            }
            None => {}
        }
        if !text.is_empty() {
            self.tokens.push((Token::Data(text.to_owned()), line));
        }
    }

    /// The two characters that end a block or comment, and what goes with them.
    fn end_of_block(&mut self, strips: bool, keeps: bool) {
        self.take(2);
        self.line_begins = false;
        if strips {
            let before = self.rest;
            self.take_space();
            self.line_begins = before[..before.len() - self.rest.len()].ends_with('\n');
        } else if !keeps && self.rest.starts_with('\n') {
            self.take(1);
            self.line_begins = true;
        }
    }

    /// A raw block; its tag has `len` bytes.
    fn raw(&mut self, len: usize) -> Result<()> {
        let opened = self.line;
        let strips = self.take(len).ends_with("-%}");
        if strips {
            self.take_space();
        }
        self.line_begins = false;
        let mut from = 0;
        while let Some(found) = self.rest[from..].find("{%") {
            let at = from + found;
            if let Some(len) = raw_tag(&self.rest[at..], "endraw") {
                let sign = self.rest[at + 2..]
                    .chars()
                    .next()
                    .filter(|c| matches!(c, '-' | '+'));
                self.data(at, sign, true);
                let tag = self.take(len - 2);
                self.end_of_block(tag.ends_with('-'), tag.ends_with('+'));
                return Ok(());
            }
            from = at + 2;
        }
        Err(error(opened, "a raw block is not closed"))
    }

    /// The inside of a tag; its beginning was taken.
    fn tag(&mut self, begin: Token, end: Token) -> Result<()> {
        let opened = self.line;
        let block = end == Token::BlockEnd;
        let closing = if block { "%}" } else { "}}" };
        self.tokens.push((begin, self.line));
        let mut open: Vec<&str> = Vec::new();
        loop {
            self.take_space();
            if open.is_empty() {
                let signed = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
                let strips = self.rest.starts_with('-');
                let keeps = self.rest.starts_with('+');
                if signed.starts_with(closing) && (block || !keeps) {
                    self.tokens.push((end, self.line));
                    self.take(self.rest.len() - signed.len());
                    if block {
                        self.end_of_block(strips, keeps);
                    } else {
                        self.take(2);
                        self.line_begins = false;
                        if strips {
                            self.take_space();
                        }
                    }
                    return Ok(());
                }
            }
            let Some(c) = self.rest.chars().next() else {
                return Err(error(
                    opened,
                    format!("a tag is not closed, expected '{closing}'"),
                ));
            };
            let line = self.line;
            let token = if c.is_ascii_digit() {
                self.number()?
            } else if c == '_' || c.is_alphanumeric() {
                let end = self.rest.find(|c: char| c != '_' && !c.is_alphanumeric());
                Token::Name(self.take(end.unwrap_or(self.rest.len())).into())
            } else if matches!(c, '"' | '\'') {
                self.text(c)?
            } else {
                let Some(&op) = OPERATORS.iter().find(|op| self.rest.starts_with(**op)) else {
                    return self.fail(format!("unexpected character {c:?}"));
                };
                match op {
                    "(" | "[" | "{" => {
                        open.push(op);
                        if open.len() > MAX_BRACKETS {
                            return Err(Error::Limit {
                                what: format!("line {line}: the depth of brackets in the chat template"),
                                found: open.len() as u64,
                                limit: MAX_BRACKETS as u64,
                            });
                        }
                    }
                    ")" | "]" | "}" => {
                        let opener =
                            ["(", "[", "{"][[")", "]", "}"].iter().position(|c| *c == op).unwrap_or(0)];
                        if open.pop() != Some(opener) {
                            return self.fail(format!("unexpected '{op}'"));
                        }
                    }
                    _ => {}
                }
                self.take(op.len());
                Token::Op(op)
            };
            self.tokens.push((token, line));
        }
    }

    /// A number as Python writes it: underscores between digits, hexadecimal, octal, binary, fractions, exponents.
    fn number(&mut self) -> Result<Token> {
        let digits = |text: &str, radix: u32| {
            let mut len = 0;
            for (i, c) in text.char_indices() {
                match c {
                    '_' if len == i && text[i + 1..].starts_with(|c: char| c.is_digit(radix)) => {}
                    c if c.is_digit(radix) => len = i + 1,
                    _ => break,
                }
            }
            len
        };
        let prefix = self.rest.get(..2).unwrap_or_default().to_ascii_lowercase();
        let radix = match prefix.as_str() {
            "0x" => 16,
            "0o" => 8,
            "0b" => 2,
            _ => 10,
        };
        if radix != 10 {
            let skip = 2 + usize::from(self.rest[2..].starts_with('_'));
            let len = digits(&self.rest[skip..], radix);
            if len > 0 {
                let text = self.take(skip + len)[skip..].replace('_', "");
                return self.int(i128::from_str_radix(&text, radix).ok());
            }
        }
        let whole = digits(self.rest, 10);
        let mut len = whole;
        // `x.0.1` are two items.
        if self
            .tokens
            .last()
            .is_none_or(|(token, _)| *token != Token::Op("."))
        {
            if self.rest[len..].starts_with('.') {
                let fraction = digits(&self.rest[len + 1..], 10);
                len += if fraction > 0 { 1 + fraction } else { 0 };
            }
            if self.rest[len..].starts_with(['e', 'E']) {
                let sign = usize::from(self.rest[len + 1..].starts_with(['+', '-']));
                let exponent = digits(&self.rest[len + 1 + sign..], 10);
                len += if exponent > 0 { 1 + sign + exponent } else { 0 };
            }
        }
        let text = self.take(len).replace('_', "");
        if len > whole {
            return match text.parse() {
                Ok(float) => Ok(Token::Float(float)),
                Err(_) => self.fail(format!("'{text}' is not a number")),
            };
        }
        if text.len() > 1 && text.starts_with('0') && text.bytes().any(|b| b != b'0') {
            return self.fail(format!("'{text}' is not a number: it begins with 0"));
        }
        self.int(text.parse().ok())
    }

    fn int(&self, value: Option<i128>) -> Result<Token> {
        value.map_or_else(|| self.fail("a number is too large"), |int| Ok(Token::Int(int)))
    }

    fn text(&mut self, delimiter: char) -> Result<Token> {
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == delimiter && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else {
            return self.fail("a string is not closed");
        };
        let line = self.line;
        let text = &self.take(end + 1)[1..end];
        unescape(text).map(Token::Text).map_err(|what| error(line, what))
    }
}

/// The length of the tag at the beginning of `rest` where it is nothing but `name`.
fn raw_tag(rest: &str, name: &str) -> Option<usize> {
    let inner = rest.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner
        .trim_start_matches(is_space)
        .strip_prefix(name)?
        .trim_start_matches(is_space);
    let signs: &[char] = if name == "raw" { &['-'] } else { &['-', '+'] };
    let end = inner.strip_prefix(signs).unwrap_or(inner).strip_prefix("%}")?;
    Some(rest.len() - end.len())
}

/// Python's escapes (its reference, "String and Bytes literals"); one that is not known keeps its backslash. Halves of
/// a surrogate pair make one character.
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
        let code = match (high_surrogate.take(), code) {
            (None, None) => continue,
            (None, Some(high @ 0xd800..=0xdbff)) => {
                high_surrogate = Some(high);
                continue;
            }
            (Some(high), Some(low @ 0xdc00..=0xdfff)) => 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00),
            (Some(_), _) => return Err("half a surrogate pair in a string".into()),
            (None, Some(code)) => code,
        };
        out.push(char::from_u32(code).ok_or("an escape that is no character in a string")?);
    }
    match high_surrogate {
        Some(_) => Err("half a surrogate pair in a string".into()),
        None => Ok(out),
    }
}
