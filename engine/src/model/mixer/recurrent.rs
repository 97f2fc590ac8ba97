//! What mixers share whose heads keep a state each, the delta net and Mamba2: their input goes through a short
//! convolution, then each head's state goes on row by row, and answers. A state is cut into columns, which do not
//! depend on one another.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::conv::Conv;
use crate::Result;
use crate::cache::{CacheKind, Sizes, StatePart, StateShape};
use crate::kernels::{Activation, state_columns};
use crate::memory::Buffers;
use crate::model::ops::Run;
use crate::model::probe::Probe;

/// The widths of a layer's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    /// What the convolution reads.
    pub(super) channels: usize,
    /// What all heads answer.
    pub(super) inner: usize,
    /// Heads, each with two gates.
    pub(super) heads: usize,
    /// What products make of the gates.
    pub(super) logits: usize,
    /// All of these by head, where one matrix makes them; else nothing.
    pub(super) fused: usize,
}

impl Widths {
    /// What such a layer keeps of a sequence: the convolution's last inputs, and of each head a state of `rows`.
    pub(super) fn cache_kind(&self, kernel: usize, rows: usize) -> CacheKind {
        let columns = state_columns(self.inner / self.heads);
        CacheKind::State(StateShape {
            recent: Conv::state(self.channels, kernel),
            memory: StatePart {
                items: self.inner / columns,
                len: rows * columns,
            },
        })
    }
}

/// `mixed` = what the convolution makes of the rows of `input`, through silu.
pub(super) fn convolve<P: Probe>(
    run: &mut Run<'_, P>,
    conv: &Conv,
    recent: &mut [f32],
    (input, mixed): (&[f32], &mut [f32]),
    channels: usize,
) -> Result<()> {
    conv.forward(
        run,
        recent,
        mixed,
        |row, part, x| x.copy_from_slice(&input[row * channels..][part]),
        |_, _, out| run.ops.backend.activate(Activation::Silu, out),
    )?;
    run.look("conv", channels, mixed);
    Ok(())
}

/// The states of heads `head` wide, of `rows`, go on over all rows of the pass. `of(columns)` says once what a worker
/// needs of some columns of the `answers`, rows of `inner`; `advance(it, row, state, out)` then takes their part of the
/// state a row further and writes what it answers.
pub(super) fn go_on<P, T>(
    run: &Run<'_, P>,
    op: &'static str,
    (answers, inner): (&mut [f32], usize),
    (memory, head, rows): (&mut [f32], usize, usize),
    of: impl Fn(Range<usize>) -> T + Sync,
    advance: impl Fn(&T, usize, &mut [f32], &mut [f32]) + Sync,
) -> Result<()> {
    let (ops, pass) = (&run.ops, run.pass);
    let columns = state_columns(head);
    let len = rows * columns;
    let finite = AtomicBool::new(true);
    let grain = ops.grain(pass.rows.len() * len);
    ops.team
        .items((answers, inner, columns), memory, grain, |_, mut tile, memory| {
            let own = of(tile.columns());
            for (i, row) in pass.rows.iter().enumerate() {
                let change = pass.sequences.at(row.slot).state_change(row.position);
                let out = tile.row(i);
                advance(&own, i, change.enter(memory, len), out);
                if !out.iter().all(|value| value.is_finite()) {
                    finite.store(false, Ordering::Relaxed);
                }
                change.leave(memory, len);
            }
        })?;
    ops.check(finite.into_inner(), op)
}

/// What such layers compute in.
#[derive(Debug)]
pub(super) struct RecurrentBuffers {
    /// What the convolution reads, and what it makes of that.
    pub(super) input: Vec<f32>,
    pub(super) mixed: Vec<f32>,
    /// The gate of the output.
    pub(super) z: Vec<f32>,
    pub(super) fused: Vec<f32>,
    pub(super) logits: Vec<f32>,
    pub(super) gates: Vec<f32>,
    pub(super) answers: Vec<f32>,
}

impl RecurrentBuffers {
    /// For any of these layers.
    pub(super) fn make(
        layers: impl Iterator<Item = Widths> + Clone,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let m = sizes.n_batch;
        let widest = |width: fn(Widths) -> usize| layers.clone().map(width).max().unwrap_or(0);
        let (channels, inner) = (widest(|layer| layer.channels), widest(|layer| layer.inner));
        let gates = widest(|layer| layer.heads).saturating_mul(2);
        Ok(RecurrentBuffers {
            input: buffers.outputs("recurrent layers' inputs", m, channels)?,
            mixed: buffers.outputs("recurrent layers' inputs", m, channels)?,
            z: buffers.outputs("recurrent layers' output gate", m, inner)?,
            fused: buffers.outputs("recurrent layers' rows by head", m, widest(|layer| layer.fused))?,
            logits: buffers.outputs("recurrent layers' gates", m, widest(|layer| layer.logits))?,
            gates: buffers.rows("recurrent layers' gates", m, gates)?,
            answers: buffers.outputs("recurrent layers' answers", m, inner)?,
        })
    }
}
