//! Scalar definition of attention: one query head against one block of 64 positions, and the merge of partial results.

use std::ops::Range;

use crate::kernels::shared::functions::{exp, sum16, tanh};
use crate::kernels::{BLOCK, KvBlock, KvData, Partial, Query};

/// A number of a cache page, all of which are finite.
trait Cached: Copy {
    fn get(self) -> f32;
}

impl Cached for f32 {
    fn get(self) -> f32 {
        self
    }
}

impl Cached for u16 {
    /// Half precision bits to f32: exponent and fraction moved into place, then the difference of the biases as an exact
    /// power of two. Denormals come out right, and there is no branch.
    fn get(self) -> f32 {
        let magnitude = f32::from_bits(u32::from(self & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        f32::from_bits(magnitude.to_bits() | u32::from(self & 0x8000) << 16)
    }
}

pub(super) fn attend(query: &Query<'_>, block: &KvBlock<'_>, visible: Range<usize>, out: &mut Partial) {
    let mut score = [0.0f32; BLOCK];
    match block.k {
        KvData::F32(k) => scores(query.q, k, visible.clone(), &mut score),
        KvData::F16(k) => scores(query.q, k, visible.clone(), &mut score),
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
    match block.v {
        KvData::F32(v) => weighted(&p, v, visible, o),
        KvData::F16(v) => weighted(&p, v, visible, o),
    }
}

/// `score[j] = sum over d of q[d] * k[d][j]`: sequential in d, positions side by side, as a float-weight matmul.
fn scores<T: Cached>(q: &[f32], k: &[T], visible: Range<usize>, score: &mut [f32; BLOCK]) {
    for (q, k) in q.iter().zip(k.chunks_exact(BLOCK)) {
        for (score, k) in score[visible.clone()].iter_mut().zip(&k[visible.clone()]) {
            *score += q * k.get();
        }
    }
}

/// `o[d] = sum over visible j of p[j] * v[j][d]`: sequential in j.
fn weighted<T: Cached>(p: &[f32; BLOCK], v: &[T], visible: Range<usize>, o: &mut [f32]) {
    o.fill(0.0);
    let rows = v
        .chunks_exact(o.len())
        .zip(p)
        .take(visible.end)
        .skip(visible.start);
    for (v, p) in rows {
        for (o, v) in o.iter_mut().zip(v) {
            *o += p * v.get();
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

#[cfg(test)]
mod tests {
    use super::Cached;

    #[test]
    fn half_precision_is_read_exactly() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits);
            if want.is_finite() {
                assert_eq!(bits.get().to_bits(), want.to_f32().to_bits(), "{bits:#06x}");
            }
        }
    }
}
