//! Cuts a text into the pieces that BPE merges never cross, as `tokenizer.ggml.pre` names it.
//!
//! A pre-tokenizer is a list of cuts, each of the pieces that the one before it left. A cut is a regular
//! expression (what matches is a piece, what lies between matches is one too) or one of the rules for digits.
//! The expressions are in `pre_patterns.rs`; they are run by the `regex` crate, whose time is linear in the
//! text. It has no lookahead: the only one that the expressions need, `\s+(?!\S)`, is done by hand here.
//!
//! Lookahead at the end of a piece sees the end of the text, as in llama.cpp and in a sequence of Hugging Face
//! pre-tokenizers.

use regex::Regex;

use super::pre_patterns::{self, Definition};
use crate::{Error, Result};

/// The cuts of a pre-tokenizer, compiled.
pub(super) struct PreTokenizer {
    cutters: Vec<Cutter>,
}

/// How pieces are cut, as written in the list of pre-tokenizers.
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

/// A [`Cut`] with its expression compiled.
enum Cutter {
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
    /// Compiles the cuts of `definition`.
    ///
    /// # Errors
    /// `Tokenizer` where an expression does not compile (the tests compile all).
    pub(super) fn new(definition: &Definition) -> Result<Self> {
        let cutters = definition
            .cuts
            .iter()
            .map(|&cut| Cutter::new(cut))
            .collect::<Result<_>>()?;
        Ok(Self { cutters })
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
        for cutter in &self.cutters {
            std::mem::swap(&mut before, ends);
            ends.clear();
            let mut start = 0;
            for &end in &before {
                let end = end as usize;
                cutter.split(&text[start..end], start as u32, ends);
                start = end;
            }
        }
    }
}

impl Cutter {
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
                    Some(head) => Cutter::Regex {
                        regex: compile(&format!(r"{head}|\s+"))?,
                        spaces: Spaces::LeaveLast {
                            newlines: head.contains(r"|\s*[\r\n]"),
                        },
                    },
                    None => Cutter::Regex {
                        regex: compile(pattern)?,
                        spaces: Spaces::AsMatched,
                    },
                }
            }
            Cut::RegexThenPowersOfTwo(pattern) => Cutter::Regex {
                regex: compile(&format!(r"{pattern}|\s+"))?,
                spaces: Spaces::PowersOfTwo,
            },
            Cut::DigitGroups => Cutter::Digits(Digits::All),
            Cut::AsciiDigitGroups => Cutter::Digits(Digits::Ascii),
            Cut::AsciiDigitGroupsOfWords => Cutter::Digits(Digits::AsciiWords),
        })
    }

    /// Appends the ends of the pieces of `piece`, which begins at `base`.
    fn split(&self, piece: &str, base: u32, ends: &mut Vec<u32>) {
        match self {
            Cutter::Regex { regex, spaces } => split_regex(regex, *spaces, piece, base, ends),
            Cutter::Digits(digits) => split_digits(*digits, piece, base, ends),
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
            Digits::AsciiWords => !follows.is_some_and(pre_patterns::is_word),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        let definition = pre_patterns::find(name).unwrap();
        let mut ends = Vec::new();
        PreTokenizer::new(&definition).unwrap().split(text, &mut ends);
        let mut start = 0;
        ends.iter()
            .map(|&end| &text[std::mem::replace(&mut start, end as usize)..end as usize])
            .collect()
    }

    #[test]
    fn every_name_is_there_once_and_its_pieces_make_up_the_text() {
        let mut names: Vec<&str> = pre_patterns::names().collect();
        let text = "  I'm  1234567 \t\r\n\n x1  中文ДОМдом e\u{301}! <sentinel:1> 😀…  ";
        for name in &names {
            assert_eq!(pieces(name, text).concat(), text, "{name}");
            assert!(pieces(name, text).iter().all(|piece| !piece.is_empty()), "{name}");
            assert!(pieces(name, "").is_empty());
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(pre_patterns::find("no such name").is_none());
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        assert_eq!(pieces("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(pieces("gpt-2", "a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(pieces("gpt-2", "a\t\u{a0}"), ["a", "\t\u{a0}"]);
        assert_eq!(pieces("llama-bpe", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(
            pieces("llama-bpe", "a   \u{3000}7 "),
            ["a", "   ", "\u{3000}", "7", " "]
        );
        assert_eq!(pieces("spark2_5", " \n x"), [" \n", " x"]);
        assert_eq!(pieces("bailingmoe", " \n \n x"), [" \n \n", " x"]);
    }

    #[test]
    fn jais_2_cuts_white_space_into_powers_of_two() {
        let spaces = " ".repeat(1300);
        let lengths = |text: &str| {
            pieces("jais-2", text)
                .iter()
                .map(|piece| piece.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths(&spaces), [512, 512, 256, 16, 4]);
        assert_eq!(lengths(&format!("{spaces}a")), [512, 512, 256, 16, 2, 1, 2]);
        assert_eq!(pieces("jais-2", "a  b"), ["a", " ", " b"]);
        assert_eq!(pieces("jais-2", "a\tb \nc"), ["a", "\tb", " \n", "c"]);
        assert_eq!(pieces("jais-2", "a\t1"), ["a", "\t", "1"]);
    }

    #[test]
    fn digits_are_grouped_from_the_left_or_the_right() {
        assert_eq!(pieces("llama-bpe", "12345"), ["123", "45"]);
        assert_eq!(pieces("qwen2", "12"), ["1", "2"]);
        assert_eq!(pieces("superbpe", "a12345b123"), ["a", "12", "345", "b", "123"]);
        assert_eq!(
            pieces("tiny_aya", "1234 12345a"),
            ["1", "234", " ", "123", "45", "a"]
        );
        assert_eq!(pieces("afmoe", "1234567 12"), ["1", "234", "567", " ", "12"]);
    }

    #[test]
    fn case_and_scripts() {
        assert_eq!(pieces("tekken", "HelloWORLDagain"), ["Hello", "WORLDagain"]);
        assert_eq!(pieces("gpt-4o", "camelCase's"), ["camel", "Case's"]);
        assert_eq!(pieces("tiny_aya", "camelCase's"), ["camelCase's"]);
        assert_eq!(pieces("k2-horizon", "a\u{200d}b c"), ["a\u{200d}b", " c"]);
        assert_eq!(pieces("kimi-k2", "abc中文def"), ["abc", "中文", "def"]);
        assert_eq!(pieces("deepseek-llm", "中文abc 한"), ["中文", "abc", " ", "한"]);
        assert_eq!(pieces("gemma4", "a b\n\nc"), ["a b", "\n\n", "c"]);
        assert_eq!(
            pieces("exaone-moe", "all in one, not"),
            ["all in one", ",", " not"]
        );
    }
}
