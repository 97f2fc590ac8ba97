//! `eval`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer eval -m model.gguf --tokens 1,403,407
  twinfer eval -m model.gguf --prompt \"Once upon a time\" --json
  twinfer eval -m model.gguf --tokens 1,403 --logits out.f32 --cache-type-k f32 --cache-type-v f32

The digest is the SHA-256 of all logits as little-endian f32, [positions][vocabulary]. It is the
same on every backend and for any number of threads; where two machines differ, one has a fault.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["tokens", "prompt"]))]
pub(crate) struct EvalArgs {
    /// Token ids, separated by commas. They are given to the model as they are: no begin token is added.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) tokens: Vec<u32>,

    /// Text to tokenize in place of --tokens, with the special tokens that the model asks for.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,

    /// After the tokens, go on greedily for N tokens; their logits count as well.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    pub(crate) predict: usize,

    /// Write all logits as little-endian f32, one row per position.
    #[arg(long, value_name = "FILE")]
    pub(crate) logits: Option<PathBuf>,

    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
