//! Gemma 4: local and full layers with heads of their own sizes and rotations, normed values, last layers that read the keys
//! and values of others, embeddings per layer, experts beside a dense part.

use crate::gguf::ModelFile;
use crate::kernels::{Activation, MAX_HEAD_DIM, RopeKind};
use crate::model::config::{Config, Keys, LayerConfig, MAX_WIDTH, PartNorms, last_of_period_is_global};
use crate::model::ffn::{DenseAndExpertsConfig, ExpertsConfig, FfnConfig, GatedConfig};
use crate::model::mixer::{AttentionConfig, QkNorm, Window};
use crate::model::per_layer::PerLayerConfig;
use crate::model::rope::{Rope, Scaling, factors};
use crate::{Error, Result};

/// The cap of the logits where the file does not say.
const LOGIT_CAP: f32 = 30.0;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.embedding_scale = (config.n_embd as f32).sqrt();
    config.logit_softcap = logit_cap(keys)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    let (local, kind) = (local_layers(keys)?, Local::read(keys)?);
    let full_dim = attention[0].head_dim_k;
    for (layer, is_local) in attention.iter_mut().zip(&local) {
        (layer.scale, layer.qk_norm) = (1.0, QkNorm::Heads);
        (layer.value_norm, layer.keys_as_values) = (true, true);
        if *is_local {
            kind.make(keys, layer)?;
        }
    }
    config.ropes = ropes(keys, file, (full_dim, kind.head_dim_k), local.contains(&false))?;
    share(keys, &mut attention, &local)?;
    config.per_layer = PerLayerConfig::read(keys, attention.len())?;
    config.layers = LayerConfig::of(attention, ffns(keys, file)?);
    for layer in &mut config.layers {
        layer.mixer_norms = PartNorms::around("attn_norm", "post_attention_norm");
        layer.ffn_norms = PartNorms::around("ffn_norm", "post_ffw_norm");
        layer.output_scale = true;
    }
    Ok(config)
}

/// Gated ones; with experts beside them in layers that have a router.
fn ffns(keys: &Keys<'_>, file: &ModelFile) -> Result<Vec<FfnConfig>> {
    let mut dense = GatedConfig::read(keys)?;
    dense
        .iter_mut()
        .for_each(|layer| layer.activation = Activation::Gelu);
    let routed = |i: usize| file.tensor(&format!("blk.{i}.ffn_gate_inp.weight")).is_some();
    if !(0..dense.len()).any(routed) {
        return Ok(dense.into_iter().map(FfnConfig::from).collect());
    }
    const WIDTH: &str = "expert_feed_forward_length";
    let widths = keys.per_layer(WIDTH)?.ok_or_else(|| keys.missing(WIDTH))?;
    let experts = ExpertsConfig::read(keys, &widths)?;
    let layer = |(i, (dense, mut experts)): (usize, (GatedConfig, ExpertsConfig))| {
        experts.activation = Activation::Gelu;
        match routed(i) {
            true => DenseAndExpertsConfig { dense, experts }.into(),
            false => dense.into(),
        }
    };
    Ok(dense.into_iter().zip(experts).enumerate().map(layer).collect())
}

fn logit_cap(keys: &Keys<'_>) -> Result<Option<f32>> {
    const KEY: &str = "final_logit_softcapping";
    match keys.opt_f32(KEY)?.unwrap_or(LOGIT_CAP) {
        0.0 => Ok(None),
        cap if cap.is_finite() && cap > 0.0 => Ok(Some(cap)),
        cap => Err(keys.wrong(KEY, "0 or a positive number", &cap.to_string())),
    }
}

/// Which layers are local. No family's habit stands in for the key.
fn local_layers(keys: &Keys<'_>) -> Result<Vec<bool>> {
    const KEY: &str = "attention.sliding_window_pattern";
    if !keys.has(KEY) {
        return Err(keys.missing(KEY));
    }
    keys.flags(KEY, 0, last_of_period_is_global)
}

/// What local layers have of their own, beside the rotation.
struct Local {
    window: usize,
    head_dim_k: usize,
    head_dim_v: usize,
}

