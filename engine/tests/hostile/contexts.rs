//! Contexts of absurd sizes: an error before anything is allocated, or memory that is only promised.

use std::sync::Arc;

use twinfer_engine::Error;
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::error::Class;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

use crate::memory::measure;
use crate::small::{ARCHITECTURES, Small};

fn model(name: &str) -> Arc<Model> {
    let file = ModelFile::from_parts(vec![Bytes::from_vec(Small::read(name).bytes())]).unwrap();
    Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap())
}

fn context(model: &Arc<Model>, n_ctx: usize, n_batch: usize, n_sequences: usize) -> Result<Context, Error> {
    let options = ContextOptions {
        n_ctx,
        n_batch,
        n_sequences,
        pool: Pool::Whole,
        n_states: None,
        cache_type_k: CacheType::F16,
        cache_type_v: CacheType::F32,
    };
    Context::new(Arc::clone(model), Team::single(), options)
}

/// Sizes that no machine has, up to the last that a number can state.
#[test]
fn beyond_any_memory_are_errors() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let model = model(name);
        let huge = [
            1 << 46,
            1 << 50,
            1 << 57,
            1 << 62,
            isize::MAX as usize,
            usize::MAX - 63,
            usize::MAX - 1,
            usize::MAX,
        ];
        for n in huge {
            for (n_ctx, n_batch, n_sequences) in [
                (n, 4, 1),
                (64, 4, n),
                (n, n, 1),
                (n, n, n),
                (64, n, n),
                (n, 1, n),
                (1 << 32, n, 1 << 32),
            ] {
                let (result, cost) = measure(|| context(&model, n_ctx, n_batch, n_sequences).map(drop));
                let what = format!("{name}: n_ctx {n_ctx}, n_batch {n_batch}, n_sequences {n_sequences}");
                let error = result.err().unwrap_or_else(|| panic!("{what} is accepted"));
                assert!(
                    matches!(error, Error::Limit { .. } | Error::Memory { .. }),
                    "{what}: {error}"
                );
                assert!(
                    matches!(error.class(), Class::TooLarge | Class::Machine),
                    "{what}: {error}"
                );
                // What was made before the request that failed is a promise of pages, not pages.
                assert!(cost.time.as_secs_f64() < 5.0, "{what}: {:?}", cost.time);
                count += 1;
            }
        }
    }
    println!("hostile: {count} of {count} impossible contexts refused");
}

