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

/// Ends the process as after Ctrl-C, from a place that cannot return.
pub(crate) fn exit_interrupted() -> ! {
    std::process::exit(i32::from(INTERRUPTED))
}
