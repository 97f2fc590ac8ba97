//! Building for wasm32-unknown-unknown, where the compiler has the target's standard library and where it has not.
//!
//! With rustup: its `wasm32-unknown-unknown` target. Where rustup cannot download: Debian's `rustc-web`, `rust-web-src`
//! and `lld`, whose library sources are of the same version, so that cargo builds the standard library with `-Z
//! build-std` (a stable compiler needs `RUSTC_BOOTSTRAP` for that). Either way says which it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::command::{cargo, command, exists, output, run, run_within};
use crate::web::Build;
use crate::{debian, root};

const TARGET: &str = "wasm32-unknown-unknown";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The engine with overflow checks, which the native tests do without.
const CHECKED: &str = "profile.dev.package.twinfer-engine.overflow-checks=true";
/// How long rustup may take to install the target, where the network neither answers nor refuses.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(120);

/// Which toolchain the person asks for.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// rustup's target where it can be had, else Debian's packages.
    #[default]
    Auto,
    /// rustup's target.
    Rustup,
    /// Debian's rustc-web, rust-web-src and lld.
    Debian,
}

/// A toolchain that is installed and builds for wasm32.
pub(crate) enum Toolchain {
    /// The compiler that also builds natively.
    Rustup,
    /// Debian's compiler and the name of its linker.
    Debian { linker: String },
}

impl Toolchain {
    /// The toolchain of `choice`, installed if need be.
    pub(crate) fn find(choice: Choice) -> Result<Toolchain> {
        let found = match choice {
            Choice::Rustup => rustup(),
            Choice::Debian => debian(),
            Choice::Auto => rustup().or_else(|why| {
                println!("wasm32: not from rustup: {why:#}");
                debian()
            }),
        }?;
        match &found {
            Toolchain::Rustup => println!("wasm32: rustup's {TARGET} target"),
            Toolchain::Debian { linker } => {
                println!("wasm32: Debian's rustc-web with build-std and {linker}")
            }
        }
        Ok(found)
    }

    /// Builds the module of the parity tests and returns its path.
    ///
    /// The dev profile, as the native tests: overflow checks and debug assertions matter most where `usize` has 32
    /// bits.
    pub(crate) fn build(&self) -> Result<PathBuf> {
        let mut build = cargo();
        build
            .args(["build", "--package", "twinfer-tests-wasm", "--target", TARGET])
            .args(["--features", "relaxed-simd"])
            .args(["--config", CHECKED])
            .env(
                "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
                crate::web::SIMD_FLAGS,
            );
        let directory = match self {
            Toolchain::Rustup => root().join("target"),
            // Another compiler in the same directory would make each throw away what the other built.
            Toolchain::Debian { .. } => root().join("target/debian"),
        };
        build.arg("--target-dir").arg(&directory);
        self.with_compiler(&mut build, false)?;
        run(&mut build)?;
        built(&directory, "debug/twinfer_tests_wasm.wasm")
    }

    /// Builds one of the package's modules and returns its path.
    pub(crate) fn build_web(&self, web: &Build) -> Result<PathBuf> {
        let mut build = cargo();
        build.args([
            "build",
            "--package",
            "twinfer-web",
            "--target",
            TARGET,
            "--profile",
            "web",
        ]);
        // Other flags in the same directory would make each throw away what the other built.
        let flags = if web.threads { "threads" } else { "single" };
        let directory = root().join("target/web").join(flags);
        build
            .arg("--target-dir")
            .arg(&directory)
            .args(if web.relaxed {
                &["--features", "relaxed-simd"][..]
            } else {
                &[]
            })
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", web.rustflags());
        self.with_compiler(&mut build, web.threads)?;
        run(&mut build)?;
        built(&directory, "web/twinfer_web.wasm")
    }

    /// Sets the compiler; `own_std` where the standard library must be built with the same flags, as for threads.
    fn with_compiler(&self, build: &mut Command, own_std: bool) -> Result<()> {
        if own_std && matches!(self, Toolchain::Rustup) {
            run_within(
                command("rustup").args(["component", "add", "rust-src"]),
                DOWNLOAD_LIMIT,
            )?;
        }
        if own_std || !matches!(self, Toolchain::Rustup) {
            // Building the standard library is not a stable feature of cargo; the library is the compiler's own.
            build
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC_BOOTSTRAP", "1");
        }
        if let Toolchain::Debian { linker } = self {
            build
                .env("RUSTC", DEBIAN_RUSTC)
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        Ok(())
    }
}

fn built(directory: &Path, file: &str) -> Result<PathBuf> {
    let module = directory.join(TARGET).join(file);
    if !module.is_file() {
        bail!("the build left no {}", module.display());
    }
    Ok(module)
}

fn rustup() -> Result<Toolchain> {
    let sysroot = output(command("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib");
    if !library.is_dir() {
        if !exists("rustup") {
            bail!("{TARGET} is not installed and there is no rustup to install it with");
        }
        run_within(command("rustup").args(["target", "add", TARGET]), DOWNLOAD_LIMIT)?;
        if !library.is_dir() {
            bail!("rustup installed {TARGET} for another toolchain than {sysroot}");
        }
    }
    Ok(Toolchain::Rustup)
}

fn debian() -> Result<Toolchain> {
    let complete = |sysroot: &str| {
        Path::new(sysroot)
            .join("lib/rustlib/src/rust/library/std")
            .is_dir()
    };
    let sysroot = || output(command(DEBIAN_RUSTC).args(["--print", "sysroot"]));
    if !sysroot().is_ok_and(|sysroot| complete(&sysroot)) {
        debian::install(&["rustc-web", "rust-web-src"])?;
        if !complete(&sysroot()?) {
            bail!("{DEBIAN_RUSTC} has no library sources beside it after rust-web-src was installed");
        }
    }
    // The linker of the same LLVM reads what this compiler writes.
    let about = output(command(DEBIAN_RUSTC).arg("-vV"))?;
    let llvm = about
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next())
        .with_context(|| format!("{DEBIAN_RUSTC} -vV names no LLVM version"))?;
    let linker = format!("wasm-ld-{llvm}");
    if !exists(&linker) {
        debian::install(&[&format!("lld-{llvm}")])?;
    }
    Ok(Toolchain::Debian { linker })
}
