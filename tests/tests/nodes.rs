//! Attention on several nodes: keys and values are read by the workers of the node that has them, however many kv heads
//! there are. The nodes are made up; a backend that looks on says which thread reads which bytes.

#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::SeqId;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::{Array, Metadata, ModelFile, TensorSpec, Value, Writer};
use twinfer_engine::kernels::{Backend, KvBlock, KvData, Partials, Queries, select};
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::quant::GgmlType;
use twinfer_engine::team::{Place, Team};
use twinfer_tests::forward;

/// The scalar backend, but for attention, which it only writes down: who reads which bytes. So prompts take no time.
#[derive(Debug)]
struct LooksOn {
    scalar: &'static dyn Backend,
    looks: AtomicBool,
    reads: Mutex<Vec<(ThreadId, Range<usize>)>>,
}

impl LooksOn {
    /// One for a test, for good: models keep it.
    fn new() -> &'static Self {
        let scalar = select::available()
            .iter()
            .find(|backend| backend.name() == "scalar");
        Box::leak(Box::new(LooksOn {
            scalar: *scalar.unwrap(),
            looks: AtomicBool::new(false),
            reads: Mutex::default(),
        }))
    }
}

impl Backend for LooksOn {
    forward!(
        scalar: name, pack, quantize, rms_norm, layer_norm, add, add_scaled, gate, activate, rotate, conv_row,
        delta_row, scan_row, to_halves,
    );

    fn attend(
        &self,
        _: &Queries<'_>,
        _: &[Range<usize>],
        block: &KvBlock<'_>,
        sum: &mut Partials<'_>,
        _: &mut [f32],
    ) {
        if self.looks.load(Ordering::SeqCst) {
            let bytes = |data| match data {
                KvData::F32(x) => addresses(x),
                KvData::F16(x) => addresses(x),
                KvData::Q8(x) => addresses(x),
            };
            let reads = [block.k, block.v].map(|data| (std::thread::current().id(), bytes(data)));
            self.reads.lock().unwrap().extend(reads);
        }
        sum.l.fill(1.0);
    }

    fn merge(&self, sum: &mut Partials<'_>, _: &Partials<'_>) {
        sum.l.fill(1.0);
    }
}

fn addresses<T>(slice: &[T]) -> Range<usize> {
    let range = slice.as_ptr_range();
    range.start.addr()..range.end.addr()
}

const WIDTH: usize = 16;
const HEAD: usize = 8;
const VOCABULARY: usize = 16;
/// Positions that a part of attention's work covers.
const SPAN: usize = 1024;

