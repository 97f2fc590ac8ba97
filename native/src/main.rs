//! The `twinfer` command: arguments in [`args`], one file per command in [`commands`], and the parts they share.

mod args;
mod commands;
mod compute;
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
mod settings;
mod system;
mod template;
mod topology;
mod workers;

use std::process::ExitCode;

use settings::Settings;

fn main() -> ExitCode {
    let (cli, notes) = match args::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return failure::report_usage(error),
    };
    let settings = Settings::from(cli.global);
    for line in notes {
        settings.verbosity.detail(&format!("note: {line}"));
    }
    match commands::dispatch(&settings, &cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
