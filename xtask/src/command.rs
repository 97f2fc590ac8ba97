//! Running other programs: always from the workspace's root, without standard input, with errors that name the
//! command.

use std::ffi::OsStr;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A command that runs in the workspace's root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(crate::root())
        .stdin(Stdio::null())
        // `cargo run` points this at the libraries of the toolchain that runs it; another compiler must not see them.
        .env_remove("LD_LIBRARY_PATH");
    command
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The command as one would type it, without its environment.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .map(|word| match word.rsplit_once("/bin/") {
            Some((_, name)) if word.starts_with('/') => name.to_owned(),
            _ => word.into_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs it to the end, its output shown; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("`{}` could not be started", line(command)))?;
    check(command, status)
}

/// As [`run`], ended after `limit`.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command
        .spawn()
        .with_context(|| format!("`{}` could not be started", line(command)))?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return check(command, status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("`{}` took longer than {} s", line(command), limit.as_secs());
        }
        sleep(Duration::from_millis(50));
    }
}

/// What it prints on standard output, trimmed; its errors are not shown.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("`{}` could not be started", line(command)))?;
    check(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The JSON that it prints on standard output.
pub(crate) fn json(command: &mut Command) -> Result<Value> {
    let text = output(command)?;
    serde_json::from_str(&text).with_context(|| format!("`{}` printed no JSON", line(command)))
}

/// Whether `program` can be started from the search path.
pub(crate) fn exists(program: &str) -> bool {
    output(command(program).arg("--version")).is_ok()
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}
