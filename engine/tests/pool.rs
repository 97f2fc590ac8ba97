//! How large a pool of pages is, and what it holds.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;
use std::sync::Arc;

use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{Pool, SeqId};
use twinfer_engine::context::{Context, ContextOptions, held_bytes};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::{Error, Result};

const N_CTX: usize = 512;

fn model(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/oracle/vectors/{name}.gguf"));
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap())
}

fn options(n_sequences: usize, pool: Pool) -> ContextOptions {
    ContextOptions {
        n_ctx: N_CTX,
        n_batch: 32,
        n_sequences,
        pool,
        ..ContextOptions::default()
    }
}

fn context(model: &Arc<Model>, n_sequences: usize, pool: Pool) -> Context {
    Context::new(Arc::clone(model), Team::single(), options(n_sequences, pool)).unwrap()
}

/// Bytes of keys and values that the cache has room for.
fn bytes(model: &Model, n_sequences: usize, pool: Pool) -> u64 {
    let held = held_bytes(&model.config, &options(n_sequences, pool)).unwrap();
    held.keys_and_values
}

fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32)
        .map(|i| (i * i * 7 + i * 13 + seed * 31) % 40)
        .collect()
}

/// With sliding windows too, a pool of the bytes of so many sequences as long as the context holds as many.
#[test]
fn bytes_hold_as_many_whole_sequences_as_they_have_room_for() {
    for name in ["llama-gqa", "gemma3-pattern", "gpt-oss", "gemma4"] {
        let model = model(name);
        let one = bytes(&model, 1, Pool::Whole);
        for (n, more) in [(1, 0), (2, one / 2), (3, one - 1)] {
            let pool = Pool::Bytes(n * one + more);
            let taken = bytes(&model, 8, pool);
            assert!((n * one..=n * one + more).contains(&taken), "{name}: {taken}");
            let mut context = context(&model, 8, pool);
            let open: Vec<_> = (0..n).map(|_| context.open().unwrap()).collect();
            // In turns, so that no window is past what it needs while another one begins.
            for part in tokens(N_CTX, 1).chunks(32) {
                for id in &open {
                    context.prefill(*id, part).unwrap();
                }
            }
            assert!(open.iter().all(|id| context.seq_len(*id) == Ok(N_CTX)));
            let further = context.open().unwrap();
            let error = context.prefill(further, &tokens(N_CTX, 2)).map(drop).unwrap_err();
            assert!(matches!(error, Error::CacheFull { .. }), "{name}: {error}");
            // When they have ended and only the index holds something, there is as much room as before.
            for id in open {
                context.publish(id).unwrap();
                context.close(id).unwrap();
            }
            context.truncate(further, 0).unwrap();
            context.prefill(further, &tokens(N_CTX, 3)).unwrap();
        }
    }
}

/// A single sequence leaves the rest of a large pool to prefixes and checkpoints.
#[test]
fn what_sequences_leave_holds_prefixes_and_checkpoints() {
    for name in ["llama-gqa", "gemma3-pattern"] {
        let model = model(name);
        let one = bytes(&model, 1, Pool::Whole);
        for pool in [Pool::Bytes(5 * one), Pool::Pages(5 * N_CTX / 64)] {
            let mut context = context(&model, 1, pool);
            let prompts: Vec<_> = (0..4).map(|i| tokens(N_CTX, 50 + i)).collect();
            let mut checkpoints = Vec::new();
            for (i, prompt) in prompts.iter().enumerate() {
                let id = context.open().unwrap();
                context.prefill(id, prompt).unwrap();
                context.publish(id).unwrap();
                if i % 2 == 0 {
                    checkpoints.push(context.checkpoint(id).unwrap());
                }
                context.close(id).unwrap();
            }
            assert_eq!(context.usage().prefix.evictions, 0, "{name}");
            for prompt in &prompts {
                let (id, len) = context.open_prefix(prompt).unwrap();
                assert_eq!(len, N_CTX, "{name}");
                context.close(id).unwrap();
            }
            let id = context.open().unwrap();
            for (checkpoint, prompt) in checkpoints.iter().zip(prompts.iter().step_by(2)) {
                context.restore(id, *checkpoint).unwrap();
                assert_eq!(context.tokens(id), Ok(prompt.as_slice()));
            }
        }
    }
    // Nobody has more by not saying so.
    let model = model("gemma3-pattern");
    for (n, pages) in [(1, 20), (3, 10), (8, 64)] {
        let (up_to, whole) = (bytes(&model, n, Pool::UpTo(pages)), bytes(&model, n, Pool::Whole));
        assert!(up_to <= whole && up_to <= bytes(&model, n, Pool::Pages(pages)));
    }
}

