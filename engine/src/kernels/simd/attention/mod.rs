//! Attention over lanes: positions in lanes for the scores (sequential in d), d in lanes for the output (sequential in
//! position). Nothing is summed across lanes but by the contract's tree.
//!
//! ```text
//! a strip   some queries of the tile, as many as the registers hold: every load of keys or values serves all of them
//!   scores    acc[query][4 vectors] += q[d] * k[d][positions]     for d in ascending order
//!   softmax   m, p = exp(score - m), l
//!   values    acc[query][4 vectors] += p[j] * v[j][columns]       for visible j in ascending order
//!   merge     o = o * a + acc * b, from the registers
//! ```
//!
//! While scores are computed the next block's keys are prefetched, and its values while values are added up: text that
//! is written behind a long context reads it all once a token.
//!
//! A tile of several strips widens the block's half-precision numbers once; a small one reads them as they are. Values
//! in q8_0 are always widened, keys in q8_0 never.
//!
//! No closure computes with vectors: where one is not inlined it lacks the instruction set, and every vector it touches
//! becomes a call.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

mod cached;
mod merge;

use std::ops::Range;

pub(super) use cached::ToHalves;
use cached::{CachedRows, dequantize, plain, widened};
pub(super) use merge::Merge;
use merge::{Merged, join};

use crate::kernels::functions::{Lanes, exp, tanh};
use crate::kernels::isa::{Isa, Op, add_quad, sum_lanes, unrolled};
use crate::kernels::{BLOCK, KvBlock, KvData, Partials, QuantizedQueries, Queries};

/// Vectors side by side in a strip.
const WIDE: usize = 4;

const POSITIONS: [f32; BLOCK] = {
    let mut positions = [0.0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        positions[i] = i as f32;
        i += 1;
    }
    positions
};

/// Memory of which some lines are prefetched in each round of a loop.
#[derive(Clone, Copy)]
struct Prefetch<'a> {
    bytes: &'a [u8],
    /// Lines a round; no more than 4 of them are prefetched.
    share: usize,
}

impl<'a> Prefetch<'a> {
    /// `bytes`, shared out over so many rounds.
    #[inline(always)]
    fn new(bytes: &'a [u8], rounds: usize) -> Self {
        Prefetch {
            bytes,
            share: bytes.len().div_ceil(64).div_ceil(rounds.max(1)),
        }
    }

    /// The share of one round.
    #[inline(always)]
    fn share<I: Isa>(self, isa: I, round: usize) {
        // Written out, as a loop within a hot loop costs more than it does.
        unrolled!(i in self.share, at most 4 => {
            isa.prefetch_l2(self.bytes, (round * self.share + i) * 64);
        });
    }
}

/// A block's keys, ready for the strips.
#[derive(Clone, Copy)]
enum Keys<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Q8(&'a [u8]),
}

/// A block's values, ready for the strips.
#[derive(Clone, Copy)]
enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
}

pub(super) struct Attend<'a, 'b> {
    pub(super) queries: &'a Queries<'b>,
    pub(super) visible: &'a [Range<usize>],
    pub(super) block: &'a KvBlock<'b>,
    pub(super) sum: Partials<'a>,
    pub(super) scratch: &'a mut [f32],
}

impl<I: Isa> Op<I> for Attend<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let Attend {
            queries,
            visible,
            block,
            mut sum,
            scratch,
        } = self;
        let (k_wide, v_wide) = scratch.split_at_mut(BLOCK * queries.dim_k);
        let (v_wide, scales) = v_wide.split_at_mut(BLOCK * block.dim_v);
        let n_queries = visible.iter().filter(|v| !v.is_empty()).count() * queries.heads;
        let widen = n_queries > 2 * I::QUERIES;
        let k = match block.k {
            KvData::F32(k) => Keys::F32(k),
            KvData::F16(k) if widen => Keys::F32(widened(isa, k, k_wide)),
            KvData::F16(k) => Keys::F16(k),
            KvData::Q8(k) => Keys::Q8(k),
        };
        let v = match block.v {
            KvData::F32(v) => Values::F32(v),
            KvData::F16(v) if widen => Values::F32(widened(isa, v, v_wide)),
            KvData::F16(v) => Values::F16(v),
            KvData::Q8(v) => {
                dequantize(isa, v, scales, v_wide);
                Values::F32(v_wide)
            }
        };
        // Runs of tokens that see something of the block, in strips.
        let mut token = 0;
        while token < visible.len() {
            if visible[token].is_empty() {
                token += 1;
                continue;
            }
            let mut end = token;
            while end < visible.len() && !visible[end].is_empty() {
                end += 1;
            }
            let mut first = token * queries.heads;
            let last = end * queries.heads;
            // Only the first strip reads from memory, and many strips compute for longer than memory takes.
            let next = block.next.filter(|_| token == 0 && !widen);
            let mut strips = Strips {
                queries,
                visible,
                k,
                v,
                dim_v: block.dim_v,
                next: next.map_or((&[][..], &[][..]), |(k, v)| (k.bytes(), v.bytes())),
                sum: &mut sum,
            };
            while I::QUERIES >= 6 && first + 6 <= last {
                strips.run::<I, 6>(isa, first);
                first += 6;
            }
            while I::QUERIES >= 4 && first + 4 <= last {
                strips.run::<I, 4>(isa, first);
                first += 4;
            }
            if I::QUERIES >= 4 && first + 3 <= last {
                strips.run::<I, 3>(isa, first);
                first += 3;
            }
            while first + 2 <= last {
                strips.run::<I, 2>(isa, first);
                first += 2;
            }
            if first < last {
                strips.run::<I, 1>(isa, first);
            }
            token = end;
        }
    }
}

