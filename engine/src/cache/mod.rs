//! The cache: what layers keep of the positions before. Keys and values lie in pages of 64 positions, which are made once
//! and handed out to sequences.
//!
//! A page is one attention block of one (layer, kv head): keys d-major (`k[d][64]`), values position-major (`v[64][d]`);
//! q8_0 keys keep 4 consecutive d of a position together (`k[d / 4][64][4]`). Layers that see the same window share one
//! table of pages per sequence (a *group*); pages that no window reaches any more go back to the pool.
//!
//! [`numbers`] is how a vector is stored, [`pages`] the memory and what is free of it, [`sequence`] who holds which page.
//! What a layer keeps is its mixer's choice, stated as a [`CacheKind`]; the cache knows nothing of models.

mod numbers;
mod pages;
mod sequence;

pub use numbers::CacheType;
pub(crate) use numbers::{Store, Stored};
pub(crate) use pages::KvCache;
pub use sequence::Sequence;

use crate::Result;
use crate::memory::Buffers;
use pages::Group;

/// The planned buffers that hold keys and values; the others are lists.
pub(crate) const HOLD_NUMBERS: [&str; 2] = [KEYS, VALUES];
const KEYS: &str = "keys";
const VALUES: &str = "values";

/// What a layer keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheKind {
    /// Keys and values of every position that its window reaches.
    Kv(KvShape),
}

/// Keys and values of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    /// Key and value heads.
    pub(crate) n_heads: usize,
    pub(crate) dim_k: usize,
    pub(crate) dim_v: usize,
    /// A position sees itself and the `window - 1` before it; `None` for all.
    pub(crate) window: Option<usize>,
}

/// What a cache is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Positions per sequence.
    pub(crate) n_ctx: usize,
    /// Rows of the largest pass.
    pub(crate) n_batch: usize,
    /// Sequences at a time.
    pub(crate) n_sequences: usize,
    /// Format of keys.
    pub(crate) type_k: CacheType,
    /// Format of values.
    pub(crate) type_v: CacheType,
}

/// What one layer keeps.
#[derive(Debug)]
pub(crate) enum LayerCache {
    Kv(KvCache),
}

/// The cache of a context, for all layers.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    groups: Vec<Group>,
}

impl Cache {
    /// For layers of these kinds.
    pub(crate) fn make(
        kinds: impl Iterator<Item = CacheKind>,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let (mut layers, mut groups) = (Vec::new(), Vec::<(Option<usize>, usize)>::new());
        for kind in kinds {
            layers.push(match kind {
                CacheKind::Kv(shape) => {
                    let found = groups.iter().position(|(window, _)| *window == shape.window);
                    let group = found.unwrap_or(groups.len());
                    if found.is_none() {
                        groups.push((shape.window, Group::pages(shape.window, sizes)?));
                    }
                    let pages = groups[group].1;
                    LayerCache::Kv(KvCache::make(shape, (group, pages), sizes, buffers)?)
                }
            });
        }
        // After the pages, which are more: where there is no memory for them, nothing has been written to.
        let groups = groups
            .into_iter()
            .map(|(window, pages)| Group::make(window, pages, buffers))
            .collect::<Result<_>>()?;
        Ok(Cache { layers, groups })
    }

    /// An empty sequence.
    pub(crate) fn sequence(&self) -> Sequence {
        Sequence::new(&self.groups)
    }
}
