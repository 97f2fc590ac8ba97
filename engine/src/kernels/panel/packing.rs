//! Packing: the rows of a file to panels, and back.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Blocks, Format, ROWS, TAIL, WORD, block_bytes, panel_bytes, section};
use crate::kernels::Packing;
use crate::kernels::isa::{ContiguousRows, Isa, Op};
use crate::kernels::matrix::Shard;
use crate::memory::Bytes;
use crate::quant::{self, GgmlType, Step};
use crate::{Error, Result};

/// Bytes of a file that are packed before their memory is given back.
const RELEASE: usize = 1 << 20;

/// Bytes of a file that all workers together have parts of at a time, and the most that one has. Large parts are read
/// and written fastest; small ones keep the workers together.
const WINDOW: usize = 32 << 20;
const LARGEST_PART: usize = 8 << 20;

/// The GGUF bytes of the rows that make a panel.
pub(in crate::kernels) struct FileRows<'a> {
    /// Beyond the matrix its last row is repeated: what comes of it is not shown.
    rows: [&'a [u8]; ROWS],
    /// The same in one piece, where there are 16 rows.
    contiguous: Option<ContiguousRows<'a>>,
}

impl<'a> FileRows<'a> {
    /// Of panel `panel` of a mapped shard.
    pub(super) fn new(shard: &'a Shard, panel: usize) -> Self {
        let first = shard.rows.start + panel * ROWS;
        let rows = std::array::from_fn(|i| shard.row((first + i).min(shard.rows.end - 1)));
        let bytes = shard.row_bytes * ROWS;
        let contiguous = shard.data.get(panel * bytes..(panel + 1) * bytes);
        FileRows {
            rows,
            contiguous: contiguous.map(ContiguousRows::new),
        }
    }
}

/// Bytes of a panel, and of all panels of `n` rows of `k`: what [`pack`] allocates, and what a plan counts.
///
/// # Errors
/// `ModelLimit` where they are more than can be addressed.
pub(super) fn packed_size<F: Format>(n: usize, k: usize) -> Result<(usize, usize)> {
    let too_large = || Error::ModelLimit {
        what: "bytes of a packed matrix".into(),
        found: u64::MAX,
        limit: isize::MAX as u64,
    };
    let panel_bytes = panel_bytes::<F>(k / F::BLOCK_LEN).ok_or_else(too_large)?;
    let bytes = n.div_ceil(ROWS).checked_mul(panel_bytes).ok_or_else(too_large)?;
    Ok((panel_bytes, bytes))
}

/// Rows of a matrix that go into one piece of memory.
struct Piece<'a> {
    shards: &'a [Shard],
    /// Of each shard the first panel.
    starts: Vec<usize>,
    /// Of all of them.
    n_panels: usize,
}

impl<'a> Piece<'a> {
    fn new(shards: &'a [Shard]) -> Self {
        let (mut starts, mut n_panels) = (Vec::with_capacity(shards.len()), 0usize);
        for shard in shards {
            starts.push(n_panels);
            n_panels += shard.rows.len().div_ceil(ROWS);
        }
        Piece {
            shards,
            starts,
            n_panels,
        }
    }

    /// Fills some panels of the piece.
    fn fill<I: Isa, F: Format>(&self, isa: I, panels: Range<usize>, panel_bytes: usize, out: &mut [u8]) {
        let mut rest = out;
        let mut at = panels.start;
        while at < panels.end {
            let i = self.starts.partition_point(|start| *start <= at) - 1;
            let start = self.starts[i];
            let end = self
                .starts
                .get(i + 1)
                .map_or(panels.end, |next| panels.end.min(*next));
            let (out, behind) = std::mem::take(&mut rest).split_at_mut((end - at) * panel_bytes);
            fill_shard::<I, F>(isa, &self.shards[i], at - start..end - start, panel_bytes, out);
            (at, rest) = (end, behind);
        }
    }

