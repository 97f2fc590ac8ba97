//! granitehybrid (Granite 4): granite whose layers without key and value heads are Mamba2; dense, or experts of
//! `feed_forward_length` and perhaps a shared one.

use super::granite;
use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, MAX_WIDTH};
use crate::model::ffn::{ExpertsConfig, FfnConfig, GatedConfig, Presence, SharedConfig};
use crate::model::mixer::{AttentionConfig, Mamba2Config, MixerConfig};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    granite::scale(keys, &mut config)?;
    let rotates = keys.opt_bool("rope.scaling.finetuned")?.unwrap_or(true);
    let mut attention = AttentionConfig::read_some(keys, &config)?;
    for layer in attention.iter_mut().flatten() {
        granite::scale_scores(keys, std::slice::from_mut(layer))?;
        layer.rope = rotates.then_some(0);
    }
    if let (Some(first), true) = (attention.iter().flatten().next(), rotates) {
        config.ropes = vec![Rope::read(keys, file, RopeKind::Interleaved, first.head_dim_k)?];
    }
    let mamba = match attention.iter().any(Option::is_none) {
        true => Some(Mamba2Config::read(keys)?),
        false => None,
    };
    let layer = |attention: Option<AttentionConfig>| match (attention, &mamba) {
        (Some(attention), _) => MixerConfig::Attention(attention),
        (None, Some(mamba)) => MixerConfig::Mamba2(mamba.clone()),
        (None, None) => MixerConfig::None,
    };
    let mixers = attention.into_iter().map(layer).collect();
    config.layers = LayerConfig::of(mixers, ffn(keys)?);
    granite::scale_residuals(keys, &mut config.layers)?;
    Ok(config)
}

/// The feed-forward part of each layer.
fn ffn(keys: &Keys<'_>) -> Result<Vec<FfnConfig>> {
    let dense = GatedConfig::read(keys)?;
    if keys.opt_u32("expert_count")?.unwrap_or(0) == 0 {
        return Ok(dense.into_iter().map(FfnConfig::Gated).collect());
    }
    let shared = SharedConfig::gated(keys.opt_size("expert_shared_feed_forward_length", MAX_WIDTH)?);
    let widths: Vec<usize> = dense.iter().map(|layer| layer.n_ff).collect();
    let experts = ExpertsConfig::read(keys, &widths)?;
    let layer = |layer| {
        FfnConfig::Experts(ExpertsConfig {
            gate: Presence::Optional,
            shared,
            ..layer
        })
    };
    Ok(experts.into_iter().map(layer).collect())
}
