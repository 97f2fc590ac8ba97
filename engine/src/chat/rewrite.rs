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
//! | `x[e]`, `x.0`; not `x['name']` | `x._tw_item(e)` | an index into a long string is work |
//! | `a < b in c` | `_tw_compare("< in", a, b, c)` | Python's errors; comparing long strings is work |
//! | `a + b + c`, `a * b` | `_tw_add(a, b, c)`, `_tw_mul(a, b)` | lists, not lazy views; markupsafe escapes in sums |
//! | `'\x41\z'` | `'A\\z'` | Python's escapes |
//! | `loop.cycle(a)` | `_tw_cycle(loop, a)` | the engine's divides by the number of arguments |
//! | `generation`, `block` | `with` | a scope, and nothing more without a trainer or a parent template |
//! | `raw` | a string | the engine drops the newline after the tag |
//! | `a ~ b` | `_tw_concat(a, b)` | Python's `str()` |
//! | `-x`, `+x` | `_tw_neg(x)`, `_tw_pos(x)` | the sign of a bool; no operator `+` |
//! | macros that use `varargs`, `kwargs` | two more parameters, called by `_tw_call` | the engine lacks them |
//!
//! Here also are the limits on the shape of a template: the engine's parser and compiler recurse over chains of
//! operators, `elif` and brackets, so these are counted before it sees them.

use std::collections::HashSet;
use std::ops::Range;

use crate::{Error, Result};

use super::expression::Tag;
use super::lexer::{Kind, Piece, Token, fail, quote, split};

/// Longest template, in bytes; the longest of well-known models is about 20 KB.
pub(super) const MAX_SOURCE: usize = 256 * 1024;
/// Blocks nest at most this deep, each `elif` counted as one more.
const MAX_BLOCK_DEPTH: usize = 200;
/// `{% if %}` and its like within each other, not counting `elif`.
const MAX_BLOCKS: usize = 50;
/// Names that begin so belong to the rewriter.
pub(super) const RESERVED: &str = "_tw_";

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
