//! The types over codebooks (IQ1, IQ2, IQ3) for [`super`]: indices name points of 4 or 8 weights, signs and group
//! factors lie beside them.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::{Kind256, repeat_at, u16_at, u32_at, u64_at};
use crate::kernels::isa::{RowIsa, unrolled};
use crate::quant::{grids, iq1_m_d, iq1_m_scales};

/// What 64 weights of a codebook type are made of.
struct Chunk<V> {
    /// Points of 8 weights ...
    eights: [u64; 8],
    /// ... or of 4, whichever the type has.
    fours: [u32; 16],
    /// The signs, in the type's own form.
    signs: Signs<V>,
    /// Group factors as 16-bit numbers, where [`Codebook::GROUPS`] looks for them.
    factors: V,
}

/// How the signs of 64 weights are given.
enum Signs<V> {
    /// The points are signed bytes, none of them 0.
    Inside,
    /// A bit per weight, set for minus.
    Bits([u8; 8]),
    /// [`seven_bit_signs`].
    Codes(V),
}

/// A type whose indices name points of 8 or 4 weights.
trait Codebook {
    /// See [`Kind256`].
    const BYTES: usize;
    /// See [`Kind256`].
    const FACTOR: f32;
    /// Points have 4 weights.
    const FOURS: bool = false;
    /// For each group of 16 weights where its factor lies in every 16 bytes of [`Chunk::factors`]: two bytes, low and
    /// high.
    const GROUPS: &'static [[u8; 16]; 16];

    /// The bits of a block's f16.
    #[inline(always)]
    fn d(block: &[u8]) -> u16 {
        u16_at(block, 0)
    }
    /// What all chunks share: factors of the whole block, where they are not of each chunk.
    #[inline(always)]
    fn shared<I: RowIsa>(isa: I, _block: &[u8]) -> I::V {
        isa.zero()
    }
    /// Weights `64 * c ..` of a block.
    fn chunk<I: RowIsa>(isa: I, block: &[u8], c: usize, shared: I::V) -> Chunk<I::V>;
}

/// A type over a codebook as rows are computed with.
pub(super) struct Points<C>(PhantomData<C>);

impl<C: Codebook> Kind256 for Points<C> {
    const BYTES: usize = C::BYTES;
    const FACTOR: f32 = C::FACTOR;

    #[inline(always)]
    fn d(block: &[u8]) -> u16 {
        C::d(block)
    }

    #[inline(always)]
    fn dot<I: RowIsa, const M: usize>(isa: I, block: &[u8], x: &[&[i8; 256]; M]) -> [I::V; M] {
        let block = &block[..C::BYTES];
        let shared = C::shared(isa, block);
        let mut sums = [isa.zero(); M];
        // Bytes of a vector, and vectors of 64 weights.
        let (width, vectors) = (4 * I::LANES, 16 / I::LANES);
        for c in 0..4 {
            // The mask changes nothing but tells the compiler that no index is out of range.
            let c = c & 3;
            let chunk = C::chunk(isa, block, c, shared);
            unrolled!(v in vectors, at most 4 => {
                let w = if C::FOURS {
                    isa.join_u32(&chunk.fours[v * I::LANES..])
                } else {
                    isa.join_u64(&chunk.eights[v * I::LANES / 2..])
                };
                let groups = &C::GROUPS.as_flattened()[64 * c + v * width..];
                let factors = isa.shuffle(chunk.factors, isa.load(groups));
                let magnitude = if matches!(chunk.signs, Signs::Inside) { isa.abs8(w) } else { w };
                let seven = match chunk.signs {
                    Signs::Codes(codes) => signs_of_codes(isa, codes, v),
                    _ => w,
                };
                for t in 0..M {
                    let x = isa.load_row(&x[t][64 * c + v * width..]);
                    let x = match &chunk.signs {
                        Signs::Bits(bits) => isa.negate_where(x, &bits[v * width / 8..]),
                        _ => isa.negate_by(x, seven),
                    };
                    sums[t] = isa.dot_pairs_of(sums[t], isa.products(magnitude, x), factors);
                }
            });
        }
        sums
    }
}

