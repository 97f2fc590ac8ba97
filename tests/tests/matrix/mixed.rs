//! Mixed batches: what shares a pass with a row, and what became of its sequence before, moves no number. A history opens, forks,
//! cuts back, restores and closes sequences at random and computes passes of prompts and single tokens of many of them,
//! in a cache that is too small for all; the logits of each position are those of its sequence alone.
//!
//! Every cell of a model has the same histories, so that one reference (the scalar backend, one thread, one token a pass, each
//! sequence by itself) serves them all. `TWINFER_HISTORIES=N` makes N histories of each model and not a few.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};

use twinfer_engine::Error;
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{CheckpointId, Pool, SeqId};
use twinfer_engine::context::{Context, ContextOptions, held_bytes};
use twinfer_engine::kernels::{BLOCK, Backend, select};
use twinfer_engine::model::config::Config;
use twinfer_engine::model::probe::Probe;
use twinfer_engine::team::Team;

use crate::cells::{self, Cell, Subject, covering, transversal};
use crate::{Design, built_in, models, simd_backends};

/// Positions of a sequence: more than two pages.
const N_CTX: usize = 150;
/// Pages of the cache: less than what a history's sequences would take.
const PAGES: usize = 14;
const SEQUENCES: usize = 12;
const ROWS: usize = 40;
const PASSES: usize = 36;
/// Tokens that most sequences begin with: a page and a part of one.
const COMMON: usize = 70;

/// A small generator whose numbers are the same everywhere: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn hash(logits: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    logits.iter().for_each(|value| hasher.write_u32(value.to_bits()));
    hasher.finish()
}

/// What a sequence should be: its tokens, and of the positions that wanted logits their hashes.
#[derive(Debug, Clone, Default, PartialEq)]
struct Plain {
    /// Where most of its tokens come from.
    stream: usize,
    tokens: Vec<u32>,
    logits: Vec<Option<u64>>,
}

impl Plain {
    fn truncated(&self, len: usize) -> Plain {
        Plain {
            stream: self.stream,
            tokens: self.tokens[..len].to_vec(),
            logits: self.logits[..len].to_vec(),
        }
    }
}

/// What came of a history: every sequence as it was at its end, and how much of what was tried.
#[derive(Debug, Default, PartialEq)]
struct Played {
    ended: Vec<Plain>,
    counts: BTreeMap<&'static str, usize>,
}

/// A history under way.
struct History<'a> {
    context: &'a mut Context,
    random: Random,
    n_vocab: usize,
    open: Vec<(SeqId, Plain)>,
    kept: Vec<(CheckpointId, Plain)>,
    /// What the prefix index was given: whole pages.
    published: Vec<Vec<u32>>,
    /// Pages that it had let go of before.
    evictions: u64,
    /// No layer has a window or a state.
    sees_all: bool,
    played: Played,
}

