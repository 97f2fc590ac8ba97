//! Byte pair encoding (`tokenizer.ggml.model` = `gpt2`, `gemma4`): the text is cut into pieces, and in a piece the
//! adjacent symbols join whose merge stands earliest in `tokenizer.ggml.merges`.
//!
//! Symbols are bytes, or for Gemma 4 characters with U+2581 for a space. Merges may name strings that are no
//! tokens: they take part in merging all the same, as in llama.cpp, and are taken apart at the end. There this
//! differs from llama.cpp in the one case that it drops (a byte above 0x7e of such a string): here the byte's
//! own token is written.

use hashbrown::HashMap;

use super::byte_text::{SPACE_MARK, byte_token, decode_alphabet};
use super::merge::{JoinRule, Joined, Merger, NO_SYMBOL, Part};
use super::pre_patterns::{Definition, Symbols};
use super::pre_tokenizer::PreTokenizer;
use super::text_table::TextTable;
use super::vocabulary::Vocabulary;
use super::word_starts::WordStarts;
use crate::gguf::Metadata;
use crate::{Error, Result};

const MERGES: &str = "tokenizer.ggml.merges";

/// Merges, symbols and the pre-tokenizer.
pub(super) struct Bpe {
    pre_tokenizer: PreTokenizer,
    symbols: Symbols,
    ignore_merges: bool,
    /// Whether a run of line feeds that is a token stays whole (Gemma 4).
    whole_newlines: bool,
    /// Texts of the symbols: tokens, and parts and results of merges, as the bytes that they stand for.
    texts: TextTable,
    /// The token of each symbol, or [`NO_SYMBOL`].
    tokens: Vec<u32>,
    merges: HashMap<u64, Joined>,
    /// The symbol of each single byte.
    bytes: [u32; 256],
    /// The token that is written for a byte where a symbol is no token.
    byte_tokens: [Option<u32>; 256],
    /// Where a piece with U+2581 for spaces falls apart.
    word_starts: WordStarts,
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl JoinRule for Bpe {
    fn join(&self, left: u32, right: u32, _: &[u8]) -> Option<Joined> {
        // NO_SYMBOL is in no merge
        self.merges.get(&pair(left, right)).copied()
    }
}

impl Bpe {
    /// Reads the merges of `m`; `optional` for the one pre-tokenizer whose files may have none.
    ///
    /// # Errors
    /// `MissingKey` or `Metadata` for `tokenizer.ggml.merges`; `Tokenizer`, `Limit` from below.
    pub(super) fn new(
        m: &Metadata,
        vocabulary: &Vocabulary,
        definition: &Definition,
        whole_newlines: bool,
        optional: bool,
    ) -> Result<Self> {
        let merges = match m.opt_strings(MERGES)? {
            Some(merges) => merges,
            None if optional => &[],
            None => {
                return Err(Error::MissingKey {
                    key: MERGES.into(),
                    why: "a byte pair vocabulary cannot be used without its merges".into(),
                });
            }
        };
        let symbols = definition.symbols;
        // appends the bytes that an entry stands for; false where it stands for none
        let spell = |text: &[u8], out: &mut Vec<u8>| match symbols {
            Symbols::Bytes => decode_alphabet(text, out),
            Symbols::Chars | Symbols::SpaceMarkedChars => {
                out.extend_from_slice(text);
                true
            }
        };
        let mut bpe = Self {
            pre_tokenizer: PreTokenizer::new(definition)?,
            symbols,
            ignore_merges: definition.ignore_merges,
            whole_newlines,
            texts: TextTable::with_capacity(vocabulary.len()),
            tokens: Vec::with_capacity(vocabulary.len()),
            merges: HashMap::with_capacity(merges.len()),
            bytes: [NO_SYMBOL; 256],
            byte_tokens: [None; 256],
            word_starts: WordStarts::default(),
        };
        let mut buffer = Vec::new();
        // the symbol of each token, so that a merge of tokens need not be spelled: equal entries stand for equal bytes
        let mut symbol_of = vec![NO_SYMBOL; vocabulary.len()];
        for id in 0..vocabulary.len() as u32 {
            let text = vocabulary.text(id).unwrap_or_default();
            buffer.clear();
            if !text.is_empty() && spell(text, &mut buffer) {
                let symbol = bpe.intern(&buffer)? as usize;
                symbol_of[id as usize] = symbol as u32;
                // of equal entries the first one counts
                if bpe.tokens[symbol] == NO_SYMBOL {
                    bpe.tokens[symbol] = id;
                }
            }
        }
        for (order, merge) in merges.iter().enumerate() {
            // the first character may itself be a space
            let Some(space) = merge.iter().skip(1).position(|&byte| byte == b' ') else {
                continue;
            };
            let (left, right) = (&merge[..=space], &merge[space + 2..]);
            let known = |text: &[u8]| {
                let symbol = symbol_of[vocabulary.find(text)? as usize];
                (symbol != NO_SYMBOL).then_some(symbol)
            };
            buffer.clear();
            buffer.extend_from_slice(left);
            buffer.extend_from_slice(right);
            if let (Some(left), Some(right), Some(symbol)) = (known(left), known(right), known(&buffer)) {
                bpe.merges.entry(pair(left, right)).or_insert(Joined {
                    order: order as u32,
                    symbol,
                });
                continue;
            }
            buffer.clear();
            let left_spelled = spell(left, &mut buffer);
            let middle = buffer.len();
            if !left_spelled || !spell(right, &mut buffer) || buffer.len() == middle {
                continue;
            }
            let symbol = bpe.intern(&buffer)?;
            let (left, right) = (bpe.intern(&buffer[..middle])?, bpe.intern(&buffer[middle..])?);
            bpe.merges.entry(pair(left, right)).or_insert(Joined {
                order: order as u32,
                symbol,
            });
        }
        if symbols == Symbols::SpaceMarkedChars {
            for symbol in 0..bpe.texts.len() as u32 {
                bpe.word_starts.add(bpe.texts.text(symbol).unwrap_or_default());
            }
        }
        for byte in 0..=255 {
            let i = usize::from(byte);
            bpe.bytes[i] = bpe.texts.find(&[byte]).unwrap_or(NO_SYMBOL);
            bpe.byte_tokens[i] = match symbols {
                Symbols::Bytes => bpe.token(bpe.bytes[i]),
                Symbols::Chars | Symbols::SpaceMarkedChars => vocabulary.find(&byte_token(byte)),
            };
        }
        Ok(bpe)
    }

