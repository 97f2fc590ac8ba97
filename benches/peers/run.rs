//! Starting other programs: no input, errors that name the command and end with what it said.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What it prints on standard output. Its standard error is shown only when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{}` could not be started", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(12).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!(
            "`{}` failed ({}):\n{}",
            line(command),
            output.status,
            last.join("\n")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it for its effect.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The JSON that it prints. Where the model lies on this machine is left out: results are published.
pub(crate) fn json(command: &mut Command) -> Result<Value> {
    let text = output(command)?;
    let mut report: Value =
        serde_json::from_str(&text).with_context(|| format!("`{}` printed no JSON", line(command)))?;
    let name = report["model"]
        .as_str()
        .and_then(|path| Path::new(path).file_name());
    if let Some(name) = name.map(|name| name.to_string_lossy().into_owned()) {
        report["model"] = name.into();
    }
    Ok(report)
}

/// Runs something long, its output in a file that is named when it fails.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("`{}` could not be started", line(command)))?;
    if !status.success() {
        bail!(
            "`{}` failed ({status}); its output is in {}",
            line(command),
            log.display()
        );
    }
    Ok(())
}
