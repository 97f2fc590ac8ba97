//! What a context allocates is what was planned, to the byte: a caller that was told a number can rely on it, be it a
//! page with 4 GiB or a server with a budget.

#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)] // nothing is timed here
#[path = "support/memory.rs"]
mod memory;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use memory::measure;
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::error::Class;
use twinfer_engine::gguf::{ModelFile, TensorInfo};
use twinfer_engine::kernels::{Placement, Storage, select};
use twinfer_engine::memory::{Buffer, Bytes, Heap, Memory, Owner};
use twinfer_engine::model::loader::Loader;
use twinfer_engine::model::plan::ModelPlan;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::{Place, Team};

/// Bytes that a context holds beyond its plan: handles and lists of layers and workers, which do not grow with its
/// sizes. And those that it has held at most beyond it, while it was made.
fn beyond_the_plan(model: &Arc<Model>, team: &Team, options: &ContextOptions) -> (i64, i64) {
    let plan = ContextPlan::of(model, team, options).unwrap();
    let planned = plan.cache_bytes() + plan.workspace_bytes();
    let model = Arc::clone(model);
    let (context, cost) = measure(|| Context::new(model, team.clone(), options.clone()).unwrap());
    drop(context);
    (
        cost.kept as i64 - planned as i64,
        cost.peak as i64 - planned as i64,
    )
}

#[test]
fn a_context_allocates_what_was_planned() {
    let mut compared = 0;
    // Full attention with grouped heads; windows beside full attention; longrope and fused tensors; shared keys and
    // values, embeddings per layer, experts; latent attention; states; sinks.
    for name in [
        "llama-gqa",
        "gemma3",
        "gemma3-pattern",
        "phi3",
        "qwen3moe",
        "llama4",
        "gemma4",
        "deepseek2",
        "qwen35moe",
        "granitehybrid",
        "lfm2moe",
        "gpt-oss",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/oracle/vectors/{name}.gguf"));
        let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
        let model = Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap());
        for threads in [1, 3] {
            let team = Team::new(threads, |_, work| {
                std::thread::spawn(work);
            });
            let sizes = |n_ctx, n_batch, n_sequences, cache| ContextOptions {
                n_ctx,
                n_batch,
                n_sequences,
                pool: Pool::Whole,
                n_states: None,
                cache_type_k: cache,
                cache_type_v: cache,
            };
            let (handles, at_most) = beyond_the_plan(&model, &team, &sizes(1, 8, 8, CacheType::F16));
            assert!((0..1 << 14).contains(&handles), "{name}: {handles}");
            for options in [
                sizes(1, 1, 1, CacheType::F16),
                sizes(64, 2, 1, CacheType::F32),
                sizes(300, 5, 3, CacheType::F32),
                sizes(4096, 1, 1, CacheType::F16),
                sizes(1 << 17, 7, 1, CacheType::F16),
                sizes(64, 8, 1, CacheType::F16),
                sizes(65, 9, 1, CacheType::F32),
                sizes(4096, 512, 1, CacheType::F16),
                sizes(300, 300, 7, CacheType::F16),
                // What attention keeps for the spans of a long context is millions of bytes.
                sizes(1 << 17, 128, 1, CacheType::F16),
            ] {
                let (kept, peak) = beyond_the_plan(&model, &team, &options);
                assert_eq!(kept, handles, "{name}, {threads} threads, {options:?}");
                // The last buffers of such a pass take more than lists that are there for a moment before them.
                if options.n_batch >= 8 {
                    assert_eq!(peak, at_most, "{name}, {threads} threads, {options:?}");
                }
                assert!(
                    peak - handles < 1 << 14,
                    "{name}, {threads} threads, {options:?}: {peak}"
                );
                compared += 1;
            }
        }
    }
    println!("plan: {compared} contexts, each as large as planned");
}

