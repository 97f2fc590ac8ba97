//! From parameters to a sampler for a model's tokenizer.

use crate::Result;
use crate::sample::{DEFAULT_DRY_BREAKERS, MAX_LAST_N, Sampler, SamplerParams, dry_breakers};
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// What decides the next token: the sampler's parameters, and what of them needs the tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// The parameters; `n_ctx` and `dry_sequence_breakers` are set by [`Self::sampler`].
    pub params: SamplerParams,
    /// The strings that end a repetition, for DRY.
    pub dry_breakers: Vec<String>,
    /// The model's end tokens are never chosen.
    pub ignore_eos: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        SamplerParams::default().into()
    }
}

impl From<SamplerParams> for Sampling {
    fn from(params: SamplerParams) -> Self {
        Sampling {
            params,
            dry_breakers: DEFAULT_DRY_BREAKERS.map(String::from).to_vec(),
            ignore_eos: false,
        }
    }
}

impl Sampling {
    /// A sampler for the model of this tokenizer in a context of `n_ctx` positions. It never chooses the tokens that
    /// the model's author suppressed ([`Tokenizer::suppressed`]).
    ///
    /// # Errors
    /// As [`Sampler::new`].
    pub fn sampler(&self, tokenizer: &Tokenizer, n_ctx: usize) -> Result<Sampler> {
        let mut params = self.params.clone();
        params.n_ctx = n_ctx.min(MAX_LAST_N);
        let never = tokenizer.suppressed().iter();
        params.logit_bias.extend(never.map(|&id| (id, f32::NEG_INFINITY)));
        if self.ignore_eos {
            let end = tokenizer.end_tokens().iter();
            params.logit_bias.extend(end.map(|&id| (id, f32::NEG_INFINITY)));
        }
        if params.dry_multiplier > 0.0 {
            let piece = |id| tokenizer.token_bytes(id, true).unwrap_or_default().to_vec();
            // A text of a few characters is far below the tokenizer's limit; should it fail, the head alone breaks.
            let encode = |text: &str| {
                tokenizer
                    .encode(text, EncodeOptions::default())
                    .unwrap_or_default()
            };
            params.dry_sequence_breakers =
                dry_breakers(&self.dry_breakers, tokenizer.n_vocab(), &piece, &encode);
        }
        Sampler::new(params, tokenizer.n_vocab())
    }
}