/// The patterns of [`Codebook::GROUPS`]: the factor of group g is the number of lane `lanes[g]`, 8 lanes in 16 bytes;
/// or a byte, where `bytes`.
const fn group_patterns(lanes: [u8; 16], bytes: bool) -> [[u8; 16]; 16] {
    let mut out = [[0x80; 16]; 16];
    let mut i = 0;
    while i < 128 {
        let lane = lanes[i / 8];
        out[i / 8][i % 8 * 2] = if bytes { lane } else { 2 * lane };
        if !bytes {
            out[i / 8][i % 8 * 2 + 1] = 2 * lane + 1;
        }
        i += 1;
    }
    out
}

/// From eight 16-bit codes with seven signs in their top bits, what [`signs_of_codes`] reads: those seven in the high
/// byte, the eighth, which makes their number even, at the top of the low byte.
#[inline(always)]
fn seven_bit_signs<I: RowIsa>(isa: I, codes: I::V) -> I::V {
    /// The parity of 4 bits, at the top of the byte.
    const ODD: [i8; 16] = {
        let mut odd = [0; 16];
        let mut i = 0u32;
        while i < 16 {
            odd[i as usize] = if i.count_ones() % 2 == 1 { -128 } else { 0 };
            i += 1;
        }
        odd
    };
    let folded = isa.xor(isa.shr16(codes, 9), isa.shr16(codes, 13));
    let eighth = isa.lookup(&ODD, isa.and(folded, isa.splat8(15)));
    isa.or(isa.and(codes, isa.splat16(0xff00u16 as i16)), eighth)
}

/// Bytes that are negative where vector `v` of a chunk has a minus, else positive; see [`seven_bit_signs`].
#[inline(always)]
fn signs_of_codes<I: RowIsa>(isa: I, codes: I::V, v: usize) -> I::V {
    /// The byte that holds the sign of each of 64 weights.
    static PLACES: [u8; 64] = {
        let mut places = [0; 64];
        let mut i = 0;
        while i < 64 {
            places[i] = i as u8 / 8 * 2 + (i % 8 != 7) as u8;
            i += 1;
        }
        places
    };
    static MASK: [u8; 64] = {
        let mut mask = [128; 64];
        let mut i = 0;
        while i < 64 {
            if i % 8 != 7 {
                mask[i] = 2 << (i % 8);
            }
            i += 1;
        }
        mask
    };
    let places = isa.load(&PLACES[v * 4 * I::LANES..]);
    let bit = isa.and(isa.shuffle(codes, places), isa.load(&MASK));
    // 1, or 1 less a bit of 2 to 128.
    isa.sub8(isa.splat8(1), bit)
}

/// Four times 7 bits of a u32, two of which lie at the bytes named, shifted to the top of 16-bit lanes.
#[inline(always)]
fn spread_sevens<I: RowIsa>(isa: I, words: I::V, at: [u8; 2]) -> I::V {
    let mut places = [0; 16];
    let mut i = 0;
    while i < 16 {
        // Bits 7j .. 7j + 6 of a word begin in byte 0, 0, 1, 2.
        places[i] = at[i / 8] + [0, 1, 0, 1, 1, 2, 2, 3][i % 8];
        i += 1;
    }
    let lanes = isa.shuffle(words, isa.repeat(&places));
    let factors: [u16; 8] = [512, 4, 8, 16, 512, 4, 8, 16];
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < 8 {
        [bytes[2 * i], bytes[2 * i + 1]] = factors[i].to_le_bytes();
        i += 1;
    }
    isa.mul16(lanes, isa.repeat(&bytes))
}

/// `2 s + 1` from the top 4 bits of each 16-bit lane.
#[inline(always)]
fn top_nibbles<I: RowIsa>(isa: I, words: I::V) -> I::V {
    isa.or(isa.shr16(words, 11), isa.splat16(1))
}

/// The factors of nibbles: bytes `2 s + 1`, the low nibbles' first, then at byte `high` the high nibbles'.
#[inline(always)]
fn nibble_factors<I: RowIsa>(isa: I, nibbles: u64) -> I::V {
    const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = (nibbles & LOW) << 1 | ONES;
    let high = (nibbles >> 4 & LOW) << 1 | ONES;
    isa.join_u64(&[low, high, low, high, low, high, low, high])
}

