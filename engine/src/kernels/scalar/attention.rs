//! Scalar definition of attention: one query against one block of 64 positions, and the merge of partial results.

use std::ops::Range;

use half::f16;

use crate::kernels::functions::{exp, sum16, tanh};
use crate::kernels::{BLOCK, KvBlock, KvData, MAX_HEAD_DIM, Partials, QuantizedQueries, Queries};

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
    /// Half precision bits to f32: exponent and fraction moved into place, then the difference of the biases as an
    /// exact power of two. Denormals come out right, and there is no branch.
    fn get(self) -> f32 {
        let magnitude = f32::from_bits(u32::from(self & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        f32::from_bits(magnitude.to_bits() | u32::from(self & 0x8000) << 16)
    }
}

/// See [`crate::kernels::Backend::attend`].
pub(super) fn attend(
    queries: &Queries<'_>,
    visible: &[Range<usize>],
    block: &KvBlock<'_>,
    sum: &mut Partials<'_>,
) {
    let mut o = [0.0f32; MAX_HEAD_DIM];
    for index in 0..visible.len() * queries.heads {
        let visible = &visible[index / queries.heads];
        if visible.is_empty() {
            continue;
        }
        let (mut m, mut l) = ([0.0], [0.0]);
        let mut later = Partials {
            m: &mut m,
            l: &mut l,
            o: &mut o[..block.dim_v],
        };
        attend_one(queries, index, block, visible.clone(), &mut later);
        merge(&mut sum.part(index..index + 1), &later);
    }
}

/// One query against one block: (m, l, o) from zero.
fn attend_one(
    queries: &Queries<'_>,
    index: usize,
    block: &KvBlock<'_>,
    visible: Range<usize>,
    out: &mut Partials<'_>,
) {
    let mut score = [0.0f32; BLOCK];
    let q = queries.query(index);
    match block.k {
        KvData::F32(k) => scores(q, k, visible.clone(), &mut score),
        KvData::F16(k) => scores(q, k, visible.clone(), &mut score),
        KvData::Q8(k) => {
            let q = queries.quantized.query(index, queries.dim_k);
            scores_q8(&q, k, visible.clone(), &mut score);
        }
    }
    let mut m = f32::NEG_INFINITY;
    let distance = queries.distance.map(|distance| distance.of(index));
    for j in visible.clone() {
        let s = &mut score[j];
        *s *= queries.scale;
        if let Some(cap) = queries.softcap {
            *s = cap * tanh(*s / cap);
        }
        if let Some((slope, position)) = distance {
            *s -= slope * (position - j as f32).abs();
        }
        if m < *s {
            m = *s;
        }
    }
    // A maximum of -0.0 becomes +0.0: scores are then the same whichever zero was met first.
    m += 0.0;
    // Masked positions are selected out: their p is +0.0 in the sum and they add nothing to o.
    let mut p = [0.0f32; BLOCK];
    for j in visible.clone() {
        p[j] = exp(score[j] - m);
    }
    out.m[0] = m;
    out.l[0] = sum16(BLOCK, |j| p[j]);
    match block.v {
        KvData::F32(v) => weighted(&p, v, visible, out.o),
        KvData::F16(v) => weighted(&p, v, visible, out.o),
        KvData::Q8(v) => weighted_q8(&p, v, visible, out.o),
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

/// Scale number `index` of a page's second part.
fn q8_scale(scales: &[u8], index: usize) -> f32 {
    u16::from_le_bytes([scales[2 * index], scales[2 * index + 1]]).get()
}

/// `score[j] = sum over steps of 32 d of (d_k * d_q) * isum`, sequential, as a matmul with steps of 32.
fn scores_q8(q: &QuantizedQueries<'_>, k: &[u8], visible: Range<usize>, score: &mut [f32; BLOCK]) {
    let dim = q.q.len();
    let (quants, scales) = k.split_at(dim * BLOCK);
    for (j, score) in score.iter_mut().enumerate().take(visible.end).skip(visible.start) {
        for step in 0..dim / 32 {
            let mut isum = 0i32;
            for d in step * 32..(step + 1) * 32 {
                let k = quants[(d / 4 * BLOCK + j) * 4 + d % 4] as i8;
                isum += i32::from(q.q[d]) * i32::from(k);
            }
            *score += (q8_scale(scales, step * BLOCK + j) * q.d[step]) * isum as f32;
        }
    }
}

/// As [`weighted`]; `v = d * q`, which is exact: 11 bits times 7.
fn weighted_q8(p: &[f32; BLOCK], v: &[u8], visible: Range<usize>, o: &mut [f32]) {
    let dim = o.len();
    let (quants, scales) = v.split_at(dim * BLOCK);
    o.fill(0.0);
    for j in visible {
        for (d, o) in o.iter_mut().enumerate() {
            let scale = q8_scale(scales, j * (dim / 32) + d / 32);
            *o += p[j] * (scale * f32::from(quants[j * dim + d] as i8));
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

/// See [`crate::kernels::Backend::merge`].
pub(super) fn merge(sum: &mut Partials<'_>, later: &Partials<'_>) {
    let dim_v = sum.o.len() / sum.m.len();
    for (index, (o, later_o)) in sum
        .o
        .chunks_exact_mut(dim_v)
        .zip(later.o.chunks_exact(dim_v))
        .enumerate()
    {
        if later.l[index] == 0.0 {
            continue;
        }
        if sum.l[index] == 0.0 {
            (sum.m[index], sum.l[index]) = (later.m[index], later.l[index]);
            o.copy_from_slice(later_o);
            continue;
        }
        let (m1, m2) = (sum.m[index], later.m[index]);
        let m = if m1 < m2 { m2 } else { m1 };
        let (a, b) = (exp(m1 - m), exp(m2 - m));
        sum.m[index] = m;
        sum.l[index] = sum.l[index] * a + later.l[index] * b;
        for (x, y) in o.iter_mut().zip(later_o) {
            *x = *x * a + *y * b;
        }
    }
}

/// See [`crate::kernels::Backend::to_halves`].
pub(in crate::kernels) fn to_halves(x: &[f32], out: &mut [u16]) -> bool {
    let mut finite = true;
    for (x, out) in x.iter().zip(out) {
        let half = f16::from_f32(*x);
        finite &= half.is_finite();
        *out = half.to_bits();
    }
    finite
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
