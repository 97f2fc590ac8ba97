//! The K types: 256 weights, quantized scales per group of 16 or 32, floats for the whole block.
//!
//! ```text
//!   q2_k  scales 16 | qs 64 | d f16 | dmin f16             16 groups of 16: w = d * sc * q - dmin * m
//!           scales[g]: sc in the low, m in the high nibble
//!   q3_k  hmask 32 | qs 64 | scales 12 | d f16             16 groups of 16: w = d * (sc - 32) * q
//!           hmask: bit set = third bit present, i.e. q = low2 - (bit ? 0 : 4)
//!   q4_k  d f16 | dmin f16 | scales 12 | qs 128            8 groups of 32: w = d * sc * q - dmin * m
//!   q5_k  d f16 | dmin f16 | scales 12 | qh 32 | qs 128    the same with a fifth bit
//!   q6_k  ql 128 | qh 64 | scales 16 i8 | d f16            16 groups of 16: w = d * sc * (q - 32)
//!
//!   2-bit qs (q2_k, q3_k): byte 32*h + j (h 0..2) holds weights 128*h + j + {0, 32, 64, 96} from its low bits up
//!   1-bit qh/hmask: bit b of byte j belongs to weight 32*b + j
//!   4-bit qs (q4_k, q5_k): byte 32*c + j (c 0..4) holds weights 64*c + j (low) and 64*c + j + 32 (high)
//!   q6_k: ql byte 64*h + j (j 0..64) holds the low 4 bits of weights 128*h + j and 128*h + j + 64;
//!         qh byte 32*h + j holds the high 2 bits of weights 128*h + j + {0, 32, 64, 96}
//!
//!   q3_k scales: byte i (0..8) has the low 4 bits of scale i (low) and i + 8 (high);
//!         byte 8 + i (i 0..4) has the high 2 bits of scales i, i + 4, i + 8, i + 12
//!   q4_k, q5_k scales: byte i (0..4) has sc[i] in 6 bits, above them the high 2 bits of sc[i + 4];
//!         byte 4 + i has m[i] in 6 bits and the high 2 of m[i + 4];
//!         byte 8 + i the low 4 bits of sc[i + 4] and of m[i + 4]
//! ```
//!
//! Source: `block_q2_K` and its siblings in ggml's `ggml-common.h`, `get_scale_min_k4` in `ggml-quants.c`.

use super::legacy::half_bytes;
use super::step::{Step, f16_at};

/// The 2-bit numbers of q2_k and q3_k.
#[inline(always)]
fn two_bits(qs: &[u8], q: &mut [i8; 256]) {
    for (half, q) in qs[..64].chunks_exact(32).zip(q.chunks_exact_mut(128)) {
        for (shift, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, &b) in q.iter_mut().zip(half) {
                *q = ((b >> (2 * shift)) & 3) as i8;
            }
        }
    }
}

/// The nibbles of q4_k and q5_k.
#[inline(always)]
fn nibbles(qs: &[u8], q: &mut [i8; 256]) {
    for (bytes, q) in qs[..128].chunks_exact(32).zip(q.chunks_exact_mut(64)) {
        let (low, high) = q.split_at_mut(32);
        for ((low, high), &b) in low.iter_mut().zip(high).zip(bytes) {
            *low = (b & 15) as i8;
            *high = (b >> 4) as i8;
        }
    }
}

/// The six-bit scales and minima of q4_k and q5_k, one pair per 32 weights.
#[inline(always)]
pub(super) fn scales_and_mins(s: &[u8]) -> ([u8; 8], [u8; 8]) {
    let s = &s[..12];
    let (mut sc, mut m) = ([0; 8], [0; 8]);
    for i in 0..4 {
        sc[i] = s[i] & 63;
        m[i] = s[i + 4] & 63;
        sc[i + 4] = (s[i + 8] & 15) | ((s[i] >> 6) << 4);
        m[i + 4] = (s[i + 8] >> 4) | ((s[i + 4] >> 6) << 4);
    }
    (sc, m)
}

