//! Feed-forward parts: what a layer does with each position by itself. One file each, with its configuration, its
//! weights, its buffers and its forward pass; here each has one line per question that the model asks.

mod dense_and_experts;
mod experts;
mod gated;
mod plain;
mod router;

pub use dense_and_experts::DenseAndExpertsConfig;
pub use experts::{ExpertsConfig, Presence, SharedConfig};
pub use gated::GatedConfig;
pub use plain::PlainConfig;
pub use router::Gating;

pub use super::stack::is_of_experts;

use super::config::{Config, Keys};
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
    /// Some of many gated or plain ones, for each token others.
    Experts(ExpertsConfig),
    /// A gated one and experts beside it.
    DenseAndExperts(DenseAndExpertsConfig),
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

impl From<ExpertsConfig> for FfnConfig {
    fn from(config: ExpertsConfig) -> Self {
        FfnConfig::Experts(config)
    }
}

impl From<DenseAndExpertsConfig> for FfnConfig {
    fn from(config: DenseAndExpertsConfig) -> Self {
        FfnConfig::DenseAndExperts(config)
    }
}

impl FfnConfig {
    /// Every layer's: experts in some of them, and in the others gated parts of `feed_forward_length`.
    pub(crate) fn some_experts(
        keys: &Keys<'_>,
        experts: Vec<ExpertsConfig>,
        has_experts: impl Fn(usize) -> bool,
    ) -> Result<Vec<Self>> {
        let dense = GatedConfig::read(keys)?;
        let layer = |(i, (dense, experts)): (usize, (GatedConfig, ExpertsConfig))| match has_experts(i) {
            true => experts.into(),
            false => dense.into(),
        };
        Ok(dense.into_iter().zip(experts).enumerate().map(layer).collect())
    }

    /// Whether it has experts.
    pub(super) fn has_experts(&self) -> bool {
        match self {
            FfnConfig::None | FfnConfig::Gated(_) | FfnConfig::Plain(_) => false,
            FfnConfig::Experts(_) | FfnConfig::DenseAndExperts(_) => true,
        }
    }

    /// The widest rows of a pass that its matrices multiply with, beside the residual stream's.
    pub(super) fn inner_width(&self) -> usize {
        match self {
            FfnConfig::None => 0,
            FfnConfig::Gated(config) => config.n_ff,
            FfnConfig::Plain(config) => config.n_ff,
            FfnConfig::Experts(config) => config.inner_width(),
            FfnConfig::DenseAndExperts(config) => config.dense.n_ff.max(config.experts.inner_width()),
        }
    }

    /// Operations that a team of workers does for a token, each with a hand-over.
    pub(super) fn operations(&self) -> usize {
        match self {
            FfnConfig::None => 0,
            // Up, and the gate with it; down.
            FfnConfig::Gated(_) | FfnConfig::Plain(_) => 2,
            FfnConfig::Experts(config) => config.operations(),
            FfnConfig::DenseAndExperts(config) => 2 + config.experts.operations(),
        }
    }

    /// Where its matrices multiply with more rows than the `m` of a pass: how many, and the widest of them.
    pub(super) fn more_rows(&self, config: &Config, m: usize) -> (usize, usize) {
        match self {
            FfnConfig::None | FfnConfig::Gated(_) | FfnConfig::Plain(_) => (0, 0),
            FfnConfig::Experts(own) => own.more_rows(config.n_embd, m),
            FfnConfig::DenseAndExperts(own) => own.experts.more_rows(config.n_embd, m),
        }
    }

    /// What of it is gated.
    fn gated(&self) -> Option<&GatedConfig> {
        match self {
            FfnConfig::Gated(config) => Some(config),
            FfnConfig::DenseAndExperts(config) => Some(&config.dense),
            FfnConfig::None | FfnConfig::Plain(_) | FfnConfig::Experts(_) => None,
        }
    }

