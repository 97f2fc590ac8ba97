//! `cargo xtask disasm`: the hot kernels, as they were compiled, contain the instructions that they are about; their
//! loops call nothing; no function of the engine contains an instruction that would change a number; no intrinsic is
//! called.
//!
//! Functions are found by their demangled names. Those name the generic arguments only with the `v0` mangling, so the
//! program that is looked at is built for it, in a directory of its own.

mod code;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::command::{cargo, run};
use crate::root;
use code::{Function, is_call, is_x87, mnemonic, width};
use table::{NOWHERE, RULES, Rule, Width};

/// Whether this machine builds what the table speaks of.
pub(crate) fn applies() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
}

/// Builds the program and checks it. With `show`, prints the hot loops of the rules whose names contain it.
pub(crate) fn check(show: Option<&str>) -> Result<()> {
    let binary = build()?;
    let failed = || format!("cannot read {}", binary.display());
    let bytes = std::fs::read(&binary).with_context(failed)?;
    let file = object::File::parse(&*bytes).with_context(failed)?;
    let functions = functions(&file).with_context(failed)?;
    println!(
        "{}: {} functions of the engine",
        binary.display(),
        functions.len()
    );
    let mut faults = nowhere(&functions);
    faults.extend(called_intrinsics(&file));
    for rule in RULES {
        let found: Vec<&Function> = functions
            .iter()
            .filter(|f| table::matches(rule.symbols, &f.name))
            .collect();
        if found.is_empty() {
            faults.push(format!("{}: no function is named {}", rule.name, rule.symbols));
        }
        for function in found {
            let (line, wrong) = judge(rule, function);
            println!("  {line}");
            faults.extend(wrong.into_iter().map(|w| format!("{}: {w}", rule.name)));
            if show.is_some_and(|part| rule.name.contains(part)) {
                for range in hot_loops(rule, function) {
                    println!("{}", function.text(range));
                }
            }
        }
    }
    if !faults.is_empty() {
        bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "));
    }
    Ok(())
}

/// The engine's smallest program, in release, with names that tell generic arguments.
fn build() -> Result<PathBuf> {
    let target = root().join("target/disasm");
    run(cargo()
        .args([
            "build",
            "--release",
            "--package",
            "twinfer-engine",
            "--example",
            "backends",
        ])
        .arg("--target-dir")
        .arg(&target)
        // Flags from the environment would take their place.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C symbol-mangling-version=v0"))?;
    Ok(target.join("release/examples/backends"))
}

/// Vector intrinsics that are functions of the program. Each is called from code that lacks its instruction set, as a
/// closure in a kernel does when it is not inlined: some ten times slower than the instruction.
fn called_intrinsics(file: &object::File<'_>) -> Vec<String> {
    let names = file.symbols().filter_map(|symbol| {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?));
        (name.starts_with("core::core_arch::") && name.contains("::_mm"))
            .then(|| format!("{name} is called, not inlined"))
    });
    names.collect()
}

/// The functions whose names speak of the engine; of those that were merged into one, each.
fn functions(file: &object::File<'_>) -> Result<Vec<Function>> {
    let mut functions = Vec::new();
    for symbol in file.symbols() {
        if symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
            continue;
        }
        let Ok(name) = symbol.name() else { continue };
        let name = format!("{:#}", rustc_demangle::demangle(name));
        if !name.contains("twinfer_engine::") {
            continue;
        }
        let Some(section) = symbol.section_index().and_then(|i| file.section_by_index(i).ok()) else {
            continue;
        };
        if let Some(code) = section.data_range(symbol.address(), symbol.size())? {
            functions.push(Function::decode(name, code, symbol.address()));
        }
    }
    if functions.is_empty() {
        bail!("it names no function of the engine: was it stripped?");
    }
    Ok(functions)
}

/// Instructions that no function may contain.
fn nowhere(functions: &[Function]) -> Vec<String> {
    let mut faults = Vec::new();
    for function in functions {
        let mut found: BTreeMap<String, &str> = BTreeMap::new();
        for instruction in &function.instructions {
            let name = mnemonic(instruction);
            if let Some((_, why)) = NOWHERE.iter().find(|(prefix, _)| name.starts_with(prefix)) {
                found.insert(name, why);
            } else if is_x87(instruction) {
                found.insert(name, "the old floating-point unit computes with more digits");
            }
        }
        for (name, why) in found {
            faults.push(format!("{} contains {name}: {why}", function.name));
        }
    }
    faults
}

/// The innermost loops that contain the rule's instruction; where that is one on tiles, the straight stretches of code.
fn hot_loops(rule: &Rule, function: &Function) -> Vec<std::ops::Range<usize>> {
    let has = |range: &std::ops::Range<usize>| {
        function.instructions[range.clone()]
            .iter()
            .any(|i| mnemonic(i) == rule.hot.0)
    };
    let ranges = match rule.hot.1 {
        Width::Tile => function.stretches(),
        Width::Ymm | Width::Zmm => function.innermost_loops(),
    };
    ranges.into_iter().filter(has).collect()
}

/// A line about a function, and what is wrong with it.
fn judge(rule: &Rule, function: &Function) -> (String, Vec<String>) {
    let (hot, wanted) = rule.hot;
    let mut faults = Vec::new();
    for instruction in &function.instructions {
        let found = width(instruction);
        if mnemonic(instruction) == hot && found != Some(wanted) {
            faults.push(format!("{hot} on {found:?}, expected {wanted:?}"));
        }
        if wanted == Width::Ymm && found > Some(Width::Ymm) {
            faults.push(format!("{} on wider registers", mnemonic(instruction)));
        }
    }
    let loops = hot_loops(rule, function);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for range in &loops {
        for instruction in &function.instructions[range.clone()] {
            *counts.entry(mnemonic(instruction)).or_default() += 1;
            if is_call(instruction) {
                faults.push(format!("a call at {:x}, inside the hot loop", instruction.ip()));
            }
        }
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    if count(hot) < rule.least {
        faults.push(format!(
            "{} {hot} in its innermost loops, expected {} or more",
            count(hot),
            rule.least
        ));
    }
    for name in rule.with {
        if count(name) == 0 {
            faults.push(format!("no {name} in the hot loop"));
        }
    }
    for name in rule.without {
        if count(name) > 0 {
            faults.push(format!("{} {name} in the hot loop", count(name)));
        }
    }
    let mut common: Vec<(&String, &usize)> = counts.iter().collect();
    common.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let common: Vec<String> = common
        .iter()
        .take(8)
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    let line = format!(
        "{:<18} {} loops, {} instructions: {}",
        rule.name,
        loops.len(),
        counts.values().sum::<usize>(),
        common.join(", ")
    );
    (line, faults)
}
