//! Rotary position embedding: frequencies from metadata, angles per position.
//!
//! Frequency, angle, sine and cosine are f64 and rounded once, to f32. Sources: RoFormer (arXiv 2104.09864), YaRN
//! (arXiv 2309.00071), LongRoPE (arXiv 2402.13753), and for the meaning of GGUF's keys llama.cpp.

use super::config::Keys;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::{Error, Result, math};

/// The key of the base, and what stands for it where it is missing.
const BASE: &str = "rope.freq_base";
const DEFAULT_BASE: f32 = 10_000.0;

/// One kind of rotation: pairs of a head's first `n_rot` values turn by `position * frequency`.
#[derive(Debug, Clone)]
pub struct Rope {
    kind: RopeKind,
    n_rot: usize,
    /// Radians per position, one per pair.
    frequencies: Vec<f64>,
    /// Frequencies that replace the others where the context is longer than the model's original one (longrope).
    long: Option<Long>,
    /// Factor of cosine and sine.
    magnitude: f64,
}

#[derive(Debug, Clone)]
struct Long {
    original_context: usize,
    frequencies: Vec<f64>,
}

/// Which of YaRN's keys an architecture reads. Those that it does not read change nothing, whatever a file says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct YarnKeys {
    /// `rope.scaling.yarn_beta_fast` and `rope.scaling.yarn_beta_slow`, which are 32 and 1 elsewhere.
    pub(crate) betas: bool,
    /// `rope.scaling.yarn_log_multiplier`.
    pub(crate) log_multiplier: Option<LogMultiplier>,
}

/// How an architecture understands `rope.scaling.yarn_log_multiplier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogMultiplier {
    /// As it stands: what the magnitude would grow by is divided by what it would grow by with the multiplier.
    Divides,
    /// The file has a tenth of it, and the magnitude does not grow at all: scores do ([`Scaling::score_factor`]).
    OfScores,
}

/// What the metadata says of scaling.
#[derive(Debug, Clone)]
pub(crate) struct Scaling {
    /// Positions are divided by this.
    factor: f64,
    yarn: bool,
    original_context: usize,
    attention_factor: f64,
    /// Turns over the original context: pairs with as many as the first or more keep their frequency, those with as
    /// many as the second or less are interpolated.
    betas: (f64, f64),
    /// YaRN's magnitude grows with the logarithm of the factor as the first of them says, and is divided by what it
    /// would be with the second.
    multipliers: (f64, f64),
    log_multiplier: f64,
}

impl Scaling {
    /// The same magnitude, frequencies unscaled: what local layers have.
    pub(crate) fn unscaled(&self) -> Self {
        Scaling {
            factor: 1.0,
            yarn: false,
            ..self.clone()
        }
    }

    /// None: frequencies and magnitude as without the keys.
    pub(crate) fn none(&self) -> Self {
        Scaling {
            attention_factor: 1.0,
            ..self.unscaled()
        }
    }

    /// From `rope.scaling.*`, without the keys that only some architectures read.
    pub(crate) fn read(keys: &Keys<'_>) -> Result<Self> {
        Self::read_with(keys, YarnKeys::default())
    }

