//! gemma-embedding (EmbeddingGemma): the layers of gemma3 with positions that see both sides, windows to both sides,
//! and dense layers behind the mean of a text.
//!
//! Source: EmbeddingGemma technical report (arXiv 2509.20354), and llama.cpp for what the keys mean.

use super::gemma3;
use crate::Result;
use crate::gguf::ModelFile;
use crate::model::config::{Config, Keys, OutputMatrix};
use crate::model::mixer::{MixerConfig, Window};
use crate::model::pooling::PoolingConfig;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    // Without a window it would be another model.
    keys.size("attention.sliding_window", u32::MAX)?;
    let mut config = gemma3::configure(keys, file)?;
    config.output.matrix = OutputMatrix::None;
    config.logit_softcap = None;
    config.pooling.dense = PoolingConfig::read_dense(keys, file, config.n_embd)?;
    for layer in &mut config.layers {
        if let MixerConfig::Attention(attention) = &mut layer.mixer {
            attention.causal = false;
            attention.window = attention.window.map(|window| Window::Symmetric(window.reach()));
        }
    }
    Ok(config)
}
