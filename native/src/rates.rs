//! The machine's limits, measured: the rates of int8 dot products (those of whole tiles too, where there is a unit for
//! them), f32 multiply and add, reads of memory, on all workers at once; and what they mean for a model.
//!
//! Each is the median of some runs; of the read patterns the best median counts. Neighbours on a shared machine move
//! all of them, so a fraction is only meaningful with limits of the same minute.

use std::sync::Mutex;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{ContextOptions, held_bytes};
use twinfer_engine::gguf::{ModelFile, TensorInfo};
use twinfer_engine::kernels::peak::{Done, Exercise, PATTERNS, Work};
use twinfer_engine::kernels::{Backend, TILE_TOKENS, select};
use twinfer_engine::math;
use twinfer_engine::memory::{Bytes, Memory};
use twinfer_engine::model::config::{Config, OutputMatrix};
use twinfer_engine::model::ffn::{ExpertsConfig, is_of_experts};
use twinfer_engine::team::Team;

use crate::output::json_f64;
use crate::{interrupt, system};

/// Runs of each measurement that count, after one that does not; reads of the same memory need that one only once.
const RUNS: usize = 3;
/// Pieces of arithmetic per worker and run, so that one that is held up delays nobody.
const PIECES: usize = 16;
/// About how long a piece of arithmetic takes, in seconds.
const PIECE_SECONDS: f64 = 0.002;
/// Bytes that one call reads.
const READ_PIECE: usize = 4 << 20;
/// Most bytes that are read in a run, and the least that are beyond all caches.
const MOST: usize = 1 << 30;
pub(crate) const BEYOND_CACHES: usize = 512 << 20;
/// The buffer where no weights are at hand.
const BUFFER: u64 = 1 << 30;

/// What the machine does at most: operations (one multiplication and one addition) or bytes per second, all workers
/// together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) dot: f64,
    /// Products of whole tiles, where the backend has a unit for them.
    pub(crate) tile_dot: Option<f64>,
    pub(crate) multiply_add: f64,
    pub(crate) read: f64,
    /// The best pattern of reading.
    pub(crate) pattern: &'static str,
    /// Bytes that were read in each run.
    pub(crate) bytes: usize,
}

/// How often [`measure`] reports progress: once a measurement.
pub(crate) const MEASUREMENTS: u64 = PATTERNS.len() as u64 + 3;

/// Measures on all workers of the team. `memory` is read: that of weights, or from [`buffer`].
pub(crate) fn measure(
    team: &Team,
    backend: &dyn Backend,
    memory: &[Bytes],
    tick: &mut dyn FnMut(),
) -> Result<Rates> {
    let peak = select::peak(backend);
    let dot = arithmetic(team, peak, |rounds| Work::Dot { rounds })?;
    tick();
    let has_tiles = peak.exercise(&Work::TileDot { rounds: 1 }).operations > 0;
    let tile_dot = has_tiles
        .then(|| arithmetic(team, peak, |rounds| Work::TileDot { rounds }))
        .transpose()?;
    tick();
    let multiply_add = arithmetic(team, peak, |rounds| Work::MultiplyAdd { rounds })?;
    tick();
    let (read, name, bytes) = reads(team, backend, memory, tick)?;
    Ok(Rates {
        dot,
        tile_dot,
        multiply_add,
        read,
        pattern: name,
        bytes,
    })
}

/// Reads of memory alone: the best rate, its pattern, and how many bytes a run has read. As many ticks as patterns.
pub(crate) fn reads(
    team: &Team,
    backend: &dyn Backend,
    memory: &[Bytes],
    tick: &mut dyn FnMut(),
) -> Result<(f64, &'static str, usize)> {
    let peak = select::peak(backend);
    let mut left = MOST;
    let pieces: Vec<&[u8]> = memory
        .iter()
        .flat_map(|bytes| bytes.chunks(READ_PIECE))
        .take_while(|piece| {
            left = left.saturating_sub(piece.len());
            left > 0
        })
        .collect();
    let (mut read, mut name) = (0.0, PATTERNS[0].name);
    // The scalar backend reads in one way only.
    let patterns = if backend.name() == "scalar" {
        &PATTERNS[..1]
    } else {
        &PATTERNS[..]
    };
    for (i, &pattern) in patterns.iter().enumerate() {
        let warm = i > 0;
        let speed = rate(team, pieces.len(), warm, |i| {
            peak.exercise(&Work::Read {
                bytes: pieces[i],
                pattern,
            })
        })?;
        if read < speed {
            (read, name) = (speed, pattern.name);
        }
        tick();
    }
    (patterns.len()..PATTERNS.len()).for_each(|_| tick());
    Ok((read, name, pieces.iter().map(|piece| piece.len()).sum()))
}

