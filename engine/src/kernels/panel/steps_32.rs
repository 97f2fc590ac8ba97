//! The kernels for steps of 32 (NVFP4: 16) weights without integer scales: the dot product of a step is converted to
//! float as it is. The layouts are in [`super::layouts_32`].
//!
//! Weights stored with an offset begin a step's sum with `- offset * sum of x`. A minimum is `m * sum of x`.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::one_token::by_vectors;
use super::packing::{FileRows, unpack_steps};
use super::token_tiles::{Coming, SHARES, Scratch, place, stride, sums_of};
use super::{Blocks, Drivers, Format, Input, Part, ROWS, ReadAhead};
use crate::kernels::ActFormat;
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{Isa, add_quad, group_quads, unrolled};
use crate::quant::GgmlType;

/// What a block holds, vector by vector.
pub(in crate::kernels) trait Layout: std::fmt::Debug + Send + Sync + 'static {
    /// The type in the file.
    const TYPE: GgmlType;
    /// The byte of a file's block from which on it is taken as words.
    const WORDS_AT: usize = 0;
    /// Words of a panel block.
    const WORDS: usize = Self::TYPE.block_bytes() / 4;
    /// Tails of a panel block.
    const TAILS: usize = 0;
    /// Whether weights are kept in this layout; else it is a buffer for any type.
    const OWN: bool = true;
    /// Weights of a row per step: 32 or 16.
    const STEP: usize = 32;
    /// [`Layout::quad`] gives signed bytes (through [`Isa::biased`]), else unsigned ones.
    const SIGNED: bool = false;
    /// Largest unsigned weight.
    const MAX: i32;
    /// Unsigned weights hold `q + OFFSET`.
    const OFFSET: i16 = 0;
    /// There are minima.
    const MIN: bool = false;
    /// See [`Format::ONE_BY_ONE`]: four where a weight's bits lie in one place.
    const ONE_BY_ONE: usize = 4;

    /// Quad `i` of the block (k = 4i .. 4i + 3) as bytes. `i` is known where the code is compiled.
    fn quad<I: Isa>(isa: I, block: &Part<'_>, i: usize) -> I::V;
    /// The float factor of each row in step `step` of the block.
    fn d<I: Isa>(isa: I, block: &Part<'_>, step: usize) -> I::F;
    /// The float that each row's weights begin at.
    fn m<I: Isa>(_isa: I, _block: &Part<'_>) -> I::F {
        I::F::splat(0.0)
    }
    /// Tail `j` of a file's block.
    fn tail(block: &[u8], _j: usize) -> u16 {
        u16::from_le_bytes([block[0], block[1]])
    }
    /// The inverse.
    fn restore_tail(block: &mut [u8], _j: usize, tail: u16) {
        block[..2].copy_from_slice(&tail.to_le_bytes());
    }
}

/// What follows from a layout on an instruction set.
struct Shape<I, L>(PhantomData<(I, L)>);

impl<I: Isa, L: Layout> Shape<I, L> {
    /// Quads of a step.
    const QUADS: usize = L::STEP / 4;
    /// The sum of a step goes on in 32 bits.
    const WIDE: bool = L::SIGNED || I::WIDE_GROUPS;
    /// Quads whose products may be added up before they are widened.
    const TOGETHER: usize = if Self::WIDE || group_quads::<I>(L::MAX) > Self::QUADS {
        Self::QUADS
    } else {
        group_quads::<I>(L::MAX)
    };
    /// What stored weights are too large by.
    const OFFSET: i16 = if L::SIGNED { I::BIAS as i16 } else { L::OFFSET };
}

/// The format of a layout.
#[derive(Debug)]
pub(in crate::kernels) struct Steps32<L>(PhantomData<L>);

impl<L: Layout> Steps32<L> {
    /// Weights of a row per block.
    pub(in crate::kernels) const BLOCK: usize = if L::OWN { L::TYPE.block_len() } else { L::STEP };
}

impl<L: Layout> Format for Steps32<L> {
    const TYPE: GgmlType = L::TYPE;
    const BLOCK_LEN: usize = Self::BLOCK;
    const FILL: usize = 256 / Self::BLOCK_LEN;
    const WORDS_AT: usize = L::WORDS_AT;
    const WORDS: usize = L::WORDS;
    const TAILS: usize = L::TAILS;
    const OWN: bool = L::OWN;
    const ACTIVATIONS: ActFormat = if L::STEP == 16 {
        ActFormat::Q16
    } else {
        ActFormat::Q32
    };
    const ONE_BY_ONE: usize = L::ONE_BY_ONE;

    #[inline(always)]
    fn tail(block: &[u8], j: usize) -> u16 {
        L::tail(block, j)
    }

    fn restore_tail(block: &mut [u8], j: usize, tail: u16) {
        L::restore_tail(block, j, tail);
    }

    fn fill_from_any(ty: GgmlType, rows: &FileRows<'_>, first_n: (usize, usize), words: &mut [u8]) {
        unpack_steps::<32, false>(ty, rows, first_n, words);
    }

    #[inline(always)]
    fn one_token<I: Drivers, A: ReadAhead<I>>(
        isa: I,
        blocks: Blocks<'_>,
        n: usize,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    ) {
        let (per_block, side_by_side) = (Self::BLOCK_LEN / L::STEP, I::SIDE_BY_SIDE);
        by_vectors!(first of I => {
            let acc = &mut acc[first * I::LANES..];
            let mut sums = [I::F::splat(0.0); 4];
            unrolled!(p in side_by_side, at most 4 => {
                sums[p] = isa.load_f(&acc[p * I::LANES..]);
            });
            ahead.share(isa, first / side_by_side, ROWS / I::LANES / side_by_side);
            for i in 0..n {
                unrolled!(p in side_by_side, at most 4 => {
                    let block = blocks.part::<I, Self>(i, first + p);
                    block.prefetch::<I, Self>(isa, (0, 1), first + p);
                    unrolled!(s in per_block, at most 4 => {
                        sums[p] = sums[p].add(one_step::<I, L>(isa, &block, s, i * per_block + s, x));
                    });
                });
            }
            unrolled!(p in side_by_side, at most 4 => {
                isa.store_f(sums[p], &mut acc[p * I::LANES..]);
            });
        });
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, blocks: Blocks<'_>, n: usize, scratch: &mut Scratch, coming: &mut Coming<'_>) {
        let (bytes, quads) = (4 * I::LANES, Self::BLOCK_LEN / 4);
        for part in 0..ROWS / I::LANES {
            let at = part * 64 * bytes;
            for i in 0..n {
                coming.shares(isa, SHARES / Self::FILL);
                let block = blocks.part::<I, Self>(i, part);
                let out = &mut scratch.quads[at + i * quads * bytes..][..quads * bytes];
                unrolled!(q in quads, at most 16 => {
                    isa.store(L::quad(isa, &block, q), &mut out[q * bytes..]);
                });
                unrolled!(s in Self::BLOCK_LEN / L::STEP, at most 4 => {
                    let step = i * (Self::BLOCK_LEN / L::STEP) + s;
                    let at = step * ROWS + part * I::LANES;
                    isa.store_f(L::d(isa, &block, s), &mut scratch.d[at..]);
                    if L::MIN {
                        isa.store_f(L::m(isa, &block), &mut scratch.dmin[at..]);
                    }
                });
            }
        }
    }

    #[inline(always)]
    fn tile<I: Isa, const P: usize, const M: usize>(
        isa: I,
        scratch: &[Scratch; 2],
        part: usize,
        n: usize,
        x: &[Input<'_>; M],
        acc: &mut [f32],
    ) {
        tile::<I, L, P, M>(isa, scratch, part, n * (Self::BLOCK_LEN / L::STEP), x, acc);
    }
}

/// The sums of 16 of step `step`; the second is 0 where a step is 16 long.
#[inline(always)]
fn sums_of_x<L: Layout>(x: &Input<'_>, step: usize) -> [i16; 2] {
    if L::STEP == 32 {
        [x.block.sums[2 * step], x.block.sums[2 * step + 1]]
    } else {
        [x.block.sums[step], 0]
    }
}

/// The sum of a step as the contract rounds it. Weights are d * q + m, the contract's dmin is -m: a - (-b) is a + b to
/// the bit.
#[inline(always)]
fn float_step<I: Isa, L: Layout>(isa: I, dx: f32, sums: [i16; 2], (d, m): (I::F, I::F), isum: I::V) -> I::F {
    let (dx, isum) = (I::F::splat(dx), isa.to_f(isum));
    if L::MIN {
        let msum = I::F::splat((i32::from(sums[0]) + i32::from(sums[1])) as f32);
        dx.mul(d.mul(isum).add(m.mul(msum)))
    } else {
        d.mul(dx).mul(isum)
    }
}

/// One step of as many rows as a vector has, times one token: step `s` of the block, step `step` of the fill.
#[inline(always)]
fn one_step<I: Isa, L: Layout>(isa: I, block: &Part<'_>, s: usize, step: usize, x: &Input<'_>) -> I::F {
    let quads = Shape::<I, L>::QUADS;
    let sums = sums_of_x::<L>(x, step);
    let q = &x.block.q[step * quads..(step + 1) * quads];
    let mut isum = isa.zero();
    if Shape::<I, L>::OFFSET != 0 {
        isum = isa.dot_pairs(isum, isa.splat16(-Shape::<I, L>::OFFSET), sums);
    }
    unrolled!(part in quads / Shape::<I, L>::TOGETHER, at most 8 => {
        // A wide accumulator goes on where the sum stands.
        let mut sum = [if Shape::<I, L>::WIDE { isum } else { isa.zero() }];
        unrolled!(i in Shape::<I, L>::TOGETHER, at most 8 => {
            let i = part * Shape::<I, L>::TOGETHER + i;
            add_quad(isa, L::SIGNED, &mut sum, &[L::quad(isa, block, s * quads + i)], q, i);
        });
        isum = if Shape::<I, L>::WIDE { sum[0] } else { isa.add_group(isum, sum[0], L::SIGNED) };
    });
    float_step::<I, L>(
        isa,
        x.block.d[step],
        sums,
        (L::d(isa, block, s), L::m(isa, block)),
        isum,
    )
}

/// P vectors of rows times M tokens, `steps` steps.
#[inline(always)]
fn tile<I: Isa, L: Layout, const P: usize, const M: usize>(
    isa: I,
    scratch: &[Scratch; 2],
    part: usize,
    steps: usize,
    x: &[Input<'_>; M],
    acc: &mut [f32],
) {
    let (bytes, quads) = (4 * I::LANES, Shape::<I, L>::QUADS);
    let mut weights: [&[u8]; P] = [&[]; P];
    for p in 0..P {
        let (panel, part) = place::<I>(part + p);
        weights[p] = &scratch[panel].quads[part * 64 * bytes..][..64 * bytes];
    }
    let acc = &mut acc[..M * stride::<I>()];
    let mut sum = [[I::F::splat(0.0); P]; M];
    for t in 0..M {
        for p in 0..P {
            sum[t][p] = isa.load_f(&acc[sums_of::<I>(t, part + p)..]);
        }
    }
    for step in 0..steps {
        // The remainder changes nothing but tells the compiler that no index below is out of range.
        let step = step % (256 / L::STEP);
        let mut isum = [[isa.zero(); P]; M];
        if Shape::<I, L>::OFFSET != 0 {
            let offset = isa.splat16(-Shape::<I, L>::OFFSET);
            for t in 0..M {
                isum[t] = [isa.dot_pairs(isa.zero(), offset, sums_of_x::<L>(&x[t], step)); P];
            }
        }
        let mut of_step: [&[[i8; 4]]; M] = [&[]; M];
        for t in 0..M {
            of_step[t] = &x[t].block.q[step * quads..][..quads];
        }
        let at = step * quads * bytes;
        unrolled!(part in quads / Shape::<I, L>::TOGETHER, at most 8 => {
            let mut sums = if Shape::<I, L>::WIDE { isum } else { [[isa.zero(); P]; M] };
            unrolled!(i in Shape::<I, L>::TOGETHER, at most 8 => {
                let i = part * Shape::<I, L>::TOGETHER + i;
                let mut w = [isa.zero(); P];
                for p in 0..P {
                    w[p] = isa.load(&weights[p][at + i * bytes..]);
                }
                for t in 0..M {
                    add_quad(isa, L::SIGNED, &mut sums[t], &w, of_step[t], i);
                }
            });
            for t in 0..M {
                for p in 0..P {
                    isum[t][p] = if Shape::<I, L>::WIDE {
                        sums[t][p]
                    } else {
                        isa.add_group(isum[t][p], sums[t][p], L::SIGNED)
                    };
                }
            }
        });
        for p in 0..P {
            let (panel, row) = place::<I>(part + p);
            let at = step * ROWS + row * I::LANES;
            let d = isa.load_f(&scratch[panel].d[at..]);
            let m = isa.load_f(&scratch[panel].dmin[at..]);
            for t in 0..M {
                let sums = sums_of_x::<L>(&x[t], step);
                sum[t][p] = sum[t][p].add(float_step::<I, L>(
                    isa,
                    x[t].block.d[step],
                    sums,
                    (d, m),
                    isum[t][p],
                ));
            }
        }
    }
    for t in 0..M {
        for p in 0..P {
            isa.store_f(sum[t][p], &mut acc[sums_of::<I>(t, part + p)..]);
        }
    }
}
