//! The cache of keys and values: pages of 64 positions, preallocated, handed out to sequences.
//!
//! A page is one attention block of one (layer, kv head): keys d-major (`k[d][64]`), values position-major (`v[64][d]`);
//! q8_0 keys keep 4 consecutive d of a position together (`k[d / 4][64][4]`).
//! Memory of a layer is `[head][page]`, so a head's pages lie together. Layers that see the same window share one page
//! table per sequence ("group"); pages that no window reaches any more go back to the pool.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::config::Config;
use crate::kernels::{BLOCK, Backend, KvBlock, KvData, MAX_HEAD_DIM, q8_page_len};
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
    /// int8 with a scale in half precision per 32 numbers of a position. Head dimensions must be multiples of 32.
    Q8_0,
}

impl CacheType {
    /// All types, with the names that the command line takes.
    pub const ALL: [(CacheType, &'static str); 3] = [
        (CacheType::F32, "f32"),
        (CacheType::F16, "f16"),
        (CacheType::Q8_0, "q8_0"),
    ];

    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }

    /// Bytes of a page of vectors of `dim`, which are the `what` of a model.
    fn page_bytes(self, dim: usize, what: &str) -> Result<usize> {
        match self {
            CacheType::F32 => Ok(BLOCK * dim * 4),
            CacheType::F16 => Ok(BLOCK * dim * 2),
            CacheType::Q8_0 if dim.is_multiple_of(32) => Ok(q8_page_len(dim)),
            CacheType::Q8_0 => Err(Error::InvalidInput {
                what: format!(
                    "{what} of {dim} numbers cannot be cached as q8_0, which has blocks of 32; use f16 or f32"
                ),
            }),
        }
    }
}

/// Cached numbers of one layer, keys or values.
#[derive(Debug)]
pub(crate) enum Store {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Q8(Vec<u8>),
}

impl Store {
    /// `pages` pages of vectors of `dim`.
    fn new(ty: CacheType, pages: usize, dim: usize) -> Result<Self> {
        const WHAT: &str = "the cache of keys and values (a shorter context needs less)";
        Ok(match ty {
            CacheType::F32 => Store::F32(memory::zero_rows(WHAT, pages, f32::page_len(dim))?),
            CacheType::F16 => Store::F16(memory::zero_rows(WHAT, pages, u16::page_len(dim))?),
            CacheType::Q8_0 => Store::Q8(memory::zero_rows(WHAT, pages, u8::page_len(dim))?),
        })
    }

    fn page(&self, page: usize, dim: usize) -> KvData<'_> {
        match self {
            Store::F32(v) => KvData::F32(&v[of::<f32>(page, dim)]),
            Store::F16(v) => KvData::F16(&v[of::<u16>(page, dim)]),
            Store::Q8(v) => KvData::Q8(&v[of::<u8>(page, dim)]),
        }
    }
}

/// Elements of a page.
fn of<T: Stored>(page: usize, dim: usize) -> Range<usize> {
    page * T::page_len(dim)..(page + 1) * T::page_len(dim)
}

/// An element of a page, and how a row of keys or values becomes some of them.
pub(crate) trait Stored: Copy + Send {
    /// Elements of a page of vectors of `dim`.
    fn page_len(dim: usize) -> usize {
        dim * BLOCK
    }

    /// Rounds a vector and puts it at `position` of a page. False if a number is not finite as stored, so that no reader
    /// of the cache meets one.
    fn put<const KEYS: bool>(
        backend: &dyn Backend,
        page: &mut [Self],
        position: usize,
        values: &[f32],
    ) -> bool;
}

/// Keys lie d-major, values position-major.
fn put_numbers<T: Copy, const KEYS: bool>(page: &mut [T], position: usize, values: &[T]) {
    if KEYS {
        for (row, value) in page.chunks_exact_mut(BLOCK).zip(values) {
            row[position] = *value;
        }
    } else {
        page[position * values.len()..(position + 1) * values.len()].copy_from_slice(values);
    }
}

impl Stored for f32 {
    fn put<const KEYS: bool>(_: &dyn Backend, page: &mut [f32], position: usize, values: &[f32]) -> bool {
        let finite = values.iter().all(|v| v.is_finite());
        if finite {
            put_numbers::<_, KEYS>(page, position, values);
        }
        finite
    }
}

impl Stored for u16 {
    fn put<const KEYS: bool>(
        backend: &dyn Backend,
        page: &mut [u16],
        position: usize,
        values: &[f32],
    ) -> bool {
        let mut halves = [0u16; MAX_HEAD_DIM];
        let halves = &mut halves[..values.len()];
        let finite = backend.to_halves(values, halves);
        if finite {
            put_numbers::<_, KEYS>(page, position, halves);
        }
        finite
    }
}

/// q8_0: the page's two parts are described at [`KvData::Q8`].
impl Stored for u8 {
    fn page_len(dim: usize) -> usize {
        q8_page_len(dim)
    }

