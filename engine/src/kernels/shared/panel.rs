//! Matmul over panels: 16 output rows interleaved, so that a 32-bit lane holds 4 consecutive k of one row.
//!
//! ```text
//!   panel p of a matrix: rows 16p .. 16p + 15; rows beyond n are zero
//!   one vector (64 bytes):   lane   0          1        ...  15
//!                            row    0          1             15
//!                            bytes  k k+1 k+2 k+3  (8-bit; narrower types put 2 or 4 vectors into the bits of one)
//!   panel = one *panel step* after the other along k, each with its scales; see the layouts
//! ```
//!
//! A lane is an output, so there is no horizontal sum; the floats of one output are added in the order of the steps, as
//! the contract asks. Up to 8 tokens share one unpacking of the weights.
//!
//! *Packed* weights lie as panels. *Mapped* weights lie as in the file: some steps of 16 rows are packed into a scratch on
//! the stack, used for all tokens, and so on along k; the sums so far wait in the output.

use std::marker::PhantomData;
use std::ops::Range;

use super::isa::{Isa, Op};
use super::rows;
use crate::gguf::Bytes;
use crate::kernels::matrix::Shard;
use crate::kernels::{ActFormat, Activations, MatmulKernel};
use crate::quant::{self, GgmlType, Step};
use crate::team::{Team, Tile};
use crate::{Error, Result};

/// Output rows of a panel.
pub(super) const ROWS: usize = 16;

/// Bytes of panels that stay in a core's second-level cache while all tokens pass over them.
const RESIDENT: usize = 384 << 10;

/// Bytes of the scratch for mapped weights.
const SCRATCH: usize = 24 << 10;

/// One token's activations as a kernel reads them.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// Floats, for float weights.
    pub(super) x: &'a [f32],
    /// int8 by fours.
    pub(super) q: &'a [[i8; 4]],
    /// One scale per step.
    pub(super) d: &'a [f32],
    /// Sums of 16.
    pub(super) sums: &'a [i16],
    /// Sums of 32, where steps are 256 long.
    pub(super) sums32: &'a [i16],
}

/// A panel layout.
pub(super) trait Format: std::fmt::Debug + Send + Sync + 'static {
    /// Weights of a row per panel step.
    const STEP: usize;
    /// Bytes of a panel step.
    const BYTES: usize;
    /// Whether weights are kept in this layout; else it only ever is a scratch.
    const OWN: bool;
    /// The activations that it is multiplied with.
    const ACTIVATIONS: ActFormat;

    /// Packs steps `first..` of 16 rows (GGUF bytes; `None` is a row of zeros) into whole panel steps.
    fn pack(ty: GgmlType, rows: &[Option<&[u8]>; ROWS], first: usize, out: &mut [u8]);

    /// The canonical decode of one row of a panel.
    fn decode(panel: &[u8], row: usize, out: &mut [f32]);

    /// Adds the products of some panel steps, the first of them step `first` of the row, to the sums of M tokens.
    fn accumulate<I: Isa, const M: usize>(
        isa: I,
        panel: &[u8],
        first: usize,
        x: &[Row<'_>; M],
        acc: &mut [[f32; ROWS]; M],
    );
}

