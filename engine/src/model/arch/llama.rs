//! llama: Llama 1, 2 and 3.x, Mistral, SmolLM2, TinyLlama; Mixtral, which has experts.
//!
//! Pre-norm, grouped-query attention, SwiGLU. GGUF permutes the rows of q and k so that rotated pairs are adjacent.
//! Llama 3's frequency scaling comes as the tensor `rope_freqs.weight`; biases are taken where the file has them.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::{ExpertsConfig, FfnConfig, GatedConfig, Presence};
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let attention = AttentionConfig::read(keys, &config)?;
    config.ropes = vec![Rope::read(
        keys,
        file,
        RopeKind::Interleaved,
        attention[0].head_dim_k,
    )?];
    config.layers = LayerConfig::of(attention, ffns(keys)?);
    Ok(config)
}

/// Feed-forward parts with a gate, or as many experts of that width as the file says, with a gate where it has one.
pub(super) fn ffns(keys: &Keys<'_>) -> Result<Vec<FfnConfig>> {
    let dense = GatedConfig::read(keys)?;
    if keys.opt_u32("expert_count")?.unwrap_or(0) == 0 {
        return Ok(dense.into_iter().map(FfnConfig::Gated).collect());
    }
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::dense_widths(keys)?)?;
    experts
        .iter_mut()
        .for_each(|layer| layer.gate = Presence::Optional);
    Ok(experts.into_iter().map(FfnConfig::Experts).collect())
}
