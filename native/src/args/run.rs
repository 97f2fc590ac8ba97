//! `run` and `chat`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{GenerationArgs, TemplateArgs};
use crate::failure::Usage;

const RUN_EXAMPLES: &str = "\
Examples:
  twinfer run \"Once upon a time\"
  twinfer run -m model.gguf --temp 0 -n 100 \"The capital of France is\"
  twinfer run -m model.gguf -f prompt.txt --seed 7 > answer.txt
  git diff | twinfer run -m model.gguf -f -
  twinfer run -m model.gguf -e -p \"Q: Why is the sky blue?\\nA:\"

The prompt is given to the model as it is; for a model that was trained to converse,
`twinfer chat` (or `run --chat`) puts it into the model's chat template.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES, allow_negative_numbers = true)]
pub(crate) struct RunArgs {
    /// The text to continue; `-` reads it from stdin.
    #[arg(value_name = "PROMPT", conflicts_with_all = ["prompt", "file"])]
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

    /// Read the prompt from a file, but for its last line end; `-` is stdin.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Read \n, \t, \r, \\, \", \' and \xHH in the prompt, in --system and in --stop as the characters that they stand
    /// for. llama.cpp does so unless told otherwise; here a text is taken as it is.
    #[arg(short, long)]
    pub(crate) escape: bool,

    /// Put the prompt into the model's chat template, as one message of the user.
    #[arg(long)]
    pub(crate) chat: bool,

    /// With --chat: the system message.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    /// With --chat: do not print what the model thinks before it answers.
    #[arg(long, requires = "chat")]
    pub(crate) hide_thinking: bool,

    /// Print the generated text alone, not the prompt before it.
    #[arg(long)]
    pub(crate) no_display_prompt: bool,

    /// Print special tokens as text, too.
    #[arg(long)]
    pub(crate) special: bool,

    /// Stop where this text appears; may be given several times.
    #[arg(short = 'r', long = "stop", alias = "reverse-prompt", value_name = "TEXT")]
    pub(crate) stop: Vec<String>,

    #[command(flatten)]
    pub(crate) template: TemplateArgs,

    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}

/// Where a prompt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    Text(&'a str),
    /// `-` is stdin.
    File(&'a Path),
}

impl RunArgs {
    /// The prompt's source.
    pub(crate) fn source(&self) -> Result<Source<'_>, Usage> {
        if self.system.is_some() && !self.chat {
            return Err(Usage(
                "--system is a message of the chat template: add --chat, or put its text into the prompt"
                    .into(),
            ));
        }
        match (self.text.as_deref().or(self.prompt.as_deref()), &self.file) {
            (Some("-"), _) => Ok(Source::File(Path::new("-"))),
            (Some(text), _) => Ok(Source::Text(text)),
            (None, Some(file)) => Ok(Source::File(file)),
            (None, None) => Err(Usage(
                "there is no prompt: give a text, -f FILE, or `-` to read stdin; see `twinfer run --help`"
                    .into(),
            )),
        }
    }
}

const CHAT_EXAMPLES: &str = "\
Examples:
  twinfer chat
  twinfer chat -m qwen3-4b-q4_k_m.gguf --system \"You answer in one sentence.\"
  twinfer chat -m model.gguf --template chatml.jinja

In the chat: Enter sends; Alt-Enter, or a backslash at the end of the line, starts a new line.
Ctrl-C stops the answer, Ctrl-D leaves. /help lists the commands.";

#[derive(Debug, Args)]
#[command(after_help = CHAT_EXAMPLES, allow_negative_numbers = true)]
pub(crate) struct ChatArgs {
    /// The system message.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    /// Do not print what the model thinks before it answers; else a terminal shows it dimmed.
    #[arg(long)]
    pub(crate) hide_thinking: bool,

    /// Do not read or write the history of typed lines.
    #[arg(long)]
    pub(crate) no_history: bool,

    #[command(flatten)]
    pub(crate) template: TemplateArgs,

    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}