/// Memory to read where there is no model: anonymous pages as packed weights have them, filled by the workers.
pub(crate) fn buffer(team: &Team, memory: &dyn Memory) -> Result<Bytes> {
    let free = system::available_memory().unwrap_or(BUFFER * 4);
    let bytes = if free / 4 < BUFFER { free / 4 } else { BUFFER } as usize / READ_PIECE * READ_PIECE;
    let mut memory = memory.zeroed(bytes, None)?;
    team.rows(memory.bytes(), READ_PIECE, 1, |_, out| {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = i as u8;
        }
    })?;
    Ok(memory.freeze()?)
}

fn arithmetic(team: &Team, peak: &dyn Exercise, work: impl Fn(usize) -> Work<'static> + Sync) -> Result<f64> {
    // Pieces long enough for the clock, on a machine of any speed.
    let mut rounds = 1000;
    loop {
        let start = Instant::now();
        std::hint::black_box(peak.exercise(&work(rounds)));
        let seconds = start.elapsed().as_secs_f64();
        if seconds >= PIECE_SECONDS || rounds >= 1 << 22 {
            break;
        }
        rounds *= 2;
    }
    rate(team, team.workers() * PIECES, false, |_| {
        peak.exercise(&work(rounds))
    })
}

/// Median of operations per second over the runs, the pieces of a run handed out to the workers.
fn rate(team: &Team, pieces: usize, warm: bool, work: impl Fn(usize) -> Done + Sync) -> Result<f64> {
    let mut speeds = Vec::with_capacity(RUNS);
    for run in usize::from(warm)..=RUNS {
        interrupt::check()?;
        let operations = Mutex::new(0u64);
        let start = Instant::now();
        team.ranges(pieces, 1, |range| {
            let mut own = 0;
            for i in range {
                own += std::hint::black_box(work(i)).operations;
            }
            if let Ok(mut operations) = operations.lock() {
                *operations += own;
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        // The first run brings memory in and clocks up.
        if run > 0 {
            let operations = operations.into_inner().unwrap_or(0);
            speeds.push(operations as f64 / seconds.clamp(1e-9, f64::MAX));
        }
    }
    Ok(median(&mut speeds))
}

/// The middle one; the upper of two.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Rates {
    /// The better of two measurements, each limit by itself.
    pub(crate) fn best(self, other: Rates) -> Rates {
        let max = |a: f64, b: f64| if a < b { b } else { a };
        let (read, pattern) = if self.read < other.read {
            (other.read, other.pattern)
        } else {
            (self.read, self.pattern)
        };
        Rates {
            dot: max(self.dot, other.dot),
            tile_dot: self.tile_dot.zip(other.tile_dot).map(|(a, b)| max(a, b)),
            multiply_add: max(self.multiply_add, other.multiply_add),
            read,
            pattern,
            bytes: self.bytes,
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "int8_dot_gmacs": json_f64(self.dot / 1e9),
            "int8_tile_gmacs": self.tile_dot.map(|rate| json_f64(rate / 1e9)),
            "f32_multiply_add_gmacs": json_f64(self.multiply_add / 1e9),
            "memory_read_gb_s": json_f64(self.read / 1e9),
            "memory_read_pattern": self.pattern,
            "memory_read_bytes": self.bytes,
        })
    }
}

/// What a token costs at least. Bytes are those of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TokenWork {
    /// Bytes of weights that every token is multiplied with.
    pub(crate) dense: f64,
    /// Bytes of experts, all of them, and as many as a token's have.
    pub(crate) experts: f64,
    pub(crate) used: f64,
    /// Multiplications by quantized weights.
    pub(crate) integer: f64,
    /// Multiplications by float weights.
    pub(crate) float: f64,
}

