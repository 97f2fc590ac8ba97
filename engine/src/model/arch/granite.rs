//! granite (Granite 3 and 4, dense): llama with four factors: of the embedding, of the scores, of what each part adds
//! to the residual stream, and of the logits, which are divided by theirs. Files that say that the rotation was not
//! trained (`rope.scaling.finetuned`) have none.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    // The other factors may be missing.
    keys.f32(LOGITS)?;
    scale(keys, &mut config)?;
    let mut attention = AttentionConfig::read(keys, &config)?;
    scale_scores(keys, &mut attention)?;
    if keys.opt_bool("rope.scaling.finetuned")?.unwrap_or(true) {
        let head_dim = attention[0].head_dim_k;
        config.ropes = vec![Rope::read(keys, file, RopeKind::Interleaved, head_dim)?];
    } else {
        attention.iter_mut().for_each(|layer| layer.rope = None);
    }
    config.layers = LayerConfig::of(attention, GatedConfig::read(keys)?);
    scale_residuals(keys, &mut config.layers)?;
    Ok(config)
}

pub(super) const LOGITS: &str = "logit_scale";

/// The factors of the embedding and of the logits.
pub(super) fn scale(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    config.embedding_scale = keys.factor("embedding_scale")?;
    let divisor = keys.factor(LOGITS)?;
    config.logit_scale = 1.0 / divisor;
    if !config.logit_scale.is_finite() {
        return Err(keys.wrong(LOGITS, "a divisor of finite logits", &divisor.to_string()));
    }
    Ok(())
}

/// The factor of a score, where the file states it.
pub(super) fn scale_scores(keys: &Keys<'_>, attention: &mut [AttentionConfig]) -> Result<()> {
    const KEY: &str = "attention.scale";
    if keys.opt_f32(KEY)?.is_some_and(|scale| scale != 0.0) {
        let scale = keys.factor(KEY)?;
        attention.iter_mut().for_each(|layer| layer.scale = scale);
    }
    Ok(())
}

/// The factor of what each part adds.
pub(super) fn scale_residuals(keys: &Keys<'_>, layers: &mut [LayerConfig]) -> Result<()> {
    let scale = keys.factor("residual_scale")?;
    layers.iter_mut().for_each(|layer| layer.residual_scale = scale);
    Ok(())
}
