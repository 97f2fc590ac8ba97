//! How fast attention is: `cargo run --release --example attention_speed [backend...]`.
//!
//! Prefill: one kv head with a group of 4 query heads, a prompt of 4096 tokens from its beginning, on one thread, as a
//! fraction of the rate of multiplications and additions of floats (one of each per lane and cycle), which is measured in
//! between. Only what the causal mask shows counts as work. Decode: one token over 8192 positions of 8 kv heads in some
//! layers, bytes of keys and values per second on one thread and on two, beside what the same threads can read.
//! A tile is compared with scalar's before anything is timed.
#![allow(clippy::unwrap_used)]
// The rate of float operations wants the widest instructions of the machine, which a function of its own enables.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;

use twinfer_engine::kernels::{
    BLOCK, Backend, KvBlock, KvData, Partials, QuantizedQueries, Queries, SPAN, attend_scratch, select,
};
use twinfer_engine::team::Team;

const GROUP: usize = 4;
const KV_HEADS: usize = 8;
const PROMPT: usize = 4096;
const CONTEXT: usize = 8192;
/// Tokens of a tile, as the forward pass takes them.
const TILE: usize = 96 / GROUP;

/// Seconds that this thread has run on a core, where the system says so (Linux): on a busy machine the clock on the wall
/// measures the neighbours. Else the time since `start`.
fn own_seconds(start: Instant) -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| start.elapsed().as_secs_f64(), |ns| ns * 1e-9)
}

/// Median seconds of `runs` runs on this thread, after one that does not count.
fn median(runs: usize, f: impl FnMut()) -> f64 {
    median_by(runs, own_seconds, f)
}

/// As [`median`] where several threads work.
fn median_wall(runs: usize, f: impl FnMut()) -> f64 {
    median_by(runs, |start| start.elapsed().as_secs_f64(), f)
}

