//! Tokenizers: the reference vocabularies, special tokens and streaming, hostile vocabularies, and arbitrary texts
//! against the definition.
//!
//! Reference data is read from `../shared/reference` beside the project. Where it is not there, the tests that need it
//! say so and are left out.
#![allow(missing_docs, clippy::unwrap_used)]

mod cases;
mod hostile;
mod properties;
mod special;
#[path = "../support/special_ids.rs"]
mod special_ids;
mod unigram;
mod wordpiece;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value as Json;
use twinfer_engine::gguf::{Array, Gguf, Metadata, Value};
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

const PLAIN: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};

const PARSED: EncodeOptions = EncodeOptions {
    add_special: true,
    parse_special: true,
};

fn reference() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference"))
}

/// A reference vocabulary: its file, the tokenizer, texts and their ids.
type Vocabulary = (String, Tokenizer, Vec<(String, Vec<u32>)>);

/// The reference folder's vocabularies, or nothing (and a line that says so).
fn vocabularies(test: &str) -> Vec<Vocabulary> {
    let folder = reference().join("tokenizers");
    let Ok(index) = fs::read_to_string(folder.join("index.json")) else {
        println!("{test}: left out, {} is not there", folder.display());
        return Vec::new();
    };
    let index: Json = serde_json::from_str(&index).unwrap();
    let mut all = Vec::new();
    for entry in index.as_array().unwrap() {
        let file = entry["file"].as_str().unwrap();
        let m = metadata(&format!("tokenizers/{file}.gz")).unwrap();
        let start = Instant::now();
        let tokenizer = Tokenizer::from_metadata(&m).unwrap();
        println!("{file}: loaded in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        let cases = fs::read_to_string(folder.join(entry["cases_json"].as_str().unwrap())).unwrap();
        let cases: Json = serde_json::from_str(&cases).unwrap();
        let cases = cases["cases"].as_array().unwrap().iter().map(|case| {
            let ids = case["ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_u64().unwrap() as u32);
            (case["text"].as_str().unwrap().to_string(), ids.collect())
        });
        all.push((file.to_string(), tokenizer, cases.collect()));
    }
    all
}

/// The tokenizer of one reference vocabulary.
fn vocabulary(name: &str) -> Option<Tokenizer> {
    match metadata(&format!("tokenizers/ggml-vocab-{name}.gguf.gz")) {
        Some(m) => Some(Tokenizer::from_metadata(&m).unwrap()),
        None => {
            println!("left out: the vocabulary {name} is not there");
            None
        }
    }
}

fn metadata(path: &str) -> Option<Metadata> {
    let bytes = fs::read(reference().join(path)).ok()?;
    let bytes = if path.ends_with(".gz") {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut out)
            .unwrap();
        out
    } else {
        bytes
    };
    Some(Gguf::parse(&bytes).unwrap().metadata().clone())
}

/// Whether decoding gives back what was encoded.
fn is_lossless(tokenizer: &Tokenizer) -> bool {
    tokenizer.model_name() != "bert"
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: bool) -> String {
    let mut decoder = tokenizer.stream_decoder(special).at_start();
    let mut text: String = ids.iter().map(|&id| decoder.push(id).to_string()).collect();
    text.push_str(decoder.flush());
    text
}

/// Metadata of a small vocabulary of bytes, ASCII letters and a few words.
fn small(model: &str) -> Metadata {
    let mut tokens: Vec<Box<[u8]>> = ["<unk>", "<s>", "</s>"].map(|text| text.as_bytes().into()).into();
    let mut types = vec![2, 3, 3];
    for byte in 0..=255 {
        tokens.push(format!("<0x{byte:02X}>").into_bytes().into());
        types.push(6);
    }
    for text in ["a", "b", "ab", "abab", "\u{2581}", "\u{2581}a"] {
        tokens.push(text.as_bytes().into());
        types.push(1);
    }
    let mut m = Metadata::new();
    let scores = (0..tokens.len()).map(|i| -(i as f32)).collect();
    let merges: [Box<[u8]>; 3] = [&b"a b"[..], b"ab ab", b"x y"].map(Into::into);
    m.insert("tokenizer.ggml.model", Value::String(model.into()));
    m.insert("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens)));
    m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    m.insert(
        "tokenizer.ggml.merges",
        Value::Array(Array::Strings(merges.into())),
    );
    m
}

fn with(mut m: Metadata, key: &str, value: Value) -> Metadata {
    m.insert(format!("tokenizer.ggml.{key}"), value);
    m
}

fn strings(texts: &[&[u8]]) -> Value {
    Value::Array(Array::Strings(texts.iter().map(|&text| text.into()).collect()))
}
