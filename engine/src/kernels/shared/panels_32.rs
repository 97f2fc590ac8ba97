//! The kernel for panel steps of 32 (NVFP4: 16) weights without integer scales: the dot product of a step is converted to
//! float as it is. The layouts are in [`super::layouts_32`].
//!
//! Weights stored with an offset begin a step's sum with `- offset * sum of x`. A minimum is `dmin * sum of x`.
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
    /// Weights of a row per step: 32 or 16.
    const STEP: usize = 32;
    /// Bytes of a panel step.
    const BYTES: usize;
    /// Whether weights are kept in this layout; else it is a scratch for any type.
    const OWN: bool = true;
    /// [`Layout::quad`] gives signed bytes (through [`Isa::biased`]), else unsigned ones.
    const SIGNED: bool = false;
    /// Largest unsigned weight.
    const MAX: i32;
    /// Unsigned weights hold `q + OFFSET`.
    const OFFSET: i16 = 0;
    /// There are minima.
    const MIN: bool = false;

    /// Quad `i` of the step, `part` of its rows.
    fn quad<I: Isa>(isa: I, step: &[u8], part: usize, i: usize) -> I::V;
    /// The float factor of each row.
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F;
    /// The float factor of each row's minimum.
    fn dmin<I: Isa>(_isa: I, _step: &[u8], _part: usize) -> I::F {
        I::F::splat(0.0)
    }

    /// Packs one step of 16 rows.
    fn pack(steps: &[Step; ROWS], out: &mut [u8]);
    /// The inverse, for one row; scales and minima are 1 already.
    fn unpack(step: &[u8], row: usize, out: &mut Step);
}

/// The format of a layout.
#[derive(Debug)]
pub(super) struct Steps32<L>(PhantomData<L>);

impl<L: Layout> Format for Steps32<L> {
    const STEP: usize = L::STEP;
    const BYTES: usize = L::BYTES;
    const OWN: bool = L::OWN;
    const ACTIVATIONS: ActFormat = if L::STEP == 16 {
        ActFormat::Q16
    } else {
        ActFormat::Q32
    };

    fn pack(ty: GgmlType, rows: &[Option<&[u8]>; ROWS], first: usize, out: &mut [u8]) {
        pack_steps(ty, rows, first, (out, L::BYTES), L::pack);
    }

    fn decode(panel: &[u8], row: usize, out: &mut [f32]) {
        let mut unpacked = Step {
            scale: [1; 16],
            min: [1; 16],
            ..Step::default()
        };
        for (step, out) in panel.chunks_exact(L::BYTES).zip(out.chunks_exact_mut(L::STEP)) {
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
            let Some(x) = Tokens::<M>::at(x, first + i, L::STEP) else {
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
    q: [&'a [[i8; 4]]; M],
    d: [f32; M],
    /// Sums of 16; the second is 0 where a step is 16 long.
    sums: [[i16; 2]; M],
}

impl<'a, const M: usize> Tokens<'a, M> {
    #[inline(always)]
    fn at(x: &[Row<'a>; M], step: usize, len: usize) -> Option<Self> {
        let mut tokens = Tokens {
            q: [&[]; M],
            d: [0.0; M],
            sums: [[0; 2]; M],
        };
        for t in 0..M {
            tokens.q[t] = x[t].q.get(step * (len / 4)..(step + 1) * (len / 4))?;
            tokens.d[t] = *x[t].d.get(step)?;
            tokens.sums[t] = if len == 32 {
                *x[t].sums.as_chunks().0.get(step)?
            } else {
                [*x[t].sums.get(step)?, 0]
            };
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
    let quads = L::STEP / 4;
    let step = &step[..L::BYTES];
    let mut q = x.q;
    for t in 0..M {
        // Said once, so that no index below is checked.
        q[t] = &q[t][..quads];
    }
    let wide = L::SIGNED || I::WIDE_GROUPS;
    let together = if wide {
        quads
    } else {
        quads.min(I::group_quads(L::MAX))
    };
    let offset = if L::SIGNED { I::BIAS as i16 } else { L::OFFSET };

    let mut isum = [isa.zero(); M];
    if offset != 0 {
        let offset = isa.splat16(-offset);
        for t in 0..M {
            isum[t] = isa.dot_pairs(isum[t], offset, x.sums[t]);
        }
    }
    unrolled!(part_of_step in quads / together, at most 8 => {
        // A wide accumulator goes on where the sum stands.
        let mut sums = if wide { isum } else { [isa.zero(); M] };
        unrolled!(i in together, at most 8 => {
            let i = part_of_step * together + i;
            let w = L::quad(isa, step, part, i);
            for t in 0..M {
                let x = q[t][i];
                sums[t] = if L::SIGNED {
                    isa.dot_signed(sums[t], w, x)
                } else {
                    isa.dot(sums[t], w, x)
                };
            }
        });
        for t in 0..M {
            isum[t] = if wide { sums[t] } else { isa.add_group(isum[t], sums[t], L::SIGNED) };
        }
    });

    let d = L::d(isa, step, part);
    let dmin = L::dmin(isa, step, part);
    for t in 0..M {
        let dx = I::F::splat(x.d[t]);
        let isum = isa.to_f(isum[t]);
        let step = if L::MIN {
            let msum = I::F::splat((i32::from(x.sums[t][0]) + i32::from(x.sums[t][1])) as f32);
            dx.mul(d.mul(isum).sub(dmin.mul(msum)))
        } else {
            d.mul(dx).mul(isum)
        };
        let acc = &mut acc[t][part * I::ROWS..];
        isa.store_f(isa.load_f(acc).add(step), acc);
    }
}