    /// The shards as they lie in the piece's memory.
    fn packed(&self, data: &Bytes, panel_bytes: usize) -> Result<Vec<Shard>> {
        let packed = |(mapped, start): (&Shard, &usize)| {
            let panels = *start..start + mapped.rows.len().div_ceil(ROWS);
            Ok(Shard {
                rows: mapped.rows.clone(),
                node: mapped.node,
                ty: mapped.ty,
                row_bytes: panel_bytes / ROWS,
                k: mapped.k,
                data: data.slice(panels.start * panel_bytes..panels.end * panel_bytes)?,
                packed: true,
            })
        };
        self.shards.iter().zip(&self.starts).map(packed).collect()
    }
}

/// Fills some panels of a mapped shard.
fn fill_shard<I: Isa, F: Format>(
    isa: I,
    mapped: &Shard,
    panels: Range<usize>,
    panel_bytes: usize,
    out: &mut [u8],
) {
    let blocks = mapped.k / F::BLOCK_LEN;
    let source = mapped.row_bytes * ROWS;
    let mut released = panels.start;
    for (panel, out) in panels.clone().zip(out.chunks_exact_mut(panel_bytes)) {
        let rows = FileRows::new(mapped, panel);
        let in_section = section::<F>();
        let sections = out.chunks_mut(in_section * block_bytes::<F>());
        for (first, out) in (0..blocks).step_by(in_section).zip(sections) {
            let n = in_section.min(blocks - first);
            let (words, tails) = out.split_at_mut(n * F::WORDS * WORD);
            F::fill(isa, mapped.ty, &rows, (first, n), words, tails);
        }
        // What was read is given back soon, so that the model is never in memory twice.
        let done = panel + 1;
        if (done - released) * source >= RELEASE || done == panels.end {
            mapped.data.release(released * source..done * source);
            released = done;
        }
    }
}

/// The rows of mapped shards of one matrix as panels, in memory of their own: those of an inner list, which are on one
/// node or on none, one after the other in one piece. All nodes work at the same time, and each in the file's order.
pub(super) fn pack<I: Isa, F: Format>(
    isa: I,
    mapped: &[Vec<Shard>],
    packing: &Packing<'_>,
) -> Result<Vec<Vec<Shard>>> {
    let pieces: Vec<Piece<'_>> = mapped.iter().map(|shards| Piece::new(shards)).collect();
    let Some(Shard { k, row_bytes, .. }) = mapped.iter().flatten().next() else {
        return Ok(vec![Vec::new(); mapped.len()]);
    };
    let node_of = |piece: &Piece<'_>| piece.shards.first().and_then(|shard| shard.node);
    let (panel_bytes, _) = packed_size::<F>(0, *k)?;
    let mut memory = Vec::with_capacity(pieces.len());
    for piece in &pieces {
        let (_, bytes) = packed_size::<F>(piece.n_panels.saturating_mul(ROWS), *k)?;
        memory.push(packing.memory.zeroed(bytes, node_of(piece))?);
    }
    // All workers together stay within a window of the file: it may be read ahead of them.
    let bytes = (WINDOW / packing.team.workers()).clamp(RELEASE, LARGEST_PART);
    let most = (bytes / (row_bytes * ROWS).max(1)).max(1);
    let team = packing.team;
    let nodes: Option<Vec<usize>> = pieces.iter().map(node_of).collect();
    match nodes {
        // Who writes to a page first places it.
        Some(nodes) => {
            // Of a node without rows there is nothing to fill.
            let mut outs: Vec<&mut [u8]> = Vec::new();
            outs.resize_with(nodes.iter().max().map_or(0, |last| last + 1), Default::default);
            let mut piece_of = vec![0; outs.len()];
            for (i, (node, memory)) in nodes.iter().zip(&mut memory).enumerate() {
                outs[*node] = memory.bytes();
                piece_of[*node] = i;
            }
            team.rows_on_nodes(&mut outs, panel_bytes, most, |node, panels, out| {
                pieces[piece_of[node]].fill::<I, F>(isa, panels, panel_bytes, out);
            })?;
        }
        None => {
            for (piece, memory) in pieces.iter().zip(&mut memory) {
                team.rows_in_order(memory.bytes(), panel_bytes, most, |panels, out| {
                    piece.fill::<I, F>(isa, panels, panel_bytes, out);
                })?;
            }
        }
    }
    let frozen = pieces.iter().zip(memory);
    frozen
        .map(|(piece, memory)| piece.packed(&memory.freeze()?, panel_bytes))
        .collect()
}

