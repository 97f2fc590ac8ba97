//! gemma2: scaled embedding, norms before and after each part, GELU, caps on scores and logits; every other layer is
//! local. Norm weights come with 1 already added.
//!
//! Source: Gemma 2 technical report (arXiv 2408.00118), and llama.cpp for what the keys mean.

use super::gemma3;
use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::{Activation, RopeKind};
use crate::model::config::{Config, Keys, LayerConfig, OutputMatrix, PartNorms, last_of_period_is_global};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::{AttentionConfig, Window};
use crate::model::rope::{Rope, Scaling};

/// The 27B model, whose scores have another factor, is known by its depth.
const LAYERS_27B: usize = 46;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.embedding_scale = (config.n_embd as f32).sqrt();
    config.logit_softcap = Some(cap(keys, "final_logit_softcapping", 30.0)?);
    config.output.matrix = OutputMatrix::Embedding;
    let mut attention = AttentionConfig::read(keys, &config)?;
    let softcap = Some(cap(keys, "attn_logit_softcapping", 50.0)?);
    attention.iter_mut().for_each(|layer| layer.softcap = softcap);
    if attention.len() == LAYERS_27B {
        gemma3::scale_by_width(keys, &config, &mut attention)?;
    }
    let global = Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?;
    const LOCAL_BASE: &str = "rope.freq_base_swa";
    let local = match keys.opt_f32(LOCAL_BASE)? {
        None => global.clone(),
        Some(base) => Rope::new(
            keys,
            RopeKind::Halves,
            global.n_rot(),
            (LOCAL_BASE, base),
            &Scaling::read(keys)?,
            None,
        )?,
    };
    config.ropes = vec![global, local];
    const WINDOW: &str = "attention.sliding_window";
    let window = keys.opt_u32(WINDOW)?.unwrap_or(4096) as usize;
    keys.in_range(WINDOW, window, u32::MAX as usize)?;
    let local_layers = keys.flags("attention.sliding_window_pattern", 2, last_of_period_is_global)?;
    for (layer, is_local) in attention.iter_mut().zip(local_layers) {
        if is_local {
            layer.window = Some(Window::Sliding(window));
            layer.rope = Some(1);
        }
    }
    let mut ffn = GatedConfig::read(keys)?;
    ffn.iter_mut()
        .for_each(|layer| layer.activation = Activation::Gelu);
    config.layers = LayerConfig::of(attention, ffn);
    for layer in &mut config.layers {
        layer.mixer_norms = PartNorms::around("attn_norm", "post_attention_norm");
        layer.ffn_norms = PartNorms::around("ffn_norm", "post_ffw_norm");
    }
    Ok(config)
}

/// A soft cap, which these models always have.
fn cap(keys: &Keys<'_>, key: &str, default: f32) -> Result<f32> {
    match keys.opt_f32(key)?.unwrap_or(default) {
        cap if cap.is_normal() && cap > 0.0 => Ok(cap),
        cap => Err(keys.wrong(key, "a positive number", &cap.to_string())),
    }
}