/// One pass in which each goes on with a token.
fn go_on(context: &mut Context, sequences: &[SeqId], token: u32) -> Result<Vec<Vec<u32>>> {
    let mut batch = Batch::new();
    sequences
        .iter()
        .for_each(|id| batch.push(*id, token, Output::Logits));
    let mut all = Vec::new();
    context.forward(&mut batch, &mut (), &mut |_, logits| {
        all.push(logits.iter().map(|logit| logit.to_bits()).collect());
    })?;
    Ok(all)
}

/// Of those who share a page and go on in one pass, the last one has it to itself when the others have their copies.
#[test]
fn the_last_of_those_who_share_a_page_needs_no_copy() {
    let model = model("llama-gqa");
    let prompt = tokens(40, 1);
    let expected = {
        let mut context = context(&model, 1, Pool::Whole);
        let id = context.open().unwrap();
        context.prefill(id, &prompt).unwrap();
        go_on(&mut context, &[id], 3).unwrap().remove(0)
    };
    let full = |needed, free| Error::CacheFull {
        needed,
        free,
        evictable: 0,
    };
    for n in [2, 3, 5] {
        let mut context = context(&model, n + 1, Pool::Pages(n));
        let first = context.open().unwrap();
        context.prefill(first, &prompt).unwrap();
        let mut all = vec![first];
        all.resize_with(n, || context.fork(first, prompt.len()).unwrap());
        let other = context.fork(first, 10).unwrap();
        // Somebody holds it who is not in the pass.
        assert_eq!(go_on(&mut context, &all, 3), Err(full(n, n - 1)));
        assert_eq!(context.usage().free, n - 1);
        context.close(other).unwrap();
        assert_eq!(
            go_on(&mut context, &all, 3).unwrap(),
            vec![expected.clone(); n],
            "{n}"
        );
        assert_eq!(context.usage().free, 0);
        // A checkpoint is somebody.
        let checkpoint = context.checkpoint(first).unwrap();
        assert_eq!(go_on(&mut context, &[first], 4), Err(full(1, 0)));
        context.forget(checkpoint).unwrap();
        go_on(&mut context, &all, 4).unwrap();
        for id in all {
            context.close(id).unwrap();
        }
        assert_eq!(context.usage().free, n);
    }
}

/// A sequence that goes on in a page of the prefix index is given the page itself where there is no room for a copy.
#[test]
fn the_index_lets_go_of_a_page_that_there_is_no_room_to_copy() {
    let model = model("llama-gqa");
    let (prompt, rest) = (tokens(128, 1), tokens(98, 2));
    let of = |n_sequences, pool| {
        let options = ContextOptions {
            n_ctx: 128,
            n_batch: 128,
            n_sequences,
            pool,
            ..ContextOptions::default()
        };
        Context::new(Arc::clone(&model), Team::single(), options).unwrap()
    };
    let mut alone = of(1, Pool::Whole);
    let id = alone.open().unwrap();
    alone.prefill(id, &prompt[..30]).unwrap();
    let expected = alone.prefill(id, &rest).unwrap().to_vec();
    // Room for one sequence as long as the context, and what went before is in it.
    let mut context = of(1, Pool::Pages(2));
    let id = context.open().unwrap();
    context.prefill(id, &prompt).unwrap();
    context.publish(id).unwrap();
    context.close(id).unwrap();
    let (id, found) = context.open_prefix(&prompt[..30]).unwrap();
    assert_eq!((found, context.usage().evictable), (30, 1));
    assert_eq!(context.prefill(id, &rest).unwrap(), expected);
    assert_eq!(context.usage().free, 0);
    context.close(id).unwrap();
    assert_eq!((context.usage().free, context.usage().evictable), (2, 0));
}
