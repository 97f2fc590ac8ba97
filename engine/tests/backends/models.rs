//! Whole models: the digest of all logits, by backend, storage, threads and batch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use twinfer_engine::context::{CacheType, Context, ContextOptions};
use twinfer_engine::digest::Digest;
use twinfer_engine::gguf::{Bytes, ModelFile};
use twinfer_engine::kernels::Storage;
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
    };
    Arc::new(Model::load(&file, &options, &mut |_, _| {}).unwrap())
}

fn digest(model: &Arc<Model>, team: &Team, n_batch: usize, cache: CacheType) -> String {
    let options = ContextOptions {
        n_ctx: 128,
        n_batch,
        n_sequences: 1,
        cache_type_k: cache,
        cache_type_v: cache,
    };
    let mut context = Context::new(Arc::clone(model), team.clone(), options).unwrap();
    let mut sequence = context.new_sequence();
    let n_vocab = model.config().n_vocab as u32;
    let n = if reduced() { 20 } else { 75 };
    let tokens: Vec<u32> = (0..n).map(|i| (i * 37 + 11) % n_vocab).collect();
    let mut all = Digest::new();
    let mut sink = |_: usize, logits: &[f32]| all.update(logits);
    context.eval_all(&mut sequence, &tokens, &mut sink).unwrap();
    all.finish()
}

#[test]
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
    let mut compared = 0;
    for path in &paths {
        for cache in [CacheType::F16, CacheType::F32] {
            let scalar = load(path, "scalar", Storage::Mapped, &teams[0]);
            let want = digest(&scalar, &teams[1], 64, cache);
            for backend in backends() {
                for (storage, team, n_batch) in [
                    (Storage::Packed, 0, 64),
                    (Storage::Packed, 1, 1),
                    (Storage::Packed, 2, 7),
                    (Storage::Mapped, 1, 64),
                    (Storage::Mapped, 2, 1),
                    (Storage::Mapped, 0, 7),
                ] {
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
        "backends: {compared} digests of {} models equal to scalar's",
        paths.len()
    );
    assert!(compared > 0 || backends().is_empty());
}
