//! The cache of keys and values: pages of 64 positions, preallocated, handed out to sequences.
//!
//! A page is one attention block of one (layer, kv head): keys d-major (`k[d][64]`), values position-major (`v[64][d]`).
//! Memory of a layer is `[head][page]`, so a head's pages lie together. Layers that see the same window share one page
//! table per sequence ("group"); pages that no window reaches any more go back to the pool.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use half::f16;

use super::config::Config;
use crate::kernels::{BLOCK, KvBlock, KvData};
use crate::{Error, Result, memory};

/// Positions behind a window that stay in the cache, so that a rollback of that many finds what it needs.
const ROLLBACK: usize = BLOCK;

/// Number format of cached keys or values. They are rounded to it before any use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// Half precision: the default.
    #[default]
    F16,
}

impl CacheType {
    /// All types, with the names that the command line takes.
    pub const ALL: [(CacheType, &'static str); 2] = [(CacheType::F32, "f32"), (CacheType::F16, "f16")];

    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
        }
    }
}

/// Cached numbers of one layer, keys or values.
#[derive(Debug)]
pub(crate) enum Store {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

impl Store {
    fn new(ty: CacheType, len: usize) -> Result<Self> {
        const WHAT: &str = "the cache of keys and values (a shorter context needs less)";
        Ok(match ty {
            CacheType::F32 => Store::F32(memory::zeros(WHAT, len)?),
            CacheType::F16 => Store::F16(memory::zeros(WHAT, len)?),
        })
    }

    fn slice(&self, range: Range<usize>) -> KvData<'_> {
        match self {
            Store::F32(v) => KvData::F32(&v[range]),
            Store::F16(v) => KvData::F16(&v[range]),
        }
    }
}

/// A number as the cache stores it. Values that are not finite after rounding are an error, so that no reader of the
/// cache meets one.
pub(crate) trait Stored: Copy + Send {
    fn round(v: f32) -> Option<Self>;
}

impl Stored for f32 {
    fn round(v: f32) -> Option<Self> {
        v.is_finite().then_some(v)
    }
}

impl Stored for u16 {
    fn round(v: f32) -> Option<Self> {
        let v = f16::from_f32(v);
        v.is_finite().then_some(v.to_bits())
    }
}

/// Cache memory of one layer.
#[derive(Debug)]
pub(crate) struct LayerCache {
    pub(crate) group: usize,
    pub(crate) k: Store,
    pub(crate) v: Store,
    dim_k: usize,
    dim_v: usize,
    pages: usize,
}

impl LayerCache {
    /// Numbers of one head in `k` and in `v`: what [`Self::k`] and [`Self::v`] are rows of.
    pub(crate) fn head_len(&self) -> (usize, usize) {
        (self.pages * self.dim_k * BLOCK, self.pages * self.dim_v * BLOCK)
    }

    /// One page of a head.
    pub(crate) fn block(&self, head: usize, page: u32) -> KvBlock<'_> {
        let page = head * self.pages + page as usize;
        let (k, v) = (self.dim_k * BLOCK, self.dim_v * BLOCK);
        KvBlock {
            k: self.k.slice(page * k..(page + 1) * k),
            v: self.v.slice(page * v..(page + 1) * v),
            dim_v: self.dim_v,
        }
    }
}

/// Pages of all layers, preallocated.
#[derive(Debug)]
pub(crate) struct CachePool {
    pub(crate) layers: Vec<LayerCache>,
    groups: Vec<Group>,
}

/// Layers with the same window.
#[derive(Debug)]
struct Group {
    window: Option<usize>,
    pages: usize,
    free: Arc<ArrayQueue<u32>>,
}

/// What a cache of some size takes, before it is made.
fn plan(
    config: &Config,
    n_ctx: usize,
    n_batch: usize,
    n_sequences: usize,
) -> Result<Vec<(Option<usize>, usize)>> {
    let mut groups: Vec<(Option<usize>, usize)> = Vec::new();
    for layer in &config.layers {
        if groups.iter().any(|(window, _)| *window == layer.window) {
            continue;
        }
        let whole = n_ctx.div_ceil(BLOCK);
        let per_sequence = match layer.window {
            None => whole,
            // The window and the rollback behind the batch, the batch, and a page cut at either end.
            Some(window) => {
                let reach = window.min(n_ctx).saturating_add(ROLLBACK).saturating_add(n_batch);
                whole.min(reach.div_ceil(BLOCK) + 2)
            }
        };
        match per_sequence
            .checked_mul(n_sequences)
            .filter(|n| u32::try_from(*n).is_ok())
        {
            Some(pages) => groups.push((layer.window, pages)),
            None => {
                let found = (per_sequence as u64).saturating_mul(n_sequences as u64);
                return Err(Error::Limit {
                    what: "number of cache pages".into(),
                    found,
                    limit: u32::MAX.into(),
                });
            }
        }
    }
    Ok(groups)
}

/// Bytes that the cache of a context takes; saturates.
pub fn cache_bytes(
    config: &Config,
    n_ctx: usize,
    n_batch: usize,
    n_sequences: usize,
    (k, v): (CacheType, CacheType),
) -> Result<u64> {
    let groups = plan(config, n_ctx, n_batch, n_sequences)?;
    let mut bytes = 0u64;
    for layer in &config.layers {
        let pages = groups
            .iter()
            .find(|(window, _)| *window == layer.window)
            .map_or(0, |(_, pages)| *pages) as u64;
        let position = config.head_dim_k * k.bytes() + config.head_dim_v * v.bytes();
        let page = (BLOCK * position) as u64 * layer.n_kv_heads as u64;
        bytes = bytes.saturating_add(pages.saturating_mul(page));
    }
    Ok(bytes)
}