    /// From `rope.scaling.*`.
    pub(crate) fn read_with(keys: &Keys<'_>, yarn_keys: YarnKeys) -> Result<Self> {
        let factor = match keys.opt_f32("rope.scaling.factor")? {
            Some(v) => Some(v),
            None => keys.opt_f32("rope.scale_linear")?,
        };
        let factor = match factor {
            None => 1.0,
            Some(0.0) => 1.0,
            Some(v) if v > 0.0 => f64::from(v),
            Some(v) => return Err(keys.wrong("rope.scaling.factor", "a positive number", &v.to_string())),
        };
        let original_context = match keys.opt_u32("rope.scaling.original_context_length")? {
            Some(v) if v > 0 => v as usize,
            _ => keys.u32("context_length")? as usize,
        };
        let attention_factor = match keys.opt_f32("rope.scaling.attn_factor")? {
            Some(v) if v > 0.0 => f64::from(v),
            Some(v) => {
                return Err(keys.wrong("rope.scaling.attn_factor", "a positive number", &v.to_string()));
            }
            None => 1.0,
        };
        let (factor, yarn) = match keys.opt_str("rope.scaling.type")? {
            None | Some("linear" | "longrope") => (factor, false),
            Some("none") => (1.0, false),
            Some("yarn") => (factor, true),
            Some(other) => {
                return Err(keys.wrong(
                    "rope.scaling.type",
                    "none, linear, yarn or longrope",
                    &format!("`{other}`"),
                ));
            }
        };
        let beta = |key: &str, default: f32| match keys.opt_f32(key)?.filter(|_| yarn_keys.betas) {
            None => Ok(f64::from(default)),
            Some(v) if v > 0.0 && v.is_finite() => Ok(f64::from(v)),
            Some(v) => Err(keys.wrong(key, "a positive number", &v.to_string())),
        };
        const LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";
        /// Far beyond any model's.
        const MOST_LOG_MULTIPLIER: f32 = 1000.0;
        let log_multiplier = match yarn_keys.log_multiplier {
            None => 0.0,
            Some(_) => keys.opt_f32(LOG_MULTIPLIER)?.unwrap_or(0.0),
        };
        if !(0.0..=MOST_LOG_MULTIPLIER).contains(&log_multiplier) {
            let expected = format!("0 to {MOST_LOG_MULTIPLIER}");
            return Err(keys.wrong(LOG_MULTIPLIER, &expected, &log_multiplier.to_string()));
        }
        let (log_multiplier, multipliers) = match yarn_keys.log_multiplier {
            Some(LogMultiplier::Divides) if log_multiplier > 0.0 => {
                (f64::from(log_multiplier), (1.0, f64::from(log_multiplier)))
            }
            // The division is of f32, so that a tenth is a multiplier of 1.
            Some(LogMultiplier::OfScores) if log_multiplier > 0.0 => {
                (f64::from(log_multiplier / 0.1), (0.0, 0.0))
            }
            _ => (0.0, (1.0, 0.0)),
        };
        Ok(Scaling {
            factor,
            yarn,
            original_context,
            attention_factor,
            betas: (
                beta("rope.scaling.yarn_beta_fast", 32.0)?,
                beta("rope.scaling.yarn_beta_slow", 1.0)?,
            ),
            multipliers,
            log_multiplier,
        })
    }

    /// The context's length that the model was trained for at first: `rope.scaling.original_context_length`, or
    /// `context_length` without it.
    pub(crate) fn original_context(&self) -> usize {
        self.original_context
    }

    /// Factor of cosine and sine.
    fn magnitude(&self) -> f64 {
        if !self.yarn || self.factor <= 1.0 {
            return self.attention_factor;
        }
        let (grows, divides) = self.multipliers;
        self.attention_factor * (self.growth(grows) / self.growth(divides))
    }

    fn growth(&self, multiplier: f64) -> f64 {
        1.0 + 0.1 * multiplier * math::ln(self.factor)
    }

    /// What scores are multiplied with besides where [`LogMultiplier::OfScores`] holds: the square of how much the
    /// magnitude would be and of how much the multiplier adds.
    pub(crate) fn score_factor(&self) -> f64 {
        let magnitude = match self.yarn {
            true => self.magnitude(),
            false => self.attention_factor * self.growth(1.0),
        };
        let factor = magnitude * self.growth(self.log_multiplier);
        factor * factor
    }
}

impl Rope {
    /// The rotation of an architecture: base, dimensions and scaling from the metadata, factors from the tensors
    /// `rope_freqs.weight` (Llama 3) or `rope_factors_short/long.weight` (longrope).
    pub(crate) fn read(keys: &Keys<'_>, file: &ModelFile, kind: RopeKind, head_dim: usize) -> Result<Self> {
        Self::read_scaled(keys, file, kind, head_dim, &Scaling::read(keys)?)
    }

    /// As [`Self::read`], with a scaling that the architecture reads in its own way.
    pub(crate) fn read_scaled(
        keys: &Keys<'_>,
        file: &ModelFile,
        kind: RopeKind,
        head_dim: usize,
        scaling: &Scaling,
    ) -> Result<Self> {
        let base = (BASE, keys.opt_f32(BASE)?.unwrap_or(DEFAULT_BASE));
        Self::read_base(keys, file, kind, head_dim, base, scaling)
    }