impl TokenWork {
    /// Adds a tensor of which a token reads this part, another one another part; `None` for all of it.
    fn add(&mut self, tensor: &TensorInfo, used: Option<f64>) {
        let weights = tensor.shape.iter().map(|&n| n as f64).product::<f64>();
        let bytes = tensor.bytes as f64;
        match used {
            None => self.dense += bytes,
            Some(used) => {
                self.experts += bytes;
                self.used += bytes * used;
            }
        }
        let weights = weights * used.unwrap_or(1.0);
        if tensor.ty.is_float() {
            self.float += weights;
        } else {
            self.integer += weights;
        }
    }

    /// Bytes that a pass of so many rows reads, where experts are chosen as by chance.
    pub(crate) fn bytes(&self, rows: f64) -> f64 {
        if self.experts == 0.0 {
            return self.dense;
        }
        let unused = math::pow(1.0 - self.used / self.experts, rows);
        self.dense + self.experts * (1.0 - unused)
    }

    /// Multiplications by weights.
    pub(crate) fn multiplications(&self) -> f64 {
        self.integer + self.float
    }

    /// Of the matrices that every token meets, and of those that only tokens meet whose outputs are asked for: the
    /// output matrix, and the last layer's but for keys and values. Of experts a token meets some; of embeddings a row.
    /// Attention and norms are not counted: what they cost depends on the position, and little.
    pub(crate) fn of(file: &ModelFile, config: &Config) -> (TokenWork, TokenWork) {
        let (mut every, mut asked) = (TokenWork::default(), TokenWork::default());
        let n_layers = config.layers.len();
        let of_all = ["attn_k.", "attn_v.", "attn_qkv."];
        let logits = match config.output.matrix {
            OutputMatrix::None => None,
            OutputMatrix::Embedding => Some("token_embd.weight"),
            OutputMatrix::OwnOrEmbedding if file.tensor("output.weight").is_none() => {
                Some("token_embd.weight")
            }
            OutputMatrix::Own | OutputMatrix::OwnOrEmbedding => Some("output.weight"),
        };
        let by_row = |name: &str| {
            matches!(
                name,
                "token_embd.weight"
                    | "per_layer_token_embd.weight"
                    | "position_embd.weight"
                    | "token_types.weight"
            )
        };
        let matrix = |tensor: &&TensorInfo| tensor.n_rows() > 1 && tensor.name.ends_with(".weight");
        for tensor in file.tensors().filter(matrix) {
            let place = tensor.name.strip_prefix("blk.").and_then(|rest| {
                let (layer, part) = rest.split_once('.')?;
                Some((layer.parse::<usize>().ok()?, part))
            });
            match place {
                // Blocks behind the layers are not run.
                Some((layer, _)) if layer >= n_layers => {}
                Some((layer, part)) => {
                    let experts = config.layers[layer].ffn.experts();
                    let used = experts
                        .filter(|_| is_of_experts(part))
                        .map(ExpertsConfig::used_share);
                    let for_asked =
                        layer + 1 == n_layers && !of_all.iter().any(|name| part.starts_with(name));
                    if for_asked { &mut asked } else { &mut every }.add(tensor, used);
                }
                None if Some(tensor.name.as_str()) == logits => asked.add(tensor, None),
                None if by_row(&tensor.name) || tensor.name == "output.weight" => {}
                None => every.add(tensor, None),
            }
        }
        (every, asked)
    }

    /// Seconds of arithmetic at these rates, integer products at a rate.
    fn compute(&self, rates: &Rates, integer: f64) -> f64 {
        self.integer / integer + self.float / rates.multiply_add
    }
}

/// Weights in a file's matrices, and bytes of all its tensors.
pub(crate) fn size(file: &ModelFile) -> (f64, f64) {
    let matrices = file.tensors().filter(|tensor| tensor.n_rows() > 1);
    let weights = matrices.map(|tensor| tensor.shape.iter().map(|&n| n as f64).product::<f64>());
    (
        weights.sum(),
        file.tensors().map(|tensor| tensor.bytes as f64).sum(),
    )
}

/// What the machine allows a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed<'a> {
    pub(crate) config: &'a Config,
    pub(crate) work: (TokenWork, TokenWork),
    pub(crate) cache: (CacheType, CacheType),
}

