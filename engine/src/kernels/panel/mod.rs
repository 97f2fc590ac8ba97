//! A panel: 16 output rows interleaved, so that a 32-bit lane of a vector is one output.
//!
//! ```text
//!   file, row r     block 0 | block 1 | ...        a block: 32-bit words w0 w1 ..., then 16-bit values (tails)
//!
//!   panel           section 0 | section 1 | ...              a section: as many blocks as a fill has, at least two
//!     section       words of its block 0 | words of block 1 | ... | tails of block 0 | tails of block 1 | ...
//!     words         w0 of rows 0 .. 15 (64 bytes) | w1 of rows 0 .. 15 | ...
//!     tails         16 bits of rows 0 .. 15 (32 bytes), for each tail of the block
//! ```
//!
//! By sections every word begins at a cache line, and memory is read in one run. (With all tails behind all words one
//! token of Q4_0 came from memory at little more than half the speed, of Q8_0 and Q6_K at five sixths; with each
//! block's tails behind its words every other load would cross two lines.)
//!
//! So a panel holds the file's bytes, only their order differs: packing is a transposition at the speed of memory, a
//! row's blocks can be had back, and a byte of a word keeps its meaning. A 32-bit lane of a vector is one row. A lane
//! holds 4 consecutive k of its row in each of its bit fields, which is what a 4-byte dot product wants; the formats'
//! own order happens to allow it for every type that has a layout.
//!
//! There is no horizontal sum, and the floats of one output are added in the order of the steps, as the contract asks.
//! `packing` turns rows into panels and back; `one_token` and `token_tiles` are the two ways through a product, over
//! the fills of `fill`; `kernel` says which type gets which layout. `steps_256`, `steps_32` and `floats` are the
//! arithmetic of three kinds of blocks, `lines_256` the first once more for browsers, `layouts_256` and `layouts_32`
//! say where a type's bits lie. `drivers` lists what a backend chooses between.

pub(super) mod drivers;
pub(super) mod fill;
pub(super) mod floats;
mod kernel;
mod layouts_256;
mod layouts_32;
#[cfg(target_arch = "wasm32")]
pub(super) mod lines_256;
pub(super) mod one_token;
pub(super) mod packing;
#[cfg(target_arch = "wasm32")]
pub(super) mod reads;
pub(super) mod steps_256;
pub(super) mod steps_32;
pub(super) mod token_tiles;

pub(super) use drivers::{Drivers, ReadAhead};
pub(super) use kernel::kernel;

use std::marker::PhantomData;

use drivers::NoReads;
use packing::{FileRows, Interleave};
use token_tiles::{Coming, PANELS, Scratch};

use crate::kernels::isa::Isa;
use crate::kernels::tiles::Tiled;
use crate::kernels::{ActFormat, QuantizedBlock};
use crate::quant::GgmlType;

/// Output rows of a panel.
pub(super) const ROWS: usize = 16;

/// Bytes of a word of 16 rows.
pub(super) const WORD: usize = 4 * ROWS;

/// Bytes of a tail of 16 rows.
const TAIL: usize = 2 * ROWS;

/// Bytes between packed weights that are multiplied and those prefetched meanwhile: what a core's share of the memory
/// sends while one line is on its way, and some more. Measured on a Zen 5: half of it is up to 15 % slower, twice of it
/// no faster on the whole.
const PREFETCH_DISTANCE: usize = 8 << 10;

/// The activations of one token that belong to a fill.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    /// Floats, for float weights; the slice may go on behind the fill.
    x: &'a [f32],
    /// For all others.
    block: &'a QuantizedBlock,
}

