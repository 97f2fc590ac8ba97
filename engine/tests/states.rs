//! Layers that keep a state: what forks, cuts, checkpoints, the prefix index, a full cache and failed passes leave of a
//! sequence has the logits of one that was computed from its beginning.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;
use std::sync::Arc;

use twinfer_engine::Error;
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{CacheType, CheckpointId, Pool, SeqId};
use twinfer_engine::context::{Context, ContextOptions, ContextPlan, held_bytes};
use twinfer_engine::error::Class;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::{Place, Team};

/// Delta nets of both kinds, short convolutions, Mamba2, and layers of one part each.
const MODELS: [&str; 5] = [
    "qwen35moe",
    "qwen3next",
    "lfm2moe",
    "granitehybrid",
    "nemotron-h-moe",
];

fn model(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/oracle/vectors/{name}.gguf"));
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap())
}

fn options(n_batch: usize, n_sequences: usize, n_states: Option<usize>) -> ContextOptions {
    ContextOptions {
        n_ctx: 256,
        n_batch,
        n_sequences,
        pool: Pool::Whole,
        n_states,
        cache_type_k: CacheType::F16,
        cache_type_v: CacheType::F16,
    }
}

fn context(model: &Arc<Model>, n_batch: usize, n_sequences: usize, n_states: Option<usize>) -> Context {
    let options = options(n_batch, n_sequences, n_states);
    Context::new(Arc::clone(model), Team::single(), options).unwrap()
}

fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32)
        .map(|i| (i * i * 7 + i * 13 + seed * 31) % 48)
        .collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// The logits after the last of some tokens, computed from their beginning.
fn fresh(model: &Arc<Model>, tokens: &[u32]) -> Vec<u32> {
    let mut context = context(model, 32, 1, None);
    let id = context.open().unwrap();
    bits(context.prefill(id, tokens).unwrap())
}

/// A sequence's next token has the logits that it has after its tokens.
fn check(model: &Arc<Model>, context: &mut Context, id: SeqId, next: u32) {
    let mut all = context.tokens(id).unwrap().to_vec();
    all.push(next);
    let logits = bits(context.decode(id, next).unwrap());
    assert!(logits == fresh(model, &all), "after {} tokens", all.len());
}

#[test]
fn forks_and_checkpoints_go_on_from_where_they_were() {
    for name in MODELS {
        let model = model(name);
        assert!(model.has_state());
        let mut context = context(&model, 16, 3, None);
        let id = context.open().unwrap();
        context.prefill(id, &tokens(40, 1)).unwrap();
        let kept = context.checkpoint(id).unwrap();
        let fork = context.fork(id, 40).unwrap();
        check(&model, &mut context, id, 5);
        check(&model, &mut context, fork, 6);
        check(&model, &mut context, id, 7);
        context.restore(fork, kept).unwrap();
        assert_eq!(context.seq_len(fork), Ok(40));
        check(&model, &mut context, fork, 8);
        context.restore(id, kept).unwrap();
        context.forget(kept).unwrap();
        check(&model, &mut context, id, 9);
        context.close(id).unwrap();
        check(&model, &mut context, fork, 1);
        // A new sequence begins with nothing.
        let other = context.open().unwrap();
        context.prefill(other, &tokens(3, 2)).unwrap();
        check(&model, &mut context, other, 4);
        for id in [fork, other] {
            context.close(id).unwrap();
        }
        let usage = context.usage();
        assert_eq!((usage.states, usage.free_states), (12, 12), "{name}");
    }
}

