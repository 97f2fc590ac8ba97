//! qwen2 (biases on q, k and v, perhaps one on the output) and qwen3 (no biases, norms on the heads of q and k): otherwise llama with the rotated
//! pairs in halves.

use crate::Result;
use crate::gguf::ModelFile;
use crate::kernels::RopeKind;
use crate::model::config::{Config, Keys};
use crate::model::rope::Rope;

pub(super) fn configure_qwen2(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = configure(keys, file)?;
    config.tensors.output_bias = true;
    Ok(config)
}

pub(super) fn configure_qwen3(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = configure(keys, file)?;
    config.tensors.qk_norm = true;
    Ok(config)
}

fn configure(keys: &Keys<'_>, file: &ModelFile) -> Result<Config> {
    let mut config = Config::common(keys, file)?;
    config.ropes = vec![Rope::read(keys, file, RopeKind::Halves, config.head_dim_k)?];
    Ok(config)
}
