//! command-r (Command R, R+) and cohere2 (Command R7B, A, Aya): one layer norm without bias, whose rows both parts
//! read; logits of the token embedding, times a factor. The largest command-r models norm the heads of q and k. In
//! cohere2 three local layers follow one another, and the global one behind them rotates nothing.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, OutputMatrix, PartNorms, last_of_period_is_global};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::{AttentionConfig, QkNorm, Window};
use crate::model::rope::Rope;

/// From so many layers on, heads of command-r are normed.
const NORMED_LAYERS: usize = 64;

pub(super) fn configure_command_r(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    configure(keys, file, |attention| {
        if attention.len() >= NORMED_LAYERS {
            attention
                .iter_mut()
                .for_each(|layer| layer.qk_norm = QkNorm::LayerHeads);
        }
        Ok(())
    })
}

pub(super) fn configure_cohere2(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    configure(keys, file, |attention| {
        let window = keys.size("attention.sliding_window", u32::MAX)?;
        let local_layers = keys.flags("attention.sliding_window_pattern", 4, last_of_period_is_global)?;
        for (layer, is_local) in attention.iter_mut().zip(local_layers) {
            match is_local {
                true => layer.window = Some(Window::Sliding(window)),
                false => layer.rope = None,
            }
        }
        Ok(())
    })
}

fn configure(
    keys: &Keys<'_>,
    file: &ModelFile,
    change: impl FnOnce(&mut [AttentionConfig]) -> Result<()>,
) -> Result<Config> {
    let mut config = Config::with_layer_norm(keys, file)?;
    const SCALE: &str = "logit_scale";
    keys.f32(SCALE)?;
    config.logit_scale = keys.factor(SCALE)?;
    config.output.matrix = OutputMatrix::Embedding;
    let mut attention = AttentionConfig::read(keys, &config)?;
    let head_dim = attention[0].head_dim_k;
    config.ropes = vec![Rope::read(keys, file, RopeKind::Interleaved, head_dim)?];
    change(&mut attention)?;
    config.layers = LayerConfig::of(attention, GatedConfig::read(keys)?);
    for layer in &mut config.layers {
        layer.parallel = true;
        layer.ffn_norms = PartNorms::default();
    }
    Ok(config)
}
