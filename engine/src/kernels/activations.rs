//! Activations: the right-hand side of a matmul, as f32 rows and in the int8 forms that quantized weights multiply with.
//!
//! A row is quantized at most once per step length, however many matrices read it. The buffers are allocated once for
//! the largest batch.
//!
//! Quantized rows lie in blocks of 256 values: block 0 of all rows, block 1 of all rows, ... (the last may be shorter), so
//! that a kernel that takes some rows of a weight block after block reads them in the order in which they lie.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Backend, PackedMatrix};
use crate::quant::{GgmlType, step_len};
use crate::team::Team;
use crate::{Error, Result, memory};

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

/// Values per block.
const BLOCK: usize = 256;

/// Rows quantized with one step length.
#[derive(Debug, Default)]
struct Quantized {
    valid: bool,
    q: Vec<i8>,
    d: Vec<f32>,
    /// Per block its sums of 16, then, where a step is 256 long, those of 32.
    sums: Vec<i16>,
}

/// Sums that are kept per block of `width` values.
fn sums_len(step: usize, width: usize) -> usize {
    width / 16 + if step == BLOCK { width / 32 } else { 0 }
}

/// The buffers behind [`Activations`]: made once, for at most `m` rows of `k`.
#[derive(Debug)]
pub(crate) struct ActBuffer {
    quantized: [Quantized; 3],
}

impl ActBuffer {
    /// Room for `m` rows of `k` in each of the formats named.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn new(m: usize, k: usize, formats: &[ActFormat]) -> Result<Self> {
        const WHAT: &str = "activations (a smaller batch needs less)";
        let mut quantized: [Quantized; 3] = Default::default();
        for format in formats {
            if let (Some(step), Some(slot)) = (format.step(), format.slot()) {
                let k = k.next_multiple_of(BLOCK);
                quantized[slot] = Quantized {
                    valid: false,
                    q: memory::zero_rows(WHAT, m, k)?,
                    d: memory::zero_rows(WHAT, m, k / step)?,
                    sums: memory::zero_rows(WHAT, m, sums_len(step, k))?,
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
        let too_small = || Error::InvalidInput {
            what: format!("{m} rows of {k} do not fit the activation buffer"),
        };
        let finite = AtomicBool::new(true);
        // The whole blocks, then the last one where it is shorter.
        let whole = k / BLOCK;
        for (first, blocks, width) in [(0, whole, BLOCK), (whole, 1, k % BLOCK)] {
            if blocks * width == 0 {
                continue;
            }
            let (steps, sums) = (width / step, sums_len(step, width));
            let before = first * m;
            let part =
                |len: usize, per_block: usize| before * per_block..before * per_block + blocks * m * len;
            let q = buffer.q.get_mut(part(width, BLOCK)).ok_or_else(too_small)?;
            let d = buffer
                .d
                .get_mut(part(steps, BLOCK / step))
                .ok_or_else(too_small)?;
            let all_sums = buffer
                .sums
                .get_mut(part(sums, sums_len(step, BLOCK)))
                .ok_or_else(too_small)?;
            team.rows3((q, width), (d, steps), (all_sums, sums), |i, q, d, sums| {
                let (block, row) = (first + i / m, i % m);
                let x = &x[row * k + block * BLOCK..][..width];
                let (sums, sums32) = sums.split_at_mut(width / 16);
                if !backend.quantize(step, x, q, d, sums) {
                    finite.store(false, Ordering::Relaxed);
                }
                for (wide, sums) in sums32.iter_mut().zip(sums.as_chunks::<2>().0) {
                    *wide = sums[0] + sums[1];
                }
            })?;
        }
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
        Activations {
            x,
            k,
            m: x.len() / k,
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
    buffer: &'a ActBuffer,
}

/// 256 consecutive values of a row, or what is left at its end, quantized.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuantizedBlock<'a> {
    /// The values, -127..=127.
    pub q: &'a [i8],
    /// One scale per step.
    pub d: &'a [f32],
    /// One sum of `q` per 16 values.
    pub sums: &'a [i16],
    /// One sum of `q` per 32 values; only where steps are 256 long.
    pub sums32: &'a [i16],
}

impl Activations<'_> {
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
        let (q, d, sums): (&[i8], &[f32], &[i16]) = match prepared {
            Some(buffer) if buffer.valid => (&buffer.q, &buffer.d, &buffer.sums),
            _ => (&[], &[], &[]),
        };
        QuantizedRows {
            q,
            d,
            sums,
            step: format.step().unwrap_or(BLOCK),
            m: self.m,
            whole: self.k / BLOCK,
            rest: self.k % BLOCK,
        }
    }

    /// Block `block` of a row in an int8 form; empty where that form was not prepared or the row has no such block.
    pub fn block(&self, format: ActFormat, row: usize, block: usize) -> QuantizedBlock<'_> {
        let width = BLOCK.min(self.k.saturating_sub(block * BLOCK));
        let step = format.step().unwrap_or(BLOCK);
        let long = self.quantized(format).block(row, block);
        if row >= self.m || long.q.is_empty() {
            return QuantizedBlock::default();
        }
        QuantizedBlock {
            q: &long.q[..width],
            d: &long.d[..width / step],
            sums: &long.sums[..width / 16],
            sums32: &long.sums32[..sums_len(step, width) - width / 16],
        }
    }
}