/// What of the cache is planned on a node lies there: heads and states are divided as the workers are.
#[test]
fn a_plan_divides_the_cache_as_a_context_does() {
    let team = |nodes: &[usize]| {
        let places: Vec<Place> = nodes.iter().map(|&node| Place { node, cache: 0 }).collect();
        Team::placed(&places, |_, work| {
            std::thread::spawn(work);
        })
    };
    let teams = [
        team(&[0]),
        team(&[0, 1]),
        team(&[0, 0, 0, 1]),
        team(&[0, 1, 2, 3]),
    ];
    let (mut divided, mut of_bytes) = (0, 0);
    // Heads of 32, which q8_0 needs; grouped heads; windows; shared keys and values; latent attention, of one head;
    // states; texts of one pass.
    for name in [
        "models/demo/twinfer-demo-q4_k_m",
        "tests/oracle/vectors/llama-gqa",
        "tests/oracle/vectors/gemma3",
        "tests/oracle/vectors/gemma4",
        "tests/oracle/vectors/deepseek2",
        "tests/oracle/vectors/qwen35moe",
        "tests/oracle/vectors/granitehybrid",
        "tests/oracle/encoders/bert",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../{name}.gguf"));
        let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
        let model = Arc::new(Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap());
        for team in &teams {
            for (pool, cache_type) in [
                (Pool::Whole, CacheType::F16),
                (Pool::WithCheckpoints(2), CacheType::F32),
                (Pool::Pages(9), CacheType::Q8_0),
            ] {
                let options = ContextOptions {
                    n_ctx: 200,
                    n_batch: 16,
                    n_sequences: 3,
                    pool,
                    n_states: None,
                    cache_type_k: cache_type,
                    cache_type_v: cache_type,
                };
                let plan = match ContextPlan::of(&model, team, &options) {
                    Err(_) if cache_type == CacheType::Q8_0 => continue,
                    plan => plan.unwrap(),
                };
                of_bytes += usize::from(cache_type == CacheType::Q8_0);
                let context = Context::new(Arc::clone(&model), team.clone(), options).unwrap();
                let mut found = vec![0; team.nodes()];
                for (node, bytes) in context.placed_cache() {
                    found[node] += bytes.len() as u64;
                }
                assert_eq!(plan.cache_of_nodes, found, "{name} {pool:?} {cache_type:?}");
                assert!(found.iter().sum::<u64>() <= plan.cache_bytes(), "{name}");
                divided += usize::from(found.iter().filter(|bytes| **bytes > 0).count() > 1);
            }
        }
    }
    assert!(divided > 0, "no cache was divided");
    assert!(of_bytes > 0, "no cache was of q8_0");
}

/// Each buffer of a plan has a name of its own, and those that depend on a size grow with it.
#[test]
fn a_plan_says_what_a_size_costs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/vectors/llama-gqa.gguf");
    let file = ModelFile::from_parts(vec![Bytes::from_vec(std::fs::read(path).unwrap())]).unwrap();
    let model = Model::load(&file, &LoadOptions::default(), &mut |_, _| {}).unwrap();
    let plan = |n_ctx, n_batch| {
        let options = ContextOptions {
            n_ctx,
            n_batch,
            ..ContextOptions::default()
        };
        ContextPlan::of(&model, &Team::single(), &options)
    };
    let [small, long, wide] = [(1024, 8), (2048, 8), (1024, 16)].map(|sizes| plan(sizes.0, sizes.1).unwrap());
    for plan in [&small, &long, &wide] {
        let mut names: Vec<_> = plan.cache.iter().chain(&plan.workspace).map(|b| b.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }
    assert_eq!(long.cache_bytes(), 2 * small.cache_bytes());
    assert!(long.workspace_bytes() > small.workspace_bytes());
    let bytes =
        |plan: &ContextPlan, name: &str| plan.workspace.iter().find(|b| b.name == name).unwrap().bytes;
    for name in ["residual stream", "queries", "feed-forward gate"] {
        assert_eq!(bytes(&wide, name), 2 * bytes(&small, name), "{name}");
    }
    // More pages than can be counted; and what no machine has, which can be.
    assert_eq!(plan(usize::MAX, 8).unwrap_err().class(), Class::TooLarge);
    let most = plan(64 * u32::MAX as usize, usize::MAX).unwrap();
    assert!(most.cache_bytes() > 1 << 40 && most.workspace_bytes() > 1 << 40);
}

/// The heap, and how much was asked of it: for no node, and for each of two.
#[derive(Debug, Default)]
struct Counted([AtomicU64; 3]);

