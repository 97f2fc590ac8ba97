//! Mixers: the part of a layer that looks at other positions. One file each, with its configuration, its weights, what it
//! keeps in the cache, its buffers and its forward pass; here each has one line per question that the model asks.
//!
//! `attend` is how queries over the cache's pages are split between workers, for every mixer that has some.

mod attend;
mod attention;

pub use attention::AttentionConfig;

use std::ops::Range;

use super::config::Config;
use super::ops::Run;
use super::probe::Probe;
use super::weights::{Binder, Linear};
use crate::Result;
use crate::cache::{CacheKind, LayerCache, Sizes};
use crate::memory::Buffers;

/// What a mixer is, in numbers.
#[derive(Debug, Clone)]
pub enum MixerConfig {
    /// Softmax attention over keys and values of the positions before.
    Attention(AttentionConfig),
}

impl MixerConfig {
    /// What it keeps of the positions before.
    pub(crate) fn cache_kind(&self) -> CacheKind {
        match self {
            MixerConfig::Attention(config) => config.cache_kind(),
        }
    }

    /// The widest rows that its matrices multiply with, beside the residual stream's.
    pub(super) fn inner_width(&self) -> usize {
        match self {
            MixerConfig::Attention(config) => config.inner_width(),
        }
    }
}

/// A layer's mixer.
#[derive(Debug)]
pub(crate) enum Mixer {
    Attention(attention::Attention),
}

impl Mixer {
    /// The tensors of layer `i`.
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, i: usize) -> Result<Self> {
        match &config.layers[i].mixer {
            MixerConfig::Attention(own) => {
                attention::Attention::bind(binder, config, own, i).map(Mixer::Attention)
            }
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Mixer::Attention(attention) => attention.linears(),
        }
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
        let attention = config.layers.iter().map(|layer| match &layer.mixer {
            MixerConfig::Attention(config) => config,
        });
        Ok(MixerBuffers {
            attention: attention::AttentionBuffers::make(attention, sizes, workers, buffers)?,
        })
    }
}
