//! `completions`.

use clap::Args;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  twinfer completions bash > ~/.local/share/bash-completion/completions/twinfer
  twinfer completions zsh > \"${fpath[1]}/_twinfer\"
  twinfer completions fish > ~/.config/fish/completions/twinfer.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: Shell,
}
