//! A depthwise convolution over positions: each channel's last few inputs, weighed by its taps. The inputs before a
//! pass lie in the sequence's state.

use std::ops::Range;

use crate::Result;
use crate::cache::StatePart;
use crate::kernels::CONV_WIDTH;
use crate::model::config::Keys;
use crate::model::ops::Run;
use crate::model::weights::Binder;

/// Positions that a convolution sees at most.
const MAX_KERNEL: u32 = 64;

/// Its weights.
#[derive(Debug)]
pub(super) struct Conv {
    channels: usize,
    /// Positions that it sees, its own included.
    kernel: usize,
    /// `[block of channels][position][channel]`, the last block filled up with zeros.
    taps: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Conv {
    /// The number of positions that it sees.
    pub(super) fn kernel(keys: &Keys<'_>, key: &str) -> Result<usize> {
        match keys.size(key, MAX_KERNEL)? {
            1 => Err(keys.wrong(key, &format!("2 to {MAX_KERNEL}"), "1")),
            kernel => Ok(kernel),
        }
    }

    /// What it keeps of a sequence.
    pub(super) fn state(channels: usize, kernel: usize) -> StatePart {
        StatePart {
            items: channels.div_ceil(CONV_WIDTH),
            len: (kernel - 1) * CONV_WIDTH,
        }
    }

    pub(super) fn bind(binder: &Binder<'_>, name: &str, channels: usize, kernel: usize) -> Result<Self> {
        let table = binder.vectors(&format!("{name}.weight"), channels, kernel)?;
        let mut taps = vec![0.0; channels.div_ceil(CONV_WIDTH) * kernel * CONV_WIDTH];
        for (channel, own) in table.chunks_exact(kernel).enumerate() {
            let (block, column) = (channel / CONV_WIDTH, channel % CONV_WIDTH);
            for (position, tap) in own.iter().enumerate() {
                taps[(block * kernel + position) * CONV_WIDTH + column] = *tap;
            }
        }
        Ok(Conv {
            channels,
            kernel,
            taps,
            bias: binder.bias(name, channels)?,
        })
    }

    /// `out` = it over all rows of the pass. `input(row, channels, x)` says its inputs, `finish(row, channels, out)`
    /// what the worker that made some outputs does with them.
    pub(super) fn forward<P>(
        &self,
        run: &Run<'_, P>,
        recent: &mut [f32],
        out: &mut [f32],
        input: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
        finish: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    ) -> Result<()> {
        let (ops, pass, kernel) = (&run.ops, run.pass, self.kernel);
        let (taps_len, len) = (kernel * CONV_WIDTH, (kernel - 1) * CONV_WIDTH);
        let grain = ops.grain(pass.rows.len() * taps_len);
        let outputs = (out, self.channels, CONV_WIDTH);
        ops.team.items(outputs, recent, grain, |block, mut tile, recent| {
            let channels = tile.columns();
            let taps = &self.taps[block * taps_len..(block + 1) * taps_len];
            let bias = self.bias.as_ref().map(|bias| &bias[channels.clone()]);
            let mut x = [0.0f32; CONV_WIDTH];
            let x = &mut x[..channels.len()];
            for (i, row) in pass.rows.iter().enumerate() {
                let change = pass.sequences.at(row.slot).state_change(row.position);
                input(i, channels.clone(), x);
                let out = tile.row(i);
                ops.backend
                    .conv_row(change.enter(recent, len), x, taps, bias, out);
                finish(i, channels.clone(), out);
                change.leave(recent, len);
            }
        })
    }
}
