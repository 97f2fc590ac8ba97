//! `render-template`.

use clap::Args;

use super::TemplateArgs;

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
    /// The variables: a JSON file, `-` for stdin, or the JSON itself.
    #[arg(long, value_name = "JSON", default_value = "-")]
    pub(crate) input: String,

    #[command(flatten)]
    pub(crate) template: TemplateArgs,
}
