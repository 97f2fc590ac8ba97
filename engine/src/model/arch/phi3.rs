//! phi3 (Phi-3, Phi-3.5, Phi-4): llama with q, k and v in one tensor, gate and up in one tensor, pairs in halves, and
//! longrope: two sets of frequency factors, chosen by the length of the context. Its `attention.sliding_window` is not
//! applied: llama.cpp, which the files are made for, does not apply it either.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let attention = AttentionConfig::read(keys, &config)?;
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    config.layers = LayerConfig::of(attention, GatedConfig::read(keys)?);
    Ok(config)
}
