//! smollm3: llama, of which every fourth layer rotates nothing.

use super::llama;
use crate::Result;
use crate::gguf::ModelFile;
use crate::model::config::{Config, Keys};
use crate::model::mixer::MixerConfig;

/// Layers from one without rotation to the next.
const PERIOD: usize = 4;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = llama::configure(keys, file)?;
    for layer in config.layers.iter_mut().skip(PERIOD - 1).step_by(PERIOD) {
        if let MixerConfig::Attention(attention) = &mut layer.mixer {
            attention.rope = None;
        }
    }
    Ok(config)
}
