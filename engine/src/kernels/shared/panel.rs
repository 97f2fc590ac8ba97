//! Matmul over panels: 16 output rows interleaved, so that a 32-bit lane of a vector is one output ([`super::blocks`] draws
//! it). There is no horizontal sum, and the floats of one output are added in the order of the steps, as the contract asks.
//!
//! *Packed* weights lie as panels; *mapped* weights as in the file: some blocks of 16 rows at a time are interleaved into a
//! buffer on the stack just before use.
//!
//! One token goes straight from a packed panel's bits to dot products. More tokens, and mapped weights: 256 weights of 32 rows or so (*a fill*) are
//! unpacked to bytes once, into a scratch that stays in the first-level cache, and all tokens pass over it, some at a time
//! against some vectors of rows, as the registers allow:
//!
//! ```text
//!   for up to 512 tokens                 sums of floats wait in an array of [token][row]
//!     for panels, as many as a tile is high
//!       for each fill along k            unpack -> bytes, scales as factors, d
//!         for tokens by I::TOKENS        tile: I::PARTS vectors x I::TOKENS tokens in registers
//!                                        after the last fill: its sums to where they are shown
//! ```

use std::marker::PhantomData;
use std::ops::Range;

use super::blocks::{self, Blocks, Interleave, Packed, Sources, TAIL, WORD, restore};
use super::isa::{Isa, Op};
use crate::kernels::matrix::Shard;
use crate::kernels::{ActFormat, Activations, MatmulKernel, Packing, QuantizedBlock, QuantizedRows};
use crate::quant::{self, GgmlType};
use crate::team::Tile;
use crate::{Error, Result};

/// Output rows of a panel.
pub(super) const ROWS: usize = 16;

/// Tokens whose sums are kept at a time.
const TOKENS: usize = 512;

/// Bytes of a file that are packed before their memory is given back.
const RELEASE: usize = 1 << 20;

/// Panels that one tile can be high.
const PANELS: usize = 2;

/// Words and tails of a fill of any format.
const FILL_WORDS: usize = 72;
const FILL_TAILS: usize = 64;

/// Does `$body` for every [`Isa::SIDE_BY_SIDE`] vectors of a panel's rows, the first of which is number `$part`. Where those are all of
/// them there is no loop: the compiler sees that it has one round only after it has analysed the unfolded body as one (measured: half of
/// the engine's build for tests).
macro_rules! by_vectors {
    ($part:ident of $isa:ty => $body:block) => {
        if ROWS / <$isa>::ROWS == <$isa>::SIDE_BY_SIDE {
            let $part = 0;
            $body
        } else {
            for $part in (0..ROWS / <$isa>::ROWS).step_by(<$isa>::SIDE_BY_SIDE) {
                $body
            }
        }
    };
}
pub(super) use by_vectors;

/// The activations of one token that belong to a fill.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// Floats, for float weights; the slice may go on behind the fill.
    pub(super) x: &'a [f32],
    /// For all others.
    pub(super) block: &'a QuantizedBlock,
}

/// A fill of one panel, unpacked. Vectors are those of an instruction set: part p of the rows lies in its own run.
#[repr(C, align(64))]
pub(super) struct Scratch {
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

/// A panel layout with its kernels.
pub(super) trait Format: std::fmt::Debug + Send + Sync + 'static {
    /// The type in the file; not read where the layout is only a form for any type.
    const TYPE: GgmlType;
    /// Weights of a row per block.
    const BLOCK: usize;
    /// Blocks per fill.
    const FILL: usize;
    /// The byte of a file's block from which on it is taken as words.
    const WORDS_AT: usize;
    /// Words of a block.
    const WORDS: usize;
    /// Tails of a block.
    const TAILS: usize;
    /// Whether weights are kept in this layout; else it only ever is a buffer.
    const OWN: bool;
    /// The activations that it is multiplied with.
    const ACTIVATIONS: ActFormat;

    /// Tail `j` of a file's block.
    fn tail(block: &[u8], j: usize) -> u16;
    /// The inverse.
    fn restore_tail(block: &mut [u8], j: usize, tail: u16);