/// The rows of [`Activations`] in one int8 form, for kernels: what does not change from block to block is looked up once.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedRows<'a> {
    q: &'a [i8],
    d: &'a [f32],
    sums: &'a [i16],
    step: usize,
    m: usize,
    /// Blocks of full length, and the length of what is left.
    whole: usize,
    rest: usize,
}

impl<'a> QuantizedRows<'a> {
    /// Block `block` of all rows. It must be there: instead of one beyond the end come others' values, or none.
    #[inline(always)]
    pub fn column(&self, block: usize) -> QuantizedColumn<'a> {
        let width = if block < self.whole { BLOCK } else { self.rest };
        let before = block * self.m;
        QuantizedColumn {
            q: self.q.get(before * BLOCK..).unwrap_or_default(),
            d: self.d.get(before * (BLOCK / self.step)..).unwrap_or_default(),
            sums: self
                .sums
                .get(before * sums_len(self.step, BLOCK)..)
                .unwrap_or_default(),
            width,
            steps: width / self.step,
            sums_len: sums_len(self.step, width),
        }
    }

    /// Block `block` of a row; see [`QuantizedColumn::row`].
    #[inline(always)]
    pub fn block(&self, row: usize, block: usize) -> QuantizedBlock<'a> {
        self.column(block).row(row)
    }
}

/// One block of all of [`QuantizedRows`]: they lie one after the other.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedColumn<'a> {
    q: &'a [i8],
    d: &'a [f32],
    sums: &'a [i16],
    /// Values, scales and sums of a row.
    width: usize,
    steps: usize,
    sums_len: usize,
}

impl<'a> QuantizedColumn<'a> {
    /// The block of a row. The slices begin with it but go on: their lengths say nothing.
    #[inline(always)]
    pub fn row(&self, row: usize) -> QuantizedBlock<'a> {
        let sums = self.sums.get(row * self.sums_len..).unwrap_or_default();
        QuantizedBlock {
            q: self.q.get(row * self.width..).unwrap_or_default(),
            d: self.d.get(row * self.steps..).unwrap_or_default(),
            sums,
            sums32: sums.get(self.width / 16..).unwrap_or_default(),
        }
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
        let mut buffer = ActBuffer::new(x.len() / k, k, &[weight.format()])?;
        buffer.prepare(weight.format(), backend, team, &x, k, (0, "operand"))?;
        Ok(Operand { x, k, buffer })
    }

    /// `out = x * weight^T`: rows of n.
    ///
    /// # Errors
    /// If `out` has another length, or the weight wants other rows than the one given to [`Operand::new`].
    pub fn matmul(&self, team: &Team, weight: &PackedMatrix, out: &mut [f32]) -> Result<()> {
        let x = self.buffer.view(&self.x, self.k);
        let n = weight.n();
        if weight.k() != self.k || out.len() != x.m() * n || !self.buffer.has(weight.format()) {
            return Err(Error::InvalidInput {
                what: format!(
                    "{} rows of {} do not go into {} results",
                    x.m(),
                    self.k,
                    out.len()
                ),
            });
        }
        team.columns([(out, n)], weight.grain(), |_, mut tile| {
            weight.matmul(&x, &mut tile)
        })
    }
}
