//! What the native build and the wasm build are both asked, so that their answers can be compared.
//!
//! [`answer`] takes one [`Request`] and the files it names and gives JSON. The same function runs natively (in
//! `tests/wasm_parity.rs`) and inside the wasm module (package `twinfer-tests-wasm`); equal means `==`, errors
//! included. An answer holds digests, ids and text: no floats, whose way through JSON would itself need testing.

pub mod arithmetic;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One question to the engine. Files travel beside it, as blobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Digests of float operations over a grid of inputs: what every other answer stands on. No blobs.
    Arithmetic,
}

/// The engine's answer to `request`. A failure is an answer too: `{"error": message}`.
pub fn answer(request: &Request, _blobs: Vec<Vec<u8>>) -> Value {
    match request {
        Request::Arithmetic => json!(arithmetic::digests()),
    }
}
