//! `cargo xtask test`: every check of the project, in the order in which a person wants to hear of a fault.

use std::process::ExitCode;

use crate::checks::Checks;
use crate::command::{cargo, command, output};
use crate::node::Tools;
use crate::wasm::{Choice, Toolchain};
use crate::{disasm, fuzz, node, qemu, web};

/// Runs the checks; the exit code tells whether all of them passed.
pub(crate) fn run(quick: bool, browser: bool, toolchain: Choice) -> ExitCode {
    let mut checks = Checks::default();

    // A minimal installation of Rust lacks these two.
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if output(cargo().args([subcommand, "--version"])).is_err() {
            checks.check(component, |checks| {
                checks.run(command("rustup").args(["component", "add", component]))
            });
        }
    }
    checks.check("format", |checks| {
        checks.run(cargo().args(["fmt", "--all", "--check"]))
    });
    if !quick {
        // What it asks for stands in `.markdownlint-cli2.jsonc`.
        checks.check("documents", |checks| {
            let program = "node_modules/markdownlint-cli2/markdownlint-cli2-bin.mjs";
            checks.run(Tools::find()?.node().arg(program))
        });
    }
    checks.check("clippy", |checks| {
        checks.run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    // Unit, property, golden and hostile tests, and the examples in the documentation. Daily work does without those,
    // and without the matrix: `backends` holds every kernel to the scalar one as well.
    let (targets, filter): (&[&str], &[&str]) = if quick {
        (&["--lib", "--bins", "--test", "*"], &["--skip", "every_cell_of"])
    } else {
        (&[], &[])
    };
    checks.check("tests", |checks| {
        checks.run_tests(
            cargo()
                .args(["test", "--workspace", "--no-fail-fast"])
                .args(targets)
                .args(["--", "--show-output"])
                .args(filter),
        )
    });
    if quick {
        return checks.finish();
    }
    // Private items too: a module's first lines name its parts, for those who work on it, and those links must hold.
    checks.check("docs", |checks| {
        checks.run(
            cargo()
                .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
        )
    });
    match qemu::find() {
        Ok(()) => drop(checks.check("detection", |_| qemu::run())),
        Err(why) => checks.leave_out("detection", &format!("{why:#}")),
    }
    if disasm::applies() {
        checks.check("disassembly", |_| disasm::check(None));
    } else {
        checks.leave_out("disassembly", "the table speaks of x86-64 Linux programs");
    }
    wasm_parity(&mut checks, toolchain);
    let fuzz = fuzz::Build::begin();
    if browser {
        let options = web::Options {
            toolchain,
            keep_wasm: false,
        };
        if checks.check("web build", |_| web::build(options)).is_some() {
            checks.check("browser", web::test);
        } else {
            checks.leave_out("browser", "there is nothing to test");
        }
    } else {
        checks.leave_out("browser", "--no-browser");
    }
    checks.check("fuzz", |_| fuzz::run(fuzz?));
    checks.finish()
}

/// The browser's tests alone.
pub(crate) fn web() -> ExitCode {
    let mut checks = Checks::default();
    checks.check("browser", web::test);
    checks.finish()
}

/// Builds the wasm module and puts the same questions to it and to the native build.
fn wasm_parity(checks: &mut Checks, choice: Choice) {
    let node = checks.check("node", |_| node::find());
    let module = checks.check("wasm build", |_| Toolchain::find(choice)?.build());
    let (Some(node), Some(module)) = (node, module) else {
        checks.leave_out("wasm parity", "it needs the two checks before it");
        return;
    };
    checks.check("wasm parity", |checks| {
        // The same package selection as in "tests": another one would build the dependencies anew.
        checks.run_tests(
            cargo()
                .args([
                    "test",
                    "--workspace",
                    "--test",
                    "wasm_parity",
                    "--",
                    "--show-output",
                ])
                .env("TWINFER_NODE", &node)
                .env("TWINFER_WASM_MODULE", &module),
        )
    });
}