#[test]
fn a_sequence_is_cut_to_where_there_is_a_snapshot() {
    for name in MODELS {
        let model = model(name);
        let mut context = context(&model, 48, 2, None);
        let id = context.open().unwrap();
        // Passes end at 48, 96 and 100, the second goes through the end of a page.
        context.prefill(id, &tokens(100, 3)).unwrap();
        context.decode(id, 1).unwrap();
        context.decode(id, 2).unwrap();
        for (len, nearest) in [(101, 100), (99, 96), (95, 64), (63, 48), (47, 0)] {
            let error = context.truncate(id, len).unwrap_err();
            assert_eq!(error, Error::StatePassed { len, nearest });
            assert_eq!((error.class(), context.seq_len(id)), (Class::Request, Ok(102)));
            assert_eq!(context.fork(id, len).unwrap_err(), error);
        }
        assert!(matches!(
            context.truncate(id, 103),
            Err(Error::InvalidInput { .. })
        ));
        for len in [102, 100, 96, 64, 48] {
            context.truncate(id, len).unwrap();
            assert_eq!(context.seq_len(id), Ok(len));
            let fork = context.fork(id, len).unwrap();
            check(&model, &mut context, fork, 11);
            context.close(fork).unwrap();
        }
        check(&model, &mut context, id, 12);
        // As much is reused as there is a state of.
        let mut other = tokens(100, 3);
        other[60] ^= 1;
        assert_eq!(context.reuse(id, &other), Ok(48));
        context.prefill(id, &other[48..]).unwrap();
        check(&model, &mut context, id, 13);
        assert_eq!(context.reuse(id, &other[..20]), Ok(0));
        context.prefill(id, &other[..20]).unwrap();
        check(&model, &mut context, id, 14);
        context.truncate(id, 0).unwrap();
        check(&model, &mut context, id, 15);
    }
}

#[test]
fn the_prefix_index_gives_pages_with_their_state() {
    for name in MODELS {
        let model = model(name);
        let mut context = context(&model, 100, 2, None);
        let prompt = tokens(170, 4);
        let id = context.open().unwrap();
        context.prefill(id, &prompt).unwrap();
        // States are of 100, 128 (the end of a page on the way) and 170; 64 lies in the first pass.
        context.publish(id).unwrap();
        let (other, len) = context.open_prefix(&prompt).unwrap();
        assert_eq!(len, 128, "{name}");
        context.prefill(other, &prompt[128..]).unwrap();
        check(&model, &mut context, other, 9);
        assert_eq!(context.truncate(other, 128), Ok(()));
        check(&model, &mut context, other, 10);
        context.close(other).unwrap();
        // Where it goes another way before that, there is a state of the first page.
        let mut changed = prompt.clone();
        changed[100] ^= 1;
        let (other, len) = context.open_prefix(&changed).unwrap();
        assert_eq!(len, 64, "{name}");
        context.prefill(other, &changed[64..]).unwrap();
        check(&model, &mut context, other, 9);
        context.close(other).unwrap();
        context.close(id).unwrap();
        let (pinned, len) = context.pin(&prompt).unwrap();
        assert_eq!(len, 128);
        context.forget(pinned).unwrap();
        context.clear_prefixes();
        let usage = context.usage();
        assert_eq!(usage.free_states, usage.states, "{name}");
        assert_eq!(usage.free, usage.pages, "{name}");
    }
}

#[test]
fn too_few_states_are_an_error_that_changes_nothing() {
    let model = model("lfm2moe");
    let error = Context::new(Arc::clone(&model), Team::single(), options(32, 1, Some(1))).unwrap_err();
    assert_eq!(error.class(), Class::Request);
    let mut context = context(&model, 32, 3, Some(4));
    let ids = [(); 3].map(|()| context.open().unwrap());
    for (id, seed) in ids.iter().zip(0..) {
        context.prefill(*id, &tokens(20, seed)).unwrap();
    }
    // Three hold one, and there is one more: two cannot be in a pass.
    let mut batch = Batch::new();
    for id in &ids[..2] {
        batch.push(*id, 3, Output::Logits);
    }
    let error = context.forward(&mut batch, &mut (), &mut |_, _| ()).unwrap_err();
    assert_eq!(error, Error::StatesFull { needed: 2, free: 1 });
    assert_eq!(error.class(), Class::Full);
    for id in ids {
        assert_eq!(context.seq_len(id), Ok(20));
        check(&model, &mut context, id, 3);
    }
    let kept = context.checkpoint(ids[0]).unwrap();
    check(&model, &mut context, ids[0], 4);
    let error = context.decode(ids[0], 5).unwrap_err();
    assert_eq!(error, Error::StatesFull { needed: 1, free: 0 });
    context.forget(kept).unwrap();
    check(&model, &mut context, ids[0], 5);
    let kept = context.checkpoint(ids[0]).unwrap();
    context.close(ids[2]).unwrap();
    check(&model, &mut context, ids[1], 6);
    context.restore(ids[0], kept).unwrap();
    check(&model, &mut context, ids[0], 6);
}