impl History<'_> {
    fn count(&mut self, what: &'static str) {
        *self.played.counts.entry(what).or_default() += 1;
    }

    /// The token of a stream at a position. Streams of one half have the same beginning.
    fn token(&self, stream: usize, position: usize) -> u32 {
        let stream = if position < COMMON { stream % 2 } else { stream };
        ((position * 37 + position / 5 + stream * 13 + 11) % self.n_vocab) as u32
    }

    fn any(&mut self) -> Option<usize> {
        (!self.open.is_empty()).then(|| self.random.below(self.open.len()))
    }

    fn end(&mut self, index: usize) {
        let (id, plain) = self.open.swap_remove(index);
        self.context.close(id).unwrap();
        assert_eq!(
            self.context.seq_len(id),
            Err(Error::UnknownSequence { foreign: false })
        );
        self.played.ended.push(plain);
        self.count("closed");
    }

    /// A sequence, from the prefix index as far as that has it.
    fn begin(&mut self) {
        let stream = self.random.below(6);
        let wanted = self.random.below(N_CTX);
        let prefix: Vec<u32> = (0..wanted).map(|i| self.token(stream, i)).collect();
        match self.context.open_prefix(&prefix) {
            Ok((id, found)) => {
                self.check_found(&prefix, found);
                if found > 0 {
                    self.count("found in the index");
                }
                let plain = Plain {
                    stream,
                    tokens: prefix[..found].to_vec(),
                    logits: vec![None; found],
                };
                self.open.push((id, plain));
                self.count("opened");
            }
            Err(Error::TooManySequences { limit }) => {
                assert_eq!((limit, self.open.len()), (SEQUENCES, SEQUENCES));
                self.count("too many");
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// What the index finds is the longest that it was given, unless some of that has gone, is of a window that had
    /// passed it, or is nothing that a state could go on from.
    fn check_found(&mut self, prefix: &[u32], found: usize) {
        let common = |other: &Vec<u32>| other.iter().zip(prefix).take_while(|(a, b)| a == b).count();
        let longest = self.published.iter().map(common).max().unwrap_or(0);
        assert!(found <= longest, "{found} {longest}");
        if self.sees_all && self.context.usage().prefix.evictions == self.evictions {
            assert_eq!(found, longest);
            self.count("the longest found");
        }
    }

    /// Makes room: a checkpoint less, or a sequence.
    fn end_some(&mut self) {
        match self.kept.pop() {
            Some((checkpoint, _)) => self.context.forget(checkpoint).unwrap(),
            None => self.end(0),
        }
    }

    fn fork(&mut self, index: usize) {
        let (id, plain) = self.open[index].clone();
        let len = self.random.below(plain.tokens.len() + 1);
        match self.context.fork(id, len) {
            Ok(fork) => {
                self.open.push((fork, plain.truncated(len)));
                self.count("forked");
            }
            Err(Error::TooManySequences { .. }) => self.count("too many"),
            Err(Error::WindowPassed { .. }) => self.count("window passed"),
            Err(Error::StatePassed { .. }) => self.count("state passed"),
            Err(other) => panic!("{other}"),
        }
    }

    fn cut(&mut self, index: usize) {
        let (id, plain) = &mut self.open[index];
        let len = self.random.below(plain.tokens.len() + 1);
        match self.context.truncate(*id, len) {
            Ok(()) => {
                *plain = plain.truncated(len);
                self.count("cut back");
            }
            Err(Error::WindowPassed { .. }) => self.count("window passed"),
            Err(Error::StatePassed { .. }) => self.count("state passed"),
            Err(other) => panic!("{other}"),
        }
    }

    fn restore(&mut self, index: usize) {
        if self.kept.len() < 3 || self.random.one_in(4) {
            let (id, plain) = self.open[index].clone();
            self.kept.push((self.context.checkpoint(id).unwrap(), plain));
            self.count("checkpoints");
            return;
        }
        let at = self.random.below(self.kept.len());
        let (checkpoint, plain) = self.kept[at].clone();
        let own = &mut self.open[index];
        self.context.restore(own.0, checkpoint).unwrap();
        self.played.ended.push(std::mem::replace(&mut own.1, plain));
        self.count("restored");
        if self.random.one_in(2) {
            self.context.forget(checkpoint).unwrap();
            self.kept.swap_remove(at);
        }
    }

    /// A pass of rows of some sequences, in any order.
    fn pass(&mut self) {
        let mut batch = Batch::new();
        // Of each row its sequence, token and whether it wants logits.
        let mut rows = Vec::new();
        let mut lens: Vec<usize> = self.open.iter().map(|(_, plain)| plain.tokens.len()).collect();
        let n_batch = self.context.options().n_batch;
        for _ in 0..1 + self.random.below(8) {
            let Some(index) = self.any() else { return };
            let n = if self.random.one_in(3) {
                self.random.below(30)
            } else {
                1
            };
            if self.random.one_in(20) {
                self.open[index].1.stream = self.random.below(6);
            }
            let stream = self.open[index].1.stream;
            for _ in 0..n {
                if rows.len() < n_batch && lens[index] < N_CTX {
                    rows.push((index, self.token(stream, lens[index]), !self.random.one_in(3)));
                    lens[index] += 1;
                }
            }
        }
        for (index, token, wanted) in &rows {
            let output = if *wanted { Output::Logits } else { Output::None };
            batch.push(self.open[*index].0, *token, output);
        }
        let mut logits = vec![None; rows.len()];
        let result = self.context.forward(&mut batch, &mut (), &mut |row, values| {
            logits[row] = Some(hash(values))
        });
        match result {
            Ok(()) => {
                for ((index, token, wanted), logits) in rows.into_iter().zip(logits) {
                    assert_eq!(wanted, logits.is_some());
                    let plain = &mut self.open[index].1;
                    plain.tokens.push(token);
                    plain.logits.push(logits);
                }
                self.count("passes");
            }
            Err(Error::CacheFull {
                needed,
                free,
                evictable,
            }) => {
                assert!(needed > free + evictable, "{needed} {free} {evictable}");
                self.count("cache full");
                self.end_some();
            }
            Err(Error::StatesFull { needed, free }) => {
                assert!(needed > free, "{needed} {free}");
                self.count("states full");
                self.end_some();
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn play(mut self) -> Played {
        for _ in 0..PASSES {
            for _ in 0..1 + self.random.below(3) {
                let index = self.any();
                match (self.random.below(12), index) {
                    (0..3, _) | (_, None) => self.begin(),
                    (3 | 4, Some(index)) => self.end(index),
                    (5 | 6, Some(index)) => self.fork(index),
                    (7, Some(index)) => self.cut(index),
                    (8 | 9, Some(index)) => self.restore(index),
                    (_, Some(index)) => {
                        let (id, plain) = &self.open[index];
                        self.context.publish(*id).unwrap();
                        let whole = plain.tokens.len() / BLOCK * BLOCK;
                        self.published.push(plain.tokens[..whole].to_vec());
                        self.count("published");
                    }
                }
            }
            self.pass();
            let usage = self.context.usage();
            assert_eq!(
                (usage.sequences, usage.checkpoints),
                (self.open.len(), self.kept.len())
            );
            for (id, plain) in &self.open {
                assert_eq!(self.context.tokens(*id).unwrap(), plain.tokens);
            }
        }
        while !self.open.is_empty() {
            self.end(0);
        }
        for (checkpoint, _) in self.kept.drain(..) {
            self.context.forget(checkpoint).unwrap();
        }
        let evicted = self.context.usage().prefix.evictions;
        if evicted > 0 {
            self.count("evicted");
        }
        // Whatever was shared and copied: nothing is lost.
        let usage = self.context.usage();
        assert_eq!(usage.free + usage.evictable, usage.pages);
        self.context.clear_prefixes();
        let usage = self.context.usage();
        assert_eq!((usage.free, usage.free_states), (usage.pages, usage.states));
        self.played
    }
}

impl Subject {
    fn mixed_context(&self, cell: &Cell, teams: &[Team; 4], n_sequences: usize) -> Context {
        let options = ContextOptions {
            n_ctx: N_CTX,
            n_batch: ROWS,
            n_sequences,
            pool: if n_sequences == 1 {
                Pool::Whole
            } else {
                Pool::Pages(PAGES)
            },
            ..ContextOptions::default()
        };
        self.context_of(cell, teams, options)
    }

    fn history(&self, context: &mut Context, seed: u64) -> Played {
        assert_eq!(context.usage().free, context.usage().pages);
        let evictions = context.usage().prefix.evictions;
        let bytes = |n_ctx| {
            let options = ContextOptions {
                n_ctx,
                ..ContextOptions::default()
            };
            held_bytes(&self.config, &options).unwrap()
        };
        let (short, long) = (bytes(1 << 17), bytes(1 << 18));
        let sees_all = long.states == 0 && short.keys_and_values > 0;
        // With a window the bytes do not grow with the context.
        let sees_all = sees_all && long.keys_and_values == 2 * short.keys_and_values;
        History {
            context,
            random: Random(seed),
            n_vocab: self.config.n_vocab,
            open: Vec::new(),
            kept: Vec::new(),
            published: Vec::new(),
            evictions,
            sees_all,
            played: Played::default(),
        }
        .play()
    }
}

/// Holds what was played to what each sequence's logits are alone.
fn check(name: &str, context: &mut Context, played: &Played, known: &mut BTreeMap<Vec<u32>, u64>) -> usize {
    let mut compared = 0;
    for plain in &played.ended {
        let all_known = (0..plain.tokens.len()).all(|i| known.contains_key(&plain.tokens[..=i]));
        if !all_known {
            let id = context.open().unwrap();
            for (i, token) in plain.tokens.iter().enumerate() {
                let logits = hash(context.decode(id, *token).unwrap());
                known.insert(plain.tokens[..=i].to_vec(), logits);
            }
            context.close(id).unwrap();
        }
        for (i, logits) in plain.logits.iter().enumerate() {
            if let Some(logits) = logits {
                assert_eq!(
                    *logits,
                    known[&plain.tokens[..=i]],
                    "{name}: position {i} of {:?}",
                    plain.tokens
                );
                compared += 1;
            }
        }
    }
    compared
}

fn histories(default: u64) -> u64 {
    match std::env::var("TWINFER_HISTORIES") {
        Ok(n) => n.parse().expect("TWINFER_HISTORIES is a number"),
        Err(_) => default,
    }
}

/// Plays the same histories in each cell of each model.
fn compare(
    what: &str,
    paths: &[PathBuf],
    seeds: u64,
    (scalar, simd): (Design, Design),
    counts: &mut BTreeMap<&'static str, usize>,
) {
    let teams = cells::teams();
    let (mut played_cells, mut compared) = (0, 0);
    for (index, path) in paths.iter().enumerate() {
        let subject = Subject::open(path, 1);
        let mut cells: Vec<Cell> = simd_backends()
            .flat_map(|backend| simd(backend, &subject.config))
            .collect();
        cells.extend(scalar(select::choose(Some("scalar")).unwrap(), &subject.config));
        let mut wants = Vec::new();
        // Other histories for each model.
        let first = 1000 * index as u64;
        for cell in cells {
            let mut context = subject.mixed_context(&cell, &teams, SEQUENCES);
            for seed in first..first + seeds {
                let played = subject.history(&mut context, seed);
                let known = wants
                    .iter()
                    .find(|(cache, of, _)| (*cache, *of) == (cell.cache, seed));
                match known {
                    Some((_, _, want)) => {
                        assert_eq!(&played, want, "{}, {cell}, history {seed}", subject.name);
                    }
                    None => {
                        let mut alone = subject.mixed_context(&Subject::reference(cell.cache), &teams, 1);
                        let name = format!("{}, {cell}, history {seed}", subject.name);
                        compared += check(&name, &mut alone, &played, &mut BTreeMap::new());
                        for (what, n) in &played.counts {
                            *counts.entry(*what).or_insert(0) += n;
                        }
                        wants.push((cell.cache, seed, played));
                    }
                }
                played_cells += 1;
            }
        }
    }
    println!(
        "mixed batches, {what}: {played_cells} histories in the cells of {} models; {compared} positions compared with their \
         sequence alone; {counts:?}",
        paths.len()
    );
}

/// Histories in which something never happens say nothing about it.
fn all_happened(counts: &BTreeMap<&'static str, usize>) {
    for event in [
        "passes",
        "forked",
        "cut back",
        "restored",
        "found in the index",
        "the longest found",
        "evicted",
        "cache full",
        "too many",
    ] {
        assert!(counts.contains_key(event), "never {event}");
    }
}

/// No cells.
fn none(_: &'static dyn Backend, _: &Config) -> Vec<Cell> {
    Vec::new()
}

#[test]
fn mixed_batches_of_the_built_in_model_and_of_each_architecture_are_equal() {
    let oracle = models(&Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/vectors"));
    let mut counts = BTreeMap::new();
    compare(
        "architectures",
        &oracle,
        histories(2),
        (transversal, covering),
        &mut counts,
    );
    compare(
        "built-in model",
        &[built_in()],
        histories(1),
        (none, transversal),
        &mut counts,
    );
    all_happened(&counts);
    // A cut that a model with states cannot make.
    assert!(counts.contains_key("state passed"), "{counts:?}");
}

#[test]
fn mixed_batches_of_each_tensor_type_are_equal() {
    let reference = models(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/models"));
    let mut counts = BTreeMap::new();
    compare(
        "tensor types",
        &reference,
        histories(1),
        (none, transversal),
        &mut counts,
    );
    if !reference.is_empty() {
        all_happened(&counts);
    }
}

/// Keeps the rows that come out of the embedding.
#[derive(Default)]
struct Embedded(Vec<f32>);

impl Probe for Embedded {
    fn op(&mut self, _: usize, op: &'static str, _: usize, values: &[f32]) {
        if op == "embedding" {
            self.0.extend_from_slice(values);
        }
    }
}

/// A row that brings its embedding is the row of the token that has it.
#[test]
fn an_embedding_is_as_good_as_its_token() {
    let teams = cells::teams();
    for name in ["llama-gqa", "gemma3"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("oracle/vectors/{name}.gguf"));
        let subject = Subject::open(&path, 9);
        let cell = Subject::reference((Default::default(), Default::default()));
        let mut context = subject.mixed_context(&cell, &teams, 2);
        let (mut embedded, mut want) = (Embedded::default(), Vec::new());
        let id = context.open().unwrap();
        context
            .eval_probed(id, &subject.tokens, &mut embedded, &mut |_, logits| {
                want.push(logits.to_vec())
            })
            .unwrap();
        let mut batch = Batch::new();
        let other = context.open().unwrap();
        for embedding in embedded.0.chunks(subject.config.n_embd) {
            batch.push_embedding(other, embedding, Output::Logits);
        }
        context
            .forward(&mut batch, &mut (), &mut |row, logits| {
                assert_eq!(logits, want[row])
            })
            .unwrap();
        // No token stands for it, so that no prefix of tokens leads to it.
        assert_eq!(context.tokens(other).unwrap(), [u32::MAX; 9]);
        assert_eq!(context.reuse(other, &subject.tokens), Ok(0));
    }
}
