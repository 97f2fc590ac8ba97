//! `completions`: a shell's completion script, generated from the arguments.

use anyhow::Result;
use clap::CommandFactory as _;

use crate::args::{Cli, CompletionsArgs};
use crate::output;

pub(super) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "twinfer", &mut script);
    output::to_stdout(&String::from_utf8_lossy(&script))
}
