//! From Jinja as Python reads it to the dialect that minijinja reads.
//!
//! The engine has no hook for a handful of things, so the source is changed before it is parsed. This works on the
//! tokens inside of tags alone, never on text or inside of strings, and keeps every line in its place:
//!
//! | Jinja | becomes | why |
//! |---|---|---|
//! | `[a]` `(a, b)` `{k: v}` | `_tw_list(a)` `_tw_tuple(a, b)` `_tw_dict(k, v)` | containers of [`super::value`] |
//! | `x[a:b:c]` | `x._tw_slice(a, b, c)` | a list, not a lazy view |
//! | `for x in e` | `for x in _tw_iter(e)` | `none` cannot be walked |
//! | `set x = e`, `set ns.x = e` | `set x = _tw_set(e)`, `set ns.x = _tw_set_attr(e)` | no lazy chains, no cycles |
//! | `"…" % e` | `"…"\|_tw_printf(e)` | the engine has no such operator |
//! | `a + b`, where `safe` or `escape` is used | `(a)\|_tw_add(b)` | markupsafe escapes in additions |
//! | `'\x41\z'` | `'A\\z'` | Python's escapes |
//! | `loop.cycle(a)` | `_tw_cycle(loop, a)` | the engine's divides by the number of arguments |
//! | `generation`, `block` | `with` | a scope, and nothing more without a trainer or a parent template |
//! | `raw` | a string | the engine drops the newline after the tag |
//! | `+x` | `x` | no such operator |
//! | macros that use `varargs`, `kwargs` | two more parameters, called by `_tw_call` | the engine lacks them |
//!
//! Here also are the limits on the shape of a template: the engine's parser and compiler recurse over chains of
//! operators, `elif` and brackets, so these are counted before it sees them.

use std::collections::HashSet;
use std::ops::Range;

use crate::{Error, Result};

use super::functions::{CALL, CYCLE, DICT, ITERATE, LIST, SETTLE, SETTLE_ATTRIBUTE, TUPLE};

/// Longest template, in bytes; the longest of well-known models is about 20 KB.
pub(super) const MAX_SOURCE: usize = 512 * 1024;
/// Most operators, brackets and the like on one path through an expression.
const MAX_EXPRESSION_DEPTH: usize = 300;
/// Blocks nest at most this deep, each `elif` counted as one more.
const MAX_BLOCK_DEPTH: usize = 200;
/// `{% if %}` and its like within each other, not counting `elif`.
const MAX_BLOCKS: usize = 50;
/// Names that begin so belong to the rewriter.
pub(super) const RESERVED: &str = "_tw_";