impl CachePool {
    /// Pages for `n_sequences` sequences of `n_ctx` positions, fed at most `n_batch` at a time.
    pub(crate) fn new(
        config: &Config,
        n_ctx: usize,
        n_batch: usize,
        n_sequences: usize,
        (k, v): (CacheType, CacheType),
    ) -> Result<Self> {
        let limit = isize::MAX as u64;
        let bytes = cache_bytes(config, n_ctx, n_batch, n_sequences, (k, v))?;
        if bytes > limit {
            return Err(Error::Limit {
                what: "bytes of the key and value cache".into(),
                found: bytes,
                limit,
            });
        }
        let plan = plan(config, n_ctx, n_batch, n_sequences)?;
        let layers = config
            .layers
            .iter()
            .map(|layer| {
                let group = plan.iter().position(|g| g.0 == layer.window).unwrap_or(0);
                let (dim_k, dim_v, pages) = (config.head_dim_k, config.head_dim_v, plan[group].1);
                let numbers = layer.n_kv_heads * pages * BLOCK;
                Ok(LayerCache {
                    group,
                    k: Store::new(k, numbers * dim_k)?,
                    v: Store::new(v, numbers * dim_v)?,
                    dim_k,
                    dim_v,
                    pages,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let groups = plan
            .into_iter()
            .map(|(window, pages)| {
                // The queue has a stamp beside each page, and no way to say that there is no memory for it.
                drop(memory::room::<[usize; 2]>("the list of cache pages", pages)?);
                let free = ArrayQueue::new(pages);
                for page in 0..pages as u32 {
                    // The queue holds as many as there are pages.
                    let _ = free.push(page);
                }
                Ok(Group {
                    window,
                    pages,
                    free: Arc::new(free),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(CachePool { layers, groups })
    }

    /// An empty sequence.
    pub(crate) fn sequence(&self) -> Sequence {
        let tables = self
            .groups
            .iter()
            .map(|group| Table {
                window: group.window,
                free: Arc::clone(&group.free),
                first: 0,
                pages: VecDeque::with_capacity(group.pages),
            })
            .collect();
        Sequence { len: 0, tables }
    }
}

/// One stream of tokens in a context: its length and its pages. Dropping it gives the pages back.
#[derive(Debug)]
pub struct Sequence {
    len: usize,
    tables: Vec<Table>,
}

/// Pages of one group, by block.
#[derive(Debug)]
struct Table {
    window: Option<usize>,
    free: Arc<ArrayQueue<u32>>,
    /// Block that `pages[0]` holds.
    first: usize,
    pages: VecDeque<u32>,
}

impl Table {
    fn release(&mut self, page: Option<u32>) {
        if let Some(page) = page {
            // Cannot be full: the queue has room for every page there is.
            let _ = self.free.push(page);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        while let Some(page) = self.pages.pop_back() {
            self.release(Some(page));
        }
    }
}

impl Sequence {
    /// Tokens that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the tokens from `len` on.
    ///
    /// # Errors
    /// If `len` is beyond the sequence, or so far back that a sliding window's pages are gone; the sequence is unchanged
    /// then, and a caller evaluates anew.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::InvalidInput {
                what: format!("a sequence of {} cannot be cut to {len}", self.len),
            });
        }
        for table in &self.tables {
            let oldest = table.window.map_or(0, |window| (len + 1).saturating_sub(window));
            if len > 0 && table.first * BLOCK > oldest {
                return Err(Error::InvalidInput {
                    what: format!(
                        "a sequence of {} cannot be cut to {len}: the sliding window has moved past position {oldest}",
                        self.len
                    ),
                });
            }
        }
        for table in &mut self.tables {
            while table.first + table.pages.len() > len.div_ceil(BLOCK) && !table.pages.is_empty() {
                let page = table.pages.pop_back();
                table.release(page);
            }
            if len == 0 {
                table.first = 0;
            }
        }
        self.len = len;
        Ok(())
    }

    /// Makes room for `n` more positions. Either all groups have it or nothing changes but what windows gave back.
    pub(crate) fn reserve(&mut self, n: usize) -> Result<()> {
        for table in &mut self.tables {
            if let Some(window) = table.window {
                let oldest = (self.len + 1).saturating_sub(window.saturating_add(ROLLBACK)) / BLOCK;
                while table.first < oldest && !table.pages.is_empty() {
                    let page = table.pages.pop_front();
                    table.release(page);
                    table.first += 1;
                }
            }
            while (table.first + table.pages.len()) * BLOCK < self.len + n {
                match table.free.pop() {
                    Some(page) => table.pages.push_back(page),
                    None => {
                        let capacity = (table.first + table.pages.len()) * BLOCK;
                        return Err(Error::ContextFull {
                            needed: self.len + n,
                            capacity,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// `n` positions were written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// The page of a block; the block is one that the window reaches.
    pub(crate) fn page(&self, group: usize, block: usize) -> u32 {
        let table = &self.tables[group];
        table.pages[block - table.first]
    }
}
