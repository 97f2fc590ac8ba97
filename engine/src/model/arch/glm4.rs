//! glm4 (GLM-4 of 2025, GLM-Z1): norms before and after each part, a part of each head rotated, gate and up in one
//! tensor; biases on q, k and v where the file has them.
//!
//! Files of models that see pictures name sections of the rotation, one for each axis of a position. Their pairs lie in
//! halves; on text all axes are equal.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig, PartNorms};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let attention = AttentionConfig::read(keys, &config)?;
    config.ropes = vec![Rope::read(keys, file, kind(keys)?, attention[0].head_dim_k)?];
    config.layers = LayerConfig::of(attention, GatedConfig::read(keys)?);
    for layer in &mut config.layers {
        layer.mixer_norms = PartNorms::around("attn_norm", "post_attention_norm");
        layer.ffn_norms = PartNorms::around("ffn_norm", "post_ffw_norm");
    }
    Ok(config)
}

fn kind(keys: &Keys<'_>) -> Result<RopeKind> {
    const KEY: &str = "rope.dimension_sections";
    let sections = keys.metadata.opt_ints(&format!("{}.{KEY}", keys.arch))?;
    match sections.as_deref() {
        None | Some([] | [..=0, ..] | [_, ..=0, ..]) => Ok(RopeKind::Interleaved),
        // The fourth axis of a text's positions stands still.
        Some([_, _] | [_, _, _] | [_, _, _, 0]) => Ok(RopeKind::Halves),
        Some(sections) => {
            let expected = "sections of three axes, which are equal on text";
            let found = format!("{:?}", &sections[..sections.len().min(8)]);
            Err(keys.wrong(KEY, expected, &found))
        }
    }
}