/// [`Format::pack`] for quantized types: each step through its integer form.
pub(super) fn pack_steps(
    ty: GgmlType,
    rows: &[Option<&[u8]>; ROWS],
    first: usize,
    (out, bytes): (&mut [u8], usize),
    pack: impl Fn(&[Step; ROWS], &mut [u8]),
) {
    let Some(unpack) = quant::step_unpacker(ty) else {
        return;
    };
    let mut steps: [Step; ROWS] = Default::default();
    for (i, out) in out.chunks_exact_mut(bytes).enumerate() {
        for (row, step) in rows.iter().zip(&mut steps) {
            if let Some(row) = row {
                unpack(row, first + i, step);
            }
        }
        pack(&steps, out);
    }
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

    fn packed_matmul(&self, weight: &Shard, rows: Range<usize>, x: &Activations<'_>, out: &mut Tile<'_>) {
        let panel_bytes = weight.row_bytes * ROWS;
        let panels: &[u8] = &weight.data;
        let together = if panel_bytes > RESIDENT {
            1
        } else {
            RESIDENT / panel_bytes
        };
        let last = rows.end.div_ceil(ROWS);
        let mut panel = rows.start / ROWS;
        while panel < last {
            let end = last.min(panel + together);
            for tokens in token_blocks(x.m(), I::TOKENS) {
                for p in panel..end {
                    let bytes = &panels[p * panel_bytes..(p + 1) * panel_bytes];
                    let place = Place::new(p, &rows);
                    block::<I, F>(self.isa, (bytes, 0), x, tokens.clone(), &place, out, true);
                }
            }
            panel = end;
        }
    }

    fn mapped_matmul(&self, weight: &Shard, rows: Range<usize>, x: &Activations<'_>, out: &mut Tile<'_>) {
        let mut scratch = Scratch([0; SCRATCH]);
        let steps = weight.k / F::STEP;
        let at_once = SCRATCH / F::BYTES;
        for panel in rows.start / ROWS..rows.end.div_ceil(ROWS) {
            let place = Place::new(panel, &rows);
            let sources = sources(weight, panel);
            for first in (0..steps).step_by(at_once) {
                let bytes = &mut scratch.0[..at_once.min(steps - first) * F::BYTES];
                F::pack(weight.ty, &sources, first, bytes);
                for tokens in token_blocks(x.m(), I::TOKENS) {
                    block::<I, F>(self.isa, (bytes, first), x, tokens, &place, out, first == 0);
                }
            }
        }
    }
}

#[repr(align(64))]
struct Scratch([u8; SCRATCH]);

/// Which lanes of a panel are which columns of a tile.
struct Place {
    lanes: Range<usize>,
    column: usize,
}

impl Place {
    fn new(panel: usize, rows: &Range<usize>) -> Self {
        let start = rows.start.max(panel * ROWS);
        let end = rows.end.min((panel + 1) * ROWS);
        Place {
            lanes: start - panel * ROWS..end - panel * ROWS,
            column: start - rows.start,
        }
    }
}

fn token_blocks(m: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..m).step_by(size).map(move |start| start..m.min(start + size))
}

/// GGUF bytes of a panel's rows in a mapped shard.
fn sources(shard: &Shard, panel: usize) -> [Option<&[u8]>; ROWS] {
    std::array::from_fn(|i| {
        let row = shard.rows.start + panel * ROWS + i;
        shard.rows.contains(&row).then(|| shard.row(row))
    })
}

/// Some panel steps times at most 8 tokens. A number of tokens without a kernel of its own repeats the last token.
fn block<I: Isa, F: Format>(
    isa: I,
    panel: (&[u8], usize),
    x: &Activations<'_>,
    tokens: Range<usize>,
    place: &Place,
    out: &mut Tile<'_>,
    from_zero: bool,
) {
    match tokens.len() {
        1 => block_of::<I, F, 1>(isa, panel, x, tokens, place, out, from_zero),
        2 => block_of::<I, F, 2>(isa, panel, x, tokens, place, out, from_zero),
        3 | 4 => block_of::<I, F, 4>(isa, panel, x, tokens, place, out, from_zero),
        _ => block_of::<I, F, 8>(isa, panel, x, tokens, place, out, from_zero),
    }
}

