//! How the blocks of 16 rows become a panel, and how a kernel looks at it.
//!
//! ```text
//!   file, row r     block 0 | block 1 | ...            a block: 32-bit words w0 w1 ..., and what is no whole word (tails)
//!
//!   panel           group 0 | group 1 | ...                  a group: as many blocks as a fill has, at least two
//!     group         words of its block 0 | words of block 1 | ... | tails of block 0 | tails of block 1 | ...
//!     words         w0 of rows 0 .. 15 (64 bytes) | w1 of rows 0 .. 15 | ...
//!     tails         16 bits of rows 0 .. 15 (32 bytes), for each tail of the block
//! ```
//!
//! By groups every word begins at a cache line, and memory is read in one run. (With all tails behind all words one token of Q4_0
//! came from memory at little more than half the speed, of Q8_0 and Q6_K at five sixths; with each block's tails behind its words every
//! other load would cross two lines.)
//!
//! So a panel holds the file's bytes, only their order differs: packing is a transposition at the speed of memory, a row's
//! blocks can be had back, and a byte of a word keeps its meaning. A 32-bit lane of a vector is one row. A lane holds 4
//! consecutive k of its row in each of its bit fields, which is what a 4-byte dot product wants; the formats' own order
//! happens to allow it for every type that has a layout.

use std::marker::PhantomData;

use super::isa::{Isa, Op, Panel};
use super::panel::{Format, ROWS};
use crate::kernels::matrix::Shard;
use crate::quant::{self, GgmlType, Step};

/// Bytes of a word of 16 rows.
pub(super) const WORD: usize = 4 * ROWS;
/// Bytes of a tail of 16 rows.
pub(super) const TAIL: usize = 2 * ROWS;

/// Bytes by which the reading of packed weights is announced ahead of its use: what a core's share of the memory sends while
/// one line is on its way, and some more. Measured on a Zen 5: half of it is up to 15 % slower, twice of it no faster on the whole.
const AHEAD: usize = 8 << 10;

/// GGUF bytes of a panel's rows.
pub(super) struct Sources<'a> {
    /// Beyond the matrix its last row is repeated: what comes of it is not shown.
    rows: [&'a [u8]; ROWS],
    /// The same, where there are 16.
    panel: Option<Panel<'a>>,
}

impl<'a> Sources<'a> {
    /// Of panel `panel` of a mapped shard.
    pub(super) fn new(shard: &'a Shard, panel: usize) -> Self {
        let first = shard.rows.start + panel * ROWS;
        let rows = std::array::from_fn(|i| shard.row((first + i).min(shard.rows.end - 1)));
        let bytes = shard.row_bytes * ROWS;
        let panel = shard.data.get(panel * bytes..(panel + 1) * bytes);
        Sources {
            rows,
            panel: panel.map(Panel::new),
        }
    }
}

/// A whole packed panel.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    /// Blocks of a row.
    blocks: usize,
}

impl<'a> Packed<'a> {
    pub(super) fn new(bytes: &'a [u8], blocks: usize) -> Self {
        Packed { bytes, blocks }
    }

    /// Blocks `first .. first + n`, which belong to one group.
    #[inline(always)]
    pub(super) fn some<F: Format>(self, first: usize, n: usize) -> Blocks<'a> {
        let start = first / group::<F>() * group::<F>();
        let words = start * block_bytes::<F>() + (first - start) * F::WORDS * WORD;
        let in_group = group::<F>().min(self.blocks - start);
        let tails =
            start * block_bytes::<F>() + in_group * F::WORDS * WORD + (first - start) * F::TAILS * TAIL;
        Blocks {
            words: &self.bytes[words..words + n * F::WORDS * WORD],
            tails: &self.bytes[tails..tails + n * F::TAILS * TAIL],
            ahead: &[],
        }
    }
}

/// Bytes of a whole panel of `blocks` blocks: a multiple of a cache line, so that every panel begins at one.
pub(super) fn panel_bytes<F: Format>(blocks: usize) -> Option<usize> {
    blocks
        .checked_mul(block_bytes::<F>())?
        .checked_next_multiple_of(64)
}

