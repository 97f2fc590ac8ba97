//! Files that users met, from `../shared/cases`: each one loads, or is refused for its own reason, and computes what
//! the reference computes. The values are of its README: llama.cpp's.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::{Path, PathBuf};
use std::sync::Arc;

use twinfer_engine::cache::CacheType;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::select;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};
use twinfer_engine::{Error, Result};

/// The folder, or that this test is left out.
fn folder(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("cases: LEFT OUT {test}: {} is not there", folder.display());
    None
}

fn open(folder: &Path, names: &[&str]) -> Result<ModelFile> {
    let parts = names
        .iter()
        .map(|name| Bytes::from_vec(std::fs::read(folder.join(name)).unwrap()));
    ModelFile::from_parts(parts.collect())
}

fn load(folder: &Path, name: &str, backend: &str) -> Result<Arc<Model>> {
    let options = LoadOptions {
        backend: Some(backend.into()),
        ..LoadOptions::default()
    };
    let file = open(folder, &[name])?;
    Ok(Arc::new(Model::load(&file, &options, &mut |_, _| {})?))
}

/// The logits after each of `tokens`.
fn logits(model: &Arc<Model>, tokens: &[u32]) -> Vec<Vec<f32>> {
    let options = ContextOptions {
        n_ctx: 64,
        cache_type_k: CacheType::F32,
        cache_type_v: CacheType::F32,
        ..ContextOptions::default()
    };
    let mut context = Context::new(Arc::clone(model), Team::single(), options).unwrap();
    let sequence = context.open().unwrap();
    let mut out = Vec::new();
    context
        .eval_all(sequence, tokens, &mut |_, row: &[f32]| out.push(row.to_vec()))
        .unwrap();
    out
}

fn best(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

/// The same bits from every backend.
fn on_every_backend(folder: &Path, name: &str, tokens: &[u32]) -> Vec<Vec<f32>> {
    let scalar = logits(&load(folder, name, "scalar").unwrap(), tokens);
    for backend in select::available() {
        let found = logits(&load(folder, name, backend.name()).unwrap(), tokens);
        assert_eq!(found, scalar, "{name} on {}", backend.name());
    }
    scalar
}

#[test]
fn scales_beside_the_weights_are_multiplied_in() {
    let Some(folder) = folder("scales") else { return };
    let rows = on_every_backend(&folder, "nvfp4-scale-tensors.gguf", &[1, 403, 407]);
    for (row, (id, logit)) in rows.iter().zip([(191, 10.56205), (320, 9.03760), (250, 8.74271)]) {
        assert_eq!(best(row), id);
        // Activations are rounded to eight bits in other steps than llama.cpp's.
        assert!(
            (row[id] - logit).abs() < 0.1,
            "{} of {id}, llama.cpp {logit}",
            row[id]
        );
    }
    let rows = on_every_backend(&folder, "unused-tensor-weight-scale.gguf", &[1]);
    for (id, logit) in [(38, 0.3884), (229, 0.3722)] {
        assert!(
            (rows[0][id] - logit).abs() < 6e-5,
            "{} of {id}, llama.cpp {logit}",
            rows[0][id]
        );
    }
}

#[test]
fn a_tensor_without_a_use_is_named() {
    let Some(folder) = folder("unused tensors") else {
        return;
    };
    for (name, tensor) in [
        ("unused-tensor-output-bias.gguf", "output.bias"),
        ("unused-tensor-qk-norm.gguf", "blk.0.attn_k_norm.weight"),
    ] {
        let error = load(&folder, name, "scalar").expect_err(name);
        let message = error.to_string();
        assert!(matches!(&error, Error::Tensor { .. }), "{name}: {error:?}");
        assert!(
            message.contains(tensor) && message.contains("`llama` has no use for it"),
            "{message}"
        );
    }
}

#[test]
fn trailing_dimensions_of_one_change_nothing() {
    let Some(folder) = folder("trailing dimensions") else {
        return;
    };
    let rows = on_every_backend(&folder, "matrix-with-trailing-dim-1.gguf", &[1]);
    assert_eq!(best(&rows[0]), 38);
    assert!((rows[0][38] - 0.3864).abs() < 6e-5, "{}", rows[0][38]);
}

#[test]
fn special_ids_outside_the_vocabulary_count_as_absent() {
    let Some(folder) = folder("special ids") else {
        return;
    };
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    let mut all = Vec::new();
    for name in [
        "special-id-padding-4294967295.gguf",
        "special-id-seperator-4294967295.gguf",
        "special-id-eos-n_vocab.gguf",
    ] {
        let tokenizer = Tokenizer::from_metadata(open(&folder, &[name]).unwrap().metadata()).unwrap();
        assert_eq!(tokenizer.notes().len(), 1, "{name}");
        assert_eq!(tokenizer.encode("ab", options).unwrap(), [1, 261, 262], "{name}");
        assert_eq!(tokenizer.eos(), Some(2), "{name}");
        all.push(logits(&load(&folder, name, "scalar").unwrap(), &[1, 261, 262]));
    }
    assert!(all.iter().all(|rows| *rows == all[0]));
    let file = open(&folder, &["add-bos-without-id.gguf"]).unwrap();
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    assert_eq!(tokenizer.encode("ab", options).unwrap(), [260, 262]);
}

#[test]
fn the_message_names_the_part() {
    let Some(folder) = folder("split models") else {
        return;
    };
    let parts = [1, 2, 3].map(|no| format!("damaged-part2-0000{no}-of-00003.gguf"));
    let names = parts.each_ref().map(String::as_str);
    let error = open(&folder, &names).expect_err("part 2 is damaged");
    assert!(
        matches!(
            error,
            Error::Part {
                part: 1,
                count: 3,
                ..
            }
        ),
        "{error:?}"
    );
    let message = open(&folder, &["cat-merged-shards.gguf"])
        .expect_err("joined")
        .to_string();
    assert!(
        message.contains("joined with `cat`") && message.contains("NAME-00001-of-00003.gguf"),
        "{message}"
    );
    let message = open(&folder, &names[..1]).expect_err("alone").to_string();
    assert!(message.contains("its name does not say so"), "{message}");
}
