//! `cargo xtask`: the project's chores. Everything that CI does can be done here with one command.

mod command;
mod debian;
mod emulate;
mod eval;
mod fuzz;
mod node;
mod qemu;
mod steps;
mod test;
mod wasm;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

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
    /// Test on emulated processors: the AVX-512 backend, and which backend is taken where AVX-512 or AVX is missing.
    ///
    /// Needs Debian or a relative on x86-64, and minutes. QEMU runs the program on three older processors. Bochs boots a
    /// kernel on one with AVX-512, which runs the reduced backend tests and the program. As root missing packages are
    /// installed; otherwise the command to run is printed. Everything is kept in target/emulate.
    Emulate {
        /// End the emulator after so many minutes; the run has failed then.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
    },
    /// Run every check: format, clippy, tests, docs, native <-> wasm parity, bounded fuzzing.
    ///
    /// A failed step does not stop the others; the table at the end shows them all.
    Test {
        /// Only format, clippy and the native tests.
        #[arg(long)]
        quick: bool,
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

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Setup { toolchain } => setup(toolchain),
        Command::Wasm { toolchain } => wasm::Toolchain::find(toolchain)
            .and_then(|toolchain| toolchain.build())
            .map(|module| println!("{}", module.display())),
        Command::Emulate { minutes } => qemu::find()
            .and_then(|()| qemu::run())
            .and_then(|()| emulate::emulate(Duration::from_secs(60 * minutes))),
        Command::Test { quick, toolchain } => return test::run(quick, toolchain),
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
