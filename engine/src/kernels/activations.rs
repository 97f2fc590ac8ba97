//! Activations: the right-hand side of a matmul, as f32 rows and in the int8 forms that quantized weights multiply
//! with.
//!
//! A row is quantized at most once per step length, however many matrices read it. The buffers are allocated once for
//! the largest batch.
//!
//! Quantized rows lie in blocks of 256 values, each with its scales and sums: block 0 of all rows, block 1 of all rows,
//! ..., so that a kernel that takes some rows of a weight block after block reads them in the order in which they lie.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::{Pod, Zeroable};

use super::{Backend, PackedMatrix};
use crate::memory::{Buffers, Heap};
use crate::quant::{GgmlType, step_len};
use crate::team::{Columns, Team};
use crate::{Error, Result};

/// The form in which a weight type wants its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActFormat {
    /// Plain floats, for float weights.
    F32,
    /// int8 per 16 values (NVFP4).
    Q16,
    /// int8 per 32 values.
    Q32,
    /// int8 per 256 values (types with blocks of 256).
    Q256,
}

impl ActFormat {
    /// The form for a weight type.
    pub fn of(ty: GgmlType) -> Self {
        match step_len(ty) {
            16 => ActFormat::Q16,
            256 => ActFormat::Q256,
            _ if ty.is_float() => ActFormat::F32,
            _ => ActFormat::Q32,
        }
    }

    /// Values that share a scale; `None` for floats.
    pub fn step(self) -> Option<usize> {
        match self {
            ActFormat::F32 => None,
            ActFormat::Q16 => Some(16),
            ActFormat::Q32 => Some(32),
            ActFormat::Q256 => Some(256),
        }
    }

    fn slot(self) -> Option<usize> {
        match self {
            ActFormat::F32 => None,
            ActFormat::Q16 => Some(0),
            ActFormat::Q32 => Some(1),
            ActFormat::Q256 => Some(2),
        }
    }
}

/// Blocks and rows that a worker quantizes at a time: a row's blocks one after the other, as memory is read fastest in
/// its order.
const CELL: (usize, usize) = (8, 16);

/// 256 consecutive values of a row, quantized. Where a row ends within the block, what lies behind its end means
/// nothing.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct QuantizedBlock {
    /// The values by fours, -127..=127.
    pub q: [[i8; 4]; QuantizedBlock::LEN / 4],
    /// One sum of `q` per 16 values.
    pub sums: [i16; QuantizedBlock::LEN / 16],
    /// One sum of `q` per 32 values.
    pub sums32: [i16; QuantizedBlock::LEN / 32],
    /// One scale per step. The first one shares a cache line with the sums: a block with one step is five lines.
    pub d: [f32; QuantizedBlock::LEN / 16],
    /// Up to whole cache lines.
    reserved: [u32; 4],
}

impl QuantizedBlock {
    /// Values of a block.
    pub const LEN: usize = 256;

    /// Nothing but zeros.
    pub const ZERO: QuantizedBlock = QuantizedBlock {
        q: [[0; 4]; QuantizedBlock::LEN / 4],
        sums: [0; QuantizedBlock::LEN / 16],
        sums32: [0; QuantizedBlock::LEN / 32],
        d: [0.0; QuantizedBlock::LEN / 16],
        reserved: [0; 4],
    };

    /// Quantizes at most 256 values. False if one is not finite.
    fn fill(&mut self, backend: &dyn Backend, step: usize, x: &[f32]) -> bool {
        let q = &mut self.q.as_flattened_mut()[..x.len()];
        let (d, sums) = (&mut self.d[..x.len() / step], &mut self.sums[..x.len() / 16]);
        let finite = backend.quantize(step, x, q, d, sums);
        for (wide, sums) in self.sums32.iter_mut().zip(self.sums.as_chunks::<2>().0) {
            *wide = sums[0].wrapping_add(sums[1]);
        }
        finite
    }
}