/// A panel layout with its kernels.
pub(super) trait Format: Tiled + std::fmt::Debug + Send + Sync + 'static {
    /// The type in the file; not read where the layout is only a form for any type.
    const TYPE: GgmlType;
    /// Weights of a row per block.
    const BLOCK_LEN: usize;
    /// Blocks per fill.
    const FILL: usize;
    /// The byte of a file's block from which on it is taken as words.
    const WORDS_AT: usize;
    /// Words of a block.
    const WORDS: usize;
    /// Tails of a block.
    const TAILS: usize;
    /// Whether weights are kept in this layout; else it only ever is a buffer.
    const OWN: bool;
    /// The activations that it is multiplied with.
    const ACTIVATIONS: ActFormat;
    /// As many tokens are multiplied one by one with a packed fill, straight from its bits: to unpack it to bytes pays
    /// for more of them. Measured with AVX2 on a Zen 2.
    const ONE_BY_ONE: usize;

    /// Whether [`Format::four_tokens`] is more than one token after the other.
    const BY_FOURS: bool = false;

    /// Tail `j` of a file's block.
    fn tail(block: &[u8], j: usize) -> u16;
    /// The inverse.
    fn restore_tail(block: &mut [u8], j: usize, tail: u16);

    /// Blocks `first .. first + n` of 16 rows as a panel has them.
    #[inline(always)]
    fn fill<I: Isa>(
        isa: I,
        ty: GgmlType,
        rows: &FileRows<'_>,
        first_n: (usize, usize),
        words: &mut [u8],
        tails: &mut [u8],
    ) where
        Self: Sized,
    {
        if !Self::OWN {
            return Self::fill_from_any(ty, rows, first_n, words);
        }
        isa.run(Interleave {
            rows,
            first_n,
            words,
            tails,
            format: PhantomData::<Self>,
        });
    }

    /// The same for a form of any type: only where the layout is not [`Format::OWN`].
    fn fill_from_any(_: GgmlType, _: &FileRows<'_>, _: (usize, usize), _: &mut [u8]) {}

    /// Adds the products of one fill of `n` blocks with one token to the sums of its 16 rows. `ahead` is asked for what
    /// comes next in even shares.
    fn one_token<I: Drivers, A: ReadAhead<I>>(
        isa: I,
        blocks: Blocks<'_>,
        n: usize,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    );

    /// [`Format::one_token`] of four tokens, each weight's bits taken once for all of them.
    #[inline(always)]
    fn four_tokens<I: Drivers>(
        isa: I,
        blocks: Blocks<'_>,
        n: usize,
        x: &[Input<'_>; 4],
        acc: &mut [[f32; ROWS]; 4],
    ) {
        for (x, acc) in x.iter().zip(acc) {
            Self::one_token(isa, blocks, n, NoReads, x, acc);
        }
    }

    /// Unpacks one fill. `coming` is asked for what comes next in [`SHARES`](token_tiles::SHARES) for each vector of
    /// rows.
    fn unpack<I: Isa>(isa: I, blocks: Blocks<'_>, n: usize, scratch: &mut Scratch, coming: &mut Coming<'_>);

    /// Adds the products of one fill of `n` blocks, P vectors of rows from number `part` on, with M tokens: the sums of
    /// token t start at `acc[t * stride::<I>()]`, with that of the first panel's first row.
    fn tile<I: Isa, const P: usize, const M: usize>(
        isa: I,
        scratch: &[Scratch; PANELS],
        part: usize,
        n: usize,
        x: &[Input<'_>; M],
        acc: &mut [f32],
    );
}

/// A whole packed panel.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    /// Blocks of a row.
    blocks: usize,
}

impl<'a> Packed<'a> {
    fn new(bytes: &'a [u8], blocks: usize) -> Self {
        Packed { bytes, blocks }
    }

    /// Blocks `first .. first + n`, which belong to one section.
    #[inline(always)]
    fn some<F: Format>(self, first: usize, n: usize) -> Blocks<'a> {
        let start = first / section::<F>() * section::<F>();
        let words = start * block_bytes::<F>() + (first - start) * F::WORDS * WORD;
        let in_section = section::<F>().min(self.blocks - start);
        let tails =
            start * block_bytes::<F>() + in_section * F::WORDS * WORD + (first - start) * F::TAILS * TAIL;
        Blocks {
            words: &self.bytes[words..words + n * F::WORDS * WORD],
            tails: &self.bytes[tails..tails + n * F::TAILS * TAIL],
        }
    }
}

/// Bytes of a whole panel of `blocks` blocks: a multiple of a cache line, so that every panel begins at one.
fn panel_bytes<F: Format>(blocks: usize) -> Option<usize> {
    blocks
        .checked_mul(block_bytes::<F>())?
        .checked_next_multiple_of(64)
}

/// Bytes of a block of 16 rows.
pub(super) const fn block_bytes<F: Format>() -> usize {
    F::WORDS * WORD + F::TAILS * TAIL
}

/// Blocks of a section.
const fn section<F: Format>() -> usize {
    if F::FILL < 2 { 2 } else { F::FILL }
}

/// Some blocks of a panel.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    words: &'a [u8],
    tails: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// Part `part` of block `i`: the rows that one vector covers.
    #[inline(always)]
    pub(super) fn part<I: Isa, F: Format>(self, i: usize, part: usize) -> Part<'a> {
        let (word, tail) = (F::WORDS * WORD, F::TAILS * TAIL);
        // The lengths are known where the code is compiled, so that no access below is checked.
        let words = if word == 0 {
            &[]
        } else {
            &self.words[i * word + part * 4 * I::LANES..][..word - WORD + 4 * I::LANES]
        };
        let tails = if tail == 0 {
            &[]
        } else {
            &self.tails[i * tail + part * 2 * I::LANES..][..tail - TAIL + 2 * I::LANES]
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
    fn word<I: Isa>(&self, isa: I, w: usize) -> I::V {
        isa.load(&self.words[w * WORD..])
    }

    /// Prefetches the words that lie [`PREFETCH_DISTANCE`] behind these: call `i` of `calls` for them all. Memory is
    /// asked for little by little, as a burst of requests would hold up the loads behind it. Every vector of the rows
    /// has a share of the words, this one that of number `part`: together they ask for each line once.
    #[inline(always)]
    fn prefetch<I: Isa, F: Format>(&self, isa: I, (i, calls): (usize, usize), part: usize) {
        let parts = ROWS / I::LANES;
        let share = F::WORDS.div_ceil(parts);
        let words = &self.words[..1];
        for w in i * share / calls..(i + 1) * share / calls {
            isa.prefetch(words, PREFETCH_DISTANCE + part * WORD + w * parts * WORD);
        }
    }

    /// Words `w .. w + 4`.
    #[inline(always)]
    fn four_words<I: Isa>(&self, isa: I, w: usize) -> [I::V; 4] {
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
    fn f32_word<I: Isa>(&self, isa: I, w: usize) -> I::F {
        isa.load_f32(&self.words[w * WORD..])
    }

    /// Tail `i` of each row, a half-precision number.
    #[inline(always)]
    fn f16_tail<I: Isa>(&self, isa: I, i: usize) -> I::F {
        isa.load_f16(&self.tails[i * TAIL..])
    }

    /// Tail `i` of each row, a bfloat16 number.
    #[inline(always)]
    fn bf16_tail<I: Isa>(&self, isa: I, i: usize) -> I::F {
        isa.load_bf16(&self.tails[i * TAIL..])
    }
}
