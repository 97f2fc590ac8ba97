//! The engines to compare with, set up below `target/tools`: nothing outside the project's directory is touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use twinfer_benches::machine::root;
use twinfer_benches::run;

use crate::engines::Peer;

/// Pinned, so that results of different days compare. It brings the sources of llama.cpp along.
const LLAMA_CPP_PYTHON: &str = "llama-cpp-python==0.3.36";

const ONNXRUNTIME: &[&str] = &["onnxruntime==1.32.0", "onnx==1.23.2", "gguf==0.19.0"];

/// This machine's instructions, whatever they are.
const NATIVE: &str = "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release";

/// What a machine without AVX-512 would get.
const WITHOUT_AVX512: &str = "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON \
     -DGGML_AVX512=OFF -DCMAKE_BUILD_TYPE=Release";

/// Where peers are kept.
pub(crate) fn tools() -> Result<PathBuf> {
    let tools = root().join("target/tools");
    std::fs::create_dir_all(&tools)?;
    Ok(tools)
}

/// Makes the peer ready to run: a Python environment with the engine in it; its interpreter.
pub(crate) fn peer(peer: Peer) -> Result<PathBuf> {
    let name = peer.name();
    // Without its cache: that would give one build of llama.cpp the other's program.
    let from_sources = [
        "--no-cache-dir",
        "--no-binary",
        "llama-cpp-python",
        LLAMA_CPP_PYTHON,
    ];
    let (packages, flags) = match peer {
        Peer::LlamaCpp => (&from_sources[..], NATIVE),
        Peer::LlamaCppAvx2 => (&from_sources[..], WITHOUT_AVX512),
        Peer::OnnxRuntime => (ONNXRUNTIME, ""),
    };
    let tools = tools()?;
    let environment = tools.join(name);
    let python = environment.join("bin/python");
    // Written last: an interrupted build is begun anew.
    let ready = environment.join("ready");
    let wanted = format!("{} {flags}\n", packages.join(" "));
    if std::fs::read_to_string(&ready).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    let log = tools.join(format!("{name}.log"));
    eprintln!(
        "setting up {} in {}: some minutes, once; output in {}",
        packages.last().unwrap_or(&name),
        environment.display(),
        log.display()
    );
    run::quietly(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )
    .context("python3 with its venv module is needed (Debian: python3-venv)")?;
    let pip = ["-m", "pip", "--disable-pip-version-check", "install", "--verbose"];
    run::logged(
        Command::new(&python)
            .args(pip)
            .args(packages)
            .env("CMAKE_ARGS", flags),
        &log,
    )
    .context("llama.cpp needs a C++ compiler (Debian: g++), and pip the network")?;
    std::fs::write(&ready, wanted)?;
    Ok(python)
}

/// The script that runs one measurement of a peer.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}
