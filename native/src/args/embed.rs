//! `embed` and `rerank`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use twinfer_engine::model::pooling::Pooling;

use super::TokenIds;

const EMBED_EXAMPLES: &str = "\
Examples:
  twinfer embed -m all-minilm-l6-v2.gguf \"How do I reset my password?\"
  twinfer embed -m model.gguf -f lines.txt --normalize -o npy > vectors.npy
  twinfer embed -m qwen3-embedding-0.6b.gguf --normalize < lines.txt
  twinfer embed -m model.gguf --pooling none --tokens 101,7592,102

Each text becomes one vector; as many texts as fit share a pass, and no vector depends on which they are.
The begin and end tokens that the model asks for are added to texts, never to --tokens.";

#[derive(Debug, Args)]
#[command(after_help = EMBED_EXAMPLES)]
pub(crate) struct EmbedArgs {
    /// The texts, one vector each. Default: the lines of stdin.
    #[arg(value_name = "TEXT", conflicts_with = "tokens")]
    pub(crate) texts: Vec<String>,

    /// Read the texts from a file, one in each line; `-` is stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["texts", "tokens"])]
    file: Option<PathBuf>,

    /// Token ids in place of a text, separated by commas or spaces; may be given several times.
    #[arg(long, value_name = "IDS")]
    pub(crate) tokens: Vec<TokenIds>,

    /// What of a text's hidden states becomes its vector: the mean, the first token's (cls), the last one's, none (each token
    /// keeps its own), or the scores of a reranker's head. Default: what the model's file says.
    #[arg(long, value_name = "KIND")]
    pooling: Option<PoolingArg>,

    /// Make each vector's length 1, so that the products of two of them are cosines.
    #[arg(long)]
    pub(crate) normalize: bool,

    /// json: as OpenAI's API answers; npy: one array of f32 with a row for each vector; f32: the same rows as they are,
    /// little-endian.
    #[arg(short = 'o', long = "format", value_name = "FORMAT", default_value = "json")]
    pub(crate) format: VectorFormat,

    /// Tokens that are computed together, at least those of the longest text. No number depends on it.
    #[arg(short, long, value_name = "N", default_value_t = 512,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65536))]
    pub(crate) batch_size: usize,
}

impl EmbedArgs {
    /// The file with the texts, where they stand in one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match (&self.file, self.texts.is_empty() && self.tokens.is_empty()) {
            (Some(file), _) => Some(file),
            (None, true) => Some(Path::new("-")),
            (None, false) => None,
        }
    }

    /// The pooling that was asked for.
    pub(crate) fn pooling(&self) -> Option<Pooling> {
        self.pooling.map(Pooling::from)
    }
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VectorFormat {
    Json,
    Npy,
    F32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PoolingArg {
    Mean,
    Cls,
    Last,
    None,
    Rank,
}

impl From<PoolingArg> for Pooling {
    fn from(arg: PoolingArg) -> Self {
        match arg {
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::Cls => Pooling::Cls,
            PoolingArg::Last => Pooling::Last,
            PoolingArg::None => Pooling::None,
            PoolingArg::Rank => Pooling::Rank,
        }
    }
}

const RERANK_EXAMPLES: &str = "\
Examples:
  twinfer rerank -m bge-reranker.gguf --query \"What is a panda?\" \"A bear of China.\" \"Hello.\"
  twinfer rerank -m qwen3-reranker-0.6b.gguf --query \"capital of France\" -f passages.txt --top-n 5 --json

The documents, best first: score, number from 0, text. Scores are what the model gives: of some they are
shares of one, of others any numbers, of which larger ones are better.";

#[derive(Debug, Args)]
#[command(after_help = RERANK_EXAMPLES)]
pub(crate) struct RerankArgs {
    /// What is looked for; `-q TEXT` is the same here.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) query: String,

    /// The documents. Default: the lines of stdin.
    #[arg(value_name = "DOC")]
    pub(crate) documents: Vec<String>,

    /// Read the documents from a file, one in each line; `-` is stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with = "documents")]
    file: Option<PathBuf>,

    /// Show the best N alone.
    #[arg(long, value_name = "N")]
    pub(crate) top_n: Option<usize>,

    /// The result as JSON, in the form of Jina's and llama.cpp's servers.
    #[arg(long)]
    pub(crate) json: bool,

    /// Tokens that are computed together, at least those of the longest pair. No number depends on it.
    #[arg(short, long, value_name = "N", default_value_t = 512,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65536))]
    pub(crate) batch_size: usize,
}

impl RerankArgs {
    /// The file with the documents, where they stand in one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match (&self.file, self.documents.is_empty()) {
            (Some(file), _) => Some(file),
            (None, true) => Some(Path::new("-")),
            (None, false) => None,
        }
    }
}