fn median_by(runs: usize, clock: impl Fn(Instant) -> f64, mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let before = clock(start);
            f();
            clock(start) - before
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

/// Rounds of 12 vectors, each a chain of multiplications and one of additions: more than their latencies need.
#[cfg(target_arch = "x86_64")]
macro_rules! multiply_add {
    ($name:ident, $feature:literal, $set:ident, $mul:ident, $add:ident, $first:ident) => {
        #[target_feature(enable = $feature)]
        fn $name(rounds: usize) -> f32 {
            use std::arch::x86_64::*;
            let (a, b) = ($set(black_box(1.000_001)), $set(black_box(1e-9)));
            let (mut x, mut y) = ([$set(1.0); 6], [$set(1.0); 6]);
            for _ in 0..rounds {
                for i in 0..6 {
                    (x[i], y[i]) = ($mul(x[i], a), $add(y[i], b));
                }
            }
            x.into_iter()
                .zip(y)
                .map(|(x, y)| $first($add(x, y)))
                .fold(0.0, |a, b| a + b)
        }
    };
}
#[cfg(target_arch = "x86_64")]
multiply_add!(
    multiply_add_512,
    "avx512f",
    _mm512_set1_ps,
    _mm512_mul_ps,
    _mm512_add_ps,
    _mm512_cvtss_f32
);
#[cfg(target_arch = "x86_64")]
multiply_add!(
    multiply_add_256,
    "avx2",
    _mm256_set1_ps,
    _mm256_mul_ps,
    _mm256_add_ps,
    _mm256_cvtss_f32
);

/// Multiplications with an addition each, per second, on one thread.
fn peak(backend: &str) -> f64 {
    let rounds = 4_000_000;
    #[cfg(target_arch = "x86_64")]
    let (lanes, seconds) = match backend {
        "avx512" => (
            16,
            median(5, || {
                // SAFETY: the backend of that name is available only where the machine has these instructions.
                black_box(unsafe { multiply_add_512(rounds) });
            }),
        ),
        "avx2" => (
            8,
            median(5, || {
                // SAFETY: as above.
                black_box(unsafe { multiply_add_256(rounds) });
            }),
        ),
        _ => return f64::NAN,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (lanes, seconds) = (0, f64::NAN);
    (rounds * 6 * lanes) as f64 / seconds
}

/// Keys and values of some pages, in f16 or q8_0.
struct Pages {
    dim: usize,
    q8: bool,
    halves: Vec<u16>,
    bytes: Vec<u8>,
}

impl Pages {
    fn new(dim: usize, n: usize, q8: bool) -> Self {
        let page = if q8 { BLOCK * (dim + dim / 16) } else { BLOCK * dim };
        let mixed = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        Pages {
            dim,
            q8,
            // Magnitudes from a quarter to one, either sign.
            halves: (0..if q8 { 0 } else { 2 * n * page })
                .map(|i| (0x3400 + (mixed(i) & 0x07ff) as u16) | (mixed(i) >> 8 & 0x8000) as u16)
                .collect(),
            bytes: (0..if q8 { 2 * n * page } else { 0 })
                .map(|i| match i % page {
                    // Scales of about a hundredth.
                    at if at >= BLOCK * dim => [0x1f, 0x21][at % 2],
                    _ => mixed(i) as u8 | 1,
                })
                .collect(),
        }
    }

    fn bytes_per_page(&self) -> usize {
        2 * if self.q8 {
            BLOCK * (self.dim + self.dim / 16)
        } else {
            BLOCK * self.dim * 2
        }
    }

    fn block(&self, page: usize) -> KvBlock<'_> {
        let data = |index: usize| {
            if self.q8 {
                let n = BLOCK * (self.dim + self.dim / 16);
                KvData::Q8(&self.bytes[index * n..(index + 1) * n])
            } else {
                let n = BLOCK * self.dim;
                KvData::F16(&self.halves[index * n..(index + 1) * n])
            }
        };
        KvBlock {
            k: data(2 * page),
            v: data(2 * page + 1),
            dim_v: self.dim,
        }
    }
}

/// Queries with their int8 form.
struct Tile {
    dim: usize,
    q: Vec<f32>,
    int8: (Vec<i8>, Vec<f32>, Vec<i16>),
}

impl Tile {
    fn new(dim: usize, tokens: usize) -> Self {
        let n = tokens * GROUP * dim;
        let q: Vec<f32> = (0..n).map(|i| ((i * 37 % 201) as f32 - 100.0) / 100.0).collect();
        let mut int8 = (vec![0; n], vec![0.0; n / 32], vec![0; n / 16]);
        let scalar = select::choose(Some("scalar")).unwrap();
        assert!(scalar.quantize(32, &q, &mut int8.0, &mut int8.1, &mut int8.2));
        Tile { dim, q, int8 }
    }

    fn queries(&self) -> Queries<'_> {
        Queries {
            q: &self.q,
            stride: GROUP * self.dim,
            group: GROUP,
            dim_k: self.dim,
            scale: 0.125,
            softcap: None,
            quantized: QuantizedQueries {
                q: &self.int8.0,
                d: &self.int8.1,
                sums: &self.int8.2,
            },
        }
    }
}

/// A whole causal prompt: the last tile's values.
fn prefill(backend: &dyn Backend, tile: &Tile, pages: &Pages, prompt: usize) -> Vec<f32> {
    let n = TILE * GROUP;
    let states = || (vec![0.0f32; n], vec![0.0f32; n], vec![0.0f32; n * tile.dim]);
    let (mut a, mut b) = (states(), states());
    let mut scratch = vec![0.0; attend_scratch(tile.dim, tile.dim)];
    let mut total = Partials {
        m: &mut a.0,
        l: &mut a.1,
        o: &mut a.2,
    };
    let mut span = Partials {
        m: &mut b.0,
        l: &mut b.1,
        o: &mut b.2,
    };
    for first in (0..prompt).step_by(TILE) {
        let tokens = TILE.min(prompt - first);
        total.clear();
        span.clear();
        let blocks = (first + tokens).div_ceil(BLOCK);
        for block in 0..blocks {
            let mut visible: [_; TILE] = std::array::from_fn(|_| 0..0);
            for (i, visible) in visible.iter_mut().enumerate() {
                *visible = 0..(first + i + 1).saturating_sub(block * BLOCK).min(BLOCK);
            }
            let mut span_part = span.part(0..tokens * GROUP);
            backend.attend(
                &tile.queries(),
                &visible[..tokens],
                &pages.block(block),
                &mut span_part,
                &mut scratch,
            );
            if block + 1 == blocks || (block + 1).is_multiple_of(SPAN) {
                backend.merge(&mut total, &span);
                span.clear();
            }
        }
    }
    a.2
}

