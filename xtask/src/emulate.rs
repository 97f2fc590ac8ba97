//! `cargo xtask emulate`: the backends for AVX-VNNI, AVX-512 and AMX on machines without them.
//!
//! Bochs emulates processors with them (no other emulator that Debian has does) and boots Debian's small kernel for
//! virtual machines with an initramfs that holds two programs and runs them: the test `backends` of the engine, reduced
//! and for one backend alone, and `twinfer` on the built-in model, which must take this backend by itself and whose
//! digest must be the one that scalar gives natively. The emulated processor is some hundred times slower than a real
//! one; exactness needs no speed.

mod bochs;
mod boot;
mod image;
mod machine;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{cargo, output, run};
use crate::guest::{BUSYBOX, EXIT, Guest, kernel};
use crate::{debian, eval, root};

pub(crate) use machine::Machine;

/// Files of the packages below that are used by name, with the packages.
const NEEDED: [(&str, &str); 6] = [
    ("/usr/share/bochs/BIOS-bochs-latest", "bochsbios"),
    ("/usr/share/vgabios/vgabios.bin", "vgabios"),
    (image::ISOLINUX, "isolinux"),
    (image::LDLINUX, "syslinux-common"),
    ("/usr/bin/xorriso", "xorriso"),
    (BUSYBOX, "busybox-static"),
];
/// Models whose digests are compared inside, of those that the project holds: grouped queries, windows, norms of heads.
const MODELS: [&str; 3] = ["llama-gqa.gguf", "gemma3-no-window.gguf", "qwen3-yarn.gguf"];

/// Builds, boots and judges, one machine after the other. `limit`: after this time an emulator is ended and the run has
/// failed. `filter`: only the tests whose names contain it.
pub(crate) fn emulate(machines: &[Machine], limit: Duration, filter: Option<&str>) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the emulated machines run what is built for x86-64 Linux; this is another one");
    }
    debian::provide(&NEEDED)?;
    let kernel = kernel()?;
    let bochs = bochs::program()?;
    let program = eval::program()?;
    let tests = test_program()?;
    let want = eval::natively(&program, "scalar")?;
    println!("native digest, scalar: {want}");

    for machine in machines {
        let directory = root().join("target/emulate").join(machine.backend());
        std::fs::create_dir_all(&directory)?;
        let guest = guest(&directory, &tests, &program, machine.backend(), filter)?;
        let image = image::write(&directory, &kernel, &guest)?;
        let report = boot::run(&directory, &bochs, *machine, &image, limit)?;
        judge(&report, machine.backend(), &want).with_context(|| format!("the emulated {machine}"))?;
    }
    Ok(())
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
fn guest(
    directory: &Path,
    tests: &Path,
    program: &Path,
    backend: &str,
    filter: Option<&str>,
) -> Result<Guest> {
    let mut guest = Guest::new(&format!(
        "export TWINFER_TEST_BACKEND={backend} TWINFER_TEST_REDUCED=1\n\
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
fn judge(report: &str, backend: &str, digest: &str) -> Result<()> {
    let has = |what: &str| {
        report
            .lines()
            .any(|line| line.trim().trim_end_matches(',') == what)
    };
    if !has(&format!("\"backend\": \"{backend}\"")) {
        bail!("the program did not take the backend {backend} by itself");
    }
    if !has(&format!("\"sha256\": \"{digest}\"")) {
        bail!("the built-in model's digest is not the native one, {digest}");
    }
    if report.contains(&format!("LEFT OUT {backend}"))
        || !has(&format!("backends: comparing {backend} alone"))
    {
        bail!("the backend {backend} was not compared");
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
        assert!(judge(good, "avx512", "abc").is_ok());
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
            assert!(
                judge(&good.replace(from, to), "avx512", "abc").is_err(),
                "{from} -> {to}"
            );
        }
    }
}
