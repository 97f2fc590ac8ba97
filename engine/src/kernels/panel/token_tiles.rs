//! Tiles of tokens: 256 weights of some panels are unpacked to bytes once, into a scratch that stays in the first-level
//! cache, and all tokens are multiplied with it, a register tile of MR x NR at a time.
//!
//! ```text
//!   for up to 512 tokens                 sums of floats wait in an array of [token][row]
//!     for panels, as many as a tile is high
//!       for each fill along k            unpack -> bytes, scales as factors, d
//!         for tokens by I::MR            tile: I::MR tokens x I::NR outputs in registers; before it, prefetches
//!                                        after the last fill: its sums to where they are shown
//! ```

use std::marker::PhantomData;
use std::ops::Range;

use super::fill::{Buffer, FillInputs, Inputs, ShardPanels, show, shown};
use super::{Drivers, Format, PREFETCH_DISTANCE, ROWS, WORD, block_bytes};
use crate::kernels::Activations;
use crate::kernels::isa::{Isa, Op};
use crate::kernels::matrix::Shard;
use crate::team::Tile;

/// Tokens whose sums are kept at a time.
pub(super) const TOKENS: usize = 512;

/// The same where there are no more. They take little time, and to clear space for [`TOKENS`] would be felt.
pub(super) const FEW_TOKENS: usize = 32;

/// Panels that one tile can be high.
pub(super) const PANELS: usize = 2;

/// Shares of what comes next that are asked for while a fill of a vector of rows is unpacked, and before each tile: in
/// a tile's loop over groups a loop of prefetches would cost more than it gains.
pub(in crate::kernels) const SHARES: usize = 8;

/// A fill of one panel, unpacked. Vectors are those of an instruction set: part p of the rows lies in its own run.
#[repr(C, align(64))]
pub(in crate::kernels) struct Scratch {
    /// Weights: 64 quads, a byte per weight.
    pub(super) quads: [u8; 64 * WORD],
    /// Factors of the groups.
    pub(super) factors: [u8; 16 * WORD],
    /// Factors of the sums of x, by pairs: of the offset or of the minima.
    pub(super) pairs: [u8; 8 * WORD],
    /// The float factor of each step and row, `[step][row]`.
    pub(super) d: [f32; 16 * ROWS],
    /// The same of the minima.
    pub(super) dmin: [f32; 16 * ROWS],
    /// Float weights, `[k][row]`.
    pub(super) floats: [f32; 64 * ROWS],
}

impl Scratch {
    const fn new() -> Self {
        Scratch {
            quads: [0; 64 * WORD],
            factors: [0; 16 * WORD],
            pairs: [0; 8 * WORD],
            d: [0.0; 16 * ROWS],
            dmin: [0.0; 16 * ROWS],
            floats: [0.0; 64 * ROWS],
        }
    }
}

/// Vector number `part` as counted over all panels of a tile: its panel, and its place there.
#[inline(always)]
pub(super) fn place<I: Isa>(part: usize) -> (usize, usize) {
    let parts = ROWS / I::LANES;
    // The remainder changes nothing but tells the compiler that there is no such panel.
    (part / parts % PANELS, part % parts)
}

/// Sums per token: those of the panels that a tile is high.
pub(super) const fn stride<I: Isa>() -> usize {
    I::NR.div_ceil(ROWS) * ROWS
}

/// Where the sums of token `t` and vector `part`, as counted over all panels of a tile, begin.
#[inline(always)]
pub(super) fn sums_of<I: Isa>(t: usize, part: usize) -> usize {
    // The remainder changes nothing but tells the compiler that there is no such vector.
    t * stride::<I>() + part % (stride::<I>() / I::LANES) * I::LANES
}

