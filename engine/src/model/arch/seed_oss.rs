//! seed_oss (Seed-OSS): llama with the rotated pairs in halves, biases on q, k and v, and another name for the norm
//! before the feed-forward part.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, PartNorms};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let attention = AttentionConfig::read(keys, &config)?;
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    config.layers = LayerConfig::of(attention, GatedConfig::read(keys)?);
    for layer in &mut config.layers {
        layer.ffn_norms = PartNorms::before("post_attention_norm");
    }
    Ok(config)
}
