//! The native build and the wasm build under Node give the same answers: digests, ids, text and error messages, `==`.
//!
//! `cargo xtask test` builds the module and names it in `TWINFER_WASM_MODULE`, and Node in `TWINFER_NODE`; without
//! them these tests say that they were left out.

mod wasm;

use twinfer_tests::Request;
use wasm::{Job, compare};

#[test]
fn arithmetic() {
    compare("arithmetic", vec![Job::new("grid", Request::Arithmetic)]);
}
