//! `render-template`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer render-template -m model.gguf --input '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'
  twinfer render-template --template chatml.jinja --input conversation.json
  jq .messages log.json | twinfer render-template -m model.gguf --input -

The input is an object with the template's variables: messages, tools, add_generation_prompt,
bos_token, eos_token and whatever else the template reads; or just the array of messages.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RenderTemplateArgs {
    /// Template file (Jinja). Default: the model's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,

    /// The variables: a JSON file, `-` for stdin, or the JSON itself.
    #[arg(long, value_name = "JSON", default_value = "-")]
    pub(crate) input: String,

    /// The time that the template is told, as in 2026-01-02T03:04:05. Default: now, in UTC.
    #[arg(long, value_name = "TIME")]
    pub(crate) now: Option<String>,
}
