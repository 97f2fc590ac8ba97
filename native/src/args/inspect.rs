//! `inspect`.

use std::path::PathBuf;

use clap::Args;

use super::OutputArgs;

const EXAMPLES: &str = "\
Examples:
  twinfer inspect model.gguf
  twinfer inspect model.gguf --json -o model.json
  twinfer inspect model.gguf --json | jq '.tensors[].type'
  twinfer inspect model.gguf --plan -c 8192
  twinfer inspect model.gguf --dump-tensor output_norm.weight -o norm.f32";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Model file; the same as -m.
    #[arg(conflicts_with = "model")]
    pub(crate) file: Option<PathBuf>,

    /// Everything as JSON, for programs.
    #[arg(long, conflicts_with = "dump_tensor")]
    pub(crate) json: bool,

    /// Show the memory that the model takes here with a context (--ctx-size, --cache-type-k, --cache-type-v, --weights,
    /// --direct-io), and whether there is so much; with --json for programs.
    #[arg(long, conflicts_with_all = ["dump_tensor", "full"])]
    pub(crate) plan: bool,

    /// Sequences of the context that is planned, each as long as the context.
    #[arg(long, value_name = "N", requires = "plan", default_value = "1",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub(crate) parallel: usize,

    /// Show long values (vocabularies, templates) in full.
    #[arg(long)]
    pub(crate) full: bool,

    /// Decode a tensor to little-endian f32.
    #[arg(long, value_name = "NAME", requires = "output")]
    pub(crate) dump_tensor: Option<String>,

    /// Write to this file what would be printed, or the tensor of --dump-tensor; `-` is stdout.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) out: OutputArgs,
}
