//! Pages: the memory of each layer that keeps keys and values, the groups of layers that hand out pages together, and how
//! many pages a group needs.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::numbers::Store;
use super::{KEYS, KvShape, Sizes, VALUES};
use crate::kernels::{BLOCK, KvBlock};
use crate::memory::Buffers;
use crate::{Error, Result};

/// Positions behind a window that stay in the cache, so that a rollback of that many finds what it needs.
pub(super) const ROLLBACK: usize = BLOCK;

/// The keys and values of one layer: `[head][page]`, so that a head's pages lie together.
#[derive(Debug)]
pub(crate) struct KvCache {
    /// Index of the layer's group, in sequences' tables too.
    pub(crate) group: usize,
    pub(crate) k: Store,
    pub(crate) v: Store,
    shape: KvShape,
    pages: usize,
}

impl KvCache {
    /// Memory for one layer of a group.
    pub(super) fn make(
        shape: KvShape,
        (group, pages): (usize, usize),
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let all = shape.n_heads.saturating_mul(pages);
        Ok(KvCache {
            group,
            k: Store::make(sizes.type_k, all, shape.dim_k, KEYS, buffers)?,
            v: Store::make(sizes.type_v, all, shape.dim_v, VALUES, buffers)?,
            shape,
            pages,
        })
    }

    /// Pages of one head.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// One page of a head, and the one that will be wanted after it.
    pub(crate) fn block(&self, head: usize, page: u32, next: Option<u32>) -> KvBlock<'_> {
        let KvShape { dim_k, dim_v, .. } = self.shape;
        let place = |page: u32| head * self.pages + page as usize;
        KvBlock {
            k: self.k.page(place(page), dim_k),
            v: self.v.page(place(page), dim_v),
            dim_v,
            next: next.map(|page| {
                let page = place(page);
                (self.k.page(page, dim_k), self.v.page(page, dim_v))
            }),
        }
    }
}

/// Layers with the same window: a sequence has one table of pages for all of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) window: Option<usize>,
    pub(super) pages: usize,
    pub(super) free: Arc<ArrayQueue<u32>>,
}

impl Group {
    /// Pages, all of them free.
    pub(super) fn make(window: Option<usize>, pages: usize, buffers: &mut Buffers<'_>) -> Result<Self> {
        // The queue has a stamp beside each page, and no way to say that there is no memory for it.
        drop(buffers.room::<[usize; 2]>("lists of free pages", pages)?);
        let free = if buffers.only_counts() {
            ArrayQueue::new(1)
        } else {
            let free = ArrayQueue::new(pages);
            for page in 0..pages as u32 {
                // The queue holds as many as there are pages.
                let _ = free.push(page);
            }
            free
        };
        Ok(Group {
            window,
            pages,
            free: Arc::new(free),
        })
    }

    /// Pages of a group that `sizes` ask for.
    pub(super) fn pages(window: Option<usize>, sizes: &Sizes) -> Result<usize> {
        let whole = sizes.n_ctx.div_ceil(BLOCK);
        let per_sequence = match window {
            None => whole,
            // The window and the rollback behind the batch, the batch, and a page cut at either end.
            Some(window) => {
                let reach = window.min(sizes.n_ctx).saturating_add(ROLLBACK);
                whole.min(reach.saturating_add(sizes.n_batch).div_ceil(BLOCK) + 2)
            }
        };
        per_sequence
            .checked_mul(sizes.n_sequences)
            .filter(|n| u32::try_from(*n).is_ok())
            .ok_or_else(|| Error::Limit {
                what: "number of cache pages".into(),
                found: (per_sequence as u64).saturating_mul(sizes.n_sequences as u64),
                limit: u32::MAX.into(),
            })
    }
}
