//! The sampler's parameters: llama.cpp's names, order and defaults, and the check that they make sense.

use super::chain::{DEFAULT_CHAIN, SamplerKind};
use crate::{Error, Result};

/// The longest history that a penalty may look back on, in tokens: it bounds what [`super::Sampler::new`] allocates.
pub const MAX_LAST_N: usize = 1 << 24;

/// What decides the next token, with llama.cpp's names and defaults (`common_params_sampling`).
///
/// Where llama.cpp reads a value as "off", so does this: the field's documentation names it.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerParams {
    /// Seed of the random numbers. Equal seeds give equal tokens on every platform. The engine has no source of
    /// entropy: llama.cpp's default 0xFFFFFFFF ("choose one for me") is a plain seed here, and the program in
    /// front of the engine replaces it.
    pub seed: u32,
    /// Truncating samplers (`typ_p`, `top_p`, `min_p`, `xtc`) leave at least this many candidates. 0 is off.
    pub min_keep: usize,
    /// Keep the `top_k` most likely tokens. 0 or less is off.
    pub top_k: i32,
    /// Keep the smallest set of most likely tokens whose probabilities reach `top_p`. 1 is off.
    pub top_p: f32,
    /// Drop tokens less likely than `min_p` times the most likely one. 0 is off.
    pub min_p: f32,
    /// The chance that XTC applies to a token. 0 is off.
    pub xtc_probability: f32,
    /// XTC drops every token at or over this probability but the least likely of them. Over 0.5 is off.
    pub xtc_threshold: f32,
    /// Locally typical sampling: keep the tokens whose surprise is nearest to the entropy, up to this mass.
    /// 1 is off.
    pub typ_p: f32,
    /// Logits are divided by it. 0 is greedy: the most likely token, with no random number drawn.
    pub temp: f32,
    /// Half the width of the range of the entropy-driven temperature: `temp - range` to `temp + range`. 0 is off.
    pub dynatemp_range: f32,
    /// How the normalized entropy maps into that range: `entropy ^ exponent`.
    pub dynatemp_exponent: f32,
    /// How many recent tokens are penalized; 0 is off, -1 is the whole context ([`Self::n_ctx`]).
    pub penalty_last_n: i32,
    /// Logits of recent tokens are divided by it where positive, multiplied where not. 1 is off.
    pub penalty_repeat: f32,
    /// Subtracted from a recent token's logit once per occurrence. 0 is off; negative favours repetition.
    pub penalty_freq: f32,
    /// Subtracted from the logit of each token that occurred recently. 0 is off; negative favours repetition.
    pub penalty_present: f32,
    /// DRY: the penalty of a token that would extend a repeated sequence is
    /// `multiplier * base ^ (length - allowed_length)`. 0 is off.
    pub dry_multiplier: f32,
    /// DRY: see [`Self::dry_multiplier`]. Below 1 is off.
    pub dry_base: f32,
    /// DRY: repeated sequences shorter than this are free.
    pub dry_allowed_length: i32,
    /// DRY: how many recent tokens are searched; 0 is off, -1 is the whole context ([`Self::n_ctx`]).
    pub dry_penalty_last_n: i32,
    /// DRY: token sequences that end a repetition, such as those of a line break; made from strings by
    /// [`super::dry_breakers`]. Empty sequences are ignored.
    pub dry_sequence_breakers: Vec<Vec<u32>>,
    /// 0 is off; 2 is Mirostat 2.0, which replaces the chain: only `logit_bias` and `temp` act before it.
    pub mirostat: i32,
    /// Drop tokens whose logit is more than this many standard deviations below the highest. 0 or less is off.
    pub top_n_sigma: f32,
    /// Mirostat's target surprise, in bits.
    pub mirostat_tau: f32,
    /// Mirostat's learning rate.
    pub mirostat_eta: f32,
    /// Added to a token's logit before everything else; minus infinity forbids the token.
    pub logit_bias: Vec<(u32, f32)>,
    /// The samplers that run, in order. `temp` acts only where [`SamplerKind::Temperature`] is in it.
    pub samplers: Vec<SamplerKind>,
    /// The context's size in tokens: what -1 means for `penalty_last_n` and `dry_penalty_last_n`.
    pub n_ctx: usize,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self {
            seed: 0xFFFF_FFFF,
            min_keep: 0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            typ_p: 1.0,
            temp: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            penalty_last_n: 64,
            penalty_repeat: 1.0,
            penalty_freq: 0.0,
            penalty_present: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            dry_sequence_breakers: Vec::new(),
            mirostat: 0,
            top_n_sigma: -1.0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            logit_bias: Vec::new(),
            samplers: DEFAULT_CHAIN.to_vec(),
            n_ctx: 4096,
        }
    }
}

