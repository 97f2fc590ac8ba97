//! PLaMo 2 (`tokenizer.ggml.model` = `plamo2`): of all ways to write a text with tokens the one whose scores have the
//! highest sum, in units of 1/10000, found from the end of the text.
//!
//! At each place the longest token comes first and stays at equal sums. A character may also be written as its bytes,
//! at -1000. A byte order mark at the beginning of a text is left out. llama.cpp finds the tokens with an automaton of
//! suffixes (that of Aho and Corasick); a prefix tree finds the same ones. It also writes control tokens where the text
//! happens to spell them, which is not done here: a text cannot end a turn.

use super::byte_text::byte_token;
use super::trie::Trie;
use super::vocabulary::{Attributes, TOKENS, Vocabulary};
use crate::{Error, Result};

/// Tokens with a score below this, in units, are never used.
const LOWEST: f32 = -20_000_000.0;
/// The score of a character as its bytes.
const AS_BYTES: i64 = -10_000_000;

/// What the model needs beside the vocabulary.
pub(super) struct Plamo2 {
    tokens: Trie,
    /// The score of each token, in units.
    scores: Vec<i32>,
    bytes: [u32; 256],
}

/// The best way from a place to the end.
#[derive(Clone, Copy)]
struct Best {
    /// A sum of scores; the sum for the longest text is far from i64's limits.
    score: i64,
    length: u32,
    /// `None`: one character, as bytes.
    token: Option<u32>,
}

impl Plamo2 {
    /// # Errors
    /// `Metadata` where a byte has no token.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let mut tokens = Trie::new();
        let mut scores = vec![0; vocabulary.len()];
        let not_text = Attributes::BYTE | Attributes::CONTROL | Attributes::UNKNOWN;
        for id in 0..vocabulary.len() as u32 {
            let units = libm::roundf(vocabulary.score(id) * 1e4);
            if vocabulary.attributes(id).any(not_text) || !(units > LOWEST && units <= 1e9) {
                continue;
            }
            // a part of a character cannot be written
            let text = vocabulary.text(id).unwrap_or_default();
            if std::str::from_utf8(text).is_ok() {
                scores[id as usize] = units as i32;
                tokens.insert(text, id);
            }
        }
        let mut bytes = [0; 256];
        for byte in 0..=255 {
            let text = byte_token(byte);
            bytes[usize::from(byte)] = vocabulary.find(&text).ok_or_else(|| Error::Metadata {
                key: TOKENS.into(),
                expected: "a token for every byte".into(),
                found: format!("no `{}`", text.escape_ascii()),
            })?;
        }
        Ok(Self {
            tokens,
            scores,
            bytes,
        })
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut ways = Vec::new();
        // Tokens do not cross `end`, so what is before it can be written without what follows.
        let (mut base, mut reach) = (0, 0);
        for (at, c) in text.char_indices() {
            if at > base && reach <= at {
                self.write(&text[base..at], &mut ways, out);
                base = at;
            }
            reach = reach.max(at + c.len_utf8());
            if let Some((length, _)) = self.tokens.longest_prefix(&text.as_bytes()[at..]) {
                reach = reach.max(at + length);
            }
        }
        self.write(&text[base..], &mut ways, out);
    }

    /// Appends the tokens of a part of the text, whose tokens end within it.
    fn write(&self, part: &str, ways: &mut Vec<Best>, out: &mut Vec<u32>) {
        let end = Best {
            score: 0,
            length: 0,
            token: None,
        };
        ways.clear();
        ways.resize(part.len() + 1, end);
        for (at, c) in part.char_indices().rev() {
            let length = c.len_utf8();
            let mut best = Best {
                score: ways[at + length].score + AS_BYTES,
                length: length as u32,
                token: None,
            };
            // shortest first, so at equal sums a later one takes its place
            self.tokens.prefixes(&part.as_bytes()[at..], |length, token| {
                let score = ways[at + length].score + i64::from(self.scores[token as usize]);
                if score >= best.score {
                    best = Best {
                        score,
                        length: length as u32,
                        token: Some(token),
                    };
                }
            });
            ways[at] = best;
        }
        let mut at = 0;
        while at < part.len() {
            let best = ways[at];
            let next = at + best.length as usize;
            match best.token {
                Some(token) => out.push(token),
                None => out.extend(
                    part.as_bytes()[at..next]
                        .iter()
                        .map(|&byte| self.bytes[usize::from(byte)]),
                ),
            }
            at = next;
        }
    }
}
