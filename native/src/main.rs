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
mod output_file;
mod progress;
mod prompt;
#[cfg(test)]
mod reference;
mod resident;
mod system;
mod template;
mod topology;

use std::process::ExitCode;

fn main() -> ExitCode {
    let (cli, notes) = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return failure::report_usage(error),
    };
    if cli.global.verbose {
        notes
            .iter()
            .for_each(|line| output::note(&format!("note: {line}")));
    }
    match commands::dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