/// The names that DRY's breakers have by default in llama.cpp; [`super::dry_breakers`] makes tokens of them.
pub const DEFAULT_DRY_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

impl SamplerParams {
    /// Greedy decoding: everything at its default but the temperature, which is 0.
    pub fn greedy() -> Self {
        Self {
            temp: 0.0,
            ..Self::default()
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Parameter`] for the first one that is NaN or out of range.
    pub fn validate(&self) -> Result<()> {
        range("temp", self.temp, 0.0, f32::MAX, "0 is greedy")?;
        range("top_p", self.top_p, 0.0, 1.0, "1 turns it off")?;
        range("min_p", self.min_p, 0.0, 1.0, "0 turns it off")?;
        range("typ_p", self.typ_p, 0.0, 1.0, "1 turns it off")?;
        range(
            "xtc_probability",
            self.xtc_probability,
            0.0,
            1.0,
            "0 turns it off",
        )?;
        range(
            "xtc_threshold",
            self.xtc_threshold,
            0.0,
            1.0,
            "over 0.5 turns it off",
        )?;
        range(
            "dynatemp_range",
            self.dynatemp_range,
            0.0,
            f32::MAX,
            "0 turns it off",
        )?;
        range(
            "dynatemp_exponent",
            self.dynatemp_exponent,
            0.0,
            f32::MAX,
            "1 is linear",
        )?;
        range(
            "top_n_sigma",
            self.top_n_sigma,
            f32::MIN,
            f32::MAX,
            "0 or less turns it off",
        )?;
        if !(self.penalty_repeat > 0.0 && self.penalty_repeat <= f32::MAX) {
            return Err(invalid(
                "penalty_repeat",
                self.penalty_repeat,
                "above 0; 1 turns it off",
            ));
        }
        range(
            "penalty_freq",
            self.penalty_freq,
            f32::MIN,
            f32::MAX,
            "0 turns it off",
        )?;
        range(
            "penalty_present",
            self.penalty_present,
            f32::MIN,
            f32::MAX,
            "0 turns it off",
        )?;
        range(
            "dry_multiplier",
            self.dry_multiplier,
            0.0,
            f32::MAX,
            "0 turns it off",
        )?;
        range("dry_base", self.dry_base, 0.0, f32::MAX, "below 1 turns it off")?;
        if self.dry_allowed_length < 0 {
            return Err(invalid(
                "dry_allowed_length",
                self.dry_allowed_length,
                "0 or more",
            ));
        }
        range("mirostat_tau", self.mirostat_tau, 0.0, f32::MAX, "5 is usual")?;
        range("mirostat_eta", self.mirostat_eta, 0.0, f32::MAX, "0.1 is usual")?;
        if !matches!(self.mirostat, 0 | 2) {
            return Err(invalid("mirostat", self.mirostat, "0 (off) or 2 (Mirostat 2.0)"));
        }
        last_n("penalty_last_n", self.penalty_last_n)?;
        last_n("dry_penalty_last_n", self.dry_penalty_last_n)?;
        if self.n_ctx == 0 || self.n_ctx > MAX_LAST_N {
            return Err(invalid("n_ctx", self.n_ctx, &format!("1 to {MAX_LAST_N}")));
        }
        for &(token, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                let allowed = "a number, or minus infinity to forbid the token";
                return Err(invalid(
                    "logit_bias",
                    format_args!("{bias} for token {token}"),
                    allowed,
                ));
            }
        }
        Ok(())
    }

    /// Resolves -1.
    pub(super) fn resolve_last_n(&self, last_n: i32) -> usize {
        usize::try_from(last_n).unwrap_or(self.n_ctx)
    }
}

fn invalid(name: &'static str, found: impl std::fmt::Display, expected: &str) -> Error {
    Error::Parameter {
        name,
        expected: expected.into(),
        found: found.to_string(),
    }
}

fn range(name: &'static str, value: f32, low: f32, high: f32, hint: &str) -> Result<()> {
    if value >= low && value <= high {
        return Ok(());
    }
    let expected = match (low == f32::MIN, high == f32::MAX) {
        (true, _) => format!("a finite number ({hint})"),
        (false, true) => format!("finite and at least {low} ({hint})"),
        (false, false) => format!("between {low} and {high} ({hint})"),
    };
    Err(invalid(name, value, &expected))
}

fn last_n(name: &'static str, value: i32) -> Result<()> {
    if value >= -1 && value as i64 <= MAX_LAST_N as i64 {
        return Ok(());
    }
    let expected = format!("-1 (the whole context), 0 (off) or at most {MAX_LAST_N}");
    Err(invalid(name, value, &expected))
}