    /// Blocks `first .. first + n` of 16 rows as a panel has them.
    #[inline(always)]
    fn fill<I: Isa>(
        isa: I,
        ty: GgmlType,
        rows: &Sources<'_>,
        first_n: (usize, usize),
        words: &mut [u8],
        tails: &mut [u8],
    ) where
        Self: Sized,
    {
        if !Self::OWN {
            return Self::fill_from_any(ty, rows, first_n, words);
        }
        isa.run(Interleave {
            rows,
            first_n,
            words,
            tails,
            format: PhantomData::<Self>,
        });
    }

    /// The same for a form of any type: only where the layout is not [`Format::OWN`].
    fn fill_from_any(_: GgmlType, _: &Sources<'_>, _: (usize, usize), _: &mut [u8]) {}

    /// Adds the products of one fill of `n` blocks with one token to the sums of its 16 rows.
    fn one_token<I: Isa>(isa: I, blocks: Blocks<'_>, n: usize, x: &Row<'_>, acc: &mut [f32; ROWS]);

    /// Unpacks one fill.
    fn unpack<I: Isa>(isa: I, blocks: Blocks<'_>, n: usize, scratch: &mut Scratch);

    /// Adds the products of one fill of `n` blocks, P vectors of rows from number `part` on, with M tokens: the sums of token
    /// t start at `acc[t * stride::<I>()]`, with that of the first panel's first row.
    fn tile<I: Isa, const P: usize, const M: usize>(
        isa: I,
        scratch: &[Scratch; PANELS],
        part: usize,
        n: usize,
        x: &[Row<'_>; M],
        acc: &mut [f32],
    );
}

/// Vector number `part` as counted over all panels of a tile: its panel, and its place there.
#[inline(always)]
pub(super) fn place<I: Isa>(part: usize) -> (usize, usize) {
    let parts = ROWS / I::ROWS;
    // The remainder changes nothing but tells the compiler that there is no such panel.
    (part / parts % PANELS, part % parts)
}

/// Sums per token: those of the panels that a tile is high.
pub(super) const fn stride<I: Isa>() -> usize {
    (I::PARTS * I::ROWS).div_ceil(ROWS) * ROWS
}

/// Where the sums of token `t` and vector `part`, as counted over all panels of a tile, begin.
#[inline(always)]
pub(super) fn sums_of<I: Isa>(t: usize, part: usize) -> usize {
    // The remainder changes nothing but tells the compiler that there is no such vector.
    t * stride::<I>() + part % (stride::<I>() / I::ROWS) * I::ROWS
}

/// The kernel of a layout on an instruction set.
#[derive(Debug)]
pub(super) struct Panels<I, F> {
    isa: I,
    format: PhantomData<F>,
}

impl<I: Isa, F: Format> Panels<I, F> {
    /// The kernel. It is a value without bytes, so nothing is leaked.
    pub(super) fn kernel(isa: I) -> &'static dyn MatmulKernel {
        Box::leak(Box::new(Panels {
            isa,
            format: PhantomData::<F>,
        }))
    }
}

/// A buffer for a fill of mapped weights.
#[repr(align(64))]
struct Buffer {
    words: [u8; FILL_WORDS * WORD],
    tails: [u8; FILL_TAILS * TAIL],
}

impl Buffer {
    const fn new() -> Self {
        Buffer {
            words: [0; FILL_WORDS * WORD],
            tails: [0; FILL_TAILS * TAIL],
        }
    }
}

/// The panels of a shard, wherever its bytes lie.
struct Source<'a, F> {
    weight: &'a Shard,
    /// Blocks of a row.
    blocks: usize,
    format: PhantomData<F>,
}

/// One panel of a [`Source`]. It lives on the stack of one kernel, so its size does not matter.
#[allow(clippy::large_enum_variant)]
enum Panel<'a> {
    Packed(Packed<'a>),
    Mapped(Sources<'a>),
}

impl<'a, F: Format> Source<'a, F> {
    fn new(weight: &'a Shard) -> Self {
        Source {
            weight,
            blocks: weight.k / F::BLOCK,
            format: PhantomData,
        }
    }

    fn fills(&self) -> usize {
        self.blocks.div_ceil(F::FILL)
    }

    fn panel(&self, panel: usize) -> Panel<'a> {
        if self.weight.packed {
            let bytes = self.weight.row_bytes * ROWS;
            let panel = &self.weight.data[panel * bytes..(panel + 1) * bytes];
            Panel::Packed(Packed::new(panel, self.blocks))
        } else {
            Panel::Mapped(Sources::new(self.weight, panel))
        }
    }

    /// Of all packed bytes those of the fill behind the one that begins with block `first` of a panel, which may be the next panel's;
    /// none where the weights end.
    #[inline(always)]
    fn ahead(&self, bytes: &'a [u8], panel: usize, first: usize) -> &'a [u8] {
        let len = F::FILL * blocks::block_bytes::<F>();
        let start = panel * self.weight.row_bytes * ROWS + first * blocks::block_bytes::<F>() + len;
        bytes.get(start..start + len).unwrap_or_default()
    }

    /// The first block of fill `i`, and how many there are.
    #[inline(always)]
    fn blocks_of(&self, i: usize) -> (usize, usize) {
        let first = i * F::FILL;
        (first, F::FILL.min(self.blocks - first))
    }

    /// Fill `i` of a panel and its number of blocks.
    #[inline(always)]
    fn fill<'b, I: Isa>(
        &self,
        isa: I,
        panel: &Panel<'b>,
        i: usize,
        buffer: &'b mut Buffer,
    ) -> (Blocks<'b>, usize) {
        let (first, n) = self.blocks_of(i);
        let blocks = match panel {
            Panel::Packed(blocks) => blocks.some::<F>(first, n),
            Panel::Mapped(rows) => {
                F::fill(
                    isa,
                    self.weight.ty,
                    rows,
                    (first, n),
                    &mut buffer.words,
                    &mut buffer.tails,
                );
                Blocks {
                    words: &buffer.words[..n * F::WORDS * WORD],
                    tails: &buffer.tails[..n * F::TAILS * TAIL],
                    ahead: &[],
                }
            }
        };
        (blocks, n)
    }
}

/// The activations of a matmul.
#[derive(Clone, Copy)]
struct Inputs<'a, F> {
    floats: &'a Activations<'a>,
    quantized: QuantizedRows<'a>,
    format: PhantomData<F>,
}