pub(super) fn q2_k(b: &[u8; 84], _: usize, out: &mut Step) {
    for (g, &s) in b[..16].iter().enumerate() {
        out.scale[g] = (s & 15) as i8;
        out.min[g] = s >> 4;
    }
    two_bits(&b[16..80], &mut out.q);
    out.d = f16_at(b, 80);
    out.dmin = f16_at(b, 82);
}

pub(super) fn q3_k(b: &[u8; 110], _: usize, out: &mut Step) {
    let (hmask, s) = (&b[..32], &b[96..108]);
    for g in 0..16 {
        let low = (s[g % 8] >> (4 * (g / 8))) & 15;
        let high = (s[8 + g % 4] >> (2 * (g / 4))) & 3;
        out.scale[g] = (low | (high << 4)) as i8 - 32;
    }
    out.min = [0; 16];
    two_bits(&b[32..96], &mut out.q);
    for (bit, q) in out.q.chunks_exact_mut(32).enumerate() {
        for (q, &h) in q.iter_mut().zip(hmask) {
            *q -= 4 - (((h >> bit) & 1) << 2) as i8;
        }
    }
    out.d = f16_at(b, 108);
    out.dmin = 0.0;
}

/// What q4_k and q5_k have beside `q`.
#[inline(always)]
fn head_of_q4_k(b: &[u8], out: &mut Step) {
    let (sc, m) = scales_and_mins(&b[4..16]);
    for g in 0..16 {
        out.scale[g] = sc[g / 2] as i8;
        out.min[g] = m[g / 2];
    }
}

pub(super) fn q4_k(b: &[u8; 144], _: usize, out: &mut Step) {
    out.d = f16_at(b, 0);
    out.dmin = f16_at(b, 2);
    head_of_q4_k(b, out);
    nibbles(&b[16..], &mut out.q);
}

pub(super) fn q5_k(b: &[u8; 176], _: usize, out: &mut Step) {
    out.d = f16_at(b, 0);
    out.dmin = f16_at(b, 2);
    head_of_q4_k(b, out);
    nibbles(&b[48..], &mut out.q);
    let qh = &b[16..48];
    for (bit, q) in out.q.chunks_exact_mut(32).enumerate() {
        for (q, &h) in q.iter_mut().zip(qh) {
            *q |= (((h >> bit) & 1) << 4) as i8;
        }
    }
}

pub(super) fn q6_k(b: &[u8; 210], _: usize, out: &mut Step) {
    let (ql, qh) = (&b[..128], &b[128..192]);
    for (h, q) in out.q.chunks_exact_mut(128).enumerate() {
        let (ql, qh) = (&ql[64 * h..][..64], &qh[32 * h..][..32]);
        for j in 0..32 {
            let high = qh[j];
            q[j] = ((ql[j] & 15) | ((high & 3) << 4)) as i8 - 32;
            q[j + 32] = ((ql[j + 32] & 15) | (((high >> 2) & 3) << 4)) as i8 - 32;
            q[j + 64] = ((ql[j] >> 4) | (((high >> 4) & 3) << 4)) as i8 - 32;
            q[j + 96] = ((ql[j + 32] >> 4) | ((high >> 6) << 4)) as i8 - 32;
        }
    }
    for (scale, &s) in out.scale.iter_mut().zip(&b[192..208]) {
        *scale = s as i8;
    }
    out.min = [0; 16];
    out.d = f16_at(b, 208);
    out.dmin = 0.0;
}

/// Writes `(q + offset)`'s two low bits as q2_k and q3_k have them.
fn pack_two_bits(q: &[i8; 256], offset: i8, qs: &mut [u8]) {
    for (half, q) in qs[..64].chunks_exact_mut(32).zip(q.chunks_exact(128)) {
        for (j, b) in half.iter_mut().enumerate() {
            *b = (0..4).fold(0, |b, i| b | ((((q[32 * i + j] + offset) as u8) & 3) << (2 * i)));
        }
    }
}

