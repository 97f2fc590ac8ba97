//! The types of one or two bits per weight without codebooks: tq1_0, tq2_0 (ternary), q1_0, q2_0.
//!
//! ```text
//!   tq1_0  qs 48 | qh 4 | d f16     256 weights: w = d * (trit - 1)
//!            a byte is a fraction of 256 whose base-3 digits are 5 trits (4 in qh), the first weight's digit first:
//!            digit n of byte b is ((b * 3^n mod 256) * 3) >> 8
//!            qs bytes 0..32: digit n of byte j is weight 32*n + j; bytes 32..48: weight 160 + 16*n + j;
//!            qh: weight 240 + 4*n + j
//!   tq2_0  qs 64 | d f16            256 weights: w = d * (q - 1); bits as in q2_k
//!   q1_0   d f16 | qs 16            128 weights: w = bit ? d : -d; bit i of byte j is weight 8*j + i
//!   q2_0   d f16 | qs 16            64 weights: w = d * (q - 1); byte j holds weights 4*j .. 4*j + 4 from its low bits
//! ```
//!
//! Source: `block_tq1_0` and its siblings in ggml's `ggml-common.h`.

use super::step::{Step, f16_at, plain};

pub(super) fn tq1_0(b: &[u8; 54], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 52));
    trits::<32>(&b[..32], &mut out.q[..160]);
    trits::<16>(&b[32..48], &mut out.q[160..240]);
    trits::<4>(&b[48..52], &mut out.q[240..]);
}

/// Digit n of byte j goes to place `n * bytes.len() + j`.
///
/// `(3 * b) >> 8` is how many of 86 and 171 are at most b: in bytes, where a vector holds most of them.
#[inline(always)]
fn trits<const N: usize>(bytes: &[u8], q: &mut [i8]) {
    let mut fractions: [u8; N] = std::array::from_fn(|j| bytes[j]);
    for q in q.as_chunks_mut::<N>().0 {
        for (q, b) in q.iter_mut().zip(&mut fractions) {
            *q = i8::from(*b >= 86) + i8::from(*b >= 171) - 1;
            *b = b.wrapping_add(*b).wrapping_add(*b);
        }
    }
}

pub(super) fn tq2_0(b: &[u8; 66], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 64));
    let quarters = out.q.as_chunks_mut::<32>().0.as_chunks_mut::<4>().0;
    for (half, q) in b[..64].as_chunks::<32>().0.iter().zip(quarters) {
        for (shift, q) in q.iter_mut().enumerate() {
            for (q, &b) in q.iter_mut().zip(half) {
                *q = ((b >> (2 * shift)) & 3) as i8 - 1;
            }
        }
    }
}

/// 8 weights of q1_0 by their bits.
static SIGNS: [[i8; 8]; 256] = {
    let mut signs = [[-1; 8]; 256];
    let mut i = 0;
    while i < 8 * 256 {
        if (i / 8) >> (i % 8) & 1 == 1 {
            signs[i / 8][i % 8] = 1;
        }
        i += 1;
    }
    signs
};

/// 4 weights of q2_0 by their bits.
static QUARTERS: [[i8; 4]; 256] = {
    let mut quarters = [[0; 4]; 256];
    let mut i = 0;
    while i < 4 * 256 {
        quarters[i / 4][i % 4] = ((i / 4) >> (2 * (i % 4)) & 3) as i8 - 1;
        i += 1;
    }
    quarters
};

pub(super) fn q1_0(b: &[u8; 18], quarter: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    let bytes = &b[2 + 4 * (quarter % 4)..][..4];
    for (q, &b) in out.q.as_chunks_mut().0.iter_mut().zip(bytes) {
        *q = SIGNS[usize::from(b)];
    }
}

pub(super) fn q2_0(b: &[u8; 18], half: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    let bytes = &b[2 + 8 * (half % 2)..][..8];
    for (q, &b) in out.q.as_chunks_mut().0.iter_mut().zip(bytes) {
        *q = QUARTERS[usize::from(b)];
    }
}
