//! The kernels for blocks of 256 weights with integer scales per group of 16 or 32; the layouts are in
//! [`super::layouts_256`]. One token in a browser goes another way through them, `lines_256`.
//!
//! Per group: the dot products of its quads (4 consecutive k) are added up, multiplied by the group's scale and added
//! to the step's sum. Weights that are stored with an offset (q + 32) begin that sum with `- offset * sum of scale *
//! group sum of x`, taken two groups at a time; minima are summed up likewise. One conversion to float per step.
//!
//! Where the products of a type's weights and scales are bytes, many tokens are multiplied with those: there is no scale
//! left in a step, whose sum is that of 64 quads.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::layouts_256::moved;
use super::one_token::by_vectors;
use super::packing::{FileRows, unpack_steps};
use super::token_tiles::{Coming, SHARES, Scratch, place, stride, sums_of};
use super::{Blocks, Drivers, Format, Input, Part, ROWS, ReadAhead};
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{Isa, add_quad, group_quads, unrolled};
use crate::kernels::{ActFormat, QuantizedBlock};
use crate::quant::GgmlType;

/// What a block holds, vector by vector.
pub(in crate::kernels) trait Layout: std::fmt::Debug + Send + Sync + 'static {
    /// The type in the file.
    const TYPE: GgmlType;
    /// Words of a panel block.
    const WORDS: usize = Self::TYPE.block_bytes() / 4;
    /// Whether weights are kept in this layout; else it is a buffer for any type.
    const OWN: bool = true;
    /// Weights that share a scale: 16 or 32.
    const GROUP: usize;
    /// [`Layout::quad`] gives signed bytes (through [`Isa::biased`]), else unsigned ones.
    const SIGNED: bool = false;
    /// Largest unsigned weight.
    const MAX: i32;
    /// Unsigned weights hold `q + (1 << shift)`.
    const OFFSET_SHIFT: Option<u32> = None;
    /// Scales are signed bytes.
    const SIGNED_SCALES: bool;
    /// How quads share words: `SHARED` runs of `RUN` quads, one after the other, take their bits from the same `RUN`
    /// words (or twice as many), quad i of each run from the same. Up to 4.
    const SHARED: usize;
    /// See [`Layout::SHARED`]. At most 8.
    const RUN: usize = 8;
    /// There are minima.
    const MIN: bool = false;
    /// A weight times its scale, with this added to it, is an unsigned byte. Scales are signed only where weights are
    /// stored with an offset.
    const PRODUCT_OFFSET: Option<u8> = None;
    /// See [`Format::ONE_BY_ONE`]: four where a weight's bits lie in one place.
    const ONE_BY_ONE: usize = 4;

    /// Quad `i` (k = 4i .. 4i + 3) as bytes. `i` is known where the code is compiled.
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V;
    /// Scales: byte j of a lane of vector v is that of group 4v + j. Vectors beyond the last group are not read.
    fn scales<I: Isa>(isa: I, block: &Part<'_>) -> [I::V; 4];
    /// Minima, in the same order.
    fn mins<I: Isa>(isa: I, _block: &Part<'_>) -> [I::V; 4] {
        [isa.zero(); 4]
    }
    /// The float factor of each row.
    fn d<I: Isa>(isa: I, block: &Part<'_>) -> I::F;
    /// The float factor of each row's minima.
    fn dmin<I: Isa>(_isa: I, _block: &Part<'_>) -> I::F {
        I::F::splat(0.0)
    }
}

/// What follows from a layout on an instruction set.
pub(in crate::kernels) struct Shape<I, L>(PhantomData<(I, L)>);

impl<I: Isa, L: Layout> Shape<I, L> {
    /// Groups of a block.
    pub(in crate::kernels) const GROUPS: usize = 256 / L::GROUP;
    /// Quads of a group.
    pub(in crate::kernels) const QUADS: usize = L::GROUP / 4;
    /// Quads whose products may be added up before the group's scale is applied.
    pub(super) const TOGETHER: usize = if L::SIGNED || group_quads::<I>(L::MAX) > Self::QUADS {
        Self::QUADS
    } else {
        group_quads::<I>(L::MAX)
    };
    /// The same, at most as many as a run has.
    pub(super) const OF_RUN: usize = if Self::TOGETHER < L::RUN {
        Self::TOGETHER
    } else {
        L::RUN
    };
    /// What stored weights are too large by, as a shift.
    pub(in crate::kernels) const OFFSET: Option<u32> = match L::OFFSET_SHIFT {
        None if L::SIGNED && I::BIAS != 0 => Some(I::BIAS.trailing_zeros()),
        shift => shift,
    };
    /// [`Layout::PRODUCT_OFFSET`], where all quads of a step may be added up.
    const PRODUCTS: Option<u8> = if I::WIDE_GROUPS { L::PRODUCT_OFFSET } else { None };
}

/// The format of a layout.
#[derive(Debug)]
pub(in crate::kernels) struct Steps256<L>(PhantomData<L>);

/// Group sums of x by twos.
#[inline(always)]
pub(super) fn sums_by_twos<'a, L: Layout>(x: &Input<'a>) -> &'a [[i16; 2]] {
    block_sums::<L>(x.block)
}

