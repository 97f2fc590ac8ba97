//! WordPiece (`tokenizer.ggml.model` = `bert`): the text is normalised and cut into words, and each word is covered
//! from the left by the longest tokens; a word that they do not cover is the unknown token.
//!
//! GGUF's vocabularies mark the beginning of a word with U+2581 and write continuations bare (the original has
//! `##` before continuations). Normalisation is llama.cpp's (`llm_tokenizer_wpm_session::preprocess`): with
//! strip_accents a character becomes the first of its canonical decomposition and marks are dropped; lowercase
//! is the first character of the lower-case form.

use unicode_general_category::{GeneralCategory, get_general_category};

use super::byte_text::SPACE_MARK;
use super::trie::Trie;
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::gguf::Metadata;

/// The vocabulary as a prefix tree, and how texts are normalised.
pub(super) struct Wpm {
    tokens: Trie,
    lowercase: bool,
    strip_accents: bool,
}

impl Wpm {
    /// Reads the normaliser's switches of `m`.
    ///
    /// # Errors
    /// `Metadata` where a switch is no bool.
    pub(super) fn new(m: &Metadata, vocabulary: &Vocabulary) -> Result<Self> {
        let lowercase = m.opt_bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = m
            .opt_bool("tokenizer.ggml.normalizer.strip_accents")?
            .unwrap_or(lowercase);
        let mut tokens = Trie::new();
        for id in 0..vocabulary.len() as u32 {
            tokens.insert(vocabulary.text(id).unwrap_or_default(), id);
        }
        Ok(Self {
            tokens,
            lowercase,
            strip_accents,
        })
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut word = String::new();
        for c in text.chars() {
            let c = if self.strip_accents {
                first_of_decomposition(c)
            } else {
                c
            };
            let class = Class::of(c);
            match class {
                Class::Space => self.finish_word(vocabulary, &mut word, out),
                Class::Dropped => {}
                Class::Mark if self.strip_accents => {}
                Class::Alone => {
                    self.finish_word(vocabulary, &mut word, out);
                    word.push_str(SPACE_MARK);
                    word.push(self.cased(c));
                    self.finish_word(vocabulary, &mut word, out);
                }
                Class::Mark | Class::Other => {
                    if word.is_empty() {
                        word.push_str(SPACE_MARK);
                    }
                    word.push(self.cased(c));
                }
            }
        }
        self.finish_word(vocabulary, &mut word, out);
    }

    fn cased(&self, c: char) -> char {
        if self.lowercase {
            c.to_lowercase().next().unwrap_or(c)
        } else {
            c
        }
    }

    /// Appends the tokens of `word`, which begins with the mark, and empties it.
    fn finish_word(&self, vocabulary: &Vocabulary, word: &mut String, out: &mut Vec<u32>) {
        let before = out.len();
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            match self.tokens.longest_prefix(rest) {
                Some((length, token)) => {
                    out.push(token);
                    rest = &rest[length..];
                }
                None => {
                    out.truncate(before);
                    out.extend(vocabulary.special.unk);
                    break;
                }
            }
        }
        word.clear();
    }
}

/// What becomes of a character.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Class {
    Space,
    /// Controls, format and private-use characters, U+0000, U+FFFD.
    Dropped,
    Mark,
    /// A word of its own: punctuation, ASCII symbols, CJK ideographs.
    Alone,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        use GeneralCategory as G;
        if c.is_whitespace() {
            return Self::Space;
        }
        if c == char::REPLACEMENT_CHARACTER {
            return Self::Dropped;
        }
        match get_general_category(c) {
            G::Control | G::Format | G::PrivateUse | G::Surrogate => Self::Dropped,
            G::NonspacingMark | G::SpacingMark | G::EnclosingMark => Self::Mark,
            G::ConnectorPunctuation
            | G::DashPunctuation
            | G::OpenPunctuation
            | G::ClosePunctuation
            | G::InitialPunctuation
            | G::FinalPunctuation
            | G::OtherPunctuation => Self::Alone,
            G::MathSymbol | G::CurrencySymbol | G::ModifierSymbol | G::OtherSymbol if c.is_ascii() => {
                Self::Alone
            }
            _ if is_ideograph(c) => Self::Alone,
            _ => Self::Other,
        }
    }
}

fn first_of_decomposition(c: char) -> char {
    let mut first = None;
    unicode_normalization::char::decompose_canonical(c, |part| {
        first.get_or_insert(part);
    });
    first.unwrap_or(c)
}

/// The ranges of BERT's tokenizer, with U+2B920 where it has U+2B820 (Hugging Face's implementation, which
/// llama.cpp follows).
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x20000..=0x2a6df | 0x2a700..=0x2b73f | 0x2b740..=0x2b81f
        | 0x2b920..=0x2ceaf | 0xf900..=0xfaff | 0x2f800..=0x2fa1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_characters() {
        let expect = [
            ("\t\n\r \u{a0}\u{3000}", Class::Space),
            ("\0\u{1}\u{7f}\u{ad}\u{200d}\u{fffd}\u{e000}", Class::Dropped),
            ("\u{301}\u{93f}\u{20dd}", Class::Mark),
            ("!$+<=>^`|~_-«。中", Class::Alone),
            ("aZ9é½한€№😀", Class::Other),
        ];
        for (chars, class) in expect {
            for c in chars.chars() {
                assert_eq!(Class::of(c), class, "{c:?}");
            }
        }
        assert_eq!(first_of_decomposition('ế'), 'e');
        assert_eq!(first_of_decomposition('x'), 'x');
    }
}