impl Local {
    /// All of it is there, whether or not a layer is local.
    fn read(keys: &Keys<'_>) -> Result<Self> {
        Ok(Local {
            window: keys.size("attention.sliding_window", u32::MAX)?,
            head_dim_k: keys.size("attention.key_length_swa", MAX_HEAD_DIM as u32)?,
            head_dim_v: keys.size("attention.value_length_swa", MAX_HEAD_DIM as u32)?,
        })
    }

    fn make(&self, keys: &Keys<'_>, layer: &mut AttentionConfig) -> Result<()> {
        layer.window = Some(Window::Sliding(self.window));
        layer.rope = Some(1);
        (layer.head_dim_k, layer.head_dim_v) = (self.head_dim_k, self.head_dim_v);
        let most = MAX_WIDTH as usize / self.head_dim_k;
        keys.in_range("attention.head_count", layer.n_heads, most)
    }
}

/// The rotations of full and of local layers. Full ones have a factor per pair of the head.
fn ropes(
    keys: &Keys<'_>,
    file: &ModelFile,
    (full_dim, local_dim): (usize, usize),
    any_full: bool,
) -> Result<Vec<Rope>> {
    const DIMENSIONS: [&str; 2] = ["rope.dimension_count", "rope.dimension_count_swa"];
    const FACTORS: &str = "rope_freqs.weight";
    const BASES: [&str; 2] = ["rope.freq_base", "rope.freq_base_swa"];
    let rotated = |key: &str, default: usize, dim: usize| {
        let n_rot = keys.opt_u32(key)?.map_or(default, |n| n as usize);
        if n_rot == 0 || n_rot > dim || !n_rot.is_multiple_of(2) {
            let expected = format!("an even number up to the head dimension, {dim}");
            return Err(keys.wrong(key, &expected, &n_rot.to_string()));
        }
        Ok(n_rot)
    };
    let n_rot = rotated(DIMENSIONS[0], full_dim, full_dim)?;
    let n_rot_local = rotated(DIMENSIONS[1], n_rot, local_dim)?;
    let factors = factors(file, FACTORS, full_dim)?;
    if any_full && factors.is_none() {
        return Err(Error::Tensor {
            tensor: FACTORS.into(),
            what: "it is missing from the file, and full layers are rotated by it".into(),
        });
    }
    let base = |key| keys.opt_f32(key).map(|base| (key, base.unwrap_or(10_000.0)));
    let scaling = Scaling::read(keys)?;
    Ok(vec![
        Rope::new(
            keys,
            RopeKind::Halves,
            n_rot,
            base(BASES[0])?,
            &scaling,
            factors.as_deref(),
        )?,
        Rope::new(
            keys,
            RopeKind::Halves,
            n_rot_local,
            base(BASES[1])?,
            &scaling.unscaled(),
            None,
        )?,
    ])
}

/// The last layers read the keys and values of the last two that make some: local ones of the first of these, full ones of
/// the second.
fn share(keys: &Keys<'_>, attention: &mut [AttentionConfig], local: &[bool]) -> Result<()> {
    const KEY: &str = "attention.shared_kv_layers";
    let n_layers = attention.len();
    let shared = keys.opt_size(KEY, MAX_WIDTH)?;
    if shared == 0 {
        return Ok(());
    }
    let Some(first) = n_layers.checked_sub(shared).filter(|first| *first >= 2) else {
        let expected = format!("at most {} of {n_layers} layers", n_layers.saturating_sub(2));
        return Err(keys.wrong(KEY, &expected, &shared.to_string()));
    };
    for i in first..n_layers {
        let source = first - if local[i] { 2 } else { 1 };
        let (from, to) = (&attention[source], &attention[i]);
        let shape = |layer: &AttentionConfig| (layer.n_kv_heads, layer.head_dim_k, layer.head_dim_v);
        let reach = |layer: &AttentionConfig| layer.window.map_or(usize::MAX, Window::reach);
        if shape(from) != shape(to) || reach(from) < reach(to) {
            let say = |layer: &AttentionConfig| {
                let (n, k, v) = shape(layer);
                format!(
                    "{n} heads of {k} and {v}, window {:?}",
                    layer.window.map(Window::reach)
                )
            };
            let expected = format!("layers that layer {i} can read from: {}", say(to));
            let found = format!("layer {source} with {}", say(from));
            return Err(keys.wrong(KEY, &expected, &found));
        }
        attention[i].shares = Some(source);
    }
    Ok(())
}