/// What all strips share.
struct Strips<'a, 'b> {
    queries: &'a Queries<'b>,
    visible: &'a [Range<usize>],
    k: Keys<'a>,
    v: Values<'a>,
    dim_v: usize,
    /// What the first strip prefetches: the next block's keys and values.
    next: (&'a [u8], &'a [u8]),
    sum: &'a mut Partials<'b>,
}

impl Strips<'_, '_> {
    /// Queries `first` to `first + Q`, all of which see something of the block.
    #[inline(always)]
    fn run<I: Isa, const Q: usize>(&mut self, isa: I, first: usize) {
        let q: [&[f32]; Q] = std::array::from_fn(|i| self.queries.query(first + i));
        let visible: [&Range<usize>; Q] =
            std::array::from_fn(|i| &self.visible[(first + i) / self.queries.heads]);
        let mut p = [[0.0f32; BLOCK]; Q];
        let (next_k, next_v) = std::mem::take(&mut self.next);
        match self.k {
            Keys::F32(k) => scores::<I, _, Q>(isa, &q, plain(k, BLOCK), next_k, &mut p),
            Keys::F16(k) => scores::<I, _, Q>(isa, &q, plain(k, BLOCK), next_k, &mut p),
            Keys::Q8(k) => {
                let dim = self.queries.dim_k;
                let q = std::array::from_fn(|i| self.queries.quantized.query(first + i, dim));
                scores_q8::<I, Q>(isa, &q, (k, dim), next_k, &mut p);
            }
        }
        // Softmax states of the block, in lanes.
        let (mut m, mut l) = ([0.0f32; 16], [0.0f32; 16]);
        // All maxima first: each is the end of a chain of operations, which the others' fill.
        for i in 0..Q {
            m[i] = scale(isa, self.queries, first + i, visible[i], &mut p[i]);
        }
        for i in 0..Q {
            l[i] = exponentials(isa, visible[i], m[i], &mut p[i]);
        }
        let (a, b, empty) = join::<I, Q>(isa, &mut self.sum.part(first..first + Q), (&m, &l));
        // A position that another query of the strip sees and this one does not has p = +0.0 here. Adding 0 * v moves
        // no bit: v is finite, and a sum that began at +0.0 is never -0.0.
        let mut seen = visible[0].clone();
        for visible in &visible[1..] {
            seen = seen.start.min(visible.start)..seen.end.max(visible.end);
        }
        let o = &mut self.sum.o[first * self.dim_v..(first + Q) * self.dim_v];
        let merge = Merged { a, b, empty };
        let seen = (seen, next_v);
        match self.v {
            Values::F32(v) => weigh::<I, _, Q>(isa, &p, plain(v, self.dim_v), self.dim_v, seen, &merge, o),
            Values::F16(v) => weigh::<I, _, Q>(isa, &p, plain(v, self.dim_v), self.dim_v, seen, &merge, o),
        }
    }
}

