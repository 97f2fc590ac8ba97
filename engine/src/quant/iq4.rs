//! The 4-bit types over a table of 16 unevenly spaced values: iq4_nl, iq4_xs.
//!
//! ```text
//!   iq4_nl  d f16 | qs 16                                     32 weights: w = d * VALUES[q]
//!   iq4_xs  d f16 | scales_h u16 | scales_l 4 | qs 128        8 groups of 32: w = d * (ls - 32) * VALUES[q]
//!             ls of group g: nibble g of scales_l, above it bits 2g, 2g + 1 of scales_h
//! ```
//!
//! Of every 16 bytes `qs`, byte j holds weight j in its low and weight j + 16 in its high nibble.
//!
//! Source: `block_iq4_nl`, `block_iq4_xs` and `kvalues_iq4nl` in ggml's `ggml-common.h`.

use super::legacy::half_bytes;
use super::step::{Step, f16_at, plain};

/// The values that the 16 codes stand for.
pub(crate) const VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

#[inline(always)]
fn values(qs: &[u8], q: &mut [i8]) {
    for (bytes, q) in qs.chunks_exact(16).zip(q.chunks_exact_mut(32)) {
        for (j, &b) in bytes.iter().enumerate() {
            q[j] = VALUES[usize::from(b & 15)];
            q[j + 16] = VALUES[usize::from(b >> 4)];
        }
    }
}

pub(super) fn iq4_nl(b: &[u8; 18], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    values(&b[2..], &mut out.q);
}

pub(super) fn iq4_xs(b: &[u8; 136], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    let high = u16::from_le_bytes([b[2], b[3]]);
    for g in 0..8 {
        let low = (b[4 + g / 2] >> (4 * (g % 2))) & 15;
        let ls = low | ((((high >> (2 * g)) & 3) as u8) << 4);
        out.scale[2 * g] = ls as i8 - 32;
        out.scale[2 * g + 1] = ls as i8 - 32;
    }
    values(&b[8..], &mut out.q);
}

/// The code of a value of the table: how many values lie below it.
fn code(value: i8) -> u8 {
    VALUES[..15].iter().fold(0, |n, &v| n + u8::from(v < value))
}

fn pack_values(q: &[i8], qs: &mut [u8]) {
    for (bytes, q) in qs.chunks_exact_mut(16).zip(q.chunks_exact(32)) {
        for (j, b) in bytes.iter_mut().enumerate() {
            *b = code(q[j]) | code(q[j + 16]) << 4;
        }
    }
}

pub(super) fn pack_iq4_nl(s: &Step, b: &mut [u8; 18]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    pack_values(&s.q[..32], &mut b[2..]);
}

pub(super) fn pack_iq4_xs(s: &Step, b: &mut [u8; 136]) {
    b[..2].copy_from_slice(&half_bytes(s.d));
    let mut high = 0u16;
    for g in 0..8 {
        let ls = (s.scale[2 * g] + 32) as u8;
        high |= u16::from((ls >> 4) & 3) << (2 * g);
        let low = (ls & 15) << (4 * (g % 2));
        b[4 + g / 2] = if g % 2 == 0 { low } else { b[4 + g / 2] | low };
    }
    b[2..4].copy_from_slice(&high.to_le_bytes());
    pack_values(&s.q, &mut b[8..]);
}
