//! `tokenize` and `detokenize`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Source;

const TOKENIZE_EXAMPLES: &str = "\
Examples:
  twinfer tokenize -m model.gguf \"Hello, world\"
  twinfer tokenize -m model.gguf --no-special --json < book.txt
  twinfer tokenize -m model.gguf --json \"Hello\" | twinfer detokenize -m model.gguf

Text is taken byte for byte, but for a byte order mark at its start: a line break at the end of stdin is
tokenized as well.";

#[derive(Debug, Args)]
#[command(after_help = TOKENIZE_EXAMPLES)]
pub(crate) struct TokenizeArgs {
    /// The text. Default: stdin.
    #[arg(conflicts_with = "prompt")]
    text: Option<String>,

    /// The same, for a text that begins with a dash.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "file"
    )]
    prompt: Option<String>,

    /// Read \n, \t, \r, \\, \", \' and \xHH in the text as the characters that they stand for.
    #[arg(short, long)]
    pub(crate) escape: bool,

    /// Read the text from a file; `-` is stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,

    /// The ids as one JSON array.
    #[arg(long)]
    pub(crate) json: bool,

    /// Add the begin and end tokens that the model asks for, and read special tokens written out in the text as
    /// such. The default.
    #[arg(long, overrides_with = "no_special")]
    pub(crate) special: bool,

    /// Neither of the two: the text and nothing but the text.
    #[arg(long, overrides_with = "special")]
    pub(crate) no_special: bool,

    /// Do not add begin and end tokens.
    #[arg(long)]
    pub(crate) no_add_special: bool,

    /// Read special tokens written out in the text as plain text.
    #[arg(long)]
    pub(crate) no_parse_special: bool,
}

impl TokenizeArgs {
    /// The text's source.
    pub(crate) fn source(&self) -> Source<'_> {
        match (self.text.as_deref().or(self.prompt.as_deref()), &self.file) {
            (Some(text), _) => Source::Text(text),
            (None, Some(file)) => Source::File(file),
            (None, None) => Source::File(Path::new("-")),
        }
    }
}

const DETOKENIZE_EXAMPLES: &str = "\
Examples:
  twinfer detokenize -m model.gguf 1 403 407
  twinfer tokenize -m model.gguf --json \"Hello\" | twinfer detokenize -m model.gguf --no-special";

#[derive(Debug, Args)]
#[command(after_help = DETOKENIZE_EXAMPLES)]
pub(crate) struct DetokenizeArgs {
    /// Token ids, separated by spaces or commas. Default: stdin, where a JSON array is understood as well.
    pub(crate) ids: Vec<String>,

    /// The text as one JSON string.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print special tokens as they are written. The default.
    #[arg(long, overrides_with = "no_special")]
    pub(crate) special: bool,

    /// Leave special tokens out.
    #[arg(long, overrides_with = "special")]
    pub(crate) no_special: bool,
}