/// Writes blocks `first .. first + n` of the rows as a panel has them.
pub(super) struct Interleave<'a, 'b, F> {
    pub(super) rows: &'a FileRows<'a>,
    pub(super) first_n: (usize, usize),
    pub(super) words: &'b mut [u8],
    pub(super) tails: &'b mut [u8],
    pub(super) format: PhantomData<F>,
}

impl<I: Isa, F: Format> Op<I> for Interleave<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let (first, n) = self.first_n;
        let Some(rows) = self.rows.contiguous else {
            return interleave::<F>(self.rows, (first, n), self.words, self.tails);
        };
        // Blocks of less than four words are taken by fours of words.
        let together = (16 / F::TYPE.block_bytes()).max(1);
        let bytes = together * F::TYPE.block_bytes();
        let whole = n / together;
        let (word, tail) = (together * F::WORDS * WORD, together * F::TAILS * TAIL);
        for i in 0..whole {
            let at = first * F::TYPE.block_bytes() + i * bytes;
            prefetch_next(isa, &rows, at, bytes);
            let words = &mut self.words[i * word..(i + 1) * word];
            let tails = &mut self.tails[i * tail..(i + 1) * tail];
            if F::WORDS == 0 {
                halves(isa, &rows, at, tails);
                continue;
            }
            let in_all = together * F::WORDS;
            for w in 0..in_all / 4 {
                four_words(isa, &rows, at + F::WORDS_AT, 4 * w, words);
            }
            if !in_all.is_multiple_of(4) {
                // Some words a second time.
                four_words(isa, &rows, at + F::WORDS_AT, in_all.saturating_sub(4), words);
            }
            if F::TAILS > 0 {
                tails_of::<F>(self.rows, at, tails);
            }
        }
        let done = whole * together;
        if done < n {
            let (words, tails) = (done * F::WORDS * WORD, done * F::TAILS * TAIL);
            interleave::<F>(
                self.rows,
                (first + done, n - done),
                &mut self.words[words..],
                &mut self.tails[tails..],
            );
        }
    }
}

/// Prefetches the share of the next panel's rows that falls to `bytes` of each row of these, from byte `at` of a row
/// on: those rows lie behind these, and memory is read fastest in its own order.
#[inline(always)]
fn prefetch_next<I: Isa>(isa: I, rows: &ContiguousRows<'_>, at: usize, bytes: usize) {
    let start = rows.bytes().len();
    for line in (ROWS * at).div_ceil(64)..(ROWS * (at + bytes)).div_ceil(64) {
        isa.prefetch_l2(rows.bytes(), start + line * 64);
    }
}

/// Words `w .. w + 4` of a block, whose words begin at byte `from` of a row.
#[inline(always)]
fn four_words<I: Isa>(isa: I, rows: &ContiguousRows<'_>, from: usize, w: usize, words: &mut [u8]) {
    for part in 0..ROWS / I::LANES {
        let v = four_rows_each(isa, rows, part, from + 4 * w);
        for (i, v) in isa.transpose(v).into_iter().enumerate() {
            isa.store(v, &mut words[(w + i) * WORD + part * 4 * I::LANES..]);
        }
    }
}

/// Eight blocks of half a word each, from byte `at` of a row on.
#[inline(always)]
fn halves<I: Isa>(isa: I, rows: &ContiguousRows<'_>, at: usize, tails: &mut [u8]) {
    for part in 0..ROWS / I::LANES {
        let v = four_rows_each(isa, rows, part, at);
        for (i, v) in isa.transpose(v).into_iter().enumerate() {
            let (low, high) = tails[2 * i * TAIL..(2 * i + 2) * TAIL].split_at_mut(TAIL);
            let at = part * 2 * I::LANES;
            isa.store_split(v, &mut low[at..], &mut high[at..]);
        }
    }
}

