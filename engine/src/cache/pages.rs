//! Pages: the memory of each layer that keeps keys and values, the groups of layers that hand out pages together, and how
//! many pages a group needs.

use std::ops::Range;

use super::numbers::Store;
use super::pool::PagePool;
use super::{KEYS, KvShape, Pool, Sizes, VALUES};
use crate::kernels::{BLOCK, KvBlock, SPAN};
use crate::memory::Buffers;
use crate::team::{Team, section_of, section_start};
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

    /// Has all memory written to by workers of the nodes that will read it: who writes to a page first places it. Of a
    /// head whose memory is divided between nodes each has some of the pages.
    pub(super) fn place(&mut self, team: &Team) -> Result<()> {
        const PAGE: usize = 4096;
        let (n_heads, pages) = (self.shape.n_heads, self.pages);
        let heads = team.head_shares(n_heads);
        let shares = heads.of_items(|section| section_start(section, pages, heads.sections()));
        for store in [&mut self.k, &mut self.v] {
            let bytes = store.bytes_mut();
            let page = bytes.len() / n_heads / pages;
            team.rows_placed(&shares, bytes, page, 1, |_, part| {
                part.iter_mut().step_by(PAGE).for_each(|byte| *byte = 0);
            })?;
        }
        Ok(())
    }

    /// The sections of all heads: of the pages of one head after the other those of a section, with the node of those
    /// who read them.
    fn sections(&self, team: &Team) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let (n_heads, pages) = (self.shape.n_heads, self.pages);
        let heads = team.head_shares(n_heads);
        let of = move |head: usize, section: usize| {
            let start = |section| head * pages + section_start(section, pages, heads.sections());
            (heads.node_of(head, section), start(section)..start(section + 1))
        };
        (0..n_heads).flat_map(move |head| (0..heads.sections()).map(move |section| of(head, section)))
    }

    /// The memory of each section of each head, with the node of those who read it.
    pub(super) fn placed(&self, team: &Team) -> impl Iterator<Item = (usize, &[u8])> {
        let all = self.shape.n_heads * self.pages;
        [&self.k, &self.v].into_iter().flat_map(move |store| {
            let bytes = store.bytes();
            let page = bytes.len() / all;
            self.sections(team)
                .map(move |(node, pages)| (node, &bytes[pages.start * page..pages.end * page]))
        })
    }

    /// The section of its head's memory, of so many, that a page lies in.
    pub(crate) fn section(&self, page: u32, sections: usize) -> usize {
        section_of(page as usize, self.pages, sections)
    }

    /// The bytes of the same, which need not be there yet.
    pub(super) fn planned(&self, team: &Team) -> impl Iterator<Item = (usize, u64)> {
        let page = self.k.own_page_bytes(self.shape.dim_k) + self.v.own_page_bytes(self.shape.dim_v);
        let bytes = move |pages: Range<usize>| (page as u64).saturating_mul(pages.len() as u64);
        self.sections(team).map(move |(node, pages)| (node, bytes(pages)))
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

impl Reach {
    /// Pages that a sequence as long as the context takes at a time; of what is there in one pass, those of all texts
    /// in it.
    fn whole(self, sizes: &Sizes) -> u64 {
        let whole = sizes.n_ctx.div_ceil(BLOCK);
        let pages = match self {
            Reach::All => whole,
            // The batch, in pages that the texts of it have for themselves.
            Reach::Pass => (sizes.n_batch / BLOCK).saturating_add(sizes.n_sequences.min(sizes.n_batch)),
            // The window and the rollback behind the batch, the batch, and a page cut at either end.
            Reach::Window(window) => {
                let reach = window.min(sizes.n_ctx).saturating_add(ROLLBACK);
                whole.min(reach.saturating_add(sizes.n_batch).div_ceil(BLOCK) + 2)
            }
        };
        pages as u64
    }
}

/// Layers with the same reach, before there is memory for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedGroup {
    pub(super) reach: Reach,
    /// Bytes of a page of each of its layers, all together; of what lasts no longer than a pass none.
    pub(super) page_bytes: u64,
    /// Pages that one sequence takes at most.
    pub(super) whole: u64,
}

