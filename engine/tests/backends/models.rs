//! Whole models: the digest of all logits, by backend, storage, threads and batch. Every model in every cell is the
//! subject of `tests/tests/matrix`; here are long contexts, and a part of the cells for emulated processors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions, held_bytes};
use twinfer_engine::digest::Digest;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::Storage;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

use crate::{backends, reduced};

fn gguf_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("backends: LEFT OUT models in {}: not there", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    paths.sort();
    paths
}

fn load(path: &Path, backend: &str, storage: Storage, team: &Team) -> Arc<Model> {
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    let options = LoadOptions {
        backend: Some(backend.into()),
        storage,
        team: Some(team.clone()),
        ..LoadOptions::default()
    };
    Arc::new(Model::load(&file, &options, &mut |_, _| {}).unwrap())
}

fn digest(model: &Arc<Model>, team: &Team, n_batch: usize, cache: (CacheType, CacheType)) -> String {
    let options = ContextOptions {
        n_ctx: 128,
        n_batch,
        n_sequences: 1,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: cache.0,
        cache_type_v: cache.1,
    };
    let mut context = Context::new(Arc::clone(model), team.clone(), options).unwrap();
    let sequence = context.open().unwrap();
    let n_vocab = model.config().n_vocab as u32;
    let n = if reduced() { 20 } else { 75 };
    let tokens: Vec<u32> = (0..n).map(|i| (i * 37 + 11) % n_vocab).collect();
    let mut all = Digest::new();
    let mut sink = |_: usize, logits: &[f32]| all.update(logits);
    context.eval_all(sequence, &tokens, &mut sink).unwrap();
    all.finish()
}

#[test]
#[ignore = "for emulated processors; elsewhere `cargo test -p twinfer-tests --test matrix` compares more"]
fn models_give_the_digests_of_scalar() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = gguf_files(&root.join("../tests/oracle/vectors"));
    for folder in ["wide", "synthetic", "quantized"] {
        paths.extend(gguf_files(
            &root.join("../../shared/reference/models").join(folder),
        ));
    }
    let teams = [1, 2, 3].map(|n| {
        Team::new(n, |_, work| {
            std::thread::spawn(work);
        })
    });
    let (mut compared, mut int8) = (0, 0);
    for path in &paths {
        let scalar = load(path, "scalar", Storage::Mapped, &teams[0]);
        for cache in [
            (CacheType::F16, CacheType::F16),
            (CacheType::F32, CacheType::F32),
            (CacheType::Q8_0, CacheType::F16),
            (CacheType::F16, CacheType::Q8_0),
            (CacheType::Q8_0, CacheType::Q8_0),
        ] {
            let options = ContextOptions {
                cache_type_k: cache.0,
                cache_type_v: cache.1,
                ..ContextOptions::default()
            };
            // Heads narrower than a block of q8_0.
            if held_bytes(scalar.config(), &options).is_err() {
                continue;
            }
            if reduced() && cache.0 != cache.1 {
                continue;
            }
            int8 += usize::from(cache.0 == CacheType::Q8_0);
            let want = digest(&scalar, &teams[1], 64, cache);
            let all = [
                (Storage::Packed, 2, 7),
                (Storage::Mapped, 1, 64),
                (Storage::Packed, 0, 64),
                (Storage::Packed, 1, 1),
                (Storage::Mapped, 2, 1),
                (Storage::Mapped, 0, 7),
            ];
            // Storages have no part in what the cache's type changes.
            let few = cache.0 == CacheType::Q8_0 || cache.1 == CacheType::Q8_0;
            for backend in backends() {
                for (storage, team, n_batch) in all.into_iter().take(if few { 2 } else { all.len() }) {
                    let model = load(path, backend.name(), storage, &teams[team]);
                    assert_eq!(
                        digest(&model, &teams[team], n_batch, cache),
                        want,
                        "{} on {}, {storage:?}, {} threads, batches of {n_batch}, cache {cache:?}",
                        path.display(),
                        backend.name(),
                        team + 1
                    );
                    compared += 1;
                }
            }
        }
    }
    println!(
        "backends: {compared} digests of {} models equal to scalar's, {int8} runs with keys in q8_0",
        paths.len()
    );
    assert!(compared > 0 || backends().is_empty());
}

/// Tokens of a long context.
fn long_text(model: &Model) -> Vec<u32> {
    let n_vocab = model.config().n_vocab as u32;
    (0..2190).map(|i| (i * 37 + i / 5 + 11) % n_vocab).collect()
}