impl<'a, F: Format> Inputs<'a, F> {
    #[inline(always)]
    fn new(x: &'a Activations<'a>) -> Self {
        Inputs {
            floats: x,
            quantized: x.quantized(F::ACTIVATIONS),
            format: PhantomData,
        }
    }

    /// What belongs to fill `i`.
    #[inline(always)]
    fn fill(&self, i: usize) -> FillInputs<'a, F> {
        FillInputs {
            floats: self.floats,
            at: i * F::FILL * F::BLOCK,
            quantized: self.quantized.column(i),
            format: PhantomData,
        }
    }
}

/// The activations of all tokens that belong to one fill.
#[derive(Clone, Copy)]
struct FillInputs<'a, F> {
    floats: &'a Activations<'a>,
    /// The fill's first k.
    at: usize,
    quantized: &'a [QuantizedBlock],
    format: PhantomData<F>,
}

impl<'a, F: Format> FillInputs<'a, F> {
    /// Those of one token.
    #[inline(always)]
    fn row(&self, token: usize) -> Row<'a> {
        let [row] = self.rows(token);
        row
    }

    /// Those of M tokens from number `token` on.
    #[inline(always)]
    fn rows<const M: usize>(&self, token: usize) -> [Row<'a>; M] {
        static NONE: QuantizedBlock = QuantizedBlock::ZERO;
        let none = Row { x: &[], block: &NONE };
        let mut rows = [none; M];
        if F::ACTIVATIONS == ActFormat::F32 {
            for (t, row) in rows.iter_mut().enumerate() {
                row.x = &self.floats.row(token + t)[self.at..];
            }
            return rows;
        }
        // One check for them all.
        if let Some(blocks) = self.quantized.get(token..).and_then(<[_]>::first_chunk::<M>) {
            for (row, block) in rows.iter_mut().zip(blocks) {
                row.block = block;
            }
        }
        rows
    }
}

