//! SentencePiece Unigram (`tokenizer.ggml.model` = `t5`: T5, XLM-RoBERTa, BGE-M3): of all ways to write a text with
//! tokens the one whose scores have the highest sum.
//!
//! The text is normalised first: pieces that the character map replaces, then spaces, of which runs may become one and
//! which are written as U+2581. A character that no token covers by itself may be the unknown token, at the lowest
//! score of all normal tokens less 10; unknown tokens in a row are one. User-defined tokens count as 0. Sums are in
//! f64, so that they are those of SentencePiece and llama.cpp. At equal sums the path that was found first stays: the
//! one whose last token is longer.
//!
//! Both normalise around user-defined tokens. Here (and in llama.cpp) these are found in the text before, so that what
//! comes here has none. llama.cpp also leaves beginnings of them as they are, even a part of a character, which is
//! taken for a fault and not done here.

use super::byte_text::SPACE_MARK;
use super::charsmap::Charsmap;
use super::trie::Trie;
use super::vocabulary::{Attributes, Vocabulary};
use crate::gguf::Metadata;
use crate::{Error, Result};

/// What an unknown character costs beside the lowest score.
const UNKNOWN_PENALTY: f32 = 10.0;

/// How many times longer than the text its normalised form may be. NFKC's longest replacement is 11 times as long as
/// what it replaces.
const MAX_GROWTH: usize = 16;

/// Stands for an unknown token that the vocabulary has not.
const NO_TOKEN: u32 = u32::MAX;

/// What the model needs beside the vocabulary.
pub(super) struct Ugm {
    /// Tokens that text may be written with.
    tokens: Trie,
    charsmap: Option<Charsmap>,
    /// The score of a character that no token covers.
    unknown_score: f32,
    /// A space is put before a text.
    space_prefix: bool,
    /// Of spaces in a row one is left, none at the end, and one is put before a text.
    merge_spaces: bool,
}

/// The best way to a place of the text.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// Where its last token begins, and the token.
    start: u32,
    token: u32,
}

const UNREACHED: Best = Best {
    score: f64::NEG_INFINITY,
    start: 0,
    token: NO_TOKEN,
};

impl Ugm {
    /// Reads the character map and the rules for spaces of `m`.
    ///
    /// # Errors
    /// `Metadata` or `Limit` where they cannot be used.
    pub(super) fn new(m: &Metadata, vocabulary: &Vocabulary, space_prefix: bool) -> Result<Self> {
        let mut tokens = Trie::new();
        let mut lowest = f32::INFINITY;
        for id in 0..vocabulary.len() as u32 {
            let (attributes, score) = (vocabulary.attributes(id), vocabulary.score(id));
            // one that is no number can be part of no sum
            if !score.is_finite() {
                continue;
            }
            if attributes.any(Attributes::NORMAL) {
                lowest = if score < lowest { score } else { lowest };
            }
            if attributes.any(Attributes::NORMAL | Attributes::USER_DEFINED | Attributes::UNUSED) {
                tokens.insert(vocabulary.text(id).unwrap_or_default(), id);
            }
        }
        let lowest = if lowest.is_finite() { lowest } else { 0.0 };
        Ok(Self {
            tokens,
            charsmap: Charsmap::read(m)?,
            unknown_score: lowest - UNKNOWN_PENALTY,
            space_prefix,
            merge_spaces: m
                .opt_bool("tokenizer.ggml.remove_extra_whitespaces")?
                .unwrap_or(false),
        })
    }

    /// Whether the first token of a text prints a space that the text does not have.
    pub(super) fn puts_space_first(&self) -> bool {
        self.space_prefix || self.merge_spaces
    }

    /// Appends the tokens of `text`.
    ///
    /// # Errors
    /// `Limit` where the character map makes the text too long.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let text = self.normalise(text)?;
        let unknown = vocabulary.special.unk.unwrap_or(NO_TOKEN);
        let score_of = |token: u32| {
            if vocabulary.attributes(token).any(Attributes::USER_DEFINED) {
                0.0
            } else {
                f64::from(vocabulary.score(token))
            }
        };
        // The best way to every place from `base`, where all ways meet, to the furthest end of a token.
        let mut ways = vec![Best {
            score: 0.0,
            ..UNREACHED
        }];
        let mut words = Words {
            unknown,
            last_unknown: false,
            backwards: Vec::new(),
        };
        let (mut base, mut at) = (0, 0);
        while at < text.len() {
            if at > base && ways.len() == at - base + 1 {
                words.append(&ways, out);
                let score = ways[at - base].score;
                ways.clear();
                ways.push(Best { score, ..UNREACHED });
                base = at;
            }
            let char_len = char_len(text[at]).min(text.len() - at);
            let score = ways[at - base].score;
            let mut offer = |length: usize, token: u32, score: f64| {
                let end = at - base + length;
                if end >= ways.len() {
                    ways.resize(end + 1, UNREACHED);
                }
                if score > ways[end].score {
                    ways[end] = Best {
                        score,
                        start: (at - base) as u32,
                        token,
                    };
                }
            };
            let mut covered = false;
            self.tokens.prefixes(&text[at..], |length, token| {
                covered |= length == char_len;
                offer(length, token, score + score_of(token));
            });
            if !covered {
                offer(char_len, unknown, score + f64::from(self.unknown_score));
            }
            at += char_len;
        }
        words.append(&ways, out);
        Ok(())
    }

    /// The text as the tokens spell it.
    fn normalise(&self, text: &str) -> Result<Vec<u8>> {
        let limit = text
            .len()
            .saturating_mul(MAX_GROWTH)
            .min(u32::MAX as usize - 4096);
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(text.len() + text.len() / 2 + 3);
        let (mut in_word, mut begun) = (false, false);
        let mut at = 0;
        while at < bytes.len() {
            let replaced = self
                .charsmap
                .as_ref()
                .and_then(|charsmap| charsmap.longest(&bytes[at..]));
            let (length, piece) = match replaced {
                Some(replaced) => replaced,
                // a made-up map may have taken a part of a character
                None if !text.is_char_boundary(at) => (1, "\u{fffd}".as_bytes()),
                None => {
                    let length = char_len(bytes[at]).min(bytes.len() - at);
                    (length, &bytes[at..at + length])
                }
            };
            for &byte in piece {
                if byte == b' ' {
                    in_word = false;
                    if !self.merge_spaces {
                        out.extend_from_slice(SPACE_MARK.as_bytes());
                    }
                    continue;
                }
                if !in_word && (self.merge_spaces || (self.space_prefix && !begun)) {
                    out.extend_from_slice(SPACE_MARK.as_bytes());
                    begun = true;
                }
                in_word = true;
                out.push(byte);
            }
            if out.len() > limit {
                return Err(Error::Limit {
                    what: "the normalised text in bytes".into(),
                    found: out.len() as u64,
                    limit: limit as u64,
                });
            }
            at += length;
        }
        Ok(out)
    }
}

