//! Panel layouts of the types with blocks of 256 weights and integer scales per 16 or 32 of them.
//!
//! A panel block is the 16 blocks of its rows with their 32-bit words interleaved (see [`super`]), so a word's
//! number here is its place in the file's block. Bits of a word, per byte:
//!
//! ```text
//!   q4_k    0: d, dmin | 1..4: scales and minima | 4 + 8c + i: low nibble quad 16c + i, high nibble quad 16c + 8 + i
//!   q5_k    0: d, dmin | 1..4: the same | 4 + i: bit j = fifth bit of quad 8j + i | 12 + 8c + i: nibbles as q4_k
//!   q6_k    16h + i: low nibble quad 32h + i, high nibble quad 32h + 16 + i (i below 16) |
//!           32 + 8h + i: bits 2j, 2j + 1 = top of quad 32h + 8j + i | 48 + v: scales of groups 4v .. 4v + 3 | tail: d
//!   q2_k    v: scale (low) and minimum (high nibble) of groups 4v .. 4v + 3 | 4 + 8h + i: bits 2j, 2j + 1 = quad
//!           32h + 8j + i | 20: d, dmin
//!   q3_k    i: bit j = top of quad 8j + i | 8 + 8h + i: low bits, as q2_k | 24..27: scales | tail: d
//!   iq4_xs  0: d, top bits of the scales | 1: low bits of the scales | 2 + 4b + i: low nibble quad 8b + i, high nibble
//!           quad 8b + 4 + i
//! ```
//!
//! Source of the formats: ggml's `ggml-common.h`.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use super::Part;
use super::steps_256::Layout;
use crate::kernels::isa::Isa;
use crate::quant::{GgmlType, IQ4_VALUES};

/// `bits` (a mask within a byte) of `v`, moved from bit `from` to bit `to`.
#[inline(always)]
pub(super) fn moved<I: Isa>(isa: I, v: I::V, from: u32, to: u32, bits: u8) -> I::V {
    let v = if from > to {
        isa.shr16(v, from - to)
    } else if from < to {
        isa.shl16(v, to - from)
    } else {
        v
    };
    isa.and(v, isa.splat8(bits << to))
}

/// Six-bit numbers 0..4 and 4..8 of q4_k and q5_k: the first from their own word, the others from a nibble of word 3
/// and the top bits of that word.
#[inline(always)]
fn six_bits<I: Isa>(isa: I, own: I::V, shared: I::V, nibble: u32) -> [I::V; 4] {
    let a = isa.and(own, isa.splat8(63));
    let b = isa.or(moved(isa, shared, nibble, 0, 15), moved(isa, own, 6, 4, 3));
    [a, b, b, b]
}

/// Q4_K and Q5_K (`FIVE`).
#[derive(Debug)]
pub(super) struct Q45K<const FIVE: bool>;

impl<const FIVE: bool> Layout for Q45K<FIVE> {
    const TYPE: GgmlType = if FIVE { GgmlType::Q5_K } else { GgmlType::Q4_K };
    const GROUP: usize = 32;
    const MAX: i32 = if FIVE { 31 } else { 15 };
    const SIGNED_SCALES: bool = false;
    const SHARED: usize = 2;
    const MIN: bool = true;
    const ONE_BY_ONE: usize = if FIVE { 2 } else { 4 };

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        let nibbles = if FIVE { 12 } else { 4 };
        let word = block.word(isa, nibbles + i / 16 * 8 + i % 8);
        let nibble = moved(isa, word, i as u32 / 8 % 2 * 4, 0, 15);
        if FIVE {
            let bits = block.word(isa, 4 + i % 8);
            isa.or(nibble, moved(isa, bits, i as u32 / 8, 4, 1))
        } else {
            nibble
        }
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        six_bits(isa, block.word(isa, 1), block.word(isa, 3), 0)
    }
    #[inline(always)]
    fn mins<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        six_bits(isa, block.word(isa, 2), block.word(isa, 3), 4)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        isa.f16_of_lanes(block.word(isa, 0), false)
    }
    #[inline(always)]
    fn dmin<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        isa.f16_of_lanes(block.word(isa, 0), true)
    }
}

/// Q6_K.
#[derive(Debug)]
pub(super) struct Q6K;

impl Layout for Q6K {
    const TYPE: GgmlType = GgmlType::Q6_K;
    const GROUP: usize = 16;
    const MAX: i32 = 63;
    const SHARED: usize = 4;
    const OFFSET_SHIFT: Option<u32> = Some(5);
    const SIGNED_SCALES: bool = true;
    const ONE_BY_ONE: usize = 2;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        let (half, j, i) = (i / 32, i / 8 % 4, i % 8);
        let nibble = block.word(isa, 16 * half + j % 2 * 8 + i);
        let top = block.word(isa, 32 + 8 * half + i);
        isa.or(
            moved(isa, nibble, j as u32 / 2 * 4, 0, 15),
            moved(isa, top, 2 * j as u32, 4, 3),
        )
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        block.four_words(isa, 48)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        block.f16_tail(isa, 0)
    }
}

/// Q2_K.
#[derive(Debug)]
pub(super) struct Q2K;