fn block_of<I: Isa, F: Format, const M: usize>(
    isa: I,
    (panel, first): (&[u8], usize),
    x: &Activations<'_>,
    tokens: Range<usize>,
    place: &Place,
    out: &mut Tile<'_>,
    from_zero: bool,
) {
    let columns = place.column..place.column + place.lanes.len();
    let mut acc = [[0.0f32; ROWS]; M];
    if !from_zero {
        for (acc, token) in acc.iter_mut().zip(tokens.clone()) {
            acc[place.lanes.clone()].copy_from_slice(&out.row(token)[columns.clone()]);
        }
    }
    let rows = std::array::from_fn(|i| {
        let token = tokens.start + i.min(tokens.len() - 1);
        let quantized = x.quantized(F::ACTIVATIONS, token);
        Row {
            x: x.row(token),
            q: quantized.q.as_chunks().0,
            d: quantized.d,
            sums: quantized.sums,
            sums32: quantized.sums32,
        }
    });
    isa.run(Accumulate::<F, M> {
        panel,
        first,
        x: &rows,
        acc: &mut acc,
        format: PhantomData,
    });
    for (acc, token) in acc.iter().zip(tokens) {
        out.row(token)[columns.clone()].copy_from_slice(&acc[place.lanes.clone()]);
    }
}

struct Accumulate<'a, 'b, F, const M: usize> {
    panel: &'a [u8],
    first: usize,
    x: &'a [Row<'b>; M],
    acc: &'a mut [[f32; ROWS]; M],
    format: PhantomData<F>,
}

impl<I: Isa, F: Format, const M: usize> Op<I> for Accumulate<'_, '_, F, M> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        F::accumulate(isa, self.panel, self.first, self.x, self.acc);
    }
}

impl<I: Isa, F: Format> MatmulKernel for Panels<I, F> {
    fn format(&self) -> ActFormat {
        F::ACTIVATIONS
    }

    fn grain(&self) -> usize {
        ROWS
    }

    fn matmul(&self, weight: &Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>) {
        let start = first_row - weight.rows.start;
        let rows = start..start + out.columns().len();
        if weight.packed {
            self.packed_matmul(weight, rows, x, out);
        } else if F::OWN || x.m() > rows::TOKENS || !rows::matmul(self.isa, weight, rows.clone(), x, out) {
            self.mapped_matmul(weight, rows, x, out);
        }
    }

    fn pack(&self, mapped: &Shard, team: &Team) -> Result<Option<Vec<Shard>>> {
        if !F::OWN {
            return Ok(None);
        }
        let (steps, n) = (mapped.k / F::STEP, mapped.rows.len());
        let too_large = || Error::Limit {
            what: "bytes of a packed matrix".into(),
            found: u64::MAX,
            limit: isize::MAX as u64,
        };
        let panel_bytes = steps.checked_mul(F::BYTES).ok_or_else(too_large)?;
        let bytes = n.div_ceil(ROWS).checked_mul(panel_bytes).ok_or_else(too_large)?;
        // Room to start at a cache line.
        let mut memory = vec![0u8; bytes.checked_add(64).ok_or_else(too_large)?];
        let start = memory.as_ptr().align_offset(64) % 64;
        team.rows(
            &mut memory[start..start + bytes],
            panel_bytes,
            1,
            |panels, out| {
                for (panel, out) in panels.zip(out.chunks_exact_mut(panel_bytes)) {
                    F::pack(mapped.ty, &sources(mapped, panel), 0, out);
                }
            },
        )?;
        Ok(Some(vec![Shard {
            rows: mapped.rows.clone(),
            ty: mapped.ty,
            row_bytes: panel_bytes / ROWS,
            k: mapped.k,
            data: Bytes::from_vec(memory).slice(start..start + bytes)?,
            packed: true,
        }]))
    }

    fn decode_row(&self, weight: &Shard, row: usize, out: &mut [f32]) -> Result<()> {
        if !weight.packed {
            return quant::decode(weight.ty, weight.row(row), out);
        }
        let local = row - weight.rows.start;
        let panel_bytes = weight.row_bytes * ROWS;
        let panel = local / ROWS;
        F::decode(
            &weight.data[panel * panel_bytes..(panel + 1) * panel_bytes],
            local % ROWS,
            out,
        );
        Ok(())
    }
}