#[test]
fn a_pass_that_fails_leaves_states_as_they_were() {
    for name in MODELS {
        let model = model(name);
        let mut context = context(&model, 32, 2, None);
        let (id, other) = (context.open().unwrap(), context.open().unwrap());
        context.prefill(id, &tokens(20, 6)).unwrap();
        let n_embd = model.config().n_embd;
        for bad in [f32::INFINITY, f32::NAN] {
            for sequence in [id, other] {
                let mut batch = Batch::new();
                batch.push(id, 7, Output::None);
                batch.push(id, 8, Output::Logits);
                batch.push_embedding(sequence, &vec![bad; n_embd], Output::Logits);
                let error = context.forward(&mut batch, &mut (), &mut |_, _| ()).unwrap_err();
                assert!(matches!(error, Error::NonFinite { .. }), "{name}: {error}");
                assert_eq!((context.seq_len(id), context.seq_len(other)), (Ok(20), Ok(0)));
            }
        }
        check(&model, &mut context, id, 9);
        check(&model, &mut context, other, 9);
        for id in [id, other] {
            context.close(id).unwrap();
        }
        let usage = context.usage();
        assert_eq!(usage.free_states, usage.states, "{name}");
    }
}

#[test]
fn states_are_planned() {
    for name in MODELS {
        let model = model(name);
        let bytes = |n_states| {
            let plan = ContextPlan::of(&model, &Team::single(), &options(32, 2, Some(n_states))).unwrap();
            let states = plan.cache.iter().find(|planned| planned.name.contains("states"));
            states.unwrap().bytes
        };
        assert!(bytes(2) > 0);
        assert_eq!(bytes(20), 10 * bytes(2), "{name}");
    }
}

/// Random numbers.
struct Random(u32);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % n
    }
}

