//! A *fill*: some blocks of a panel, 256 weights of each row or so, and the activations that belong to them.

use std::marker::PhantomData;
use std::ops::Range;

use super::drivers::OfShard;
use super::packing::FileRows;
use super::{Blocks, Format, Input, Packed, ROWS, TAIL, WORD};
use crate::kernels::isa::Isa;
use crate::kernels::matrix::Shard;
use crate::kernels::{ActFormat, Activations, QuantizedBlock, QuantizedRows};

/// Words of a fill of any format, at most.
const FILL_WORDS: usize = 72;
/// Tails of a fill of any format, at most.
const FILL_TAILS: usize = 64;

/// A buffer for a fill of mapped weights.
#[repr(align(64))]
pub(in crate::kernels) struct Buffer {
    words: [u8; FILL_WORDS * WORD],
    tails: [u8; FILL_TAILS * TAIL],
}

impl Buffer {
    pub(in crate::kernels) const fn new() -> Self {
        Buffer {
            words: [0; FILL_WORDS * WORD],
            tails: [0; FILL_TAILS * TAIL],
        }
    }
}

/// The panels of a shard, wherever its bytes lie.
pub(in crate::kernels) struct ShardPanels<'a, F> {
    weight: &'a Shard,
    /// Blocks of a row.
    blocks: usize,
    format: PhantomData<F>,
}

/// One panel of a [`ShardPanels`]. It lives on the stack of one kernel, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub(in crate::kernels) enum Panel<'a> {
    Packed(Packed<'a>),
    Mapped(FileRows<'a>),
}

impl<'a, F: Format> ShardPanels<'a, F> {
    pub(in crate::kernels) fn new(weight: &'a Shard) -> Self {
        ShardPanels {
            weight,
            blocks: weight.k / F::BLOCK_LEN,
            format: PhantomData,
        }
    }

    pub(in crate::kernels) fn fills(&self) -> usize {
        self.blocks.div_ceil(F::FILL)
    }

    pub(in crate::kernels) fn panel(&self, panel: usize) -> Panel<'a> {
        if self.weight.packed {
            let bytes = self.weight.row_bytes * ROWS;
            let panel = &self.weight.data[panel * bytes..(panel + 1) * bytes];
            Panel::Packed(Packed::new(panel, self.blocks))
        } else {
            Panel::Mapped(FileRows::new(self.weight, panel))
        }
    }

    /// Of all packed weights those of the fill behind the one that begins with block `first` of a panel, which may be
    /// the next panel's.
    #[inline(always)]
    pub(super) fn ahead<A: OfShard<'a>>(&self, all: A, panel: usize, first: usize) -> A {
        let len = F::FILL * super::block_bytes::<F>();
        let start = panel * self.weight.row_bytes * ROWS + first * super::block_bytes::<F>() + len;
        all.bytes(start, len)
    }

    /// The first block of fill `i`, and how many there are.
    #[inline(always)]
    pub(super) fn blocks_of(&self, i: usize) -> (usize, usize) {
        let first = i * F::FILL;
        (first, F::FILL.min(self.blocks - first))
    }

    /// Fill `i` of a panel and its number of blocks.
    #[inline(always)]
    pub(in crate::kernels) fn fill<'b, I: Isa>(
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
                }
            }
        };
        (blocks, n)
    }
}

/// The activations of a matmul.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Inputs<'a, F> {
    floats: &'a Activations<'a>,
    quantized: QuantizedRows<'a>,
    format: PhantomData<F>,
}

impl<'a, F: Format> Inputs<'a, F> {
    #[inline(always)]
    pub(in crate::kernels) fn new(x: &'a Activations<'a>) -> Self {
        Inputs {
            floats: x,
            quantized: x.quantized(F::ACTIVATIONS),
            format: PhantomData,
        }
    }

    /// What belongs to fill `i`.
    #[inline(always)]
    pub(in crate::kernels) fn fill(&self, i: usize) -> FillInputs<'a, F> {
        FillInputs {
            floats: self.floats,
            at: i * F::FILL * F::BLOCK_LEN,
            quantized: self.quantized.column(i),
            format: PhantomData,
        }
    }
}

/// The activations of all tokens that belong to one fill.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct FillInputs<'a, F> {
    floats: &'a Activations<'a>,
    /// The fill's first k.
    at: usize,
    /// A block of each token.
    pub(in crate::kernels) quantized: &'a [QuantizedBlock],
    format: PhantomData<F>,
}

impl<'a, F: Format> FillInputs<'a, F> {
    /// Those of one token.
    #[inline(always)]
    pub(super) fn token(&self, token: usize) -> Input<'a> {
        let [input] = self.tokens(token);
        input
    }

    /// Those of M tokens from number `token` on.
    #[inline(always)]
    pub(super) fn tokens<const M: usize>(&self, token: usize) -> [Input<'a>; M] {
        static NONE: QuantizedBlock = QuantizedBlock::ZERO;
        let none = Input { x: &[], block: &NONE };
        let mut inputs = [none; M];
        if F::ACTIVATIONS == ActFormat::F32 {
            for (t, input) in inputs.iter_mut().enumerate() {
                input.x = &self.floats.row(token + t)[self.at..];
            }
            return inputs;
        }
        // One check for them all.
        if let Some(blocks) = self.quantized.get(token..).and_then(<[_]>::first_chunk::<M>) {
            for (input, block) in inputs.iter_mut().zip(blocks) {
                input.block = block;
            }
        }
        inputs
    }

    /// Prefetches what some tokens have of a fill, where they are floats: those lie a row apart. Blocks lie one after
    /// the other, which a processor sees by itself.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(&self, isa: I, tokens: Range<usize>) {
        if F::ACTIVATIONS != ActFormat::F32 {
            return;
        }
        for token in tokens {
            let x = bytemuck::cast_slice(&self.floats.row(token)[self.at..]);
            for line in 0..F::FILL * F::BLOCK_LEN * size_of::<f32>() / WORD {
                isa.prefetch(x, line * WORD);
            }
        }
    }
}

/// Which lanes of panel `panel` are which columns of a tile that shows `rows`.
pub(super) fn shown(panel: usize, rows: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let start = rows.start.max(panel * ROWS);
    let end = rows.end.min((panel + 1) * ROWS);
    (
        start - panel * ROWS..end - panel * ROWS,
        start - rows.start..end - rows.start,
    )
}

/// Copies a panel's sums to where they are shown. Where all of them are, as an array, which needs no call of `memcpy`.
#[inline(always)]
pub(super) fn show(sums: &[f32], lanes: &Range<usize>, out: &mut [f32]) {
    match (sums.first_chunk::<ROWS>(), out.first_chunk_mut::<ROWS>()) {
        (Some(sums), Some(out)) if lanes.len() == ROWS => *out = *sums,
        _ => out.copy_from_slice(&sums[lanes.clone()]),
    }
}