/// Rows of a weight times some tokens.
pub(in crate::kernels) struct Product<'a, 'b, 'c, F> {
    pub(in crate::kernels) weight: &'a Shard,
    pub(in crate::kernels) rows: Range<usize>,
    pub(in crate::kernels) x: &'a Activations<'b>,
    pub(in crate::kernels) tokens: Range<usize>,
    pub(in crate::kernels) out: &'a mut Tile<'c>,
    pub(in crate::kernels) format: PhantomData<F>,
}

impl<'c, F> Product<'_, '_, 'c, F> {
    /// The same of some of the tokens.
    pub(in crate::kernels) fn some(&mut self, tokens: Range<usize>) -> Product<'_, '_, 'c, F> {
        Product {
            weight: self.weight,
            rows: self.rows.clone(),
            x: self.x,
            tokens,
            out: self.out,
            format: PhantomData,
        }
    }
}

/// Which way many tokens take.
pub(in crate::kernels) trait ManyTokens<I: Drivers>:
    Copy + Send + Sync + std::fmt::Debug + 'static
{
    /// The name of a backend that takes it, where that is not the instruction set's.
    const NAME: Option<&'static str>;

    /// Multiplies them.
    fn multiply<F: Format>(self, isa: I, product: Product<'_, '_, '_, F>);
}

/// All of them go in register tiles.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct InRegisters;

impl<I: Drivers> ManyTokens<I> for InRegisters {
    const NAME: Option<&'static str> = None;

    #[inline(always)]
    fn multiply<F: Format>(self, isa: I, mut product: Product<'_, '_, '_, F>) {
        let all = product.tokens.clone();
        if all.len() <= FEW_TOKENS {
            let sums = &mut Sums::<FEW_TOKENS>::new().0;
            return isa.run(Tokens { product, sums });
        }
        let mut sums = Sums::<TOKENS>::new();
        for first in all.clone().step_by(TOKENS) {
            let product = product.some(first..all.end.min(first + TOKENS));
            isa.run(Tokens {
                product,
                sums: &mut sums.0,
            });
        }
    }
}

/// A product of at most [`TOKENS`] tokens in register tiles.
pub(super) struct Tokens<'a, 'b, 'c, 'd, F> {
    product: Product<'a, 'b, 'c, F>,
    /// Space for the sums.
    sums: &'d mut [[f32; PANELS * ROWS]],
}

/// Sums of N tokens and [`PANELS`] panels.
#[repr(align(64))]
pub(in crate::kernels) struct Sums<const N: usize>(pub(in crate::kernels) [[f32; PANELS * ROWS]; N]);

impl<const N: usize> Sums<N> {
    pub(in crate::kernels) const fn new() -> Self {
        Sums([[0.0; PANELS * ROWS]; N])
    }
}

/// Packed weights that will be unpacked soon. A few lines of them are asked for now and then, while weights are unpacked
/// and before each tile: a processor keeps a short list of lines that are on their way, and what is beyond
/// it holds up the loads behind; and while none is on its way, memory has nothing to do.
pub(in crate::kernels) struct Coming<'a> {
    pub(in crate::kernels) weights: &'a [u8],
    pub(in crate::kernels) panel_bytes: usize,
    /// Panels that are multiplied side by side.
    high: usize,
    /// How far behind the fill that is multiplied they lie.
    distance: usize,
    /// Lines of each panel that are due with every share, in [`Coming::PARTS`].
    step: usize,
    /// How many are due, in the same parts.
    due: usize,
    /// Where the next line begins, and where the last one ends.
    rest: (usize, usize),
}

impl<'a> Coming<'a> {
    /// Parts of a line that are counted.
    const PARTS: usize = 256;

    /// Those some [`PREFETCH_DISTANCE`] ahead, of so many panels side by side, in so many shares a fill.
    pub(in crate::kernels) fn new<F: Format>(weight: &'a Shard, high: usize, shares: usize) -> Self {
        let fill = F::FILL * block_bytes::<F>();
        Self::at_distance::<F>(weight, high, PREFETCH_DISTANCE.next_multiple_of(fill), shares)
    }