    /// The rotation of local layers where they differ from the others in nothing but the base: `rope.freq_base_swa`, or
    /// `rope.freq_base` without it. Scaling and factors are those of the others.
    pub(crate) fn read_local(
        keys: &Keys<'_>,
        file: &ModelFile,
        kind: RopeKind,
        head_dim: usize,
    ) -> Result<Self> {
        const LOCAL: &str = "rope.freq_base_swa";
        let base = match keys.opt_f32(LOCAL)? {
            Some(base) => (LOCAL, base),
            None => (BASE, keys.opt_f32(BASE)?.unwrap_or(DEFAULT_BASE)),
        };
        Self::read_base(keys, file, kind, head_dim, base, &Scaling::read(keys)?)
    }

    fn read_base(
        keys: &Keys<'_>,
        file: &ModelFile,
        kind: RopeKind,
        head_dim: usize,
        base: (&str, f32),
        scaling: &Scaling,
    ) -> Result<Self> {
        let n_rot = keys
            .opt_u32("rope.dimension_count")?
            .map_or(head_dim, |v| v as usize);
        check_n_rot(keys, n_rot)?;
        let llama3 = factors(file, "rope_freqs.weight", n_rot)?;
        let short = factors(file, "rope_factors_short.weight", n_rot)?;
        let long = factors(file, "rope_factors_long.weight", n_rot)?;
        let make =
            |factors: &Option<Vec<f32>>| Self::new(keys, kind, n_rot, base, scaling, factors.as_deref());
        if short.is_none() && long.is_none() {
            return make(&llama3);
        }
        // A set that is missing stands for factors of one.
        let frequencies = make(&long)?.frequencies;
        Ok(Rope {
            long: Some(Long {
                original_context: scaling.original_context,
                frequencies,
            }),
            ..make(&short)?
        })
    }

    /// A rotation with a base (and the key that states it) and a scaling; `factors` divide the frequencies, one per
    /// pair.
    pub(crate) fn new(
        keys: &Keys<'_>,
        kind: RopeKind,
        n_rot: usize,
        (base_key, base): (&str, f32),
        scaling: &Scaling,
        factors: Option<&[f32]>,
    ) -> Result<Self> {
        check_n_rot(keys, n_rot)?;
        if base <= 0.0 {
            return Err(keys.wrong(base_key, "a positive number", &base.to_string()));
        }
        let base = f64::from(base);
        let d = n_rot as f64;
        let ramp = scaling
            .yarn
            .then(|| correction_range(d, base, scaling.original_context as f64, scaling.betas));
        let frequencies = (0..n_rot / 2)
            .map(|i| {
                let factor = factors.map_or(1.0, |f| f64::from(f[i]));
                let extrapolated = math::pow(base, -2.0 * i as f64 / d) / factor;
                let interpolated = extrapolated / scaling.factor;
                match ramp {
                    None => interpolated,
                    Some((low, high)) => {
                        // 1 for fast pairs, which keep their frequency; 0 for slow ones, which are interpolated.
                        let width = if high - low < 0.001 { 0.001 } else { high - low };
                        let keep = 1.0 - ((i as f64 - low) / width).clamp(0.0, 1.0);
                        interpolated * (1.0 - keep) + extrapolated * keep
                    }
                }
            })
            .collect::<Vec<f64>>();
        let magnitude = scaling.magnitude();
        // An angle is a frequency times a position; cosine and sine are rounded to f32.
        let finite = |v: &f64| (v * f64::from(u32::MAX)).is_finite();
        if !frequencies.iter().all(finite) || !(magnitude as f32).is_finite() {
            return Err(keys.wrong(
                base_key,
                "rotations that are finite, together with `rope.scaling.*`",
                &format!("base {base} and scaling factor {}", scaling.factor),
            ));
        }
        Ok(Rope {
            kind,
            n_rot,
            frequencies,
            long: None,
            magnitude,
        })
    }