impl Counted {
    fn all(&self) -> u64 {
        self.0.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}

impl Memory for Counted {
    fn zeroed(&self, len: usize, node: Option<usize>) -> twinfer_engine::Result<Box<dyn Buffer>> {
        let of = &self.0[node.map_or(0, |node| node + 1)];
        of.fetch_add(len as u64, Ordering::Relaxed);
        Heap.zeroed(len, node)
    }
}

#[test]
fn weights_take_what_was_planned() {
    let mut packed = 0;
    for path in [
        "models/demo/twinfer-demo-q4_k_m.gguf",
        "tests/oracle/vectors/llama-gqa.gguf",
        "tests/oracle/vectors/llama-fused-qkv.gguf",
        "tests/oracle/vectors/gemma3.gguf",
        "tests/oracle/vectors/gemma4.gguf",
        "tests/oracle/vectors/qwen3.gguf",
        "tests/oracle/vectors/qwen3moe.gguf",
        "tests/oracle/vectors/gpt-oss.gguf",
    ] {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap();
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes.clone())]).unwrap();
        // Every vector of these files is a weight, but for factors of rotations.
        let is_weight = |tensor: &&TensorInfo| {
            let vector = tensor.shape.len() == 1 || tensor.name.ends_with(".bias");
            vector && tensor.name != "rope_freqs.weight"
        };
        let vectors = file.tensors().filter(is_weight);
        let vectors: usize = vectors.map(|tensor| 4 * tensor.n_elements()).sum();
        let places = [0, 1, 1].map(|node| Place { node, cache: 0 });
        let team = Team::placed(&places, |_, work| {
            std::thread::spawn(work);
        });
        for backend in select::available() {
            for (storage, placement) in [
                (Storage::Auto, Placement::Anywhere),
                (Storage::Packed, Placement::Anywhere),
                (Storage::Mapped, Placement::Anywhere),
                (Storage::Auto, Placement::Distribute),
                (Storage::Packed, Placement::Mirror),
                (Storage::Mapped, Placement::Mirror),
            ] {
                let options = || {
                    let memory = Arc::new(Counted::default());
                    let options = LoadOptions {
                        backend: Some(backend.name().into()),
                        storage,
                        experts: None,
                        placement,
                        team: Some(team.clone()),
                        memory: Some(Arc::clone(&memory) as _),
                    };
                    (options, memory)
                };
                let (of_file, memory) = options();
                let plan = ModelPlan::of(&file, &of_file).unwrap();
                assert_eq!(memory.all(), 0, "planning allocates nothing");
                let planned = plan.weights();
                let model = Model::load(&file, &of_file, &mut |_, _| {}).unwrap();
                let what = format!("{path}, {} {storage:?} {placement:?}", backend.name());
                assert_eq!(memory.all(), planned.packed, "{what}");
                assert_eq!(planned.packed + planned.mapped, weight_data(&model), "{what}");
                assert_eq!(planned.vectors, vectors as u64, "{what}");
                for (node, of_node) in plan.nodes().iter().enumerate() {
                    let given = &memory.0[if plan.nodes().len() == 1 { 0 } else { node + 1 }];
                    assert_eq!(
                        given.load(Ordering::Relaxed),
                        of_node.packed,
                        "{what}, node {node}"
                    );
                }
                packed += usize::from(planned.packed > 0);
                // A context of the model that is to come, too.
                assert_eq!(
                    ContextPlan::of_plan(&plan, &Team::single(), &ContextOptions::default()),
                    ContextPlan::of(&model, &Team::single(), &ContextOptions::default()),
                    "{what}"
                );
                // Piece by piece from a stream it is as much.
                let (of_stream, memory) = options();
                let mut loader = Loader::new(file.set().clone(), &of_stream).unwrap();
                assert_eq!(loader.plan().nodes(), plan.nodes(), "{what}");
                loader.push(0, 0, &bytes).unwrap();
                assert_eq!(memory.all(), planned.packed, "{what}");
                assert_eq!(
                    planned.packed + planned.mapped,
                    weight_data(&loader.finish().unwrap()),
                    "{what}"
                );
            }
        }
    }
    assert!(packed > 0 || select::available().len() == 1, "nothing was packed");
}

/// A file's bytes, and what was given back of them, in order.
struct Recorded {
    bytes: Vec<u8>,
    given_back: Arc<Mutex<Vec<Range<usize>>>>,
}

impl Owner for Recorded {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn release(&self, range: Range<usize>) {
        self.given_back.lock().unwrap().push(range);
    }
}