/// Rows quantized with one step length.
#[derive(Debug, Default)]
struct Quantized {
    valid: bool,
    /// Block after block, each of all rows.
    blocks: Vec<QuantizedBlock>,
}

/// The buffers behind [`Activations`]: made once, for the largest rows.
#[derive(Debug)]
pub(crate) struct ActBuffer {
    quantized: [Quantized; 3],
}

impl ActBuffer {
    /// Room for each of these numbers of rows of some width, one at a time, in each of the formats named.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn make(
        sizes: &[(usize, usize)],
        formats: &[ActFormat],
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let mut quantized: [Quantized; 3] = Default::default();
        let blocks = |(m, k): &(usize, usize)| m.saturating_mul(k.div_ceil(QuantizedBlock::LEN));
        let blocks = sizes.iter().map(blocks).max().unwrap_or(0);
        for format in formats {
            if let Some(slot) = format.slot() {
                quantized[slot] = Quantized {
                    valid: false,
                    blocks: buffers.rows("quantized activations", blocks, 1)?,
                };
            }
        }
        Ok(ActBuffer { quantized })
    }

    /// Forgets what was quantized: the rows have changed.
    pub(crate) fn invalidate(&mut self) {
        self.quantized.iter_mut().for_each(|q| q.valid = false);
    }

    /// Quantizes `x` (rows of `k`) to `format` unless that is done already.
    pub(crate) fn prepare(
        &mut self,
        format: ActFormat,
        backend: &dyn Backend,
        team: &Team,
        x: &[f32],
        k: usize,
        (layer, op): (usize, &'static str),
    ) -> Result<()> {
        let (Some(step), Some(slot)) = (format.step(), format.slot()) else {
            return Ok(());
        };
        let buffer = &mut self.quantized[slot];
        if buffer.valid {
            return Ok(());
        }
        let m = x.len() / k;
        let too_small = || Error::Internal {
            what: format!("{m} rows of {k} do not fit the activation buffer"),
        };
        let finite = AtomicBool::new(true);
        let blocks = buffer
            .blocks
            .get_mut(..k.div_ceil(QuantizedBlock::LEN) * m)
            .ok_or_else(too_small)?;
        team.cells(blocks, m, CELL, |_, blocks, mut cell| {
            for (i, row) in cell.columns().enumerate() {
                let x = x[row * k..(row + 1) * k]
                    .chunks(QuantizedBlock::LEN)
                    .skip(blocks.start);
                for (block, x) in x.take(blocks.len()).enumerate() {
                    if !cell.row(block)[i].fill(backend, step, x) {
                        finite.store(false, Ordering::Relaxed);
                    }
                }
            }
        })?;
        if !finite.into_inner() {
            return Err(Error::NonFinite { layer, op });
        }
        buffer.valid = true;
        Ok(())
    }

    /// Whether rows are there in that form.
    fn has(&self, format: ActFormat) -> bool {
        format.slot().is_none_or(|slot| self.quantized[slot].valid)
    }

    /// The rows as a matmul reads them.
    pub(crate) fn view<'a>(&'a self, x: &'a [f32], k: usize) -> Activations<'a> {
        let all = x.len() / k;
        Activations {
            x,
            k,
            m: all,
            first: 0,
            all,
            buffer: self,
        }
    }
}

/// m rows of k activations, as floats and in whatever int8 forms were prepared.
#[derive(Debug)]
pub struct Activations<'a> {
    x: &'a [f32],
    k: usize,
    m: usize,
    /// The first of them among the rows that were prepared, and how many those are.
    first: usize,
    all: usize,
    buffer: &'a ActBuffer,
}

