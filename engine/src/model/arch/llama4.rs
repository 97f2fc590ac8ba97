//! llama4 (Scout, Maverick): three layers that see a block of 8192 positions to one that sees all and rotates nothing,
//! whose queries grow with the position; heads of q and k normed after the rotation; experts in every so many layers,
//! whose weights are of what they read, with a shared one.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, last_of_period_is_global};
use crate::model::ffn::{ExpertsConfig, FfnConfig, Gating, SharedConfig};
use crate::model::mixer::{AttentionConfig, QkNorm, Temperature, Window};
use crate::model::rope::Rope;

/// Positions of a block.
const CHUNK: usize = 8192;

/// Layers from one that sees all to the next.
const PERIOD: usize = 4;

/// Maverick, whose heads are not normed, is known by its experts.
const MAVERICK_EXPERTS: usize = 128;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    const WINDOW: &str = "attention.sliding_window";
    if keys.opt_u32(WINDOW)? == Some(0) {
        let expected = format!("any number but 0, for blocks of {CHUNK}");
        return Err(keys.wrong(WINDOW, &expected, "0"));
    }
    let mut attention = AttentionConfig::read(keys, &config)?;
    let head_dim = attention[0].head_dim_k;
    config.ropes = vec![Rope::read_local(keys, file, RopeKind::Interleaved, head_dim)?];
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::own_widths(keys)?)?;
    for (i, layer) in attention.iter_mut().enumerate() {
        if last_of_period_is_global(i, PERIOD) {
            layer.window = Some(Window::Chunk(CHUNK));
            if experts[0].n_experts != MAVERICK_EXPERTS {
                layer.qk_norm = QkNorm::AfterRotation;
            }
        } else {
            layer.rope = None;
            layer.temperature = Some(Temperature {
                length: CHUNK,
                offset: 1,
                scale: 0.1,
            });
        }
    }
    for layer in &mut experts {
        layer.gating = Gating::SigmoidOfChosen;
        layer.normalise = false;
        layer.weigh_input = true;
        layer.shared = SharedConfig::gated(layer.n_ff);
    }
    let every = keys.u32("interleave_moe_layer_step")? as usize;
    let has_experts = |layer: usize| every > 0 && (layer + 1).is_multiple_of(every);
    config.layers = LayerConfig::of(attention, FfnConfig::some_experts(keys, experts, has_experts)?);
    Ok(config)
}
