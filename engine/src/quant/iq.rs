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
//! In the integer form the grid of iq1 is `8 * grid + 8 * delta` with d / 8, and iq2, iq3_xxs have `2s + 1` with d / 8,
//! d / 4.
//!
//! Source: `block_iq1_s` and its siblings in ggml's `ggml-common.h`, `ggml-quants.c`.
//!
//! Eight weights are unpacked at a time, as the bytes of a u64.

use super::grids;
use super::step::{Step, f16_at, plain};

/// Byte i is 0xff where bit i of the index is set.
static MASKS: [u64; 256] = {
    let mut masks = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut bit = 0;
        while bit < 8 {
            if i >> bit & 1 == 1 {
                masks[i] |= 0xff << (8 * bit);
            }
            bit += 1;
        }
        i += 1;
    }
    masks
};

/// [`MASKS`] of seven bits with the eighth that makes the number of minus signs even.
static EVEN_MASKS: [u64; 128] = {
    let mut masks = [0; 128];
    let mut i = 0usize;
    while i < 128 {
        masks[i] = MASKS[i | (i.count_ones() as usize & 1) << 7];
        i += 1;
    }
    masks
};

/// A point with signs: its bytes negated where those of `mask` are 0xff. They are 1 to 127, so no carry leaves a byte.
#[inline(always)]
fn signed(point: u64, mask: u64) -> [i8; 8] {
    (point ^ mask)
        .wrapping_add(mask & 0x0101_0101_0101_0101)
        .to_le_bytes()
        .map(u8::cast_signed)
}

#[inline(always)]
fn even_mask(bits: u32) -> u64 {
    EVEN_MASKS[(bits & 127) as usize]
}

/// Two points of 4 coordinates.
#[inline(always)]
fn two(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The integers by eights.
#[inline(always)]
fn eights(q: &mut [i8; 256]) -> &mut [[i8; 8]] {
    q.as_chunks_mut().0
}

/// The integers by groups of 32 made of eights.
#[inline(always)]
fn groups(q: &mut [i8; 256]) -> &mut [[[i8; 8]; 4]] {
    eights(q).as_chunks_mut().0
}

#[inline(always)]
fn iq1_point(index: usize) -> [i8; 8] {
    grids::IQ1[index & 4095].to_le_bytes().map(u8::cast_signed)
}

pub(super) fn iq1_s(b: &[u8; 50], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    let (qs, qh) = (b[2..34].as_chunks::<4>().0, b[34..].as_chunks::<2>().0);
    let scales = out.scale.as_chunks_mut::<2>().0;
    for (((q, qs), qh), scale) in groups(&mut out.q).iter_mut().zip(qs).zip(qh).zip(scales) {
        let high = usize::from(u16::from_le_bytes(*qh));
        *scale = [(high >> 11 & 14 | 1) as i8; 2];
        let minus = high >> 4 & 0x800;
        for (l, (q, qs)) in q.iter_mut().zip(qs).enumerate() {
            *q = iq1_point(usize::from(*qs) | high << 8 >> (3 * l) & 0x700 | minus);
        }
    }
}

/// The scales of iq1_m as they lie in the block.
#[inline(always)]
pub(crate) fn iq1_m_scales(b: &[u8; 56]) -> [u16; 4] {
    std::array::from_fn(|i| u16::from_le_bytes([b[48 + 2 * i], b[49 + 2 * i]]))
}

/// The bits of the f16 that the scales of iq1_m hold.
#[inline(always)]
pub(crate) fn iq1_m_d(scales: [u16; 4]) -> u16 {
    (scales[0] >> 12) | ((scales[1] >> 12) << 4) | ((scales[2] >> 12) << 8) | (scales[3] & 0xf000)
}

pub(super) fn iq1_m(b: &[u8; 56], _: usize, out: &mut Step) {
    let scales = iq1_m_scales(b);
    plain(out, half::f16::from_bits(iq1_m_d(scales)).to_f32_const() * 0.125);
    for (g, scale) in out.scale.iter_mut().enumerate() {
        *scale = 2 * ((scales[g / 4] >> (3 * (g % 4))) & 7) as i8 + 1;
    }
    let (qs, qh) = (b[..32].as_chunks::<2>().0, &b[32..48]);
    for ((q, qs), qh) in eights(&mut out.q)
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(qs)
        .zip(qh)
    {
        let high = usize::from(*qh);
        q[0] = iq1_point(usize::from(qs[0]) | high << 8 & 0xf00);
        q[1] = iq1_point(usize::from(qs[1]) | high << 4 & 0xf00);
    }
}

pub(super) fn iq2_xxs(b: &[u8; 66], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    let scales = out.scale.as_chunks_mut::<2>().0;
    let parts = b[2..].as_chunks::<4>().0.as_chunks::<2>().0;
    for ((q, [qs, signs]), scale) in groups(&mut out.q).iter_mut().zip(parts).zip(scales) {
        let signs = u32::from_le_bytes(*signs);
        *scale = [(signs >> 27 | 1) as i8; 2];
        for (l, (q, qs)) in q.iter_mut().zip(qs).enumerate() {
            *q = signed(grids::IQ2_XXS[usize::from(*qs)], even_mask(signs >> (7 * l)));
        }
    }
}

/// The scales of iq2_xs and iq2_s: a nibble per 16 weights.
#[inline(always)]
fn nibble_scales(bytes: &[u8], out: &mut [i8; 16]) {
    for (scales, b) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *scales = [(2 * (b & 15) + 1) as i8, (b >> 3 | 1) as i8];
    }
}