/// Writes ways down, one part of the text after the other.
struct Words {
    unknown: u32,
    /// Whether the token before was the unknown one, written or not.
    last_unknown: bool,
    backwards: Vec<u32>,
}

impl Words {
    /// Appends the tokens of the way to the last place.
    fn append(&mut self, ways: &[Best], out: &mut Vec<u32>) {
        let mut at = ways.len() - 1;
        self.backwards.clear();
        while at > 0 {
            self.backwards.push(ways[at].token);
            at = ways[at].start as usize;
        }
        for &token in self.backwards.iter().rev() {
            let unknown = token == self.unknown;
            if !(unknown && (self.last_unknown || token == NO_TOKEN)) {
                out.push(token);
            }
            self.last_unknown = unknown;
        }
    }
}

/// Bytes of the UTF-8 character that begins with `first`; 1 for a byte that begins none.
fn char_len(first: u8) -> usize {
    match first {
        0..=0xbf => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Array, Value};
    use crate::tokenizer::vocabulary::{SpecialIds, Spelling};

    /// Tokens with their scores; the first one is the unknown token.
    fn encode(tokens: &[(&str, f32)], space_prefix: bool, merge: bool, text: &str) -> Vec<String> {
        let mut m = Metadata::new();
        let texts = tokens.iter().map(|(text, _)| text.as_bytes().into()).collect();
        m.insert("tokenizer.ggml.tokens", Value::Array(Array::Strings(texts)));
        let scores = tokens.iter().map(|&(_, score)| score).collect();
        m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
        let types = (0..tokens.len()).map(|i| if i == 0 { 2 } else { 1 }).collect();
        m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
        m.insert("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(merge));
        let defaults = SpecialIds {
            unk: Some(0),
            ..SpecialIds::default()
        };
        let vocabulary = Vocabulary::read(&m, Spelling::SpaceMark, defaults).unwrap();
        let ugm = Ugm::new(&m, &vocabulary, space_prefix).unwrap();
        let mut out = Vec::new();
        ugm.encode(&vocabulary, text, &mut out).unwrap();
        out.iter().map(|&id| tokens[id as usize].0.to_string()).collect()
    }

    #[test]
    fn the_highest_sum_wins() {
        let tokens = [
            ("?", 0.0),
            ("a", -1.0),
            ("b", -1.0),
            ("ab", -1.5),
            ("bb", -4.0),
            ("abb", -2.5),
        ];
        let of = |text| encode(&tokens, false, false, text);
        assert_eq!(of("ab"), ["ab"]);
        // -2.5 both ways
        assert_eq!(of("abb"), ["abb"]);
        assert_eq!(of("abbab"), ["abb", "ab"]);
        // unknown characters in a row are one token
        assert_eq!(of("xyza"), ["?", "a"]);
        assert_eq!(of("axb\u{1f999}"), ["a", "?", "b", "?"]);
        assert_eq!(of(""), [""; 0]);
    }

    #[test]
    fn spaces_before_and_between() {
        let tokens = [("?", 0.0), ("a", -1.0), ("\u{2581}", -1.0)];
        let m = "\u{2581}";
        let of = |prefix, merge, text| encode(&tokens, prefix, merge, text);
        assert_eq!(of(false, false, " a  a "), [m, "a", m, m, "a", m]);
        assert_eq!(of(true, false, " a  a "), [m, m, "a", m, m, "a", m]);
        for prefix in [false, true] {
            assert_eq!(of(prefix, true, "  a  a  "), [m, "a", m, "a"]);
        }
        assert_eq!(of(true, true, "   "), [""; 0]);
    }

    #[test]
    fn scores_that_are_no_numbers_do_no_harm() {
        let tokens = [
            ("?", f32::NAN),
            ("a", f32::NAN),
            ("b", f32::INFINITY),
            ("c", f32::MIN),
            ("cc", f32::MAX),
        ];
        assert_eq!(encode(&tokens, false, false, "abcca"), ["?", "cc", "?"]);
        assert_eq!(encode(&tokens[..3], false, false, "ab"), ["?"]);
    }
}