/// One token over all positions of all kv heads and layers, split over (kv head, span).
fn decode(backend: &dyn Backend, team: &Team, tile: &Tile, pages: &Pages, layers: usize) -> Vec<f32> {
    let spans = CONTEXT / BLOCK / SPAN;
    let units = layers * KV_HEADS * spans;
    let states = |n: usize| vec![0.0f32; units * GROUP * n];
    let (mut m, mut l, mut o) = (states(1), states(1), states(tile.dim));
    let scratch: Vec<_> = (0..team.workers())
        .map(|_| std::sync::Mutex::new(vec![0.0; attend_scratch(tile.dim, tile.dim)]))
        .collect();
    for layer in 0..layers {
        let part = layer * KV_HEADS * spans * GROUP..(layer + 1) * KV_HEADS * spans * GROUP;
        let wide = part.start * tile.dim..part.end * tile.dim;
        team.rows3_by(
            1,
            (&mut m[part.clone()], GROUP),
            (&mut l[part], GROUP),
            (&mut o[wide], GROUP * tile.dim),
            |worker, unit, m, l, o| {
                let mut sum = Partials { m, l, o };
                sum.clear();
                let scratch = &mut scratch[worker].lock().unwrap();
                for block in 0..SPAN {
                    let page = (layer * KV_HEADS * spans + unit) * SPAN + block;
                    let visible = std::slice::from_ref(&(0..BLOCK));
                    backend.attend(&tile.queries(), visible, &pages.block(page), &mut sum, scratch);
                }
            },
        )
        .unwrap();
    }
    o
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let scalar = select::choose(Some("scalar")).unwrap();
    let teams = [1, 2].map(|n| {
        Team::new(n, |_, work| {
            std::thread::spawn(work);
        })
    });
    let memory = vec![1u64; 16 << 20];
    let read = |team: &Team| {
        let time = median_wall(5, || {
            team.ranges(memory.len() / 4096, 16, |range| {
                let part = &memory[range.start * 4096..range.end * 4096];
                black_box(part.iter().fold(0u64, |a, b| a.wrapping_add(*b)));
            })
            .unwrap();
        });
        memory.len() as f64 * 8e-9 / time
    };
    for backend in select::available() {
        if backend.name() == "scalar" || !asked.is_empty() && !asked.iter().any(|name| name == backend.name())
        {
            continue;
        }
        for (dim, q8) in [(64, false), (128, false), (64, true), (128, true)] {
            let tile = Tile::new(dim, TILE);
            let pages = Pages::new(dim, PROMPT / BLOCK, q8);
            assert_eq!(
                prefill(*backend, &tile, &pages, 100),
                prefill(scalar, &tile, &pages, 100),
                "the numbers are scalar's"
            );
            let time = median(3, || _ = black_box(prefill(*backend, &tile, &pages, PROMPT)));
            let peak = peak(backend.name());
            let work = (PROMPT * (PROMPT + 1) / 2 * GROUP * 2 * dim) as f64;
            println!(
                "{:>8}, head_dim {dim:3}, {}: prefill of {PROMPT} {:6.1} G multiply+add/s, {:4.1} % of {:.1}",
                backend.name(),
                if q8 { "q8_0" } else { " f16" },
                work * 1e-9 / time,
                work / time / peak * 100.0,
                peak * 1e-9,
            );
        }
        for (dim, q8) in [(64, false), (128, false), (64, true), (128, true)] {
            let layers = if dim == 64 { 8 } else { 4 };
            let tile = Tile::new(dim, 1);
            let pages = Pages::new(dim, layers * KV_HEADS * CONTEXT / BLOCK, q8);
            let bytes = (layers * KV_HEADS * CONTEXT / BLOCK * pages.bytes_per_page()) as f64;
            for team in &teams {
                let time = median_wall(5, || _ = black_box(decode(*backend, team, &tile, &pages, layers)));
                println!(
                    "{:>8}, head_dim {dim:3}, {}: decode at {CONTEXT}, {} thread(s) {:5.1} GB/s, reading alone {:5.1}",
                    backend.name(),
                    if q8 { "q8_0" } else { " f16" },
                    team.workers(),
                    bytes * 1e-9 / time,
                    read(team),
                );
            }
        }
    }
}