pub(super) fn iq2_xs(b: &[u8; 74], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    nibble_scales(&b[66..], &mut out.scale);
    for (q, code) in eights(&mut out.q).iter_mut().zip(b[2..66].as_chunks().0) {
        let code = u16::from_le_bytes(*code);
        *q = signed(
            grids::IQ2_XS[usize::from(code & 511)],
            EVEN_MASKS[usize::from(code >> 9)],
        );
    }
}

pub(super) fn iq2_s(b: &[u8; 82], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.125);
    nibble_scales(&b[74..], &mut out.scale);
    let (qs, signs, qh) = (
        b[2..34].as_chunks::<4>().0,
        b[34..66].as_chunks::<4>().0,
        &b[66..],
    );
    for (((q, qs), signs), qh) in groups(&mut out.q).iter_mut().zip(qs).zip(signs).zip(qh) {
        let high = usize::from(*qh) << 8;
        for l in 0..4 {
            let index = usize::from(qs[l]) | high >> (2 * l) & 0x300;
            q[l] = signed(grids::IQ2_S[index], MASKS[usize::from(signs[l])]);
        }
    }
}

pub(super) fn iq3_xxs(b: &[u8; 98], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0) * 0.25);
    let (qs, words) = (
        b[2..66].as_chunks::<2>().0.as_chunks::<4>().0,
        b[66..].as_chunks::<4>().0,
    );
    let scales = out.scale.as_chunks_mut::<2>().0;
    for (((q, qs), word), scale) in groups(&mut out.q).iter_mut().zip(qs).zip(words).zip(scales) {
        let signs = u32::from_le_bytes(*word);
        *scale = [(signs >> 27 | 1) as i8; 2];
        for (l, (q, qs)) in q.iter_mut().zip(qs).enumerate() {
            let [low, high] = qs.map(|i| grids::IQ3_XXS[usize::from(i)]);
            *q = signed(two(low, high), even_mask(signs >> (7 * l)));
        }
    }
}

pub(super) fn iq3_s(b: &[u8; 110], _: usize, out: &mut Step) {
    plain(out, f16_at(b, 0));
    for (scale, b) in out.scale.as_chunks_mut::<4>().0.iter_mut().zip(&b[106..]) {
        let (low, high) = ((2 * (b & 15) + 1) as i8, (b >> 3 | 1) as i8);
        *scale = [low, low, high, high];
    }
    let (qs, qh, signs) = (
        b[2..66].as_chunks::<2>().0.as_chunks::<4>().0,
        &b[66..74],
        b[74..106].as_chunks::<4>().0,
    );
    for (((q, qs), qh), signs) in groups(&mut out.q).iter_mut().zip(qs).zip(qh).zip(signs) {
        let high = usize::from(*qh) << 8;
        for l in 0..4 {
            let point = |i: usize| grids::IQ3_S[usize::from(qs[l][i]) | high >> (2 * l + i) & 256];
            q[l] = signed(two(point(0), point(1)), MASKS[usize::from(signs[l])]);
        }
    }
}
