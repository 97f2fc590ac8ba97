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
//!   q2_0   d f16 | qs 16            64 weights: w = d * (q - 1); byte j holds weights 4*j .. 4*j + 4 from its low bits up
//! ```
//!
//! Source: `block_tq1_0` and its siblings in ggml's `ggml-common.h`.

use super::step::{Step, f16_at, plain};

pub(super) fn tq1_0(b: &[u8; 54], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 52));
    trits(&b[..32], &mut out.q[..160]);
    trits(&b[32..48], &mut out.q[160..240]);
    trits(&b[48..52], &mut out.q[240..]);
}

/// Digit n of byte j goes to place `n * bytes.len() + j`.
#[inline(always)]
fn trits(bytes: &[u8], q: &mut [i8]) {
    let mut power = 1u8;
    for q in q.chunks_exact_mut(bytes.len()) {
        for (q, &b) in q.iter_mut().zip(bytes) {
            *q = ((u16::from(b.wrapping_mul(power)) * 3) >> 8) as i8 - 1;
        }
        power = power.wrapping_mul(3);
    }
}

pub(super) fn tq2_0(b: &[u8; 66], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 64));
    for (half, q) in b[..64].chunks_exact(32).zip(out.q.chunks_exact_mut(128)) {
        for (shift, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, &b) in q.iter_mut().zip(half) {
                *q = ((b >> (2 * shift)) & 3) as i8 - 1;
            }
        }
    }
}

pub(super) fn q1_0(b: &[u8; 18], quarter: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    let bytes = &b[2 + 4 * (quarter % 4)..][..4];
    for (q, &b) in out.q.chunks_exact_mut(8).zip(bytes) {
        for (i, q) in q.iter_mut().enumerate() {
            *q = 2 * ((b >> i) & 1) as i8 - 1;
        }
    }
}

pub(super) fn q2_0(b: &[u8; 18], half: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    let bytes = &b[2 + 8 * (half % 2)..][..8];
    for (q, &b) in out.q.chunks_exact_mut(4).zip(bytes) {
        for (i, q) in q.iter_mut().enumerate() {
            *q = ((b >> (2 * i)) & 3) as i8 - 1;
        }
    }
}