    /// The same for a text, where pairs are shared out between axes of positions (interleaved M-RoPE): of three axes,
    /// which are equal in a text, each has every third pair as long as `rope.dimension_sections` has some for it; what
    /// is left goes to a fourth axis, on which a text stands at 0, so that those pairs do not turn. The key is
    /// required.
    pub(crate) fn in_sections(mut self, keys: &Keys<'_>) -> Result<Self> {
        const KEY: &str = "rope.dimension_sections";
        let name = format!("{}.{KEY}", keys.arch);
        let sections = keys.metadata.opt_ints(&name)?.ok_or_else(|| keys.missing(KEY))?;
        let most = crate::kernels::MAX_HEAD_DIM;
        let expected = format!("four numbers from 0 to {most} that are not all 0");
        let [a, b, c, d] = sections[..] else {
            return Err(keys.wrong(KEY, &expected, &format!("an array of {}", sections.len())));
        };
        let mut sizes = [0; 4];
        for (size, value) in sizes.iter_mut().zip([a, b, c, d]) {
            *size = usize::try_from(value)
                .ok()
                .filter(|size| *size <= most)
                .ok_or_else(|| keys.wrong(KEY, &expected, &value.to_string()))?;
        }
        let all: usize = sizes.iter().sum();
        if all == 0 {
            return Err(keys.wrong(KEY, &expected, "four zeros"));
        }
        let stands = |pair: usize| {
            let place = pair % all;
            place >= 3 * sizes[place % 3]
        };
        let long = self.long.iter_mut().map(|long| &mut long.frequencies);
        for frequencies in std::iter::once(&mut self.frequencies).chain(long) {
            for (pair, frequency) in frequencies.iter_mut().enumerate() {
                if stands(pair) {
                    *frequency = 0.0;
                }
            }
        }
        Ok(self)
    }

    /// How pairs lie in a head.
    pub fn kind(&self) -> RopeKind {
        self.kind
    }

    /// Values of a head that are rotated.
    pub fn n_rot(&self) -> usize {
        self.n_rot
    }

    /// Cosines and sines of one position, `n_rot / 2` each. `n_ctx` is the context's length: longrope has two sets of
    /// frequencies and takes the long one for contexts over the model's original length.
    pub fn angles(&self, position: usize, n_ctx: usize, cos: &mut [f32], sin: &mut [f32]) {
        let frequencies = match &self.long {
            Some(long) if n_ctx > long.original_context => &long.frequencies,
            _ => &self.frequencies,
        };
        for ((frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
            let (s, c) = math::sin_cos(position as f64 * frequency);
            *cos = (c * self.magnitude) as f32;
            *sin = (s * self.magnitude) as f32;
        }
    }
}

fn check_n_rot(keys: &Keys<'_>, n_rot: usize) -> Result<()> {
    if n_rot == 0 || !n_rot.is_multiple_of(2) || n_rot > crate::kernels::MAX_HEAD_DIM {
        let expected = format!("an even number, 2 to {}", crate::kernels::MAX_HEAD_DIM);
        return Err(keys.wrong("rope.dimension_count", &expected, &n_rot.to_string()));
    }
    Ok(())
}

/// YaRN's ramp in pair indices: up to the first a pair turns `fast` times or more over the original context, from the
/// second on `slow` times or less.
fn correction_range(d: f64, base: f64, original_context: f64, (fast, slow): (f64, f64)) -> (f64, f64) {
    let pair = |turns: f64| {
        d * math::ln(original_context / (turns * 2.0 * std::f64::consts::PI)) / (2.0 * math::ln(base))
    };
    let low = pair(fast).floor();
    let high = pair(slow).ceil();
    (
        if low < 0.0 { 0.0 } else { low },
        if high > d - 1.0 { d - 1.0 } else { high },
    )
}

/// Factors of `n_rot / 2` frequencies, where the file has the tensor.
pub(crate) fn factors(file: &ModelFile, name: &str, n_rot: usize) -> Result<Option<Vec<f32>>> {
    if file.tensor(name).is_none() {
        return Ok(None);
    }
    let values = super::weights::vector(file, name, n_rot / 2)?;
    if values.iter().any(|v| !(v.is_finite() && *v > 0.0)) {
        return Err(Error::Tensor {
            tensor: name.into(),
            what: "a factor is not a positive number".into(),
        });
    }
    Ok(Some(values))
}
