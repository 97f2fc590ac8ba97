//! RWKV's "World" vocabulary (`tokenizer.ggml.model` = `rwkv`): from the left, always the longest token.
//!
//! Tokens are any bytes, written as Python writes them: `\n`, `\xe4`. A byte that begins no token is the unknown token.

use super::byte_text::unescape;
use super::trie::Trie;
use super::vocabulary::Vocabulary;

/// The vocabulary as a prefix tree.
pub(super) struct Rwkv {
    tokens: Trie,
}

impl Rwkv {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut tokens = Trie::new();
        let mut bytes = Vec::new();
        for id in 0..vocabulary.len() as u32 {
            bytes.clear();
            unescape(vocabulary.text(id).unwrap_or_default(), &mut bytes);
            tokens.insert(&bytes, id);
        }
        Self { tokens }
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let length = match self.tokens.longest_prefix(rest) {
                Some((length, token)) => {
                    out.push(token);
                    length
                }
                None => {
                    out.extend(vocabulary.special.unk);
                    1
                }
            };
            rest = &rest[length..];
        }
    }
}