impl Allowed<'_> {
    /// Bytes of keys and values that a token at this depth reads.
    pub(crate) fn cache_bytes(&self, depth: usize) -> f64 {
        if depth == 0 {
            return 0.0;
        }
        // A cache is whole pages; a token reads the positions that are there.
        const PAGE: usize = twinfer_engine::kernels::BLOCK;
        let whole = depth.next_multiple_of(PAGE);
        let options = ContextOptions {
            n_ctx: whole,
            n_batch: 1,
            n_sequences: 1,
            pool: Pool::Whole,
            n_states: None,
            cache_type_k: self.cache.0,
            cache_type_v: self.cache.1,
        };
        let held = held_bytes(self.config, &options).unwrap_or_default();
        held.keys_and_values as f64 * depth as f64 / whole as f64
    }

    /// Bytes of states that a token reads and writes.
    pub(crate) fn state_traffic(&self) -> f64 {
        2.0 * self.config.state_bytes() as f64
    }

    /// Tokens per second at most of `sequences` that decode together, all their tokens counted, with `depth` positions
    /// of each in the cache: every weight is read once a pass and every cached key and value once a token.
    pub(crate) fn decode(&self, rates: &Rates, depth: usize, sequences: usize) -> f64 {
        let (every, asked) = self.work;
        let n = sequences as f64;
        let weights = every.bytes(n) + asked.bytes(n);
        let own = self.cache_bytes(depth) + self.state_traffic();
        let read = (weights + n * own) / rates.read;
        let compute = n * (every.compute(rates, rates.dot) + asked.compute(rates, rates.dot));
        n / if read < compute { compute } else { read }
    }

    /// Tokens per second at most while a prompt of `n` is read: every weight is multiplied once a token, but for those
    /// that only the last one meets, and read once.
    pub(crate) fn prefill(&self, rates: &Rates, n: usize) -> f64 {
        let (every, asked) = self.work;
        let compute =
            every.compute(rates, integer_rate(rates, n)) * n as f64 + asked.compute(rates, rates.dot);
        let read = (every.bytes(n as f64) + asked.bytes(1.0)) / rates.read;
        n as f64 / if read < compute { compute } else { read }
    }

    /// Tokens per second at most while vectors are made of `texts` texts of `n` tokens each: every weight is multiplied once a
    /// token, and read once.
    pub(crate) fn texts(&self, rates: &Rates, n: usize, texts: usize) -> f64 {
        let (every, asked) = self.work;
        let all = (n * texts) as f64;
        let integer = integer_rate(rates, n * texts);
        let compute = (every.compute(rates, integer) + asked.compute(rates, integer)) * all;
        let read = (every.bytes(all) + asked.bytes(all)) / rates.read;
        all / if read < compute { compute } else { read }
    }
}

/// Integer products per second where so many tokens share a pass: those that fill no tile are multiplied without them.
fn integer_rate(rates: &Rates, tokens: usize) -> f64 {
    TILE_TOKENS
        .filter(|least| tokens >= *least)
        .and(rates.tile_dot)
        .unwrap_or(rates.dot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_the_better_of_two() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut []), 0.0);
        let rates = |dot, read, pattern| Rates {
            dot,
            tile_dot: None,
            multiply_add: 1.0,
            read,
            pattern,
            bytes: 1,
        };
        let best = rates(2.0, 3.0, "a").best(rates(1.0, 4.0, "b"));
        assert_eq!((best.dot, best.read, best.pattern), (2.0, 4.0, "b"));
    }

    #[test]
    fn a_machine_has_limits() {
        let team = Team::single();
        let memory = Bytes::from_vec(vec![1; 64 << 20]);
        let backend = twinfer_engine::kernels::select::available()[0];
        let mut ticks = 0;
        let rates = measure(&team, backend, &[memory], &mut || ticks += 1).unwrap();
        assert_eq!(ticks, MEASUREMENTS);
        assert_eq!(rates.bytes, 64 << 20);
        // Between a watch and what no core will ever do.
        assert!((1e7..1e13).contains(&rates.dot), "{rates:?}");
        assert!((1e7..1e13).contains(&rates.multiply_add), "{rates:?}");
        assert!((1e7..1e13).contains(&rates.read), "{rates:?}");
    }
}
