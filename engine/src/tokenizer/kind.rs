//! The kinds of tokenizers by the name in `tokenizer.ggml.model`, and what goes without saying for each.

use super::pre_patterns::{self, Definition, Symbols};
use super::vocabulary::{SpecialIds, Spelling};
use super::{MODEL, PRE, SUPPORTED_MODELS};
use crate::{Error, Result};

/// A kind of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Spm,
    Bpe {
        definition: Definition,
        /// White space is dropped, and words may be lowered.
        words_only: bool,
    },
    Wpm,
    Ugm,
    Rwkv,
    Plamo2,
}

impl Kind {
    /// The kind that `model` names; `pre` names the pre-tokenizer of those that have one.
    ///
    /// # Errors
    /// `Tokenizer` for a name that is not known.
    pub(super) fn find(model: &str, pre: Option<&str>) -> Result<Self> {
        // without a name llama.cpp warns and takes the default one
        let pre = pre.unwrap_or("default");
        let known = || pre_patterns::find(pre).ok_or_else(|| unknown_pre_tokenizer(pre));
        let bpe = |definition, words_only| Kind::Bpe {
            definition,
            words_only,
        };
        Ok(match model {
            "llama" => Kind::Spm,
            "gpt2" => bpe(known()?, false),
            "whitespace" => bpe(known()?, true),
            "gemma4" => bpe(pre_patterns::GEMMA4, false),
            "bert" => Kind::Wpm,
            "t5" => Kind::Ugm,
            "rwkv" => Kind::Rwkv,
            "plamo2" => Kind::Plamo2,
            _ => {
                return Err(Error::Tokenizer {
                    what: format!(
                        "model `{model}` (`{MODEL}`) is not supported; supported: {}",
                        SUPPORTED_MODELS.join(", ")
                    ),
                });
            }
        })
    }

    /// How entries spell what they print.
    pub(super) fn spelling(self) -> Spelling {
        match self {
            Kind::Bpe { definition, .. } => match definition.symbols {
                Symbols::Bytes => Spelling::ByteAlphabet,
                Symbols::Chars => Spelling::Plain,
                Symbols::SpaceMarkedChars => Spelling::SpaceMark,
            },
            Kind::Spm | Kind::Wpm | Kind::Ugm => Spelling::SpaceMark,
            Kind::Rwkv => Spelling::Escaped,
            Kind::Plamo2 => Spelling::Plain,
        }
    }

    /// The special tokens of a file that names none.
    pub(super) fn special_ids(self) -> SpecialIds {
        let none = SpecialIds::default();
        match self {
            Kind::Bpe { .. } | Kind::Rwkv => none,
            Kind::Spm => SpecialIds {
                bos: Some(1),
                eos: Some(2),
                unk: Some(0),
                ..none
            },
            Kind::Wpm => SpecialIds {
                cls: Some(101),
                unk: Some(100),
                sep: Some(102),
                pad: Some(0),
                mask: Some(103),
                ..none
            },
            Kind::Ugm => SpecialIds {
                eos: Some(1),
                unk: Some(2),
                pad: Some(0),
                ..none
            },
            Kind::Plamo2 => SpecialIds {
                bos: Some(1),
                eos: Some(2),
                unk: Some(0),
                pad: Some(3),
                ..none
            },
        }
    }

    /// Whether BOS is put before a text, given what the file says. What llama.cpp adds to no text of a kind, whatever
    /// the file says, is not added here either.
    pub(super) fn adds_bos(self, stated: Option<bool>) -> bool {
        match self {
            Kind::Bpe { definition, .. } if definition == pre_patterns::GEMMA4 => true,
            Kind::Bpe { definition, .. } => stated.unwrap_or(definition.add_bos),
            Kind::Spm | Kind::Wpm => stated.unwrap_or(true),
            Kind::Ugm => stated.unwrap_or(false),
            Kind::Rwkv | Kind::Plamo2 => false,
        }
    }

    /// As [`Self::adds_bos`], for EOS after a text.
    pub(super) fn adds_eos(self, stated: Option<bool>) -> bool {
        match self {
            Kind::Spm | Kind::Bpe { .. } | Kind::Wpm => stated.unwrap_or(false),
            Kind::Ugm => stated.unwrap_or(true),
            Kind::Rwkv | Kind::Plamo2 => false,
        }
    }
}

fn unknown_pre_tokenizer(name: &str) -> Error {
    let known: Vec<&str> = pre_patterns::names().collect();
    Error::Tokenizer {
        what: format!(
            "pre-tokenizer `{name}` (`{PRE}`) is not known; known: {}",
            known.join(", ")
        ),
    }
}