/// The digest of the logits of `rest`, fed `tail` rows at a time, after `head`.
fn tail_digest(
    model: &Arc<Model>,
    team: &Team,
    (n_batch, tail): (usize, usize),
    cache: (CacheType, CacheType),
    (head, rest): (&[u32], &[u32]),
) -> String {
    let options = ContextOptions {
        n_ctx: 2304,
        n_batch,
        n_sequences: 1,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: cache.0,
        cache_type_v: cache.1,
    };
    let mut context = Context::new(Arc::clone(model), team.clone(), options).unwrap();
    let sequence = context.open().unwrap();
    context.prefill(sequence, head).unwrap();
    let mut all = Digest::new();
    for part in rest.chunks(tail) {
        context
            .eval_all(sequence, part, &mut |_, logits| all.update(logits))
            .unwrap();
    }
    all.finish()
}

/// The same for the tail of a long sequence, that of a fork that goes another way, and a short sequence, whose rows
/// share passes: a digest of each.
fn tails_together(
    model: &Arc<Model>,
    team: &Team,
    rows_a_pass: usize,
    cache: (CacheType, CacheType),
) -> Vec<String> {
    let options = ContextOptions {
        n_ctx: 2304,
        n_batch: 512,
        n_sequences: 3,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: cache.0,
        cache_type_v: cache.1,
    };
    let mut context = Context::new(Arc::clone(model), team.clone(), options).unwrap();
    let tokens = long_text(model);
    let (head, rest) = tokens.split_at(2150);
    let long = context.open().unwrap();
    context.prefill(long, head).unwrap();
    let fork = context.fork(long, 2130).unwrap();
    let short = context.open().unwrap();
    context.prefill(short, &head[..70]).unwrap();
    let other: Vec<u32> = rest.iter().rev().copied().collect();
    let (mut digests, mut batch) = ([Digest::new(), Digest::new(), Digest::new()], Batch::new());
    for (part, other) in rest.chunks(rows_a_pass).zip(other.chunks(rows_a_pass)) {
        batch.clear();
        let mut of = Vec::new();
        for (token, other) in part.iter().zip(other) {
            for (index, (id, token)) in [(fork, other), (long, token), (short, token)]
                .into_iter()
                .enumerate()
            {
                batch.push(id, *token, Output::Logits);
                of.push(index);
            }
        }
        context
            .forward(&mut batch, &mut (), &mut |row, logits| {
                digests[of[row]].update(logits)
            })
            .unwrap();
    }
    digests.into_iter().map(Digest::finish).collect()
}

/// Three spans of blocks: the rows of a long sequence are split over them between workers, where they are much of a
/// pass, be they alone in it or beside shorter sequences.
#[test]
fn long_contexts_give_the_digests_of_scalar() {
    if reduced() {
        println!("backends: LEFT OUT long contexts: they take an emulated processor many minutes");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = ["llama-gqa", "gemma3-pattern", "llama-window"]
        .iter()
        .map(|name| root.join(format!("../tests/oracle/vectors/{name}.gguf")))
        .collect();
    let mut caches = vec![(CacheType::F16, CacheType::F16); paths.len()];
    let wide = root.join("../../shared/reference/models/synthetic/synth-Q8_0.gguf");
    if wide.exists() {
        paths.push(wide);
        caches.push((CacheType::Q8_0, CacheType::Q8_0));
    } else {
        println!("backends: LEFT OUT a long context in q8_0: no {}", wide.display());
    }
    let teams = [1, 2, 5].map(|n| {
        Team::new(n, |_, work| {
            std::thread::spawn(work);
        })
    });
    let mut compared = 0;
    for (path, cache) in paths.iter().zip(caches) {
        let scalar = load(path, "scalar", Storage::Mapped, &teams[1]);
        let tokens = long_text(&scalar);
        let tail = tokens.split_at(2150);
        let other: Vec<u32> = tail.1.iter().rev().copied().collect();
        let digest = |text| tail_digest(&scalar, &teams[1], (512, 40), cache, text);
        let want = digest(tail);
        let together = [
            digest((&tokens[..2130], &other)),
            want.clone(),
            digest((&tokens[..70], tail.1)),
        ];
        let mut names = vec!["scalar"];
        names.extend(backends().iter().map(|backend| backend.name()));
        for name in names {
            for (team, n_batch, rows) in [(0, 512, 1), (1, 64, 3), (2, 300, 1), (2, 512, 8), (1, 512, 40)] {
                let model = load(path, name, Storage::Mapped, &teams[team]);
                assert_eq!(
                    tail_digest(&model, &teams[team], (n_batch, rows), cache, tail),
                    want,
                    "{} on {name}, team {team}, batches of {n_batch}, then of {rows}, cache {cache:?}",
                    path.display()
                );
                compared += 1;
            }
            for (team, rows) in [(0, 1), (1, 1), (2, 1), (2, 4), (1, 40)] {
                let model = load(path, name, Storage::Mapped, &teams[team]);
                assert_eq!(
                    tails_together(&model, &teams[team], rows, cache),
                    together,
                    "{} on {name}, team {team}, three sequences, {rows} rows a pass of each, cache {cache:?}",
                    path.display()
                );
                compared += 3;
            }
        }
    }
    println!("backends: {compared} digests at the end of a long context equal to scalar's");
}
