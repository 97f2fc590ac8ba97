//! The digest of a few tokens' logits, as the program prints it: natively, and on emulated processors.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, command, json, line, run};
use crate::root;

/// What is evaluated.
pub(crate) const TOKENS: &str = "1,2,3";

/// Builds the program and returns its path.
pub(crate) fn program() -> Result<PathBuf> {
    // As the tests of the command line have it built: `cargo build` would build the engine anew, with other features of
    // its dependencies.
    run(cargo().args(["test", "--workspace", "--no-run", "--test", "cli"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(root().join(target).join("debug/twinfer"))
}

/// The digest that `program` prints here, with this backend.
pub(crate) fn natively(program: &Path, backend: &str) -> Result<String> {
    let (_, digest) = eval(command(program).args(["--backend", backend]), &[])?;
    Ok(digest)
}

/// Evaluates with `command`, which runs the program, and `options` of `eval`: the backend that it took and the digest.
pub(crate) fn eval(command: &mut Command, options: &[&str]) -> Result<(String, String)> {
    command.args(["eval", "--quiet", "--json", "--tokens", TOKENS]);
    let report = json(command.args(options))?;
    let field = |name: &str| report[name].as_str().map(str::to_owned);
    field("backend")
        .zip(field("sha256"))
        .with_context(|| format!("`{}` prints neither a backend nor a digest", line(command)))
}
