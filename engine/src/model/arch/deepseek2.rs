//! deepseek2 (DeepSeek V2, V3 and R1, Kimi K2, GLM-4.7-Flash, Mistral Large 3): latent attention, some dense layers,
//! then experts with a shared one. Older files keep the matrix that makes keys and values of latent vectors in one
//! piece.
//!
//! Sources: DeepSeek-V2 and V3 technical reports (arXiv 2405.04434, 2412.19437), and llama.cpp for what the keys mean.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::{MAX_HEAD_DIM, RopeKind};
use crate::model::config::{Config, Keys, LayerConfig, MAX_WIDTH};
use crate::model::ffn::{ExpertsConfig, FfnConfig, GatedConfig, Gating, Presence, SharedConfig};
use crate::model::mixer::{MixerConfig, MlaConfig, Temperature};
use crate::model::rope::{LogMultiplier, Rope, Scaling, YarnKeys};

/// Models whose files say nothing of how their router works are known by depth and vocabulary: GLM-4.7-Flash, with and
/// without the layer that predicts a token further ahead.
const SIGMOID: ([usize; 2], usize) = ([47, 48], 154_880);

/// Models that make queries of the residual stream, whatever their files say, by depth: V2-Lite and others of its kind.
const PLAIN_QUERIES: [usize; 2] = [26, 27];

/// One more, by depth and vocabulary.
const MORE_PLAIN_QUERIES: (usize, usize) = (48, 128_256);

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let scaling = Scaling::read_with(
        keys,
        YarnKeys {
            betas: false,
            log_multiplier: Some(LogMultiplier::OfScores),
        },
    )?;
    let rotated = keys.size("rope.dimension_count", MAX_HEAD_DIM as u32)?;
    config.ropes = vec![Rope::read_scaled(
        keys,
        file,
        RopeKind::Interleaved,
        rotated,
        &scaling,
    )?];
    let (temperature, q_rank) = (temperature(keys)?, q_rank(keys, &config)?);
    let mut mixers = MlaConfig::read(keys, &config, rotated, q_rank, scaling.score_factor())?;
    mixers
        .iter_mut()
        .for_each(|layer| layer.attention.temperature = temperature);
    config.layers = mixers
        .into_iter()
        .zip(ffns(keys, &config)?)
        .map(|(mixer, ffn)| LayerConfig::new(MixerConfig::Mla(mixer), ffn))
        .collect();
    Ok(config)
}

fn temperature(keys: &Keys<'_>) -> Result<Option<Temperature>> {
    const LENGTH: &str = "attention.temperature_length";
    let length = keys.opt_size(LENGTH, u32::MAX)?;
    match Temperature::read(keys, length)? {
        Some(_) if length == 0 => Err(keys.missing(LENGTH)),
        temperature => Ok(temperature),
    }
}

/// The width that queries are made of, where that is not the residual stream.
fn q_rank(keys: &Keys<'_>, config: &Config) -> Result<Option<usize>> {
    const KEY: &str = "attention.q_lora_rank";
    let n_layers = keys.n_layers()?;
    if PLAIN_QUERIES.contains(&n_layers) || (n_layers, config.n_vocab) == MORE_PLAIN_QUERIES {
        return Ok(None);
    }
    if keys.opt_u32(KEY)?.is_none() {
        return Err(keys.missing(KEY));
    }
    Ok(Some(keys.opt_size(KEY, MAX_WIDTH)?).filter(|rank| *rank > 0))
}

/// Some dense layers, then experts.
fn ffns(keys: &Keys<'_>, config: &Config) -> Result<Vec<FfnConfig>> {
    const WIDTH: &str = "expert_feed_forward_length";
    let n_dense = keys.opt_size("leading_dense_block_count", MAX_WIDTH)?;
    let mut ffns: Vec<FfnConfig> = GatedConfig::read(keys)?
        .into_iter()
        .map(FfnConfig::from)
        .collect();
    if n_dense >= ffns.len() {
        return Ok(ffns);
    }
    let (layers, vocabulary) = SIGMOID;
    let default = match layers.contains(&ffns.len()) && config.n_vocab == vocabulary {
        true => Gating::Sigmoid,
        false => Gating::Softmax,
    };
    let gating = ExpertsConfig::gating(keys, Some(default))?;
    let normalise = keys.opt_bool("expert_weights_norm")?.unwrap_or(false);
    let scale = keys.factor("expert_weights_scale")?;
    let widths = keys.per_layer(WIDTH)?.ok_or_else(|| keys.missing(WIDTH))?;
    let experts = ExpertsConfig::read(keys, &widths)?;
    for (ffn, experts) in ffns.iter_mut().zip(experts).skip(n_dense) {
        let shared = SharedConfig::gated(ExpertsConfig::shared_count(keys, experts.n_ff)?);
        *ffn = FfnConfig::Experts(ExpertsConfig {
            gating,
            bias: Presence::Optional,
            normalise,
            scale,
            shared,
            ..experts
        });
    }
    Ok(ffns)
}
