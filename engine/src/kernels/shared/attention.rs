//! One query head against one block of 64 positions, over lanes: positions in lanes for the scores (sequential in d), d in
//! lanes for the output (sequential in position). Nothing is summed across lanes but by the contract's tree.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use half::f16;

use super::functions::{Lanes, exp, sum16, tanh};
use super::isa::{Isa, Op};
use crate::kernels::scalar::attention as scalar;
use crate::kernels::{BLOCK, KvBlock, KvData, Partial, Query};

/// Most vectors that 64 positions take: 4 lanes each.
const VECTORS: usize = 16;

const POSITIONS: [f32; BLOCK] = {
    let mut positions = [0.0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        positions[i] = i as f32;
        i += 1;
    }
    positions
};

/// A number as the cache holds it.
trait Stored: Copy {
    fn load<I: Isa>(isa: I, v: &[Self]) -> I::F;
    fn get(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, v: &[Self]) -> I::F {
        isa.load_f(v)
    }
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
}

impl Stored for u16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, v: &[Self]) -> I::F {
        isa.load_halves(v)
    }
    #[inline(always)]
    fn get(self) -> f32 {
        f16::from_bits(self).to_f32_const()
    }
}

pub(super) struct Attend<'a, 'b> {
    pub(super) query: &'a Query<'b>,
    pub(super) block: &'a KvBlock<'b>,
    pub(super) visible: Range<usize>,
    pub(super) out: &'a mut Partial,
}

impl<I: Isa> Op<I> for Attend<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let Attend {
            query,
            block,
            visible,
            out,
        } = self;
        let mut p = [0.0f32; BLOCK];
        match block.k {
            KvData::F32(k) => scores(isa, query, k, &visible, &mut p, out),
            KvData::F16(k) => scores(isa, query, k, &visible, &mut p, out),
        }
        match block.v {
            KvData::F32(v) => weigh(isa, &p, v, block.dim_v, visible, out),
            KvData::F16(v) => weigh(isa, &p, v, block.dim_v, visible, out),
        }
    }
}

/// `p = exp(score - m)`, +0.0 where not visible; sets `out.m` and `out.l`.
#[inline(always)]
fn scores<I: Isa, T: Stored>(
    isa: I,
    query: &Query<'_>,
    k: &[T],
    visible: &Range<usize>,
    p: &mut [f32; BLOCK],
    out: &mut Partial,
) {
    let vectors = BLOCK / I::ROWS;
    let mut score = [I::F::splat(0.0); VECTORS];
    for (q, k) in query.q.iter().zip(k.as_chunks::<BLOCK>().0) {
        let q = I::F::splat(*q);
        for v in 0..vectors {
            score[v] = score[v].add(q.mul(T::load(isa, &k[v * I::ROWS..])));
        }
    }
    let (start, end) = (I::F::splat(visible.start as f32), I::F::splat(visible.end as f32));
    let lowest = I::F::splat(f32::NEG_INFINITY);
    let mut max = lowest;
    for v in 0..vectors {
        let mut s = score[v].mul(I::F::splat(query.scale));
        if let Some(cap) = query.softcap {
            let cap = I::F::splat(cap);
            s = cap.mul(tanh(s.div(cap)));
        }
        score[v] = select(isa, v, (start, end), s, lowest);
        max = max.less(score[v], score[v], max);
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    isa.store_f(max, &mut lanes);
    let mut m = f32::NEG_INFINITY;
    for s in &lanes[..I::ROWS] {
        if m < *s {
            m = *s;
        }
    }
    if m == 0.0 {
        // 0 and -0 compare equal, and the definition takes the first: look in order.
        for v in 0..vectors {
            isa.store_f(score[v], &mut p[v * I::ROWS..]);
        }
        m = p[visible.clone()]
            .iter()
            .copied()
            .find(|s| *s == 0.0)
            .unwrap_or(m);
    }
    let mut partial = [I::F::splat(0.0); 4];
    let parts = 16 / I::ROWS;
    for v in 0..vectors {
        let e = exp(score[v].sub(I::F::splat(m)));
        let e = select(isa, v, (start, end), e, I::F::splat(0.0));
        partial[v % parts] = partial[v % parts].add(e);
        isa.store_f(e, &mut p[v * I::ROWS..]);
    }
    let mut lanes = [0.0f32; 16];
    for part in 0..parts {
        isa.store_f(partial[part], &mut lanes[part * I::ROWS..]);
    }
    out.m = m;
    // From here the sum has the shape of a sum of 16 numbers: +0.0 + e is e, an exponential is never -0.0.
    out.l = sum16(16, |i| lanes[i]);
}

/// Lane by lane `shown` where the position is visible, else `hidden`; vector `v` of the block.
#[inline(always)]
fn select<I: Isa>(isa: I, v: usize, (start, end): (I::F, I::F), shown: I::F, hidden: I::F) -> I::F {
    let position = isa.load_f(&POSITIONS[v * I::ROWS..]);
    position.less(end, position.less(start, hidden, shown), hidden)
}

/// `o[d] = sum of p[j] * v[j][d]` over visible j.
#[inline(always)]
fn weigh<I: Isa, T: Stored>(
    isa: I,
    p: &[f32; BLOCK],
    v: &[T],
    dim_v: usize,
    visible: Range<usize>,
    out: &mut Partial,
) {
    let mut d = 0;
    while d + 4 * I::ROWS <= dim_v {
        columns::<I, T, 4>(isa, p, v, (d, dim_v), &visible, out);
        d += 4 * I::ROWS;
    }
    while d + I::ROWS <= dim_v {
        columns::<I, T, 1>(isa, p, v, (d, dim_v), &visible, out);
        d += I::ROWS;
    }
    for d in d..dim_v {
        let mut o = 0.0;
        for j in visible.clone() {
            o += p[j] * v[j * dim_v + d].get();
        }
        out.o[d] = o;
    }
}

/// N vectors of o, from number `d` on.
#[inline(always)]
fn columns<I: Isa, T: Stored, const N: usize>(
    isa: I,
    p: &[f32; BLOCK],
    v: &[T],
    (d, dim_v): (usize, usize),
    visible: &Range<usize>,
    out: &mut Partial,
) {
    let mut o = [I::F::splat(0.0); N];
    for j in visible.clone() {
        let p = I::F::splat(p[j]);
        let v = &v[j * dim_v + d..][..N * I::ROWS];
        for i in 0..N {
            o[i] = o[i].add(p.mul(T::load(isa, &v[i * I::ROWS..])));
        }
    }
    for i in 0..N {
        isa.store_f(o[i], &mut out.o[d + i * I::ROWS..]);
    }
}

pub(super) struct Merge<'a> {
    pub(super) sum: &'a mut Partial,
    pub(super) later: &'a Partial,
    pub(super) dim_v: usize,
}

impl<I: Isa> Op<I> for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::merge(self.sum, self.later, self.dim_v);
    }
}
