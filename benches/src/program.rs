//! The project's own program, which is measured, and asked for the machine's limits.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::machine::root;
use crate::run;

fn path() -> PathBuf {
    root().join("target/release/twinfer")
}

/// The program of these sources, built as its users build it.
pub fn build() -> Result<PathBuf> {
    eprintln!("building twinfer (release)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run::quietly(Command::new(cargo).current_dir(root()).args([
        "build",
        "--release",
        "--package",
        "twinfer",
    ]))?;
    Ok(path())
}

/// The program as it was built last, whatever the sources are now: enough to ask it about the machine.
pub fn last_built() -> Result<PathBuf> {
    let program = path();
    if program.exists() { Ok(program) } else { build() }
}
