//! The kernel for panel steps of 256 weights, with integer scales per group of 16 or 32; the layouts are in
//! [`super::layouts_256`].
//!
//! ```text
//!   panel step = chunk 0 | chunk 1 | chunk 2 | chunk 3 | scales | floats
//!   chunk c: weights 64c .. 64c + 63 of 16 rows = 16 quads, quad i being the vector of k = 64c + 4i .. 64c + 4i + 3
//! ```
//!
//! Per group: the quads' dot products are added up, multiplied by the group's scale and added to the step's sum. Weights
//! that are stored with an offset (q + 32) begin that sum with `- offset * sum of scale * group sum of x`, taken two
//! groups at a time; minima are summed up likewise. One conversion to float per step.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::functions::Lanes;
use super::isa::{Isa, unrolled};
use super::panel::{Format, ROWS, Row, pack_steps};
use crate::kernels::ActFormat;
use crate::quant::{self, GgmlType, Step};

/// How a panel step lies in memory.
pub(super) trait Layout: std::fmt::Debug + Send + Sync + 'static {
    /// Bytes of a panel step.
    const BYTES: usize;
    /// Bytes of a chunk: 64 weights of 16 rows.
    const CHUNK: usize;
    /// Whether weights are kept in this layout; else it is a scratch for any type.
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
    /// There are minima.
    const MIN: bool = false;

    /// Quad `i` of a chunk, `part` of its rows.
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V;
    /// Scales: byte j of a lane of vector v is that of group 4v + j. Vectors beyond the last group are not read.
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4];
    /// Minima, in the same order.
    fn mins<I: Isa>(isa: I, _step: &[u8], _part: usize) -> [I::V; 4] {
        [isa.zero(); 4]
    }
    /// The float factor of each row.
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F;
    /// The float factor of each row's minima.
    fn dmin<I: Isa>(_isa: I, _step: &[u8], _part: usize) -> I::F {
        I::F::splat(0.0)
    }

    /// Packs one step of 16 rows.
    fn pack(steps: &[Step; ROWS], out: &mut [u8]);
    /// The inverse, for one row.
    fn unpack(step: &[u8], row: usize, out: &mut Step);
}

/// The format of a layout.
#[derive(Debug)]
pub(super) struct Steps256<L>(PhantomData<L>);

impl<L: Layout> Format for Steps256<L> {
    const STEP: usize = 256;
    const BYTES: usize = L::BYTES;
    const OWN: bool = L::OWN;
    const ACTIVATIONS: ActFormat = ActFormat::Q256;

    fn pack(ty: GgmlType, rows: &[Option<&[u8]>; ROWS], first: usize, out: &mut [u8]) {
        pack_steps(ty, rows, first, (out, L::BYTES), L::pack);
    }

    fn decode(panel: &[u8], row: usize, out: &mut [f32]) {
        let mut unpacked = Step::default();
        for (step, out) in panel.chunks_exact(L::BYTES).zip(out.chunks_exact_mut(256)) {
            L::unpack(step, row, &mut unpacked);
            quant::evaluate(&unpacked, L::MIN, out);
        }
    }

