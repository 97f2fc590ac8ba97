//! `cargo xtask numa`: real NUMA, on machines with several nodes that QEMU emulates.
//!
//! Debian's small kernel boots with an initramfs that holds the program and two models of some tens of MB. A script
//! runs the program with each `--numa` mode, stops it while it computes, and prints where the kernel says that its
//! threads and its pages are. The judge compares that with what QEMU was told, and digests with the native one of one
//! thread.
//!
//! Emulated memory is equally far from everywhere: what is shown is where things are, not how fast they are.

mod judge;
mod machine;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{command, json, run};
use crate::guest::{self, BUSYBOX, Guest};
use crate::{debian, eval, root};
use judge::Expected;
use machine::{MACHINES, Machine, QEMU};

/// A model of random weights in a well-known shape.
struct Subject {
    /// What the parts of the report that are of it are called, behind the mode.
    name: &'static str,
    shape: &'static str,
    mix: &'static str,
    /// Where the machine has it.
    path: &'static str,
}

/// The smallest shape, of several types; and the smallest with experts, whose stacks are divided matrix by matrix, and
/// whose token embeddings, beside an output matrix of their own, stay in the file.
const SUBJECTS: [Subject; 2] = [
    Subject {
        name: "",
        shape: "stories42m",
        mix: "q4_k_m",
        path: "/model.gguf",
    },
    Subject {
        name: " experts",
        shape: "stories15m-moe",
        mix: "q4_0",
        path: "/experts.gguf",
    },
];
/// Tokens of a context: as many that the pages at the ends of the nodes' parts of the cache are few.
const CONTEXT: &str = "1024";
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
    let mut models = Vec::new();
    for subject in &SUBJECTS {
        let model = model(subject, &program, &directory)?;
        let mut alone = command(&program);
        alone
            .args(["--threads", "1", "--backend", "scalar", "--model"])
            .arg(&model);
        let options = ["--predict", PREDICT, "--ctx-size", CONTEXT];
        let (_, digest) = eval::eval(&mut alone, &options)?;
        println!("{}: native digest, scalar, one thread: {digest}", subject.shape);
        let packed = packed(&json(command(&program).args(["inspect", "--json"]).arg(&model))?)?;
        models.push((model, Expected { digest, packed }));
    }
    let kernel = guest::kernel()?;
    for machine in &MACHINES {
        let mut guest = Guest::new(&script(machine))?;
        guest.program("twinfer", &program, &directory)?;
        for (subject, (model, _)) in SUBJECTS.iter().zip(&models) {
            guest.file(Path::new(subject.path), model)?;
        }
        let report = machine.boot(&directory, &kernel, &guest, limit)?;
        let expected = models.iter().map(|(_, expected)| expected);
        judge::judge(machine, &report, &expected.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Makes the model where it is missing.
fn model(subject: &Subject, program: &Path, directory: &Path) -> Result<PathBuf> {
    let Subject { shape, mix, .. } = subject;
    let path = directory.join(format!("{shape}-{mix}.gguf"));
    if !path.exists() {
        run(command(program)
            .args(["--quiet", "--seed", "1", "bench", "--no-limits"])
            .args(["-p", "0", "-n", "0"])
            .args(["--shape", shape, "--type", mix, "-o"])
            .arg(&path))?;
    }
    Ok(path)
}

/// Bytes of a model's matrices that a backend packs, about: all but embeddings that are no output matrix as well.
fn packed(inspected: &Value) -> Result<u64> {
    let tensors = inspected["tensors"].as_array().context("it names no tensors")?;
    let bytes = |name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor["name"] == name)?;
        tensor["bytes"].as_u64()
    };
    let all: u64 = tensors.iter().filter_map(|tensor| tensor["bytes"].as_u64()).sum();
    let by_row = match bytes("output.weight") {
        Some(_) => bytes("token_embd.weight").unwrap_or(0),
        None => 0,
    };
    Ok(all - by_row)
}

/// What is run with a mode, and looked at while it runs.
struct Watched {
    /// The part's name.
    name: String,
    subject: usize,
    mode: String,
    /// If not the best.
    backend: Option<&'static str>,
}

/// All that is looked at while it runs.
fn watched(machine: &Machine) -> Vec<Watched> {
    let run = |mode: &str, subject: usize, backend: Option<&'static str>| {
        let backend_name = backend.map_or(String::new(), |name| format!(" {name}"));
        Watched {
            name: format!("watch {mode}{backend_name}{}", SUBJECTS[subject].name),
            subject,
            mode: mode.to_owned(),
            backend,
        }
    };
    let last = format!("node:{}", machine.nodes - 1);
    let mut runs: Vec<_> = [last.as_str(), "distribute", "mirror"]
        .map(|mode| run(mode, 0, None))
        .into();
    runs.push(run("distribute", 1, None));
    // Modes that more nodes make no harder: once is enough.
    if machine.nodes == 2 {
        runs.extend(["off", "isolate"].map(|mode| run(mode, 0, None)));
        runs.push(run("distribute", 0, Some("scalar")));
        runs.push(run("isolate", 1, None));
        runs.push(run("mirror", 1, None));
    }
    runs
}

/// The least part of what several nodes have that is on the node that reads it.
const DIVIDED: f64 = 0.95;

/// Modes in which the program is asked for the share of pages on the node that reads them, and what it must be.
const PLACED: [(&str, f64); 3] = [("isolate", 1.0), ("distribute", DIVIDED), ("mirror", DIVIDED)];

fn script(machine: &Machine) -> String {
    use std::fmt::Write as _;

    let mut script = include_str!("look.sh").to_owned();
    let mut line = |text: String| writeln!(script, "{text}").expect("writing to a String does not fail");
    line("report doctor doctor --no-measure --json".into());
    for Subject { name, path, .. } in &SUBJECTS {
        let model = format!("--ctx-size {CONTEXT} --model {path}");
        for (mode, _) in PLACED {
            line(format!(
                "report 'placed {mode}{name}' doctor --no-measure --json {model} --numa {mode}"
            ));
        }
        // The same as a metric, after work.
        line(format!(
            "report 'metric{name}' bench --long 16 -o json {model} --numa distribute"
        ));
    }
    for Watched {
        name,
        subject,
        mode,
        backend,
    } in watched(machine)
    {
        let backend = backend.map_or(String::new(), |name| format!(" --backend {name}"));
        line(format!(
            "watch '{name}' eval --json --tokens {} --predict {PREDICT} --ctx-size {CONTEXT} --model {} \
             --numa {mode}{backend}",
            eval::TOKENS,
            SUBJECTS[subject].path
        ));
    }
    script
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::packed;

    #[test]
    fn embeddings_that_are_no_output_are_not_packed() {
        let tensor = |name: &str, bytes: u64| json!({"name": name, "bytes": bytes});
        let mut tensors = vec![tensor("token_embd.weight", 100), tensor("blk.0.ffn_up.weight", 7)];
        assert_eq!(packed(&json!({"tensors": tensors})).unwrap(), 107);
        tensors.push(tensor("output.weight", 50));
        assert_eq!(packed(&json!({"tensors": tensors})).unwrap(), 57);
        assert!(packed(&json!({})).is_err());
    }
}
