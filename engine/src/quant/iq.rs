//! The types over codebooks: iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s.
//!
//! ```text
//!   iq1_s    d f16 | qs 32 | qh 8 u16                      w = d * (2s + 1) * (grid + delta), groups of 32
//!              qh of group g: 4 times 3 high index bits, then s (3 bits), then the sign of delta (1/8)
//!   iq1_m    qs 32 | qh 16 | scales 4 u16                  the same, s per 16 weights, delta per 8
//!              a nibble of qh: 3 high index bits, the sign of delta; scales[i]: 4 times s (3 bits) and a quarter of d:
//!              d is the f16 whose nibbles are the top nibbles of scales[0..4], lowest first
//!   iq2_xxs  d f16 | 8 times (4 indices u8, u32)           w = d * (s + 1/2) / 4 * sign * grid, groups of 32
//!              u32: 4 times 7 bits of signs, s in the top 4 bits
//!   iq2_xs   d f16 | qs 32 u16 | scales 8                  s per 16 weights, a nibble
//!              qs: index (9 bits), signs (7 bits)
//!   iq2_s    d f16 | qs 32 | signs 32 | qh 8 | scales 8    s per 16 weights; qh: 4 times 2 high index bits
//!   iq3_xxs  d f16 | qs 64 | 8 u32                         w = d * (s + 1/2) / 2 * sign * grid, groups of 32
//!              u32 as in iq2_xxs; an index stands for 4 weights
//!   iq3_s    d f16 | qs 64 | qh 8 | signs 32 | scales 4    w = d * (2s + 1) * sign * grid, s per 32 weights, a nibble
//!              qh: a ninth bit of each index
//! ```
//!
//! An index stands for 8 weights (4 in iq3). Seven bits of signs stand for eight: the eighth makes their number even.
//! In the integer form the grid of iq1 is `8 * grid + 8 * delta` with d / 8, and iq2, iq3_xxs have `2s + 1` with d / 8, d / 4.
//!
//! Source: `block_iq1_s` and its siblings in ggml's `ggml-common.h`, `ggml-quants.c`.

use super::grids;
use super::step::{Step, f16_at, plain};

/// Seven sign bits with the eighth that makes the number of minus signs even.
#[inline(always)]
fn even_signs(bits: u32) -> u8 {
    let bits = (bits & 127) as u8;
    bits | (((bits.count_ones() & 1) as u8) << 7)
}

/// Writes grid points with signs: bit i set means minus.
#[inline(always)]
fn signed<const N: usize>(q: &mut [i8], grid: &[i8; N], signs: u8) {
    for (i, (q, &g)) in q.iter_mut().zip(grid).enumerate() {
        *q = if (signs >> i) & 1 == 1 { -g } else { g };
    }
}

/// Writes a point of the iq1 grid times 8, plus or minus one.
#[inline(always)]
fn shifted(q: &mut [i8], index: usize, minus: bool) {
    let delta = if minus { -1 } else { 1 };
    for (q, &g) in q.iter_mut().zip(&grids::IQ1[index & 2047]) {
        *q = 8 * g + delta;
    }
}

pub(super) fn iq1_s(b: &[u8; 50], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    let (qs, qh) = (&b[2..34], &b[34..50]);
    for (g, q) in out.q.chunks_exact_mut(32).enumerate() {
        let high = u16::from_le_bytes([qh[2 * g], qh[2 * g + 1]]);
        let scale = 2 * ((high >> 12) & 7) as i8 + 1;
        out.scale[2 * g] = scale;
        out.scale[2 * g + 1] = scale;
        for (l, q) in q.chunks_exact_mut(8).enumerate() {
            let index = usize::from(qs[4 * g + l]) | (usize::from((high >> (3 * l)) & 7) << 8);
            shifted(q, index, high & 0x8000 != 0);
        }
    }
}

