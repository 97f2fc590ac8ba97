//! Pages: the memory of each layer that keeps keys and values, the groups of layers that hand out pages together, and how
//! many pages a group needs.

use super::numbers::Store;
use super::pool::PagePool;
use super::{KEYS, KvShape, Pool, Sizes, VALUES};
use crate::kernels::{BLOCK, KvBlock};
use crate::memory::Buffers;
use crate::team::Team;
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

    /// Has each head's memory written to by workers of the node that will read it: who writes to a page first places it.
    pub(super) fn place(&mut self, team: &Team) -> Result<()> {
        const PAGE: usize = 4096;
        for store in [&mut self.k, &mut self.v] {
            let bytes = store.bytes_mut();
            let head = bytes.len() / self.shape.n_heads;
            team.rows(bytes, head, 1, |_, part| {
                part.iter_mut().step_by(PAGE).for_each(|byte| *byte = 0);
            })?;
        }
        Ok(())
    }

    /// The memory of each head, with the node of those who read it.
    pub(super) fn placed(&self, team: &Team) -> impl Iterator<Item = (usize, &[u8])> {
        let shares = team.shares(self.shape.n_heads, 1);
        [&self.k, &self.v].into_iter().flat_map(move |store| {
            let bytes = store.bytes();
            let heads = bytes.chunks_exact(bytes.len() / self.shape.n_heads);
            heads
                .enumerate()
                .map(move |(head, bytes)| (shares.node_of(head), bytes))
        })
    }

    /// Pages of one head.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes of one page, of all heads.
    pub(super) fn page_bytes(shape: KvShape, sizes: &Sizes) -> u64 {
        let bytes =
            Store::page_bytes(sizes.type_k, shape.dim_k) + Store::page_bytes(sizes.type_v, shape.dim_v);
        (bytes as u64).saturating_mul(shape.n_heads as u64)
    }

    /// Makes page `to` equal to page `from`.
    pub(super) fn copy_page(&mut self, from: u32, to: u32) {
        let KvShape {
            n_heads,
            dim_k,
            dim_v,
            ..
        } = self.shape;
        for head in 0..n_heads {
            let place = |page: u32| head * self.pages + page as usize;
            self.k.copy_page(place(from), place(to), dim_k);
            self.v.copy_page(place(from), place(to), dim_v);
        }
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

/// What of a sequence a group of layers keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All of it.
    All,
    /// What a window of so many positions reaches.
    Window(usize),
    /// What there is in one pass.
    Pass,
}

/// Layers with the same reach: a sequence has one table of pages for all of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) reach: Reach,
    pub(super) pool: PagePool,
}

impl Group {
    /// Pages, all of them free.
    pub(super) fn make(reach: Reach, pages: u32, buffers: &mut Buffers<'_>) -> Result<Self> {
        Ok(Group {
            reach,
            pool: PagePool::make(pages, buffers)?,
        })
    }

    /// Positions that its window reaches, where it has one.
    pub(super) fn window(&self) -> Option<usize> {
        match self.reach {
            Reach::Window(window) => Some(window),
            Reach::All | Reach::Pass => None,
        }
    }

    /// Pages that sequences of the largest length take in a group, all together.
    pub(super) fn whole(reach: Reach, sizes: &Sizes) -> u64 {
        let whole = sizes.n_ctx.div_ceil(BLOCK);
        let per_sequence = match reach {
            Reach::All => whole,
            // The batch, in pages that the texts of it have for themselves.
            Reach::Pass => {
                let texts = sizes.n_sequences.min(sizes.n_batch);
                return (sizes.n_batch / BLOCK).saturating_add(texts) as u64;
            }
            // The window and the rollback behind the batch, the batch, and a page cut at either end.
            Reach::Window(window) => {
                let reach = window.min(sizes.n_ctx).saturating_add(ROLLBACK);
                whole.min(reach.saturating_add(sizes.n_batch).div_ceil(BLOCK) + 2)
            }
        };
        (per_sequence as u64).saturating_mul(sizes.n_sequences as u64)
    }

    /// Pages that `n` checkpoints may hold beside the sequence that they are of and that has gone on.
    fn of_checkpoints(reach: Reach, n: usize, sizes: &Sizes) -> u64 {
        let each = match reach {
            // The page that it ends in was copied.
            Reach::All => 1,
            Reach::Pass => 0,
            // What it sees and the sequence no longer does, which are pages of the same context; a page is cut at
            // either end.
            Reach::Window(window) => {
                let reach = window.saturating_add(ROLLBACK);
                reach.min(sizes.n_ctx.saturating_sub(reach)).div_ceil(BLOCK) + 2
            }
        };
        (each as u64).saturating_mul(n as u64)
    }

    /// Pages of a group that `sizes` ask for; `page_bytes` is what a page of every group takes, all together.
    pub(super) fn pages(reach: Reach, sizes: &Sizes, page_bytes: u64) -> Result<u32> {
        let whole = Self::whole(reach, sizes);
        let pages = match sizes.pool {
            _ if reach == Reach::Pass => whole,
            Pool::Whole => whole,
            Pool::WithCheckpoints(n) => whole.saturating_add(Self::of_checkpoints(reach, n, sizes)),
            Pool::Pages(pages) => whole.min(pages as u64),
            Pool::Bytes(bytes) => whole.min(bytes / page_bytes.max(1)),
        };
        if pages == 0 {
            return Err(Error::InvalidInput {
                what: format!("the cache needs {page_bytes} bytes for each {BLOCK} positions"),
            });
        }
        u32::try_from(pages).map_err(|_| Error::Limit {
            what: "number of cache pages".into(),
            found: pages,
            limit: u32::MAX.into(),
        })
    }
}
