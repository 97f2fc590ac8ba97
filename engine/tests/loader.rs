//! A model from a stream is the model from the file, whatever the sizes of the chunks, and what cannot become a model
//! is refused before its data comes.

#![allow(clippy::unwrap_used)] // also outside of the test functions themselves

use std::path::Path;
use std::sync::Arc;

use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::digest::Digest;
use twinfer_engine::gguf::{Gguf, GgufSet, Limits, ModelFile, Parser, Status};
use twinfer_engine::kernels::select;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::loader::Loader;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::{Error, Result};

fn read(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn options() -> ContextOptions {
    ContextOptions {
        n_ctx: 64,
        n_batch: 16,
        ..ContextOptions::default()
    }
}

fn digest(model: Model) -> String {
    let n_vocab = model.config().n_vocab as u32;
    let mut context = Context::new(Arc::new(model), Team::single(), options()).unwrap();
    let sequence = context.open().unwrap();
    let tokens: Vec<u32> = (0..20).map(|i| (i * 37 + 11) % n_vocab).collect();
    let mut all = Digest::new();
    context
        .eval_all(sequence, &tokens, &mut |_, logits| all.update(logits))
        .unwrap();
    all.finish()
}

fn load_options(backend: &str) -> LoadOptions {
    LoadOptions {
        backend: Some(backend.into()),
        ..LoadOptions::default()
    }
}

/// Streams the whole file, header included, in chunks of `size`.
fn stream(file: &[u8], size: usize, backend: &str) -> Result<Model> {
    let mut parser = Parser::new(Limits::default());
    let mut chunks = file.chunks(size);
    let mut offset = 0;
    let mut rest: &[u8] = &[];
    for chunk in chunks.by_ref() {
        if let Status::Complete { consumed } = parser.push(chunk)? {
            rest = &chunk[consumed..];
            offset += consumed;
            break;
        }
        offset += chunk.len();
    }
    let mut loader = Loader::new(GgufSet::new(vec![parser.finish()?])?, &load_options(backend))?;
    for chunk in std::iter::once(rest).chain(chunks) {
        loader.push(0, offset as u64, chunk)?;
        offset += chunk.len();
    }
    assert_eq!(loader.bytes_done(), loader.bytes_total());
    loader.finish()
}

#[test]
fn a_streamed_model_is_the_model() {
    for path in [
        "models/demo/twinfer-demo-q4_k_m.gguf",
        "tests/oracle/vectors/llama-rope-freqs.gguf",
        "tests/oracle/vectors/llama-fused-qkv.gguf",
        "tests/oracle/vectors/gemma3.gguf",
        "tests/oracle/vectors/gemma4.gguf",
        "tests/oracle/vectors/phi3-long.gguf",
        "tests/oracle/vectors/qwen3.gguf",
        "tests/oracle/vectors/qwen3moe.gguf",
        "tests/oracle/vectors/gpt-oss.gguf",
    ] {
        let file = read(path);
        for backend in select::available() {
            let name = backend.name();
            let whole = ModelFile::from_parts(vec![Bytes::from_vec(file.clone())]).unwrap();
            let whole = Model::load(&whole, &load_options(name), &mut |_, _| {}).unwrap();
            let parameters = whole.parameters();
            let expected = digest(whole);
            for size in [997, 65_536, file.len()] {
                let streamed = stream(&file, size, name).unwrap();
                assert_eq!(streamed.parameters(), parameters);
                assert_eq!(digest(streamed), expected, "{path} on {name} in chunks of {size}");
            }
        }
    }
}

#[test]
fn a_stream_that_ends_early_names_the_tensor() {
    let file = read("tests/oracle/vectors/llama-gqa.gguf");
    let gguf = Gguf::parse(&file).unwrap();
    let mut loader = Loader::new(GgufSet::new(vec![gguf.clone()]).unwrap(), &load_options("scalar")).unwrap();
    let last = gguf.tensors().iter().max_by_key(|t| t.offset).unwrap();
    loader.push(0, 0, &file[..last.offset as usize + 5]).unwrap();
    let span = loader.next().unwrap();
    assert_eq!((span.part, span.range), (0, last.offset + 5..last.end()));
    let error = loader.finish().unwrap_err();
    assert!(
        matches!(&error, Error::Tensor { tensor, what } if *tensor == last.name && what.contains("after 5 of")),
        "{error}"
    );
}

#[test]
fn bytes_out_of_order_are_refused() {
    let file = read("tests/oracle/vectors/llama-gqa.gguf");
    let gguf = Gguf::parse(&file).unwrap();
    let data = gguf.data_offset();
    let mut loader = Loader::new(GgufSet::new(vec![gguf]).unwrap(), &load_options("scalar")).unwrap();
    assert!(matches!(
        loader.push(0, data + 1, &[0; 8]),
        Err(Error::InvalidInput { .. })
    ));
    assert!(matches!(
        loader.push(1, 0, &[0; 8]),
        Err(Error::InvalidInput { .. })
    ));
    let space = loader.space().len();
    assert!(matches!(
        loader.filled(space + 1),
        Err(Error::InvalidInput { .. })
    ));
}

#[test]
fn shapes_are_refused_before_the_data() {
    let mut file = read("tests/oracle/vectors/llama-gqa.gguf");
    // The feed-forward width in the metadata no longer fits the tensors.
    let key = b"llama.feed_forward_length";
    let at = file.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
    file[at] ^= 0x40;
    let gguf = Gguf::parse(&file).unwrap();
    let error = Loader::new(GgufSet::new(vec![gguf]).unwrap(), &load_options("scalar")).unwrap_err();
    assert!(
        matches!(&error, Error::Tensor { tensor, .. } if tensor.contains("ffn")),
        "{error}"
    );
}

#[test]
fn a_model_to_come_is_planned_as_one_that_is_there() {
    let file = read("models/demo/twinfer-demo-q4_k_m.gguf");
    let gguf = Gguf::parse(&file).unwrap();
    let loader = Loader::new(GgufSet::new(vec![gguf]).unwrap(), &load_options("scalar")).unwrap();
    let plan = ContextPlan::of_loader(&loader, &options()).unwrap();
    let weights = loader.bytes_total();
    assert!(weights <= file.len() as u64 && weights > file.len() as u64 * 9 / 10);
    let model = stream(&file, 1 << 20, "scalar").unwrap();
    assert!(weights >= model.weight_bytes() as u64);
    assert_eq!(
        plan,
        ContextPlan::of(&model, &Team::single(), &options()).unwrap()
    );
}