fn pack_nibbles(q: &[i8; 256], qs: &mut [u8]) {
    for (bytes, q) in qs[..128].chunks_exact_mut(32).zip(q.chunks_exact(64)) {
        for (j, b) in bytes.iter_mut().enumerate() {
            *b = (q[j] as u8 & 15) | (q[j + 32] as u8) << 4;
        }
    }
}

/// Bit `bit` of `q + offset`, gathered as in qh and hmask.
fn pack_one_bit(q: &[i8; 256], offset: i8, bit: u32, out: &mut [u8]) {
    for (j, b) in out[..32].iter_mut().enumerate() {
        *b = (0..8).fold(0, |b, i| b | ((((q[32 * i + j] + offset) as u8) >> bit) & 1) << i);
    }
}

pub(super) fn pack_q2_k(s: &Step, b: &mut [u8; 84]) {
    for (g, b) in b[..16].iter_mut().enumerate() {
        *b = (s.scale[g] as u8 & 15) | s.min[g] << 4;
    }
    pack_two_bits(&s.q, 0, &mut b[16..80]);
    b[80..82].copy_from_slice(&half_bytes(s.d));
    b[82..].copy_from_slice(&half_bytes(s.dmin));
}

pub(super) fn pack_q3_k(s: &Step, b: &mut [u8; 110]) {
    pack_one_bit(&s.q, 4, 2, &mut b[..32]);
    pack_two_bits(&s.q, 4, &mut b[32..96]);
    let scales = &mut b[96..108];
    scales.fill(0);
    for (g, &sc) in s.scale.iter().enumerate() {
        let sc = (sc + 32) as u8;
        scales[g % 8] |= (sc & 15) << (4 * (g / 8));
        scales[8 + g % 4] |= (sc >> 4) << (2 * (g / 4));
    }
    b[108..].copy_from_slice(&half_bytes(s.d));
}

/// The first 16 bytes of q4_k and q5_k.
fn pack_head_of_q4_k(s: &Step, b: &mut [u8]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    b[2..4].copy_from_slice(&half_bytes(s.dmin));
    let pair = |i: usize| (s.scale[2 * i] as u8 & 63, s.min[2 * i] & 63);
    for i in 0..4 {
        let ((sc, m), (sc4, m4)) = (pair(i), pair(i + 4));
        b[4 + i] = sc | (sc4 >> 4) << 6;
        b[8 + i] = m | (m4 >> 4) << 6;
        b[12 + i] = (sc4 & 15) | (m4 & 15) << 4;
    }
}

pub(super) fn pack_q4_k(s: &Step, b: &mut [u8; 144]) {
    pack_head_of_q4_k(s, b);
    pack_nibbles(&s.q, &mut b[16..]);
}

pub(super) fn pack_q5_k(s: &Step, b: &mut [u8; 176]) {
    pack_head_of_q4_k(s, b);
    pack_one_bit(&s.q, 0, 4, &mut b[16..48]);
    pack_nibbles(&s.q, &mut b[48..]);
}

pub(super) fn pack_q6_k(s: &Step, b: &mut [u8; 210]) {
    for (h, q) in s.q.chunks_exact(128).enumerate() {
        for j in 0..32 {
            let [q0, q1, q2, q3] = [0, 32, 64, 96].map(|at| (q[at + j] + 32) as u8);
            b[64 * h + j] = (q0 & 15) | (q2 & 15) << 4;
            b[64 * h + j + 32] = (q1 & 15) | (q3 & 15) << 4;
            b[128 + 32 * h + j] = q0 >> 4 | (q1 >> 4) << 2 | (q2 >> 4) << 4 | (q3 >> 4) << 6;
        }
    }
    for (b, &sc) in b[192..208].iter_mut().zip(&s.scale) {
        *b = sc as u8;
    }
    b[208..].copy_from_slice(&half_bytes(s.d));
}
