//! The `twinfer` command: arguments in [`args`], one file per command in [`commands`], and the parts they share.

mod address_space;
mod answer;
mod args;
mod budget;
mod commands;
mod compute;
mod control_group;
mod cpu_list;
mod direct_io;
mod failure;
mod generate;
mod interrupt;
mod load;
#[cfg(test)]
mod machine_files;
mod mapped;
mod memory;
mod numa;
mod output;
mod output_file;
mod placed;
mod prediction;
mod progress;
mod prompt;
mod rates;
mod read_ahead;
#[cfg(test)]
mod reference;
mod resident;
mod settings;
mod system;
mod template;
#[cfg(target_os = "linux")]
mod terminal;
mod topology;
mod usage;
mod vectors;
mod workers;

use std::process::ExitCode;

use settings::Settings;

/// Stack of the thread that does the work: templates recurse, and the system's own may be smaller (`ulimit -s`).
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    let thread = std::thread::Builder::new()
        .name("twinfer".into())
        .stack_size(STACK);
    match thread.spawn(work).map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        // The panic has had its message.
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        // No thread can be started: this one may do.
        Err(_) => work(),
    }
}

fn work() -> ExitCode {
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
