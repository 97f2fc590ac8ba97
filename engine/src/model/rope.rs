//! Rotary position embedding: frequencies from metadata, angles per position.
//!
//! Frequency, angle, sine and cosine are f64 and rounded once, to f32. Sources: RoFormer (arXiv 2104.09864), YaRN (arXiv
//! 2309.00071), LongRoPE (arXiv 2402.13753), and for the meaning of GGUF's keys llama.cpp.

use super::config::Keys;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::{Error, Result, math};

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

/// What the metadata says of scaling.
#[derive(Debug, Clone)]
pub(crate) struct Scaling {
    /// Positions are divided by this.
    factor: f64,
    yarn: bool,
    original_context: usize,
    attention_factor: f64,
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

    /// From `rope.scaling.*`.
    pub(crate) fn read(keys: &Keys<'_>) -> Result<Self> {
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
        Ok(Scaling {
            factor,
            yarn,
            original_context,
            attention_factor,
        })
    }
}

impl Rope {
    /// The rotation of an architecture: base, dimensions and scaling from the metadata, factors from the tensors
    /// `rope_freqs.weight` (Llama 3) or `rope_factors_short/long.weight` (longrope).
    pub(crate) fn read(keys: &Keys<'_>, file: &ModelFile, kind: RopeKind, head_dim: usize) -> Result<Self> {
        const BASE: &str = "rope.freq_base";
        let base = keys.opt_f32(BASE)?.unwrap_or(10_000.0);
        let scaling = Scaling::read(keys)?;
        let n_rot = keys
            .opt_u32("rope.dimension_count")?
            .map_or(head_dim, |v| v as usize);
        check_n_rot(keys, n_rot)?;
        let llama3 = factors(file, "rope_freqs.weight", n_rot)?;
        let short = factors(file, "rope_factors_short.weight", n_rot)?;
        let long = factors(file, "rope_factors_long.weight", n_rot)?;
        let make = |factors: &Option<Vec<f32>>| {
            Self::new(keys, kind, n_rot, (BASE, base), &scaling, factors.as_deref())
        };
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

    /// A rotation with a base (and the key that states it) and a scaling; `factors` divide the frequencies, one per pair.
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
            .then(|| correction_range(d, base, scaling.original_context as f64));
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
        let magnitude = if scaling.yarn && scaling.factor > 1.0 {
            scaling.attention_factor * (1.0 + 0.1 * math::ln(scaling.factor))
        } else {
            scaling.attention_factor
        };
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

/// YaRN's ramp in pair indices: below `low` a pair turns 32 times or more over the original context, above `high` less
/// than once.
fn correction_range(d: f64, base: f64, original_context: f64) -> (f64, f64) {
    let pair = |turns: f64| {
        d * math::ln(original_context / (turns * 2.0 * std::f64::consts::PI)) / (2.0 * math::ln(base))
    };
    let low = pair(32.0).floor();
    let high = pair(1.0).ceil();
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
