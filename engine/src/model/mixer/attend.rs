//! Attention over the cache's pages: keys and values of a pass rounded and stored, then its queries over them.
//!
//! Work is split over (tile of rows, kv head): see [`crate::kernels::Queries`]. A pass of few rows over a long context is
//! split over spans of blocks as well, whose softmax states are joined afterwards, left to right. Either way each query
//! meets the same operations in the same order: blocks into spans, spans into one.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::attention::AttentionConfig;
use crate::Result;
use crate::batch::{Mask, Row};
use crate::cache::{CacheType, KvCache, Sizes, Store, Stored};
use crate::kernels::{BLOCK, Partials, QuantizedQueries, Queries, SPAN, attend_scratch};
use crate::memory::Buffers;
use crate::model::forward::Pass;
use crate::model::ops::Ops;

/// Queries of a tile, where one token has not more: enough that widening a block's numbers is little beside their use.
const TILE: usize = 96;

/// Rows of a pass whose spans may be split between workers.
const SPLIT_ROWS: usize = 8;

/// Numbers to store below which a hand-over to other workers costs more than it saves.
const SMALL_STORE: usize = 1 << 14;

/// Positions per span.
const SPAN_LEN: usize = BLOCK * SPAN;

/// Softmax states of some queries, owned.
#[derive(Debug)]
struct States {
    m: Vec<f32>,
    l: Vec<f32>,
    o: Vec<f32>,
}

impl States {
    fn make(queries: usize, dim_v: usize, buffers: &mut Buffers<'_>) -> Result<Self> {
        const NAME: &str = "attention's softmax states";
        Ok(States {
            m: buffers.rows(NAME, queries, 1)?,
            l: buffers.rows(NAME, queries, 1)?,
            o: buffers.rows(NAME, queries, dim_v)?,
        })
    }

    fn part(&mut self, queries: usize, dim_v: usize) -> Partials<'_> {
        Partials {
            m: &mut self.m[..queries],
            l: &mut self.l[..queries],
            o: &mut self.o[..queries * dim_v],
        }
    }
}

/// What a worker needs for one tile.
#[derive(Debug)]
struct Scratch {
    span: States,
    total: States,
    block: BlockScratch,
}

/// What a worker needs for a tile against one block.
#[derive(Debug)]
struct BlockScratch {
    wide: Vec<f32>,
    visible: Vec<Range<usize>>,
    /// Quantized queries: see [`QuantizedQueries`]. Empty where keys are floats.
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i16>,
}

/// What attention computes in.
#[derive(Debug)]
pub(super) struct AttendBuffers {
    /// One per worker; never contended.
    workers: Vec<Mutex<Scratch>>,
    /// States of spans that were split between workers: per kv head, span, row and query of the group.
    spans: States,
}

/// Rows of a tile.
fn tile_rows(layer: &AttentionConfig) -> usize {
    (TILE / layer.group()).max(1)
}

impl AttendBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a AttentionConfig>,
        sizes: &Sizes,
        workers: usize,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let (m, n_ctx) = (sizes.n_batch, sizes.n_ctx);
        let (mut queries, mut rows, mut split, mut split_queries) = (0, 0, 0, 0);
        let (mut dim_k, mut dim_v) = (0, 0);
        for layer in layers {
            let tile = tile_rows(layer).min(m);
            queries = queries.max(tile * layer.group());
            rows = rows.max(tile.max(SPLIT_ROWS));
            split_queries = split_queries.max(SPLIT_ROWS.min(m) * layer.group());
            // Spans that a row can see, cut at either end.
            let reach = layer
                .window
                .map_or(n_ctx, |window| window.saturating_add(SPLIT_ROWS).min(n_ctx));
            split = split.max((reach / SPAN_LEN + 2).saturating_mul(SPLIT_ROWS.min(m) * layer.n_heads));
            (dim_k, dim_v) = (dim_k.max(layer.head_dim_k), dim_v.max(layer.head_dim_v));
        }
        let int8 = if sizes.type_k == CacheType::Q8_0 {
            queries.max(split_queries)
        } else {
            0
        };
        let mut scratch = |_| {
            Ok(Mutex::new(Scratch {
                span: States::make(queries, dim_v, buffers)?,
                total: States::make(queries, dim_v, buffers)?,
                block: BlockScratch {
                    wide: buffers.rows("attention's blocks", 1, attend_scratch(dim_k, dim_v))?,
                    visible: buffers.room("attention's visible positions", rows)?,
                    q: buffers.rows(INT8, int8, dim_k)?,
                    d: buffers.rows(INT8, int8, dim_k / 32)?,
                    sums: buffers.rows(INT8, int8, dim_k / 16)?,
                },
            }))
        };
        const INT8: &str = "attention's int8 queries";
        Ok(AttendBuffers {
            workers: (0..workers).map(&mut scratch).collect::<Result<_>>()?,
            spans: States::make(split, dim_v, buffers)?,
        })
    }
}

/// One layer's attention in a pass.
pub(super) struct Attend<'a, 'b> {
    pub(super) ops: &'a Ops<'a>,
    pub(super) pass: &'a Pass<'a, 'b>,
    pub(super) config: &'a AttentionConfig,
}

