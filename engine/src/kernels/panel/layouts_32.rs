//! Panel layouts of the types with one float scale per 32 (NVFP4: 16) weights.
//!
//! A panel block is the 16 blocks of its rows with their 32-bit words interleaved (see [`super`]), from the word
//! stated here on.
//!
//! ```text
//!   q8_0            i: quad i | tail: d                                                   from byte 2
//!   q4_0, iq4_nl    i: low nibble quad i, high nibble quad i + 4 (i below 4) | tail: d    from byte 2
//!   q4_1            0: d, m | 1 + i: nibbles as q4_0
//!   q5_0            0: bit 4i + b = fifth bit of weight 4i + b | 1 + i: nibbles | tail: d   from byte 2
//!   q5_1            0: d, m | 1: fifth bits | 2 + i: nibbles
//!   mxfp4           i: nibbles as q4_0 | tail: d as bf16, a power of two, exact           from byte 1
//!   nvfp4           2s + i: low nibble quad 4s + i, high nibble quad 4s + 2 + i (step s) | tails: four d, exact in f16
//! ```
//!
//! Source of the formats: ggml's `ggml-common.h`.

use half::f16;

use super::Part;
use super::layouts_256::{moved, table};
use super::steps_32::Layout;
use crate::kernels::isa::Isa;
use crate::quant::{self, FP4_VALUES, GgmlType, IQ4_VALUES};

/// Nibble of quad `i`, words from `first` on, `words` of them per step.
#[inline(always)]
fn nibble<I: Isa>(isa: I, block: &Part<'_>, first: usize, words: usize, i: usize) -> I::V {
    let word = block.word(isa, first + i / (2 * words) * words + i % words);
    moved(isa, word, (i / words % 2) as u32 * 4, 0, 15)
}

/// A byte per weight.
#[derive(Debug)]
pub(super) struct Q8;

impl Layout for Q8 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const WORDS_AT: usize = 2;
    const TAILS: usize = 1;
    const SIGNED: bool = true;
    const MAX: i32 = 255;
    // Whole bytes gain little by being unpacked.
    const ONE_BY_ONE: usize = 6;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        isa.biased(block.word(isa, i))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>, _: usize) -> I::F {
        block.f16_tail(isa, 0)
    }
}

/// The form of types with steps of 32 that have no layout of their own: words 0..8 quads, 8 d as f32.
#[derive(Debug)]
pub(super) struct Int8;

impl Layout for Int8 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const WORDS: usize = 9;
    const OWN: bool = false;
    const SIGNED: bool = true;
    const MAX: i32 = 255;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        isa.biased(block.word(isa, i))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>, _: usize) -> I::F {
        block.f32_word(isa, 8)
    }
}

/// Q4_0 (`MIN` false) and Q4_1.
#[derive(Debug)]
pub(super) struct Q4<const MIN: bool>;

impl<const MIN: bool> Layout for Q4<MIN> {
    const TYPE: GgmlType = if MIN { GgmlType::Q4_1 } else { GgmlType::Q4_0 };
    const WORDS_AT: usize = if MIN { 0 } else { 2 };
    const TAILS: usize = if MIN { 0 } else { 1 };
    const MAX: i32 = 15;
    const OFFSET: i16 = if MIN { 0 } else { 8 };
    const MIN: bool = MIN;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        nibble(isa, block, if MIN { 1 } else { 0 }, 4, i)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>, _: usize) -> I::F {
        d_of(isa, block, MIN)
    }
    #[inline(always)]
    fn m<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        isa.f16_of_lanes(block.word(isa, 0), true)
    }
}

/// d of the types that hold it in their first word beside m, or in the tail.
#[inline(always)]
fn d_of<I: Isa>(isa: I, block: &Part<'_>, min: bool) -> I::F {
    if min {
        isa.f16_of_lanes(block.word(isa, 0), false)
    } else {
        block.f16_tail(isa, 0)
    }
}

/// Q5_0 (`MIN` false) and Q5_1.
#[derive(Debug)]
pub(super) struct Q5<const MIN: bool>;

