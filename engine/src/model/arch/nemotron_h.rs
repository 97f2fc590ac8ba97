//! nemotron_h and nemotron_h_moe (Nemotron Nano 2 and 3, Super): layers of one part each: Mamba2, attention without
//! rotation, or a feed-forward part without a gate, which may be experts.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::Activation;
use crate::model::config::{Config, Keys, LayerConfig, MAX_WIDTH, PartNorms};
use crate::model::ffn::{ExpertsConfig, FfnConfig, Gating, PlainConfig, Presence, SharedConfig};
use crate::model::mixer::{AttentionConfig, Mamba2Config, MixerConfig};
use crate::model::norm::NormKind;

const WIDTHS: &str = "feed_forward_length";

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    // The key that names the other kind of norm is the one that must be there.
    let mut norm_eps = keys.epsilon("attention.layer_norm_epsilon")?;
    const RMS: &str = "attention.layer_norm_rms_epsilon";
    if keys.opt_f32(RMS)?.is_some() {
        norm_eps = keys.epsilon(RMS)?;
    }
    let mut config = Config::with_norm(keys, file, NormKind::Rms, norm_eps)?;
    let widths = keys.per_layer_or_none(WIDTHS)?;
    let widths = widths.ok_or_else(|| keys.missing(WIDTHS))?;
    let attention = AttentionConfig::read_some(keys, &config)?;
    let is_mamba =
        |(width, attention): (&usize, &Option<AttentionConfig>)| *width == 0 && attention.is_none();
    let mamba = match widths.iter().zip(&attention).any(is_mamba) {
        true => Some(Mamba2Config::read(keys)?),
        false => None,
    };
    let mut ffn = ffn(keys, &widths)?.into_iter();
    for (width, attention) in widths.iter().zip(attention) {
        let ffn = ffn.next().unwrap_or(FfnConfig::None);
        let (mixer, ffn) = match (attention, &mamba) {
            _ if *width > 0 => (MixerConfig::None, ffn),
            (Some(attention), _) => {
                let attention = AttentionConfig {
                    rope: None,
                    ..attention
                };
                (MixerConfig::Attention(attention), FfnConfig::None)
            }
            (None, Some(mamba)) => (MixerConfig::Mamba2(mamba.clone()), FfnConfig::None),
            (None, None) => (MixerConfig::None, FfnConfig::None),
        };
        let mut layer = LayerConfig::new(mixer, ffn);
        // One norm for whichever part there is.
        let norm = PartNorms::before("attn_norm");
        (layer.mixer_norms, layer.ffn_norms) = match width {
            0 => (norm, PartNorms::default()),
            _ => (PartNorms::default(), norm),
        };
        config.layers.push(layer);
    }
    Ok(config)
}

/// The feed-forward part of each layer that has one of this width; of width 0 it means nothing.
fn ffn(keys: &Keys<'_>, widths: &[usize]) -> Result<Vec<FfnConfig>> {
    let plain = |n_ff: &usize| PlainConfig {
        n_ff: *n_ff,
        activation: Activation::SquaredRelu,
    };
    if keys.opt_u32("expert_count")?.unwrap_or(0) == 0 {
        return Ok(widths.iter().map(plain).map(FfnConfig::Plain).collect());
    }
    const SHARED: &str = "expert_shared_feed_forward_length";
    let shared = SharedConfig {
        n_ff: keys.size(SHARED, MAX_WIDTH)?,
        gate: Presence::No,
        weighed: Presence::No,
    };
    let latent = keys.opt_size("moe_latent_size", MAX_WIDTH)?;
    let normalise = keys.opt_bool("expert_weights_norm")?.unwrap_or(false);
    let scale = keys.factor("expert_weights_scale")?;
    let experts = ExpertsConfig::read(keys, &expert_widths(keys, widths)?)?;
    let layer = |layer| {
        FfnConfig::Experts(ExpertsConfig {
            gate: Presence::No,
            activation: Activation::SquaredRelu,
            gating: Gating::Sigmoid,
            bias: Presence::Required,
            normalise,
            scale,
            latent: (latent > 0).then_some(latent),
            shared: Some(shared),
            ..layer
        })
    };
    Ok(experts.into_iter().map(layer).collect())
}

/// The width of experts in each layer that has some: their own key, or `feed_forward_length` divided by how many are
/// used.
fn expert_widths(keys: &Keys<'_>, widths: &[usize]) -> Result<Vec<usize>> {
    const OWN: &str = "expert_feed_forward_length";
    const USED: &str = "expert_used_count";
    let own = keys.per_layer_or_none(OWN)?;
    let used = keys.per_layer_or_none(USED)?.ok_or_else(|| keys.missing(USED))?;
    let layer = |(i, width): (usize, &usize)| {
        let own = own.as_ref().map_or(0, |own| own[i]);
        match (*width, own) {
            (0, _) => Ok(0),
            (_, 1..) => Ok(own),
            (all, 0) => match all.checked_div(used[i]).unwrap_or(0) {
                0 => Err(keys.wrong(OWN, "at least 1", &format!("0 for layer {i}"))),
                width => Ok(width),
            },
        }
    };
    widths.iter().enumerate().map(layer).collect()
}
