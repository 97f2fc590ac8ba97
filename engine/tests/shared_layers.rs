//! Layers that keep nothing of their own: of rows that nobody asks for they are not computed, and the rows that are
//! asked for have the numbers that they have where all are.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::{Storage, select};
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::plan::ModelPlan;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

const TOKENS: [u32; 150] = {
    let mut tokens = [0; 150];
    let mut i = 0;
    while i < tokens.len() {
        tokens[i] = (i * i + i / 3) as u32 % 48;
        i += 1;
    }
    tokens
};

/// Models whose last layers keep nothing: they read the keys and values of others, or have no mixer.
const MODELS: [&str; 2] = ["gemma4", "nemotron-h-moe"];

fn parsed(name: &str) -> ModelFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/oracle/vectors/{name}.gguf"));
    ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap()
}

fn context(name: &str, threads: usize, n_sequences: usize) -> Context {
    let model = Model::load(&parsed(name), &LoadOptions::default(), &mut |_, _| {}).unwrap();
    let team = Team::new(threads, |_, work| {
        std::thread::spawn(work);
    });
    let options = ContextOptions {
        n_ctx: TOKENS.len(),
        n_batch: 64,
        n_sequences,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: CacheType::F32,
        cache_type_v: CacheType::F16,
    };
    Context::new(Arc::new(model), team, options).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Logits of every position.
fn all(name: &str) -> Vec<Vec<u32>> {
    let mut context = context(name, 1, 1);
    let sequence = context.open().unwrap();
    let mut rows = Vec::new();
    context
        .eval_all(sequence, &TOKENS, &mut |_, logits| rows.push(bits(logits)))
        .unwrap();
    assert_eq!(rows.len(), TOKENS.len());
    rows
}

#[test]
fn rows_that_are_asked_for_are_the_same_whatever_else_is() {
    MODELS.into_iter().for_each(compare);
}

fn compare(name: &str) {
    let expected = all(name);
    assert!(
        expected.windows(2).all(|pair| pair[0] != pair[1]),
        "positions differ"
    );
    type Asked = fn(usize) -> bool;
    let asks: [(&str, Asked); 5] = [
        ("the last one", |i| i + 1 == TOKENS.len()),
        ("none, then the last two", |i| i + 2 >= TOKENS.len()),
        ("every seventh", |i| i % 7 == 3),
        ("the first of each pass", |i| i % 5 == 0),
        ("two far apart", |i| i == 1 || i == 140),
    ];
    for (what, asked) in asks {
        for (threads, pass) in [(1, 64), (3, 50), (2, 5), (1, 1)] {
            let mut context = context(name, threads, 2);
            let sequence = context.open().unwrap();
            let other = context.open().unwrap();
            let mut given = 0;
            for first in (0..TOKENS.len()).step_by(pass) {
                let mut batch = Batch::new();
                let (mut wanted, mut places) = (Vec::new(), 0);
                for (i, token) in TOKENS.iter().enumerate().skip(first).take(pass) {
                    // A row of another sequence in between, where there is room.
                    if i % 9 == 0 && pass < 64 {
                        batch.push(other, *token, Output::None);
                        places += 1;
                    }
                    let output = if asked(i) { Output::Logits } else { Output::None };
                    batch.push(sequence, *token, output);
                    if asked(i) {
                        wanted.push((places, i));
                    }
                    places += 1;
                }
                let mut found = Vec::new();
                context
                    .forward(&mut batch, &mut (), &mut |row, logits| {
                        found.push((row, bits(logits)));
                    })
                    .unwrap();
                assert_eq!(found.len(), wanted.len(), "{what}");
                for ((row, logits), (place, i)) in found.into_iter().zip(wanted) {
                    assert_eq!(row, place, "{what}");
                    assert_eq!(
                        logits, expected[i],
                        "{name}, {what}, position {i}, {threads} threads, {pass} rows"
                    );
                    given += 1;
                }
            }
            assert_eq!(given, (0..TOKENS.len()).filter(|i| asked(*i)).count());
        }
    }
}

/// An embedding has the row of token 0 in the layers: that token's own embedding gives its logits.
#[test]
fn an_embedding_stands_for_padding_in_the_layers() {
    let expected = all("gemma4");
    let at = TOKENS.iter().position(|token| *token == 0).unwrap();
    let bytes = parsed("gemma4").tensor_bytes("token_embd.weight").unwrap();
    let floats = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes));
    let row: Vec<f32> = floats.take(32).map(|x| x * 32.0f32.sqrt()).collect();
    let mut context = context("gemma4", 1, 1);
    let sequence = context.open().unwrap();
    let mut batch = Batch::new();
    for token in &TOKENS[..at] {
        batch.push(sequence, *token, Output::None);
    }
    batch.push_embedding(sequence, &row, Output::Logits);
    let mut found = Vec::new();
    context
        .forward(&mut batch, &mut (), &mut |_, logits| found.push(bits(logits)))
        .unwrap();
    assert_eq!(found, [expected[at].clone()]);
}

/// The table of embeddings per layer is as it is in the file, whatever the other weights are.
#[test]
fn the_table_of_embeddings_stays_mapped() {
    let file = parsed("gemma4");
    let table = file.tensor("per_layer_token_embd.weight").unwrap().bytes;
    for backend in select::available() {
        for storage in [Storage::Auto, Storage::Packed] {
            let options = LoadOptions {
                backend: Some(backend.name().into()),
                storage,
                ..LoadOptions::default()
            };
            let weights = ModelPlan::of(&file, &options).unwrap().weights();
            assert!(weights.mapped >= table, "{} {storage:?}", backend.name());
            if backend.name() != "scalar" {
                assert_eq!(weights.mapped, table, "{} {storage:?}", backend.name());
            }
        }
    }
}
