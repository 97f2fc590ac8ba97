//! Feed-forward parts: what a layer does with each position by itself. One file each, with its configuration, its weights,
//! its buffers and its forward pass; here each has one line per question that the model asks.

mod gated;
mod plain;

pub use gated::GatedConfig;
pub use plain::PlainConfig;

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
    /// The layer has none.
    None,
    /// A gate times an up projection, then down.
    Gated(GatedConfig),
    /// An up projection, then down.
    Plain(PlainConfig),
}

impl From<GatedConfig> for FfnConfig {
    fn from(config: GatedConfig) -> Self {
        FfnConfig::Gated(config)
    }
}

impl From<PlainConfig> for FfnConfig {
    fn from(config: PlainConfig) -> Self {
        FfnConfig::Plain(config)
    }
}

impl FfnConfig {
    /// The widest rows that its matrices multiply with, beside the residual stream's.
    pub(super) fn inner_width(&self) -> usize {
        match self {
            FfnConfig::None => 0,
            FfnConfig::Gated(config) => config.n_ff,
            FfnConfig::Plain(config) => config.n_ff,
        }
    }
}

/// A layer's feed-forward part.
#[derive(Debug)]
pub(crate) enum Ffn {
    None,
    Gated(gated::Gated),
    Plain(plain::Plain),
}

impl Ffn {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, i: usize) -> Result<Self> {
        match &config.layers[i].ffn {
            FfnConfig::None => Ok(Ffn::None),
            FfnConfig::Gated(own) => gated::Gated::bind(binder, config, own, i).map(Ffn::Gated),
            FfnConfig::Plain(own) => plain::Plain::bind(binder, config, own, i).map(Ffn::Plain),
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Ffn::None => Vec::new(),
            Ffn::Gated(gated) => gated.linears(),
            Ffn::Plain(plain) => plain.linears(),
        }
    }

    /// Whether there is one.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Ffn::None)
    }

    /// `out` = what it makes of `h`, rows of the residual stream `x`, normed.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        (_x, h): (&[f32], &[f32]),
        out: &mut [f32],
        buffers: &mut FfnBuffers,
    ) -> Result<()> {
        match self {
            Ffn::None => Ok(()),
            Ffn::Gated(gated) => gated.forward(run, h, out, &mut buffers.gated),
            Ffn::Plain(plain) => plain.forward(run, h, out, &mut buffers.plain),
        }
    }
}

/// What the feed-forward parts of a model compute in, made once; without a layer of a kind its buffers are empty.
#[derive(Debug)]
pub(super) struct FfnBuffers {
    gated: gated::GatedBuffers,
    plain: plain::PlainBuffers,
}

impl FfnBuffers {
    pub(super) fn make(config: &Config, sizes: &Sizes, buffers: &mut Buffers<'_>) -> Result<Self> {
        macro_rules! layers {
            ($kind:ident) => {
                config.layers.iter().filter_map(|layer| match &layer.ffn {
                    FfnConfig::$kind(config) => Some(config),
                    _ => None,
                })
            };
        }
        Ok(FfnBuffers {
            gated: gated::GatedBuffers::make(layers!(Gated), sizes, buffers)?,
            plain: plain::PlainBuffers::make(layers!(Plain), sizes, buffers)?,
        })
    }
}
