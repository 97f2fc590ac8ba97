//! Mixers: the part of a layer that looks at other positions. One file each, with its configuration, its weights, what it
//! keeps in the cache, its buffers and its forward pass; here each has one line per question that the model asks.
//!
//! `attend` is how queries over the cache's pages are split between workers, for every mixer that has some; `temperature` a
//! factor of queries that some of them share.

mod attend;
mod attention;
mod temperature;

pub use attention::{AttentionConfig, QkNorm, Window};
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
}

impl MixerConfig {
    /// What it keeps of the positions before.
    pub(crate) fn cache_kind(&self) -> CacheKind {
        match self {
            MixerConfig::None => CacheKind::None,
            MixerConfig::Attention(config) => config.cache_kind(),
        }
    }

    /// The widest rows that its matrices multiply with, beside the residual stream's.
    pub(super) fn inner_width(&self) -> usize {
        match self {
            MixerConfig::None => 0,
            MixerConfig::Attention(config) => config.inner_width(),
        }
    }

    /// The rotation that it names, by index, and the width of the heads that are rotated.
    pub(super) fn rotates(&self) -> Option<(usize, usize)> {
        match self {
            MixerConfig::None => None,
            MixerConfig::Attention(config) => Some((config.rope?, config.head_dim_k)),
        }
    }

    /// Operations that a team of workers does for a token, each with a hand-over: lists of products, and what is as much
    /// work as they are.
    pub(super) fn operations(&self) -> usize {
        match self {
            MixerConfig::None => 0,
            MixerConfig::Attention(_) => AttentionConfig::OPERATIONS,
        }
    }

    /// Multiplications of f32 numbers beside those of matrices, for a token that sees `depth` positions.
    pub fn multiplications(&self, depth: f64) -> f64 {
        match self {
            MixerConfig::None => 0.0,
            MixerConfig::Attention(config) => config.multiplications(depth),
        }
    }

    /// Its configuration where it is attention.
    pub fn attention(&self) -> Option<&AttentionConfig> {
        match self {
            MixerConfig::Attention(config) => Some(config),
            MixerConfig::None => None,
        }
    }
}

/// A layer's mixer.
#[derive(Debug)]
pub(crate) enum Mixer {
    None,
    Attention(attention::Attention),
}

impl Mixer {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, i: usize) -> Result<Self> {
        match &config.layers[i].mixer {
            MixerConfig::None => Ok(Mixer::None),
            MixerConfig::Attention(own) => {
                attention::Attention::bind(binder, config, own, i).map(Mixer::Attention)
            }
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Mixer::None => Vec::new(),
            Mixer::Attention(attention) => attention.linears(),
        }
    }

    /// Whether there is one.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Mixer::None)
    }

    /// `out` = what it makes of `rows` of the pass. `x` are all rows of the normed residual stream; the cache is given what it
    /// keeps of all of them.
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
}

impl MixerBuffers {
    pub(super) fn make(
        config: &Config,
        sizes: &Sizes,
        workers: usize,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let attention = config.layers.iter().filter_map(|layer| layer.mixer.attention());
        Ok(MixerBuffers {
            attention: attention::AttentionBuffers::make(attention, sizes, workers, buffers)?,
        })
    }
}