    fn intern(&mut self, text: &[u8]) -> Result<u32> {
        let symbol = self.texts.intern(text)?;
        if symbol as usize == self.tokens.len() {
            self.tokens.push(NO_SYMBOL);
        }
        Ok(symbol)
    }

    fn token(&self, symbol: u32) -> Option<u32> {
        self.tokens
            .get(symbol as usize)
            .copied()
            .filter(|&token| token != NO_SYMBOL)
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, merger: &mut Merger, ends: &mut Vec<u32>, out: &mut Vec<u32>) {
        let marked;
        let text = if self.symbols == Symbols::SpaceMarkedChars {
            marked = text.replace(' ', SPACE_MARK);
            marked.as_str()
        } else {
            text
        };
        self.pre_tokenizer.split(text, ends);
        let mut start = 0;
        for &end in &*ends {
            let end = end as usize;
            let piece = &text[start..end];
            if self.symbols == Symbols::SpaceMarkedChars && !self.ignore_merges {
                for word in self.word_starts.split(piece) {
                    self.encode_piece(word.as_bytes(), merger, out);
                }
            } else {
                self.encode_piece(piece.as_bytes(), merger, out);
            }
            start = end;
        }
    }

    fn encode_piece(&self, piece: &[u8], merger: &mut Merger, out: &mut Vec<u32>) {
        let whole = self.ignore_merges || self.whole_newlines && piece.iter().all(|&byte| byte == b'\n');
        if whole && let Some(token) = self.texts.find(piece).and_then(|symbol| self.token(symbol)) {
            out.push(token);
            return;
        }
        merger.parts.clear();
        match self.symbols {
            Symbols::Bytes => merger
                .parts
                .extend(piece.iter().enumerate().map(|(i, &byte)| Part {
                    start: i as u32,
                    symbol: self.bytes[usize::from(byte)],
                })),
            Symbols::Chars | Symbols::SpaceMarkedChars => {
                let mut start = 0;
                for char in piece.chunk_by(|_, &next| next & 0xc0 == 0x80) {
                    let symbol = self.texts.find(char).unwrap_or(NO_SYMBOL);
                    merger.parts.push(Part { start, symbol });
                    start += char.len() as u32;
                }
            }
        }
        merger.run(piece, self);
        for (i, part) in merger.parts.iter().enumerate() {
            if let Some(token) = self.token(part.symbol) {
                out.push(token);
                continue;
            }
            let end = merger
                .parts
                .get(i + 1)
                .map_or(piece.len(), |next| next.start as usize);
            let bytes = &piece[part.start as usize..end];
            out.extend(
                bytes
                    .iter()
                    .filter_map(|&byte| self.byte_tokens[usize::from(byte)]),
            );
        }
    }
}