impl PlannedGroup {
    /// Of layers that have no pages yet.
    pub(super) fn new(reach: Reach, sizes: &Sizes) -> Self {
        PlannedGroup {
            reach,
            page_bytes: 0,
            whole: reach.whole(sizes),
        }
    }

    /// Pages that `n` checkpoints may hold beside the sequence that they are of and that has gone on.
    fn of_checkpoints(&self, n: usize, sizes: &Sizes) -> u64 {
        let each = match self.reach {
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

    /// Pages for what `sizes` ask for; with a pool of bytes, as many as [`in_bytes`] has found.
    ///
    /// # Errors
    /// None at all, or more than can be numbered.
    pub(super) fn pages(&self, sizes: &Sizes, (sequences, more): (u64, u64)) -> Result<u32> {
        let all = self.whole.saturating_mul(sizes.n_sequences as u64);
        let pages = match sizes.pool {
            _ if self.reach == Reach::Pass => self.whole,
            Pool::Whole => all,
            Pool::WithCheckpoints(n) => all.saturating_add(self.of_checkpoints(n, sizes)),
            Pool::Pages(pages) => pages as u64,
            Pool::UpTo(pages) => all.min(pages as u64),
            Pool::Bytes(_) => {
                let held = sequences.saturating_mul(self.whole);
                held.saturating_add(more.min(self.whole))
            }
        };
        if pages == 0 {
            return Err(Error::InvalidInput {
                what: "the cache must have at least 1 page".into(),
            });
        }
        u32::try_from(pages).map_err(|_| Error::Limit {
            what: "number of cache pages".into(),
            found: pages,
            limit: u32::MAX.into(),
        })
    }
}

/// How many whole sequences so many bytes hold, and how many pages in each group a further one can have, as far as it
/// needs them: with a sliding window a sequence has few pages, however long it is.
///
/// # Errors
/// Not a page of each group.
pub(super) fn in_bytes(bytes: u64, groups: &[PlannedGroup]) -> Result<(u64, u64)> {
    let taken = |pages: u64| {
        groups.iter().fold(0u64, |sum, group| {
            let of_group = group.page_bytes.saturating_mul(pages.min(group.whole));
            sum.saturating_add(of_group)
        })
    };
    let least = taken(1);
    if least > bytes {
        return Err(Error::InvalidInput {
            what: format!("the cache needs {least} bytes for each {BLOCK} positions; it was given {bytes}"),
        });
    }
    let longest = groups.iter().map(|group| group.whole).max().unwrap_or(0);
    let one = taken(longest).max(1);
    let (sequences, rest) = (bytes / one, bytes % one);
    let (mut fit, mut too_many) = (0, longest);
    while too_many - fit > 1 {
        let pages = fit + (too_many - fit) / 2;
        match taken(pages) <= rest {
            true => fit = pages,
            false => too_many = pages,
        }
    }
    Ok((sequences, fit))
}

/// Layers with the same reach: a sequence has one table of pages for all of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) reach: Reach,
    /// Pages that one sequence takes at most.
    pub(super) whole: usize,
    pub(super) pool: PagePool,
}

impl Group {
    /// Pages, all of them free.
    pub(super) fn make(planned: &PlannedGroup, pages: u32, buffers: &mut Buffers<'_>) -> Result<Self> {
        Ok(Group {
            reach: planned.reach,
            whole: planned.whole as usize,
            pool: PagePool::make(pages, buffers)?,
        })
    }

    /// Pages that a sequence of `held` tokens takes, at most, to become one of `wanted`.
    pub(super) fn growth(&self, held: usize, wanted: usize) -> usize {
        wanted
            .div_ceil(BLOCK)
            .saturating_sub(held / BLOCK)
            .min(self.whole)
    }

    /// The section that the page of a block of a sequence is to be of: that of the page before it, and with each span
    /// of blocks the next one, so that all nodes have a part of a long sequence and a span's pages lie together.
    /// Sequences begin in turn, by their slots.
    pub(super) fn section(&self, slot: usize, block: usize, before: Option<u32>) -> usize {
        let sections = self.pool.sections();
        match before {
            _ if sections == 1 => 0,
            None => (slot + block / SPAN) % sections,
            Some(page) => (self.pool.section(page) + usize::from(block.is_multiple_of(SPAN))) % sections,
        }
    }

