//! `cargo xtask test`: every check of the project, in the order in which a person wants to hear of a fault.

use std::process::ExitCode;

use crate::command::{cargo, command, output};
use crate::node::Tools;
use crate::steps::Steps;
use crate::wasm::{Choice, Toolchain};
use crate::{disasm, fuzz, node, qemu, web};

/// Runs the checks; the exit code tells whether all of them passed.
pub(crate) fn run(quick: bool, browser: bool, toolchain: Choice) -> ExitCode {
    let mut steps = Steps::default();

    // A minimal installation of Rust lacks these two.
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if output(cargo().args([subcommand, "--version"])).is_err() {
            steps.step(component, |steps| {
                steps.run(command("rustup").args(["component", "add", component]))
            });
        }
    }
    steps.step("format", |steps| {
        steps.run(cargo().args(["fmt", "--all", "--check"]))
    });
    if !quick {
        // What it asks for stands in `.markdownlint-cli2.jsonc`.
        steps.step("documents", |steps| {
            let program = "node_modules/markdownlint-cli2/markdownlint-cli2-bin.mjs";
            steps.run(Tools::find()?.node().arg(program))
        });
    }
    steps.step("clippy", |steps| {
        steps.run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    // Unit, property, golden and hostile tests, and the examples in the documentation. Daily work does without those, and without the
    // matrix: `backends` holds every kernel to the scalar one as well.
    let (targets, filter): (&[&str], &[&str]) = if quick {
        (&["--lib", "--bins", "--test", "*"], &["--skip", "every_cell_of"])
    } else {
        (&[], &[])
    };
    steps.step("tests", |steps| {
        steps.run_tests(
            cargo()
                .args(["test", "--workspace", "--no-fail-fast"])
                .args(targets)
                .args(["--", "--show-output"])
                .args(filter),
        )
    });
    if quick {
        return steps.finish();
    }
    // Private items too: a module's first lines name its parts, for those who work on it, and those links must hold.
    steps.step("docs", |steps| {
        steps.run(
            cargo()
                .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
        )
    });
    match qemu::find() {
        Ok(()) => drop(steps.step("detection", |_| qemu::run())),
        Err(why) => steps.leave_out("detection", &format!("{why:#}")),
    }
    if disasm::applies() {
        steps.step("disassembly", |_| disasm::check(None));
    } else {
        steps.leave_out("disassembly", "the table speaks of x86-64 Linux programs");
    }
    wasm_parity(&mut steps, toolchain);
    let fuzz = fuzz::Build::begin();
    if browser {
        let options = web::Options {
            toolchain,
            keep_wasm: false,
        };
        if steps.step("web build", |_| web::build(options)).is_some() {
            steps.step("browser", web::test);
        } else {
            steps.leave_out("browser", "there is nothing to test");
        }
    } else {
        steps.leave_out("browser", "--no-browser");
    }
    steps.step("fuzz", |_| fuzz::run(fuzz?));
    steps.finish()
}

/// The browser's tests alone.
pub(crate) fn web() -> ExitCode {
    let mut steps = Steps::default();
    steps.step("browser", web::test);
    steps.finish()
}

/// Builds the wasm module and puts the same questions to it and to the native build.
fn wasm_parity(steps: &mut Steps, choice: Choice) {
    let node = steps.step("node", |_| node::find());
    let module = steps.step("wasm build", |_| Toolchain::find(choice)?.build());
    let (Some(node), Some(module)) = (node, module) else {
        steps.leave_out("wasm parity", "it needs the two steps before it");
        return;
    };
    steps.step("wasm parity", |steps| {
        // The same package selection as in "tests": another one would build the dependencies anew.
        steps.run_tests(
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
