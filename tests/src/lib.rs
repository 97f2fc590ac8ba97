//! What the native build and the wasm build are both asked, so that their answers can be compared.
//!
//! [`answer`] takes one [`Request`] and the files that go with it and gives JSON. The same function runs natively (in
//! `tests/wasm_parity.rs`) and inside the wasm module (package `twinfer-tests-wasm`); equal means `==`, errors
//! included. An answer holds digests, ids and text: no floats, whose way through JSON would itself need testing.

pub mod arithmetic;
pub mod fault;
pub mod file;
pub mod forward;
pub mod model;
pub mod planted;
pub mod sampling;
pub mod templates;
pub mod text;
pub mod tokens;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use twinfer_engine::Result;

/// One question to the engine. Files travel beside it, as blobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Digests of float operations over a grid of inputs: what every other answer stands on. No blobs.
    Arithmetic,
    /// What the parser makes of a GGUF file. Blobs: the file's parts.
    File,
    /// Ids of texts and what they print. Blobs: a file with the vocabulary.
    Tokenize {
        /// The texts.
        texts: Vec<String>,
    },
    /// A chat template on several sets of variables. No blobs.
    Render {
        /// The template.
        source: String,
        /// The variables of each rendering.
        cases: Vec<Map<String, Value>>,
    },
    /// Digests of a model's logits. Blobs: the model's parts.
    Digest {
        /// Sizes of the context.
        sizes: model::Sizes,
        /// The ids to evaluate.
        tokens: Vec<u32>,
    },
    /// The same of every backend but scalar, which must agree. Blobs: the model's parts.
    SimdDigest {
        /// Sizes of the context.
        sizes: model::Sizes,
        /// The ids to evaluate.
        tokens: Vec<u32>,
    },
    /// Where the errors of [`planted`] are found. Blobs: the built-in model.
    Planted,
    /// A prompt continued. Blobs: the model's parts.
    Generate {
        /// Sizes of the context.
        sizes: model::Sizes,
        /// Text, special tokens included.
        prompt: String,
        /// The sampler.
        sampler: sampling::Setting,
        /// How many tokens at most.
        n: usize,
    },
    /// Tokens drawn from made-up logits. No blobs.
    Draw {
        /// The sampler.
        sampler: sampling::Setting,
        /// Size of the made-up vocabulary.
        n_vocab: usize,
        /// How many tokens to draw, each accepted before the next.
        n: usize,
    },
}

/// The engine's answer to `request`. A failure is an answer too: `{"error": message}`.
pub fn answer(request: &Request, blobs: Vec<Vec<u8>>) -> Value {
    let answer: Result<Value> = match request {
        Request::Arithmetic => Ok(json!(arithmetic::digests())),
        Request::File => file::describe(blobs),
        Request::Tokenize { texts } => tokens::tokenize(blobs, texts),
        Request::Render { source, cases } => {
            return templates::render(source, cases).unwrap_or_else(failure);
        }
        Request::Digest { sizes, tokens } => model::digest(blobs, sizes, tokens),
        Request::SimdDigest { sizes, tokens } => model::simd_digest(blobs, sizes, tokens),
        Request::Planted => planted::locate(blobs),
        Request::Generate {
            sizes,
            prompt,
            sampler,
            n,
        } => text::generate(blobs, sizes, prompt, sampler, *n),
        Request::Draw { sampler, n_vocab, n } => sampling::draw(sampler, *n_vocab, *n),
    };
    answer.unwrap_or_else(failure)
}

fn failure(error: impl std::fmt::Display) -> Value {
    json!({ "error": error.to_string() })
}

/// SHA-256 of the byte strings in `parts`, one after the other, as lowercase hex.
fn sha256(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
