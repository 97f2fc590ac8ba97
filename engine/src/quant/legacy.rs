//! The block types of 32 weights with one scale: q4_0, q4_1, q5_0, q5_1, q8_0.
//!
//! ```text
//!   q4_0  d f16 | qs 16 bytes                          w = d * (q - 8)
//!   q4_1  d f16 | m f16 | qs 16 bytes                  w = d * q + m
//!   q5_0  d f16 | qh u32 | qs 16 bytes                 w = d * (q - 16)
//!   q5_1  d f16 | m f16 | qh u32 | qs 16 bytes         w = d * q + m
//!   q8_0  d f16 | qs 32 i8                             w = d * q
//! ```
//!
//! `qs[j]` holds weight j in its low and weight j + 16 in its high nibble; bit j of `qh` is the fifth bit of weight j.
//!
//! Source: `block_q4_0` and its siblings in ggml's `ggml-common.h`.

use super::step::{Step, f16_at, plain};

/// Puts nibbles, less `offset`, where they belong.
#[inline(always)]
fn nibbles(qs: &[u8], offset: i8, q: &mut [i8; 256]) {
    for (j, &b) in qs[..16].iter().enumerate() {
        q[j] = (b & 15) as i8 - offset;
        q[j + 16] = (b >> 4) as i8 - offset;
    }
}

/// Puts five-bit numbers, less `offset`, where they belong.
#[inline(always)]
fn five_bits(qh: u32, qs: &[u8], offset: i8, q: &mut [i8; 256]) {
    for (j, &b) in qs[..16].iter().enumerate() {
        let low = (qh >> j) & 1;
        let high = (qh >> (j + 16)) & 1;
        q[j] = ((b & 15) | (low << 4) as u8) as i8 - offset;
        q[j + 16] = ((b >> 4) | (high << 4) as u8) as i8 - offset;
    }
}

/// What a step with an offset `m` has beside `q`: the minimum is 1 and its factor -m.
#[inline(always)]
fn with_offset(out: &mut Step, d: f32, m: f32) {
    out.scale = [1; 16];
    out.min = [1; 16];
    out.d = d;
    out.dmin = -m;
}

pub(super) fn q4_0(b: &[u8; 18], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    nibbles(&b[2..], 8, &mut out.q);
}

pub(super) fn q4_1(b: &[u8; 20], _: usize, out: &mut Step) {
    with_offset(out, f16_at(b, 0), f16_at(b, 2));
    nibbles(&b[4..], 0, &mut out.q);
}

pub(super) fn q5_0(b: &[u8; 22], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    let qh = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
    five_bits(qh, &b[6..], 16, &mut out.q);
}

pub(super) fn q5_1(b: &[u8; 24], _: usize, out: &mut Step) {
    with_offset(out, f16_at(b, 0), f16_at(b, 2));
    let qh = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
    five_bits(qh, &b[8..], 0, &mut out.q);
}

pub(super) fn q8_0(b: &[u8; 34], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    for (q, &v) in out.q.iter_mut().zip(&b[2..]) {
        *q = v as i8;
    }
}

/// Half-precision bytes of a number that half precision holds exactly.
pub(super) fn half_bytes(v: f32) -> [u8; 2] {
    half::f16::from_f32_const(v).to_le_bytes()
}

fn pack_nibbles(q: &[i8; 256], offset: i8, qs: &mut [u8]) {
    for (j, b) in qs[..16].iter_mut().enumerate() {
        *b = ((q[j] + offset) as u8 & 15) | ((q[j + 16] + offset) as u8) << 4;
    }
}

/// The fifth bits.
fn high_bits(q: &[i8; 256], offset: i8) -> [u8; 4] {
    let mut bits = 0u32;
    for (j, &q) in q[..32].iter().enumerate() {
        bits |= ((((q + offset) as u32) >> 4) & 1) << j;
    }
    bits.to_le_bytes()
}

pub(super) fn pack_q4_0(s: &Step, b: &mut [u8; 18]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    pack_nibbles(&s.q, 8, &mut b[2..]);
}

pub(super) fn pack_q4_1(s: &Step, b: &mut [u8; 20]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    b[2..4].copy_from_slice(&half_bytes(-s.dmin));
    pack_nibbles(&s.q, 0, &mut b[4..]);
}

pub(super) fn pack_q5_0(s: &Step, b: &mut [u8; 22]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    b[2..6].copy_from_slice(&high_bits(&s.q, 16));
    pack_nibbles(&s.q, 16, &mut b[6..]);
}

pub(super) fn pack_q5_1(s: &Step, b: &mut [u8; 24]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    b[2..4].copy_from_slice(&half_bytes(-s.dmin));
    b[4..8].copy_from_slice(&high_bits(&s.q, 0));
    pack_nibbles(&s.q, 0, &mut b[8..]);
}

pub(super) fn pack_q8_0(s: &Step, b: &mut [u8; 34]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    for (b, &q) in b[2..].iter_mut().zip(&s.q) {
        *b = q as u8;
    }
}