/// `score[j] = sum of q[d] * k[d][j]` for all 64 positions. Prefetches `next`, the next block's keys.
#[inline(always)]
fn scores<I: Isa, R: CachedRows, const Q: usize>(
    isa: I,
    q: &[&[f32]; Q],
    k: R,
    next: &[u8],
    score: &mut [[f32; BLOCK]; Q],
) {
    let dim = q[0].len();
    let ahead = Prefetch::new(next, dim * (BLOCK / (WIDE * I::LANES)));
    let q: [&[f32]; Q] = std::array::from_fn(|i| &q[i][..dim]);
    let mut at = 0;
    while at < BLOCK {
        let mut acc = [[I::F::splat(0.0); WIDE]; Q];
        for d in 0..dim {
            ahead.share(isa, at / (WIDE * I::LANES) * dim + d);
            let k = k.load::<I, WIDE>(isa, d, at);
            for i in 0..Q {
                for v in 0..WIDE {
                    acc[i][v] = isa.add_times(acc[i][v], k[v], &q[i][d]);
                }
            }
        }
        for i in 0..Q {
            for v in 0..WIDE {
                isa.store_f(acc[i][v], &mut score[i][at + v * I::LANES..]);
            }
        }
        at += WIDE * I::LANES;
    }
}

/// The same for keys in q8_0: a lane holds 4 consecutive d of one position.
#[inline(always)]
fn scores_q8<I: Isa, const Q: usize>(
    isa: I,
    q: &[QuantizedQueries<'_>; Q],
    (page, dim): (&[u8], usize),
    next: &[u8],
    score: &mut [[f32; BLOCK]; Q],
) {
    // Integer and float accumulators share the registers.
    const N: usize = WIDE / 2;
    let ahead = Prefetch::new(next, dim / 4 * (BLOCK / (N * I::LANES)));
    let (quants, scales) = page.split_at(BLOCK * dim);
    let bytes: [&[[i8; 4]]; Q] = std::array::from_fn(|i| &q[i].q.as_chunks::<4>().0[..dim / 4]);
    let mut at = 0;
    while at < BLOCK {
        let mut acc = [[I::F::splat(0.0); N]; Q];
        for step in 0..dim / 32 {
            // What the bias of the keys adds too much is there at the start.
            let mut isum = [[isa.zero(); N]; Q];
            for i in 0..Q {
                let sums = [q[i].sums[2 * step], q[i].sums[2 * step + 1]];
                isum[i] = [isa.dot_pairs(isa.zero(), isa.splat16(-I::BIAS as i16), sums); N];
            }
            let first = at / (N * I::LANES) * (dim / 4) + step * 8;
            unrolled!(quad in 8, at most 8 => {
                ahead.share(isa, first + quad);
                let k = &quants[((step * 8 + quad) * BLOCK + at) * 4..][..N * I::LANES * 4];
                let mut keys = [isa.zero(); N];
                for n in 0..N {
                    keys[n] = isa.biased(isa.load(&k[n * I::LANES * 4..]));
                }
                for i in 0..Q {
                    add_quad(isa, true, &mut isum[i], &keys, &bytes[i][step * 8..][..8], quad);
                }
            });
            let d = &scales[(step * BLOCK + at) * 2..][..N * I::LANES * 2];
            for n in 0..N {
                let d = isa.load_f16(&d[n * I::LANES * 2..]);
                for i in 0..Q {
                    let d = d.mul(I::F::splat(q[i].d[step]));
                    acc[i][n] = acc[i][n].add(d.mul(isa.to_f(isum[i][n])));
                }
            }
        }
        for i in 0..Q {
            for n in 0..N {
                isa.store_f(acc[i][n], &mut score[i][at + n * I::LANES..]);
            }
        }
        at += N * I::LANES;
    }
}

/// Where the visible positions begin and end, if some are not.
#[inline(always)]
fn ends<I: Isa>(visible: &Range<usize>) -> Option<(I::F, I::F)> {
    (visible.len() < BLOCK).then(|| (I::F::splat(visible.start as f32), I::F::splat(visible.end as f32)))
}

/// Scales and caps the scores of query number `index` and takes off what distance does, those of positions that are not
/// visible to minus infinity; the largest, m.
#[inline(always)]
fn scale<I: Isa>(
    isa: I,
    queries: &Queries<'_>,
    index: usize,
    visible: &Range<usize>,
    score: &mut [f32; BLOCK],
) -> f32 {
    let lowest = I::F::splat(f32::NEG_INFINITY);
    let ends = ends::<I>(visible);
    let scale = I::F::splat(queries.scale);
    let mut max = lowest;
    for v in 0..BLOCK / I::LANES {
        let at = v * I::LANES;
        let mut s = isa.load_f(&score[at..]).mul(scale);
        if let Some(cap) = queries.softcap {
            let cap = I::F::splat(cap);
            s = cap.mul(tanh(s.div(cap)));
        }
        if let Some(distance) = queries.distance {
            let (slope, position) = distance.of(index);
            let away = I::F::splat(position).sub(isa.load_f(&POSITIONS[at..])).abs();
            s = s.sub(I::F::splat(slope).mul(away));
        }
        if let Some(ends) = ends {
            s = select(isa, at, ends, s, lowest);
        }
        isa.store_f(s, &mut score[at..]);
        max = isa.max_f(max, s);
    }
    isa.max_lane(max) + 0.0
}

/// Scores to `p = exp(score - m)`, +0.0 where not visible; their sum, l.
#[inline(always)]
fn exponentials<I: Isa>(isa: I, visible: &Range<usize>, m: f32, p: &mut [f32; BLOCK]) -> f32 {
    let ends = ends::<I>(visible);
    let max = I::F::splat(m);
    let parts = 16 / I::LANES;
    let mut partial = [I::F::splat(0.0); 4];
    for v in 0..BLOCK / I::LANES {
        let at = v * I::LANES;
        let mut e = exp(isa.load_f(&p[at..]).sub(max));
        if let Some(ends) = ends {
            e = select(isa, at, ends, e, I::F::splat(0.0));
        }
        partial[v % parts] = partial[v % parts].add(e);
        isa.store_f(e, &mut p[at..]);
    }
    // Here too the sum has the shape of a sum of 16 numbers: +0.0 + e is e, an exponential is never -0.0.
    sum_lanes(isa, &partial)
}

/// Lane by lane `shown` where the position is visible, else `hidden`; the vector of positions that starts at `at`.
#[inline(always)]
fn select<I: Isa>(isa: I, at: usize, (start, end): (I::F, I::F), shown: I::F, hidden: I::F) -> I::F {
    let position = isa.load_f(&POSITIONS[at..]);
    position.less(end, position.less(start, hidden, shown), hidden)
}

/// `o[d] = sum of p[j] * v[j][d]` over the positions seen, joined to what is there. Prefetches `next`, the next block's
/// values.
#[inline(always)]
fn weigh<I: Isa, R: CachedRows, const Q: usize>(
    isa: I,
    p: &[[f32; BLOCK]; Q],
    v: R,
    dim_v: usize,
    (seen, next): (Range<usize>, &[u8]),
    merged: &Merged,
    o: &mut [f32],
) {
    let mut d = 0;
    let width = WIDE * I::LANES;
    let ahead = Prefetch::new(next, dim_v / width * seen.len());
    while d + width <= dim_v {
        columns::<I, R, Q, WIDE>(isa, p, v, (d, dim_v), (seen.clone(), ahead), merged, o);
        d += width;
    }
    let ahead = Prefetch::new(&[], 1);
    while d + I::LANES <= dim_v {
        columns::<I, R, Q, 1>(isa, p, v, (d, dim_v), (seen.clone(), ahead), merged, o);
        d += I::LANES;
    }
    for d in d..dim_v {
        for i in 0..Q {
            let mut later = 0.0;
            for j in seen.clone() {
                later += p[i][j] * v.get(j, d);
            }
            let o = &mut o[i * dim_v + d];
            *o = if merged.empty[i] {
                later
            } else {
                *o * merged.a[i] + later * merged.b[i]
            };
        }
    }
}

/// N vectors of o, from number `d` on.
#[inline(always)]
fn columns<I: Isa, R: CachedRows, const Q: usize, const N: usize>(
    isa: I,
    p: &[[f32; BLOCK]; Q],
    v: R,
    (d, dim_v): (usize, usize),
    (seen, ahead): (Range<usize>, Prefetch<'_>),
    merged: &Merged,
    o: &mut [f32],
) {
    let mut acc = [[I::F::splat(0.0); N]; Q];
    let first = d / (N * I::LANES) * seen.len();
    for j in seen.start..seen.end.min(BLOCK) {
        ahead.share(isa, first + j - seen.start);
        let v = v.load::<I, N>(isa, j, d);
        for i in 0..Q {
            for n in 0..N {
                acc[i][n] = isa.add_times(acc[i][n], v[n], &p[i][j]);
            }
        }
    }
    for i in 0..Q {
        let o = &mut o[i * dim_v + d..][..N * I::LANES];
        let (a, b) = (I::F::splat(merged.a[i]), I::F::splat(merged.b[i]));
        for n in 0..N {
            let o = &mut o[n * I::LANES..];
            let sum = if merged.empty[i] {
                acc[i][n]
            } else {
                isa.load_f(o).mul(a).add(acc[i][n].mul(b))
            };
            isa.store_f(sum, o);
        }
    }
}