/// Rows of a packed weight times one token.
struct OneToken<'a, 'b, 'c, F> {
    weight: &'a Shard,
    rows: Range<usize>,
    x: &'a Activations<'b>,
    token: usize,
    out: &'a mut Tile<'c>,
    format: PhantomData<F>,
}

impl<I: Isa, F: Format> Op<I> for OneToken<'_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self, isa: I) {
        let source = Source::<F>::new(self.weight);
        // To ask a shard for its bytes is a call.
        let bytes: &[u8] = if I::READS_EARLY { &self.weight.data } else { &[] };
        let inputs = Inputs::<F>::new(self.x);
        for number in self.panels() {
            let Panel::Packed(panel) = source.panel(number) else {
                return;
            };
            let mut acc = [0.0f32; ROWS];
            for i in 0..source.fills() {
                let (first, n) = source.blocks_of(i);
                let mut blocks = panel.some::<F>(first, n);
                if I::READS_EARLY {
                    blocks.ahead = source.ahead(bytes, number, first);
                }
                F::one_token(isa, blocks, n, &inputs.fill(i).row(self.token), &mut acc);
            }
            self.show(number, &acc);
        }
    }
}

/// The same where the weight is not packed: for one token there is nothing to gain from weights unpacked to bytes.
struct OneMappedToken<'a, 'b, 'c, F>(OneToken<'a, 'b, 'c, F>);

impl<I: Isa, F: Format> Op<I> for OneMappedToken<'_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self, isa: I) {
        let source = Source::<F>::new(self.0.weight);
        let inputs = Inputs::<F>::new(self.0.x);
        let mut buffer = Buffer::new();
        for number in self.0.panels() {
            let panel = source.panel(number);
            let mut acc = [0.0f32; ROWS];
            for i in 0..source.fills() {
                let (blocks, n) = source.fill(isa, &panel, i, &mut buffer);
                F::one_token(isa, blocks, n, &inputs.fill(i).row(self.0.token), &mut acc);
            }
            self.0.show(number, &acc);
        }
    }
}

impl<F> OneToken<'_, '_, '_, F> {
    /// The panels that have some of the rows.
    fn panels(&self) -> Range<usize> {
        self.rows.start / ROWS..self.rows.end.div_ceil(ROWS)
    }

    /// Copies the sums of panel `number` to where they are shown.
    #[inline(always)]
    fn show(&mut self, number: usize, acc: &[f32; ROWS]) {
        let (lanes, columns) = shown(number, &self.rows);
        show(acc, &lanes, &mut self.out.row(self.token)[columns]);
    }
}

/// Which lanes of panel `panel` are which columns of a tile that shows `rows`.
fn shown(panel: usize, rows: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let start = rows.start.max(panel * ROWS);
    let end = rows.end.min((panel + 1) * ROWS);
    (
        start - panel * ROWS..end - panel * ROWS,
        start - rows.start..end - rows.start,
    )
}

/// Copies a panel's sums to where they are shown. All of a panel's at once is no call.
#[inline(always)]
fn show(sums: &[f32], lanes: &Range<usize>, out: &mut [f32]) {
    match (sums.first_chunk::<ROWS>(), out.first_chunk_mut::<ROWS>()) {
        (Some(sums), Some(out)) if lanes.len() == ROWS => *out = *sums,
        _ => out.copy_from_slice(&sums[lanes.clone()]),
    }
}

/// Rows of a weight times some tokens, at most [`TOKENS`].
struct Tokens<'a, 'b, 'c, F> {
    weight: &'a Shard,
    rows: Range<usize>,
    x: &'a Activations<'b>,
    tokens: Range<usize>,
    out: &'a mut Tile<'c>,
    format: PhantomData<F>,
}

/// Sums of [`TOKENS`] tokens and [`PANELS`] panels.
#[repr(align(64))]
struct Sums([f32; TOKENS * PANELS * ROWS]);

