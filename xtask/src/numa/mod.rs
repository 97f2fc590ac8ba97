//! `cargo xtask numa`: real NUMA, on machines with several nodes that QEMU emulates.
//!
//! Debian's small kernel boots with an initramfs that holds the program and a model of some tens of MB. A script runs
//! the program with each `--numa` mode, stops it while it computes, and prints where the kernel says that its threads
//! and its pages are. The judge compares that with what QEMU was told, and digests with the native one of one thread.
//!
//! Emulated memory is equally far from everywhere: what is shown is where things are, not how fast they are.

mod judge;
mod machine;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command::{command, run};
use crate::guest::{self, BUSYBOX, Guest};
use crate::{debian, eval, root};
use judge::Expected;
use machine::{MACHINES, Machine, QEMU};

/// The model: random weights in the smallest well-known shape, of several types.
const SHAPE: &str = "stories42m";
const TYPE: &str = "q4_k_m";
/// Where the machine has it.
const MODEL: &str = "/model.gguf";
/// Tokens that are generated after [`eval::TOKENS`]: enough to see the program while it computes.
const PREDICT: &str = "8";

/// Makes sure that the emulator and what goes into the machines is there.
///
/// # Errors
/// The machine is no x86-64 Linux, or packages are missing and cannot be installed.
pub(crate) fn find() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the emulated machines run what is built for x86-64 Linux");
    }
    debian::provide(&[(QEMU, "qemu-system-x86"), (BUSYBOX, "busybox-static")])?;
    guest::kernel()?;
    Ok(())
}

/// Builds, boots each machine and judges it. `limit`: a machine that takes longer has failed.
///
/// # Errors
/// Something could not be built or started, or is not as it must be: all faults of a machine are named.
pub(crate) fn check(limit: Duration) -> Result<()> {
    let directory = root().join("target/numa");
    std::fs::create_dir_all(&directory)?;
    let program = eval::program()?;
    let model = model(&program, &directory)?;
    let mut alone = command(&program);
    alone
        .args(["--threads", "1", "--backend", "scalar", "--model"])
        .arg(&model);
    let (_, digest) = eval::eval(&mut alone, &["--predict", PREDICT])?;
    println!("native digest, scalar, one thread: {digest}");
    let expected = Expected {
        digest,
        model_bytes: std::fs::metadata(&model)?.len(),
    };
    let kernel = guest::kernel()?;
    for machine in &MACHINES {
        let mut guest = Guest::new(&script(machine))?;
        guest.program("twinfer", &program, &directory)?;
        guest.file(Path::new(MODEL), &model)?;
        let report = machine.boot(&directory, &kernel, &guest, limit)?;
        judge::judge(machine, &report, &expected)?;
    }
    Ok(())
}

/// Makes the model where it is missing.
fn model(program: &Path, directory: &Path) -> Result<PathBuf> {
    let path = directory.join(format!("{SHAPE}-{TYPE}.gguf"));
    if !path.exists() {
        run(command(program)
            .args(["--quiet", "--seed", "1", "bench", "--no-limits"])
            .args(["-p", "0", "-n", "0"])
            .args(["--shape", SHAPE, "--type", TYPE, "-o"])
            .arg(&path))?;
    }
    Ok(path)
}

/// What is run with each mode, and looked at while it runs: the part's name, the mode, the backend if not the best.
fn watched(machine: &Machine) -> Vec<(String, String, Option<&'static str>)> {
    let last = format!("node:{}", machine.nodes - 1);
    let run = |mode: &str| (format!("watch {mode}"), mode.to_owned(), None);
    let mut runs: Vec<_> = [last.as_str(), "distribute", "mirror"].map(run).into();
    // Modes that more nodes make no harder: once is enough.
    if machine.nodes == 2 {
        runs.extend(["off", "isolate"].map(run));
        runs.push((
            "watch distribute scalar".into(),
            "distribute".into(),
            Some("scalar"),
        ));
    }
    runs
}

/// Modes in which the program is asked for the share of pages on the node that reads them, and what it must be.
const PLACED: [(&str, f64); 3] = [("isolate", 1.0), ("distribute", 0.95), ("mirror", 0.95)];

fn script(machine: &Machine) -> String {
    use std::fmt::Write as _;

    let mut script = include_str!("look.sh").to_owned();
    let mut line = |text: String| writeln!(script, "{text}").expect("writing to a String does not fail");
    line("report doctor doctor --no-measure --json".into());
    for (mode, _) in PLACED {
        line(format!(
            "report 'placed {mode}' doctor --no-measure --json --model {MODEL} --numa {mode}"
        ));
    }
    for (name, mode, backend) in watched(machine) {
        let backend = backend.map_or(String::new(), |name| format!(" --backend {name}"));
        line(format!(
            "watch '{name}' eval --json --tokens {} --predict {PREDICT} --model {MODEL} --numa {mode}{backend}",
            eval::TOKENS
        ));
    }
    script
}