/// Bytes of a block of 16 rows.
pub(super) const fn block_bytes<F: Format>() -> usize {
    F::WORDS * WORD + F::TAILS * TAIL
}

/// Blocks of a group.
pub(super) const fn group<F: Format>() -> usize {
    if F::FILL < 2 { 2 } else { F::FILL }
}

/// Some blocks of a panel.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) words: &'a [u8],
    pub(super) tails: &'a [u8],
    /// The bytes that will be needed after these, where they are to be read early ([`Isa::read_early`]); else none.
    pub(super) ahead: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// Has share `i` of `n` of what comes next brought along.
    #[inline(always)]
    pub(super) fn read_early<I: Isa>(&self, isa: I, i: usize, n: usize) {
        if I::READS_EARLY {
            // Of a length that is found where the code runs: reads that the compiler wrote out made a model a fifth slower.
            let lines = self.ahead.len() / WORD;
            if let Some(share) = self.ahead.get(lines * i / n * WORD..lines * (i + 1) / n * WORD) {
                isa.read_early(share);
            }
        }
    }

    /// Part `part` of block `i`: the rows that one vector covers.
    #[inline(always)]
    pub(super) fn part<I: Isa, F: Format>(self, i: usize, part: usize) -> Part<'a> {
        let (word, tail) = (F::WORDS * WORD, F::TAILS * TAIL);
        // The lengths are known where the code is compiled, so that no access below is checked.
        let words = if word == 0 {
            &[]
        } else {
            &self.words[i * word + part * 4 * I::ROWS..][..word - WORD + 4 * I::ROWS]
        };
        let tails = if tail == 0 {
            &[]
        } else {
            &self.tails[i * tail + part * 2 * I::ROWS..][..tail - TAIL + 2 * I::ROWS]
        };
        Part { words, tails }
    }
}

/// One block of a panel, for the rows that one vector covers.
pub(super) struct Part<'a> {
    words: &'a [u8],
    tails: &'a [u8],
}

impl Part<'_> {
    /// Word `w` of each row.
    #[inline(always)]
    pub(super) fn word<I: Isa>(&self, isa: I, w: usize) -> I::V {
        isa.load(&self.words[w * WORD..])
    }

    /// Announces the words that lie [`AHEAD`] of these: call `i` of `calls` for them all. Memory is asked for little by little,
    /// as a burst of requests would hold up the loads behind it. Every vector of the rows has a share of the words, this one
    /// that of number `part`: together they ask for each line once.
    #[inline(always)]
    pub(super) fn announce<I: Isa, F: Format>(&self, isa: I, (i, calls): (usize, usize), part: usize) {
        let parts = ROWS / I::ROWS;
        let share = F::WORDS.div_ceil(parts);
        let words = &self.words[..1];
        for w in i * share / calls..(i + 1) * share / calls {
            isa.prefetch(words, AHEAD + part * WORD + w * parts * WORD);
        }
    }

    /// Words `w .. w + 4`.
    #[inline(always)]
    pub(super) fn four_words<I: Isa>(&self, isa: I, w: usize) -> [I::V; 4] {
        // Written out: a closure might not be inlined, and then would not have the instruction set.
        [
            self.word(isa, w),
            self.word(isa, w + 1),
            self.word(isa, w + 2),
            self.word(isa, w + 3),
        ]
    }

    /// Word `w` of each row as a float.
    #[inline(always)]
    pub(super) fn f32_word<I: Isa>(&self, isa: I, w: usize) -> I::F {
        isa.load_f32(&self.words[w * WORD..])
    }

    /// Tail `i` of each row, a half-precision number.
    #[inline(always)]
    pub(super) fn f16_tail<I: Isa>(&self, isa: I, i: usize) -> I::F {
        isa.load_f16(&self.tails[i * TAIL..])
    }

    /// Tail `i` of each row, a bfloat16 number.
    #[inline(always)]
    pub(super) fn bf16_tail<I: Isa>(&self, isa: I, i: usize) -> I::F {
        isa.load_bf16(&self.tails[i * TAIL..])
    }
}