fn fail(line: usize, what: impl AsRef<str>) -> Error {
    Error::Template {
        what: format!("line {line}: {}", what.as_ref()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Text,
    Number,
    Operator,
}

/// A token of an expression: where it stands in the source, and what it is replaced by.
#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    at: Range<usize>,
    before: String,
    text: Option<String>,
    after: String,
}

/// A piece of a template.
enum Piece {
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

/// Rewrites a whole template; errors name the line.
pub(super) fn rewrite(source: &str) -> Result<String> {
    if source.len() > MAX_SOURCE {
        return Err(Error::Limit {
            what: "the chat template's length in bytes".into(),
            found: source.len() as u64,
            limit: MAX_SOURCE as u64,
        });
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut pieces = split(&source)?;
    let variadic = variadic_macros(&source, &pieces);
    let marks = marks_strings(&source, &pieces);
    let mut blocks = Blocks::default();
    let mut out = String::with_capacity(source.len() * 2);
    for piece in &mut pieces {
        match piece {
            Piece::Copy(at) => out.push_str(&source[at.clone()]),
            Piece::Raw { open, text, close } => {
                // `+%}` keeps the newline that trim_blocks would drop.
                out.push_str("{%");
                out.extend(*open);
                out.push_str(" if true +%}{{ ");
                quote(text, &mut out);
                out.push_str(" }}{%+ endif ");
                out.extend(*close);
                out.push_str("%}");
            }
            Piece::Tag {
                block,
                at,
                line,
                tokens,
            } => {
                let mut tag = Tag {
                    source: &source,
                    line: *line,
                    marks,
                    tokens,
                };
                if *block {
                    blocks.follow(&tag)?;
                    tag.statement(&variadic)?;
                } else {
                    tag.expression(0..tag.tokens.len(), &variadic)?;
                    let all = 0..tag.tokens.len();
                    tag.wrap_tuple(all);
                }
                assemble(&source, at.clone(), tokens, &mut out);
            }
        }
    }
    Ok(out)
}

/// Writes a tag with its tokens replaced; what stands between them stays.
fn assemble(source: &str, at: Range<usize>, tokens: &[Token], out: &mut String) {
    let mut done = at.start;
    for token in tokens {
        out.push_str(&source[done..token.at.start]);
        out.push_str(&token.before);
        match &token.text {
            Some(text) => out.push_str(text),
            None => out.push_str(&source[token.at.clone()]),
        }
        out.push_str(&token.after);
        done = token.at.end;
    }
    out.push_str(&source[done..at.end]);
}

// ------------------------------------------------------------------------------------------------ lexer

fn line_of(source: &str, at: usize) -> usize {
    source.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Divides a template into text and tags.
fn split(source: &str) -> Result<Vec<Piece>> {
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
                '(' | '[' | '{' => open.push(c as u8),
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
fn quote(text: &str, out: &mut String) {
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

// ----------------------------------------------------------------------------------------------- blocks

/// The blocks that are open, to bound their depth and to keep `break` within its loop.
#[derive(Default)]
struct Blocks {
    open: Vec<(&'static str, usize)>,
}

const BLOCKS: [&str; 10] = [
    "for",
    "if",
    "with",
    "filter",
    "call",
    "macro",
    "autoescape",
    "generation",
    "block",
    "set",
];

impl Blocks {
    fn follow(&mut self, tag: &Tag<'_>) -> Result<()> {
        let Some(word) = tag.tokens.first().map(|token| tag.word(token)) else {
            return Err(fail(tag.line, "an empty tag"));
        };
        if let Some(ended) = word.strip_prefix("end") {
            // What does not match is the parser's to report.
            if self.open.last().is_some_and(|(open, _)| *open == ended) {
                self.open.pop();
            }
            return Ok(());
        }
        match word {
            "elif" => {
                if let Some((_, weight)) = self.open.last_mut() {
                    *weight += 1;
                }
            }
            "break" | "continue" => {
                let inner = self
                    .open
                    .iter()
                    .rev()
                    .map(|(open, _)| *open)
                    .find(|open| *open != "if");
                if inner != Some("for") {
                    return Err(fail(tag.line, format!("'{word}' must stand directly in a loop")));
                }
            }
            "include" | "import" | "from" | "extends" => {
                return Err(fail(
                    tag.line,
                    format!("'{word}': a chat template cannot load other templates"),
                ));
            }
            "set" if tag.assignment().is_some() => {}
            _ => {
                if let Some(name) = BLOCKS.iter().find(|name| **name == word) {
                    self.open.push((name, 1));
                }
            }
        }
        let depth: usize = self.open.iter().map(|(_, weight)| weight).sum();
        if self.open.len() > MAX_BLOCKS || depth > MAX_BLOCK_DEPTH {
            return Err(Error::Limit {
                what: format!("line {}: the depth of a chat template's blocks", tag.line),
                found: depth as u64,
                limit: if self.open.len() > MAX_BLOCKS {
                    MAX_BLOCKS
                } else {
                    MAX_BLOCK_DEPTH
                } as u64,
            });
        }
        Ok(())
    }
}

/// Whether the template has a filter that marks strings as safe, which changes what `+` does to them.
fn marks_strings(source: &str, pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| match piece {
        Piece::Tag { tokens, .. } => tokens
            .iter()
            .any(|token| matches!(&source[token.at.clone()], "safe" | "escape" | "e" | "forceescape")),
        _ => false,
    })
}

/// Names of the macros whose bodies mention `varargs` or `kwargs`.
fn variadic_macros(source: &str, pieces: &[Piece]) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut open: Vec<&str> = Vec::new();
    for piece in pieces {
        let Piece::Tag { block, tokens, .. } = piece else {
            continue;
        };
        let word = |i: usize| tokens.get(i).map_or("", |token| &source[token.at.clone()]);
        if *block && word(0) == "macro" {
            open.push(word(1));
        } else if *block && word(0) == "endmacro" {
            open.pop();
        }
        let uses = tokens.iter().enumerate().any(|(i, token)| {
            token.kind == Kind::Name
                && matches!(word(i), "varargs" | "kwargs")
                && (i == 0 || word(i - 1) != ".")
        });
        if let (true, Some(name)) = (uses, open.last()) {
            names.insert((*name).to_owned());
        }
    }
    names
}

// ------------------------------------------------------------------------------------------ expressions

/// One tag under way.
struct Tag<'a> {
    source: &'a str,
    line: usize,
    /// The template marks strings as safe somewhere.
    marks: bool,
    tokens: &'a mut Vec<Token>,
}

/// A bracket that is open while an expression is read.
struct Bracket {
    at: usize,
    /// It follows a value, so it is a call or a subscript.
    postfix: bool,
    commas: Vec<usize>,
    colons: Vec<usize>,
    /// Operators since the last comma, and the deepest operand since then.
    chain: usize,
    operand: usize,
    /// The deepest element before.
    deepest: usize,
}

impl Bracket {
    fn new(at: usize, postfix: bool) -> Self {
        Self {
            at,
            postfix,
            commas: Vec::new(),
            colons: Vec::new(),
            chain: 0,
            operand: 0,
            deepest: 0,
        }
    }

    fn depth(&self) -> usize {
        self.deepest.max(self.chain + self.operand)
    }

    fn next_element(&mut self) {
        self.deepest = self.depth();
        self.chain = 0;
        self.operand = 0;
    }
}

impl Tag<'_> {
    fn word(&self, token: &Token) -> &str {
        &self.source[token.at.clone()]
    }

    fn is(&self, i: usize, text: &str) -> bool {
        self.tokens
            .get(i)
            .is_some_and(|token| token.kind != Kind::Text && self.word(token) == text)
    }

    /// The indices of the tokens in `range` that stand in no bracket.
    fn top_level(&self, range: Range<usize>) -> Vec<usize> {
        let mut depth = 0usize;
        let mut found = Vec::new();
        for i in range {
            if self.tokens[i].kind == Kind::Operator {
                match self.word(&self.tokens[i]) {
                    "(" | "[" | "{" => {
                        if depth == 0 {
                            found.push(i);
                        }
                        depth += 1;
                        continue;
                    }
                    ")" | "]" | "}" => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            found.push(i);
                        }
                        continue;
                    }
                    _ => {}
                }
            }
            if depth == 0 {
                found.push(i);
            }
        }
        found
    }

    /// Where the `=` of `set target = value` stands.
    fn assignment(&self) -> Option<usize> {
        self.top_level(1..self.tokens.len())
            .into_iter()
            .find(|&i| self.is(i, "="))
    }

    fn around(&mut self, range: Range<usize>, open: &str, close: &str) {
        if range.is_empty() {
            return;
        }
        // Later wrappings lie outside of earlier ones.
        self.tokens[range.start].before.insert_str(0, open);
        self.tokens[range.end - 1].after.push_str(close);
    }

    /// Where the expression in `range` is a tuple without parentheses, makes it one.
    fn wrap_tuple(&mut self, range: Range<usize>) -> bool {
        let tuple = self.top_level(range.clone()).into_iter().any(|i| self.is(i, ","));
        if tuple {
            self.around(range, &format!("{TUPLE}("), ")");
        }
        tuple
    }

    /// Rewrites what stands in `{% … %}`.
    fn statement(&mut self, variadic: &HashSet<String>) -> Result<()> {
        let end = self.tokens.len();
        let word = self
            .tokens
            .first()
            .map_or("", |token| &self.source[token.at.clone()]);
        match word {
            "generation" | "block" => {
                self.tokens[0].text = Some("with".into());
                self.drop_from(1);
            }
            "endgeneration" | "endblock" => {
                self.tokens[0].text = Some("endwith".into());
                self.drop_from(1);
            }
            "set" => match self.assignment() {
                None => self.expression(1..end, variadic)?,
                Some(equals) => {
                    let dotted = (1..equals).any(|i| self.is(i, "."));
                    self.expression(equals + 1..end, variadic)?;
                    self.wrap_tuple(equals + 1..end);
                    let settle = if dotted { SETTLE_ATTRIBUTE } else { SETTLE };
                    self.around(equals + 1..end, &format!("{settle}("), ")");
                }
            },
            "for" => {
                let top = self.top_level(1..end);
                let Some(&within) = top.iter().find(|&&i| self.is(i, "in")) else {
                    return Err(fail(self.line, "'for' without 'in'"));
                };
                let until = top
                    .iter()
                    .copied()
                    .find(|&i| i > within && (self.is(i, "if") || self.is(i, "recursive")))
                    .unwrap_or(end);
                self.expression(within + 1..end, variadic)?;
                self.wrap_tuple(within + 1..until);
                self.around(within + 1..until, &format!("{ITERATE}("), ")");
            }
            "macro" => {
                let name = self
                    .tokens
                    .get(1)
                    .map_or("", |token| &self.source[token.at.clone()]);
                if variadic.contains(name) && self.is(2, "(") && self.is(end - 1, ")") {
                    let first = self.is(end - 2, "(") || self.is(end - 2, ",");
                    let more = if first {
                        "varargs=none, kwargs=none"
                    } else {
                        ", varargs=none, kwargs=none"
                    };
                    self.tokens[end - 1].before = more.into();
                }
                self.expression(1..end, &HashSet::new())?;
            }
            // The word after these is a statement's own, not a value that a bracket could follow.
            "call" if self.is(1, "(") => {
                let close = self
                    .top_level(1..end)
                    .into_iter()
                    .find(|&i| self.is(i, ")"))
                    .unwrap_or(end - 1);
                self.expression(close + 1..end, variadic)?;
            }
            _ => self.expression(1..end, variadic)?,
        }
        Ok(())
    }

    fn drop_from(&mut self, first: usize) {
        for token in self.tokens.iter_mut().skip(first) {
            token.text = Some(String::new());
        }
    }

    /// Whether a value ends at token `i`, so that a bracket behind it is a call or subscript and a sign an operator.
    fn ends_value(&self, i: usize, first: usize) -> bool {
        let token = &self.tokens[i];
        match token.kind {
            Kind::Text | Kind::Number => true,
            Kind::Operator => matches!(self.word(token), ")" | "]" | "}"),
            Kind::Name => {
                let named = i > first && (self.is(i - 1, ".") || self.is(i - 1, "|"));
                named
                    || !matches!(
                        self.word(token),
                        "in" | "and" | "or" | "not" | "if" | "else" | "is" | "recursive"
                    )
            }
        }
    }

    /// Whether token `i` is the name of a test, which an argument may follow.
    fn is_test_name(&self, i: usize, first: usize) -> bool {
        self.tokens[i].kind == Kind::Name
            && i > first
            && (self.is(i - 1, "is") || (i > first + 1 && self.is(i - 1, "not") && self.is(i - 2, "is")))
    }

    /// Rewrites the expression in `range`.
    fn expression(&mut self, range: Range<usize>, variadic: &HashSet<String>) -> Result<()> {
        let first = range.start;
        if self.marks {
            self.sums(range.clone(), first);
        }
        let mut open = vec![Bracket::new(usize::MAX, false)];
        for i in range.clone() {
            let behind_value = i > first && self.ends_value(i - 1, first);
            let behind_test = i > first && self.is_test_name(i - 1, first);
            let (kind, word) = (self.tokens[i].kind, self.word(&self.tokens[i]).to_owned());
            let innermost = open.last_mut().expect("the outermost bracket is never closed");
            match (kind, word.as_str()) {
                (Kind::Operator, "(" | "[" | "{") => {
                    innermost.chain += 1;
                    // `is test [..]` passes a list; `is test(..)` calls.
                    let postfix = behind_value && word != "{" && !(behind_test && word == "[");
                    open.push(Bracket::new(i, postfix));
                }
                (Kind::Operator, ")" | "]" | "}") => {
                    let Some(bracket) = (open.len() > 1).then(|| open.pop()).flatten() else {
                        return Err(fail(self.line, format!("unexpected '{word}'")));
                    };
                    let outer = open.last_mut().expect("the outermost bracket is never closed");
                    outer.operand = outer.operand.max(bracket.depth());
                    if self.marks {
                        self.sums(bracket.at + 1..i, first);
                    }
                    self.close(&bracket, i)?;
                }
                (Kind::Operator, ",") => {
                    innermost.commas.push(i);
                    innermost.next_element();
                }
                (Kind::Operator, ":") => {
                    innermost.colons.push(i);
                    innermost.next_element();
                }
                (Kind::Operator, operator) => {
                    innermost.chain += 1;
                    if operator == "+" && !behind_value {
                        self.tokens[i].text = Some(String::new());
                    } else if operator == "%" && i > first && self.tokens[i - 1].kind == Kind::Text {
                        self.printf(i, range.end);
                    }
                }
                (Kind::Name, "in" | "and" | "or" | "not" | "if" | "else" | "is") => innermost.chain += 1,
                (Kind::Name, name) => {
                    let called = self.is(i + 1, "(") && i + 1 < range.end;
                    let free = i == first || !(self.is(i - 1, ".") || self.is(i - 1, "|"));
                    if called && free && variadic.contains(name) {
                        self.tokens[i].before.push_str(&format!("{CALL}("));
                        self.tokens[i + 1].text = Some(if self.is(i + 2, ")") {
                            String::new()
                        } else {
                            ", ".into()
                        });
                    } else if called && name == "cycle" && i > first && self.is(i - 1, ".") {
                        self.cycle(i, first)?;
                    }
                }
                _ => {}
            }
            let depth: usize = open.iter().map(Bracket::depth).sum();
            if depth > MAX_EXPRESSION_DEPTH {
                return Err(Error::Limit {
                    what: format!(
                        "line {}: the depth of an expression of the chat template",
                        self.line
                    ),
                    found: depth as u64,
                    limit: MAX_EXPRESSION_DEPTH as u64,
                });
            }
        }
        Ok(())
    }

    /// Rewrites the sums among the tokens of one element of an expression, all in the same bracket: from the first
    /// operand to each right operand's end, `a + b` becomes `(a)|_tw_add(b)`.
    fn sums(&mut self, range: Range<usize>, first: usize) {
        let top = self.top_level(range.clone());
        // What binds less tightly than a sum ends it.
        let ends_sum = |tag: &Self, i: usize| {
            let token = &tag.tokens[i];
            match token.kind {
                Kind::Name => {
                    matches!(
                        tag.word(token),
                        "in" | "and" | "or" | "not" | "if" | "else" | "recursive"
                    ) && !(i > first && (tag.is(i - 1, ".") || tag.is(i - 1, "|") || tag.is(i - 1, "is")))
                }
                Kind::Operator => {
                    matches!(
                        tag.word(token),
                        "==" | "!=" | "<" | "<=" | ">" | ">=" | "=" | "," | ":"
                    )
                }
                _ => false,
            }
        };
        let mut start = range.start;
        let mut operators: Vec<usize> = Vec::new();
        for i in top.into_iter().chain([range.end]) {
            let ended = i == range.end || ends_sum(self, i);
            if ended {
                for (n, &plus) in operators.iter().enumerate() {
                    if !self.is(plus, "+") {
                        continue;
                    }
                    let until = operators.get(n + 1).copied().unwrap_or(i);
                    self.tokens[start].before.insert(0, '(');
                    self.tokens[plus].text = Some(format!(")|{}(", super::filters::ADD));
                    self.tokens[until - 1].after.push(')');
                }
                operators.clear();
                start = i + 1;
            } else if i > start && (self.is(i, "+") || self.is(i, "-")) && self.ends_value(i - 1, first) {
                operators.push(i);
            }
        }
    }

    /// Rewrites the bracket that token `end` closes.
    fn close(&mut self, bracket: &Bracket, end: usize) -> Result<()> {
        let start = bracket.at;
        match (self.word(&self.tokens[start]), bracket.postfix) {
            ("[", false) => self.replace_brackets(start, end, &format!("{LIST}(")),
            ("(", false) if !bracket.commas.is_empty() || end == start + 1 => {
                self.replace_brackets(start, end, &format!("{TUPLE}("));
            }
            ("{", _) => {
                // Keys and values by turns: a colon, a comma, a colon, …
                let mut separators: Vec<(usize, bool)> = bracket.commas.iter().map(|&i| (i, false)).collect();
                separators.extend(bracket.colons.iter().map(|&i| (i, true)));
                separators.sort_unstable();
                let alternate = separators
                    .iter()
                    .enumerate()
                    .all(|(n, &(_, colon))| colon == (n % 2 == 0));
                let trailing = separators
                    .last()
                    .is_some_and(|&(i, colon)| !colon && i + 1 == end);
                let complete = separators.len() % 2 == 1 || trailing || end == start + 1;
                if !alternate || !complete {
                    return Err(fail(self.line, "a dict needs 'key: value' pairs"));
                }
                for &colon in &bracket.colons {
                    self.tokens[colon].text = Some(",".into());
                }
                self.replace_brackets(start, end, &format!("{DICT}("));
            }
            ("[", true) if !bracket.colons.is_empty() => {
                if bracket.colons.len() > 2 || !bracket.commas.is_empty() {
                    return Err(fail(self.line, "a slice has at most a start, a stop and a step"));
                }
                let mut part = start;
                for &colon in &bracket.colons {
                    let empty = colon == part + 1;
                    self.tokens[colon].text = Some(if empty { "none," } else { "," }.into());
                    part = colon;
                }
                self.replace_brackets(start, end, "._tw_slice(");
                if end == part + 1 {
                    self.tokens[end].text = Some("none)".into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn replace_brackets(&mut self, start: usize, end: usize, open: &str) {
        self.tokens[start].text = Some(open.into());
        self.tokens[end].text = Some(")".into());
    }

    /// Rewrites `"…" % operand`, the `%` at `at`: the operand reaches to the next operator that binds no tighter.
    fn printf(&mut self, at: usize, end: usize) {
        let mut until = at + 1;
        let top = self.top_level(at + 1..end);
        // In a bracket that closes before `end`, the walk stops at its closing token.
        let mut depth = 0i32;
        for i in at + 1..end {
            let word = self.word(&self.tokens[i]);
            if self.tokens[i].kind == Kind::Operator {
                match word {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" if depth == 0 => break,
                    ")" | "]" | "}" => depth -= 1,
                    "**" | "|" | "." => {}
                    "-" | "+" if i == at + 1 => {}
                    _ if depth == 0 => break,
                    _ => {}
                }
            } else if depth == 0
                && self.tokens[i].kind == Kind::Name
                && matches!(word, "and" | "or" | "not" | "if" | "else" | "in" | "is")
                && top.contains(&i)
            {
                break;
            }
            until = i + 1;
        }
        if until > at + 1 {
            self.tokens[at].text = Some(format!("|{}(", super::filters::PRINTF));
            self.tokens[until - 1].after.push(')');
        }
    }

    /// Rewrites `loop.cycle(`, the name `cycle` at `at`.
    fn cycle(&mut self, at: usize, first: usize) -> Result<()> {
        let owner = at
            .checked_sub(2)
            .filter(|&i| i >= first && self.tokens[i].kind == Kind::Name);
        let free = owner.filter(|&i| i == first || !(self.is(i - 1, ".") || self.is(i - 1, "|")));
        let Some(owner) = free else {
            return Err(fail(self.line, "'cycle' is a method of 'loop' only"));
        };
        self.tokens[owner].before.push_str(&format!("{CYCLE}("));
        self.tokens[at - 1].text = Some(String::new());
        self.tokens[at].text = Some(String::new());
        self.tokens[at + 1].text = Some(if self.is(at + 2, ")") {
            String::new()
        } else {
            ", ".into()
        });
        Ok(())
    }
}
