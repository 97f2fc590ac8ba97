//! granitemoe (Granite 3's 1B-A400M and 3B-A800M): granite with experts of `feed_forward_length`, and perhaps a shared
//! one. It always rotates, whatever `rope.scaling.finetuned` says.

use super::granite;
use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::{ExpertsConfig, Presence, SharedConfig};
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    keys.f32(granite::LOGITS)?;
    granite::scale(keys, &mut config)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    granite::scale_scores(keys, &mut attention)?;
    let head_dim = attention[0].head_dim_k;
    config.ropes = vec![Rope::read(keys, file, RopeKind::Interleaved, head_dim)?];
    config.layers = LayerConfig::of(attention, experts(keys)?);
    granite::scale_residuals(keys, &mut config.layers)?;
    Ok(config)
}

/// Every layer's experts.
pub(super) fn experts(keys: &Keys<'_>) -> Result<Vec<ExpertsConfig>> {
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::dense_widths(keys)?)?;
    let shared = SharedConfig::read(keys)?;
    for layer in &mut experts {
        layer.gate = Presence::Optional;
        layer.shared = shared;
    }
    Ok(experts)
}