/// The same of a block.
#[inline(always)]
pub(in crate::kernels) fn block_sums<L: Layout>(block: &QuantizedBlock) -> &[[i16; 2]] {
    if L::GROUP == 16 {
        block.sums.as_chunks().0
    } else {
        block.sums32.as_chunks().0
    }
}

impl<L: Layout> Format for Steps256<L> {
    const TYPE: GgmlType = L::TYPE;
    const BLOCK_LEN: usize = 256;
    const FILL: usize = 1;
    const WORDS_AT: usize = 0;
    const WORDS: usize = L::WORDS;
    // The files' only odd half word is d.
    const TAILS: usize = if L::OWN && !L::TYPE.block_bytes().is_multiple_of(4) {
        1
    } else {
        0
    };
    const OWN: bool = L::OWN;
    const ACTIVATIONS: ActFormat = ActFormat::Q256;
    const ONE_BY_ONE: usize = L::ONE_BY_ONE;
    const BY_FOURS: bool = true;

    #[inline(always)]
    fn tail(block: &[u8], _: usize) -> u16 {
        u16::from_le_bytes([block[4 * L::WORDS], block[4 * L::WORDS + 1]])
    }

    fn restore_tail(block: &mut [u8], _: usize, tail: u16) {
        block[4 * L::WORDS..4 * L::WORDS + 2].copy_from_slice(&tail.to_le_bytes());
    }

    fn fill_from_any(ty: GgmlType, rows: &FileRows<'_>, first_n: (usize, usize), words: &mut [u8]) {
        unpack_steps::<256, true>(ty, rows, first_n, words);
    }

    #[inline(always)]
    fn one_token<I: Drivers, A: ReadAhead<I>>(
        isa: I,
        blocks: Blocks<'_>,
        _: usize,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    ) {
        isa.block_of_256::<L, A>(blocks, ahead, x, acc);
    }

