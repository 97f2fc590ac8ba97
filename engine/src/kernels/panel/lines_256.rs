//! One token times blocks of 256 weights, for WebAssembly, which a browser compiles once more: a line of memory at a
//! time (one word of all 16 rows), in loops that are not unrolled.
//!
//! [`super::steps_256`] writes a block's quads out one after the other, for one vector of rows. In a browser that has
//! three costs, and this form avoids each:
//!
//! - A sum that is used once is moved to its use, with all that leads to it. The loads stay where they are: their
//!   results wait on the stack. What goes around in a loop stays in its registers.
//! - An activation is put into all lanes, and a constant made of two instructions or three, for each vector of rows
//!   anew. Here once for four.
//! - There is no prefetch, and how well a processor finds out by itself what is needed next depends on how many
//!   instructions read: the same reads from a block written out were less than half as fast (measured on a Zen 5).
//!
//! ```text
//!   for each vector of rows        scales -> factors [group][vector], sums of the offsets
//!   for each bundle                quads that take their bits from the same words, two runs of them at a time
//!     a share of the next block is read
//!     for each line                4 vectors, 8 sums of groups in registers
//!     the sums times their factors
//!   for each vector of rows        minima, one step in floats
//! ```

// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::hint::black_box;
use std::marker::PhantomData;

use super::steps_256::{Layout, Shape, Steps256, float_step, sums_by_twos};
use super::{Blocks, Input, ROWS, ReadAhead};
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{Isa, LineIsa, unrolled};

/// Vectors of a panel's rows: [`LineIsa`] is for instruction sets with four lanes.
const PARTS: usize = 4;

/// How a block is walked.
struct Walk<I, L>(PhantomData<(I, L)>);

impl<I: Isa, L: Layout> Walk<I, L> {
    /// Bundles of a block.
    const BUNDLES: usize = 64 / (L::SHARED * L::RUN);
    /// Runs taken at a time: the sums of more of them are more than there are registers.
    const RUNS: usize = if L::SHARED < 2 { L::SHARED } else { 2 };
    /// Times that a bundle is gone through.
    const TURNS: usize = L::SHARED / Self::RUNS;
    /// How often a run is cut, as no more products may be added up before the groups' factors are applied.
    const CUTS: usize = L::RUN / Shape::<I, L>::OF_RUN;
    /// Shares in which the next block is read.
    const SHARES: usize = Self::BUNDLES * Self::TURNS * Self::CUTS;
}

/// One block of all rows.
struct Block<'a, I: Isa, A> {
    isa: I,
    blocks: Blocks<'a>,
    ahead: A,
    quads: &'a [[i8; 4]],
    /// Factors of the groups.
    factors: [[I::V; PARTS]; 16],
}

/// Counts from 0 to `n`, a power of two. `n` goes through [`black_box`], as the compiler would unroll a loop whose
/// count it knows; the mask tells it at least that no index is out of range, and which bits of an index are zero.
#[inline(always)]
fn numbers(n: usize) -> impl Iterator<Item = usize> {
    assert!(n.is_power_of_two());
    (0..black_box(n)).map(move |i| i & (n - 1))
}

