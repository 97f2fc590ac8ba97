//! Sentence embeddings of a trained encoder, all-MiniLM-L6-v2, against llama.cpp's and against a float64 pass over the
//! original weights (`shared/reference/minilm`; its README states the tolerances): from text, by way of the tokenizer.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

const WIDTH: usize = 384;

fn folder() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/minilm");
    if path.is_dir() {
        return Some(path);
    }
    println!("left out: no reference data at {}", path.display());
    None
}

fn rows(path: &Path) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let values = bytes.as_chunks::<4>().0.iter();
    let values: Vec<f32> = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
    values.chunks_exact(WIDTH).map(<[f32]>::to_vec).collect()
}

/// Of vectors whose length is 1.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The others of `vectors`, nearest first.
fn neighbours(vectors: &[Vec<f32>], of: usize) -> Vec<usize> {
    let mut others: Vec<usize> = (0..vectors.len()).filter(|i| *i != of).collect();
    let near = |i: &usize| cosine(&vectors[of], &vectors[*i]);
    others.sort_by(|a, b| near(b).total_cmp(&near(a)));
    others
}

#[test]
fn sentences_are_where_llama_cpp_puts_them() {
    let Some(folder) = folder() else { return };
    let about: Value =
        serde_json::from_slice(&std::fs::read(folder.join("embeddings.json")).unwrap()).unwrap();
    let sentences = about["sentences"].as_array().unwrap();
    // Type, cosine to llama.cpp's at least, cosine to the float64 pass at least, difference between cosines at most.
    for (ty, to_theirs, to_ideal, between) in [("F16", 0.9999, 0.9999, 0.002), ("Q8_0", 0.998, 0.998, 0.015)]
    {
        let bytes = std::fs::read(folder.join(format!("all-MiniLM-L6-v2-{ty}.gguf"))).unwrap();
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap();
        let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
        let options = LoadOptions {
            backend: std::env::var("TWINFER_BACKEND").ok(),
            ..LoadOptions::default()
        };
        let model = Arc::new(Model::load(&file, &options, &mut |_, _| {}).unwrap());
        let pooling = model.config().pooling.kind.unwrap();
        let mut texts = Vec::new();
        for sentence in sentences {
            let options = EncodeOptions {
                add_special: true,
                parse_special: true,
            };
            let ids = tokenizer
                .encode(sentence["text"].as_str().unwrap(), options)
                .unwrap();
            assert_eq!(Value::from(ids.clone()), sentence["ids"], "{sentence}");
            texts.push(ids);
        }
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let embed = |n_batch, n_sequences, threads| {
            let team = Team::new(threads, |_, work| {
                std::thread::spawn(work);
            });
            let options = ContextOptions {
                n_ctx: 64,
                n_batch,
                n_sequences,
                ..ContextOptions::default()
            };
            let mut context = Context::new(Arc::clone(&model), team, options).unwrap();
            let mut all = Vec::new();
            context
                .embed(&texts, pooling, true, &mut |_, vector| all.push(vector.to_vec()))
                .unwrap();
            all
        };
        let ours = embed(512, 8, 2);
        // Once: without optimisation this takes long.
        for (n_batch, n_sequences, threads) in [(50, 2, 3)].into_iter().filter(|_| ty == "F16") {
            let again = embed(n_batch, n_sequences, threads);
            let bits = |all: &[Vec<f32>]| -> Vec<u32> { all.iter().flatten().map(|x| x.to_bits()).collect() };
            assert_eq!(
                bits(&again),
                bits(&ours),
                "{ty}: batches of {n_batch}, {threads} threads"
            );
        }
        let theirs = rows(&folder.join(format!("embeddings.{ty}.f32")));
        let ideal = rows(&folder.join("embeddings.ideal.f32"));
        let least = |other: &[Vec<f32>]| {
            let cosines = ours.iter().zip(other).map(|(a, b)| cosine(a, b));
            cosines.fold(1.0, |a, b| if b < a { b } else { a })
        };
        let (near_theirs, near_ideal) = (least(&theirs), least(&ideal));
        println!("MiniLM {ty}: cosine to llama.cpp's {near_theirs:.7}, to float64 {near_ideal:.7}");
        assert!(near_theirs >= to_theirs && near_ideal >= to_ideal, "{ty}");
        for i in 0..ours.len() {
            assert_eq!(
                neighbours(&ours, i),
                neighbours(&theirs, i),
                "{ty}: the order beside {i}"
            );
            for j in 0..ours.len() {
                let (own, other) = (cosine(&ours[i], &ours[j]), cosine(&theirs[i], &theirs[j]));
                assert!(
                    (own - other).abs() <= between,
                    "{ty}: {i} and {j}: {own}, {other}"
                );
            }
        }
    }
}
