//! Attention over the cache's pages: keys and values of a pass rounded and stored, then its queries over them.
//!
//! Work is split over (tile of rows of one sequence, set of query heads that share a kv head): see
//! [`crate::kernels::Queries`]. A set is all of those, or some where one kv head serves many. Tiles that are much of a
//! pass, as the one row of a long sequence is, are split over spans of blocks as well (split-KV), whose softmax states
//! are joined afterwards, left to right. Either way each query meets the same operations in the same order: blocks into
//! spans, spans into one. On several nodes a piece goes to the workers of that one whose memory has the keys and values
//! that it reads (`team::heads`).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::attention::{AttentionConfig, Window};
use crate::Result;
use crate::batch::Row;
use crate::cache::{CacheType, KvCache, Sizes, Store, Stored};
use crate::kernels::{BLOCK, Distance, Partials, QuantizedQueries, Queries, SPAN, attend_scratch};
use crate::memory::Buffers;
use crate::model::forward::Pass;
use crate::model::ops::Ops;
use crate::team::{ByNode, MAX_NODES, Piece, RowTile, Team, Tiled};

/// Queries of a tile, where one token has not more: enough that widening a block's numbers is little beside their use.
const TILE: usize = 96;

/// Rows of a sequence over its whole length whose spans can be split between workers at a time. More of them are split
/// only as far as there is room.
const SPLIT_ROWS: usize = 8;

/// Pieces per worker that attention's work is cut into at least, where it can be.
const PIECES: usize = 8;

/// Numbers of softmax states below which the caller joins them alone: a hand-over to other workers takes as long.
const SMALL_JOIN: usize = 1 << 15;

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
    /// The rows' positions, seen from the block: where distance counts.
    positions: Vec<f32>,
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
    /// States of spans that were split between workers: per tile, set of heads, span, row and query of the set.
    spans: States,
    /// Tiles of the present layer's rows, and those of them whose spans have to be joined.
    tiles: Vec<RowTile>,
    joined: Vec<RowTile>,
    /// The order of pieces on several nodes.
    order: Vec<u32>,
}

/// Rows of a tile.
fn tile_rows(layer: &AttentionConfig) -> usize {
    (TILE / layer.together()).max(1)
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
        let (mut queries, mut rows, mut split) = (0, 0, 0);
        let (mut dim_k, mut dim_v, mut n_heads) = (0, 0, usize::MAX);
        for layer in layers {
            let tile = tile_rows(layer).min(m);
            queries = queries.max(tile * layer.together());
            rows = rows.max(tile);
            // Spans that a row can see, cut at either end; and one of each sequence, where many have a row.
            let reach = layer.window.map_or(n_ctx, |window| {
                window.reach().saturating_add(SPLIT_ROWS).min(n_ctx)
            });
            let few = (reach / SPAN_LEN + 2).saturating_mul(SPLIT_ROWS.min(m));
            let many = sizes.n_sequences.min(m).saturating_mul(2);
            split = split.max(few.max(many).saturating_mul(layer.n_heads));
            (dim_k, dim_v) = (dim_k.max(layer.head_dim_k), dim_v.max(layer.head_dim_v));
            n_heads = n_heads.min(layer.n_heads);
        }
        // Whole tiles, and parts of others.
        let pieces = if workers > 1 {
            m.saturating_add(split / n_heads)
        } else {
            0
        };
        let int8 = if sizes.type_k == CacheType::Q8_0 {
            queries
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
                    positions: buffers.room("attention's distances", rows)?,
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
            tiles: buffers.room("attention's tiles", m)?,
            joined: buffers.room("attention's tiles", m)?,
            order: buffers.room("attention's tiles", pieces.saturating_mul(2))?,
        })
    }
}

/// One layer's attention in a pass.
pub(super) struct Attend<'a> {
    pub(super) ops: &'a Ops<'a>,
    pub(super) pass: &'a Pass<'a>,
    /// Those of its rows whose attention is computed.
    pub(super) rows: &'a [Row],
    pub(super) config: &'a AttentionConfig,
    /// A score per query head that enters its softmax after all others, with a value of zero.
    pub(super) sinks: Option<&'a [f32]>,
}