/// Adds the products of one block with one token to the sums of its 16 rows.
#[inline(always)]
pub(in crate::kernels) fn in_lines<I: LineIsa, L: Layout, A: ReadAhead<I>>(
    isa: I,
    blocks: Blocks<'_>,
    ahead: A,
    x: &Input<'_>,
    acc: &mut [f32; ROWS],
) {
    let fours_of_sums: &[[[i16; 2]; 2]] = sums_by_twos::<L>(x).as_chunks().0;
    let mut block = Block {
        isa,
        blocks,
        ahead,
        quads: &x.block.q,
        factors: [[isa.zero(); PARTS]; 16],
    };
    let mut isum = [isa.zero(); PARTS];
    for p in numbers(PARTS) {
        let scales = L::scales(isa, &blocks.part::<I, Steps256<L>>(0, p));
        if let Some(shift) = Shape::<I, L>::OFFSET {
            unrolled!(v in Shape::<I, L>::GROUPS / 4, at most 4 => {
                isum[p] = isa.sub_offsets(isum[p], scales[v], shift, &fours_of_sums[v]);
            });
        }
        unrolled!(g in Shape::<I, L>::GROUPS, at most 16 => {
            block.factors[g][p] = isa.factor(scales[g / 4], g % 4, L::SIGNED_SCALES, L::SIGNED);
        });
    }
    // Apart from the array above, whose places are chosen by a number: these are registers.
    let mut sums = isum;
    for b in numbers(Walk::<I, L>::BUNDLES) {
        block.bundle::<L>(b, &mut sums);
    }
    let isum = sums;
    for p in numbers(PARTS) {
        let part = blocks.part::<I, Steps256<L>>(0, p);
        let mut msum = isa.zero();
        if L::MIN {
            let mins = L::mins(isa, &part);
            unrolled!(v in Shape::<I, L>::GROUPS / 4, at most 4 => {
                msum = isa.add_minima(msum, mins[v], &fours_of_sums[v]);
            });
        }
        let (d, dmin) = (L::d(isa, &part), L::dmin(isa, &part));
        let step = float_step::<I, L>(isa, x.block.d[0], (d, isum[p]), (dmin, msum));
        let acc = &mut acc[p * I::LANES..];
        isa.store_f(isa.load_f(acc).add(step), acc);
    }
}

impl<I: LineIsa, A: ReadAhead<I>> Block<'_, I, A> {
    /// Adds the products of bundle `b` to the step's sums.
    #[inline(always)]
    fn bundle<L: Layout>(&self, b: usize, sums: &mut [I::V; PARTS]) {
        let (isa, first) = (self.isa, b * L::SHARED * L::RUN);
        unrolled!(turn in Walk::<I, L>::TURNS, at most 4 => {
            for cut in numbers(Walk::<I, L>::CUTS) {
                let share = (b * Walk::<I, L>::TURNS + turn) * Walk::<I, L>::CUTS + cut;
                self.ahead.share(isa, share, Walk::<I, L>::SHARES);
                let mut groups = [[isa.zero(); PARTS]; 2];
                let start = cut * Shape::<I, L>::OF_RUN;
                if Shape::<I, L>::OF_RUN > 2 {
                    for i in numbers(Shape::<I, L>::OF_RUN) {
                        self.line::<L>(first, turn, start + i, &mut groups);
                    }
                } else {
                    unrolled!(i in Shape::<I, L>::OF_RUN, at most 4 => {
                        self.line::<L>(first, turn, start + i, &mut groups);
                    });
                }
                for run in 0..Walk::<I, L>::RUNS {
                    let quad = first + (turn + run * Walk::<I, L>::TURNS) * L::RUN + start;
                    // The mask changes nothing but tells the compiler that there is no such group.
                    let factors = &self.factors[(quad / Shape::<I, L>::QUADS) & 15];
                    for p in 0..PARTS {
                        sums[p] = isa.add_scaled(sums[p], groups[run][p], factors[p], L::SIGNED);
                    }
                }
            }
        });
    }

    /// Adds the products of quad `i` of the runs of this turn to the sums of their groups.
    #[inline(always)]
    fn line<L: Layout>(&self, first: usize, turn: usize, i: usize, groups: &mut [[I::V; PARTS]; 2]) {
        let isa = self.isa;
        for p in 0..PARTS {
            let part = self.blocks.part::<I, Steps256<L>>(0, p);
            for run in 0..Walk::<I, L>::RUNS {
                let quad = first + (turn + run * Walk::<I, L>::TURNS) * L::RUN + i;
                let (w, sum) = (L::quad(isa, &part, quad), &mut groups[run][p]);
                *sum = if L::SIGNED {
                    isa.dot_signed(*sum, w, isa.signed_activations_at(self.quads, quad))
                } else {
                    isa.dot(*sum, w, isa.activations_at(self.quads, quad))
                };
            }
        }
    }
}