impl Attend<'_, '_> {
    /// Rounds keys and values to the cache's types and writes them to their pages.
    pub(super) fn store(&self, cache: &mut KvCache, k: &[f32], v: &[f32]) -> Result<()> {
        let (group, pages) = (cache.group, cache.pages());
        let finite = match &mut cache.k {
            Store::F32(store) => self.store_part::<f32, true>(group, store, pages, k)?,
            Store::F16(store) => self.store_part::<u16, true>(group, store, pages, k)?,
            Store::Q8(store) => self.store_part::<u8, true>(group, store, pages, k)?,
        } & match &mut cache.v {
            Store::F32(store) => self.store_part::<f32, false>(group, store, pages, v)?,
            Store::F16(store) => self.store_part::<u16, false>(group, store, pages, v)?,
            Store::Q8(store) => self.store_part::<u8, false>(group, store, pages, v)?,
        };
        self.ops.check(finite, "kv_cache")
    }

    /// Keys (`KEYS`) lie d-major in a page, values position-major. False if a number is not finite as stored.
    fn store_part<T: Stored, const KEYS: bool>(
        &self,
        group: usize,
        store: &mut [T],
        pages: usize,
        values: &[f32],
    ) -> Result<bool> {
        let dim = if KEYS {
            self.config.head_dim_k
        } else {
            self.config.head_dim_v
        };
        let page_len = T::page_len(dim);
        let head_len = pages * page_len;
        let n_heads = self.config.n_kv_heads;
        let finite = AtomicBool::new(true);
        let grain = if values.len() < SMALL_STORE { n_heads } else { 1 };
        self.ops.team.rows(store, head_len, grain, |heads, part| {
            for (head, pages) in heads.zip(part.chunks_exact_mut(head_len)) {
                for (i, row) in self.pass.rows.iter().enumerate() {
                    let page = self.pass.sequences[row.sequence].page(group, row.position / BLOCK) as usize;
                    let page = &mut pages[page * page_len..(page + 1) * page_len];
                    let start = (i * n_heads + head) * dim;
                    let values = &values[start..start + dim];
                    if !T::put::<KEYS>(self.ops.backend, page, row.position % BLOCK, values) {
                        finite.store(false, Ordering::Relaxed);
                    }
                }
            }
        })?;
        Ok(finite.into_inner())
    }

    /// Attention of all rows: `out` has the heads' values side by side.
    pub(super) fn attend(
        &self,
        cache: &KvCache,
        q: &[f32],
        out: &mut [f32],
        buffers: &mut AttendBuffers,
    ) -> Result<()> {
        let layer = self.config;
        let (m, team) = (self.pass.rows.len(), self.ops.team);
        let (group, tile) = (layer.group(), tile_rows(layer));
        let columns = group * self.config.head_dim_v;
        let spans = self.spans(0..m);
        let finite = AtomicBool::new(true);
        let units = m.div_ceil(tile) * layer.n_kv_heads;
        // Rows of several sequences behind a window may lie further apart than there is room for.
        let room = buffers.spans.l.len() / (layer.n_heads * m);
        let split = m <= SPLIT_ROWS && (2..=room).contains(&spans.len());
        if split && team.workers() > 1 && units < 8 * team.workers() {
            return self.attend_split(cache, q, out, buffers, spans);
        }
        team.cells(
            out,
            layer.n_heads * self.config.head_dim_v,
            (tile, columns),
            |worker, rows, mut out| {
                let scratch = &mut *buffers.workers[worker]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let queries = rows.len() * group;
                let mut total = scratch.total.part(queries, self.config.head_dim_v);
                let mut span = scratch.span.part(queries, self.config.head_dim_v);
                total.clear();
                let kv_head = out.columns().start / columns;
                for s in self.spans(rows.clone()) {
                    span.clear();
                    if !self.span(
                        cache,
                        q,
                        rows.clone(),
                        (kv_head, s),
                        &mut span,
                        &mut scratch.block,
                    ) {
                        finite.store(false, Ordering::Relaxed);
                    }
                    self.ops.backend.merge(&mut total, &span);
                }
                for row in 0..rows.len() {
                    finish(&total.part(row * group..(row + 1) * group), out.row(row));
                }
            },
        )?;
        self.ops.check(finite.into_inner(), "attention")
    }

