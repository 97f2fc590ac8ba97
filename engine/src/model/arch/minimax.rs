//! minimax-m2 (MiniMax M2): norms over all heads of q and of k, a part of each head rotated; every layer has experts of
//! `feed_forward_length`, chosen with a bias.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, OutputMatrix};
use crate::model::ffn::{ExpertsConfig, Presence};
use crate::model::mixer::{AttentionConfig, QkNorm};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.output.matrix = OutputMatrix::Own;
    let mut attention = AttentionConfig::read(keys, &config)?;
    attention
        .iter_mut()
        .for_each(|layer| layer.qk_norm = QkNorm::Whole);
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    let gating = ExpertsConfig::gating(keys, None)?;
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::dense_widths(keys)?)?;
    for layer in &mut experts {
        layer.gating = gating;
        layer.bias = Presence::Required;
    }
    config.layers = LayerConfig::of(attention, experts);
    Ok(config)
}
