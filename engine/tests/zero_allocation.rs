//! A pass allocates nothing: every allocation of the process is counted while tokens are decoded, with one worker and with
//! several, over every form of activations and across page borders.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use twinfer_engine::cache::CacheType;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; only a counter is added.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is the one that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations during 150 passes of a token after a prompt of three.
fn allocations(path: &Path, threads: usize, cache: CacheType) -> usize {
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    let model = Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap());
    let team = Team::new(threads, |_, work| {
        std::thread::spawn(work);
    });
    let options = ContextOptions {
        n_ctx: 256,
        n_batch: 16,
        n_sequences: 1,
        pool: Pool::Whole,
        cache_type_k: cache,
        cache_type_v: cache,
    };
    let mut context = Context::new(model, team, options).unwrap();
    let sequence = context.open().unwrap();
    context.prefill(sequence, &[1, 2, 3]).unwrap();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    for token in (0..150).map(|i| i % 48) {
        context.decode(sequence, token).unwrap();
    }
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

/// One test, so that nothing else allocates in this process meanwhile.
#[test]
fn a_pass_allocates_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = root.join("../tests/oracle/vectors");
    let reference = root.join("../../shared/reference/models");
    let mut paths: Vec<_> = ["llama-gqa", "gemma3", "phi3", "qwen3"]
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
}