    /// The same with the spans split between workers.
    fn attend_split(
        &self,
        cache: &KvCache,
        q: &[f32],
        out: &mut [f32],
        buffers: &mut AttendBuffers,
        spans: Range<usize>,
    ) -> Result<()> {
        let layer = self.config;
        let (m, dim_v, n_spans) = (self.pass.rows.len(), self.config.head_dim_v, spans.len());
        let (group, columns) = (layer.group(), layer.group() * dim_v);
        let unit = m * group;
        let finite = AtomicBool::new(true);
        let mut all = buffers.spans.part(layer.n_kv_heads * n_spans * unit, dim_v);
        self.ops.team.rows3(
            (&mut *all.m, unit),
            (&mut *all.l, unit),
            (&mut *all.o, unit * dim_v),
            |worker, index, m, l, o| {
                let scratch = &mut *buffers.workers[worker]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let (kv_head, s) = (index / n_spans, spans.start + index % n_spans);
                let mut span = Partials { m, l, o };
                span.clear();
                let rows = 0..self.pass.rows.len();
                if !self.span(cache, q, rows, (kv_head, s), &mut span, &mut scratch.block) {
                    finite.store(false, Ordering::Relaxed);
                }
            },
        )?;
        for kv_head in 0..layer.n_kv_heads {
            let mut head = all.part(kv_head * n_spans * unit..(kv_head + 1) * n_spans * unit);
            let (mut total, mut later) = head.split(unit);
            for s in 0..n_spans - 1 {
                self.ops
                    .backend
                    .merge(&mut total, &later.part(s * unit..(s + 1) * unit));
            }
            for (row, out) in out.chunks_exact_mut(layer.n_heads * dim_v).enumerate() {
                let out = &mut out[kv_head * columns..(kv_head + 1) * columns];
                finish(&total.part(row * group..(row + 1) * group), out);
            }
        }
        self.ops.check(finite.into_inner(), "attention")
    }

    /// Some rows' queries of a kv head over the blocks of span `s`, added to `sum`. False if a query that has to be
    /// quantized is not finite.
    fn span(
        &self,
        cache: &KvCache,
        q: &[f32],
        rows: Range<usize>,
        (kv_head, s): (usize, usize),
        sum: &mut Partials<'_>,
        scratch: &mut BlockScratch,
    ) -> bool {
        let layer = self.config;
        let (group, dim_k) = (layer.group(), self.config.head_dim_k);
        let stride = layer.n_heads * dim_k;
        let BlockScratch {
            wide,
            visible,
            q: int8,
            d,
            sums,
        } = scratch;
        let quantized = matches!(cache.k, Store::Q8(_));
        // Rows of one sequence see the same pages.
        let mut start = rows.start;
        for run in self.pass.rows[rows.clone()].chunk_by(|a, b| a.sequence == b.sequence) {
            let first = start;
            start += run.len();
            let q = &q[first * stride + kv_head * group * dim_k..];
            if quantized {
                let (width, steps) = (group * dim_k, group * dim_k / 32);
                for (i, q) in q.chunks(stride).take(run.len()).enumerate() {
                    let finite = self.ops.backend.quantize(
                        32,
                        &q[..width],
                        &mut int8[i * width..(i + 1) * width],
                        &mut d[i * steps..(i + 1) * steps],
                        &mut sums[i * 2 * steps..(i + 1) * 2 * steps],
                    );
                    if !finite {
                        return false;
                    }
                }
            }
            let queries = Queries {
                q,
                stride,
                group,
                dim_k,
                scale: layer.scale,
                softcap: layer.softcap,
                quantized: QuantizedQueries { q: int8, d, sums },
            };
            let mut sum = sum.part((first - rows.start) * group..(start - rows.start) * group);
            for b in s * SPAN..(s + 1) * SPAN {
                visible.clear();
                visible.extend(run.iter().map(|row| {
                    let sees = self.sees(row);
                    let at = |position: usize| position.clamp(b * BLOCK, (b + 1) * BLOCK) - b * BLOCK;
                    at(sees.start)..at(sees.end)
                }));
                if visible.iter().any(|visible| !visible.is_empty()) {
                    let sequence = &self.pass.sequences[run[0].sequence];
                    let next = sequence.page_if_any(cache.group, b + 1);
                    let block = cache.block(kv_head, sequence.page(cache.group, b), next);
                    self.ops.backend.attend(&queries, visible, &block, &mut sum, wide);
                }
            }
        }
        true
    }

    /// The positions that a row sees in this layer.
    fn sees(&self, row: &Row) -> Range<usize> {
        let end = match self.pass.mask {
            Mask::Causal => row.position + 1,
            Mask::Bidirectional => row.end,
            Mask::Prefix(n) => (row.position + 1).max(n.min(row.end)),
        };
        let window = self.config.window;
        window.map_or(0, |window| (row.position + 1).saturating_sub(window))..end
    }

    /// The spans that some rows see; not empty.
    fn spans(&self, rows: Range<usize>) -> Range<usize> {
        let (mut start, mut end) = (usize::MAX, 0);
        for row in &self.pass.rows[rows] {
            let sees = self.sees(row);
            (start, end) = (start.min(sees.start), end.max(sees.end));
        }
        start / SPAN_LEN..end.div_ceil(SPAN_LEN)
    }
}

/// `o * (1 / l)` of some queries, side by side.
fn finish(total: &Partials<'_>, out: &mut [f32]) {
    let dim_v = total.o.len() / total.l.len();
    for ((out, o), l) in out
        .chunks_exact_mut(dim_v)
        .zip(total.o.chunks_exact(dim_v))
        .zip(&*total.l)
    {
        let r = 1.0 / l;
        for (out, o) in out.iter_mut().zip(o) {
            *out = o * r;
        }
    }
}
