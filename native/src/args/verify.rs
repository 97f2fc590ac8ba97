//! `verify`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer verify > record.json                        what this machine makes of the built-in model
  twinfer verify --against record.json                on another machine, or with another --backend
  twinfer verify -m model.gguf > model.record.json
  twinfer verify -m model.gguf --against model.record.json --backend scalar --threads 1

A record holds the SHA-256 of the model's files, and the digests of all logits of fixed prompts,
which need no tokenizer, with the tokens that the sampler chose after them. Exit code 0: every digest
is equal. Otherwise one line says where the difference begins, or why the record is none of this
model's, with exit code 1.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Check a record in place of printing one; -: stdin. The cache's types are those of the record, and records have a
    /// context size of their own.
    #[arg(long, value_name = "RECORD")]
    pub(crate) against: Option<PathBuf>,
}
