//! exaone4: parts read the residual stream as it is, and what they make is normed, as in olmo2; norms on the heads of q
//! and k. The 32B model has three local layers to each global one, which rotates nothing.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, PartNorms, last_of_period_is_global};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::{AttentionConfig, QkNorm, Window};
use crate::model::rope::Rope;

/// The 32B model is known by its depth; the others' `attention.sliding_window` does not count.
const LAYERS_32B: usize = 64;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    attention
        .iter_mut()
        .for_each(|layer| layer.qk_norm = QkNorm::Heads);
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    if attention.len() == LAYERS_32B {
        const WINDOW: &str = "attention.sliding_window";
        let window = keys.opt_u32(WINDOW)?.unwrap_or(4096) as usize;
        keys.in_range(WINDOW, window, u32::MAX as usize)?;
        let local_layers = keys.flags("attention.sliding_window_pattern", 4, last_of_period_is_global)?;
        for (layer, is_local) in attention.iter_mut().zip(local_layers) {
            match is_local {
                true => layer.window = Some(Window::Sliding(window)),
                false => layer.rope = None,
            }
        }
    }
    config.layers = normed_after(attention, GatedConfig::read(keys)?);
    Ok(config)
}

/// Layers of these parts, with a norm of what each of them makes and none before it.
pub(super) fn normed_after(attention: Vec<AttentionConfig>, ffn: Vec<GatedConfig>) -> Vec<LayerConfig> {
    let mut layers = LayerConfig::of(attention, ffn);
    for layer in &mut layers {
        layer.mixer_norms = PartNorms::after("post_attention_norm");
        layer.ffn_norms = PartNorms::after("post_ffw_norm");
    }
    layers
}