    #[inline(always)]
    fn accumulate<I: Isa, const M: usize>(
        isa: I,
        panel: &[u8],
        first: usize,
        x: &[Row<'_>; M],
        acc: &mut [[f32; ROWS]; M],
    ) {
        for (i, step) in panel.chunks_exact(L::BYTES).enumerate() {
            let Some(x) = Tokens::<M>::at(x, first + i, L::GROUP) else {
                return;
            };
            for part in 0..ROWS / I::ROWS {
                one_step::<I, L, M>(isa, step, part, &x, acc);
            }
        }
    }
}

/// One step of the activations of M tokens.
struct Tokens<'a, const M: usize> {
    q: [&'a [[[i8; 4]; 16]; 4]; M],
    d: [f32; M],
    /// Group sums by twos.
    sums: [&'a [[i16; 2]]; M],
}

impl<'a, const M: usize> Tokens<'a, M> {
    #[inline(always)]
    fn at(x: &[Row<'a>; M], step: usize, group: usize) -> Option<Self> {
        let pairs = 128 / group;
        let mut tokens = Tokens {
            q: [&[[[0; 4]; 16]; 4]; M],
            d: [0.0; M],
            sums: [&[]; M],
        };
        for t in 0..M {
            tokens.q[t] = x[t].q.as_chunks().0.get(step * 4..)?.first_chunk()?;
            tokens.d[t] = *x[t].d.get(step)?;
            let sums = if group == 16 { x[t].sums } else { x[t].sums32 };
            tokens.sums[t] = sums.as_chunks().0.get(step * pairs..(step + 1) * pairs)?;
        }
        Some(tokens)
    }
}

#[inline(always)]
fn one_step<I: Isa, L: Layout, const M: usize>(
    isa: I,
    step: &[u8],
    part: usize,
    x: &Tokens<'_, M>,
    acc: &mut [[f32; ROWS]; M],
) {
    let step = &step[..L::BYTES];
    // Groups per chunk, and quads whose products may be added up before the group's scale is applied.
    let groups = 64 / L::GROUP;
    let quads = L::GROUP / 4;
    let together = if L::SIGNED {
        quads
    } else {
        quads.min(I::group_quads(L::MAX))
    };

    let scales = L::scales(isa, step, part);
    let mut factors = [isa.zero(); 16];
    unrolled!(v in groups, at most 4 => {
        unrolled!(j in 4, at most 4 => {
            factors[4 * v + j] = isa.factor(scales[v], j, L::SIGNED_SCALES, L::SIGNED);
        });
    });

    let mut isum = [isa.zero(); M];
    let offset = match L::OFFSET_SHIFT {
        None if L::SIGNED && I::BIAS != 0 => Some(I::BIAS.trailing_zeros()),
        shift => shift,
    };
    if let Some(shift) = offset {
        unrolled!(p in 2 * groups, at most 8 => {
            let pair = isa.pairs_negated(scales[p / 2], p % 2, shift);
            for t in 0..M {
                isum[t] = isa.dot_pairs(isum[t], pair, x.sums[t][p]);
            }
        });
    }

    let mut x_of_chunk = [&[[0i8; 4]; 16]; M];
    for chunk in 0..4 {
        // `& 3` changes nothing but tells the compiler that no index can be out of range, also where it has rewritten the
        // loop in terms of addresses.
        let chunk = chunk & 3;
        let bytes = &step[chunk * L::CHUNK..(chunk + 1) * L::CHUNK];
        for t in 0..M {
            x_of_chunk[t] = &x.q[t][chunk];
        }
        unrolled!(g in groups, at most 4 => {
            let factor = factors[(chunk * groups + g) & 15];
            unrolled!(part_of_group in quads / together, at most 8 => {
                let mut sums = [isa.zero(); M];
                unrolled!(i in together, at most 8 => {
                    let i = g * quads + part_of_group * together + i;
                    let w = L::quad(isa, bytes, part, i);
                    for t in 0..M {
                        let x = x_of_chunk[t][i];
                        sums[t] = if L::SIGNED {
                            isa.dot_signed(sums[t], w, x)
                        } else {
                            isa.dot(sums[t], w, x)
                        };
                    }
                });
                for t in 0..M {
                    isum[t] = isa.add_scaled(isum[t], sums[t], factor, L::SIGNED);
                }
            });
        });
    }

    let d = L::d(isa, step, part);
    let mut msum = [isa.zero(); M];
    let dmin = L::dmin(isa, step, part);
    if L::MIN {
        let mins = L::mins(isa, step, part);
        unrolled!(p in 2 * groups, at most 8 => {
            let pair = isa.pairs(mins[p / 2], p % 2);
            for t in 0..M {
                msum[t] = isa.dot_pairs(msum[t], pair, x.sums[t][p]);
            }
        });
    }
    for t in 0..M {
        let dx = I::F::splat(x.d[t]);
        let isum = isa.to_f(isum[t]);
        let step = if L::MIN {
            dx.mul(d.mul(isum).sub(dmin.mul(isa.to_f(msum[t]))))
        } else {
            d.mul(dx).mul(isum)
        };
        let acc = &mut acc[t][part * I::ROWS..];
        isa.store_f(isa.load_f(acc).add(step), acc);
    }
}