impl<'a> Activations<'a> {
    /// Some of the rows: `rows` at most [`Self::m`].
    pub(crate) fn rows(&self, rows: Range<usize>) -> Activations<'a> {
        Activations {
            x: &self.x[rows.start * self.k..rows.end * self.k],
            m: rows.len(),
            first: self.first + rows.start,
            ..*self
        }
    }

    /// Number of rows (tokens).
    pub fn m(&self) -> usize {
        self.m
    }

    /// Row as floats.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.x[row * self.k..(row + 1) * self.k]
    }

    /// The rows in an int8 form: without any where that form was not prepared.
    #[inline(always)]
    pub fn quantized(&self, format: ActFormat) -> QuantizedRows<'_> {
        let prepared = format.slot().map(|slot| &self.buffer.quantized[slot]);
        QuantizedRows {
            blocks: match prepared {
                Some(buffer) if buffer.valid => &buffer.blocks,
                _ => &[],
            },
            m: self.m,
            first: self.first,
            all: self.all,
        }
    }
}

/// The rows of [`Activations`] in one int8 form, for kernels: what does not change from block to block is looked up
/// once.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedRows<'a> {
    blocks: &'a [QuantizedBlock],
    m: usize,
    first: usize,
    all: usize,
}

impl<'a> QuantizedRows<'a> {
    /// Block `block` of the rows; of none where there is no such block.
    #[inline(always)]
    pub fn column(&self, block: usize) -> &'a [QuantizedBlock] {
        let start = block * self.all + self.first;
        self.blocks.get(start..start + self.m).unwrap_or_default()
    }

    /// Block `block` of a row.
    #[inline(always)]
    pub fn block(&self, row: usize, block: usize) -> Option<&'a QuantizedBlock> {
        self.column(block).get(row)
    }
}

/// Rows to multiply weights with, outside of a model: for tests and benchmarks of a kernel.
#[derive(Debug)]
pub struct Operand {
    x: Vec<f32>,
    k: usize,
    buffer: ActBuffer,
}

impl Operand {
    /// Rows of `weight`'s k values, in the form that it multiplies with.
    ///
    /// # Errors
    /// Values that are not finite; a length that is not a whole number of rows.
    pub fn new(backend: &dyn Backend, team: &Team, weight: &PackedMatrix, x: Vec<f32>) -> Result<Self> {
        let k = weight.k();
        if x.is_empty() || !x.len().is_multiple_of(k) {
            return Err(Error::InvalidInput {
                what: format!("{} values are not rows of {k}", x.len()),
            });
        }
        let mut buffers = Buffers::made("an operand", &Heap);
        let mut buffer = ActBuffer::make(&[(x.len() / k, k)], &[weight.format()], &mut buffers)?;
        buffer.prepare(weight.format(), backend, team, &x, k, (0, "operand"))?;
        Ok(Operand { x, k, buffer })
    }

    /// `out = x * weight^T`: rows of n.
    ///
    /// # Errors
    /// If `out` has another length, or the weight wants other rows than the one given to [`Operand::new`].
    pub fn matmul(&self, team: &Team, weight: &PackedMatrix, out: &mut [f32]) -> Result<()> {
        self.matmul_rows(0..self.x.len() / self.k, team, weight, out)
    }

    /// As [`Self::matmul`], of some rows.
    ///
    /// # Errors
    /// As there; also if there are no such rows.
    pub fn matmul_rows(
        &self,
        rows: Range<usize>,
        team: &Team,
        weight: &PackedMatrix,
        out: &mut [f32],
    ) -> Result<()> {
        let all = self.buffer.view(&self.x, self.k);
        let n = weight.n();
        let there = rows.start <= rows.end && rows.end <= all.m();
        if !there || weight.k() != self.k || out.len() != rows.len() * n || !self.buffer.has(weight.format())
        {
            return Err(Error::InvalidInput {
                what: format!(
                    "rows {rows:?} of {}, {} wide, do not go into {} results",
                    all.m(),
                    self.k,
                    out.len()
                ),
            });
        }
        let x = all.rows(rows);
        let mut out = [Columns::of(out, n, weight.grain(), weight).placed(weight.shares())];
        team.products(&mut out, |weight, node, mut tile, _| {
            weight.matmul(&x, node, &mut tile);
        })
    }
}