    #[inline(always)]
    fn four_tokens<I: Drivers>(
        isa: I,
        blocks: Blocks<'_>,
        _: usize,
        x: &[Input<'_>; 4],
        acc: &mut [[f32; ROWS]; 4],
    ) {
        by_vectors!(part of I => {
            match I::SIDE_BY_SIDE {
                1 => few_tokens::<I, L, 1, 4>(isa, blocks, part, x, acc),
                _ => few_tokens::<I, L, 2, 4>(isa, blocks, part, x, acc),
            }
        });
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, blocks: Blocks<'_>, _: usize, scratch: &mut Scratch, coming: &mut Coming<'_>) {
        for part in 0..ROWS / I::LANES {
            unpack::<I, L>(isa, &blocks.part::<I, Self>(0, part), part, scratch, coming);
        }
    }

    #[inline(always)]
    fn tile<I: Isa, const P: usize, const M: usize>(
        isa: I,
        scratch: &[Scratch; 2],
        part: usize,
        _: usize,
        x: &[Input<'_>; M],
        acc: &mut [f32],
    ) {
        tile::<I, L, P, M>(isa, scratch, part, x, acc);
    }
}

/// The sum of a step as the contract rounds it.
#[inline(always)]
pub(super) fn float_step<I: Isa, L: Layout>(
    isa: I,
    dx: f32,
    (d, isum): (I::F, I::V),
    (dmin, msum): (I::F, I::V),
) -> I::F {
    let (dx, isum) = (I::F::splat(dx), isa.to_f(isum));
    if L::MIN {
        dx.mul(d.mul(isum).sub(dmin.mul(isa.to_f(msum))))
    } else {
        d.mul(dx).mul(isum)
    }
}

/// One block of all rows times one token: written out for as many vectors of rows as go side by side.
#[inline(always)]
pub(in crate::kernels) fn in_vectors<I: Isa, L: Layout, A: ReadAhead<I>>(
    isa: I,
    blocks: Blocks<'_>,
    ahead: A,
    x: &Input<'_>,
    acc: &mut [f32; ROWS],
) {
    by_vectors!(part of I => {
        ahead.share(isa, part / I::SIDE_BY_SIDE, ROWS / I::LANES / I::SIDE_BY_SIDE);
        let (x, acc) = (std::array::from_ref(x), std::array::from_mut(acc));
        match I::SIDE_BY_SIDE {
            1 => few_tokens::<I, L, 1, 1>(isa, blocks, part, x, acc),
            _ => few_tokens::<I, L, 2, 1>(isa, blocks, part, x, acc),
        }
    });
}

/// One block of the rows of P vectors, from number `part` on, times M tokens, straight from the weights' bits.
#[inline(always)]
fn few_tokens<I: Isa, L: Layout, const P: usize, const M: usize>(
    isa: I,
    blocks: Blocks<'_>,
    part: usize,
    x: &[Input<'_>; M],
    acc: &mut [[f32; ROWS]; M],
) {
    let block: [Part<'_>; P] = std::array::from_fn(|p| blocks.part::<I, Steps256<L>>(0, part + p));
    let sums_of_x: [&[[i16; 2]]; M] = std::array::from_fn(|t| sums_by_twos::<L>(&x[t]));
    let mut scales = [[isa.zero(); 4]; P];
    let mut isum = [[isa.zero(); P]; M];
    for p in 0..P {
        scales[p] = L::scales(isa, &block[p]);
        if let Some(shift) = Shape::<I, L>::OFFSET {
            unrolled!(i in Shape::<I, L>::GROUPS / 2, at most 8 => {
                let pairs = isa.pairs_negated(scales[p][i / 2], i % 2, shift);
                for t in 0..M {
                    isum[t][p] = isa.dot_pairs(isum[t][p], pairs, sums_of_x[t][i]);
                }
            });
        }
    }
    // Quads that share words are taken together, so that each word is loaded once and kept no longer than needed.
    let bundle = L::SHARED * L::RUN;
    let together = Shape::<I, L>::OF_RUN;
    unrolled!(b in 64 / bundle, at most 8 => {
        unrolled!(c in L::RUN / together, at most 8 => {
            let mut sums = [[[isa.zero(); P]; 4]; M];
            unrolled!(i in together, at most 8 => {
                let call = b * L::RUN + c * together + i;
                for p in 0..P {
                    block[p].prefetch::<I, Steps256<L>>(isa, (call, 64 / L::SHARED), part + p);
                }
                unrolled!(j in L::SHARED, at most 4 => {
                    let quad = b * bundle + j * L::RUN + c * together + i;
                    let mut w = [isa.zero(); P];
                    for p in 0..P {
                        w[p] = L::quad(isa, &block[p], quad);
                    }
                    for t in 0..M {
                        add_quad(isa, L::SIGNED, &mut sums[t][j], &w, &x[t].block.q, quad);
                    }
                });
            });
            unrolled!(j in L::SHARED, at most 4 => {
                let g = (b * bundle + j * L::RUN + c * together) / Shape::<I, L>::QUADS;
                for p in 0..P {
                    let factor = isa.factor(scales[p][g / 4], g % 4, L::SIGNED_SCALES, L::SIGNED);
                    for t in 0..M {
                        let sum = isa.add_scaled(isum[t][p], sums[t][j][p], factor, L::SIGNED);
                        // One token's here and not at the end of the block, where compilers would do all of them
                        // together. Of four there is enough to do beside them.
                        isum[t][p] = if M == 1 { isa.black_box(sum) } else { sum };
                    }
                }
            });
        });
    });
    for p in 0..P {
        let mut msum = [isa.zero(); M];
        if L::MIN {
            let mins = L::mins(isa, &block[p]);
            unrolled!(i in Shape::<I, L>::GROUPS / 2, at most 8 => {
                let pairs = isa.pairs(mins[i / 2], i % 2);
                for t in 0..M {
                    msum[t] = isa.dot_pairs(msum[t], pairs, sums_of_x[t][i]);
                }
            });
        }
        let (d, dmin) = (L::d(isa, &block[p]), L::dmin(isa, &block[p]));
        for t in 0..M {
            let step = float_step::<I, L>(isa, x[t].block.d[0], (d, isum[t][p]), (dmin, msum[t]));
            let acc = &mut acc[t][(part + p) * I::LANES..];
            isa.store_f(isa.load_f(acc).add(step), acc);
        }
    }
}

/// One block of as many rows as a vector has, to bytes.
#[inline(always)]
fn unpack<I: Isa, L: Layout>(
    isa: I,
    block: &Part<'_>,
    part: usize,
    scratch: &mut Scratch,
    coming: &mut Coming<'_>,
) {
    let bytes = 4 * I::LANES;
    let quads = &mut scratch.quads[part * 64 * bytes..][..64 * bytes];
    let scales = L::scales(isa, block);
    unrolled!(g in SHARES, at most 8 => {
        coming.shares(isa, 1);
        unrolled!(i in 8, at most 8 => {
            let i = 8 * g + i;
            let mut quad = L::quad(isa, block, i);
            if let Some(offset) = Shape::<I, L>::PRODUCTS {
                let g = i / Shape::<I, L>::QUADS;
                quad = products::<I, L>(isa, quad, (scales[g / 4], g % 4), offset);
            }
            isa.store(quad, &mut quads[i * bytes..]);
        });
    });
    let by_groups = Shape::<I, L>::PRODUCTS.is_none();
    let factors = &mut scratch.factors[part * 16 * bytes..][..16 * bytes];
    unrolled!(g in Shape::<I, L>::GROUPS, at most 16 => {
        if by_groups {
            let factor = isa.factor(scales[g / 4], g % 4, L::SIGNED_SCALES, L::SIGNED);
            isa.store(factor, &mut factors[g * bytes..]);
        }
    });
    let pairs = &mut scratch.pairs[part * 8 * bytes..][..8 * bytes];
    let mins = L::mins(isa, block);
    unrolled!(p in Shape::<I, L>::GROUPS / 2, at most 8 => {
        if L::MIN {
            isa.store(isa.pairs(mins[p / 2], p % 2), &mut pairs[p * bytes..]);
        } else if let (true, Some(shift)) = (by_groups, Shape::<I, L>::OFFSET) {
            isa.store(isa.pairs_negated(scales[p / 2], p % 2, shift), &mut pairs[p * bytes..]);
        }
    });
    isa.store_f(L::d(isa, block), &mut scratch.d[part * I::LANES..]);
    isa.store_f(L::dmin(isa, block), &mut scratch.dmin[part * I::LANES..]);
}

/// The products of a quad of weights, as they are stored, with byte `j` of the scales: without what the weights are
/// stored with, plus `offset`.
#[inline(always)]
fn products<I: Isa, L: Layout>(isa: I, quad: I::V, (scales, j): (I::V, usize), offset: u8) -> I::V {
    let j = j as u8;
    let scale = isa.shuffle_lanes(scales, [j, 0x80, j, 0x80]);
    let Some(shift) = L::OFFSET_SHIFT else {
        // Two bytes at once: the product of the lower one stays below 256.
        return isa.mul16(quad, scale);
    };
    // Each byte for itself, modulo 256, as all sums here.
    let upper = isa.splat32(0xff00_ff00);
    let odd = isa.mul16(isa.and(quad, upper), scale);
    let even = isa.and(isa.mul16(quad, scale), isa.splat32(0x00ff_00ff));
    let stored_with = moved(isa, isa.shuffle_lanes(scales, [j; 4]), 0, shift, 0xff >> shift);
    isa.add8(isa.or(even, odd), isa.sub8(isa.splat8(offset), stored_with))
}

/// P vectors of rows times M tokens, one block.
#[inline(always)]
fn tile<I: Isa, L: Layout, const P: usize, const M: usize>(
    isa: I,
    scratch: &[Scratch; 2],
    part: usize,
    x: &[Input<'_>; M],
    acc: &mut [f32],
) {
    let bytes = 4 * I::LANES;
    // The slices' lengths are known where the code is compiled, so that no access below is checked.
    let mut quads: [&[u8]; P] = [&[]; P];
    let mut factors: [&[u8]; P] = [&[]; P];
    let mut pairs: [&[u8]; P] = [&[]; P];
    for p in 0..P {
        let (panel, part) = place::<I>(part + p);
        quads[p] = &scratch[panel].quads[part * 64 * bytes..][..64 * bytes];
        factors[p] = &scratch[panel].factors[part * 16 * bytes..][..16 * bytes];
        pairs[p] = &scratch[panel].pairs[part * 8 * bytes..][..8 * bytes];
    }
    let acc = &mut acc[..M * stride::<I>()];
    let mut sums_of_x: [&[[i16; 2]]; M] = [&[]; M];
    for t in 0..M {
        sums_of_x[t] = sums_by_twos::<L>(&x[t]);
    }

    let mut isum = [[isa.zero(); P]; M];
    match Shape::<I, L>::PRODUCTS {
        Some(offset) => add_products::<I, P, M>(isa, &quads, offset, x, &mut isum),
        None => {
            if Shape::<I, L>::OFFSET.is_some() {
                add_pairs::<I, L, P, M>(isa, &pairs, &sums_of_x, &mut isum);
            }
            add_groups::<I, L, P, M>(isa, (&quads, &factors), x, &mut isum);
        }
    }
    // One vector of rows after the other: the sums of the minima of both are more than there are registers beside those
    // of the groups.
    for p in 0..P {
        let mut msum = [[isa.zero()]; M];
        if L::MIN {
            add_pairs::<I, L, 1, M>(isa, &[pairs[p]], &sums_of_x, &mut msum);
        }
        let (panel, row) = place::<I>(part + p);
        let d = isa.load_f(&scratch[panel].d[row * I::LANES..]);
        let dmin = isa.load_f(&scratch[panel].dmin[row * I::LANES..]);
        for t in 0..M {
            let step = float_step::<I, L>(isa, x[t].block.d[0], (d, isum[t][p]), (dmin, msum[t][0]));
            let acc = &mut acc[sums_of::<I>(t, part + p)..];
            isa.store_f(isa.load_f(acc).add(step), acc);
        }
    }
}

/// Adds the sums of the groups, each times its scale.
#[inline(always)]
fn add_groups<I: Isa, L: Layout, const P: usize, const M: usize>(
    isa: I,
    (quads, factors): (&[&[u8]; P], &[&[u8]; P]),
    x: &[Input<'_>; M],
    isum: &mut [[I::V; P]; M],
) {
    let bytes = 4 * I::LANES;
    for g in 0..Shape::<I, L>::GROUPS {
        // The masks change nothing but tell the compiler that no index can be out of range.
        let g = g & (Shape::<I, L>::GROUPS - 1);
        let at = g * Shape::<I, L>::QUADS * bytes;
        unrolled!(part_of_group in Shape::<I, L>::QUADS / Shape::<I, L>::TOGETHER, at most 8 => {
            let mut sums = [[isa.zero(); P]; M];
            unrolled!(i in Shape::<I, L>::TOGETHER, at most 8 => {
                let i = part_of_group * Shape::<I, L>::TOGETHER + i;
                let mut w = [isa.zero(); P];
                for p in 0..P {
                    w[p] = isa.load(&quads[p][at + i * bytes..]);
                }
                for t in 0..M {
                    let q = &x[t].block.q[g * Shape::<I, L>::QUADS..][..Shape::<I, L>::QUADS];
                    add_quad(isa, L::SIGNED, &mut sums[t], &w, q, i);
                }
            });
            for p in 0..P {
                let factor = isa.load(&factors[p][g * bytes..]);
                for t in 0..M {
                    isum[t][p] = isa.add_scaled(isum[t][p], sums[t][p], factor, L::SIGNED);
                }
            }
        });
    }
}

/// The sums of 64 quads that hold products of weights and scales, each larger by `offset`. `sums` are zero before.
#[inline(always)]
fn add_products<I: Isa, const P: usize, const M: usize>(
    isa: I,
    quads: &[&[u8]; P],
    offset: u8,
    x: &[Input<'_>; M],
    sums: &mut [[I::V; P]; M],
) {
    if offset > 0 {
        let offsets = isa.splat16(-i16::from(offset));
        for t in 0..M {
            let mut start = isa.zero();
            for sums_of_x in x[t].block.sums32.as_chunks().0 {
                start = isa.dot_pairs(start, offsets, *sums_of_x);
            }
            sums[t] = [start; P];
        }
    }
    for g in 0..8 {
        let mut w: [&[u8]; P] = [&[]; P];
        for p in 0..P {
            w[p] = &quads[p][g * 32 * I::LANES..][..32 * I::LANES];
        }
        unrolled!(i in 8, at most 8 => {
            let mut quad = [isa.zero(); P];
            for p in 0..P {
                quad[p] = isa.load(&w[p][i * 4 * I::LANES..]);
            }
            for t in 0..M {
                add_quad(isa, false, &mut sums[t], &quad, &x[t].block.q[8 * g..][..8], i);
            }
        });
    }
}

/// Adds the products of the pairs with the group sums of x.
#[inline(always)]
fn add_pairs<I: Isa, L: Layout, const P: usize, const M: usize>(
    isa: I,
    pairs: &[&[u8]; P],
    sums_of_x: &[&[[i16; 2]]; M],
    sums: &mut [[I::V; P]; M],
) {
    unrolled!(i in Shape::<I, L>::GROUPS / 2, at most 8 => {
        for p in 0..P {
            let pair = isa.load(&pairs[p][i * 4 * I::LANES..]);
            for t in 0..M {
                sums[t][p] = isa.dot_pairs(sums[t][p], pair, sums_of_x[t][i]);
            }
        }
    });
}