impl<I: Isa, F: Format> Op<I> for Tokens<'_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self, isa: I) {
        let m = self.tokens.len();
        let source = Source::<F>::new(self.weight);
        let inputs = Inputs::<F>::new(self.x);
        let mut buffer = Buffer::new();
        let mut scratch = [const { Scratch::new() }; PANELS];
        let mut sums = Sums([0.0; TOKENS * PANELS * ROWS]);
        // Sums per token, the panels that they belong to, and the vectors in those.
        let stride = stride::<I>();
        let (high, parts) = (stride / ROWS, stride / I::ROWS);
        let end = self.rows.end.div_ceil(ROWS);
        for first in (self.rows.start / ROWS..end).step_by(high) {
            let sums = &mut sums.0[..m * stride];
            sums.fill(0.0);
            let panels = [0, 1].map(|i| source.panel((first + i).min(end - 1)));
            for i in 0..source.fills() {
                let mut blocks = 0;
                for (panel, scratch) in panels.iter().zip(&mut scratch).take(high) {
                    let (fill, n) = source.fill(isa, panel, i, &mut buffer);
                    F::unpack(isa, fill, n, scratch);
                    blocks = n;
                }
                let inputs = inputs.fill(i);
                // What has its last sum is shown at once: a row of outputs is far from the next one, and the writes of a few
                // are done while the next tile computes.
                let shown = (i + 1 == source.fills()).then(|| first..end.min(first + high));
                let mut t = 0;
                macro_rules! tiles_of {
                    ($tokens:expr) => {
                        while t + $tokens <= m {
                            if let Some(panels) = &shown {
                                self.announce(isa, panels.clone(), t..t + $tokens);
                            }
                            for part in (0..parts).step_by(I::PARTS) {
                                let x = (&inputs, self.tokens.start + t);
                                let acc = &mut sums[t * stride..];
                                tile::<I, F>(isa, &scratch, (part, $tokens), blocks, x, acc);
                            }
                            if let Some(panels) = &shown {
                                self.show(panels.clone(), t..t + $tokens, stride, sums);
                            }
                            t += $tokens;
                        }
                    };
                }
                tiles_of!(I::TOKENS);
                // What is left over goes by fours and twos, then alone.
                if I::TOKENS > 4 {
                    tiles_of!(4);
                }
                if I::TOKENS > 2 {
                    tiles_of!(2);
                }
                let rest = t..m;
                for t in rest.clone() {
                    let x = [inputs.row(self.tokens.start + t)];
                    for part in 0..parts {
                        let acc = &mut sums[t * stride..];
                        F::tile::<I, 1, 1>(isa, &scratch, part, blocks, &x, acc);
                    }
                }
                if let Some(panels) = shown {
                    self.show(panels, rest, stride, sums);
                }
            }
        }
    }
}

impl<F> Tokens<'_, '_, '_, F> {
    /// Hints that the outputs of some tokens will be written soon.
    #[inline(always)]
    fn announce<I: Isa>(&mut self, isa: I, panels: Range<usize>, tokens: Range<usize>) {
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
    fn show(&mut self, panels: Range<usize>, tokens: Range<usize>, stride: usize, sums: &[f32]) {
        for (i, panel) in panels.enumerate() {
            let (lanes, columns) = shown(panel, &self.rows);
            for t in tokens.clone() {
                let out = &mut self.out.row(self.tokens.start + t)[columns.clone()];
                show(&sums[t * stride + i * ROWS..], &lanes, out);
            }
        }
    }
}

/// [`Format::tile`] of [`Isa::PARTS`] vectors from number `part` on and of so many tokens, which is known where the code is
/// compiled.
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
            let x = x.rows::<$tokens>(token);
            F::tile::<I, $parts, $tokens>(isa, scratch, part, n, &x, acc)
        }};
    }
    match (I::PARTS, tokens) {
        (2, 2) => of!(2, 2),
        (2, 3) => of!(2, 3),
        (2, 4) => of!(2, 4),
        (2, 6) => of!(2, 6),
        // A size without a tile of its own goes in the smallest ones.
        _ => {
            for t in 0..tokens {
                let x = [x.row(token + t)];
                for p in 0..I::PARTS {
                    let acc = &mut acc[t * stride::<I>()..];
                    F::tile::<I, 1, 1>(isa, scratch, part + p, n, &x, acc);
                }
            }
        }
    }
}

