//! llama: Llama 1, 2 and 3.x, Mistral, SmolLM2, TinyLlama.
//!
//! Pre-norm, grouped-query attention, SwiGLU. GGUF permutes the rows of q and k so that rotated pairs are adjacent. Llama
//! 3's frequency scaling comes as the tensor `rope_freqs.weight`; biases are taken where the file has them.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys, LayerConfig};
use crate::model::ffn::GatedConfig;
use crate::model::mixer::AttentionConfig;
use crate::model::rope::Rope;

pub(super) fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    let attention = AttentionConfig::read(keys, &config)?;
    config.ropes = vec![Rope::read(
        keys,
        file,
        RopeKind::Interleaved,
        attention[0].head_dim_k,
    )?];
    config.layers = LayerConfig::of(attention, GatedConfig::read(keys)?);
    Ok(config)
}