/// Where [`nibble_factors`] puts the factor of each group of 16.
const NIBBLE_GROUPS: [[u8; 16]; 16] =
    group_patterns([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15], true);

pub(super) struct Iq1S;

impl Codebook for Iq1S {
    const BYTES: usize = 50;
    const FACTOR: f32 = 0.125;
    const GROUPS: &'static [[u8; 16]; 16] =
        &group_patterns([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7], false);

    #[inline(always)]
    fn shared<I: RowIsa>(isa: I, block: &[u8]) -> I::V {
        // Bits 12..15 of each word, times two, plus one.
        let high = isa.shr16(repeat_at(isa, block, 34), 11);
        isa.or(isa.and(high, isa.splat16(14)), isa.splat16(1))
    }

    #[inline(always)]
    fn chunk<I: RowIsa>(_: I, block: &[u8], c: usize, shared: I::V) -> Chunk<I::V> {
        let high = [0, 1].map(|g| usize::from(u16_at(block, 34 + 4 * c + 2 * g)));
        Chunk {
            eights: std::array::from_fn(|l| {
                let high = high[l / 4];
                let index = high << 8 >> (3 * (l % 4)) & 0x700 | high >> 4 & 0x800;
                grids::IQ1[usize::from(block[2 + 8 * c + l]) | index]
            }),
            fours: [0; 16],
            signs: Signs::Inside,
            factors: shared,
        }
    }
}

pub(super) struct Iq1M;

impl Codebook for Iq1M {
    const BYTES: usize = 56;
    const FACTOR: f32 = 0.125;
    const GROUPS: &'static [[u8; 16]; 16] =
        &group_patterns([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3], false);

    #[inline(always)]
    fn d(block: &[u8]) -> u16 {
        block
            .first_chunk()
            .map_or(0, |block| iq1_m_d(iq1_m_scales(block)))
    }

    #[inline(always)]
    fn chunk<I: RowIsa>(isa: I, block: &[u8], c: usize, _: I::V) -> Chunk<I::V> {
        // Four times 3 bits, each shifted to the top of its lane: 2^13, 2^10, 2^7, 2^4.
        const TO_TOP: [u8; 16] = [0, 32, 0, 4, 128, 0, 16, 0, 0, 32, 0, 4, 128, 0, 16, 0];
        let scales = isa.splat16(u16_at(block, 48 + 2 * c) as i16);
        let tops = isa.shr16(isa.mul16(scales, isa.repeat(&TO_TOP)), 13);
        let high = u32_at(block, 32 + 4 * c) as usize;
        Chunk {
            eights: std::array::from_fn(|l| {
                let index = usize::from(block[8 * c + l]) | high >> (4 * l) << 8 & 0xf00;
                grids::IQ1[index]
            }),
            fours: [0; 16],
            signs: Signs::Inside,
            factors: isa.or(isa.shl16(tops, 1), isa.splat16(1)),
        }
    }
}

pub(super) struct Iq2Xxs;

impl Codebook for Iq2Xxs {
    const BYTES: usize = 66;
    const FACTOR: f32 = 0.125;
    const GROUPS: &'static [[u8; 16]; 16] =
        &group_patterns([3, 3, 7, 7, 3, 3, 7, 7, 3, 3, 7, 7, 3, 3, 7, 7], false);

    #[inline(always)]
    fn chunk<I: RowIsa>(isa: I, block: &[u8], c: usize, _: I::V) -> Chunk<I::V> {
        let words = repeat_at(isa, block, 2 + 16 * c);
        Chunk {
            eights: std::array::from_fn(|l| {
                grids::IQ2_XXS[usize::from(block[2 + 16 * c + l / 4 * 8 + l % 4])]
            }),
            fours: [0; 16],
            signs: Signs::Codes(seven_bit_signs(isa, spread_sevens(isa, words, [4, 12]))),
            factors: top_nibbles(isa, words),
        }
    }
}

pub(super) struct Iq2Xs;

