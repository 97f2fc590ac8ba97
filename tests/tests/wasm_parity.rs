//! The native build and the wasm build under Node give the same answers: digests, ids, text and error messages, `==`.
//!
//! `cargo xtask test` builds the module and names it in `TWINFER_WASM_MODULE`, and Node in `TWINFER_NODE`; without
//! them these tests say that they were left out. What needs the reference data says so too where that is not there.

mod wasm;

use std::fs;
use std::path::Path;

use serde_json::Value;
use twinfer_tests::Request;
use twinfer_tests::model::Sizes;
use twinfer_tests::sampling::Setting;
use wasm::{Job, compare, files, reference};

#[test]
fn arithmetic() {
    all_answered(compare("arithmetic", vec![Job::new("grid", Request::Arithmetic)]));
}

/// Sound and malformed files: the same header, or the same complaint.
#[test]
fn files_and_headers() {
    let Some(reference) = reference("files") else {
        return;
    };
    let paths = files(&reference.join("models"), "gguf")
        .into_iter()
        .chain(files(&reference.join("gguf-bad"), "gguf"));
    let jobs = paths
        .map(|path| Job::of_file(&reference, &path, Request::File))
        .collect();
    compare("files", jobs);
}

/// Errors that are equal on both sides prove little where an answer was wanted.
fn all_answered(answers: Vec<Value>) {
    for answer in answers {
        assert_eq!(answer.get("error"), None);
    }
}

/// Contexts of both cache types, whole batches and small ones.
fn sizes() -> [Sizes; 3] {
    [("f32", "f32", 512), ("f16", "f16", 7), ("f32", "f16", 64)].map(|(k, v, n_batch)| Sizes {
        n_ctx: 256,
        n_batch,
        cache_type_k: k.into(),
        cache_type_v: v.into(),
    })
}

fn read_json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"))
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("ids are an array");
    ids.iter()
        .map(|id| id.as_u64().expect("an id is a number") as u32)
        .collect()
}

/// One small model per feature of each architecture.
#[test]
fn digests_of_architectures() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/vectors");
    let mut jobs = Vec::new();
    for path in files(&vectors, "gguf") {
        let tokens = ids(&read_json(&path.with_extension("json"))["tokens"]);
        for sizes in sizes() {
            let request = Request::Digest {
                sizes,
                tokens: tokens.clone(),
            };
            jobs.push(Job::of_file(&vectors, &path, request));
        }
    }
    all_answered(compare("digests of architectures", jobs));
}

/// Tokens per model of [`digests_of_types`]: past two of attention's blocks of 64 positions.
const N_TOKENS: usize = 130;

/// Every tensor type, in models of random and of trained weights.
#[test]
fn digests_of_types() {
    let Some(reference) = reference("digests of types") else {
        return;
    };
    let mut jobs = Vec::new();
    for path in files(&reference.join("models"), "gguf") {
        let name = path.file_stem().expect("it ends in .gguf").to_string_lossy();
        // The version 1 file is the f32 model once more.
        let name = if path.parent().is_some_and(|p| p.ends_with("src")) {
            "stories260K-f32".into()
        } else {
            name
        };
        let vector = read_json(&reference.join(format!("logits/{name}.json")));
        let prompts = vector["prompts"].as_array().expect("prompts are an array");
        let tokens: Vec<u32> = prompts
            .iter()
            .flat_map(|prompt| [ids(&prompt["prompt_ids"]), ids(&prompt["greedy_ids"])].concat())
            .take(N_TOKENS)
            .collect();
        assert_eq!(tokens.len(), N_TOKENS, "{name}");
        for sizes in sizes() {
            let request = Request::Digest {
                sizes,
                tokens: tokens.clone(),
            };
            jobs.push(Job::of_file(&reference, &path, request));
        }
    }
    all_answered(compare("digests of types", jobs));
}

/// Every sampler, alone and in the default chain, and the alternatives to the chain.
#[test]
fn drawn_tokens() {
    let settings: [&[(&str, f64)]; 16] = [
        &[],
        &[("temp", 0.0)],
        &[("temp", 2.0), ("top_k", 0.0), ("top_p", 1.0), ("min_p", 0.0)],
        &[("top_k", 3.0)],
        &[("top_k", 0.0), ("top_p", 0.3)],
        &[("min_p", 0.4)],
        &[("typ_p", 0.5), ("temp", 1.5)],
        &[("top_n_sigma", 1.0)],
        &[("xtc_probability", 0.5), ("xtc_threshold", 0.05), ("temp", 1.5)],
        &[("dynatemp_range", 0.5), ("dynatemp_exponent", 1.3)],
        &[
            ("penalty_repeat", 1.3),
            ("penalty_freq", 0.2),
            ("penalty_present", 0.4),
        ],
        &[("dry_multiplier", 0.8), ("temp", 0.0)],
        &[
            ("dry_multiplier", 0.8),
            ("dry_base", 1.1),
            ("dry_allowed_length", 1.0),
        ],
        &[("mirostat", 2.0)],
        &[("mirostat", 2.0), ("mirostat_tau", 2.0), ("mirostat_eta", 0.4)],
        &[("top_p", 0.5), ("min_keep", 5.0)],
    ];
    let mut jobs = Vec::new();
    for numbers in settings {
        for (seed, n_vocab) in [(1, 40), (42, 1000), (0xFFFF_FFFF, 32_000)] {
            let numbers = numbers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value))
                .collect();
            let sampler = Setting {
                seed,
                numbers,
                dry_sequence_breakers: vec![vec![3], vec![7, 8]],
                logit_bias: vec![(5, 1.25), (6, -1e9)],
                ..Setting::default()
            };
            let name = format!("{sampler:?}, vocabulary of {n_vocab}");
            jobs.push(Job::new(
                name,
                Request::Draw {
                    sampler,
                    n_vocab,
                    n: 100,
                },
            ));
        }
    }
    all_answered(compare("drawn tokens", jobs));
}