    fn put<const KEYS: bool>(
        backend: &dyn Backend,
        page: &mut [u8],
        position: usize,
        values: &[f32],
    ) -> bool {
        const MOST: usize = MAX_HEAD_DIM / 32;
        let dim = values.len();
        let steps = dim / 32;
        let (mut q, mut d) = ([0i8; MAX_HEAD_DIM], [0.0f32; MOST]);
        let (mut sums, mut halves) = ([0i16; 2 * MOST], [0u16; MOST]);
        let (q, d, halves) = (&mut q[..dim], &mut d[..steps], &mut halves[..steps]);
        if !backend.quantize(32, values, q, d, &mut sums[..2 * steps]) || !backend.to_halves(d, halves) {
            return false;
        }
        let (quants, scales) = page.split_at_mut(BLOCK * dim);
        let (quads, scales) = (quants.as_chunks_mut::<4>().0, scales.as_chunks_mut::<2>().0);
        for (i, q) in q.as_chunks::<4>().0.iter().enumerate() {
            let slot = if KEYS {
                i * BLOCK + position
            } else {
                position * (dim / 4) + i
            };
            quads[slot] = q.map(|q| q as u8);
        }
        for (i, half) in halves.iter().enumerate() {
            let slot = if KEYS {
                i * BLOCK + position
            } else {
                position * steps + i
            };
            scales[slot] = half.to_le_bytes();
        }
        true
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
    /// Pages of one head.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// One page of a head, and the one that will be wanted after it.
    pub(crate) fn block(&self, head: usize, page: u32, next: Option<u32>) -> KvBlock<'_> {
        let place = |page: u32| head * self.pages + page as usize;
        KvBlock {
            k: self.k.page(place(page), self.dim_k),
            v: self.v.page(place(page), self.dim_v),
            dim_v: self.dim_v,
            next: next.map(|page| {
                let page = place(page);
                (self.k.page(page, self.dim_k), self.v.page(page, self.dim_v))
            }),
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
    let page = k.page_bytes(config.head_dim_k, "keys")? + v.page_bytes(config.head_dim_v, "values")?;
    let mut bytes = 0u64;
    for layer in &config.layers {
        let pages = groups
            .iter()
            .find(|(window, _)| *window == layer.window)
            .map_or(0, |(_, pages)| *pages) as u64;
        let page = page as u64 * layer.n_kv_heads as u64;
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
                let all = layer.n_kv_heads * pages;
                Ok(LayerCache {
                    group,
                    k: Store::new(k, all, dim_k)?,
                    v: Store::new(v, all, dim_v)?,
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

    /// The page of a block, if there is one yet.
    pub(crate) fn page_if_any(&self, group: usize, block: usize) -> Option<u32> {
        let table = &self.tables[group];
        table.pages.get(block.checked_sub(table.first)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::select;

    /// Number `d` of position `j` of a page of keys or values.
    fn read(page: &[u8], keys: bool, dim: usize, (j, d): (usize, usize)) -> f32 {
        let (quant, scale) = if keys {
            ((d / 4 * BLOCK + j) * 4 + d % 4, d / 32 * BLOCK + j)
        } else {
            (j * dim + d, j * (dim / 32) + d / 32)
        };
        let at = BLOCK * dim + 2 * scale;
        half::f16::from_le_bytes([page[at], page[at + 1]]).to_f32() * f32::from(page[quant] as i8)
    }

    fn put(keys: bool, page: &mut [u8], position: usize, values: &[f32]) -> bool {
        let backend = select::choose(Some("scalar")).unwrap();
        if keys {
            u8::put::<true>(backend, page, position, values)
        } else {
            u8::put::<false>(backend, page, position, values)
        }
    }

    #[test]
    fn q8_0_keeps_numbers_to_half_a_step() {
        let dim = 96;
        for keys in [true, false] {
            let mut page = vec![0u8; u8::page_len(dim)];
            let value = |j: usize, d: usize| ((j * 31 + d * 7) % 101) as f32 - 50.0;
            for j in 0..BLOCK {
                let values: Vec<f32> = (0..dim).map(|d| value(j, d)).collect();
                assert!(put(keys, &mut page, j, &values));
            }
            for j in 0..BLOCK {
                for d in 0..dim {
                    // Half a step, and what the scale loses in half precision.
                    let bound = 50.0 / 127.0 * 0.5 + 50.0 / 2048.0;
                    assert!((read(&page, keys, dim, (j, d)) - value(j, d)).abs() <= bound);
                }
            }
        }
    }

    #[test]
    fn q8_0_refuses_what_its_scale_cannot_hold() {
        let mut page = vec![0u8; u8::page_len(32)];
        let largest = 65504.0 * 127.0;
        for (value, finite) in [
            (largest, true),
            (-largest, true),
            // The scale would round to infinity.
            (65520.0 * 127.0, false),
            (f32::MAX, false),
            (f32::NAN, false),
            (f32::INFINITY, false),
            (1e-30, true),
        ] {
            let mut values = [0.5f32; 32];
            values[9] = value;
            assert_eq!(put(true, &mut page, 3, &values), finite, "{value}");
        }
    }
}
