//! Text to token ids and back, over the vocabulary of a GGUF file.
//!
//! The definition is llama.cpp's (`llama_tokenize` and `llama_detokenize`, src/llama-vocab.cpp): the same ids for
//! the same file and text. Kinds (`tokenizer.ggml.model`, kind.rs): `llama` (spm.rs), `gpt2`, `gemma4` and
//! `whitespace` (bpe.rs, cut by pre_tokenizer.rs), `bert` (wpm.rs), `t5` (ugm.rs), `rwkv` (rwkv.rs), `plamo2`
//! (plamo2.rs). An encoding finds written-out special tokens first (partition.rs), then tokenizes what lies between
//! them. Time is n log n in the text at worst, also for a text without spaces.
//!
//! # Why not a crate
//! Considered: `tokenizers` (its vocabularies are Rust strings and its BPE and Unigram models cannot state
//! llama.cpp's SPM, where the score of the joined token decides; special tokens are found leftmost, not longest
//! first; 1.0 is not released, and 0.x wants Oniguruma in C or an "unstable" wasm feature), `kitoken` (merges by
//! vocabulary order without the list of merges, which is not the same for `gemma4` and files with
//! `ignore_merges`; no GGUF input), `toktrie` (no encoder of its own). What is left, merging pairs, is small;
//! `regex` and the Unicode tables come from crates.
//!
//! # Where it differs from llama.cpp
//! - `gpt2` has no default BOS and EOS (llama.cpp takes id 11, Falcon's), so a file that asks for a BOS without naming
//!   one gets none.
//! - Decoding does not "clean up" spaces before punctuation: what was encoded comes back.
//! - [`Tokenizer::decode`] takes the space that SPM puts before a text from the first printing token even after a
//!   BOS.
//! - `t5`, `rwkv` and `plamo2`: see ugm.rs, rwkv.rs and plamo2.rs.
//! - The pre-tokenizer `tiny_aya` does not group the digits of a run that a letter follows: the model's own expression
//!   does not either.
//!
//! For `bert` llama.cpp itself differs from Hugging Face's normaliser, and this follows llama.cpp: with
//! strip_accents all marks are dropped (Hugging Face: non-spacing ones), of a decomposition only the first
//! character stays (Hangul), and U+000B, U+000C, U+0085 are white space.

mod bpe;
mod byte_text;
mod charsmap;
mod conversation;
mod kind;
mod merge;
mod merge_queue;
mod pair;
mod partition;
mod plamo2;
mod pre_patterns;
mod pre_tokenizer;
mod rwkv;
mod spm;
mod stop;
mod stream;
mod text_table;
mod trie;
mod ugm;
mod vocabulary;
mod whitespace;
mod word_starts;
mod wpm;

use std::sync::Arc;

use bpe::Bpe;
use kind::Kind;
use merge::Merger;
use partition::{Fragment, Specials};
use plamo2::Plamo2;
use rwkv::Rwkv;
use spm::Spm;
pub use stop::StopFilter;
pub use stream::StreamDecoder;
use ugm::Ugm;
use vocabulary::{Attributes, Vocabulary};
use wpm::Wpm;

use crate::gguf::Metadata;
use crate::{Error, Result};

/// The values of `tokenizer.ggml.model` that are read.
pub const SUPPORTED_MODELS: &[&str] = &[
    "llama",
    "gpt2",
    "bert",
    "gemma4",
    "t5",
    "rwkv",
    "plamo2",
    "whitespace",
];

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";

/// What an encoding adds and recognises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put BOS and EOS (for `bert`: CLS and SEP) around the text where the file says so.
    pub add_special: bool,
    /// Recognise control tokens that are written out in the text. User-defined tokens always are.
    pub parse_special: bool,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// Stands for what the vocabulary cannot express.
    Unknown,
    /// Steers the model: BOS, EOS, turn marks; not printed as text.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// Not in use, of no known type, or an id outside the vocabulary.
    Unused,
    /// One byte of a character that has no token.
    Byte,
}