/// 16 bytes from byte `at` on of each row that a vector covers: vector i has those of rows i, i + 4, ...
#[inline(always)]
fn four_rows_each<I: Isa>(isa: I, rows: &ContiguousRows<'_>, part: usize, at: usize) -> [I::V; 4] {
    let first = part * I::LANES;
    [
        isa.join(rows, first, at),
        isa.join(rows, first + 1, at),
        isa.join(rows, first + 2, at),
        isa.join(rows, first + 3, at),
    ]
}

/// The tails of the block that begins at byte `at` of each row.
#[inline(always)]
fn tails_of<F: Format>(rows: &FileRows<'_>, at: usize, tails: &mut [u8]) {
    for (r, row) in rows.rows.iter().enumerate() {
        let block = &row[at..at + F::TYPE.block_bytes()];
        for (j, out) in tails
            .as_chunks_mut::<2>()
            .0
            .as_chunks_mut::<ROWS>()
            .0
            .iter_mut()
            .enumerate()
        {
            out[r % ROWS] = F::tail(block, j).to_le_bytes();
        }
    }
}

/// [`Interleave`] without vectors.
fn interleave<F: Format>(
    rows: &FileRows<'_>,
    (first, n): (usize, usize),
    words: &mut [u8],
    tails: &mut [u8],
) {
    let bytes = F::TYPE.block_bytes();
    for i in 0..n {
        let words = &mut words[i * F::WORDS * WORD..(i + 1) * F::WORDS * WORD];
        let tails = &mut tails[i * F::TAILS * TAIL..(i + 1) * F::TAILS * TAIL];
        let at = (first + i) * bytes;
        for (r, row) in rows.rows.iter().enumerate() {
            let from = row[at + F::WORDS_AT..at + bytes].as_chunks::<4>().0;
            for (out, word) in words
                .as_chunks_mut::<4>()
                .0
                .as_chunks_mut::<ROWS>()
                .0
                .iter_mut()
                .zip(from)
            {
                out[r % ROWS] = *word;
            }
        }
        tails_of::<F>(rows, at, tails);
    }
}

/// A block of one row back from a panel: the file's bytes, or others that mean the same.
pub(super) fn restore<F: Format>(block: Blocks<'_>, row: usize, out: &mut [u8]) {
    let words = block.words.chunks_exact(WORD);
    for (word, out) in words.zip(out[F::WORDS_AT..].as_chunks_mut::<4>().0) {
        out.copy_from_slice(&word[4 * row..4 * row + 4]);
    }
    for (j, tail) in block.tails.chunks_exact(TAIL).enumerate() {
        F::restore_tail(out, j, u16::from_le_bytes([tail[2 * row], tail[2 * row + 1]]));
    }
}

/// Steps `first .. first + n` of rows of any quantized type as bytes: per step its weights by quads, then, where
/// `SCALES`, the scales of its groups of 16 in four words, then d as f32.
#[inline(never)]
pub(super) fn unpack_steps<const LEN: usize, const SCALES: bool>(
    ty: GgmlType,
    rows: &FileRows<'_>,
    (first, n): (usize, usize),
    words: &mut [u8],
) {
    let Some(unpack) = quant::step_unpacker(ty) else {
        return;
    };
    let per_step = LEN / 4 + if SCALES { 5 } else { 1 };
    let mut step = Step::default();
    for (i, words) in words.chunks_exact_mut(per_step * WORD).take(n).enumerate() {
        let words = words.as_chunks_mut::<4>().0.as_chunks_mut::<ROWS>().0;
        for (r, row) in rows.rows.iter().enumerate() {
            unpack(row, first + i, &mut step);
            let (quads, rest) = words.split_at_mut(LEN / 4);
            for (out, quad) in quads.iter_mut().zip(step.q.as_chunks::<4>().0) {
                out[r % ROWS] = quad.map(|q| q as u8);
            }
            if SCALES {
                for (out, scales) in rest.iter_mut().zip(step.scale.as_chunks::<4>().0) {
                    out[r % ROWS] = scales.map(|s| s as u8);
                }
            }
            if let Some(d) = rest.last_mut() {
                d[r % ROWS] = step.d.to_le_bytes();
            }
        }
    }
}
