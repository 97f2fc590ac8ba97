//! The matrix: every backend that the machine has x storage of the weights x number of threads x split of the prompt x
//! type of the cache x model, each cell the digest of all logits. All cells of a model and cache type are equal, and so
//! is what each operation made of each position; where something is not, the first layer, operation and element that
//! differ are named, with both values' bits.
//!
//! How the cells are chosen, so that it takes minutes and not hours:
//! - The models of `oracle/vectors` (every architecture, small) and the built-in model, on SIMD backends: every
//!   combination.
//! - The models of the reference data (every tensor type) on SIMD backends, and those of `oracle/vectors` on the scalar
//!   one: a covering design, in which each two values of two factors meet.
//! - The other models on the scalar backend: four cells with every number of threads and every split.
//!
//! The browser's cells of the same models and tokens, held to the native scalar backend, are printed by
//! `web/tests/matrix.test.ts`, in Chromium. Long contexts (spans of attention blocks) are `engine/tests/backends`'
//! subject; planted errors in the wasm backends are `wasm_parity`'s.
#![allow(clippy::unwrap_used)] // helpers of tests

mod cells;
mod mixed;
mod planted;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Once;

use cells::{Cell, Subject};
use twinfer_engine::kernels::{Backend, select};
use twinfer_engine::model::config::Config;

/// Tokens per model: more than two of attention's blocks of 64 positions where that is cheap, else more than one.
const N_TOKENS: usize = 75;
const N_TOKENS_BUILT_IN: usize = 140;

pub(crate) fn built_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/twinfer-demo-q4_k_m.gguf")
}

pub(crate) fn simd_backends() -> impl Iterator<Item = &'static dyn Backend> {
    static NAMED: Once = Once::new();

    NAMED.call_once(|| {
        for name in select::missing() {
            println!("matrix: LEFT OUT {name}: this machine lacks its instructions");
        }
    });
    select::available()
        .iter()
        .copied()
        .filter(|backend| backend.name() != "scalar")
}

/// The models of a folder and those below it; none where it is not there, which is said.
fn models(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("matrix: LEFT OUT the models of {}: not there", folder.display());
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(models(&path));
        } else if path.extension().is_some_and(|extension| extension == "gguf") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// How the cells of a model are chosen.
type Design = fn(&'static dyn Backend, &Config) -> Vec<Cell>;

/// Compares the cells of each model, prints the matrix, and fails with every cell that differs.
fn compare(what: &str, paths: &[PathBuf], n_tokens: usize, scalar: Design, simd: Design) {
    let teams = cells::teams();
    let (mut n, mut complaints) = (0, Vec::new());
    println!("{}", cells::columns());
    for path in paths {
        let subject = Subject::open(path, n_tokens);
        let mut cells: Vec<Cell> = simd_backends()
            .flat_map(|backend| simd(backend, &subject.config))
            .collect();
        cells.extend(scalar(select::choose(Some("scalar")).unwrap(), &subject.config));
        cells.extend(
            select::plain_tiles()
                .into_iter()
                .flat_map(|plain| cells::transversal(plain, &subject.config)),
        );
        let outcome = subject.compare(&cells, &teams);
        println!("{}\n{}", subject.name, outcome.table());
        n += outcome.cells.len();
        complaints.extend(outcome.complaints(&subject.name));
    }
    println!(
        "matrix, {what}: {n} cells of {} models, {} of them differ",
        paths.len(),
        complaints.len()
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

// Two tests, for tests run side by side.

#[test]
fn every_cell_of_the_built_in_model_and_of_each_architecture_is_equal() {
    use cells::{covering, product, transversal};
    let oracle = models(&Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/vectors"));
    assert!(!oracle.is_empty(), "these models are a part of the project");
    compare("architectures", &oracle, N_TOKENS, covering, product);
    compare(
        "built-in model",
        &[built_in()],
        N_TOKENS_BUILT_IN,
        transversal,
        product,
    );
}

#[test]
fn every_cell_of_each_tensor_type_is_equal() {
    use cells::{covering, transversal};
    let reference = models(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/models"));
    compare("tensor types", &reference, N_TOKENS, transversal, covering);
}