    /// Those that lie so far ahead; nothing of mapped weights: what interleaves them prefetches.
    pub(in crate::kernels) fn at_distance<F: Format>(
        weight: &'a Shard,
        high: usize,
        distance: usize,
        shares: usize,
    ) -> Self {
        let lines = (F::FILL * block_bytes::<F>()).div_ceil(WORD);
        Coming {
            weights: &weight.data,
            panel_bytes: weight.row_bytes * ROWS,
            high,
            distance,
            step: if weight.packed {
                (lines * Self::PARTS).div_ceil(shares)
            } else {
                0
            },
            due: 0,
            rest: (0, 0),
        }
    }

    /// Goes to what is multiplied after fill `i` of the panels from number `panel` on: behind their ends that is in the
    /// panels after those side by side.
    #[inline(always)]
    pub(in crate::kernels) fn at_fill<F: Format>(&mut self, panel: usize, i: usize) {
        let len = F::FILL * block_bytes::<F>();
        let ahead = i * len + self.distance;
        let panel = panel + ahead / self.panel_bytes * self.high;
        let start = panel * self.panel_bytes + ahead % self.panel_bytes;
        self.rest = (start, start + len);
        self.due = 0;
    }

    /// So many shares more are due.
    #[inline(always)]
    pub(in crate::kernels) fn add_due(&mut self, shares: usize) {
        self.due += shares * self.step;
    }

    /// The next line that is due, as its place in the first panel.
    #[inline(always)]
    pub(in crate::kernels) fn line(&mut self) -> Option<usize> {
        let (at, last) = self.rest;
        if self.due < Self::PARTS || at >= last {
            return None;
        }
        self.due -= Self::PARTS;
        self.rest.0 = at + WORD;
        Some(at)
    }

    /// Prefetches the next shares.
    #[inline(always)]
    pub(super) fn shares<I: Isa>(&mut self, isa: I, shares: usize) {
        self.add_due(shares);
        while let Some(at) = self.line() {
            // As many panels as a tile is high.
            isa.prefetch(self.weights, at);
            if I::NR > ROWS {
                isa.prefetch(self.weights, at + self.panel_bytes);
            }
        }
    }
}

impl<I: Isa, F: Format> Op<I> for Tokens<'_, '_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let Tokens { mut product, sums } = self;
        let m = product.tokens.len();
        let shard = ShardPanels::<F>::new(product.weight);
        let inputs = Inputs::<F>::new(product.x);
        let mut buffer = Buffer::new();
        let mut scratch = [const { Scratch::new() }; PANELS];
        let sums = sums.as_flattened_mut();
        // Sums per token, the panels that they belong to, and the vectors in those.
        let stride = stride::<I>();
        let (high, parts) = (stride / ROWS, stride / I::LANES);
        let end = product.rows.end.div_ceil(ROWS);
        let vectors = high * ROWS / I::LANES;
        let mut coming = Coming::new::<F>(product.weight, high, SHARES * (vectors + m.div_ceil(I::MR)));
        // Where a token would be left alone, four go in two tiles of two.
        let alone = I::MR == 3 && m % 3 == 1;
        let whole = if alone { m.saturating_sub(4) } else { m };
        for first in (product.rows.start / ROWS..end).step_by(high) {
            let sums = &mut sums[..m * stride];
            sums.fill(0.0);
            let panels = [0, 1].map(|i| shard.panel((first + i).min(end - 1)));
            for i in 0..shard.fills() {
                coming.at_fill::<F>(first, i);
                let mut blocks = 0;
                for (panel, scratch) in panels.iter().zip(&mut scratch).take(high) {
                    let (fill, n) = shard.fill(isa, panel, i, &mut buffer);
                    F::unpack(isa, fill, n, scratch, &mut coming);
                    blocks = n;
                }
                let inputs = inputs.fill(i);
                // What has its last sum is shown at once: a row of outputs is far from the next one, and the writes of
                // a few are done while the next tile computes.
                let shown = (i + 1 == shard.fills()).then(|| first..end.min(first + high));
                let mut t = 0;
                macro_rules! tiles_of {
                    ($tokens:expr, to $end:expr) => {
                        while $end - t >= $tokens {
                            coming.shares(isa, SHARES);
                            let next = product.tokens.start + t + $tokens;
                            inputs.prefetch(isa, next..product.tokens.end.min(next + $tokens));
                            if let Some(panels) = &shown {
                                product.prefetch_outputs(isa, panels.clone(), t..t + $tokens);
                            }
                            for part in (0..parts).step_by(I::NR / I::LANES) {
                                let x = (&inputs, product.tokens.start + t);
                                let acc = &mut sums[t * stride..];
                                tile::<I, F>(isa, &scratch, (part, $tokens), blocks, x, acc);
                            }
                            if let Some(panels) = &shown {
                                product.show(panels.clone(), t..t + $tokens, stride, sums);
                            }
                            t += $tokens;
                        }
                    };
                }
                // What is left over goes by fours and twos, then alone.
                tiles_of!(I::MR, to whole);
                if I::MR > 4 {
                    tiles_of!(4, to m);
                }
                if I::MR > 2 {
                    tiles_of!(2, to m);
                }
                tiles_of!(1, to m);
            }
        }
    }
}

