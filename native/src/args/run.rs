//! `run` and `chat`.

use std::path::PathBuf;

use clap::Args;

use super::{GenerationArgs, TemplateArgs};

const RUN_EXAMPLES: &str = "\
Examples:
  twinfer run \"Once upon a time\"
  twinfer run -m model.gguf --temp 0 -n 100 \"The capital of France is\"
  twinfer run -m model.gguf -f prompt.txt --seed 7 > answer.txt
  git diff | twinfer run -m model.gguf -f -

The prompt is given to the model as it is; for a model that was trained to converse,
`twinfer chat` (or `run --chat`) puts it into the model's chat template.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES, allow_negative_numbers = true)]
pub(crate) struct RunArgs {
    /// The text to continue; `-` reads it from stdin.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(crate) prompt: Option<String>,

    /// Read the prompt from a file, but for its last line end; `-` is stdin.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Put the prompt into the model's chat template, as one message of the user.
    #[arg(long)]
    pub(crate) chat: bool,

    /// With --chat: the system message.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,

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

    /// Do not read or write the history of typed lines.
    #[arg(long)]
    pub(crate) no_history: bool,

    #[command(flatten)]
    pub(crate) template: TemplateArgs,

    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}
