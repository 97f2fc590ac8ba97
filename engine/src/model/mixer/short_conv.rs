//! The gated short convolution: a gate before it, a gate after it, and a few positions between them.

use std::ops::Range;

use super::conv::Conv;
use crate::Result;
use crate::cache::{CacheKind, Sizes, StateCache, StatePart, StateShape};
use crate::memory::Buffers;
use crate::model::config::{Config, Keys};
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::product;
use crate::model::weights::{Binder, Linear};

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct ShortConvConfig {
    /// Channels: the width of the residual stream.
    pub width: usize,
    /// Positions that it sees.
    pub kernel: usize,
}

impl ShortConvConfig {
    /// As the metadata states it, the same for every layer.
    pub(crate) fn read(keys: &Keys<'_>, config: &Config) -> Result<Self> {
        Ok(ShortConvConfig {
            width: config.n_embd,
            kernel: Conv::kernel(keys, "shortconv.l_cache")?,
        })
    }

    pub(super) fn cache_kind(&self) -> CacheKind {
        CacheKind::State(StateShape {
            recent: Conv::state(self.width, self.kernel),
            memory: StatePart::default(),
        })
    }

    pub(super) fn inner_width(&self) -> usize {
        self.width
    }
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct ShortConv {
    width: usize,
    /// Both gates and the input, in rows: before, after, input.
    input: Linear,
    conv: Conv,
    output: Linear,
}

impl ShortConv {
    pub(super) fn bind(
        binder: &Binder<'_>,
        config: &Config,
        own: &ShortConvConfig,
        i: usize,
    ) -> Result<Self> {
        let (n_embd, width) = (config.n_embd, own.width);
        let name = |suffix: &str| format!("blk.{i}.shortconv.{suffix}");
        Ok(ShortConv {
            width,
            input: binder.linear(&name("in_proj"), 3 * width, n_embd)?,
            conv: Conv::bind(binder, &name("conv"), width, own.kernel)?,
            output: binder.linear(&name("out_proj"), n_embd, width)?,
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        vec![&self.input, &self.output]
    }

    /// `out` = what it makes of some rows of the pass; states go on over all of them.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        rows: Range<usize>,
        out: &mut [f32],
        buffers: &mut ShortConvBuffers,
        cache: &mut StateCache,
    ) -> Result<()> {
        let (m, n) = (run.pass.rows.len(), self.width);
        let input = &mut buffers.input[..m * 3 * n];
        run.products("conv_in", x, &mut [product(&self.input, &mut *input)])?;
        run.look("conv_in", 3 * n, input);
        let input = &*input;
        let mixed = &mut buffers.mixed[..m * n];
        let part = |row: usize, which: usize, channels: Range<usize>| {
            &input[(row * 3 + which) * n..(row * 3 + which + 1) * n][channels]
        };
        self.conv.forward(
            run,
            &mut cache.recent,
            mixed,
            |row, channels, x| {
                let (before, input) = (part(row, 0, channels.clone()), part(row, 2, channels));
                for ((x, before), input) in x.iter_mut().zip(before).zip(input) {
                    *x = before * input;
                }
            },
            |row, channels, out| {
                let after = part(row, 1, channels);
                out.iter_mut().zip(after).for_each(|(out, after)| *out *= after);
            },
        )?;
        run.look("conv", n, mixed);
        if rows.is_empty() {
            return Ok(());
        }
        let mixed = &mixed[rows.start * n..rows.end * n];
        run.products("conv_out", mixed, &mut [product(&self.output, &mut *out)])?;
        run.look("conv_out", run.config.n_embd, out);
        Ok(())
    }
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct ShortConvBuffers {
    input: Vec<f32>,
    mixed: Vec<f32>,
}

impl ShortConvBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a ShortConvConfig>,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let (m, n) = (sizes.n_batch, layers.map(|layer| layer.width).max().unwrap_or(0));
        Ok(ShortConvBuffers {
            input: buffers.outputs("the short convolution's gates and input", m, 3 * n)?,
            mixed: buffers.outputs("the short convolution's output", m, n)?,
        })
    }
}
