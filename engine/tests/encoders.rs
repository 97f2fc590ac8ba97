//! Encoders against a float64 pass that is not ours (`tests/oracle/encoders.py`), and whatever shares a pass with a
//! text.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;
use std::sync::Arc;

use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::select;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::pooling::Pooling;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

const MODELS: [&str; 3] = ["bert", "jina-bert-v2", "modern-bert"];

/// Largest difference of a number to the float64 pass; the numbers' rms is about 1.
const MAX_TO_IDEAL: f64 = 2e-5;

/// Texts, and the vector that each should have.
struct Expected {
    texts: Vec<Vec<u32>>,
    vectors: Vec<Vec<f64>>,
}

fn expected(name: &str) -> Expected {
    let path = folder().join(format!("{name}.json"));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let lists = |key: &str| json[key].as_array().unwrap().clone();
    let numbers = |list: &serde_json::Value| list.as_array().unwrap().clone();
    Expected {
        texts: lists("texts")
            .iter()
            .map(|text| {
                numbers(text)
                    .iter()
                    .map(|id| id.as_u64().unwrap() as u32)
                    .collect()
            })
            .collect(),
        vectors: lists("vectors")
            .iter()
            .map(|vector| numbers(vector).iter().map(|x| x.as_f64().unwrap()).collect())
            .collect(),
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/encoders")
}

fn model(name: &str, backend: &str) -> Arc<Model> {
    let bytes = std::fs::read(folder().join(format!("{name}.gguf"))).unwrap();
    let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap();
    let options = LoadOptions {
        backend: Some(backend.into()),
        ..LoadOptions::default()
    };
    Arc::new(Model::load(&file, &options, &mut |_, _| {}).unwrap())
}

fn vectors(model: &Arc<Model>, texts: &[&[u32]], n_batch: usize, threads: usize) -> Vec<Vec<f32>> {
    let team = Team::new(threads, |_, work| {
        std::thread::spawn(work);
    });
    let options = ContextOptions {
        n_ctx: 128,
        n_batch,
        n_sequences: 4,
        pool: Pool::Whole,
        // An encoder keeps nothing behind a pass, so these have no say.
        cache_type_k: CacheType::Q8_0,
        cache_type_v: CacheType::F16,
        ..ContextOptions::default()
    };
    let mut context = Context::new(Arc::clone(model), team, options).unwrap();
    let mut found = Vec::new();
    context
        .embed(texts, Pooling::Mean, false, &mut |_, vector| {
            found.push(vector.to_vec())
        })
        .unwrap();
    found
}

#[test]
fn vectors_are_those_of_a_float64_pass() {
    for name in MODELS {
        let Expected {
            texts,
            vectors: ideal,
        } = expected(name);
        let model = model(name, "scalar");
        let pooling = model.config().pooling.kind.expect("the file says how");
        let mut context = Context::new(
            Arc::clone(&model),
            Team::single(),
            ContextOptions {
                n_ctx: 128,
                ..ContextOptions::default()
            },
        )
        .unwrap();
        for (text, ideal) in texts.iter().zip(&ideal) {
            let mut worst = 0.0f64;
            context
                .embed(&[text], pooling, false, &mut |_, vector| {
                    assert_eq!(vector.len(), ideal.len());
                    for (a, b) in vector.iter().zip(ideal) {
                        let difference = (f64::from(*a) - b).abs();
                        worst = if worst < difference { difference } else { worst };
                    }
                })
                .unwrap();
            println!("{name}, {} tokens: {worst:.1e}", text.len());
            assert!(
                worst <= MAX_TO_IDEAL,
                "{name}, {} tokens: {worst:.1e}",
                text.len()
            );
        }
    }
}

#[test]
fn a_vector_depends_on_its_text_alone() {
    for name in MODELS {
        let texts = expected(name).texts;
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let alone: Vec<Vec<f32>> = texts
            .iter()
            .flat_map(|text| vectors(&model(name, "scalar"), &[text], 70, 1))
            .collect();
        for backend in select::available() {
            let model = model(name, backend.name());
            for (n_batch, threads) in [(512, 1), (512, 3), (71, 2), (70, 1)] {
                let found = vectors(&model, &texts, n_batch, threads);
                assert!(
                    found == alone,
                    "{name}, {}, {n_batch} rows, {threads} threads",
                    backend.name()
                );
            }
        }
    }
}

#[test]
fn a_text_longer_than_a_pass_is_refused() {
    for name in MODELS {
        let model = model(name, "scalar");
        let mut context = Context::new(
            Arc::clone(&model),
            Team::single(),
            ContextOptions {
                n_ctx: 128,
                n_batch: 16,
                ..ContextOptions::default()
            },
        )
        .unwrap();
        let long = vec![5u32; 17];
        let refused = context.embed(&[&long], Pooling::Mean, false, &mut |_, _| ());
        assert!(refused.is_err(), "{name}");
        let nothing = context.embed(&[&[]], Pooling::Mean, false, &mut |_, _| ());
        assert!(nothing.is_err(), "{name}");
        // And what comes after is as it was.
        let mut found = 0;
        context
            .embed(&[&long[..16]], Pooling::Mean, false, &mut |_, _| found += 1)
            .unwrap();
        assert_eq!(found, 1);
    }
}
