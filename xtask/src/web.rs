//! The browser side: wasm modules, the npm package in `web/`, the demo page in `www/`, and their tests in Chromium.
//!
//! Everything is installed below the project (`node_modules`, `target`) but for Debian's packages.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::checks::Checks;
use crate::command::{cargo, command, json, output, run};
use crate::node::Tools;
use crate::wasm::{Choice, Toolchain};
use crate::{debian, eval, root};

/// The most that a module may weigh, compressed as a server would.
const MOST_COMPRESSED: usize = 1_500_000;

/// What binaryen's tools may find and use, by name: with `--all-features` they use some that browsers refuse.
const WASM_FEATURES: [&str; 9] = [
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-relaxed-simd",
    "--enable-sign-ext",
    "--enable-simd",
    "--enable-threads",
];

/// The modules that the package chooses from (`web/ts/features.ts`).
pub(crate) const BUILDS: &[Build] = &[
    Build {
        name: "simd",
        threads: false,
        relaxed: false,
    },
    Build {
        name: "threads",
        threads: true,
        relaxed: false,
    },
    Build {
        name: "relaxed",
        threads: true,
        relaxed: true,
    },
];

/// One module.
pub(crate) struct Build {
    pub(crate) name: &'static str,
    pub(crate) threads: bool,
    /// With the relaxed dot product, and no other relaxed instruction: [`relaxed_instructions`] looks.
    pub(crate) relaxed: bool,
}

/// Flags of the compiler for 128-bit vectors. The kernels are written in vectors. What LLVM would vectorise beside them
/// could become a relaxed minimum or maximum where the relaxed dot product is enabled: LLVM enables it for a whole
/// module.
pub(crate) const SIMD_FLAGS: &str = "-C no-vectorize-loops -C no-vectorize-slp -C target-feature=+simd128";

impl Build {
    /// Flags of the compiler and linker. A memory is shared only if all of the latter are there, and grows only with
    /// `--max-memory`.
    pub(crate) fn rustflags(&self) -> String {
        if !self.threads {
            return SIMD_FLAGS.into();
        }
        let mut flags = format!(
            "{SIMD_FLAGS} -C target-feature=+atomics,+bulk-memory,+mutable-globals -C link-arg=--shared-memory \
             -C link-arg=--import-memory -C link-arg=--max-memory=4294967296"
        );
        for symbol in ["__wasm_init_tls", "__tls_size", "__tls_align", "__tls_base"] {
            flags += " -C link-arg=--export=";
            flags += symbol;
        }
        flags
    }
}

/// What to build.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) toolchain: Choice,
    /// Leave the modules as the last build left them.
    pub(crate) keep_wasm: bool,
}

/// Builds all of it: `web/dist` (the package) and `www/dist` (the page).
pub(crate) fn build(options: Options) -> Result<()> {
    let tools = Tools::find()?;
    if !options.keep_wasm {
        let toolchain = Toolchain::find(options.toolchain)?;
        let bindgen = bindgen()?;
        // Most of the time goes into one thread of the compiler at the end of each. Those with threads share what is
        // below.
        let lane = |threads: bool| {
            BUILDS
                .iter()
                .filter(|build| build.threads == threads)
                .try_for_each(|build| module(build, &toolchain, &bindgen, &tools))
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| lane(false));
            let this = lane(true);
            other.join().map_err(|_| anyhow!("a build panicked"))?.and(this)
        })?;
    }
    run(tools
        .npm()
        .args(["run", "--silent", "build", "--workspace", "web"]))?;
    run(tools
        .npm()
        .args(["run", "--silent", "build", "--workspace", "www"]))?;
    println!("the package is in web/dist, the page in www/dist; `twinfer serve-demo` serves it");
    Ok(())
}

/// Runs the tests in Chromium against what was built.
pub(crate) fn test(checks: &mut Checks) -> Result<()> {
    let tools = Tools::find()?;
    let chromium = chromium()?;
    let twinfer = eval::program()?;
    let tests = root().join("web/tests");
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in tests.read_dir()? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".test.ts") {
            files.push(path);
        }
    }
    files.sort();
    let mut node = tools.node();
    node.args(["--test", "--test-reporter=spec", "--test-concurrency=1"])
        .args(files.iter().map(|path| path.strip_prefix(root()).unwrap_or(path)))
        .env("TWINFER_CHROMIUM", chromium)
        .env("TWINFER", twinfer);
    checks.run_tests(&mut node)
}

