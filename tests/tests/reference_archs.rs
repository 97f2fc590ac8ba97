//! Small models of every architecture against llama.cpp's logits, which no part of this project made
//! (`shared/reference/archs`; its README states the tolerances). Each prompt is computed at once, token by token and in
//! two pieces; the three give the same bits. `TWINFER_ARCHS=qwen,gpt` picks models by the beginnings of their names.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::pooling::Pooling;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

/// RMS distance to llama.cpp's logits at most, of F32 models without GELU.
const TOLERANCE: f64 = 1e-4;

fn at_least_the_tolerance(bound: f64) -> f64 {
    if bound < TOLERANCE { TOLERANCE } else { bound }
}

fn folder() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/archs");
    if path.is_dir() {
        return Some(path);
    }
    println!("left out: no reference data at {}", path.display());
    None
}

/// The descriptions of the models that were asked for, by name.
fn descriptions(folder: &Path) -> Vec<(String, Value)> {
    let asked = std::env::var("TWINFER_ARCHS").unwrap_or_default();
    let mut found: Vec<(String, Value)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (
                name,
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
            )
        })
        .filter(|(name, _)| asked.split(',').any(|beginning| name.starts_with(beginning)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty(), "no model's name begins with one of `{asked}`");
    found
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b) * f64::from(a - b));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

