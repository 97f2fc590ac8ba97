//! `cargo xtask emulate`: the AVX-512 backend on machines without AVX-512.
//!
//! Bochs emulates a processor with AVX-512 and VNNI (no other emulator that Debian has does) and boots Debian's small
//! kernel for virtual machines with an initramfs that holds two programs and runs them: the test `backends` of the engine,
//! reduced and for this backend alone, and `twinfer eval` on the built-in model, whose digest must be the one that scalar
//! gives natively. The emulated processor is some hundred times slower than a real one; exactness needs no speed.

mod boot;
mod image;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{cargo, output, run};
use crate::guest::{BUSYBOX, EXIT, Guest, kernel};
use crate::{debian, eval, root};

/// The backend that is tested: it must be compared, or the run has failed.
const BACKEND: &str = "avx512";
/// Files of the packages below that are used by name, with the packages.
const NEEDED: [(&str, &str); 8] = [
    ("/usr/bin/bochs", "bochs"),
    ("/usr/share/bochs/BIOS-bochs-latest", "bochsbios"),
    ("/usr/share/bochs/VGABIOS-lgpl-latest", "vgabios"),
    (boot::DISPLAY, "bochs-term"),
    (image::ISOLINUX, "isolinux"),
    (image::LDLINUX, "syslinux-common"),
    ("/usr/bin/xorriso", "xorriso"),
    (BUSYBOX, "busybox-static"),
];
/// Models whose digests are compared inside, of those that the project holds: grouped queries, windows, norms of heads.
const MODELS: [&str; 3] = ["llama-gqa.gguf", "gemma3-no-window.gguf", "qwen3-yarn.gguf"];

/// Builds, boots and judges. `limit`: after this time the emulator is ended and the run has failed. `filter`: only the
/// tests whose names contain it.
pub(crate) fn emulate(limit: Duration, filter: Option<&str>) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the emulated machine runs what is built for x86-64 Linux; this is another one");
    }
    let directory = root().join("target/emulate");
    std::fs::create_dir_all(&directory)?;
    let kernel = tools()?;
    let program = eval::program()?;
    let tests = test_program()?;
    let want = eval::natively(&program, "scalar")?;
    println!("native digest, scalar: {want}");

    let image = image::write(&directory, &kernel, &guest(&directory, &tests, &program, filter)?)?;
    let report = boot::run(&directory, &image, limit)?;
    judge(&report, &want)
}

/// Installs what is missing and returns the kernel's file.
fn tools() -> Result<PathBuf> {
    debian::provide(&NEEDED)?;
    kernel()
}

/// Builds the test program of the backends, as `cargo test` does, and returns its path.
fn test_program() -> Result<PathBuf> {
    let mut build = cargo();
    build.args([
        "test",
        "--package",
        "twinfer-engine",
        "--test",
        "backends",
        "--no-run",
    ]);
    run(&mut build)?;
    // Built by now: this only tells where it is. A message is a line.
    let messages = output(build.arg("--message-format=json"))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "backends")
        .find_map(|message| Some(message["executable"].as_str()?.into()))
        .context("cargo names no executable for the test `backends`")
}

/// What the emulated machine's file system holds, and the script that it runs.
fn guest(directory: &Path, tests: &Path, program: &Path, filter: Option<&str>) -> Result<Guest> {
    let mut guest = Guest::new(&format!(
        "export TWINFER_TEST_BACKEND={BACKEND} TWINFER_TEST_REDUCED=1\n\
         /programs/twinfer --quiet eval --json --tokens {} | {} grep -E '\"(backend|sha256)\"'\n\
         /programs/tests --test-threads=1 --include-ignored --show-output {}\n",
        eval::TOKENS,
        BUSYBOX,
        filter.unwrap_or_default()
    ))?;
    for (name, program) in [("tests", tests), ("twinfer", program)] {
        guest.program(name, program, directory)?;
    }
    // Where the test looks for them: a path that was fixed when it was built.
    guest.directory(&root().join("engine"));
    for model in MODELS {
        let model = root().join("tests/oracle/vectors").join(model);
        guest.file(&model, &model)?;
    }
    Ok(guest)
}

/// Whether what the machine printed means that the backend was compared and is exact.
fn judge(report: &str, digest: &str) -> Result<()> {
    let has = |what: &str| {
        report
            .lines()
            .any(|line| line.trim().trim_end_matches(',') == what)
    };
    if !has(&format!("\"backend\": \"{BACKEND}\"")) {
        bail!("the program did not take the backend {BACKEND} by itself");
    }
    if !has(&format!("\"sha256\": \"{digest}\"")) {
        bail!("the built-in model's digest is not the native one, {digest}");
    }
    if report.contains(&format!("LEFT OUT {BACKEND}"))
        || !has(&format!("backends: comparing {BACKEND} alone"))
    {
        bail!("the backend {BACKEND} was not compared");
    }
    let passed = report.lines().find_map(|line| {
        line.strip_prefix("test result: ok. ")?
            .split(' ')
            .next()?
            .parse::<u32>()
            .ok()
    });
    match passed {
        Some(passed) if passed > 0 && has(&format!("{EXIT}0")) => {
            println!("{passed} tests passed on the emulated processor; the digest is the native one");
            Ok(())
        }
        _ => bail!("the tests did not pass on the emulated processor; their output stands above"),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn only_a_compared_backend_with_the_right_digest_passes() {
        let good = "  \"backend\": \"avx512\",\n  \"sha256\": \"abc\"\n\
                    backends: comparing avx512 alone\n\
                    test result: ok. 6 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s\n\
                    emulated machine: exit code 0\n";
        assert!(judge(good, "abc").is_ok());
        for (from, to) in [
            ("abc", "abd"),
            ("\"avx512\"", "\"avx2\""),
            ("comparing avx512", "comparing avx2"),
            ("comparing avx512 alone", "LEFT OUT avx512"),
            ("ok. 6 passed", "FAILED. 5 passed"),
            ("ok. 6 passed", "ok. 0 passed"),
            ("code 0", "code 101"),
            ("emulated machine: exit code 0\n", ""),
        ] {
            assert!(judge(&good.replace(from, to), "abc").is_err(), "{from} -> {to}");
        }
    }
}
