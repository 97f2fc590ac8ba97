//! The options about chat templates, for the commands that render one.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(next_help_heading = "Chat template")]
pub(crate) struct TemplateArgs {
    /// Chat template (Jinja) in place of the model's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,

    /// Which of the model's templates: `default`, or one that it names. Default: `tool_use` where tools are given and
    /// the model has it.
    #[arg(long, value_name = "NAME", conflicts_with = "template")]
    pub(crate) chat_template_name: Option<String>,

    /// The time that the template is told, as in 2026-01-02T03:04:05. Default: now, in local time.
    #[arg(long, value_name = "TIME")]
    pub(crate) now: Option<String>,
}

impl TemplateArgs {
    /// An option that was given, for a command that renders no template.
    pub(crate) fn given(&self) -> Option<&'static str> {
        if self.template.is_some() {
            Some("--template")
        } else if self.chat_template_name.is_some() {
            Some("--chat-template-name")
        } else {
            self.now.as_ref().map(|_| "--now")
        }
    }
}
