//! A pass allocates nothing: every allocation of the process is counted while tokens are decoded, with one worker and
//! with several, over every form of activations and across page borders; and in passes over many sequences that fork,
//! write to shared pages and take pages from the prefix index. A text of 8,000 tokens allocates nothing from its first
//! tokens to its end: passes, sampling, characters and stop strings. Sequences that come and go leave no memory behind.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use twinfer_engine::Error;
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::generation::{Bounds, Driver, End, Event, Generation, Sampling, Speculation};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::sample::SamplerParams;
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::Tokenizer;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are allocated.
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; only a counter is added.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        LIVE.fetch_add(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promise is the one that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        LIVE.fetch_add(size, Ordering::SeqCst);
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn file(path: &Path) -> ModelFile {
    ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap()
}

fn context_of(file: &ModelFile, threads: usize, options: ContextOptions) -> Context {
    let model = Arc::new(Model::load(file, &LoadOptions::default(), &mut |_, _| {}).unwrap());
    let team = Team::new(threads, |_, work| {
        std::thread::spawn(work);
    });
    Context::new(model, team, options).unwrap()
}

fn context(path: &Path, threads: usize, n_sequences: usize, pool: Pool, cache: CacheType) -> Context {
    let options = ContextOptions {
        n_ctx: 256,
        n_batch: 16,
        n_sequences,
        pool,
        n_states: None,
        cache_type_k: cache,
        cache_type_v: cache,
    };
    context_of(&file(path), threads, options)
}

/// Allocations during 150 passes of a token after a prompt of three.
fn allocations(path: &Path, threads: usize, cache: CacheType) -> usize {
    let mut context = context(path, threads, 1, Pool::Whole, cache);
    let sequence = context.open().unwrap();
    context.prefill(sequence, &[1, 2, 3]).unwrap();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    for token in (0..150).map(|i| i % 48) {
        context.decode(sequence, token).unwrap();
    }
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

/// Allocations during passes over twelve sequences, half of them forks that go on in pages of the others, prompts among
/// them, in a cache whose free pages the prefix index holds.
fn allocations_of_mixed_passes(path: &Path, threads: usize) -> usize {
    let mut context = context(path, threads, 12, Pool::Pages(25), CacheType::F16);
    let old = context.open().unwrap();
    context.prefill(old, &[7; 250]).unwrap();
    context.publish(old).unwrap();
    context.close(old).unwrap();
    // A state is there at the sequence's end alone.
    let shared = if context.model().config().has_state() {
        20
    } else {
        17
    };
    let mut ids = Vec::new();
    for token in 0..6 {
        let id = context.open().unwrap();
        context.prefill(id, &[token; 20]).unwrap();
        let fork = context.fork(id, shared).unwrap();
        ids.extend([id, fork]);
    }
    for id in &ids {
        context.make_room(*id, 256).unwrap();
    }
    let mut batch = Batch::new();
    let mut fill = |context: &mut Context, turn: usize| {
        batch.clear();
        for (i, id) in ids.iter().enumerate() {
            // One of them reads a prompt, a few rows a pass.
            for _ in 0..if i == turn % 7 { 5 } else { 1 } {
                batch.push(*id, ((turn + i) % 48) as u32, Output::Logits);
            }
        }
        context.forward(&mut batch, &mut (), &mut |_, _| ()).unwrap();
    };
    // The first one makes the batch as large as it gets.
    fill(&mut context, 0);
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    for turn in 0..60 {
        fill(&mut context, turn);
    }
    let allocations = ALLOCATIONS.load(Ordering::SeqCst) - before;
    assert!(
        context.usage().prefix.evictions > 0,
        "no page was taken from the index"
    );
    allocations
}

/// Allocations, and bytes that stay allocated, while a text of `n` tokens is made, but for its first few: these make
/// the sampler's lists.
fn allocations_of_a_long_text(path: &Path, n: usize) -> (usize, i64) {
    const FIRST: usize = 8;
    let file = file(path);
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    let options = ContextOptions {
        n_ctx: n + 8,
        n_batch: 4,
        ..ContextOptions::default()
    };
    let mut context = context_of(&file, 2, options);
    let sampling = Sampling {
        ignore_eos: true,
        ..Sampling::from(SamplerParams {
            seed: 1,
            penalty_repeat: 1.1,
            ..SamplerParams::default()
        })
    };
    let sampler = sampling.sampler(&tokenizer, n + 8).unwrap();
    let bounds = Bounds {
        max_tokens: Some(n),
        // Begins everywhere, so that text is held back, and never comes.
        stop: vec![format!("e{}", "\u{fffd}".repeat(9))],
        ..Bounds::default()
    };
    let id = context.open().unwrap();
    let prompt = [1, 2, 3];
    let mut generation = Generation::new(&mut context, id, &prompt, sampler, &tokenizer, &bounds).unwrap();
    let mut driver = Driver::new(Speculation::OFF, None);
    let (mut text, mut tokens, mut end) = (String::with_capacity(64 * n), 0, None);
    let mut before = (0, 0);
    let count = || (ALLOCATIONS.load(Ordering::SeqCst), LIVE.load(Ordering::SeqCst));
    while !generation.is_over() {
        let generations = std::slice::from_mut(&mut generation);
        driver.pass(&mut context, generations).unwrap();
        let mut on_event = |_: usize, event: Event<'_>| match event {
            Event::Token { text: piece, .. } => {
                text.push_str(piece);
                tokens += 1;
            }
            Event::End { end: why, .. } => end = Some(why),
            Event::Failed(error) => panic!("{error}"),
        };
        let elapsed = std::time::Duration::ZERO;
        driver.finish(&mut context, generations, elapsed, &mut on_event);
        if tokens == FIRST && before == (0, 0) {
            before = count();
        }
    }
    let after = count();
    assert_eq!((tokens, end), (n, Some(End::Limit)));
    assert!(text.len() > n, "{} bytes of text", text.len());
    (after.0 - before.0, after.1 as i64 - before.1 as i64)
}

/// Bytes that `passes` more passes leave behind, once a few have been made: sequences begin with what the index has,
/// are forked, and end.
fn left_behind(path: &Path, passes: usize) -> i64 {
    let mut context = context(path, 1, 8, Pool::Pages(12), CacheType::F16);
    let mut open = Vec::new();
    let mut batch = Batch::new();
    let mut live = 0;
    let warm_up = passes / 10;
    for pass in 0..passes + warm_up {
        if pass == warm_up {
            live = LIVE.load(Ordering::SeqCst) as i64;
        }
        if open.len() < 6 {
            let prompt = [(pass % 40) as u32; 100];
            open.push(context.open_prefix(&prompt).unwrap().0);
        } else if pass % 5 == 0 {
            let id = open.remove(pass % open.len());
            context.publish(id).unwrap();
            context.close(id).unwrap();
            let from = open[pass % open.len()];
            let len = context.seq_len(from).unwrap();
            open.push(context.fork(from, len - len.min(pass % 9)).unwrap());
        }
        batch.clear();
        for id in &open {
            if context.seq_len(*id).unwrap() > 120 {
                context.truncate(*id, 3).unwrap();
            }
            batch.push(*id, (pass % 48) as u32, Output::None);
        }
        context.forward(&mut batch, &mut (), &mut |_, _| ()).unwrap();
    }
    LIVE.load(Ordering::SeqCst) as i64 - live
}

/// The same where a window passes positions or layers keep states: of sequences that are also gone back with, to
/// checkpoints that are kept, restored and let go of. How many bytes more are held at most in `passes` passes than in
/// four times as many before (lists of the prefix index have now more entries, now fewer, and keep their room), and how
/// often one was restored.
fn left_behind_by_checkpoints(path: &Path, passes: usize) -> (i64, usize) {
    let mut context = context(path, 1, 4, Pool::Pages(16), CacheType::F16);
    let (mut open, mut kept) = (Vec::with_capacity(4), VecDeque::with_capacity(6));
    let mut batch = Batch::new();
    // The most bytes that were held before and since.
    let (mut most, mut restored) = ([0; 2], 0);
    let warm_up = 4 * passes;
    for pass in 0..passes + warm_up {
        if pass == warm_up {
            restored = 0;
        }
        let most = &mut most[usize::from(pass >= warm_up)];
        *most = LIVE.load(Ordering::SeqCst).max(*most);
        if open.len() < 4 {
            let prompt = [(pass % 5) as u32; 100];
            open.push(context.open_prefix(&prompt).unwrap().0);
        } else if pass % 11 == 0 {
            let id = open.remove(pass % open.len());
            context.publish(id).unwrap();
            context.close(id).unwrap();
            let from = open[pass % open.len()];
            open.push(context.fork(from, context.seq_len(from).unwrap()).unwrap());
        }
        if pass % 3 == 0 {
            kept.push_back(context.checkpoint(open[pass % open.len()]).unwrap());
        }
        if kept.len() > 4
            && let Some(oldest) = kept.pop_front()
        {
            let id = open[pass % open.len()];
            context.restore(id, oldest).unwrap();
            context.forget(oldest).unwrap();
            restored += 1;
        }
        batch.clear();
        for (i, id) in open.iter().enumerate() {
            if context.seq_len(*id).unwrap() > 170 {
                context.truncate(*id, 0).unwrap();
            }
            // One of them reads a prompt, a few rows a pass.
            for _ in 0..if i == pass % 5 { 9 } else { 1 } {
                let token = (context.seq_len(*id).unwrap() / 40 + i / 2) % 48;
                batch.push(*id, token as u32, Output::None);
            }
        }
        match context.forward(&mut batch, &mut (), &mut |_, _| ()) {
            Ok(()) => {}
            Err(Error::CacheFull { .. } | Error::StatesFull { .. }) => match kept.pop_front() {
                Some(oldest) => context.forget(oldest).unwrap(),
                None => context.truncate(open[0], 0).unwrap(),
            },
            Err(error) => panic!("{error}"),
        }
    }
    (most[1] as i64 - most[0] as i64, restored)
}

/// One test, so that nothing else allocates in this process meanwhile.
#[test]
fn a_pass_allocates_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = root.join("../tests/oracle/vectors");
    let reference = root.join("../../shared/reference/models");
    let mut paths: Vec<_> = [
        "llama-gqa",
        "gemma3",
        "phi3",
        "qwen3",
        "llama4",
        "gemma4",
        "deepseek2",
        "qwen3moe",
        "qwen35moe",
        "granitehybrid",
        "lfm2moe",
        "gpt-oss",
    ]
    .iter()
    .map(|name| vectors.join(format!("{name}.gguf")))
    .collect();
    if reference.is_dir() {
        paths.extend(
            ["Q4_K", "NVFP4", "Q8_0", "F16"].map(|ty| reference.join(format!("synthetic/synth-{ty}.gguf"))),
        );
    } else {
        println!(
            "left out: quantized models, no reference data at {}",
            reference.display()
        );
    }
    let mut runs = 0;
    for path in &paths {
        for (threads, cache) in [
            (1, CacheType::F16),
            (2, CacheType::F32),
            (4, CacheType::F16),
            (2, CacheType::Q8_0),
        ] {
            if cache == CacheType::Q8_0 && !path.starts_with(&reference) {
                // Heads narrower than a block of q8_0.
                continue;
            }
            let n = allocations(path, threads, cache);
            assert_eq!(
                n,
                0,
                "{} with {threads} threads: {n} allocations in 150 passes",
                path.display()
            );
            runs += 1;
        }
    }
    println!("zero allocation: {runs} runs of 150 passes, 0 allocations");
    for path in &paths {
        for threads in [1, 3] {
            let n = allocations_of_mixed_passes(path, threads);
            assert_eq!(
                n,
                0,
                "{} with {threads} threads, mixed: {n} allocations",
                path.display()
            );
        }
    }
    let n = 8000;
    let (made, left) = allocations_of_a_long_text(&root.join("../models/demo/twinfer-demo-q4_k_m.gguf"), n);
    assert!(
        made == 0 && left <= 0,
        "{made} allocations, {left} bytes more after {n} tokens"
    );
    println!("zero allocation: a text of {n} tokens, 0 allocations");
    let passes = 100_000;
    let left = left_behind(&paths[0], passes);
    assert_eq!(left, 0, "bytes that {passes} passes leave behind");
    println!(
        "zero allocation: mixed passes too; {passes} passes with sequences that come and go leave no byte"
    );
    // A sliding window, and layers that keep states.
    for name in ["gemma3", "granitehybrid"] {
        let passes = 4000;
        let (left, restored) = left_behind_by_checkpoints(&vectors.join(format!("{name}.gguf")), passes);
        assert!(
            left <= 0,
            "{name}: {left} bytes more in {passes} passes than before"
        );
        assert!(restored > passes / 20, "{name}: {restored}");
        println!(
            "zero allocation: {name}: {passes} passes with {restored} checkpoints restored take no byte more than those before"
        );
    }
}
