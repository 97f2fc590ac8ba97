//! lfm2 (LFM2, dense): short convolutions, and attention in the layers that have key and value heads, with norms on q and k. The
//! norm before the output is named as if it belonged to the token embedding.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::{FfnConfig, GatedConfig};
use crate::model::mixer::{AttentionConfig, MixerConfig, QkNorm, ShortConvConfig, Window};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.output.norm = "token_embd_norm";
    let window = keys
        .opt_u32("attention.sliding_window")?
        .filter(|n| *n > 0)
        .map(|n| Window::Sliding(n as usize));
    let mixers = mixers(keys, file, &mut config, window)?;
    let ffn = GatedConfig::read(keys)?.into_iter().map(FfnConfig::Gated);
    let both = mixers.into_iter().zip(ffn);
    config.layers = both.map(|(mixer, ffn)| LayerConfig::new(mixer, ffn)).collect();
    Ok(config)
}

/// What mixes positions in each layer.
fn mixers(
    keys: &Keys<'_>,
    file: &ModelFile,
    config: &mut Config,
    window: Option<Window>,
) -> Result<Vec<MixerConfig>> {
    let conv = ShortConvConfig::read(keys, config)?;
    let attention = AttentionConfig::read_some(keys, config)?;
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
    Ok(attention.into_iter().map(layer).collect())
}
