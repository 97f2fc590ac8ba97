//! `cargo xtask`: the project's chores. Everything that CI does can be done here with one command.

mod command;
mod debian;
mod fuzz;
mod node;
mod steps;
mod test;
mod wasm;
mod web;

use std::path::Path;
use std::process::ExitCode;

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
    /// Run every check: format, clippy, tests, docs, native <-> wasm parity, bounded fuzzing.
    ///
    /// A failed step does not stop the others; the table at the end shows them all.
    Test {
        /// Only format, clippy and the native tests.
        #[arg(long)]
        quick: bool,
        /// Also build the browser side and test it in Chromium.
        #[arg(long, conflicts_with = "quick")]
        browser: bool,
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
        Command::Web { toolchain, keep_wasm } => web::build(web::Options { toolchain, keep_wasm }),
        Command::WebTest => return test::web(),
        Command::Test {
            quick,
            browser,
            toolchain,
        } => return test::run(quick, browser, toolchain),
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