/// The tokenizer of a model. Cloning shares the vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    specials: Arc<Specials>,
    model: Arc<Model>,
    model_name: Arc<str>,
    pre_name: Arc<str>,
    add_bos: bool,
    add_eos: bool,
    /// The file asks for an EOS, which it may have none of.
    asks_for_eos: bool,
    /// A SEP stands between two texts.
    add_sep: bool,
    add_space_prefix: bool,
    newline: Option<u32>,
}

enum Model {
    Spm(Box<Spm>),
    Bpe(Box<Bpe>),
    /// BPE of words alone, which may be lowered.
    Words {
        bpe: Box<Bpe>,
        lowercase: bool,
    },
    Wpm(Box<Wpm>),
    Ugm(Box<Ugm>),
    Rwkv(Box<Rwkv>),
    Plamo2(Box<Plamo2>),
}

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys of a file.
    ///
    /// # Errors
    /// `MissingKey` or `Metadata` naming the key that is missing or cannot be used: no or too few tokens, scores
    /// or types, a special id that is no integer. `Tokenizer` for a model or pre-tokenizer that is not known (the
    /// message lists those that are). `Limit` for entries or texts that are too long.
    pub fn from_metadata(m: &Metadata) -> Result<Self> {
        let model_name = m.str(MODEL)?;
        let pre = match m.opt_str(PRE)? {
            _ if model_name == "gemma4" => Some("gemma4"),
            pre => pre.filter(|pre| !pre.is_empty()),
        };
        let kind = Kind::find(model_name, pre)?;
        let vocabulary = Vocabulary::read(m, kind.spelling(), kind.special_ids())?;
        let add_space_prefix = m
            .opt_bool("tokenizer.ggml.add_space_prefix")?
            .unwrap_or(kind == Kind::Spm);
        let model = match kind {
            Kind::Spm => Model::Spm(Box::new(Spm::new(&vocabulary))),
            Kind::Bpe {
                definition,
                words_only,
            } => {
                let whole_newlines = definition == pre_patterns::GEMMA4;
                let optional = pre == Some("kimi-k2");
                let bpe = Box::new(Bpe::new(m, &vocabulary, &definition, whole_newlines, optional)?);
                if words_only {
                    // the pre-tokenizer of that name keeps case where the file does not say
                    let lowercase = m
                        .opt_bool("tokenizer.ggml.normalizer.lowercase")?
                        .unwrap_or(pre != Some("whitespace"));
                    Model::Words { bpe, lowercase }
                } else {
                    Model::Bpe(bpe)
                }
            }
            Kind::Wpm => Model::Wpm(Box::new(Wpm::new(m, &vocabulary)?)),
            Kind::Ugm => Model::Ugm(Box::new(Ugm::new(m, &vocabulary, add_space_prefix)?)),
            Kind::Rwkv => Model::Rwkv(Box::new(Rwkv::new(&vocabulary))),
            Kind::Plamo2 => Model::Plamo2(Box::new(Plamo2::new(&vocabulary)?)),
        };
        // What the file has no token for cannot be added, whatever it asks for.
        let add_bos =
            kind.adds_bos(m.opt_bool("tokenizer.ggml.add_bos_token")?) && vocabulary.special.bos.is_some();
        let asks_for_eos = kind.adds_eos(m.opt_bool("tokenizer.ggml.add_eos_token")?);
        let add_eos = asks_for_eos && vocabulary.special.eos.is_some();
        let add_sep = m.opt_bool("tokenizer.ggml.add_sep_token")?.unwrap_or(false);

        let mut tokenizer = Self {
            specials: Arc::new(Specials::new(&vocabulary)),
            vocabulary: Arc::new(vocabulary),
            model: Arc::new(model),
            model_name: model_name.into(),
            pre_name: pre.unwrap_or("default").into(),
            add_bos,
            add_eos,
            asks_for_eos,
            add_sep,
            add_space_prefix,
            newline: None,
        };
        tokenizer.newline = match &*tokenizer.model {
            Model::Spm(spm) => spm.newline(),
            Model::Wpm(_) => None,
            _ => tokenizer.encode("\n", EncodeOptions::default())?.first().copied(),
        }
        .or(tokenizer.vocabulary.special.pad);
        Ok(tokenizer)
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// `Limit` for a text over 1 GiB, or one that a normaliser would make that long.
    pub fn encode(&self, text: &str, opts: EncodeOptions) -> Result<Vec<u32>> {
        // offsets are 32 bits wide, and U+2581 is three times as long as the space it stands for
        const MAX_TEXT: usize = 1 << 30;
        if text.len() > MAX_TEXT {
            return Err(Error::Limit {
                what: "text to tokenize in bytes".into(),
                found: text.len() as u64,
                limit: MAX_TEXT as u64,
            });
        }
        let vocabulary = &*self.vocabulary;
        let bert = matches!(*self.model, Model::Wpm(_));
        let mut out = Vec::with_capacity(text.len() / 4 + 2);
        if opts.add_special && (self.add_bos || bert) {
            out.extend(vocabulary.special.bos);
        }
        let mut merger = Merger::default();
        let mut ends = Vec::new();
        let mut after_special = true;
        for fragment in self.specials.split(vocabulary, text, opts.parse_special) {
            let text = match fragment {
                Fragment::Token(token) => {
                    out.push(token);
                    after_special = true;
                    continue;
                }
                Fragment::Text(range) => &text[range],
            };
            match &*self.model {
                Model::Spm(spm) => {
                    let space_prefix = self.add_space_prefix && after_special;
                    spm.encode(vocabulary, text, space_prefix, &mut merger, &mut out);
                }
                Model::Bpe(bpe) => bpe.encode(text, &mut merger, &mut ends, &mut out),
                Model::Words { bpe, lowercase } => whitespace::words(text, *lowercase, |word| {
                    bpe.encode(word, &mut merger, &mut ends, &mut out);
                }),
                Model::Wpm(wpm) => wpm.encode(vocabulary, text, &mut out),
                Model::Ugm(ugm) => ugm.encode(vocabulary, text, &mut out)?,
                Model::Rwkv(rwkv) => rwkv.encode(vocabulary, text, &mut out),
                Model::Plamo2(plamo2) => plamo2.encode(text, &mut out),
            }
            after_special = false;
        }
        if opts.add_special && bert {
            out.extend(vocabulary.special.sep);
        } else if opts.add_special && self.add_eos {
            out.extend(vocabulary.special.eos);
        }
        Ok(out)
    }

    /// The bytes that `ids` print. They may end within a character: [`Self::stream_decoder`] deals with that.
    /// Control and unknown tokens are written out only with `special`. The space that the tokenizer puts before
    /// a text ([`Self::add_space_prefix`]; for `bert` before every word) is left out.
    ///
    /// # Errors
    /// `TokenOutOfRange` for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(4 * ids.len());
        let mut trim_space = self.puts_space_first();
        for &id in ids {
            let bytes = self.vocabulary.printed_trimmed(id, special, &mut trim_space);
            out.extend_from_slice(bytes.ok_or_else(|| Error::TokenOutOfRange {
                token: id,
                n_vocab: self.n_vocab(),
            })?);
        }
        Ok(out)
    }

    /// Whether the first token of a text prints a space that the text does not have.
    fn puts_space_first(&self) -> bool {
        match &*self.model {
            Model::Spm(_) => self.add_space_prefix,
            Model::Ugm(ugm) => ugm.puts_space_first(),
            // a file may ask for the space, but these put none
            Model::Bpe(_) | Model::Words { .. } | Model::Rwkv(_) | Model::Plamo2(_) => false,
            Model::Wpm(_) => true,
        }
    }

    /// A decoder for tokens that come one by one and continue a text; see [`StreamDecoder::at_start`] for tokens
    /// that begin one.
    pub fn stream_decoder(&self, special: bool) -> StreamDecoder {
        StreamDecoder::new(self, special)
    }

    /// What token `id` prints, a leading space included; control and unknown tokens print nothing unless
    /// `special`. `None` for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32, special: bool) -> Option<&[u8]> {
        self.vocabulary.printed(id, special)
    }

    /// The vocabulary entry of token `id` as the file has it. `None` for an id outside the vocabulary.
    pub fn token_text(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.text(id)
    }

    /// The token whose vocabulary entry is `text`, byte for byte.
    pub fn find_token(&self, text: &[u8]) -> Option<u32> {
        self.vocabulary.find(text)
    }

    /// What token `id` is for.
    pub fn token_kind(&self, id: u32) -> TokenKind {
        let attributes = self.vocabulary.attributes(id);
        let order = [
            (Attributes::CONTROL, TokenKind::Control),
            (Attributes::UNKNOWN, TokenKind::Unknown),
            (Attributes::USER_DEFINED, TokenKind::UserDefined),
            (Attributes::BYTE, TokenKind::Byte),
            (Attributes::NORMAL, TokenKind::Normal),
        ];
        order
            .iter()
            .find(|(mark, _)| attributes.any(*mark))
            .map_or(TokenKind::Unused, |&(_, kind)| kind)
    }

    /// Number of tokens.
    pub fn n_vocab(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether token `id` ends a generation: EOS, end of turn, end of message, and the tokens that llama.cpp
    /// recognises by their text.
    pub fn is_end(&self, id: u32) -> bool {
        self.vocabulary.special.end.binary_search(&id).is_ok()
    }

    /// Every token for which [`Self::is_end`] holds, ascending.
    pub fn end_tokens(&self) -> &[u32] {
        &self.vocabulary.special.end
    }

    /// Whether an encoding with `add_special` begins with BOS (for `bert` it always begins with CLS).
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether an encoding with `add_special` ends with EOS (for `bert` it always ends with SEP).
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a space is put before the text, and before what follows a special token (`llama` and `t5` only).
    pub fn add_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// Tokens that the model's author would have never chosen (`tokenizer.ggml.suppress_tokens`), ascending. Logits
    /// keep them; a sampler that [`crate::generation::Sampling`] makes leaves them out.
    pub fn suppressed(&self) -> &[u32] {
        &self.vocabulary.suppressed
    }

    /// What the file states and cannot be meant, a sentence each: special or suppressed ids outside the vocabulary.
    /// They count as absent.
    pub fn notes(&self) -> &[String] {
        &self.vocabulary.notes
    }

    /// `tokenizer.ggml.model`.
    pub fn model_name(&self) -> &str {
        &self.model_name
    }

    /// `tokenizer.ggml.pre`; `default` where the file has none.
    pub fn pre_name(&self) -> &str {
        &self.pre_name
    }

    /// Beginning of text.
    pub fn bos(&self) -> Option<u32> {
        self.vocabulary.special.bos
    }

    /// End of text.
    pub fn eos(&self) -> Option<u32> {
        self.vocabulary.special.eos
    }

    /// End of turn.
    pub fn eot(&self) -> Option<u32> {
        self.vocabulary.special.eot
    }

    /// End of message.
    pub fn eom(&self) -> Option<u32> {
        self.vocabulary.special.eom
    }

    /// Unknown token.
    pub fn unk(&self) -> Option<u32> {
        self.vocabulary.special.unk
    }

    /// Padding.
    pub fn pad(&self) -> Option<u32> {
        self.vocabulary.special.pad
    }

    /// Separator.
    pub fn sep(&self) -> Option<u32> {
        self.vocabulary.special.sep
    }

    /// Classification token; BOS where the file names none.
    pub fn cls(&self) -> Option<u32> {
        self.vocabulary.special.cls.or(self.vocabulary.special.bos)
    }

    /// Mask.
    pub fn mask(&self) -> Option<u32> {
        self.vocabulary.special.mask
    }

    /// Line feed; padding where the vocabulary has no line feed.
    pub fn nl(&self) -> Option<u32> {
        self.newline
    }

    /// Fill in the middle: before the text, after the text, the middle.
    pub fn fim(&self) -> [Option<u32>; 3] {
        let s = &self.vocabulary.special;
        [s.fim_pre, s.fim_suf, s.fim_mid]
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("model", &self.model_name)
            .field("pre", &self.pre_name)
            .field("n_vocab", &self.n_vocab())
            .finish_non_exhaustive()
    }
}
