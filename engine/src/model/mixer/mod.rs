//! Mixers: the part of a layer that looks at other positions. One file each, with its configuration, its weights, what
//! it keeps in the cache, its buffers and its forward pass; here each has one line per question that the model asks.
//!
//! `attend` is how queries over the cache's pages are split between workers, for every mixer that has some;
//! `temperature` a factor of queries that some of them share; `conv` the short convolution that several mixers begin
//! with, `recurrent` what those share whose heads keep a state.

mod attend;
mod attention;
mod conv;
mod delta_net;
mod mamba2;
mod mla;
mod recurrent;
mod short_conv;
mod temperature;

pub use attention::{AttentionConfig, QkNorm, Window};
pub use delta_net::DeltaNetConfig;
pub use mamba2::Mamba2Config;
pub use mla::MlaConfig;
pub use short_conv::ShortConvConfig;
pub use temperature::Temperature;

use std::ops::Range;

use super::config::Config;
use super::ops::Run;
use super::probe::Probe;
use super::weights::{Binder, Linear};
use crate::cache::{CacheKind, LayerCache, Sizes};
use crate::memory::Buffers;
use crate::{Error, Result};

/// What a mixer is, in numbers.
#[derive(Debug, Clone)]
pub enum MixerConfig {
    /// The layer has none.
    None,
    /// Softmax attention over keys and values of the positions before.
    Attention(AttentionConfig),
    /// The same over latent vectors, or over keys and values that are made of them.
    Mla(MlaConfig),
    /// The gated delta rule.
    DeltaNet(DeltaNetConfig),
    /// A gated convolution over a few positions.
    ShortConv(ShortConvConfig),
    /// A selective state space.
    Mamba2(Mamba2Config),
}

impl From<AttentionConfig> for MixerConfig {
    fn from(config: AttentionConfig) -> Self {
        MixerConfig::Attention(config)
    }
}

impl MixerConfig {
    /// What it keeps of the positions before.
    pub(crate) fn cache_kind(&self) -> CacheKind {
        match self {
            MixerConfig::None => CacheKind::None,
            MixerConfig::Attention(config) => config.cache_kind(),
            MixerConfig::Mla(config) => config.cache_kind(),
            MixerConfig::DeltaNet(config) => config.cache_kind(),
            MixerConfig::ShortConv(config) => config.cache_kind(),
            MixerConfig::Mamba2(config) => config.cache_kind(),
        }
    }

    /// The widest rows that its matrices multiply with, beside the residual stream's.
    pub(super) fn inner_width(&self) -> usize {
        match self {
            MixerConfig::None => 0,
            MixerConfig::Attention(config) => config.inner_width(),
            MixerConfig::Mla(config) => config.inner_width(),
            MixerConfig::DeltaNet(config) => config.inner_width(),
            MixerConfig::ShortConv(config) => config.inner_width(),
            MixerConfig::Mamba2(config) => config.inner_width(),
        }
    }

    /// Where its matrices multiply with more rows than the `m` of a pass: how many, and the widest of them.
    pub(super) fn more_rows(&self, m: usize) -> (usize, usize) {
        match self {
            MixerConfig::Mla(config) => config.more_rows(m),
            MixerConfig::None
            | MixerConfig::Attention(_)
            | MixerConfig::DeltaNet(_)
            | MixerConfig::ShortConv(_)
            | MixerConfig::Mamba2(_) => (0, 0),
        }
    }

    /// The rotation that it names, by index, and the width of the heads that are rotated.
    pub(super) fn rotates(&self) -> Option<(usize, usize)> {
        match self {
            MixerConfig::Attention(config) => Some((config.rope?, config.head_dim_k)),
            MixerConfig::Mla(config) => Some((config.attention.rope?, config.rotated)),
            MixerConfig::None
            | MixerConfig::DeltaNet(_)
            | MixerConfig::ShortConv(_)
            | MixerConfig::Mamba2(_) => None,
        }
    }

    /// Whether it needs all rows of a pass, because it keeps or mixes them; else `x` are those rows alone that it is
    /// asked for.
    pub(super) fn needs_all_rows(&self) -> bool {
        match self {
            MixerConfig::None => false,
            MixerConfig::Attention(config) => config.shares.is_none(),
            MixerConfig::DeltaNet(_)
            | MixerConfig::ShortConv(_)
            | MixerConfig::Mamba2(_)
            | MixerConfig::Mla(_) => true,
        }
    }

    /// Operations that a team of workers does for a token, each with a hand-over: lists of products, and what is as
    /// much work as they are.
    pub(super) fn operations(&self) -> usize {
        match self {
            MixerConfig::None => 0,
            MixerConfig::Attention(_) => AttentionConfig::OPERATIONS,
            MixerConfig::DeltaNet(_) => DeltaNetConfig::OPERATIONS,
            MixerConfig::ShortConv(_) => ShortConvConfig::OPERATIONS,
            MixerConfig::Mamba2(_) => Mamba2Config::OPERATIONS,
            MixerConfig::Mla(_) => MlaConfig::OPERATIONS,
        }
    }

    /// Multiplications of f32 numbers beside those of matrices, for a token that sees `depth` positions.
    pub fn multiplications(&self, depth: f64) -> f64 {
        match self {
            MixerConfig::None | MixerConfig::ShortConv(_) => 0.0,
            MixerConfig::Attention(config) => config.multiplications(depth),
            MixerConfig::DeltaNet(config) => config.multiplications(),
            MixerConfig::Mamba2(config) => config.multiplications(),
            MixerConfig::Mla(config) => config.multiplications(depth),
        }
    }

