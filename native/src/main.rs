//! The `twinfer` command: arguments in [`args`], one file per command in [`commands`], and the parts they share.

mod args;
mod commands;
mod failure;
mod generate;
mod interrupt;
mod limits;
mod load;
mod memory;
mod output;
mod progress;
#[cfg(test)]
mod reference;
mod resident;
mod system;
mod template;
mod topology;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let result = match args::Cli::try_parse() {
        Ok(cli) => commands::dispatch(&cli),
        Err(error) => return failure::report_usage(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