pub(super) fn iq1_m(b: &[u8; 56], _: usize, out: &mut Step) {
    let (qs, qh) = (&b[..32], &b[32..48]);
    let scales: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([b[48 + 2 * i], b[49 + 2 * i]]));
    let d = (scales[0] >> 12) | ((scales[1] >> 12) << 4) | ((scales[2] >> 12) << 8) | (scales[3] & 0xf000);
    plain(out, half::f16::from_bits(d).to_f32_const() * 0.125);
    for (g, scale) in out.scale.iter_mut().enumerate() {
        *scale = 2 * ((scales[g / 4] >> (3 * (g % 4))) & 7) as i8 + 1;
    }
    for (i, q) in out.q.chunks_exact_mut(8).enumerate() {
        let high = qh[i / 2] >> (4 * (i % 2));
        let index = usize::from(qs[i]) | (usize::from(high & 7) << 8);
        shifted(q, index, high & 8 != 0);
    }
}

pub(super) fn iq2_xxs(b: &[u8; 66], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    for (g, q) in out.q.chunks_exact_mut(32).enumerate() {
        let group = &b[2 + 8 * g..][..8];
        let signs = u32::from_le_bytes([group[4], group[5], group[6], group[7]]);
        let scale = 2 * (signs >> 28) as i8 + 1;
        out.scale[2 * g] = scale;
        out.scale[2 * g + 1] = scale;
        for (l, q) in q.chunks_exact_mut(8).enumerate() {
            signed(
                q,
                &grids::IQ2_XXS[usize::from(group[l])],
                even_signs(signs >> (7 * l)),
            );
        }
    }
}

/// The scales of iq2_xs and iq2_s: a nibble per 16 weights.
#[inline(always)]
fn nibble_scales(bytes: &[u8], out: &mut [i8; 16]) {
    for (g, scale) in out.iter_mut().enumerate() {
        *scale = 2 * ((bytes[g / 2] >> (4 * (g % 2))) & 15) as i8 + 1;
    }
}

pub(super) fn iq2_xs(b: &[u8; 74], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    nibble_scales(&b[66..74], &mut out.scale);
    for (i, q) in out.q.chunks_exact_mut(8).enumerate() {
        let code = u16::from_le_bytes([b[2 + 2 * i], b[3 + 2 * i]]);
        signed(
            q,
            &grids::IQ2_XS[usize::from(code & 511)],
            even_signs(u32::from(code >> 9)),
        );
    }
}

pub(super) fn iq2_s(b: &[u8; 82], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    nibble_scales(&b[74..82], &mut out.scale);
    let (qs, signs, qh) = (&b[2..34], &b[34..66], &b[66..74]);
    for (i, q) in out.q.chunks_exact_mut(8).enumerate() {
        let high = (qh[i / 4] >> (2 * (i % 4))) & 3;
        let index = usize::from(qs[i]) | (usize::from(high) << 8);
        signed(q, &grids::IQ2_S[index], signs[i]);
    }
}

pub(super) fn iq3_xxs(b: &[u8; 98], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.25);
    for (g, q) in out.q.chunks_exact_mut(32).enumerate() {
        let word = &b[66 + 4 * g..][..4];
        let signs = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let scale = 2 * (signs >> 28) as i8 + 1;
        out.scale[2 * g] = scale;
        out.scale[2 * g + 1] = scale;
        for (l, q) in q.chunks_exact_mut(8).enumerate() {
            let signs = even_signs(signs >> (7 * l));
            let (low, high) = q.split_at_mut(4);
            let qs = &b[2 + 8 * g + 2 * l..][..2];
            signed(low, &grids::IQ3_XXS[usize::from(qs[0])], signs);
            signed(high, &grids::IQ3_XXS[usize::from(qs[1])], signs >> 4);
        }
    }
}

pub(super) fn iq3_s(b: &[u8; 110], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    let (qs, qh, signs, scales) = (&b[2..66], &b[66..74], &b[74..106], &b[106..110]);
    for (g, scale) in out.scale.iter_mut().enumerate() {
        *scale = 2 * ((scales[g / 4] >> (4 * ((g / 2) % 2))) & 15) as i8 + 1;
    }
    for (i, q) in out.q.chunks_exact_mut(4).enumerate() {
        let high = (qh[i / 8] >> (i % 8)) & 1;
        let index = usize::from(qs[i]) | (usize::from(high) << 8);
        signed(q, &grids::IQ3_S[index], signs[i / 2] >> (4 * (i % 2)));
    }
}
