//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): adjacent symbols join where the text of both is a token,
//! the token with the highest score first. A character that is no token is written as bytes `<0xXX>`.

use super::byte_text::{SPACE_MARK, byte_token};
use super::merge::{JoinRule, Joined, Merger, NO_SYMBOL, Part};
use super::vocabulary::Vocabulary;
use super::word_starts::WordStarts;

/// What the model needs beside the vocabulary.
pub(super) struct Spm {
    /// The token of each byte that no longer token covers.
    bytes: [Option<u32>; 256],
    word_starts: WordStarts,
}

struct ByScore<'a>(&'a Vocabulary);

impl JoinRule for ByScore<'_> {
    fn join(&self, _: u32, _: u32, text: &[u8]) -> Option<Joined> {
        let symbol = self.0.find(text)?;
        Some(Joined {
            order: order_of_score(self.0.score(symbol)),
            symbol,
        })
    }
}

/// A number that is the lower the higher the score; NaN comes last, -0 equals +0.
fn order_of_score(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    let bits = (score + 0.0).to_bits();
    // ascending with the score: negative floats have their order of bits reversed
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

impl Spm {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let token = |byte: u8| {
            vocabulary
                .find(&byte_token(byte))
                .or_else(|| vocabulary.find(&[byte]))
                .or(vocabulary.special.unk)
        };
        let mut word_starts = WordStarts::default();
        for id in 0..vocabulary.len() as u32 {
            word_starts.add(vocabulary.text(id).unwrap_or_default());
        }
        Self {
            bytes: std::array::from_fn(|byte| token(byte as u8)),
            word_starts,
        }
    }

    /// The token for a line feed.
    pub(super) fn newline(&self) -> Option<u32> {
        self.bytes[usize::from(b'\n')]
    }

    /// Appends the tokens of `text`, before which a space is put with `space_prefix`.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        space_prefix: bool,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) {
        let mut marked = String::with_capacity(text.len() + text.len() / 2 + 3);
        if space_prefix {
            marked.push_str(SPACE_MARK);
        }
        for (i, words) in text.split(' ').enumerate() {
            if i > 0 {
                marked.push_str(SPACE_MARK);
            }
            marked.push_str(words);
        }
        for piece in self.word_starts.split(&marked) {
            self.encode_piece(vocabulary, piece, merger, out);
        }
    }

    fn encode_piece(&self, vocabulary: &Vocabulary, piece: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.parts.clear();
        let starts = piece.char_indices().map(|(start, _)| start as u32);
        merger.parts.extend(starts.map(|start| Part {
            start,
            symbol: NO_SYMBOL,
        }));
        let piece = piece.as_bytes();
        merger.run(piece, &ByScore(vocabulary));
        for (i, part) in merger.parts.iter().enumerate() {
            let end = merger
                .parts
                .get(i + 1)
                .map_or(piece.len(), |next| next.start as usize);
            let text = &piece[part.start as usize..end];
            let token = if part.symbol == NO_SYMBOL {
                vocabulary.find(text)
            } else {
                Some(part.symbol)
            };
            match token {
                Some(token) => out.push(token),
                None => out.extend(text.iter().filter_map(|&byte| self.bytes[usize::from(byte)])),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_fall_with_the_score() {
        let scores = [
            f32::INFINITY,
            1e6,
            1.0,
            1e-40,
            0.0,
            -1e-40,
            -1.0,
            -1e6,
            f32::NEG_INFINITY,
            f32::NAN,
        ];
        for pair in scores.windows(2) {
            assert!(order_of_score(pair[0]) < order_of_score(pair[1]), "{pair:?}");
        }
        assert_eq!(order_of_score(0.0), order_of_score(-0.0));
    }
}
