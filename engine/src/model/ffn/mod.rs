//! Feed-forward parts: what a layer does with each position by itself. One file each, with its configuration, its weights,
//! its buffers and its forward pass; here each has one line per question that the model asks.

mod gated;

pub use gated::GatedConfig;

use super::config::Config;
use super::ops::Run;
use super::probe::Probe;
use super::weights::{Binder, Linear};
use crate::Result;
use crate::cache::Sizes;
use crate::memory::Buffers;

/// What a feed-forward part is, in numbers.
#[derive(Debug, Clone)]
pub enum FfnConfig {
    /// A gate times an up projection, then down.
    Gated(GatedConfig),
}

impl FfnConfig {
    /// The widest rows that its matrices multiply with, beside the residual stream's.
    pub(super) fn inner_width(&self) -> usize {
        match self {
            FfnConfig::Gated(config) => config.n_ff,
        }
    }
}

/// A layer's feed-forward part.
#[derive(Debug)]
pub(crate) enum Ffn {
    Gated(gated::Gated),
}

impl Ffn {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, i: usize) -> Result<Self> {
        match &config.layers[i].ffn {
            FfnConfig::Gated(own) => gated::Gated::bind(binder, config, own, i).map(Ffn::Gated),
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Ffn::Gated(gated) => gated.linears(),
        }
    }

    /// `out` = what it makes of `x`, rows of the normed residual stream.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        out: &mut [f32],
        buffers: &mut FfnBuffers,
    ) -> Result<()> {
        match self {
            Ffn::Gated(gated) => gated.forward(run, x, out, &mut buffers.gated),
        }
    }
}

/// What the feed-forward parts of a model compute in, made once; without a layer of a kind its buffers are empty.
#[derive(Debug)]
pub(super) struct FfnBuffers {
    gated: gated::GatedBuffers,
}

impl FfnBuffers {
    pub(super) fn make(config: &Config, sizes: &Sizes, buffers: &mut Buffers<'_>) -> Result<Self> {
        let gated = config.layers.iter().map(|layer| match &layer.ffn {
            FfnConfig::Gated(config) => config,
        });
        Ok(FfnBuffers {
            gated: gated::GatedBuffers::make(gated, sizes, buffers)?,
        })
    }
}
