//! qwen35, qwen35moe (Qwen 3.5 and 3.6) and qwen3next (Qwen3-Next): delta nets, and every few layers full attention
//! whose heads are gated; dense, or experts with a shared one that is weighed. Pairs in halves, in a part of the head.
//! The rotation of the first two is made for pictures as well, with several positions per token, which are all the same
//! in a text.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, MAX_WIDTH, PartNorms};
use crate::model::ffn::{ExpertsConfig, FfnConfig, GatedConfig, Presence, SharedConfig};
use crate::model::mixer::{AttentionConfig, DeltaNetConfig, MixerConfig, QkNorm};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    configure_with(keys, file, GatedConfig::read(keys)?, Kin::Later)
}

pub(super) fn configure_moe(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    configure_with(keys, file, experts(keys)?, Kin::Later)
}

pub(super) fn configure_next(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    configure_with(keys, file, experts(keys)?, Kin::Next)
}

/// What tells the generations apart beside their experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kin {
    /// Value heads of one key head stand together; plain rotation.
    Next,
    /// Every few value heads share a key head; rotation in sections.
    Later,
}

fn configure_with(
    keys: &Keys<'_>,
    file: &ModelFile,
    ffn: Vec<impl Into<FfnConfig>>,
    kin: Kin,
) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let attention = AttentionConfig::read(keys, &config)?;
    let rope = Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?;
    config.ropes = vec![match kin {
        Kin::Next => rope,
        Kin::Later => rope.in_sections(keys)?,
    }];
    config.layers = LayerConfig::of(mixers(keys, attention, kin)?, ffn);
    for (i, layer) in config.layers.iter_mut().enumerate() {
        layer.ffn_norms = PartNorms::before("post_attention_norm");
        if let MixerConfig::DeltaNet(net) = &mut layer.mixer {
            net.fused = kin == Kin::Next && file.tensor(&format!("blk.{i}.ssm_in.weight")).is_some();
        }
    }
    Ok(config)
}

/// What mixes positions in each layer.
fn mixers(keys: &Keys<'_>, attention: Vec<AttentionConfig>, kin: Kin) -> Result<Vec<MixerConfig>> {
    const INTERVAL: &str = "full_attention_interval";
    const DEFAULT_INTERVAL: u32 = 4;
    let interval = match keys.opt_u32(INTERVAL)? {
        Some(0) => return Err(keys.wrong(INTERVAL, "at least 1", "0")),
        interval => interval.unwrap_or(DEFAULT_INTERVAL),
    };
    let last_is_full = |layer: usize, n: usize| n == 0 || !(layer + 1).is_multiple_of(n);
    let recurrent = keys.flags("attention.recurrent_layers", interval, last_is_full)?;
    let delta_net = DeltaNetConfig {
        grouped: kin == Kin::Next,
        ..DeltaNetConfig::read(keys)?
    };
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

/// Every layer's experts.
fn experts(keys: &Keys<'_>) -> Result<Vec<ExpertsConfig>> {
    const SHARED: &str = "expert_shared_feed_forward_length";
    const ALL: &str = "feed_forward_length";
    let own = keys.opt_size(SHARED, MAX_WIDTH)?;
    let all = match own {
        0 => Some(keys.per_layer(ALL)?.ok_or_else(|| keys.missing(SHARED))?),
        _ => None,
    };
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::widths(keys)?)?;
    for (i, layer) in experts.iter_mut().enumerate() {
        layer.shared = Some(SharedConfig {
            n_ff: all.as_ref().map_or(own, |all| all[i]),
            gate: Presence::Required,
            weighed: Presence::Required,
        });
    }
    Ok(experts)
}
