//! `perplexity`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer perplexity -m model.gguf -f wiki.test.raw
  twinfer perplexity -m model.gguf -f text.txt --ctx-size 2048 --chunks 20
  twinfer perplexity -m model.gguf -f letters.txt -f code.rs   each text's, and that of all

The text is cut into chunks of the context's size (512 unless --ctx-size says otherwise); each
chunk is predicted from its own beginning, and its second half is scored, as llama.cpp does.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PerplexityArgs {
    /// The text; `-` is stdin. May be given several times: the texts share passes where they are short.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,

    /// Chunks of a text to score at most. Default: all.
    #[arg(long, value_name = "N")]
    pub(crate) chunks: Option<usize>,

    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
