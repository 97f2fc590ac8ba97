//! Bounded fuzzing: every target of `fuzz/`, a workspace of its own whose cargo configuration holds the coverage flags.

use std::fs::File;
use std::num::NonZero;
use std::path::Path;
use std::process::Child;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, exists, line};
use crate::{debian, root};

/// Inputs that each target tries, from a fixed seed: on a fresh clone the same ones every time, so that a test run
/// fails by a change and not by chance. A slow machine stops earlier in the same order. To search on, see
/// `fuzz/README.md`.
const RUNS: u32 = 200_000;
const MOST_SECONDS: u32 = 30;
/// An input that takes this long is a finding; far more than any takes, for machines that do other things as well.
const SLOW_SECONDS: u32 = 60;
/// What the compiler prints while the targets are built.
const OUTPUT: &str = "target/fuzz-build.log";

/// The targets being built, beside what else is done and in the time that it leaves over: the builds before it end in
/// one thread of the compiler, and the browser's tests mostly wait.
pub(crate) struct Build {
    cargo: Child,
    line: String,
}

impl Build {
    pub(crate) fn begin() -> Result<Self> {
        if !exists("c++") {
            debian::install(&["g++"]).context("libFuzzer is built from C++ sources")?;
        }
        let cargo = cargo();
        let mut build = if exists("nice") {
            let mut nice = command("nice");
            nice.args(["-n", "19"]).arg(cargo.get_program());
            nice
        } else {
            cargo
        };
        build
            .current_dir(root().join("fuzz"))
            // Flags from the environment would take the place of the package's own, here and below.
            .env_remove("RUSTFLAGS")
            .args(["build", "--release", "--bins"]);
        std::fs::create_dir_all(root().join("target"))?;
        let cargo = build
            .stderr(File::create(root().join(OUTPUT))?)
            .spawn()
            .context("cargo could not be started")?;
        let line = line(&build);
        Ok(Build { cargo, line })
    }

    /// Waits for its end and shows what it printed.
    fn end(mut self) -> Result<()> {
        let status = self.cargo.wait()?;
        let text = std::fs::read_to_string(root().join(OUTPUT))?;
        println!("$ {}\n{text}", self.line);
        if !status.success() {
            bail!("`{}` failed ({status})", self.line);
        }
        Ok(())
    }
}

/// Runs all targets, whatever one finds.
pub(crate) fn run(build: Build) -> Result<()> {
    let fuzz = root().join("fuzz");
    build.end()?;
    // A target takes one core: as many at a time as there are.
    let waiting = Mutex::new(targets(&fuzz)?);
    let failed = Mutex::new(Vec::new());
    let next = || waiting.lock().ok()?.pop();
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    if let (Err(error), Ok(mut failed)) = (search(&fuzz, &target), failed.lock()) {
                        failed.push(format!("{target}: {error:#}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// Tries the inputs of one target; what it prints is shown in one piece.
fn search(fuzz: &Path, target: &str) -> Result<()> {
    let (corpus, seeds) = (format!("corpus/{target}"), format!("seeds/{target}"));
    std::fs::create_dir_all(fuzz.join(&corpus))?;
    let mut run = cargo();
    run.current_dir(fuzz)
        .env_remove("RUSTFLAGS")
        .args(["run", "--quiet", "--release", "--bin", target, "--"])
        .arg("-seed=1")
        .arg(format!("-runs={RUNS}"))
        .arg(format!("-max_total_time={MOST_SECONDS}"))
        .arg(format!("-timeout={SLOW_SECONDS}"))
        .args(["-rss_limit_mb=512", "-print_final_stats=1", "-verbosity=0"])
        .arg(&corpus);
    if fuzz.join(&seeds).is_dir() {
        run.arg(&seeds);
    }
    let found = run.output().context("cargo could not be started")?;
    let text = [found.stdout, found.stderr].concat();
    println!("$ {}\n{}", line(&run), String::from_utf8_lossy(&text));
    if !found.status.success() {
        bail!("`{}` failed ({})", line(&run), found.status);
    }
    Ok(())
}

/// The targets' names: the files in `fuzz_targets`, sorted.
fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fuzz.join("fuzz_targets").read_dir()? {
        let path = entry?.path();
        if let (Some(name), true) = (path.file_stem(), path.extension().is_some_and(|e| e == "rs")) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    if names.is_empty() {
        bail!("there is no target in {}", fuzz.display());
    }
    Ok(names)
}
