//! The order in which samplers run, and its names: llama.cpp's `--samplers` and `--sampling-seq`.

use crate::{Error, Result};

/// One sampler of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// Repetition, frequency and presence penalties.
    Penalties,
    /// Penalty on tokens that would extend a repeated sequence.
    Dry,
    /// Cut by standard deviations below the highest logit.
    TopNSigma,
    /// The k most likely.
    TopK,
    /// Locally typical.
    TypP,
    /// Nucleus.
    TopP,
    /// Cut relative to the most likely.
    MinP,
    /// Exclude top choices.
    Xtc,
    /// Temperature, plain or driven by the entropy.
    Temperature,
}

/// llama.cpp's default chain.
pub const DEFAULT_CHAIN: [SamplerKind; 9] = [
    SamplerKind::Penalties,
    SamplerKind::Dry,
    SamplerKind::TopNSigma,
    SamplerKind::TopK,
    SamplerKind::TypP,
    SamplerKind::TopP,
    SamplerKind::MinP,
    SamplerKind::Xtc,
    SamplerKind::Temperature,
];

impl SamplerKind {
    /// Its name in `--samplers`.
    pub const fn name(self) -> &'static str {
        match self {
            SamplerKind::Penalties => "penalties",
            SamplerKind::Dry => "dry",
            SamplerKind::TopNSigma => "top_n_sigma",
            SamplerKind::TopK => "top_k",
            SamplerKind::TypP => "typ_p",
            SamplerKind::TopP => "top_p",
            SamplerKind::MinP => "min_p",
            SamplerKind::Xtc => "xtc",
            SamplerKind::Temperature => "temperature",
        }
    }

    /// Its letter in `--sampling-seq`.
    pub const fn letter(self) -> char {
        match self {
            SamplerKind::Penalties => 'e',
            SamplerKind::Dry => 'd',
            SamplerKind::TopNSigma => 's',
            SamplerKind::TopK => 'k',
            SamplerKind::TypP => 'y',
            SamplerKind::TopP => 'p',
            SamplerKind::MinP => 'm',
            SamplerKind::Xtc => 'x',
            SamplerKind::Temperature => 't',
        }
    }

    /// The sampler of this name; llama.cpp's alternative spellings are accepted.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] that lists the names.
    pub fn from_name(name: &str) -> Result<Self> {
        let kind = match name {
            "penalties" => SamplerKind::Penalties,
            "dry" => SamplerKind::Dry,
            "top_n_sigma" | "top-n-sigma" => SamplerKind::TopNSigma,
            "top_k" | "top-k" => SamplerKind::TopK,
            "typ_p" | "typ-p" | "typ" | "typical" | "typical-p" => SamplerKind::TypP,
            "top_p" | "top-p" | "nucleus" => SamplerKind::TopP,
            "min_p" | "min-p" => SamplerKind::MinP,
            "xtc" => SamplerKind::Xtc,
            "temperature" | "temp" => SamplerKind::Temperature,
            _ => {
                let names: Vec<&str> = DEFAULT_CHAIN.iter().map(|k| k.name()).collect();
                return Err(Error::InvalidInput {
                    what: format!("samplers: there is no `{name}`; there are {}", names.join(", ")),
                });
            }
        };
        Ok(kind)
    }
}

/// Reads a chain: names separated by `;` (or `,`), as in `top_k;top_p;temperature`. The empty string is the
/// empty chain: tokens are drawn from the plain distribution.
///
/// # Errors
/// [`Error::InvalidInput`] where a name is not known.
pub fn parse_samplers(text: &str) -> Result<Vec<SamplerKind>> {
    text.split([';', ','])
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(SamplerKind::from_name)
        .collect()
}

/// Reads a chain of single letters, as in `edskypmxt`, which is the default chain.
///
/// # Errors
/// [`Error::InvalidInput`] where a letter is not known.
pub fn parse_sampling_seq(text: &str) -> Result<Vec<SamplerKind>> {
    text.chars()
        .map(|letter| {
            DEFAULT_CHAIN
                .into_iter()
                .find(|kind| kind.letter() == letter)
                .ok_or_else(|| Error::InvalidInput {
                    what: format!("sampling-seq: there is no sampler `{letter}`; the default is `edskypmxt`"),
                })
        })
        .collect()
}
