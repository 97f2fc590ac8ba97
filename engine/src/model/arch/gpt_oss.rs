//! gpt-oss (20B, 120B): biases everywhere, a sink in each head, every other layer local, and experts whose clamped gate
//! is the family's own; the softmax of the router is over those that were chosen.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::{Activation, MAX_HEAD_DIM, RopeKind};
use crate::model::config::{Config, Keys, LayerConfig, OutputMatrix, PartNorms, last_of_period_is_global};
use crate::model::ffn::{ExpertsConfig, Gating};
use crate::model::mixer::{AttentionConfig, Window};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.output.matrix = OutputMatrix::Own;
    let mut attention = AttentionConfig::read(keys, &config)?;
    // Heads are as wide as the rotation.
    const ROTATED: &str = "rope.dimension_count";
    if let Some(dim) = keys.opt_u32(ROTATED)? {
        let dim = dim as usize;
        keys.in_range(ROTATED, dim, MAX_HEAD_DIM)?;
        for layer in &mut attention {
            (layer.head_dim_k, layer.head_dim_v) = (dim, dim);
            layer.scale = 1.0 / (dim as f32).sqrt();
        }
    }
    let head_dim = attention[0].head_dim_k;
    config.ropes = vec![
        Rope::read(keys, file, RopeKind::Halves, head_dim)?,
        Rope::read_local(keys, file, RopeKind::Halves, head_dim)?,
    ];
    let window = keys.size("attention.sliding_window", u32::MAX)?;
    let local_layers = keys.flags("attention.sliding_window_pattern", 2, last_of_period_is_global)?;
    for (layer, is_local) in attention.iter_mut().zip(local_layers) {
        layer.sinks = true;
        if is_local {
            layer.window = Some(Window::Sliding(window));
            layer.rope = Some(1);
        }
    }
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::own_widths(keys)?)?;
    for layer in &mut experts {
        layer.activation = Activation::SwigluOai;
        layer.gating = Gating::SoftmaxOfChosen;
        layer.normalise = false;
    }
    config.layers = LayerConfig::of(attention, experts);
    for layer in &mut config.layers {
        layer.ffn_norms = PartNorms::before("post_attention_norm");
    }
    Ok(config)
}
