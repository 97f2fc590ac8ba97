//! glm4moe (GLM-4.5, 4.6 and 4.7): biases on q, k and v, norms on their heads where the file has them, a part of each
//! head rotated; a few dense layers, then experts and a shared one. The layer that predicts tokens further ahead is not
//! run.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, PartNorms};
use crate::model::ffn::{ExpertsConfig, FfnConfig, Gating, Presence, SharedConfig};
use crate::model::mixer::{AttentionConfig, QkNorm};
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    for (i, layer) in attention.iter_mut().enumerate() {
        if file.tensor(&format!("blk.{i}.attn_q_norm.weight")).is_some() {
            layer.qk_norm = QkNorm::Heads;
        }
    }
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, attention[0].head_dim_k)?];
    let first = keys.opt_u32("leading_dense_block_count")?.unwrap_or(0) as usize;
    let gating = ExpertsConfig::gating(keys, Some(Gating::Sigmoid))?;
    let normalise = keys.opt_bool("expert_weights_norm")?.unwrap_or(false);
    let scale = keys.factor("expert_weights_scale")?;
    let mut experts = ExpertsConfig::read(keys, &ExpertsConfig::widths(keys)?)?;
    for layer in &mut experts {
        layer.gating = gating;
        layer.bias = Presence::Required;
        layer.normalise = normalise;
        layer.scale = scale;
        layer.shared = SharedConfig::gated(ExpertsConfig::shared_count(keys, layer.n_ff)?);
    }
    config.layers = LayerConfig::of(
        attention,
        FfnConfig::some_experts(keys, experts, |layer| layer >= first)?,
    );
    for layer in &mut config.layers {
        layer.ffn_norms = PartNorms::before("post_attention_norm");
    }
    Ok(config)
}
