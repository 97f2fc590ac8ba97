//! gemma3 (text): scaled embedding, norms before and after each block, norms on q and k, GELU, five local layers
//! (sliding window, own rope base, no scaling) to each global one. Norm weights come with 1 already added.
//!
//! Source: Gemma 3 technical report (arXiv 2503.19786), and llama.cpp for what the keys mean.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::{Activation, RopeKind};
use crate::model::config::{Config, Keys, LayerConfig, PartNorms, last_of_period_is_global};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::{AttentionConfig, QkNorm, Window};
use crate::model::rope::{Rope, Scaling};

/// The 27B model scales queries by its width per head instead of the head dimension; it is known by its depth.
const LAYERS_27B: usize = 62;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.embedding_scale = (config.n_embd as f32).sqrt();
    config.logit_softcap = keys.opt_f32("final_logit_softcapping")?.filter(|v| *v > 0.0);
    let mut attention = AttentionConfig::read(keys, &config)?;
    attention
        .iter_mut()
        .for_each(|layer| layer.qk_norm = QkNorm::Heads);
    if attention.len() == LAYERS_27B {
        scale_by_width(keys, &config, &mut attention)?;
    }
    let global = Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?;
    const LOCAL_BASE: &str = "rope.freq_base_swa";
    let local_base = keys.opt_f32(LOCAL_BASE)?.unwrap_or(10_000.0);
    let local = Rope::new(
        keys,
        RopeKind::Halves,
        global.n_rot(),
        (LOCAL_BASE, local_base),
        &Scaling::read(keys)?.unscaled(),
        None,
    )?;
    config.ropes = vec![global, local];
    let window = keys
        .opt_u32("attention.sliding_window")?
        .filter(|w| *w > 0)
        .map(|w| w as usize);
    // Flags in newer files; else every sixth layer is global.
    let local_layers = keys.flags("attention.sliding_window_pattern", 6, last_of_period_is_global)?;
    for (layer, is_local) in attention.iter_mut().zip(local_layers) {
        if is_local && window.is_some() {
            layer.window = window.map(Window::Sliding);
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

/// Scores are scaled by the model's width per head.
pub(super) fn scale_by_width(
    keys: &Keys<'_>,
    config: &Config,
    attention: &mut [AttentionConfig],
) -> Result<()> {
    let n_heads = attention[0].n_heads;
    if n_heads > config.n_embd {
        let expected = format!("at most embedding_length, {}", config.n_embd);
        return Err(keys.wrong("attention.head_count", &expected, &n_heads.to_string()));
    }
    let scale = 1.0 / ((config.n_embd / n_heads) as f32).sqrt();
    attention.iter_mut().for_each(|layer| layer.scale = scale);
    Ok(())
}