impl<const MIN: bool> Layout for Q5<MIN> {
    const TYPE: GgmlType = if MIN { GgmlType::Q5_1 } else { GgmlType::Q5_0 };
    const WORDS_AT: usize = if MIN { 0 } else { 2 };
    const TAILS: usize = if MIN { 0 } else { 1 };
    const MAX: i32 = 31;
    const ONE_BY_ONE: usize = 2;
    const OFFSET: i16 = if MIN { 0 } else { 16 };
    const MIN: bool = MIN;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        let bits = if MIN { 1 } else { 0 };
        // Byte i / 2 of the word, its lower or upper four bits: one for each weight of the quad.
        let byte = isa.shuffle_lanes(block.word(isa, bits), [i as u8 / 2; 4]);
        let mask = isa.splat32(0x0804_0201 << (i % 2 * 4));
        let fifth = isa.and(isa.equal8(isa.and(byte, mask), mask), isa.splat8(16));
        isa.or(nibble(isa, block, bits + 1, 4, i), fifth)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>, _: usize) -> I::F {
        d_of(isa, block, MIN)
    }
    #[inline(always)]
    fn m<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
        isa.f16_of_lanes(block.word(isa, 0), true)
    }
}

/// IQ4_NL.
#[derive(Debug)]
pub(super) struct Iq4Nl;

impl Layout for Iq4Nl {
    const TYPE: GgmlType = GgmlType::IQ4_NL;
    const WORDS_AT: usize = 2;
    const TAILS: usize = 1;
    const SIGNED: bool = true;
    const MAX: i32 = 255;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        table(isa, &IQ4_VALUES, nibble(isa, block, 0, 4, i))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>, _: usize) -> I::F {
        block.f16_tail(isa, 0)
    }
}

/// The doubled e2m1 numbers plus [`FP4_OFFSET`]: unsigned, at most 24.
const FP4_UNSIGNED: [i8; 16] = {
    let mut table = FP4_VALUES;
    let mut i = 0;
    while i < 16 {
        table[i] += FP4_OFFSET;
        i += 1;
    }
    table
};
const FP4_OFFSET: i8 = 12;

/// MXFP4.
#[derive(Debug)]
pub(super) struct Mxfp4;

impl Layout for Mxfp4 {
    const TYPE: GgmlType = GgmlType::MXFP4;
    const WORDS_AT: usize = 1;
    const WORDS: usize = 4;
    const TAILS: usize = 1;
    const MAX: i32 = 24;
    const ONE_BY_ONE: usize = 2;
    const OFFSET: i16 = FP4_OFFSET as i16;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        isa.lookup(&FP4_UNSIGNED, nibble(isa, block, 0, 4, i))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>, _: usize) -> I::F {
        block.bf16_tail(isa, 0)
    }
    fn tail(block: &[u8], _: usize) -> u16 {
        // 2^(e - 128): one of the upper 16 bits of a float, also where it is subnormal (e = 0 and 1).
        match block[0] {
            e @ 0..=1 => 0x20 << e,
            e => (u16::from(e) - 1) << 7,
        }
    }
    fn restore_tail(block: &mut [u8], _: usize, tail: u16) {
        block[0] = match tail {
            0x20 => 0,
            0x40 => 1,
            tail => (tail >> 7) as u8 + 1,
        };
    }
}

/// NVFP4.
#[derive(Debug)]
pub(super) struct Nvfp4;

impl Layout for Nvfp4 {
    const TYPE: GgmlType = GgmlType::NVFP4;
    const STEP: usize = 16;
    const WORDS_AT: usize = 4;
    const WORDS: usize = 8;
    const TAILS: usize = 4;
    const MAX: i32 = 24;
    const ONE_BY_ONE: usize = 2;
    const OFFSET: i16 = FP4_OFFSET as i16;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V {
        isa.lookup(&FP4_UNSIGNED, nibble(isa, block, 0, 2, i))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, block: &Part<'_>, step: usize) -> I::F {
        block.f16_tail(isa, step)
    }
    fn tail(block: &[u8], j: usize) -> u16 {
        f16::from_f32(quant::ue4m3_half(block[j])).to_bits()
    }
    fn restore_tail(block: &mut [u8], j: usize, tail: u16) {
        // The first byte with this scale.
        block[j] = (0..=255)
            .find(|byte| Self::tail(&[*byte], 0) == tail)
            .unwrap_or(0);
    }
}
