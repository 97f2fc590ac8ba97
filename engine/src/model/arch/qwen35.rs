//! qwen35 (Qwen 3.5 and 3.6, dense): delta nets, and every few layers full attention whose heads are gated. Pairs in halves, in a part
//! of the head. Its rotation is made for pictures as well, with several positions per token; in text they are all the same.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, PartNorms};
use crate::model::ffn::{FfnConfig, GatedConfig};
use crate::model::mixer::{AttentionConfig, DeltaNetConfig, MixerConfig, QkNorm};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let ffn = GatedConfig::read(keys)?;
    let mixers = mixers(keys, &config)?;
    config.ropes = vec![rope(keys, file, &config)?];
    config.layers = layers(mixers, ffn.into_iter().map(FfnConfig::Gated));
    Ok(config)
}

/// What mixes positions in each layer.
fn mixers(keys: &Keys<'_>, config: &Config) -> Result<Vec<MixerConfig>> {
    const INTERVAL: &str = "full_attention_interval";
    const DEFAULT_INTERVAL: u32 = 4;
    let interval = match keys.opt_u32(INTERVAL)? {
        Some(0) => return Err(keys.wrong(INTERVAL, "at least 1", "0")),
        interval => interval.unwrap_or(DEFAULT_INTERVAL),
    };
    let last_is_full = |layer: usize, n: usize| n == 0 || !(layer + 1).is_multiple_of(n);
    let recurrent = keys.flags("attention.recurrent_layers", interval, last_is_full)?;
    let delta_net = DeltaNetConfig::read(keys)?;
    let attention = AttentionConfig::read(keys, config)?;
    let layer = |(recurrent, attention): (bool, AttentionConfig)| match recurrent {
        true => MixerConfig::DeltaNet(delta_net.clone()),
        false => MixerConfig::Attention(AttentionConfig {
            gate: true,
            qk_norm: QkNorm::Heads,
            ..attention
        }),
    };
    Ok(recurrent.into_iter().zip(attention).map(layer).collect())
}

fn rope(keys: &Keys<'_>, file: &ModelFile, config: &Config) -> Result<Rope> {
    let head_dim = AttentionConfig::read(keys, config)?[0].head_dim_k;
    Rope::read(keys, file, RopeKind::Halves, head_dim)?.in_sections(keys)
}

fn layers(mixers: Vec<MixerConfig>, ffn: impl Iterator<Item = FfnConfig>) -> Vec<LayerConfig> {
    let layer = |(mixer, ffn)| LayerConfig {
        ffn_norms: PartNorms::before("post_attention_norm"),
        ..LayerConfig::new(mixer, ffn)
    };
    mixers.into_iter().zip(ffn).map(layer).collect()
}
