//! `doctor`.

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer doctor                     what this machine has, and how fast it is at most
  twinfer doctor -m model.gguf       and how fast it could run this model
  twinfer doctor -t 1                the limits of a single core
  twinfer doctor --no-measure        only look, measure nothing
  twinfer doctor --json > doctor.json

The limits: int8 dot products bound the reading of a prompt, memory reads bound the writing of tokens, for each token reads
every weight once. `twinfer bench` says which part of them this program reaches. Numbers are only worth something on a
machine that does nothing else meanwhile.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Leave the measurements out; what remains takes no time.
    #[arg(long)]
    pub(crate) no_measure: bool,

    /// Tokens in the cache for the second estimate of a model's speed.
    #[arg(short, long, value_name = "N", default_value_t = 8192)]
    pub(crate) depth: usize,

    /// All of it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
