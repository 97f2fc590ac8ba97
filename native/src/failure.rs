//! How a command fails: one line on stderr, and an exit code that says which kind of failure it was.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Stopped by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// The command line is wrong; clap uses the same code.
const USAGE: u8 = 2;
const FAILED: u8 = 1;

/// The person pressed Ctrl-C; what was asked for is not complete.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Arguments that parse but make no sense together.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints the error and gives its exit code. A reader that closed our stdout has what it wanted: no error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let closed_pipe = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed_pipe) {
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    let line = format!("{error:#}").replace(['\n', '\r'], " ");
    // Nowhere is left to complain where stderr is closed.
    let _ = crate::output::to_stderr(&format!("error: {line}"));
    ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
}

/// Prints help and versions as they are, and what is wrong with a command line as one line.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let help = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == help {
        // Where the reader has gone, nobody misses it.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
    }
    let text = error.render().to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        // This advice is right only for text that begins with a dash by chance.
        .filter(|line| !line.is_empty() && !line.starts_with("tip: to pass"));
    let mut line = String::new();
    for part in lines {
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') { " " } else { "; " });
        }
        line.push_str(part);
    }
    let _ = crate::output::to_stderr(&format!("{line}; see `{} --help`", command_in(std::env::args())));
    ExitCode::from(USAGE)
}

/// The command that the arguments name, for the hint where its help is.
fn command_in(args: impl Iterator<Item = String>) -> String {
    use clap::CommandFactory as _;
    let cli = crate::args::Cli::command();
    let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    match args.skip(1).find(|arg| names.contains(&arg.as_str())) {
        Some(name) => format!("twinfer {name}"),
        None => "twinfer".into(),
    }
}

/// Ends the process as after Ctrl-C, from a place that cannot return.
pub(crate) fn exit_interrupted() -> ! {
    std::process::exit(i32::from(INTERRUPTED))
}