    /// What it does with the keys and values of the cache, where it keeps some.
    pub fn attention(&self) -> Option<&AttentionConfig> {
        match self {
            MixerConfig::Attention(config) => Some(config),
            MixerConfig::Mla(config) => Some(&config.attention),
            MixerConfig::None
            | MixerConfig::DeltaNet(_)
            | MixerConfig::ShortConv(_)
            | MixerConfig::Mamba2(_) => None,
        }
    }
}

/// A layer's mixer.
#[derive(Debug)]
pub(crate) enum Mixer {
    None,
    Attention(Box<attention::Attention>),
    Mla(Box<mla::Mla>),
    DeltaNet(Box<delta_net::DeltaNet>),
    ShortConv(Box<short_conv::ShortConv>),
    Mamba2(Box<mamba2::Mamba2>),
}

impl Mixer {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, i: usize) -> Result<Self> {
        match &config.layers[i].mixer {
            MixerConfig::None => Ok(Mixer::None),
            MixerConfig::Attention(own) => {
                attention::Attention::bind(binder, config, own, i).map(|own| Mixer::Attention(Box::new(own)))
            }
            MixerConfig::Mla(own) => {
                mla::Mla::bind(binder, config, own, i).map(|own| Mixer::Mla(Box::new(own)))
            }
            MixerConfig::DeltaNet(own) => {
                delta_net::DeltaNet::bind(binder, config, own, i).map(|own| Mixer::DeltaNet(Box::new(own)))
            }
            MixerConfig::ShortConv(own) => {
                short_conv::ShortConv::bind(binder, config, own, i).map(|own| Mixer::ShortConv(Box::new(own)))
            }
            MixerConfig::Mamba2(own) => {
                mamba2::Mamba2::bind(binder, config, own, i).map(|own| Mixer::Mamba2(Box::new(own)))
            }
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Mixer::None => Vec::new(),
            Mixer::Attention(attention) => attention.linears(),
            Mixer::Mla(mla) => mla.linears(),
            Mixer::DeltaNet(net) => net.linears(),
            Mixer::ShortConv(conv) => conv.linears(),
            Mixer::Mamba2(mamba) => mamba.linears(),
        }
    }

    /// Whether there is one.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Mixer::None)
    }

    /// `out` = what it makes of `rows` of the pass. `x` are all rows of the normed residual stream; the cache is given
    /// what it keeps of all of them. Where it does not need all rows ([`MixerConfig::needs_all_rows`]), `x` are `rows`
    /// alone.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        rows: Range<usize>,
        out: &mut [f32],
        buffers: &mut MixerBuffers,
        cache: &mut LayerCache,
    ) -> Result<()> {
        match (self, cache) {
            (Mixer::Attention(attention), LayerCache::Kv(cache)) => {
                attention.forward(run, x, rows, out, &mut buffers.attention, cache)
            }
            (Mixer::Mla(mla), LayerCache::Kv(cache)) => {
                mla.forward(run, x, rows, out, &mut buffers.mla, cache)
            }
            (Mixer::DeltaNet(net), LayerCache::State(cache)) => {
                net.forward(run, x, rows, out, &mut buffers.recurrent, cache)
            }
            (Mixer::ShortConv(conv), LayerCache::State(cache)) => {
                conv.forward(run, x, rows, out, &mut buffers.short_conv, cache)
            }
            (Mixer::Mamba2(mamba), LayerCache::State(cache)) => {
                mamba.forward(run, x, rows, out, &mut buffers.recurrent, cache)
            }
            (
                Mixer::None
                | Mixer::Attention(_)
                | Mixer::Mla(_)
                | Mixer::DeltaNet(_)
                | Mixer::ShortConv(_)
                | Mixer::Mamba2(_),
                _,
            ) => Err(Error::Internal {
                what: "a layer's mixer and its cache are of different kinds".into(),
            }),
        }
    }
}

/// What the mixers of a model compute in, made once; without a layer of a kind its buffers are empty.
#[derive(Debug)]
pub(super) struct MixerBuffers {
    attention: attention::AttentionBuffers,
    mla: mla::MlaBuffers,
    recurrent: recurrent::RecurrentBuffers,
    short_conv: short_conv::ShortConvBuffers,
}

impl MixerBuffers {
    pub(super) fn make(
        config: &Config,
        sizes: &Sizes,
        workers: usize,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let (mut attention, mut mla) = (Vec::new(), Vec::new());
        let (mut recurrent, mut short_conv) = (Vec::new(), Vec::new());
        for layer in &config.layers {
            match &layer.mixer {
                MixerConfig::None => {}
                MixerConfig::Attention(config) => attention.push(config),
                MixerConfig::Mla(config) => mla.push(config),
                MixerConfig::DeltaNet(config) => recurrent.push(config.widths()),
                MixerConfig::Mamba2(config) => recurrent.push(config.widths()),
                MixerConfig::ShortConv(config) => short_conv.push(config),
            }
        }
        Ok(MixerBuffers {
            attention: attention::AttentionBuffers::make(attention.into_iter(), sizes, workers, buffers)?,
            mla: mla::MlaBuffers::make(mla.into_iter(), sizes, workers, buffers)?,
            recurrent: recurrent::RecurrentBuffers::make(recurrent.into_iter(), sizes, buffers)?,
            short_conv: short_conv::ShortConvBuffers::make(short_conv.into_iter(), sizes, buffers)?,
        })
    }
}
