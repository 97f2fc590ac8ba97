//! lfm2 and lfm2moe (LFM2): short convolutions, and attention in the layers that have key and value heads, with norms
//! on q and k; dense, or after a few layers experts. The norm before the output is named as if it belonged to the token
//! embedding.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::{ExpertsConfig, FfnConfig, GatedConfig, Presence};
use crate::model::mixer::{AttentionConfig, MixerConfig, QkNorm, ShortConvConfig, Window};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let window = keys.opt_u32("attention.sliding_window")?.filter(|n| *n > 0);
    let window = window.map(|n| Window::Sliding(n as usize));
    configure_with(keys, file, window, GatedConfig::read(keys)?)
}

pub(super) fn configure_moe(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let first = keys.opt_u32("leading_dense_block_count")?.unwrap_or(0) as usize;
    let gating = ExpertsConfig::gating(keys, None)?;
    let dense = GatedConfig::read(keys)?;
    let experts = ExpertsConfig::read(keys, &ExpertsConfig::widths(keys)?)?;
    let layer = |(i, (dense, experts)): (usize, (GatedConfig, ExpertsConfig))| match i < first {
        true => FfnConfig::Gated(dense),
        false => FfnConfig::Experts(ExpertsConfig {
            gating,
            bias: Presence::Required,
            ..experts
        }),
    };
    let ffn = dense.into_iter().zip(experts).enumerate().map(layer).collect();
    configure_with(keys, file, None, ffn)
}

fn configure_with(
    keys: &Keys<'_>,
    file: &ModelFile,
    window: Option<Window>,
    ffn: Vec<impl Into<FfnConfig>>,
) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.output.norm = Some("token_embd_norm");
    let conv = ShortConvConfig::read(keys, &config)?;
    let attention = AttentionConfig::read_some(keys, &config)?;
    if let Some(first) = attention.iter().flatten().next() {
        config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, first.head_dim_k)?];
    }
    let layer = |attention| match attention {
        None => MixerConfig::ShortConv(conv.clone()),
        Some(attention) => MixerConfig::Attention(AttentionConfig {
            qk_norm: QkNorm::Heads,
            window,
            ..attention
        }),
    };
    config.layers = LayerConfig::of(attention.into_iter().map(layer).collect(), ffn);
    Ok(config)
}