impl<F> Product<'_, '_, '_, F> {
    /// Prefetches the lines that the outputs of some tokens will be written to.
    #[inline(always)]
    pub(in crate::kernels) fn prefetch_outputs<I: Isa>(
        &mut self,
        isa: I,
        panels: Range<usize>,
        tokens: Range<usize>,
    ) {
        let columns = shown(panels.start, &self.rows).1;
        for t in tokens {
            let out = &self.out.row(self.tokens.start + t)[columns.start..];
            for panel in 0..panels.len() {
                isa.prefetch(bytemuck::cast_slice(out), panel * ROWS * size_of::<f32>());
            }
        }
    }

    /// Copies the sums of some tokens to where they are shown.
    #[inline(always)]
    pub(in crate::kernels) fn show(
        &mut self,
        panels: Range<usize>,
        tokens: Range<usize>,
        stride: usize,
        sums: &[f32],
    ) {
        for (i, panel) in panels.enumerate() {
            let (lanes, columns) = shown(panel, &self.rows);
            for t in tokens.clone() {
                let out = &mut self.out.row(self.tokens.start + t)[columns.clone()];
                show(&sums[t * stride + i * ROWS..], &lanes, out);
            }
        }
    }
}

/// [`Format::tile`] of [`Isa::NR`] outputs, from vector number `part` on, and of so many tokens, which is known where
/// the code is compiled.
#[inline(always)]
fn tile<I: Isa, F: Format>(
    isa: I,
    scratch: &[Scratch; PANELS],
    (part, tokens): (usize, usize),
    n: usize,
    (x, token): (&FillInputs<'_, F>, usize),
    acc: &mut [f32],
) {
    macro_rules! of {
        ($parts:literal, $tokens:literal) => {{
            let x = x.tokens::<$tokens>(token);
            F::tile::<I, $parts, $tokens>(isa, scratch, part, n, &x, acc)
        }};
    }
    match (I::NR / I::LANES, tokens) {
        (2, 1) => of!(2, 1),
        (2, 2) => of!(2, 2),
        (2, 3) => of!(2, 3),
        (2, 4) => of!(2, 4),
        (2, 6) => of!(2, 6),
        // Every instruction set has its sizes above. One with other sizes would be right but slow, a vector and a token
        // at a time.
        _ => {
            for t in 0..tokens {
                let x = [x.token(token + t)];
                for p in 0..I::NR / I::LANES {
                    let acc = &mut acc[t * stride::<I>()..];
                    F::tile::<I, 1, 1>(isa, scratch, part + p, n, &x, acc);
                }
            }
        }
    }
}
