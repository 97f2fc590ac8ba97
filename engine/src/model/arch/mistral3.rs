//! mistral3 (Ministral 3, Mistral Small and Medium 3.x): llama with YaRN, whose betas and multiplier the file states,
//! and with queries that grow with the position.

use super::llama;
use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::mixer::{AttentionConfig, Temperature};
use crate::model::rope::{LogMultiplier, Rope, Scaling, YarnKeys};

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    let scaling = Scaling::read_with(
        keys,
        YarnKeys {
            betas: true,
            log_multiplier: Some(LogMultiplier::Divides),
        },
    )?;
    let temperature = Temperature::read(keys, scaling.original_context())?;
    attention
        .iter_mut()
        .for_each(|layer| layer.temperature = temperature);
    let dim = attention[0].head_dim_k;
    config.ropes = vec![Rope::read_scaled(
        keys,
        file,
        RopeKind::Interleaved,
        dim,
        &scaling,
    )?];
    config.layers = LayerConfig::of(attention, llama::ffns(keys)?);
    Ok(config)
}
