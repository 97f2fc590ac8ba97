//! twinfer for web workers: what the JavaScript of the package calls.
//!
//! One instance of this module is one model: [`loading`] takes it in from a stream, [`engine`] answers. [`threads`]
//! hands workers of the page to the engine's team, [`error`] makes JavaScript errors of the engine's. Nothing here
//! waits, fetches or knows of files; that is the package's part (`web/ts`). Values of more than one field cross as JSON
//! text.
//!
//! Every call belongs into a worker: loading and computing block it.
#![allow(missing_docs)] // what `wasm_bindgen` generates has none

pub mod embedding;
pub mod engine;
pub mod error;
pub mod loading;
pub mod request;
pub mod session;
pub mod threads;

use sha2::{Digest as _, Sha256};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// The worker's hook for a panic's message, which the trap that follows does not carry.
    #[wasm_bindgen(js_namespace = globalThis, js_name = twinferPanic)]
    fn report_panic(message: &str);
}

/// Called once per instance, before anything else.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| report_panic(&info.to_string())));
}

/// Bytes of the module's memory now.
#[wasm_bindgen(js_name = memoryBytes)]
pub fn memory_bytes() -> f64 {
    loading::memory_bytes() as f64
}

/// A running SHA-256, for files whose server names their digest.
#[wasm_bindgen(js_name = Sha256)]
#[derive(Default)]
pub struct RunningSha256(Sha256);

#[wasm_bindgen(js_class = Sha256)]
impl RunningSha256 {
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest so far, in hexadecimal.
    pub fn hex(&self) -> String {
        let digest = self.0.clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