    /// Positions that its window reaches, where it has one.
    pub(super) fn window(&self) -> Option<usize> {
        match self.reach {
            Reach::Window(window) => Some(window),
            Reach::All | Reach::Pass => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{CacheKind, CacheType, planned_groups};

    const N_CTX: usize = 8192;

    fn sizes(n_sequences: usize, pool: Pool) -> Sizes {
        Sizes {
            n_ctx: N_CTX,
            n_batch: 512,
            n_sequences,
            pool,
            n_states: 2,
            type_k: CacheType::F16,
            type_v: CacheType::F16,
        }
    }

    /// Five layers with a window, then one without, as Gemma 3 has them.
    fn pattern() -> impl Iterator<Item = CacheKind> + Clone {
        (1..=12).map(|layer| {
            CacheKind::Kv(KvShape {
                n_heads: 1,
                dim_k: 64,
                dim_v: 64,
                window: (layer % 6 != 0).then_some(512),
            })
        })
    }

    /// Pages of both groups, the one with a window first; and the bytes that they take.
    fn pages(bytes: u64, n_sequences: usize) -> Result<(u32, u32, u64)> {
        let sizes = sizes(n_sequences, Pool::Bytes(bytes));
        let groups = planned_groups(pattern(), &sizes);
        let in_bytes = in_bytes(bytes, &groups)?;
        let [windows, all] = groups.as_slice() else {
            panic!("{groups:?}");
        };
        let [n, m] = [windows, all].map(|group| group.pages(&sizes, in_bytes).unwrap());
        let taken = u64::from(n) * windows.page_bytes + u64::from(m) * all.page_bytes;
        Ok((n, m, taken))
    }

    #[test]
    fn pages_are_those_of_each_group() {
        let pages = |n_sequences, pool| {
            let sizes = sizes(n_sequences, pool);
            let groups = planned_groups(pattern(), &sizes);
            let pages = groups.iter().map(|group| group.pages(&sizes, (0, 0)).unwrap());
            pages.collect::<Vec<_>>()
        };
        assert_eq!(pages(3, Pool::Whole), [3 * 19, 3 * 128]);
        assert_eq!(pages(1, Pool::Pages(500)), [500, 500]);
        assert_eq!(pages(3, Pool::UpTo(100)), [3 * 19, 100]);
        assert_eq!(pages(1, Pool::UpTo(500)), [19, 128]);
    }

    #[test]
    fn bytes_hold_whole_sequences() {
        // 128 positions of f16 in each of 64; of 12 layers, 10 have a window.
        let page = 64 * 128 * 2;
        // The window, the rollback and the batch are 17 pages, with two that are cut.
        let whole = (2 * 128 + 10 * 19) * page;
        assert_eq!(pages(whole, 8), Ok((19, 128, whole)));
        assert_eq!(pages(7 * whole, 8), Ok((7 * 19, 7 * 128, 7 * whole)));
        // What is left over is a shorter one: one of 7 pages needs as many of each group.
        let rest = 7 * 12 * page;
        assert_eq!(pages(3 * whole + rest, 8).unwrap().0, 3 * 19 + 7);
        assert_eq!(pages(3 * whole + rest, 8).unwrap().1, 3 * 128 + 7);
        // One that is longer than its windows reach has no more pages there.
        assert_eq!(pages(whole - 2 * page, 8), Ok((19, 127, whole - 2 * page)));
        // However few sequences there may be: the others' pages are for prefixes.
        assert_eq!(pages(7 * whole, 1), pages(7 * whole, 8));
        for bytes in (12 * page..5 * whole).step_by(page as usize / 3 * 7) {
            let (windows, all, taken) = pages(bytes, 8).unwrap();
            let fit = bytes / whole;
            assert!(taken <= bytes, "{bytes}");
            assert!(
                u64::from(windows) >= 19 * fit && u64::from(all) >= 128 * fit,
                "{bytes}"
            );
            // Nothing is left that another page of each could have.
            assert!(bytes - taken < 12 * page, "{bytes}: {taken}");
        }
        let error = pages(12 * page - 1, 8).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{} bytes", 12 * page)),
            "{error}"
        );
    }
}