fn model(path: &Path) -> Arc<Model> {
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    let options = LoadOptions {
        backend: std::env::var("TWINFER_BACKEND").ok(),
        ..LoadOptions::default()
    };
    Arc::new(Model::load(&file, &options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{path:?}: {error}")))
}

/// The logits of all positions, computed in pieces.
fn logits(model: &Arc<Model>, ids: &[u32], pieces: &[usize], threads: usize) -> Vec<f32> {
    let team = Team::new(threads, |_, work| {
        std::thread::spawn(work);
    });
    let options = ContextOptions {
        n_ctx: ids.len(),
        n_batch: pieces.iter().copied().max().unwrap().min(512),
        n_sequences: 1,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: CacheType::F32,
        cache_type_v: CacheType::F32,
    };
    let mut context = Context::new(Arc::clone(model), team, options).unwrap();
    let sequence = context.open().unwrap();
    let (mut all, mut first) = (Vec::new(), 0);
    for piece in pieces {
        context
            .eval_all(sequence, &ids[first..first + piece], &mut |_, logits| {
                all.extend_from_slice(logits);
            })
            .unwrap();
        first += piece;
    }
    assert_eq!(first, ids.len());
    all
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn decoders_compute_what_llama_cpp_computes() {
    let Some(folder) = folder() else { return };
    let mut failed = Vec::new();
    println!(
        "{:24} {:6} {:>10} {:>10} {:>10}",
        "model", "prompt", "rms", "bound", "llama.cpp"
    );
    for (name, about) in descriptions(&folder) {
        if about["output"] != "logits" {
            continue;
        }
        let model = model(&folder.join(about["model"].as_str().unwrap()));
        let n_vocab = about["n_vocab"].as_u64().unwrap() as usize;
        for (prompt, about) in about["prompts"].as_object().unwrap() {
            let number = |key: &str| about[key].as_f64();
            let ids = about["ids"].as_array().unwrap().iter();
            let ids: Vec<u32> = ids.map(|id| id.as_u64().unwrap() as u32).collect();
            let whole = logits(&model, &ids, &[ids.len()], 2);
            if ids.len() < 1000 {
                let half = ids.len() * 4 / 9;
                let pieces = logits(&model, &ids, &[half, ids.len() - half], 1);
                let singles = logits(&model, &ids, &vec![1; ids.len()], 1);
                for other in [pieces, singles] {
                    if bits(&other) != bits(&whole) {
                        failed.push(format!("{name} {prompt}: the split of the prompt moves numbers"));
                    }
                }
            }
            let file = about.get("dequantized_file").unwrap_or(&about["file"]);
            let theirs = floats(&folder.join(file.as_str().unwrap()));
            let first = number("first_row").unwrap_or(0.0) as usize;
            let ours = &whole[first * n_vocab..first * n_vocab + theirs.len()];
            let distance = rms(ours, &theirs);
            let bound = match number("rms_to_dequantized") {
                Some(own) => 1.5 * own,
                None => at_least_the_tolerance(3.0 * number("rms_to_ideal").unwrap()),
            };
            let own = number("rms_to_dequantized").or(number("rms_to_ideal")).unwrap();
            println!("{name:24} {prompt:6} {distance:10.2e} {bound:10.2e} {own:10.2e}");
            if distance > bound {
                failed.push(format!(
                    "{name} {prompt}: {distance:.2e} away, at most {bound:.2e}"
                ));
            }
            if let Some(margin) = number("smallest_top1_margin").filter(|margin| *margin > 20.0 * bound) {
                let best = |row: &[f32]| (0..n_vocab).reduce(|a, b| if row[b] > row[a] { b } else { a });
                for (row, (a, b)) in ours.chunks(n_vocab).zip(theirs.chunks(n_vocab)).enumerate() {
                    if best(a) != best(b) {
                        failed.push(format!(
                            "{name} {prompt}: another token at {row}, margin {margin}"
                        ));
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// The vectors of texts, one after the other, in passes of `n_batch` rows and at most as many texts as the context has
/// sequences.
fn vectors(
    model: &Arc<Model>,
    texts: &[&[u32]],
    (pooling, normalize): (Pooling, bool),
    (n_batch, n_sequences, threads): (usize, usize, usize),
) -> Vec<Vec<f32>> {
    let team = Team::new(threads, |_, work| {
        std::thread::spawn(work);
    });
    let options = ContextOptions {
        n_ctx: 128,
        n_batch,
        n_sequences,
        pool: Pool::Whole,
        cache_type_k: CacheType::F32,
        cache_type_v: CacheType::F32,
        n_states: None,
    };
    let mut context = Context::new(Arc::clone(model), team, options).unwrap();
    let mut all = vec![Vec::new(); texts.len()];
    context
        .embed(texts, pooling, normalize, &mut |text, vector| {
            all[text].extend_from_slice(vector);
        })
        .unwrap();
    all
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn encoders_compute_what_llama_cpp_computes() {
    let Some(folder) = folder() else { return };
    let mut failed = Vec::new();
    println!(
        "{:24} {:6} {:>10} {:>10} {:>10} {:>10}",
        "model", "prompt", "vector", "tokens", "bound", "llama.cpp"
    );
    for (name, about) in descriptions(&folder) {
        if about["output"] == "logits" {
            continue;
        }
        let model = model(&folder.join(about["model"].as_str().unwrap()));
        let pooling = model.config().pooling.kind.unwrap();
        let prompts = about["prompts"].as_object().unwrap();
        let ids: Vec<Vec<u32>> = prompts
            .values()
            .map(|about| {
                let ids = about["ids"].as_array().unwrap().iter();
                ids.map(|id| id.as_u64().unwrap() as u32).collect()
            })
            .collect();
        let texts: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let together = (256, 8, 2);
        let ours = vectors(&model, &texts, (pooling, false), together);
        let tokens = vectors(&model, &texts, (Pooling::None, false), together);
        let normalized = vectors(&model, &texts, (pooling, true), together);
        for sizes in [(128, 1, 1), (100, 2, 3)] {
            let (again, tokens_again) = (
                vectors(&model, &texts, (pooling, false), sizes),
                vectors(&model, &texts, (Pooling::None, false), sizes),
            );
            let same = |a: &[Vec<f32>], b: &[Vec<f32>]| a.iter().zip(b).all(|(a, b)| bits(a) == bits(b));
            if !same(&again, &ours) || !same(&tokens_again, &tokens) {
                failed.push(format!(
                    "{name}: passes of {sizes:?} (rows, texts, threads) move numbers"
                ));
            }
        }
        for (i, (prompt, about)) in prompts.iter().enumerate() {
            let number = |key: &str| about[key].as_f64().unwrap();
            let file = |key: &str| about[key].as_str().map(|file| floats(&folder.join(file)));
            let bound = at_least_the_tolerance(3.0 * number("rms_to_ideal"));
            let distance = rms(&ours[i], &file("file").unwrap());
            let of_tokens = rms(&tokens[i], &file("tokens_file").unwrap());
            let own = number("rms_to_ideal");
            println!("{name:24} {prompt:6} {distance:10.2e} {of_tokens:10.2e} {bound:10.2e} {own:10.2e}");
            // A mean lies closer than the tokens that it is of.
            if distance > bound || of_tokens > 3.0 * bound {
                failed.push(format!(
                    "{name} {prompt}: {distance:.2e} (tokens {of_tokens:.2e}) away, at most {bound:.2e}"
                ));
            }
            if let Some(theirs) = file("normalized_file") {
                let cosine = cosine(&normalized[i], &theirs);
                let length = length(&normalized[i]);
                if cosine < 0.99999 || (length - 1.0).abs() > 1e-6 {
                    failed.push(format!("{name} {prompt}: cosine {cosine}, length {length}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

fn length(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|x| f64::from(*x) * f64::from(*x));
    squares.sum::<f64>().sqrt()
}