impl Codebook for Iq2Xs {
    const BYTES: usize = 74;
    const FACTOR: f32 = 0.125;
    const GROUPS: &'static [[u8; 16]; 16] = &NIBBLE_GROUPS;

    #[inline(always)]
    fn shared<I: RowIsa>(isa: I, block: &[u8]) -> I::V {
        nibble_factors(isa, u64_at(block, 66))
    }

    #[inline(always)]
    fn chunk<I: RowIsa>(isa: I, block: &[u8], c: usize, shared: I::V) -> Chunk<I::V> {
        Chunk {
            eights: std::array::from_fn(|l| {
                grids::IQ2_XS[usize::from(u16_at(block, 2 + 16 * c + 2 * l) & 511)]
            }),
            fours: [0; 16],
            signs: Signs::Codes(seven_bit_signs(isa, repeat_at(isa, block, 2 + 16 * c))),
            factors: shared,
        }
    }
}

pub(super) struct Iq2S;

impl Codebook for Iq2S {
    const BYTES: usize = 82;
    const FACTOR: f32 = 0.125;
    const GROUPS: &'static [[u8; 16]; 16] = &NIBBLE_GROUPS;

    #[inline(always)]
    fn shared<I: RowIsa>(isa: I, block: &[u8]) -> I::V {
        nibble_factors(isa, u64_at(block, 74))
    }

    #[inline(always)]
    fn chunk<I: RowIsa>(_: I, block: &[u8], c: usize, shared: I::V) -> Chunk<I::V> {
        let high = usize::from(u16_at(block, 66 + 2 * c)) << 8;
        Chunk {
            eights: std::array::from_fn(|l| {
                grids::IQ2_S[usize::from(block[2 + 8 * c + l]) | high >> (2 * l) & 0x300]
            }),
            fours: [0; 16],
            signs: Signs::Bits(std::array::from_fn(|i| block[34 + 8 * c + i])),
            factors: shared,
        }
    }
}

pub(super) struct Iq3Xxs;

impl Codebook for Iq3Xxs {
    const BYTES: usize = 98;
    const FACTOR: f32 = 0.25;
    const FOURS: bool = true;
    const GROUPS: &'static [[u8; 16]; 16] =
        &group_patterns([1, 1, 3, 3, 1, 1, 3, 3, 1, 1, 3, 3, 1, 1, 3, 3], false);

    #[inline(always)]
    fn chunk<I: RowIsa>(isa: I, block: &[u8], c: usize, _: I::V) -> Chunk<I::V> {
        let words = isa.join_u64(&[u64_at(block, 66 + 8 * c); 8]);
        Chunk {
            eights: [0; 8],
            fours: std::array::from_fn(|l| grids::IQ3_XXS[usize::from(block[2 + 16 * c + l])]),
            signs: Signs::Codes(seven_bit_signs(isa, spread_sevens(isa, words, [0, 4]))),
            factors: top_nibbles(isa, words),
        }
    }
}

pub(super) struct Iq3S;

impl Codebook for Iq3S {
    const BYTES: usize = 110;
    const FACTOR: f32 = 1.0;
    const FOURS: bool = true;
    const GROUPS: &'static [[u8; 16]; 16] =
        &group_patterns([0, 0, 8, 8, 1, 1, 9, 9, 2, 2, 10, 10, 3, 3, 11, 11], true);

    #[inline(always)]
    fn shared<I: RowIsa>(isa: I, block: &[u8]) -> I::V {
        nibble_factors(isa, u64::from(u32_at(block, 106)))
    }

    #[inline(always)]
    fn chunk<I: RowIsa>(_: I, block: &[u8], c: usize, shared: I::V) -> Chunk<I::V> {
        let high = usize::from(u16_at(block, 66 + 2 * c)) << 8;
        Chunk {
            eights: [0; 8],
            fours: std::array::from_fn(|l| {
                grids::IQ3_S[usize::from(block[2 + 16 * c + l]) | high >> l & 256]
            }),
            signs: Signs::Bits(std::array::from_fn(|i| block[74 + 8 * c + i])),
            factors: shared,
        }
    }
}
