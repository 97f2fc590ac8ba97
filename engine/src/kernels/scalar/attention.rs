//! Scalar definition of attention: one query head against one block of 64 positions, and the merge of partial results.

use std::ops::Range;

use half::f16;

use crate::kernels::shared::functions::{exp, sum16, tanh};
use crate::kernels::{BLOCK, KvBlock, KvData, Partial, Query};

impl KvData<'_> {
    /// Number `i` of the page, as f32 (exact).
    fn get(&self, i: usize) -> f32 {
        match self {
            KvData::F32(v) => v[i],
            KvData::F16(v) => f16::from_bits(v[i]).to_f32(),
        }
    }
}

pub(super) fn attend(query: &Query<'_>, block: &KvBlock<'_>, visible: Range<usize>, out: &mut Partial) {
    // Scores: sequential in d, positions in lanes, as a float-weight matmul.
    let mut score = [0.0f32; BLOCK];
    for (d, q) in query.q.iter().enumerate() {
        for j in visible.clone() {
            score[j] += q * block.k.get(d * BLOCK + j);
        }
    }
    let mut m = f32::NEG_INFINITY;
    for s in &mut score[visible.clone()] {
        *s *= query.scale;
        if let Some(cap) = query.softcap {
            *s = cap * tanh(*s / cap);
        }
        if m < *s {
            m = *s;
        }
    }
    // Masked positions are selected out: their p is +0.0 in the sum and they add nothing to o.
    let mut p = [0.0f32; BLOCK];
    for j in visible.clone() {
        p[j] = exp(score[j] - m);
    }
    out.m = m;
    out.l = sum16(BLOCK, |j| p[j]);
    let o = &mut out.o[..block.dim_v];
    o.fill(0.0);
    for j in visible {
        for (d, o) in o.iter_mut().enumerate() {
            *o += p[j] * block.v.get(j * block.dim_v + d);
        }
    }
}

#[inline(always)]
pub(in crate::kernels) fn merge(sum: &mut Partial, later: &Partial, dim_v: usize) {
    let m = if sum.m < later.m { later.m } else { sum.m };
    let (a, b) = (exp(sum.m - m), exp(later.m - m));
    sum.m = m;
    sum.l = sum.l * a + later.l * b;
    for (x, y) in sum.o[..dim_v].iter_mut().zip(&later.o[..dim_v]) {
        *x = *x * a + *y * b;
    }
}
