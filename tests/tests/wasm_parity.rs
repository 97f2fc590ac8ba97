//! The native build and the wasm build under Node give the same answers: digests, ids, text and error messages, `==`.
//!
//! `cargo xtask test` builds the module and names it in `TWINFER_WASM_MODULE`, and Node in `TWINFER_NODE`; without
//! them these tests say that they were left out. What needs the reference data says so too where that is not there.

mod wasm;

use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;
use twinfer_tests::Request;
use twinfer_tests::model::Sizes;
use twinfer_tests::sampling::Setting;
use wasm::{Job, compare, compare_refusals, files, reference, scratch};

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

/// What both builds are asked of a model: the scalar backend's logits, and all others'.
fn digests(root: &Path, path: &Path, tokens: &[u32]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for sizes in sizes() {
        let scalar = Request::Digest {
            sizes: sizes.clone(),
            tokens: tokens.to_vec(),
        };
        let simd = Request::SimdDigest {
            sizes,
            tokens: tokens.to_vec(),
        };
        jobs.extend([scalar, simd].map(|request| Job::of_file(root, path, request)));
    }
    jobs
}

/// The error of one bit in each operation of each wasm backend is found where it was planted, with the bits that it has
/// natively.
#[test]
fn planted_errors() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let model = models.join("twinfer-demo-q4_k_m.gguf");
    let answers = compare(
        "planted errors",
        vec![Job::of_file(&models, &model, Request::Planted)],
    );
    for found in answers
        .iter()
        .flat_map(|found| found.as_array().into_iter().flatten())
    {
        println!(
            "planted in {}: {}, element {}",
            found["op"], found["place"], found["element"]
        );
    }
    all_answered(answers);
}

/// One small model per feature of each architecture.
#[test]
fn digests_of_architectures() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/vectors");
    let mut jobs = Vec::new();
    for path in files(&vectors, "gguf") {
        let tokens = ids(&read_json(&path.with_extension("json"))["tokens"]);
        jobs.extend(digests(&vectors, &path, &tokens));
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
        jobs.extend(digests(&reference, &path, &tokens));
    }
    all_answered(compare("digests of types", jobs));
}

/// Every vocabulary of the reference, on its own texts and on all of them as one long text.
#[test]
fn tokenized_text() {
    let Some(reference) = reference("tokenized text") else {
        return;
    };
    let directory = reference.join("tokenizers");
    let index = read_json(&directory.join("index.json"));
    let mut jobs = Vec::new();
    for entry in index.as_array().expect("the index is an array") {
        let name = entry["file"].as_str().expect("a file name");
        let mut vocabulary = Vec::new();
        let packed = fs::File::open(directory.join(format!("{name}.gz"))).expect("the index names files");
        GzDecoder::new(packed)
            .read_to_end(&mut vocabulary)
            .expect("it is a gzip file");
        let path = scratch("tokenized text").join(name);
        fs::write(&path, vocabulary).expect("the target directory can be written");

        let cases = read_json(&directory.join(entry["cases_json"].as_str().expect("a file name")));
        let cases = cases["cases"].as_array().expect("cases are an array");
        let text = |case: &Value| case["text"].as_str().expect("a text").to_owned();
        let mut texts: Vec<String> = cases.iter().map(text).collect();
        texts.push(texts.concat().repeat(8));
        texts.push("<s>[INST] a<|im_start|>b<|endoftext|></s>[CLS] c<eos><bos><|eot_id|>".into());
        jobs.push(Job::new(name, Request::Tokenize { texts }).with(path));
    }
    all_answered(compare("tokenized text", jobs));
}

/// Every chat template of the reference on all of its conversations.
#[test]
fn rendered_templates() {
    let Some(reference) = reference("rendered templates") else {
        return;
    };
    let directory = reference.join("chat-templates");
    let mut jobs = Vec::new();
    for path in files(&directory.join("expected"), "json") {
        let vectors = read_json(&path);
        let name = vectors["template"].as_str().expect("a file name");
        let source =
            fs::read_to_string(directory.join("templates").join(name)).expect("the vectors name files");
        let cases = vectors["cases"].as_array().expect("cases are an array");
        let variables = |case: &Value| case["inputs"].as_object().expect("variables by name").clone();
        let cases = cases.iter().map(variables).collect();
        jobs.push(Job::new(name, Request::Render { source, cases }));
    }
    all_answered(compare("rendered templates", jobs));
}

/// Templates that mean harm: the wasm build refuses what native refuses, on a stack of 1 MiB; no trap.
#[test]
fn hostile_templates() {
    let nested = |open: &str, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(2000), close.repeat(2000));
    let sources = [
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".to_owned(),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}.{% endmacro %}{{ f(40) }}".to_owned(),
        nested("(", ")"),
        nested("[", "]"),
        nested("not ", ""),
        nested("-", ""),
        format!("{}{}", "{% if true %}".repeat(2000), "{% endif %}".repeat(2000)),
        format!("{{{{ 1{} }}}}", " + 1".repeat(20_000)),
        format!("{{{{ 'a'{} }}}}", "|upper".repeat(20_000)),
        format!("{{{{ a{} }}}}", ".b".repeat(20_000)),
        "{% for i in range(1000000000) %}{% for j in range(1000000000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}"
            .to_owned(),
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}"
            .to_owned(),
        "{{ 'ab' * 1000000000000 }}".to_owned(),
        "{{ 2 ** 4000000 }}".to_owned(),
        "{{ 9223372036854775807 + 1 }} {{ 4294967296 * 4294967296 }} {{ range(4294967296)|length }}".to_owned(),
        "{{ 'abc'[4294967296:] }}{{ 'abc'[-4294967297:4294967298] }}{{ 1.5e300 }} {{ 0.1 + 0.2 }} {{ 7 / 3 }}".to_owned(),
    ];
    let jobs = sources.into_iter().map(|source| {
        let name = source.chars().take(80).collect::<String>();
        let cases = vec![serde_json::Map::new()];
        Job::new(name, Request::Render { source, cases })
    });
    compare_refusals("hostile templates", jobs.collect());
}

/// Whole models: a trained one of the reference under several samplers, and the one that comes with the project.
#[test]
fn generated_text() {
    let settings: [&[(&str, f64)]; 4] = [
        &[("temp", 0.0)],
        &[],
        &[
            ("temp", 1.2),
            ("top_k", 0.0),
            ("xtc_probability", 0.3),
            ("penalty_repeat", 1.1),
        ],
        &[("mirostat", 2.0), ("dry_multiplier", 0.8)],
    ];
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let mut models = if demo.is_dir() {
        files(&demo, "gguf")
    } else {
        Vec::new()
    };
    if models.is_empty() {
        println!("wasm generated text: LEFT OUT: the project's own model is not in models/demo");
    }
    if let Some(reference) = reference("generated text of trained models") {
        models.extend(
            [
                "stories260K-f32",
                "stories260K-f16",
                "quantized/stories260K-Q4_K_M",
                "quantized/stories260K-Q8_0",
            ]
            .map(|name| reference.join(format!("models/{name}.gguf"))),
        );
    }
    let mut jobs = Vec::new();
    for path in models {
        for (seed, numbers) in (1..).zip(settings) {
            let numbers = numbers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value))
                .collect();
            let request = Request::Generate {
                sizes: sizes()[1].clone(),
                prompt: "Once upon a time".into(),
                sampler: Setting {
                    seed,
                    numbers,
                    ..Setting::default()
                },
                n: 100,
            };
            jobs.push(Job::of_file(Path::new(""), &path, request));
        }
    }
    if !jobs.is_empty() {
        all_answered(compare("generated text", jobs));
    }
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