/// A llama of one layer with so many heads.
fn file(kv_heads: usize, heads: usize) -> ModelFile {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", Value::String("llama".into()));
    for (key, value) in [
        ("context_length", 1 << 17),
        ("embedding_length", WIDTH),
        ("block_count", 1),
        ("feed_forward_length", WIDTH),
        ("attention.head_count", heads),
        ("attention.head_count_kv", kv_heads),
        ("attention.key_length", HEAD),
        ("attention.value_length", HEAD),
        ("rope.dimension_count", HEAD),
    ] {
        metadata.insert(format!("llama.{key}"), Value::U32(value as u32));
    }
    metadata.insert("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    metadata.insert("tokenizer.ggml.model", Value::String("llama".into()));
    let tokens = (0..VOCABULARY).map(|i| format!("<{i}>").into_bytes().into());
    metadata.insert(
        "tokenizer.ggml.tokens",
        Value::Array(Array::Strings(tokens.collect())),
    );
    let (queries, keys) = (heads * HEAD, kv_heads * HEAD);
    let shapes: [(&str, &[usize]); 12] = [
        ("token_embd", &[WIDTH, VOCABULARY]),
        ("blk.0.attn_norm", &[WIDTH]),
        ("blk.0.attn_q", &[WIDTH, queries]),
        ("blk.0.attn_k", &[WIDTH, keys]),
        ("blk.0.attn_v", &[WIDTH, keys]),
        ("blk.0.attn_output", &[queries, WIDTH]),
        ("blk.0.ffn_norm", &[WIDTH]),
        ("blk.0.ffn_gate", &[WIDTH, WIDTH]),
        ("blk.0.ffn_up", &[WIDTH, WIDTH]),
        ("blk.0.ffn_down", &[WIDTH, WIDTH]),
        ("output_norm", &[WIDTH]),
        ("output", &[WIDTH, VOCABULARY]),
    ];
    let specs = shapes.map(|(name, shape)| TensorSpec {
        name: format!("{name}.weight"),
        ty: GgmlType::F32,
        shape: shape.to_vec(),
    });
    let mut writer = Writer::new(Vec::new(), &metadata, &specs).unwrap();
    for spec in &specs {
        let n: usize = spec.shape.iter().product();
        let data: Vec<u8> = (0..n)
            .flat_map(|i| (((i * 7) % 13) as f32 / 13.0).to_le_bytes())
            .collect();
        writer.write_tensor(&spec.name, &data).unwrap();
    }
    ModelFile::from_parts(vec![Bytes::from_vec(writer.finish().unwrap())]).unwrap()
}

/// A context on made-up nodes of two workers each.
struct Subject {
    backend: &'static LooksOn,
    context: Context,
    /// The node of each thread.
    threads: Vec<(ThreadId, usize)>,
    nodes: usize,
}

impl Subject {
    fn new((kv_heads, heads): (usize, usize), nodes: usize, n_ctx: usize, n_sequences: usize) -> Self {
        let places: Vec<Place> = (0..2 * nodes)
            .map(|worker| Place {
                node: worker / 2,
                cache: 0,
            })
            .collect();
        let mut threads = vec![(std::thread::current().id(), 0)];
        let team = Team::placed(&places, |worker, work| {
            threads.push((std::thread::spawn(work).thread().id(), worker / 2));
        });
        let backend = LooksOn::new();
        let load = LoadOptions {
            team: Some(team.clone()),
            ..LoadOptions::default()
        };
        let model = Model::load_for(backend, &file(kv_heads, heads), &load, &mut |_, _| {}).unwrap();
        let options = ContextOptions {
            n_ctx,
            n_sequences,
            ..ContextOptions::default()
        };
        Subject {
            backend,
            context: Context::new(Arc::new(model), team, options).unwrap(),
            threads,
            nodes,
        }
    }

    fn sequence(&mut self, len: usize) -> SeqId {
        let id = self.context.open().unwrap();
        let tokens: Vec<u32> = (0..len).map(|i| (i % VOCABULARY) as u32).collect();
        self.context.prefill(id, &tokens).unwrap();
        id
    }

    /// One token of each sequence: of each node the bytes of the cache that it has and that were read, and how many of
    /// those its own workers read.
    fn decode(&mut self, sequences: &[SeqId]) -> Vec<(usize, usize)> {
        let mut batch = Batch::new();
        for id in sequences {
            batch.push(*id, 1, Output::Logits);
        }
        self.backend.looks.store(true, Ordering::SeqCst);
        self.context.forward(&mut batch, &mut (), &mut |_, _| {}).unwrap();
        self.backend.looks.store(false, Ordering::SeqCst);
        let reads = std::mem::take(&mut *self.backend.reads.lock().unwrap());
        let placed = self.context.placed_cache();
        let mut found = vec![(0, 0); self.nodes];
        for (thread, read) in reads {
            let reader = self.threads.iter().find(|(known, _)| *known == thread).unwrap().1;
            let mut of = 0;
            for (node, memory) in &placed {
                let memory = addresses(memory);
                let both = read.start.max(memory.start)..read.end.min(memory.end);
                found[*node].0 += both.len();
                found[*node].1 += if reader == *node { both.len() } else { 0 };
                of += both.len();
            }
            assert_eq!(of, read.len(), "all of the cache is some node's");
        }
        found
    }
}

/// kv heads, with the query heads: of one for many, query heads are taken apart too.
const HEADS: [(usize, usize); 6] = [(1, 2), (1, 16), (2, 4), (3, 6), (5, 10), (8, 16)];

/// Bytes of keys and values of one position of one head, in f16.
const BYTES: usize = 2 * HEAD * 2;

#[test]
fn a_long_sequence_is_read_by_all_nodes_each_its_own_part() {
    // As many spans as all numbers of nodes divide.
    const LEN: usize = 12 * SPAN;
    for nodes in [2, 3, 4] {
        for heads in HEADS {
            let mut subject = Subject::new(heads, nodes, LEN, 1);
            let sequence = subject.sequence(LEN - 1);
            let found = subject.decode(&[sequence]);
            // Where one kv head serves many, each set of query heads reads it.
            let sets = if heads == (1, 16) { 2 } else { 1 };
            let each = sets * heads.0 * LEN * BYTES / nodes;
            assert_eq!(found, vec![(each, each); nodes], "{heads:?}, {nodes} nodes");
        }
    }
}

#[test]
fn many_sequences_are_read_where_they_are() {
    for nodes in [2, 3, 4] {
        for heads in HEADS {
            let mut subject = Subject::new(heads, nodes, 2 * SPAN, 13);
            let mut sequences: Vec<SeqId> = (0..12).map(|i| subject.sequence(70 + 10 * i)).collect();
            // And one that has a page of another one's.
            let fork = subject.context.fork(sequences[3], 64).unwrap();
            sequences.push(fork);
            for _ in 0..2 {
                let found = subject.decode(&sequences);
                assert!(
                    found.iter().all(|(all, own)| all == own && *all > 0),
                    "{heads:?}, {nodes} nodes: {found:?}"
                );
            }
        }
    }
}
