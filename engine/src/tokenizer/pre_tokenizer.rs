//! Cuts a text into the pieces that BPE merges never cross, as `tokenizer.ggml.pre` names it.
//!
//! A pre-tokenizer is a list of passes, each cutting the pieces of the one before it. A pass is a regular
//! expression (what matches is a piece, what lies between matches is one too) or one of two rules for digits.
//! The expressions are in `pre_patterns.rs`; they are run by the `regex` crate, whose time is linear in the
//! text. It has no lookahead: the only one that the expressions need, `\s+(?!\S)`, is done by hand here.
//!
//! Lookahead at the end of a piece sees the end of the text, as in llama.cpp and in a sequence of Hugging Face
//! pre-tokenizers.

use regex::Regex;

use super::pre_patterns::{self, Definition};
use crate::{Error, Result};

/// The passes of a pre-tokenizer.
pub(super) struct PreTokenizer {
    passes: Vec<Pass>,
}

/// How a pass cuts a piece, as written in the list of pre-tokenizers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cut {
    /// At the matches of an expression, which may end in the alternatives `\s+(?!\S)|\s+`.
    Regex(&'static str),
    /// As [`Cut::Regex`] on an expression without white space alternatives at its end; white space that it
    /// leaves is cut, from the left, into runs of the largest of 512, 256, 128, 64, 32, 16, 8, 4, 2, 1
    /// characters after which no other character follows (Jais 2).
    RegexThenPowersOfTwo(&'static str),
    /// Digits `\p{N}` in groups of three from the right; what stands before the digits is left with the first
    /// of them (AFMoE, as llama.cpp does it).
    DigitGroups,
    /// `(?=(\d{3})+(?!\d))`: ASCII digits in groups of three from the right (SuperBPE).
    AsciiDigitGroups,
    /// `\d{1,3}(?=(?:\d{3})*\b)`: as [`Cut::AsciiDigitGroups`], unless a word character follows (Tiny Aya).
    AsciiDigitGroupsOfWords,
}

enum Pass {
    Regex { regex: Regex, spaces: Spaces },
    Digits(Digits),
}

/// What follows the expression's other alternatives for white space.
#[derive(Clone, Copy, PartialEq)]
enum Spaces {
    /// Nothing special.
    AsMatched,
    /// `\s+(?!\S)`: the last of several white space characters stays with the next match. `newlines`: an
    /// earlier alternative takes white space up to the last line break, so a match that ends in one is not
    /// this alternative's.
    LeaveLast { newlines: bool },
    /// Powers of two.
    PowersOfTwo,
}

#[derive(Clone, Copy, PartialEq)]
enum Digits {
    All,
    Ascii,
    AsciiWords,
}

impl PreTokenizer {
    /// Compiles the passes of `definition`.
    ///
    /// # Errors
    /// `Tokenizer` where an expression does not compile (the tests compile all).
    pub(super) fn new(definition: &Definition) -> Result<Self> {
        let passes = definition
            .cuts
            .iter()
            .map(|&cut| Pass::new(cut))
            .collect::<Result<_>>()?;
        Ok(Self { passes })
    }

    /// The ends of the pieces of `text`, ascending, the last one `text.len()`; none for an empty text. `ends`
    /// is overwritten. The text is shorter than 4 GiB.
    pub(super) fn split(&self, text: &str, ends: &mut Vec<u32>) {
        ends.clear();
        if text.is_empty() {
            return;
        }
        ends.push(text.len() as u32);
        let mut before = Vec::new();
        for pass in &self.passes {
            std::mem::swap(&mut before, ends);
            ends.clear();
            let mut start = 0;
            for &end in &before {
                let end = end as usize;
                pass.split(&text[start..end], start as u32, ends);
                start = end;
            }
        }
    }
}

impl Pass {
    fn new(cut: Cut) -> Result<Self> {
        let compile = |pattern: &str| {
            Regex::new(pattern).map_err(|error| Error::Tokenizer {
                what: format!("the pre-tokenizer's expression does not compile: {error}"),
            })
        };
        Ok(match cut {
            Cut::Regex(pattern) => {
                let tail = pattern.strip_suffix(r"|\s+").unwrap_or(pattern);
                match tail.strip_suffix(r"|\s+(?!\S)") {
                    Some(head) => Pass::Regex {
                        regex: compile(&format!(r"{head}|\s+"))?,
                        spaces: Spaces::LeaveLast {
                            newlines: head.contains(r"|\s*[\r\n]"),
                        },
                    },
                    None => Pass::Regex {
                        regex: compile(pattern)?,
                        spaces: Spaces::AsMatched,
                    },
                }
            }
            Cut::RegexThenPowersOfTwo(pattern) => Pass::Regex {
                regex: compile(&format!(r"{pattern}|\s+"))?,
                spaces: Spaces::PowersOfTwo,
            },
            Cut::DigitGroups => Pass::Digits(Digits::All),
            Cut::AsciiDigitGroups => Pass::Digits(Digits::Ascii),
            Cut::AsciiDigitGroupsOfWords => Pass::Digits(Digits::AsciiWords),
        })
    }

    /// Appends the ends of the pieces of `piece`, which begins at `base`.
    fn split(&self, piece: &str, base: u32, ends: &mut Vec<u32>) {
        match self {
            Pass::Regex { regex, spaces } => split_regex(regex, *spaces, piece, base, ends),
            Pass::Digits(digits) => split_digits(*digits, piece, base, ends),
        }
    }
}

fn split_regex(regex: &Regex, spaces: Spaces, piece: &str, base: u32, ends: &mut Vec<u32>) {
    let mut at = 0;
    while at < piece.len() {
        let Some(found) = regex.find_at(piece, at).filter(|found| !found.is_empty()) else {
            ends.push(base + piece.len() as u32);
            return;
        };
        if found.start() > at {
            ends.push(base + found.start() as u32);
        }
        at = found.end();
        let by_spaces_alternative = match spaces {
            Spaces::AsMatched => false,
            Spaces::LeaveLast { newlines: false } => true,
            Spaces::LeaveLast { newlines: true } | Spaces::PowersOfTwo => {
                !found.as_str().ends_with(['\r', '\n'])
            }
        };
        let last = found.as_str().chars().next_back();
        if by_spaces_alternative
            && last.is_some_and(char::is_whitespace)
            && found.as_str().chars().all(char::is_whitespace)
        {
            let at_end = found.end() == piece.len();
            let mut free = found.as_str().chars().count();
            let last_start = found.end() - last.map_or(0, char::len_utf8);
            match spaces {
                Spaces::PowersOfTwo => {
                    free -= usize::from(!at_end);
                    let mut chars = found.as_str().char_indices().map(|(i, c)| i + c.len_utf8());
                    while free > 0 {
                        let run = (1 << free.ilog2()).min(512);
                        free -= run;
                        let end = chars.nth(run - 1).unwrap_or(found.as_str().len());
                        ends.push(base + (found.start() + end) as u32);
                    }
                    if !at_end && last_start > found.start() {
                        at = last_start;
                        continue;
                    }
                    if at_end {
                        continue;
                    }
                }
                _ if !at_end && free > 1 => at = last_start,
                _ => {}
            }
        }
        ends.push(base + at as u32);
    }
}

/// Groups of three from the right in every run of digits; the rest is left as it is.
fn split_digits(digits: Digits, piece: &str, base: u32, ends: &mut Vec<u32>) {
    let is_digit = |c: char| match digits {
        Digits::All => pre_patterns::is_number(c),
        Digits::Ascii | Digits::AsciiWords => c.is_ascii_digit(),
    };
    let mut cut = |end: usize| {
        let end = base + end as u32;
        // the end of the piece before it, and an empty piece, are cut already
        if end > base && ends.last() != Some(&end) {
            ends.push(end);
        }
    };
    let mut rest = piece;
    while let Some(first) = rest.find(is_digit) {
        let start = piece.len() - rest.len() + first;
        let run = piece[start..].split(|c| !is_digit(c)).next().unwrap_or_default();
        let end = start + run.len();
        let follows = piece[end..].chars().next();
        let grouped = match digits {
            Digits::AsciiWords => !follows.is_some_and(|c| c.is_alphanumeric() || c == '_'),
            Digits::All | Digits::Ascii => true,
        };
        if grouped {
            let count = run.chars().count();
            for (i, (offset, _)) in run.char_indices().enumerate() {
                let before_group = (count - i).is_multiple_of(3);
                let here = match digits {
                    Digits::All => before_group && i > 0,
                    Digits::Ascii => before_group,
                    Digits::AsciiWords => before_group || i == 0,
                };
                if here {
                    cut(start + offset);
                }
            }
            if digits != Digits::Ascii {
                cut(end);
            }
        }
        rest = &piece[end..];
    }
    cut(piece.len());
}