/// A file may be read ahead of loading, which reads what the plan says in the plan's order.
#[test]
fn matrices_are_read_in_the_order_of_the_plan() {
    for path in [
        "models/demo/twinfer-demo-q4_k_m.gguf",
        "tests/oracle/vectors/llama-fused-qkv.gguf",
        "tests/oracle/vectors/qwen3moe.gguf",
    ] {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap();
        let places = [0, 1, 1].map(|node| Place { node, cache: 0 });
        let team = Team::placed(&places, |_, work| {
            std::thread::spawn(work);
        });
        for (team, placement, copies) in [
            (Team::single(), Placement::Anywhere, 1),
            (team.clone(), Placement::Distribute, 1),
            (team, Placement::Mirror, 2),
        ] {
            let given_back = Arc::new(Mutex::default());
            let file = ModelFile::from_parts(vec![Bytes::owned_by(Recorded {
                bytes: bytes.clone(),
                given_back: Arc::clone(&given_back),
            })]);
            let file = file.unwrap();
            let options = LoadOptions {
                storage: Storage::Packed,
                placement,
                team: Some(team.clone()),
                ..LoadOptions::default()
            };
            let plan = ModelPlan::of(&file, &options).unwrap();
            assert!(given_back.lock().unwrap().is_empty());
            Model::load(&file, &options, &mut |_, _| {}).unwrap();
            let given_back = given_back.lock().unwrap();
            let packed = plan.matrices().iter().filter(|matrix| matrix.packed);
            let mut expected: Vec<Range<usize>> = packed
                .map(|matrix| file.tensor(&matrix.name).unwrap())
                .map(|tensor| tensor.offset as usize..tensor.end() as usize)
                .collect();
            let bytes = |ranges: &[Range<usize>]| ranges.iter().map(Range::len).sum::<usize>();
            assert_eq!(
                bytes(&given_back),
                copies * bytes(&expected),
                "{path} {placement:?}"
            );
            if team.workers() == 1 {
                // One range may be given back in several parts.
                let joined = |ranges: &mut Vec<Range<usize>>| {
                    ranges.dedup_by(|next, last| {
                        let follows = next.start == last.end;
                        if follows {
                            last.end = next.end;
                        }
                        follows
                    });
                };
                let mut found = given_back.clone();
                joined(&mut found);
                joined(&mut expected);
                assert_eq!(found, expected, "{path}");
            }
        }
    }
}

/// Of mapped weights a pass reads all but tables and the experts that it does not choose.
#[test]
fn a_plan_says_what_every_pass_reads() {
    for (path, embedding, experts) in [
        ("tests/oracle/vectors/llama-gqa.gguf", false, 0),
        ("tests/oracle/vectors/gemma3.gguf", true, 0),
        ("tests/oracle/vectors/qwen3moe.gguf", false, 6),
    ] {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap();
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap();
        let options = LoadOptions {
            storage: Storage::Mapped,
            ..LoadOptions::default()
        };
        let plan = ModelPlan::of(&file, &options).unwrap();
        assert!(plan.matrices().iter().all(|matrix| !matrix.packed));
        let tied = file.tensor("output.weight").is_none();
        assert_eq!(tied, embedding, "{path}");
        let parts: Vec<&str> = plan
            .matrices()
            .iter()
            .filter(|matrix| !matrix.whole)
            .map(|matrix| matrix.name.as_str())
            .collect();
        assert_eq!(parts.contains(&"token_embd.weight"), !tied, "{path} {parts:?}");
        let of_experts = parts.iter().filter(|name| name.contains("_exps.")).count();
        assert_eq!(of_experts, experts, "{path} {parts:?}");
        assert_eq!(parts.len(), of_experts + usize::from(!tied), "{path} {parts:?}");
    }
}

/// What a page with 4 GiB is told before it loads is what loading allocates, but for lists by name.
#[test]
fn a_load_from_a_stream_takes_what_was_planned() {
    const LISTS: u64 = 128 << 10;
    let (mut wider, mut compared) = (0, 0);
    for path in [
        "models/demo/twinfer-demo-q4_k_m.gguf",
        "tests/oracle/vectors/gemma4.gguf",
        "tests/oracle/vectors/gpt-oss.gguf",
    ] {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap();
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes.clone())]).unwrap();
        let (headers, of_headers) = measure(|| file.set().clone());
        drop(headers);
        for backend in select::available() {
            let options = LoadOptions {
                backend: Some(backend.name().into()),
                ..LoadOptions::default()
            };
            let loader = Loader::new(file.set().clone(), &options).unwrap();
            let (total, staged) = (loader.plan().weights().total(), loader.bytes_staged());
            wider += usize::from(total > loader.bytes_total());
            drop(loader);
            let (model, cost) = measure(|| {
                let mut loader = Loader::new(file.set().clone(), &options).unwrap();
                loader.push(0, 0, &bytes).unwrap();
                loader.finish().unwrap()
            });
            drop(model);
            let what = format!("{path}, {}: {total} planned, {staged} staged", backend.name());
            let (kept, peak) = (cost.kept as u64, cost.peak as u64);
            assert!((total..total + LISTS).contains(&kept), "{what}: {kept} kept");
            let most = total + staged + of_headers.kept as u64 + LISTS;
            assert!(peak <= most, "{what}: {peak} at most");
            compared += 1;
        }
    }
    println!("plan: {compared} models from streams, {wider} of them larger than in the file");
    assert!(wider > 0, "the file's bytes would have been a bound as well");
}

/// Bytes of all matrices; parts of a fused tensor share theirs.
fn weight_data(model: &Model) -> u64 {
    let data = model.weight_data();
    let places: BTreeSet<_> = data
        .iter()
        .map(|bytes| (bytes.as_ptr().addr(), bytes.len()))
        .collect();
    places.iter().map(|(_, len)| *len as u64).sum()
}