impl Layout for Q2K {
    const TYPE: GgmlType = GgmlType::Q2_K;
    const GROUP: usize = 16;
    const MAX: i32 = 3;
    const SHARED: usize = 4;
    const SIGNED_SCALES: bool = false;
    const MIN: bool = true;
    const PRODUCT_OFFSET: Option<u8> = Some(0);

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        let word = block.word(isa, 4 + i / 32 * 8 + i % 8);
        moved(isa, word, i as u32 / 8 % 4 * 2, 0, 3)
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        let [a, b, c, d] = block.four_words(isa, 0);
        [
            moved(isa, a, 0, 0, 15),
            moved(isa, b, 0, 0, 15),
            moved(isa, c, 0, 0, 15),
            moved(isa, d, 0, 0, 15),
        ]
    }
    #[inline(always)]
    fn mins<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        let [a, b, c, d] = block.four_words(isa, 0);
        [
            moved(isa, a, 4, 0, 15),
            moved(isa, b, 4, 0, 15),
            moved(isa, c, 4, 0, 15),
            moved(isa, d, 4, 0, 15),
        ]
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        isa.f16_of_lanes(block.word(isa, 20), false)
    }
    #[inline(always)]
    fn dmin<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        isa.f16_of_lanes(block.word(isa, 20), true)
    }
}

/// Q3_K.
#[derive(Debug)]
pub(super) struct Q3K;

impl Layout for Q3K {
    const TYPE: GgmlType = GgmlType::Q3_K;
    const GROUP: usize = 16;
    const MAX: i32 = 7;
    const SHARED: usize = 4;
    const OFFSET_SHIFT: Option<u32> = Some(2);
    const SIGNED_SCALES: bool = true;
    const ONE_BY_ONE: usize = 2;
    // -4 ..= 3 times -32 ..= 31.
    const PRODUCT_OFFSET: Option<u8> = Some(124);

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        let low = block.word(isa, 8 + i / 32 * 8 + i % 8);
        let top = block.word(isa, i % 8);
        isa.or(
            moved(isa, low, i as u32 / 8 % 4 * 2, 0, 3),
            moved(isa, top, i as u32 / 8, 2, 1),
        )
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        let top = block.word(isa, 26);
        let mut scales = [top; 4];
        for v in 0..4 {
            let low = moved(isa, block.word(isa, 24 + v % 2), v as u32 / 2 * 4, 0, 15);
            let scale = isa.or(low, moved(isa, top, 2 * v as u32, 4, 3));
            scales[v] = isa.add8(scale, isa.splat8(-32i8 as u8));
        }
        scales
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        block.f16_tail(isa, 0)
    }
}

/// IQ4_XS.
#[derive(Debug)]
pub(super) struct Iq4Xs;

impl Layout for Iq4Xs {
    const TYPE: GgmlType = GgmlType::IQ4_XS;
    const GROUP: usize = 32;
    const SHARED: usize = 2;
    const RUN: usize = 4;
    const SIGNED: bool = true;
    const MAX: i32 = 255;
    const SIGNED_SCALES: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        let word = block.word(isa, 2 + i / 8 * 4 + i % 4);
        table(isa, &IQ4_VALUES, moved(isa, word, i as u32 / 4 % 2 * 4, 0, 15))
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        // Byte j of word 1 holds the low bits of scales 2j and 2j + 1; the upper half of word 0 the top bits, two a
        // scale.
        let (low, top) = (block.word(isa, 1), block.word(isa, 0));
        let (a, b) = (four_scales(isa, low, top, 0), four_scales(isa, low, top, 1));
        [a, b, b, b]
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        isa.f16_of_lanes(block.word(isa, 0), false)
    }
}

/// Scales 4j .. 4j + 4 of IQ4_XS.
#[inline(always)]
fn four_scales<I: Isa>(isa: I, low: I::V, top: I::V, j: u8) -> I::V {
    const NONE: u8 = 0x80;
    let (even, odd) = (moved(isa, low, 0, 0, 15), moved(isa, low, 4, 0, 15));
    let low = isa.or(
        isa.shuffle_lanes(even, [2 * j, NONE, 2 * j + 1, NONE]),
        isa.shuffle_lanes(odd, [NONE, 2 * j, NONE, 2 * j + 1]),
    );
    // The byte that holds the top bits of all four, two for each: every byte of the lane takes its own.
    let tops = isa.shuffle_lanes(top, [2 + j; 4]);
    let first = isa.and(isa.shl16(tops, 4), isa.splat32(0x30));
    let second = isa.and(isa.shl16(tops, 2), isa.splat32(0x30 << 8));
    let third = isa.and(tops, isa.splat32(0x30 << 16));
    let fourth = isa.and(isa.shr16(tops, 2), isa.splat32(0x30 << 24));
    let tops = isa.or(isa.or(first, second), isa.or(third, fourth));
    isa.add8(isa.or(low, tops), isa.splat8(-32i8 as u8))
}

/// `values[codes]` as [`Isa::dot_signed`] takes them: the bias is in the table already.
#[inline(always)]
pub(super) fn table<I: Isa>(isa: I, values: &[i8; 16], codes: I::V) -> I::V {
    let mut biased = *values;
    let mut i = 0;
    while i < 16 {
        biased[i] = values[i].wrapping_add(I::BIAS as i8);
        i += 1;
    }
    isa.lookup(&biased, codes)
}

/// The form of types without a layout of their own: words 0..64 quads, a byte per weight; 64..68 scales of groups of
/// 16; 68 d as f32. `packing` fills it step by step.
#[derive(Debug)]
pub(super) struct Int8;

impl Layout for Int8 {
    const TYPE: GgmlType = GgmlType::IQ2_XS;
    const WORDS: usize = 69;
    const OWN: bool = false;
    const GROUP: usize = 16;
    const SHARED: usize = 1;
    const SIGNED: bool = true;
    const MAX: i32 = 255;
    const SIGNED_SCALES: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        isa.biased(block.word(isa, i))
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4] {
        block.four_words(isa, 64)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        block.f32_word(isa, 68)
    }
}
