//! What attention works on: queries of some tokens that share a kv head, one block of the cache, and the softmax states
//! that blocks are added to.
//!
//! A *tile* is some tokens of one sequence times the query heads that share one kv head: its queries share every load
//! of keys and values.

use std::ops::Range;

/// Positions per attention block and per cache page.
pub const BLOCK: usize = 64;

/// Attention blocks of a span, which is what split-KV (Flash-Decoding) hands out: blocks are merged into spans, then
/// spans.
pub const SPAN: usize = 16;

/// Largest head dimension, that of latent attention's keys: bounds the scratch of attention. A multiple of 32.
pub const MAX_HEAD_DIM: usize = 576;

/// The queries of a tile, rotated.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// From the first token's first query on.
    pub q: &'a [f32],
    /// Numbers from one token's first query to the next token's.
    pub stride: usize,
    /// Queries of a token, side by side: one for each query head that shares the kv head.
    pub heads: usize,
    /// Width of a query and of a key.
    pub dim_k: usize,
    /// Factor of the score.
    pub scale: f32,
    /// Soft cap of the score, where the model has one: `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// What distance takes off a score, where the model has that.
    pub distance: Option<Distance<'a>>,
    /// The queries in int8; read where keys are [`KvData::Q8`].
    pub quantized: QuantizedQueries<'a>,
}

/// ALiBi: `score - slope * |i - j|`, i being the position of the query and j that of the key.
#[derive(Debug, Clone, Copy)]
pub struct Distance<'a> {
    /// Slope of each query of a token.
    pub slopes: &'a [f32],
    /// Position of each token, from the first position of the block on.
    pub positions: &'a [f32],
}

impl Distance<'_> {
    /// The slope and the position of query number `index`.
    #[inline(always)]
    pub(crate) fn of(&self, index: usize) -> (f32, f32) {
        let heads = self.slopes.len();
        (self.slopes[index % heads], self.positions[index / heads])
    }
}

/// A tile's queries quantized per 32 values, as activations are, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuantizedQueries<'a> {
    /// `dim_k` per query.
    pub q: &'a [i8],
    /// One scale per 32 values.
    pub d: &'a [f32],
    /// One sum of `q` per 16 values.
    pub sums: &'a [i16],
}

impl<'a> QuantizedQueries<'a> {
    /// Query number `index`, `dim` wide.
    #[inline(always)]
    pub(crate) fn query(&self, index: usize, dim: usize) -> QuantizedQueries<'a> {
        QuantizedQueries {
            q: &self.q[index * dim..(index + 1) * dim],
            d: &self.d[index * (dim / 32)..(index + 1) * (dim / 32)],
            sums: &self.sums[index * (dim / 16)..(index + 1) * (dim / 16)],
        }
    }
}

impl<'a> Queries<'a> {
    /// Query number `index`: the tokens' queries one after the other.
    #[inline(always)]
    pub fn query(&self, index: usize) -> &'a [f32] {
        let start = index / self.heads * self.stride + index % self.heads * self.dim_k;
        &self.q[start..start + self.dim_k]
    }
}

/// One page of the cache: 64 positions of one (layer, kv head). All its numbers are finite, also where nothing was
/// stored yet.
#[derive(Debug, Clone, Copy)]
pub struct KvBlock<'a> {
    /// Keys, d-major: `dim_k` rows of 64 positions.
    pub k: KvData<'a>,
    /// Values, position-major: 64 rows of `dim_v`.
    pub v: KvData<'a>,
    /// Width of a value.
    pub dim_v: usize,
    /// Keys and values of the block that will be wanted next, where that is known: they are prefetched.
    pub next: Option<(KvData<'a>, KvData<'a>)>,
}

/// Numbers of a cache page as stored.
#[derive(Debug, Clone, Copy)]
pub enum KvData<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// IEEE half precision bits.
    F16(&'a [u16]),
    /// int8 with a scale per 32 values of a position (ggml's q8_0), its two parts one after the other: 64 * dim bytes,
    /// then 64 * dim / 32 scales in half precision, little-endian. Keys: byte `[d / 4][position][d % 4]`, scale
    /// `[d / 32][position]`. Values: byte `[position][d]`, scale `[position][d / 32]`.
    Q8(&'a [u8]),
}

impl<'a> KvData<'a> {
    /// As they lie in memory.
    #[inline(always)]
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            KvData::F32(x) => bytemuck::must_cast_slice(x),
            KvData::F16(x) => bytemuck::must_cast_slice(x),
            KvData::Q8(x) => x,
        }
    }
}

/// Bytes of a page of vectors of `dim` in q8_0.
pub(crate) const fn q8_page_len(dim: usize) -> usize {
    BLOCK * (dim + dim / 32 * 2)
}

/// Softmax states of a tile's queries over some positions.
#[derive(Debug)]
pub struct Partials<'a> {
    /// Per query the largest score; a zero is +0.0.
    pub m: &'a mut [f32],
    /// Per query the sum of `exp(score - m)`; 0 where no position was seen yet, at least 1 elsewhere.
    pub l: &'a mut [f32],
    /// Per query the sum of `exp(score - m) * v`, `dim_v` wide; meaningless where `l` is 0.
    pub o: &'a mut [f32],
}

impl Partials<'_> {
    /// Nothing seen yet.
    pub fn clear(&mut self) {
        self.l.fill(0.0);
    }

    /// The same states for a shorter time.
    pub fn reborrow(&mut self) -> Partials<'_> {
        Partials {
            m: self.m,
            l: self.l,
            o: self.o,
        }
    }

    /// The states of some of the queries.
    pub fn part(&mut self, queries: Range<usize>) -> Partials<'_> {
        let dim_v = self.o.len() / self.m.len();
        Partials {
            m: &mut self.m[queries.clone()],
            l: &mut self.l[queries.clone()],
            o: &mut self.o[queries.start * dim_v..queries.end * dim_v],
        }
    }
}

/// Floats that [`Backend::attend`](super::Backend::attend) may use: a block's keys and values widened, and the values'
/// scales.
pub fn attend_scratch(dim_k: usize, dim_v: usize) -> usize {
    BLOCK * (dim_k + dim_v + dim_v.div_ceil(32))
}
