//! ernie4_5-moe (ERNIE 4.5's 21B-A3B and 300B-A47B): llama; some layers at the beginning are dense, and of the others
//! every so many has experts, perhaps with a shared one.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::{ExpertsConfig, FfnConfig, Presence, SharedConfig};
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    // Files have it; what they were made for leaves it out.
    attention.iter_mut().for_each(|layer| layer.output_bias = false);
    let head_dim = attention[0].head_dim_k;
    config.ropes = vec![Rope::read(keys, file, RopeKind::Interleaved, head_dim)?];
    let every = keys.u32("interleave_moe_layer_step")? as usize;
    let first = keys.opt_u32("leading_dense_block_count")?.unwrap_or(0) as usize;
    let has_experts = |layer: usize| layer >= first && every > 0 && (layer + 1).is_multiple_of(every);
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::own_widths(keys)?)?;
    let shared = SharedConfig::read(keys)?;
    for layer in &mut experts {
        layer.gate = Presence::Optional;
        layer.bias = Presence::Optional;
        layer.shared = shared;
    }
    config.layers = LayerConfig::of(attention, FfnConfig::some_experts(keys, experts, has_experts)?);
    Ok(config)
}
