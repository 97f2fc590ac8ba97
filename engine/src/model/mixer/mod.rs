//! Mixers: the part of a layer that looks at other positions. One file each, with its configuration, its weights, what it
//! keeps in the cache, its buffers and its forward pass; here each has one line per question that the model asks.
//!
//! `attend` is how queries over the cache's pages are split between workers, for every mixer that has some; `temperature` a
//! factor of queries that some of them share; `conv` the short convolution that several mixers begin with.

mod attend;
mod attention;
mod conv;
mod delta_net;
mod mamba2;
mod short_conv;
mod temperature;

pub use attention::{AttentionConfig, QkNorm, Window};
pub use delta_net::DeltaNetConfig;
pub use mamba2::Mamba2Config;
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
            MixerConfig::DeltaNet(config) => config.inner_width(),
            MixerConfig::ShortConv(config) => config.inner_width(),
            MixerConfig::Mamba2(config) => config.inner_width(),
        }
    }

    /// The rotation that it names, by index, and the width of the heads that are rotated.
    pub(super) fn rotates(&self) -> Option<(usize, usize)> {
        match self {
            MixerConfig::Attention(config) => Some((config.rope?, config.head_dim_k)),
            _ => None,
        }
    }

    /// Whether it needs all rows of a pass, because it keeps or mixes them; else `x` are those rows alone that it is asked for.
    pub(super) fn needs_all_rows(&self) -> bool {
        match self {
            MixerConfig::None => false,
            MixerConfig::Attention(config) => config.shares.is_none(),
            MixerConfig::DeltaNet(_) | MixerConfig::ShortConv(_) | MixerConfig::Mamba2(_) => true,
        }
    }

    /// Its configuration where it is attention.
    pub fn attention(&self) -> Option<&AttentionConfig> {
        match self {
            MixerConfig::Attention(config) => Some(config),
            _ => None,
        }
    }
}

/// A layer's mixer.
#[derive(Debug)]
pub(crate) enum Mixer {
    None,
    Attention(attention::Attention),
    DeltaNet(delta_net::DeltaNet),
    ShortConv(short_conv::ShortConv),
    Mamba2(mamba2::Mamba2),
}

impl Mixer {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, i: usize) -> Result<Self> {
        match &config.layers[i].mixer {
            MixerConfig::None => Ok(Mixer::None),
            MixerConfig::Attention(own) => {
                attention::Attention::bind(binder, config, own, i).map(Mixer::Attention)
            }
            MixerConfig::DeltaNet(own) => {
                delta_net::DeltaNet::bind(binder, config, own, i).map(Mixer::DeltaNet)
            }
            MixerConfig::ShortConv(own) => {
                short_conv::ShortConv::bind(binder, config, own, i).map(Mixer::ShortConv)
            }
            MixerConfig::Mamba2(own) => mamba2::Mamba2::bind(binder, config, own, i).map(Mixer::Mamba2),
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Mixer::None => Vec::new(),
            Mixer::Attention(attention) => attention.linears(),
            Mixer::DeltaNet(net) => net.linears(),
            Mixer::ShortConv(conv) => conv.linears(),
            Mixer::Mamba2(mamba) => mamba.linears(),
        }
    }

    /// Whether there is one.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Mixer::None)
    }

    /// `out` = what it makes of `rows` of the pass. `x` are all rows of the normed residual stream; the cache is given what it
    /// keeps of all of them. Where it does not need all rows ([`MixerConfig::needs_all_rows`]), `x` are `rows` alone.
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
            (Mixer::DeltaNet(net), LayerCache::State(cache)) => {
                net.forward(run, x, rows, out, &mut buffers.delta_net, cache)
            }
            (Mixer::ShortConv(conv), LayerCache::State(cache)) => {
                conv.forward(run, x, rows, out, &mut buffers.short_conv, cache)
            }
            (Mixer::Mamba2(mamba), LayerCache::State(cache)) => {
                mamba.forward(run, x, rows, out, &mut buffers.mamba2, cache)
            }
            _ => Err(Error::InvalidInput {
                what: "a layer's mixer and its cache are of different kinds".into(),
            }),
        }
    }
}

/// What the mixers of a model compute in, made once; without a layer of a kind its buffers are empty.
#[derive(Debug)]
pub(super) struct MixerBuffers {
    attention: attention::AttentionBuffers,
    delta_net: delta_net::DeltaNetBuffers,
    short_conv: short_conv::ShortConvBuffers,
    mamba2: mamba2::Mamba2Buffers,
}

impl MixerBuffers {
    pub(super) fn make(
        config: &Config,
        sizes: &Sizes,
        workers: usize,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let mixers = config.layers.iter().map(|layer| &layer.mixer);
        let attention = mixers.clone().filter_map(MixerConfig::attention);
        let delta_net = mixers.clone().filter_map(|mixer| match mixer {
            MixerConfig::DeltaNet(config) => Some(config),
            _ => None,
        });
        let short_conv = mixers.clone().filter_map(|mixer| match mixer {
            MixerConfig::ShortConv(config) => Some(config),
            _ => None,
        });
        let mamba2 = mixers.filter_map(|mixer| match mixer {
            MixerConfig::Mamba2(config) => Some(config),
            _ => None,
        });
        Ok(MixerBuffers {
            attention: attention::AttentionBuffers::make(attention, sizes, workers, buffers)?,
            delta_net: delta_net::DeltaNetBuffers::make(delta_net, sizes, buffers)?,
            short_conv: short_conv::ShortConvBuffers::make(short_conv, sizes, buffers)?,
            mamba2: mamba2::Mamba2Buffers::make(mamba2, sizes, buffers)?,
        })
    }
}
