//! The `twinfer` command: arguments in [`args`], one file per command in [`commands`], and the parts they share.

mod args;
mod commands;
mod failure;
mod generate;
mod interrupt;
mod load;
mod output;
mod progress;
mod template;
mod topology;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
