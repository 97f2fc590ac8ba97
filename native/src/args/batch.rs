//! `batch`.

use std::path::PathBuf;

use clap::Args;

use super::{GenerationArgs, TemplateArgs, size};

const EXAMPLES: &str = "\
Examples:
  twinfer batch -m model.gguf questions.jsonl -o answers.jsonl
  twinfer batch -m model.gguf questions.jsonl -o answers.jsonl --unordered -n 200
  jq -c '{prompt: .text}' texts.json | twinfer batch -m model.gguf - -o - > answers.jsonl

A line of the input is one of
  {\"prompt\": \"Once upon a time\", \"max_tokens\": 50, \"seed\": 7}
  {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"custom_id\": \"a\", \"temperature\": 0}
or of OpenAI's batch files, with custom_id, method, url and body. Options given here hold for lines that do not say
otherwise. Each answer is the one that `twinfer run` gives with the same options and seed. docs/batch.md has all fields.

An output that is there already is gone on with: lines that it has are not computed again.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, allow_negative_numbers = true)]
pub(crate) struct BatchArgs {
    /// The prompts and conversations, a JSON object a line; `-` is stdin, which is read to its end first.
    #[arg(value_name = "IN.jsonl")]
    pub(crate) input: PathBuf,

    /// Where the answers go, a JSON object a line; `-` is stdout. A file is written line by line, and gone on with if
    /// it holds answers to the beginning of the input.
    #[arg(short, long, value_name = "OUT.jsonl")]
    pub(crate) output: PathBuf,

    /// Write answers as they come rather than in the input's order; each says which line it is of.
    #[arg(long)]
    pub(crate) unordered: bool,

    /// Sequences that are computed together at most. Default: as many as the cache holds, up to 256.
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub(crate) parallel: Option<usize>,

    /// Memory for the cache of all sequences, in bytes or with K, M or G. Default: what 32 sequences of the context's
    /// size take, at most half of the memory that is free.
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub(crate) cache_size: Option<u64>,

    /// Stop where this text appears, in answers to lines without `stop`; may be given several times.
    #[arg(short = 'r', long = "stop", alias = "reverse-prompt", value_name = "TEXT")]
    pub(crate) stop: Vec<String>,

    #[command(flatten)]
    pub(crate) template: TemplateArgs,

    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}