impl Attend<'_> {
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
                    let page = self.pass.sequences.at(row.slot).page(group, row.position / BLOCK) as usize;
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

    /// Attention of `rows`, of which `q` are the queries: `out` has the heads' values side by side.
    pub(super) fn attend(
        &self,
        cache: &KvCache,
        q: &[f32],
        out: &mut [f32],
        buffers: &mut AttendBuffers,
    ) -> Result<()> {
        let (layer, team) = (self.config, self.ops.team);
        let (group, dim_v) = (layer.together(), layer.head_dim_v);
        let AttendBuffers {
            workers,
            spans,
            tiles,
            joined,
            order,
        } = buffers;
        self.cut(spans.l.len() / layer.n_heads, tiles);
        let finite = AtomicBool::new(true);
        let section = |tile: &RowTile, part: usize| self.section(cache, tile, part);
        let mut tiled = Tiled {
            out: &mut *out,
            n: layer.inner_width(),
            columns: group * dim_v,
            parts: [
                (&mut spans.m, group),
                (&mut spans.l, group),
                (&mut spans.o, group * dim_v),
            ],
            by_node: Some(ByNode {
                heads: layer.n_kv_heads,
                section: &section,
                order,
            }),
        };
        team.tiles(&mut tiled, tiles, |worker, tile, set, piece| {
            let scratch = &mut *workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            let rows = tile.rows.clone();
            let queries = rows.len() * group;
            let seen = self.spans(rows.clone());
            let whole = match piece {
                Piece::Part(part, m, l, o) => {
                    let mut span = Partials { m, l, o };
                    span.clear();
                    let place = (set, seen.start + part);
                    self.span(cache, q, rows, place, &mut span, &mut scratch.block)
                }
                Piece::Cell(mut out) => {
                    let mut total = scratch.total.part(queries, dim_v);
                    let mut span = scratch.span.part(queries, dim_v);
                    total.clear();
                    let mut whole = true;
                    for s in seen {
                        span.clear();
                        whole &= self.span(cache, q, rows.clone(), (set, s), &mut span, &mut scratch.block);
                        self.ops.backend.merge(&mut total, &span);
                    }
                    self.sink(set, &mut total, &mut span);
                    for row in 0..rows.len() {
                        finish(&total.part(row * group..(row + 1) * group), out.row(row));
                    }
                    whole
                }
            };
            if !whole {
                finite.store(false, Ordering::Relaxed);
            }
        })?;
        self.ops.check(finite.into_inner(), "attention")?;
        joined.clear();
        let split = tiles.iter().filter(|tile| tile.parts > 0);
        joined.extend(split.clone().map(|tile| RowTile::new(tile.rows.clone(), 0)));
        if joined.is_empty() {
            return Ok(());
        }

        // The states of the spans, left to right.
        let States { m, l, o } = spans;
        let (m, l, o) = (&*m, &*l, &*o);
        let states = split
            .clone()
            .map(|tile| tile.parts * tile.rows.len())
            .sum::<usize>();
        let alone = Team::single();
        let small = states * layer.inner_width() < SMALL_JOIN;
        let mut tiled = Tiled {
            out,
            n: layer.inner_width(),
            columns: group * dim_v,
            parts: [(&mut [], 0), (&mut [], 0), (&mut [], 0)],
            by_node: None,
        };
        let tiles = &*tiles;
        (if small { &alone } else { team }).tiles(&mut tiled, joined, |worker, tile, set, piece| {
            let Piece::Cell(mut out) = piece else { return };
            let scratch = &mut *workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            let rows = tile.rows.len();
            let queries = rows * group;
            // The same rows, cut into parts.
            let Ok(cut) = tiles.binary_search_by_key(&tile.rows.start, |tile| tile.rows.start) else {
                return;
            };
            let cut = &tiles[cut];
            let mut total = scratch.total.part(queries, dim_v);
            total.clear();
            let mut span = scratch.span.part(queries, dim_v);
            for part in 0..cut.parts {
                let first = cut.part_row(set, part) * group;
                span.m.copy_from_slice(&m[first..first + queries]);
                span.l.copy_from_slice(&l[first..first + queries]);
                span.o
                    .copy_from_slice(&o[first * dim_v..(first + queries) * dim_v]);
                self.ops.backend.merge(&mut total, &span);
            }
            self.sink(set, &mut total, &mut span);
            for row in 0..rows {
                finish(&total.part(row * group..(row + 1) * group), out.row(row));
            }
        })
    }

    /// Cuts the rows into tiles: rows of one sequence, and of those that are much of the pass the spans as well, as
    /// long as there is `room` for so many rows of parts.
    fn cut(&self, room: usize, tiles: &mut Vec<RowTile>) {
        let (layer, workers) = (self.config, self.ops.team.workers());
        tiles.clear();
        let most = tile_rows(layer);
        let mut first = 0;
        for run in self.rows.chunk_by(|a, b| a.slot == b.slot) {
            let end = first + run.len();
            while first < end {
                let last = end.min(first + most);
                tiles.push(RowTile::new(first..last, 0));
                first = last;
            }
        }
        if workers == 1 {
            return;
        }
        let spans = |tile: &RowTile| self.spans(tile.rows.clone()).len();
        let cost = |tile: &RowTile, spans: usize| spans * (tile.rows.len() + 1);
        let all = tiles.iter().map(|tile| cost(tile, spans(tile))).sum::<usize>() * layer.sets();
        let mut taken = 0;
        for tile in tiles {
            let spans = spans(tile);
            let rows = spans * tile.rows.len();
            if spans > 1 && cost(tile, spans) * PIECES * workers > all && taken + rows <= room {
                taken += rows;
                tile.parts = spans;
            }
        }
    }

    /// The section of each head's memory that a tile, or a part of it, goes with: one that has most of the pages that
    /// it reads, as far as the first page of each span tells. Where a sequence has several tiles each of them reads most
    /// of its pages again, from nearer caches, and computes more than it reads: they take the sections in turn.
    fn section(&self, cache: &KvCache, tile: &RowTile, part: usize) -> usize {
        let sections = self.ops.team.nodes();
        let rows = &self.rows[tile.rows.clone()];
        let slot = rows[0].slot;
        let before = tile.rows.start.checked_sub(1);
        let beside = before.into_iter().chain([tile.rows.end]);
        if beside
            .filter_map(|row| self.rows.get(row))
            .any(|row| row.slot == slot)
        {
            return (tile.rows.start / tile_rows(self.config) + part) % sections;
        }
        let spans = self.spans(tile.rows.clone());
        let spans = match tile.parts {
            0 => spans,
            _ => spans.start + part..spans.start + part + 1,
        };
        let sequence = self.pass.sequences.at(slot);
        let first = self.sees(&rows[0]).start / BLOCK;
        let mut pages = [0; MAX_NODES];
        for span in spans {
            if let Some(page) = sequence.page_if_any(cache.group, first.max(span * SPAN)) {
                pages[cache.section(page, sections)] += 1;
            }
        }
        let most = pages[..sections].iter().max();
        // Of several that have as many, another one for each sequence.
        let mut in_turn = (slot..slot + sections).map(|section| section % sections);
        in_turn.find(|section| pages.get(*section) == most).unwrap_or(0)
    }

    /// Some rows of a sequence, their queries of a set of heads over the blocks of span `s`, added to `sum`. False if a
    /// query that has to be quantized is not finite.
    fn span(
        &self,
        cache: &KvCache,
        q: &[f32],
        rows: Range<usize>,
        (set, s): (usize, usize),
        sum: &mut Partials<'_>,
        scratch: &mut BlockScratch,
    ) -> bool {
        let layer = self.config;
        let (group, dim_k) = (layer.together(), self.config.head_dim_k);
        let stride = layer.n_heads * dim_k;
        let BlockScratch {
            wide,
            visible,
            positions,
            q: int8,
            d,
            sums,
        } = scratch;
        let q = &q[rows.start * stride + set * group * dim_k..];
        let rows = &self.rows[rows];
        if matches!(cache.k, Store::Q8(_)) {
            let (width, steps) = (group * dim_k, group * dim_k / 32);
            for (i, q) in q.chunks(stride).take(rows.len()).enumerate() {
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
        let heads = set * group..(set + 1) * group;
        let slopes = layer.slopes.get(heads).unwrap_or_default();
        let queries = Queries {
            q,
            stride,
            heads: group,
            dim_k,
            scale: layer.scale,
            softcap: layer.softcap,
            distance: None,
            quantized: QuantizedQueries { q: int8, d, sums },
        };
        let kv_head = set * group / layer.group();
        let sequence = self.pass.sequences.at(rows[0].slot);
        for b in s * SPAN..(s + 1) * SPAN {
            visible.clear();
            visible.extend(rows.iter().map(|row| {
                let sees = self.sees(row);
                let at = |position: usize| position.clamp(b * BLOCK, (b + 1) * BLOCK) - b * BLOCK;
                at(sees.start)..at(sees.end)
            }));
            if visible.iter().any(|visible| !visible.is_empty()) {
                if !slopes.is_empty() {
                    positions.clear();
                    positions.extend(rows.iter().map(|row| row.position as f32 - (b * BLOCK) as f32));
                }
                let queries = Queries {
                    distance: (!slopes.is_empty()).then_some(Distance { slopes, positions }),
                    ..queries
                };
                let next = sequence.page_if_any(cache.group, b + 1);
                let block = cache.block(kv_head, sequence.page(cache.group, b), next);
                self.ops.backend.attend(&queries, visible, &block, sum, wide);
            }
        }
        true
    }

    /// Joins the sinks of a set of heads to `total`, which covers all positions; `state` is overwritten.
    fn sink(&self, set: usize, total: &mut Partials<'_>, state: &mut Partials<'_>) {
        let Some(sinks) = self.sinks else { return };
        let group = self.config.together();
        let sinks = &sinks[set * group..(set + 1) * group];
        for m in state.m.chunks_exact_mut(group) {
            m.copy_from_slice(sinks);
        }
        state.l.fill(1.0);
        state.o.fill(0.0);
        self.ops.backend.merge(total, state);
    }

    /// The positions that a row sees in this layer: itself and what is before it, or all of its text, within the
    /// window.
    fn sees(&self, row: &Row) -> Range<usize> {
        let first = |window: Window| window.first(row.position);
        let end = if self.config.causal {
            row.position + 1
        } else {
            self.pass.sequences.at(row.slot).end
        };
        let end = match self.config.window {
            Some(Window::Symmetric(n)) => end.min((row.position + 1).saturating_add(n / 2)),
            _ => end,
        };
        self.config.window.map_or(0, first)..end
    }

    /// The spans that some rows see; not empty.
    fn spans(&self, rows: Range<usize>) -> Range<usize> {
        let (mut start, mut end) = (usize::MAX, 0);
        for row in &self.rows[rows] {
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
