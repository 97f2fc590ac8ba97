//! qwen3moe (Qwen3-30B-A3B, 235B-A22B, Qwen3-Coder): qwen3 whose feed-forward parts are experts: a softmax over all of
//! them, and weights that sum up to one.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::ExpertsConfig;
use crate::model::mixer::{AttentionConfig, QkNorm};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    attention
        .iter_mut()
        .for_each(|layer| layer.qk_norm = QkNorm::Heads);
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    let experts = ExpertsConfig::read(keys, &ExpertsConfig::widths(keys)?)?;
    config.layers = LayerConfig::of(attention, experts);
    Ok(config)
}