impl<I: Isa, F: Format> MatmulKernel for Panels<I, F> {
    fn format(&self) -> ActFormat {
        F::ACTIVATIONS
    }

    fn grain(&self) -> usize {
        PANELS * ROWS
    }

    fn matmul(&self, weight: &Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>) {
        let start = first_row - weight.rows.start;
        let rows = start..start + out.columns().len();
        if !F::OWN && self.isa.few_tokens(weight, rows.clone(), x, out) {
            return;
        }
        let one = |token, out: &mut Tile<'_>| {
            let one = OneToken {
                weight,
                rows: rows.clone(),
                x,
                token,
                out,
                format: PhantomData::<F>,
            };
            if weight.packed {
                self.isa.run(one);
            } else {
                self.isa.run(OneMappedToken(one));
            }
        };
        if x.m() == 1 || weight.packed && x.m() < I::TOKENS {
            return (0..x.m()).for_each(|token| one(token, out));
        }
        for first in (0..x.m()).step_by(TOKENS) {
            self.isa.run(Tokens {
                weight,
                rows: rows.clone(),
                x,
                tokens: first..x.m().min(first + TOKENS),
                out,
                format: PhantomData::<F>,
            });
        }
    }

    fn pack(&self, mapped: &Shard, packing: &Packing<'_>) -> Result<Option<Vec<Shard>>> {
        if !F::OWN {
            return Ok(None);
        }
        let (blocks, n) = (mapped.k / F::BLOCK, mapped.rows.len());
        let too_large = || Error::Limit {
            what: "bytes of a packed matrix".into(),
            found: u64::MAX,
            limit: isize::MAX as u64,
        };
        let panel_bytes = blocks::panel_bytes::<F>(blocks).ok_or_else(too_large)?;
        let bytes = n.div_ceil(ROWS).checked_mul(panel_bytes).ok_or_else(too_large)?;
        let mut memory = packing.memory.zeroed(bytes)?;
        packing.team.rows(memory.bytes(), panel_bytes, 1, |panels, out| {
            let mut released = panels.start;
            for (panel, out) in panels.clone().zip(out.chunks_exact_mut(panel_bytes)) {
                let rows = Sources::new(mapped, panel);
                let group = blocks::group::<F>();
                let groups = out.chunks_mut(group * blocks::block_bytes::<F>());
                for (first, out) in (0..blocks).step_by(group).zip(groups) {
                    let n = group.min(blocks - first);
                    let (words, tails) = out.split_at_mut(n * F::WORDS * WORD);
                    F::fill(self.isa, mapped.ty, &rows, (first, n), words, tails);
                }
                // What was read is given back soon, so that the model is never in memory twice.
                let source = mapped.row_bytes * ROWS;
                let done = panel + 1;
                if (done - released) * source >= RELEASE || done == panels.end {
                    mapped.data.release(released * source..done * source);
                    released = done;
                }
            }
        })?;
        Ok(Some(vec![Shard {
            rows: mapped.rows.clone(),
            ty: mapped.ty,
            row_bytes: panel_bytes / ROWS,
            k: mapped.k,
            data: memory.freeze()?,
            packed: true,
        }]))
    }

    fn decode_row(&self, weight: &Shard, row: usize, out: &mut [f32]) -> Result<()> {
        if !weight.packed {
            return quant::decode(weight.ty, weight.row(row), out);
        }
        let local = row - weight.rows.start;
        let source = Source::<F>::new(weight);
        let Panel::Packed(panel) = source.panel(local / ROWS) else {
            return Ok(());
        };
        let mut buffer = [0; 256];
        let block = &mut buffer[..F::TYPE.block_bytes()];
        for (i, out) in out.chunks_exact_mut(F::BLOCK).enumerate() {
            restore::<F>(panel.some::<F>(i, 1), local % ROWS, block);
            quant::decode(F::TYPE, block, out)?;
        }
        Ok(())
    }
}