/// Anything that can be done to sequences, in any order, in a cache with few states: every logit is that of the tokens
/// alone.
#[test]
fn whatever_happens_logits_are_those_of_the_tokens() {
    for (name, seed) in MODELS.into_iter().zip(1..) {
        let model = model(name);
        let mut random = Random(seed);
        let mut context = context(&model, 80, 4, Some(9));
        let mut open: Vec<SeqId> = Vec::new();
        let mut kept: Vec<(CheckpointId, Vec<u32>)> = Vec::new();
        let (mut passes, mut cuts) = (0, 0);
        for _ in 0..120 {
            let pick = |random: &mut Random, open: &[SeqId]| open[random.below(open.len())];
            match random.below(12) {
                0 | 1 if open.len() < 4 => {
                    let prompt = tokens(64 + random.below(80), random.below(2) as u32);
                    let (id, len) = context.open_prefix(&prompt).unwrap();
                    assert_eq!(context.tokens(id).unwrap(), &prompt[..len]);
                    open.push(id);
                }
                2 if !open.is_empty() && open.len() < 4 => {
                    let id = pick(&mut random, &open);
                    let len = random.below(context.seq_len(id).unwrap() + 1);
                    match context.fork(id, len) {
                        Ok(fork) => open.push(fork),
                        Err(Error::StatePassed { nearest, .. }) => {
                            open.push(context.fork(id, nearest).unwrap());
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                3 if !open.is_empty() => {
                    let id = pick(&mut random, &open);
                    let held = context.tokens(id).unwrap().to_vec();
                    let len = random.below(held.len() + 1);
                    let stays = context.reuse(id, &held[..len]).unwrap();
                    assert!(stays <= len);
                    cuts += usize::from(stays > 0 && stays < held.len());
                }
                4 if !open.is_empty() && kept.len() < 2 => {
                    let id = pick(&mut random, &open);
                    let held = context.tokens(id).unwrap().to_vec();
                    kept.push((context.checkpoint(id).unwrap(), held));
                }
                5 if !open.is_empty() && !kept.is_empty() => {
                    let id = pick(&mut random, &open);
                    let (checkpoint, held) = kept.swap_remove(random.below(kept.len()));
                    context.restore(id, checkpoint).unwrap();
                    context.forget(checkpoint).unwrap();
                    assert_eq!(context.tokens(id).unwrap(), held);
                }
                6 if open.len() > 1 => {
                    let id = open.swap_remove(random.below(open.len()));
                    context.close(id).unwrap();
                }
                7 if !open.is_empty() => context.publish(pick(&mut random, &open)).unwrap(),
                _ if !open.is_empty() => {
                    // Rows of one or two sequences, mixed.
                    let (one, two) = (pick(&mut random, &open), pick(&mut random, &open));
                    let mut batch = Batch::new();
                    let mut longer: Vec<(SeqId, Vec<u32>)> = Vec::new();
                    for _ in 0..1 + random.below(40) {
                        let id = if random.below(3) == 0 { two } else { one };
                        if !longer.iter().any(|(known, _)| *known == id) {
                            longer.push((id, context.tokens(id).unwrap().to_vec()));
                        }
                        let own = longer.iter_mut().find(|(known, _)| *known == id).unwrap();
                        if own.1.len() < 250 {
                            // What the prompts have, so that prefixes are met again.
                            own.1.push(tokens(own.1.len() + 1, 1)[own.1.len()]);
                            batch.push(id, own.1[own.1.len() - 1], Output::Logits);
                        }
                    }
                    let mut rows = Vec::new();
                    let made = context.forward(&mut batch, &mut (), &mut |row, logits| {
                        rows.push((row, bits(logits)));
                    });
                    match made {
                        Ok(()) => passes += 1,
                        Err(Error::StatesFull { .. }) => continue,
                        Err(error) => panic!("{error}"),
                    }
                    let Some((_, last)) = rows.last() else { continue };
                    let same = |(id, all): &(SeqId, Vec<u32>)| {
                        assert_eq!(context.tokens(*id).unwrap(), all);
                        fresh(&model, all) == *last
                    };
                    assert!(longer.iter().any(same), "{name}: pass {passes}");
                }
                _ => (),
            }
        }
        println!("{name}: {passes} passes, {cuts} cuts, {:?}", context.usage());
        assert!(passes > 20 && cuts > 0);
    }
}

/// States are as much of a cache's memory as keys and values are: counted, placed, and brought in with them.
#[test]
fn states_are_counted_with_keys_and_values() {
    let places = [0, 1].map(|node| Place { node, cache: 0 });
    for name in MODELS {
        let model = model(name);
        for n_states in [2, 5] {
            let options = options(16, 1, Some(n_states));
            let held = held_bytes(model.config(), &options).unwrap();
            let states = n_states * model.config().state_bytes();
            assert_eq!(held.states, states as u64, "{name}");
            assert!(held.keys_and_values > 0, "{name}");
            let all = held.keys_and_values + held.states;
            for team in [
                Team::single(),
                Team::placed(&places, |_, work| {
                    std::thread::spawn(work);
                }),
            ] {
                let nodes = team.nodes();
                let plan = ContextPlan::of(&model, &team, &options).unwrap();
                let context = Context::new(Arc::clone(&model), team, options.clone()).unwrap();
                let sum = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                    pieces.map(|bytes| bytes.len() as u64).sum::<u64>()
                };
                assert_eq!(sum(&mut context.cache_memory()), all, "{name}");
                let placed = context.placed_cache();
                assert_eq!(sum(&mut placed.iter().map(|(_, bytes)| *bytes)), all, "{name}");
                for node in 0..nodes {
                    let own = placed.iter().filter(|(of, _)| *of == node);
                    let own = sum(&mut own.map(|(_, bytes)| *bytes));
                    assert!(own > 0, "{name}, node {node}");
                    assert_eq!(own, plan.cache_of_nodes[node], "{name}, node {node}");
                }
            }
        }
    }
    // Layers that keep nothing but keys and values.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/vectors/llama-gqa.gguf");
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    let config = twinfer_engine::model::config::Config::from_file(&file).unwrap();
    assert_eq!(held_bytes(&config, &options(16, 1, None)).unwrap().states, 0);
}
