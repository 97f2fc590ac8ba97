//! Starting other programs: no input, errors that name the command and end with what it said.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The command as one would type it.
#[must_use]
pub fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What it prints on standard output. Its standard error is shown only when it fails.
pub fn output(command: &mut Command) -> Result<String> {
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
pub fn quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The JSON that it prints.
pub fn json(command: &mut Command) -> Result<Value> {
    let text = output(command)?;
    let mut report =
        serde_json::from_str(&text).with_context(|| format!("`{}` printed no JSON", line(command)))?;
    leave_out_directories(&mut report);
    Ok(report)
}

/// Where a model lies on this machine is nobody's concern: results are published. A report is one object or several.
fn leave_out_directories(report: &mut Value) {
    let entries = match report {
        Value::Array(entries) => entries.as_mut_slice(),
        entry => std::slice::from_mut(entry),
    };
    for model in entries.iter_mut().filter_map(|entry| entry.get_mut("model")) {
        let name = model.as_str().and_then(|path| Path::new(path).file_name());
        if let Some(name) = name.and_then(|name| name.to_str()).map(str::to_owned) {
            *model = name.into();
        }
    }
}

/// Runs something long, its output in a file that is named when it fails.
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_name_no_directory() {
        for (mut report, want) in [
            (
                json!({"model": "/a/b/c.gguf", "n": 1}),
                json!({"model": "c.gguf", "n": 1}),
            ),
            (
                json!([{"model": "/a/c.gguf"}, {"n": 1}]),
                json!([{"model": "c.gguf"}, {"n": 1}]),
            ),
            (json!({"model": "c"}), json!({"model": "c"})),
            (json!(3), json!(3)),
        ] {
            leave_out_directories(&mut report);
            assert_eq!(report, want);
        }
    }
}