/// Writes blocks `first .. first + n` of the rows as a panel has them.
pub(super) struct Interleave<'a, 'b, F> {
    pub(super) rows: &'a Sources<'a>,
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
        let Some(panel) = self.rows.panel else {
            return interleave::<F>(self.rows, (first, n), self.words, self.tails);
        };
        // Blocks of less than four words are taken by fours of words.
        let together = (16 / F::TYPE.block_bytes()).max(1);
        let bytes = together * F::TYPE.block_bytes();
        let whole = n / together;
        let (word, tail) = (together * F::WORDS * WORD, together * F::TAILS * TAIL);
        for i in 0..whole {
            let at = first * F::TYPE.block_bytes() + i * bytes;
            announce(isa, &panel, at, bytes);
            let words = &mut self.words[i * word..(i + 1) * word];
            let tails = &mut self.tails[i * tail..(i + 1) * tail];
            if F::WORDS == 0 {
                halves(isa, &panel, at, tails);
                continue;
            }
            let in_all = together * F::WORDS;
            for w in 0..in_all / 4 {
                four_words(isa, &panel, at + F::WORDS_AT, 4 * w, words);
            }
            if !in_all.is_multiple_of(4) {
                // Some words a second time.
                four_words(isa, &panel, at + F::WORDS_AT, in_all.saturating_sub(4), words);
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

/// Announces the share of the next panel that falls to `bytes` of each row of this one, from byte `at` of a row on: that panel
/// lies behind this one, and memory is read fastest in its own order.
#[inline(always)]
fn announce<I: Isa>(isa: I, panel: &Panel<'_>, at: usize, bytes: usize) {
    let start = panel.bytes().len();
    for line in (ROWS * at).div_ceil(64)..(ROWS * (at + bytes)).div_ceil(64) {
        isa.prefetch_l2(panel.bytes(), start + line * 64);
    }
}

/// Words `w .. w + 4` of a block, whose words begin at byte `from` of a row.
#[inline(always)]
fn four_words<I: Isa>(isa: I, panel: &Panel<'_>, from: usize, w: usize, words: &mut [u8]) {
    for part in 0..ROWS / I::ROWS {
        let v = four_rows_each(isa, panel, part, from + 4 * w);
        for (i, v) in isa.transpose(v).into_iter().enumerate() {
            isa.store(v, &mut words[(w + i) * WORD + part * 4 * I::ROWS..]);
        }
    }
}

/// Eight blocks of half a word each, from byte `at` of a row on.
#[inline(always)]
fn halves<I: Isa>(isa: I, panel: &Panel<'_>, at: usize, tails: &mut [u8]) {
    for part in 0..ROWS / I::ROWS {
        let v = four_rows_each(isa, panel, part, at);
        for (i, v) in isa.transpose(v).into_iter().enumerate() {
            let (low, high) = tails[2 * i * TAIL..(2 * i + 2) * TAIL].split_at_mut(TAIL);
            let at = part * 2 * I::ROWS;
            isa.store_split(v, &mut low[at..], &mut high[at..]);
        }
    }
}

/// 16 bytes from byte `at` on of each row that a vector covers: vector i has those of rows i, i + 4, ...
#[inline(always)]
fn four_rows_each<I: Isa>(isa: I, panel: &Panel<'_>, part: usize, at: usize) -> [I::V; 4] {
    let first = part * I::ROWS;
    [
        isa.join(panel, first, at),
        isa.join(panel, first + 1, at),
        isa.join(panel, first + 2, at),
        isa.join(panel, first + 3, at),
    ]
}

/// The tails of the block that begins at byte `at` of each row.
#[inline(always)]
fn tails_of<F: Format>(rows: &Sources<'_>, at: usize, tails: &mut [u8]) {
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
fn interleave<F: Format>(rows: &Sources<'_>, (first, n): (usize, usize), words: &mut [u8], tails: &mut [u8]) {
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

/// Steps `first .. first + n` of rows of any quantized type as bytes: per step its weights by quads, then, where `SCALES`,
/// the scales of its groups of 16 in four words, then d as f32.
#[inline(never)]
pub(super) fn unpack_steps<const LEN: usize, const SCALES: bool>(
    ty: GgmlType,
    rows: &Sources<'_>,
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
