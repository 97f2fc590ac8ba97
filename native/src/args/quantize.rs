//! `quantize`.

use std::path::PathBuf;

use clap::Args;

use super::OutputArgs;

const EXAMPLES: &str = "\
Examples:
  twinfer quantize model-f16.gguf model-q4_k_m.gguf q4_k_m
  twinfer quantize model-bf16.gguf model-q8_0.gguf q8_0 --threads 8

A mix such as q4_k_m gives the tensors that matter most more bits than its name says.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QuantizeArgs {
    /// The model to read: F32, F16, BF16, or quantized already.
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,

    /// The file to write; `-` is stdout. A device or a FIFO is written to, a symbolic link is followed, a file is replaced
    /// when all of the new one is written.
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,

    /// The type or mix to write.
    #[arg(value_name = "MIX")]
    pub(crate) mix: String,

    #[command(flatten)]
    pub(crate) out: OutputArgs,
}