#[test]
fn of_nothing_are_errors() {
    let model = model("llama-gqa");
    for (n_ctx, n_batch, n_sequences, name) in
        [(0, 1, 1, "n_ctx"), (1, 0, 1, "n_batch"), (1, 1, 0, "n_sequences")]
    {
        let error = context(&model, n_ctx, n_batch, n_sequences)
            .map(drop)
            .unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// q8_0 has blocks of 32, and these heads have 8 numbers.
#[test]
fn of_blocks_wider_than_a_head_are_errors() {
    let model = model("llama-gqa");
    for (k, v, what) in [
        (CacheType::Q8_0, CacheType::F16, "keys of 8"),
        (CacheType::F16, CacheType::Q8_0, "values of 8"),
    ] {
        let options = ContextOptions {
            cache_type_k: k,
            cache_type_v: v,
            ..ContextOptions::default()
        };
        let error = Context::new(Arc::clone(&model), Team::single(), options).map(drop);
        let text = error.unwrap_err().to_string();
        assert!(text.contains(what) && text.contains("q8_0"), "{text}");
    }
}

/// A batch is never larger than what fits the context, whatever was asked for.
#[test]
fn with_a_batch_beyond_the_context_are_small() {
    let model = model("gemma3-pattern");
    let (result, cost) = measure(|| context(&model, 64, usize::MAX, 1).map(drop));
    assert_eq!(result, Ok(()));
    assert!(cost.peak < 4 << 20, "{}", cost.peak);
}

/// Tokens and lengths beyond what the context was made for.
#[test]
fn refuse_what_they_have_no_room_for() {
    let model = model("llama-gqa");
    let mut context = context(&model, 64, 8, 1).unwrap();
    let sequence = context.open().unwrap();
    assert!(matches!(
        context.prefill(sequence, &[]),
        Err(Error::InvalidInput { .. })
    ));
    for token in [48, 1 << 20, u32::MAX] {
        let error = context.prefill(sequence, &[1, token]).map(drop).unwrap_err();
        assert_eq!(error, Error::TokenOutOfRange { token, n_vocab: 48 });
        assert!(error.to_string().contains(&token.to_string()), "{error}");
        assert_eq!(error.class(), Class::Request);
        assert!(context.decode(sequence, token).is_err());
    }
    assert_eq!(context.seq_len(sequence), Ok(0));
    context.prefill(sequence, &[1; 64]).unwrap();
    let error = context.decode(sequence, 1).map(drop).unwrap_err();
    assert_eq!(
        error,
        Error::ContextFull {
            needed: 65,
            capacity: 64
        }
    );
    assert_eq!(error.class(), Class::TooLarge);
    assert_eq!(context.seq_len(sequence), Ok(64));
    context.truncate(sequence, 63).unwrap();
    assert!(context.decode(sequence, 1).is_ok());
}

/// Another sequence has the pages: nothing is wrong with the request, and there is room again when that one ends.
#[test]
fn whose_pages_others_hold_are_full_for_a_time() {
    let model = model("llama-gqa");
    let options = ContextOptions {
        n_ctx: 128,
        n_batch: 8,
        n_sequences: 2,
        pool: Pool::Pages(2),
        ..ContextOptions::default()
    };
    let mut context = Context::new(model, Team::single(), options).unwrap();
    let first = context.open().unwrap();
    context.prefill(first, &[1; 65]).unwrap();
    let second = context.open().unwrap();
    let error = context.prefill(second, &[1]).map(drop).unwrap_err();
    let full = |needed, evictable| Error::CacheFull {
        needed,
        free: 0,
        evictable,
    };
    assert_eq!(error, full(1, 0));
    assert_eq!(error.class(), Class::Full);
    assert_eq!((context.seq_len(first), context.seq_len(second)), (Ok(65), Ok(0)));
    let error = context.open().unwrap_err();
    assert_eq!(error, Error::TooManySequences { limit: 2 });
    assert_eq!(error.class(), Class::Full);
    context.truncate(first, 64).unwrap();
    context.prefill(second, &[1]).unwrap();
    // A page that only the index holds goes, but not to a pass that needs more than that.
    context.publish(first).unwrap();
    context.close(first).unwrap();
    assert_eq!((context.usage().free, context.usage().evictable), (0, 1));
    let mut batch = Batch::new();
    let third = context.open().unwrap();
    for _ in 0..2 {
        batch.push(third, 1, Output::None);
    }
    context.forward(&mut batch, &mut (), &mut |_, _| ()).unwrap();
    assert_eq!(context.usage().prefix.evictions, 1);
    context.close(third).unwrap();
    context.prefill(second, &[1; 127]).unwrap();
    assert_eq!((context.usage().free, context.usage().sequences), (0, 1));
}

/// A pinned prefix stays while others need room, which is refused rather than taken from it; once it is let go of, it
/// goes.
#[test]
fn keep_what_is_pinned() {
    let options = ContextOptions {
        n_ctx: 256,
        n_batch: 64,
        n_sequences: 2,
        pool: Pool::Pages(4),
        ..ContextOptions::default()
    };
    let mut context = Context::new(model("llama-gqa"), Team::single(), options).unwrap();
    let tokens: Vec<u32> = (0..130).map(|i| i % 48).collect();
    let first = context.open().unwrap();
    context.prefill(first, &tokens).unwrap();
    context.publish(first).unwrap();
    context.close(first).unwrap();
    // The first page, and a part of the second one.
    let (pinned, len) = context.pin(&tokens[..100]).unwrap();
    assert_eq!(len, 100);
    let other = context.open().unwrap();
    let error = context.prefill(other, &[1; 150]).map(drop).unwrap_err();
    assert_eq!(
        error,
        Error::CacheFull {
            needed: 1,
            free: 0,
            evictable: 0
        }
    );
    let (again, len) = context.open_prefix(&tokens).unwrap();
    assert_eq!(len, 128);
    context.close(again).unwrap();
    // What there was room for is kept: two pages. The third one is taken from the prefix now.
    context.forget(pinned).unwrap();
    assert_eq!(context.seq_len(other), Ok(128));
    context.prefill(other, &[1; 22]).unwrap();
    context.close(other).unwrap();
    let (_, len) = context.open_prefix(&tokens).unwrap();
    assert_eq!(len, 64);
    let stats = context.usage().prefix;
    assert_eq!((stats.lookups, stats.hits), (3, 3));
    assert_eq!((stats.tokens_reused, stats.evictions), (100 + 128 + 64, 1));
}

/// Handles of another context, and of sequences that have ended, are errors whatever is done with them.
#[test]
fn refuse_handles_that_are_not_theirs() {
    let model = model("llama-gqa");
    let mut other = context(&model, 64, 8, 2).unwrap();
    let mut context = context(&model, 64, 8, 2).unwrap();
    let foreign = other.open().unwrap();
    let foreign_checkpoint = other.checkpoint(foreign).unwrap();
    let own = context.open().unwrap();
    context.prefill(own, &[1, 2, 3]).unwrap();
    let checkpoint = context.checkpoint(own).unwrap();
    let stale = context.open().unwrap();
    context.close(stale).unwrap();
    let stale_checkpoint = context.checkpoint(own).unwrap();
    context.forget(stale_checkpoint).unwrap();
    // The slot has a new owner.
    let next = context.open().unwrap();
    assert_ne!(next, stale);
    for (id, foreign) in [(foreign, true), (stale, false)] {
        let mut batch = Batch::new();
        batch.push(own, 4, Output::None);
        batch.push(id, 4, Output::Logits);
        let errors = [
            context.forward(&mut batch, &mut (), &mut |_, _| ()),
            context.prefill(id, &[1]).map(drop),
            context.truncate(id, 0),
            context.fork(id, 0).map(drop),
            context.checkpoint(id).map(drop),
            context.restore(id, checkpoint),
            context.reuse(id, &[1]).map(drop),
            context.publish(id),
            context.tokens(id).map(drop),
            context.make_room(id, 1),
            context.close(id),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(error, Error::UnknownSequence { foreign });
            assert_eq!(error.class(), Class::Request);
        }
    }
    for (id, foreign) in [(foreign_checkpoint, true), (stale_checkpoint, false)] {
        for error in [context.restore(own, id), context.forget(id)] {
            assert_eq!(error, Err(Error::UnknownSequence { foreign }));
        }
    }
    assert_eq!(context.tokens(own).unwrap(), [1, 2, 3]);
    assert!(context.tokens(next).unwrap().is_empty());
    context.decode(own, 4).unwrap();
    assert_eq!(context.seq_len(own), Ok(4));
}

/// What a window has passed is gone: a sequence says so, stays as it is, and can be evaluated anew.
#[test]
fn cannot_be_cut_to_before_a_window() {
    let model = model("gemma3-pattern");
    let mut context = context(&model, 512, 8, 2).unwrap();
    let sequence = context.open().unwrap();
    context.prefill(sequence, &[1; 400]).unwrap();
    let error = context.truncate(sequence, 10).unwrap_err();
    assert!(matches!(error, Error::WindowPassed { len: 10, .. }), "{error}");
    assert_eq!(
        (error.class(), context.seq_len(sequence)),
        (Class::Request, Ok(400))
    );
    assert_eq!(context.fork(sequence, 10).unwrap_err(), error);
    // A fork of nothing is a sequence like any other.
    let empty = context.fork(sequence, 0).unwrap();
    context.prefill(empty, &[1; 10]).unwrap();
    context.close(empty).unwrap();
    let error = context.truncate(sequence, 401).unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    assert_eq!(context.reuse(sequence, &[1; 10]), Ok(0));
    context.prefill(sequence, &[1]).unwrap();
}

/// Rows that make no sense are refused one and all, and no rows at all are no work.
#[test]
fn take_only_batches_that_make_sense() {
    let model = model("llama-gqa");
    let mut context = context(&model, 64, 8, 1).unwrap();
    let sequence = context.open().unwrap();
    let mut outputs = 0;
    let mut run =
        |context: &mut Context, batch: &mut Batch| context.forward(batch, &mut (), &mut |_, _| outputs += 1);
    run(&mut context, &mut Batch::new()).unwrap();
    let mut batch = Batch::new();
    for _ in 0..9 {
        batch.push(sequence, 1, Output::Logits);
    }
    let error = run(&mut context, &mut batch).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Limit {
                found: 9,
                limit: 8,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.class(), Class::TooLarge);
    batch.clear();
    batch.push_embedding(sequence, &[0.5; 3], Output::Logits);
    let error = run(&mut context, &mut batch).unwrap_err();
    assert_eq!(error.class(), Class::Request);
    batch.clear();
    batch.push(sequence, 1, Output::None);
    batch.push(sequence, 2, Output::Logits);
    run(&mut context, &mut batch).unwrap();
    assert_eq!((outputs, context.seq_len(sequence)), (1, Ok(2)));
}
