//! qwen2 (biases on q, k and v, perhaps one on the output) and qwen3 (no biases, norms on the heads of q and k):
//! otherwise llama with the rotated pairs in halves.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::{AttentionConfig, QkNorm};
use crate::model::pooling::Pooling;
use crate::model::rope::Rope;

pub(super) fn configure_qwen2(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = configure(keys, file, QkNorm::None)?;
    config.output.bias = true;
    Ok(config)
}

pub(super) fn configure_qwen3(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = configure(keys, file, QkNorm::Heads)?;
    if let Some(rank) = &mut config.pooling.rank {
        (rank.of, rank.softmax) = (Pooling::Last, true);
    }
    Ok(config)
}

fn configure(keys: &Keys<'_>, file: &ModelFile, qk_norm: QkNorm) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    attention.iter_mut().for_each(|layer| layer.qk_norm = qk_norm);
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    config.layers = LayerConfig::of(attention, GatedConfig::read(keys)?);
    Ok(config)
}