    /// What of it is experts.
    pub fn experts(&self) -> Option<&ExpertsConfig> {
        match self {
            FfnConfig::Experts(config) => Some(config),
            FfnConfig::DenseAndExperts(config) => Some(&config.experts),
            FfnConfig::None | FfnConfig::Plain(_) | FfnConfig::Gated(_) => None,
        }
    }
}

/// A layer's feed-forward part.
#[derive(Debug)]
pub(crate) enum Ffn {
    None,
    Gated(gated::Gated),
    Plain(plain::Plain),
    Experts(Box<experts::Experts>),
    DenseAndExperts(Box<dense_and_experts::DenseAndExperts>),
}

impl Ffn {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, i: usize) -> Result<Self> {
        match &config.layers[i].ffn {
            FfnConfig::None => Ok(Ffn::None),
            FfnConfig::Gated(own) => gated::Gated::bind(binder, config, own, i).map(Ffn::Gated),
            FfnConfig::Plain(own) => plain::Plain::bind(binder, config, own, i).map(Ffn::Plain),
            FfnConfig::Experts(own) => {
                let part = experts::Experts::bind(binder, config, own, i)?;
                Ok(Ffn::Experts(Box::new(part)))
            }
            FfnConfig::DenseAndExperts(own) => {
                let part = dense_and_experts::DenseAndExperts::bind(binder, config, own, i)?;
                Ok(Ffn::DenseAndExperts(Box::new(part)))
            }
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Ffn::None => Vec::new(),
            Ffn::Gated(gated) => gated.linears(),
            Ffn::Plain(plain) => plain.linears(),
            Ffn::Experts(experts) => experts.linears(),
            Ffn::DenseAndExperts(part) => part.linears(),
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
        (x, h): (&[f32], &[f32]),
        out: &mut [f32],
        buffers: &mut FfnBuffers,
    ) -> Result<()> {
        match self {
            Ffn::None => Ok(()),
            Ffn::Gated(gated) => gated.forward(run, h, out, &mut buffers.gated),
            Ffn::Plain(plain) => plain.forward(run, h, out, &mut buffers.plain),
            Ffn::Experts(experts) => experts.forward(run, h, out, &mut buffers.experts),
            Ffn::DenseAndExperts(part) => part.forward(
                run,
                (x, h),
                out,
                (&mut buffers.gated, &mut buffers.experts),
                &mut buffers.dense_and_experts,
            ),
        }
    }
}

/// What the feed-forward parts of a model compute in, made once; without a layer of a kind its buffers are empty.
#[derive(Debug)]
pub(super) struct FfnBuffers {
    gated: gated::GatedBuffers,
    plain: plain::PlainBuffers,
    experts: experts::ExpertsBuffers,
    dense_and_experts: dense_and_experts::DenseAndExpertsBuffers,
}

impl FfnBuffers {
    pub(super) fn make(config: &Config, sizes: &Sizes, buffers: &mut Buffers<'_>) -> Result<Self> {
        let layers = || config.layers.iter().map(|layer| &layer.ffn);
        let plain = layers().filter_map(|ffn| match ffn {
            FfnConfig::Plain(config) => Some(config),
            FfnConfig::None | FfnConfig::Gated(_) | FfnConfig::Experts(_) | FfnConfig::DenseAndExperts(_) => {
                None
            }
        });
        let both = layers().any(|ffn| matches!(ffn, FfnConfig::DenseAndExperts(_)));
        let experts = layers().filter_map(FfnConfig::experts);
        Ok(FfnBuffers {
            gated: gated::GatedBuffers::make(layers().filter_map(FfnConfig::gated), sizes, buffers)?,
            plain: plain::PlainBuffers::make(plain, sizes, buffers)?,
            experts: experts::ExpertsBuffers::make(experts, config.n_embd, sizes, buffers)?,
            dense_and_experts: dense_and_experts::DenseAndExpertsBuffers::make(
                both,
                config.n_embd,
                sizes,
                buffers,
            )?,
        })
    }
}
