//! bert (MiniLM, bge, e5, rerankers), nomic-bert, jina-bert-v2 and jina-bert-v3: encoders with layer norms behind each
//! part. bert has an embedding of each position and a plain GELU; nomic-bert and jina-bert-v3 rotate instead, and
//! jina-bert-v2 takes off a score what distance says.
//!
//! Source: BERT (arXiv 1810.04805), Jina Embeddings 2 (arXiv 2310.19923), and llama.cpp for what the keys mean.

use crate::gguf::ModelFile;
use crate::kernels::{Activation, RopeKind};
use crate::model::config::{Config, Keys, LayerConfig, MAX_WIDTH, OutputConfig, OutputMatrix, PartNorms};
use crate::model::encoder::EncoderConfig;
use crate::model::ffn::{ExpertsConfig, FfnConfig, GatedConfig, PlainConfig, Presence};
use crate::model::mixer::{AttentionConfig, QkNorm};
use crate::model::rope::Rope;
use crate::{Result, math};

/// Largest exponent of a slope.
const MAX_BIAS: f64 = 8.0;

pub(super) fn configure_bert(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let (mut config, attention) = encoder(keys, file)?;
    config.encoder.iter_mut().for_each(|own| own.positions = true);
    layers(config, attention, gelu(keys)?)
}

pub(super) fn configure_nomic(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let (mut config, attention) = encoder(keys, file)?;
    rotated(&mut config, keys, file, &attention)?;
    let mut ffn = GatedConfig::read(keys)?;
    // Files may have biases here, which the model was not trained with.
    ffn.iter_mut().for_each(|layer| layer.biases = false);
    layers(config, attention, ffn)
}

pub(super) fn configure_jina_v3(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let (mut config, attention) = encoder(keys, file)?;
    rotated(&mut config, keys, file, &attention)?;
    layers(config, attention, gelu(keys)?)
}

pub(super) fn configure_jina_v2(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let (mut config, mut attention) = encoder(keys, file)?;
    let has = |i: usize, name: &str| file.tensor(&format!("blk.{i}.{name}.weight")).is_some();
    for (i, layer) in attention.iter_mut().enumerate() {
        layer.rope = None;
        layer.slopes = slopes(layer.n_heads);
        if has(i, "attn_q_norm") {
            layer.qk_norm = QkNorm::LayerOfRow;
        }
    }
    let ffn = gated_or_plain(keys, file)?;
    // A reranker's first matrix may give the score itself.
    if let Some(rank) = &mut config.pooling.rank
        && file.tensor("cls.output.weight").is_none()
    {
        rank.inner = 1;
        rank.labels = 1;
    }
    let mut config = layers(config, attention, ffn)?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        if has(i, "attn_norm_2") {
            layer.mixer_norms.sum_again = Some("attn_norm_2");
        }
    }
    Ok(config)
}

/// nomic-bert-moe: every `n`th layer has experts without a gate, the others a plain GELU.
pub(super) fn configure_nomic_moe(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    const EVERY: &str = "moe_every_n_layers";
    let (mut config, attention) = encoder(keys, file)?;
    rotated(&mut config, keys, file, &attention)?;
    let every = keys.opt_size(EVERY, MAX_WIDTH)?;
    let plain = gelu(keys)?;
    let widths: Vec<usize> = plain.iter().map(|layer| layer.n_ff).collect();
    let experts = ExpertsConfig::read(keys, &widths)?;
    let layer = |(i, (plain, mut experts)): (usize, (PlainConfig, ExpertsConfig))| {
        if every == 0 || i % every != 1 % every {
            return FfnConfig::Plain(plain);
        }
        experts.gate = Presence::No;
        experts.activation = Activation::Gelu;
        experts.normalise = false;
        FfnConfig::Experts(experts)
    };
    let ffn = plain.into_iter().zip(experts).enumerate().map(layer).collect();
    layers(config, attention, ffn)
}

/// What all of them share, and the attention of their layers.
fn encoder(keys: &Keys<'_>, file: &ModelFile) -> Result<(Config, Vec<AttentionConfig>)> {
    let mut config = Config::with_layer_norm(keys, file)?;
    config.output = OutputConfig {
        norm: None,
        matrix: OutputMatrix::None,
        bias: false,
    };
    config.encoder = Some(EncoderConfig::read(file));
    let mut attention = AttentionConfig::read(keys, &config)?;
    let causal = keys.opt_bool("attention.causal")?.unwrap_or(false);
    for layer in &mut attention {
        (layer.causal, layer.rope) = (causal, None);
    }
    Ok((config, attention))
}

/// GELU between two matrices, in every layer.
fn gelu(keys: &Keys<'_>) -> Result<Vec<PlainConfig>> {
    let layers = GatedConfig::read(keys)?.into_iter();
    let plain = layers.map(|layer| PlainConfig {
        n_ff: layer.n_ff,
        activation: Activation::Gelu,
    });
    Ok(plain.collect())
}

/// GELU as a gate where a layer has a matrix for it, or one of both in `ffn_up`; else between two matrices.
fn gated_or_plain(keys: &Keys<'_>, file: &ModelFile) -> Result<Vec<FfnConfig>> {
    let layer = |(i, own): (usize, GatedConfig)| {
        let tensor = |name: &str| file.tensor(&format!("blk.{i}.{name}.weight"));
        let fused = tensor("ffn_up").is_some_and(|up| up.n_rows() == own.n_ff * 2);
        if tensor("ffn_gate").is_some() || fused {
            FfnConfig::Gated(GatedConfig {
                activation: Activation::Gelu,
                ..own
            })
        } else {
            FfnConfig::Plain(PlainConfig {
                n_ff: own.n_ff,
                activation: Activation::Gelu,
            })
        }
    };
    let layers = GatedConfig::read(keys)?.into_iter().enumerate();
    Ok(layers.map(layer).collect())
}

fn layers(
    mut config: Config,
    mut attention: Vec<AttentionConfig>,
    ffn: Vec<impl Into<FfnConfig>>,
) -> Result<Config> {
    if !config.ropes.is_empty() {
        attention.iter_mut().for_each(|layer| layer.rope = Some(0));
    }
    config.layers = LayerConfig::of(attention, ffn);
    for layer in &mut config.layers {
        layer.mixer_norms = PartNorms::of_sum("attn_output_norm");
        layer.ffn_norms = PartNorms::of_sum("layer_output_norm");
    }
    Ok(config)
}

fn rotated(
    config: &mut Config,
    keys: &Keys<'_>,
    file: &ModelFile,
    attention: &[AttentionConfig],
) -> Result<()> {
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    Ok(())
}

/// The slopes of ALiBi: 2^(-8 h / n) for h from 1 on, n being the largest power of two that is not above the number of
/// heads; heads beyond it have those between, 2^(-4 h / n) for odd h.
fn slopes(heads: usize) -> Vec<f32> {
    let n = 1 << heads.ilog2();
    let slope = |head: usize| {
        let (bias, h) = if head < n {
            (MAX_BIAS, head + 1)
        } else {
            (MAX_BIAS / 2.0, 2 * (head - n) + 1)
        };
        math::pow(2.0, -bias * h as f64 / n as f64) as f32
    };
    (0..heads).map(slope).collect()
}