/// Compiles a module, makes its JavaScript and shrinks it.
fn module(build: &Build, toolchain: &Toolchain, bindgen: &Path, tools: &Tools) -> Result<()> {
    let name = build.name;
    println!("wasm module `{name}`");
    let compiled = toolchain.build_web(build)?;
    let directory = root().join("web/dist/wasm").join(name);
    run(command(bindgen).arg(&compiled).arg(&directory).arg("twinfer"))?;
    let path = directory.join("twinfer_bg.wasm");
    let smaller = directory.join("smaller.wasm");
    run(tools
        .node()
        .arg("node_modules/binaryen/bin/wasm-opt")
        .arg("-O2")
        .args(WASM_FEATURES)
        .arg(&path)
        .arg("-o")
        .arg(&smaller))?;
    std::fs::rename(&smaller, &path)?;
    relaxed_instructions(build, &path, tools)?;
    let bytes = std::fs::read(&path)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&bytes)?;
    let compressed = gzip.finish()?.len();
    println!(
        "wasm module `{name}`: {} KB, {} KB compressed",
        bytes.len() / 1000,
        compressed / 1000
    );
    if compressed > MOST_COMPRESSED {
        bail!("module `{name}` has {compressed} bytes compressed, at most {MOST_COMPRESSED} are allowed");
    }
    Ok(())
}

/// Only the dot product of bytes may be relaxed: its result is the same on every engine, which holds for no other
/// relaxed instruction. The other builds must have none, for they run where relaxed SIMD is unknown.
fn relaxed_instructions(build: &Build, module: &Path, tools: &Tools) -> Result<()> {
    let text = output(
        tools
            .node()
            .arg("node_modules/binaryen/bin/wasm-dis")
            .args(WASM_FEATURES)
            .arg(module),
    )?;
    let instructions = || text.lines().map(|line| line.trim().trim_start_matches('('));
    // The disassembler has the instruction's earlier name.
    let dots = instructions()
        .filter(|line| {
            line.starts_with("i16x8.dot_i8x16_i7x16_s") || line.starts_with("i16x8.relaxed_dot_i8x16_i7x16_s")
        })
        .count();
    let others: Vec<&str> = instructions()
        .filter(|line| line.contains("relaxed") && !line.contains("relaxed_dot_i8x16_i7x16_s"))
        .filter(|line| {
            line.split('.')
                .nth(1)
                .is_some_and(|name| name.starts_with("relaxed"))
        })
        .take(3)
        .collect();
    if !others.is_empty() || (dots > 0) != build.relaxed {
        bail!(
            "module `{}` has {dots} relaxed dot products, and other relaxed instructions: {others:?}",
            build.name
        );
    }
    Ok(())
}

/// Builds the tool that makes the JavaScript side, at the version that the workspace has locked.
fn bindgen() -> Result<PathBuf> {
    let metadata = || {
        let mut cargo = cargo();
        cargo.args(["metadata", "--format-version", "1"]);
        cargo
    };
    // Of this platform alone: for others packages would be downloaded that nothing here uses.
    let workspace = json(metadata().args(["--locked", "--filter-platform", "wasm32-unknown-unknown"]))?;
    let locked = named(&workspace["packages"], "wasm-bindgen")["version"]
        .as_str()
        .context("the workspace has no wasm-bindgen")?;
    let manifest = root().join("xtask/bindgen/Cargo.toml");
    let tool = json(metadata().args(["--no-deps", "--manifest-path"]).arg(&manifest))?;
    let library = named(&tool["packages"][0]["dependencies"], "wasm-bindgen-cli-support");
    if library["req"] != format!("={locked}") {
        bail!(
            "Cargo.lock has wasm-bindgen {locked}; put the same version into {}",
            manifest.display()
        );
    }
    let target = root().join("target/bindgen");
    run(cargo()
        .args(["build", "--quiet", "--release", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target))?;
    Ok(target.join("release/twinfer-bindgen"))
}

/// The entry of this name in one of cargo's lists; null if there is none.
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let entries = list.as_array().map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .find(|entry| entry["name"] == name)
        .unwrap_or(&Value::Null)
}

/// A Chromium to test with: `TWINFER_CHROMIUM`, or the machine's.
fn chromium() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TWINFER_CHROMIUM") {
        return Ok(path.into());
    }
    let debian = PathBuf::from("/usr/bin/chromium");
    if !debian.is_file() {
        debian::install(&["chromium"]).context("the tests run in Chromium")?;
    }
    println!("chromium: {}", output(command(&debian).arg("--version"))?);
    Ok(debian)
}
