//! `eval`.

use std::path::PathBuf;

use clap::Args;
use twinfer_engine::trace::Place;

use super::{OutputArgs, TokenIds};

const EXAMPLES: &str = "\
Examples:
  twinfer eval -m model.gguf --tokens 1,403,407
  twinfer eval -m model.gguf --prompt \"Once upon a time\" --json
  twinfer eval -m model.gguf --texts lines.txt             a digest per line, many lines to a pass
  twinfer eval -m model.gguf --tokens 1,403 --logits out.f32 --cache-type-k f32 --cache-type-v f32

The digest is the SHA-256 of all logits as little-endian f32, [positions][vocabulary]. It is the
same on every backend and for any number of threads; where two machines differ, one has a fault.

To find it, on one machine:
  twinfer eval -m model.gguf --tokens 1,403,407 --trace-against scalar
and between two of them:
  twinfer eval -m model.gguf --tokens 1,403,407 --trace-ops here.trace       (on one)
  twinfer eval -m model.gguf --tokens 1,403,407 --trace-against here.trace   (on the other)
  twinfer eval -m model.gguf --tokens 1,403,407 --trace-values 2:0:attention (on both, for diff)";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["tokens", "prompt", "texts"]))]
pub(crate) struct EvalArgs {
    /// Token ids, separated by commas or spaces; a JSON array of them is understood as well. They are given to the model
    /// as they are: no begin token is added.
    #[arg(long, value_name = "IDS")]
    tokens: Vec<TokenIds>,

    /// Text to tokenize in place of --tokens, with the special tokens that the model asks for.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,

    /// A file with a text in each line (-: stdin): the number of tokens and the digest of each. As many as fit share a pass;
    /// the digests are those that each has alone.
    #[arg(long, value_name = "FILE", conflicts_with_all =
          ["predict", "logits", "trace_ops", "trace_against", "trace_values"])]
    pub(crate) texts: Option<PathBuf>,

    /// Read \n, \t, \r, \\, \", \' and \xHH in --prompt as the characters that they stand for.
    #[arg(short, long, requires = "prompt")]
    pub(crate) escape: bool,

    /// After the tokens, go on greedily for N tokens; their logits count as well.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    pub(crate) predict: usize,

    /// Write all logits as little-endian f32, one row per position. -: to stdout, in place of the report.
    #[arg(long, value_name = "FILE")]
    pub(crate) logits: Option<PathBuf>,

    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Tokens that are computed together. No number depends on it.
    #[arg(short, long, value_name = "N", default_value_t = 512,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65536))]
    pub(crate) batch_size: usize,

    /// Write the SHA-256 of every operation's output, a line per position, layer and operation. -: to stdout, in place of
    /// the report.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace_ops: Option<PathBuf>,

    /// In place of the report, name the first operation that differs from a file that --trace-ops wrote (-: stdin). With
    /// the name of a backend: the first element that differs from what that backend computes on one thread, token by token,
    /// from weights as they are in the file. Exit code 1 where one differs.
    #[arg(long, value_name = "FILE|BACKEND", conflicts_with_all = ["json", "logits", "trace_ops"])]
    pub(crate) trace_against: Option<String>,

    /// In place of the report, print what one operation made of one position: element, bits and value, a line each.
    #[arg(long, value_name = "POSITION:LAYER:OP", conflicts_with_all = ["json", "logits", "trace_ops", "trace_against"])]
    pub(crate) trace_values: Option<Place>,

    #[command(flatten)]
    pub(crate) out: OutputArgs,
}

impl EvalArgs {
    /// The ids of --tokens.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        self.tokens.iter().flat_map(|ids| ids.0.iter().copied()).collect()
    }
}
