//! The forward pass of every architecture against two that are not ours: llama.cpp's logits and a float64 pass.
//!
//! The vectors are in `tests/oracle`: one small random model per feature (rope scaling, biases, q and k norms, sliding
//! windows, fused tensors, longrope), the logits of all positions. The bound is the distance to the float64 pass.
//! llama.cpp's own distance to it differs by model (its GELU has 11 bits), so to llama.cpp the engine must be about as
//! near as ideal is. One model has keys that llama.cpp passes over in its family: of that the float64 pass is the only
//! reference.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

/// Largest difference of a logit to the float64 pass, with a cache of f32. The logits' rms is about 3.
const MAX_TO_IDEAL: f64 = 5e-5;

/// Models that `tests/oracle/make_models.py` and `make_families.py` make.
const MODELS: usize = 42;

/// What NAME.json and the files beside it say.
struct Vector {
    name: String,
    about: String,
    tokens: Vec<u32>,
    n_ctx: usize,
    n_vocab: usize,
    ideal: Vec<f32>,
    llama_cpp: Option<LlamaCpp>,
}

/// What llama.cpp computes.
struct LlamaCpp {
    logits: Vec<f32>,
    /// Of them to the float64 pass.
    rms: f64,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/vectors")
}

fn vectors() -> Vec<Vector> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("tests/oracle/vectors is part of the project")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), MODELS, "models in tests/oracle/vectors");
    names.iter().map(|name| vector(name)).collect()
}

fn vector(name: &str) -> Vector {
    let text = fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let size = |key: &str| json[key].as_u64().unwrap() as usize;
    let tokens: Vec<u32> = json["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_u64().unwrap() as u32)
        .collect();
    let rows = |which: &str| {
        let bytes = fs::read(folder().join(format!("{name}.{which}.f32"))).unwrap();
        assert_eq!(
            bytes.len(),
            tokens.len() * size("n_vocab") * 4,
            "{name}.{which}.f32"
        );
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    Vector {
        name: name.to_owned(),
        about: json["about"].as_str().unwrap().to_owned(),
        n_ctx: size("n_ctx"),
        n_vocab: size("n_vocab"),
        ideal: rows("ideal"),
        llama_cpp: json["rms_llama_cpp_to_ideal"].as_f64().map(|rms| LlamaCpp {
            logits: rows("llama_cpp"),
            rms,
        }),
        tokens,
    }
}

fn load(name: &str) -> Arc<Model> {
    let bytes = fs::read(folder().join(format!("{name}.gguf"))).unwrap();
    let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap();
    Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap())
}

/// Logits of all positions, the prompt evaluated `n_batch` tokens at a time.
fn logits(model: &Arc<Model>, v: &Vector, n_batch: usize) -> Vec<f32> {
    let options = ContextOptions {
        n_ctx: v.n_ctx,
        n_batch,
        n_states: None,
        cache_type_k: CacheType::F32,
        cache_type_v: CacheType::F32,
        n_sequences: 1,
        pool: Pool::Whole,
    };
    let mut context = Context::new(Arc::clone(model), Team::single(), options).unwrap();
    let sequence = context.open().unwrap();
    let mut out = Vec::new();
    context
        .eval_all(sequence, &v.tokens, &mut |position, row: &[f32]| {
            assert_eq!(
                position * v.n_vocab,
                out.len(),
                "{}: positions come in order",
                v.name
            );
            out.extend_from_slice(row);
        })
        .unwrap();
    assert_eq!(out.len(), v.ideal.len(), "{}: logits", v.name);
    out
}

/// Largest difference and its position, and the rms of all.
fn distance(a: &[f32], b: &[f32], n_vocab: usize) -> (f64, usize, f64) {
    let (mut max, mut at, mut sum) = (0.0, 0, 0.0);
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        let d = (f64::from(*x) - f64::from(*y)).abs();
        sum += d * d;
        if d > max {
            (max, at) = (d, i / n_vocab);
        }
    }
    (max, at, (sum / a.len() as f64).sqrt())
}

#[test]
fn logits_are_those_of_the_references() {
    let mut failed = Vec::new();
    let (mut within, mut compared, mut largest) = (0, 0, 0.0);
    println!(
        "{:<24} {:>9} {:>9} | {:>12} {:>9} | llama.cpp",
        "to ideal:", "max", "rms", "to llama.cpp:", "rms"
    );
    for v in &vectors() {
        let ours = logits(&load(&v.name), v, v.tokens.len());
        let (max, at, rms) = distance(&ours, &v.ideal, v.n_vocab);
        print!("{:<24} {max:>9.1e} {rms:>9.1e} |", v.name);
        match &v.llama_cpp {
            None => println!(" no reference"),
            Some(theirs) => {
                let (max_llama, _, rms_llama) = distance(&ours, &theirs.logits, v.n_vocab);
                println!(
                    " {max_llama:>13.1e} {rms_llama:>9.1e} | {:.1e} to ideal",
                    theirs.rms
                );
                if rms_llama > 1.05 * theirs.rms + 1e-5 {
                    failed.push(format!(
                        "{} ({}): rms {rms_llama:.1e} from llama.cpp",
                        v.name, v.about
                    ));
                }
                compared += 1;
            }
        }
        if max > largest {
            largest = max;
        }
        within += usize::from(max <= MAX_TO_IDEAL);
        if max > MAX_TO_IDEAL {
            failed.push(format!(
                "{} ({}): {max:.1e} from ideal at position {at}",
                v.name, v.about
            ));
        }
    }
    assert_eq!(compared, MODELS - 1, "models with llama.cpp's logits");
    println!(
        "architectures: {within} of {MODELS} within {MAX_TO_IDEAL:.0e} of ideal; the largest difference is {largest:.1e}"
    );
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_split_of_the_prompt_changes_no_bit() {
    let mut compared = 0;
    for v in &vectors() {
        let model = load(&v.name);
        let whole = logits(&model, v, v.tokens.len());
        for n_batch in [1, 7, 64] {
            let split = logits(&model, v, n_batch);
            let same = whole.iter().zip(&split).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{}: other logits in batches of {n_batch}", v.name);
            compared += 1;
        }
    }
    println!("architectures: {compared} splits of prompts bit-equal");
}
