//! `cargo xtask`: the project's chores. Everything that CI does can be done here with one command.

mod checks;
mod command;
mod debian;
mod disasm;
mod emulate;
mod eval;
mod fuzz;
mod guest;
mod node;
mod numa;
mod qemu;
mod test;
mod wasm;
mod web;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum as _};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need beyond Rust: the wasm target (or Debian's compiler for it) and Node 24.
    ///
    /// Node goes to target/tools. Debian packages are installed only by root; otherwise the command to run is printed.
    Setup {
        #[arg(long, value_enum, default_value_t)]
        toolchain: wasm::Choice,
    },
    /// Build the module of the parity tests for wasm32 and print where it is.
    Wasm {
        #[arg(long, value_enum, default_value_t)]
        toolchain: wasm::Choice,
    },
    /// Build the browser side: the wasm modules, the npm package (web/dist) and the demo page (www/dist).
    ///
    /// Packages of npm go to node_modules, at the versions of the lock file.
    Web {
        #[arg(long, value_enum, default_value_t)]
        toolchain: wasm::Choice,
        /// Do not compile the wasm modules again: only TypeScript and the page.
        #[arg(long)]
        keep_wasm: bool,
    },
    /// Test the browser side in Chromium: what `cargo xtask web` built.
    WebTest,
    /// Test on emulated processors: the backends for AVX-VNNI, AVX-512 and AMX, and which one is taken where AVX-512 or
    /// AVX is missing.
    ///
    /// Needs Debian or a relative on x86-64, and minutes. QEMU runs the program on three older processors. Bochs boots
    /// a kernel on an Arrow Lake with AVX-VNNI, an Ice Lake with AVX-512 and a Sapphire Rapids with AMX, which run the
    /// reduced backend tests and the program. As root missing packages are installed; otherwise the command to run is
    /// printed. Bochs is built from Debian's sources, once, in target/tools; everything else is kept in target/emulate.
    Emulate {
        /// Boot only this machine; may be given several times.
        #[arg(long = "machine", value_enum, default_values_t = emulate::Machine::value_variants().to_vec())]
        machines: Vec<emulate::Machine>,
        /// End an emulator after so many minutes; the run has failed then.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Run only the tests whose names contain this.
        #[arg(long, value_name = "PART", value_parser = part_of_name)]
        filter: Option<String>,
    },
    /// Test --numa on emulated machines: two nodes of two cores with SMT, and four nodes of a core.
    ///
    /// Needs Debian or a relative on x86-64. QEMU boots a kernel on each machine, which runs the program in every mode;
    /// where threads and pages are is the kernel's word. As root missing packages are installed; otherwise the command
    /// to run is printed. Everything is kept in target/numa.
    Numa {
        /// End a machine after so many minutes; the run has failed then.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Check the compiled kernels: intended instructions, no calls in hot loops, nothing that would change a number.
    ///
    /// The program that is looked at is built in target/disasm.
    Disasm {
        /// Print the hot loops of the kernels whose names contain this, such as "avx512 q4_k".
        #[arg(long, value_name = "PART")]
        show: Option<String>,
    },
    /// Run every check: format, documents, clippy, tests, docs, compiled kernels, native <-> wasm parity, the browser
    /// side in Chromium, bounded fuzzing.
    ///
    /// A failed check does not stop the others; the table at the end shows them all.
    Test {
        /// Only format, clippy and the native tests without the matrix: under three minutes after a change.
        #[arg(long)]
        quick: bool,
        /// Leave out the browser side: its three wasm modules and the tests in Chromium.
        #[arg(long)]
        no_browser: bool,
        #[arg(long, value_enum, default_value_t)]
        toolchain: wasm::Choice,
    },
}

/// The workspace's root: this package lies directly below it.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a package's directory has a parent")
}

/// A part of a test's name: it goes into a script.
fn part_of_name(text: &str) -> Result<String, String> {
    if text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    {
        Ok(text.into())
    } else {
        Err("a test's name has letters, digits, `_` and `:`".into())
    }
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Setup { toolchain } => setup(toolchain),
        Command::Wasm { toolchain } => wasm::Toolchain::find(toolchain)
            .and_then(|toolchain| toolchain.build())
            .map(|module| println!("{}", module.display())),
        Command::Emulate {
            machines,
            minutes,
            filter,
        } => qemu::find()
            .and_then(|()| qemu::run())
            .and_then(|()| emulate::emulate(&machines, Duration::from_secs(60 * minutes), filter.as_deref())),
        Command::Numa { minutes } => {
            numa::find().and_then(|()| numa::check(Duration::from_secs(60 * minutes)))
        }
        Command::Disasm { show } => disasm::check(show.as_deref()),
        Command::Web { toolchain, keep_wasm } => web::build(web::Options { toolchain, keep_wasm }),
        Command::WebTest => return test::web(),
        Command::Test {
            quick,
            no_browser,
            toolchain,
        } => return test::run(quick, !no_browser, toolchain),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn setup(choice: wasm::Choice) -> anyhow::Result<()> {
    wasm::Toolchain::find(choice)?;
    node::find()?;
    Ok(())
}
