//! Matmul over the file's bytes for types without a panel: a row at a time, for as few tokens as decoding has.
//!
//! ```text
//!   types of 256      step s of a row -> vectors of unsigned bytes, 4 * LANES consecutive k each
//!                     x is loaded alike, takes the weights' signs, and the products are summed up by twos (16 bits)
//!                     group factors, repeated for every pair, make 32-bit sums of them: one accumulator a step
//!   types of 32       128 weights are four steps; as many vectors as they fill, each multiplied by itself
//!   four accumulators -> four integer sums, one for each step -> four float steps, in ascending k
//!   up to four tokens share what is unpacked; the next four take the row from the first-level cache
//! ```
//!
//! The lanes of a vector are weights of one row, so each step ends in a sum over the lanes. It is one of integers,
//! whose order is free. Nothing is unpacked to memory but indices of points.
//!
//! Why no 16-bit sum saturates: a point is at most 62 (iq3_xxs), 2 * 62 * 127 = 15748; digits are at most 3 and up to
//! 16 pairs of them are added up, 16 * 2 * 3 * 127 = 12192.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

mod codebooks;

use std::marker::PhantomData;
use std::ops::Range;

use codebooks::{Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Points};

use crate::Result;
use crate::kernels::isa::{Op, RowIsa, unrolled};
use crate::kernels::matrix::Shard;
use crate::kernels::{ActFormat, Activations, MatmulKernel, Packing, QuantizedRows};
use crate::quant::GgmlType;
use crate::team::Tile;

/// A kernel that takes few tokens row by row and hands all other work to another kernel.
#[derive(Debug)]
pub(super) struct FewTokens<I, K> {
    isa: I,
    other: K,
}

impl<I: RowIsa, K: MatmulKernel> FewTokens<I, K> {
    /// The kernel of a type without a layout: few tokens row by row, more of them by `other`.
    pub(super) fn new(isa: I, other: K) -> Self {
        FewTokens { isa, other }
    }
}

impl<I: RowIsa, K: MatmulKernel> MatmulKernel for FewTokens<I, K> {
    fn format(&self) -> ActFormat {
        self.other.format()
    }

    fn grain(&self) -> usize {
        self.other.grain()
    }

    fn matmul(&self, weight: &Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>) {
        let start = first_row - weight.rows.start;
        let rows = start..start + out.columns().len();
        if !matmul(self.isa, weight, rows, x, out) {
            self.other.matmul(weight, first_row, x, out);
        }
    }

    fn packed_bytes(&self, n: usize, k: usize) -> Result<Option<usize>> {
        self.other.packed_bytes(n, k)
    }

    fn pack(&self, mapped: &[Vec<Shard>], packing: &Packing<'_>) -> Result<Option<Vec<Vec<Shard>>>> {
        self.other.pack(mapped, packing)
    }

    fn decode_row(&self, weight: &Shard, row: usize, out: &mut [f32]) -> Result<()> {
        self.other.decode_row(weight, row, out)
    }
}

/// Tokens that are taken row by row, at most: for more of them it is faster to unpack the weights.
const FEW: usize = 8;

/// Computes rows of a mapped shard, counted from its first row, for at most [`FEW`] tokens. Whether it could: false for
/// more tokens or a type that has no kernel here, and nothing is done.
fn matmul<I: RowIsa>(
    isa: I,
    weight: &Shard,
    rows: Range<usize>,
    x: &Activations<'_>,
    out: &mut Tile<'_>,
) -> bool {
    macro_rules! of {
        ($ops:ident::<$kind:ty>) => {{
            match x.m() {
                1 => isa.run($ops::<$kind, 1>::new(weight, rows, x, out)),
                2 => isa.run($ops::<$kind, 2>::new(weight, rows, x, out)),
                3..=FEW => isa.run($ops::<$kind, 4>::new(weight, rows, x, out)),
                _ => return false,
            }
            true
        }};
    }
    match weight.ty {
        GgmlType::IQ1_S => of!(Rows256::<Points<Iq1S>>),
        GgmlType::IQ1_M => of!(Rows256::<Points<Iq1M>>),
        GgmlType::IQ2_XXS => of!(Rows256::<Points<Iq2Xxs>>),
        GgmlType::IQ2_XS => of!(Rows256::<Points<Iq2Xs>>),
        GgmlType::IQ2_S => of!(Rows256::<Points<Iq2S>>),
        GgmlType::IQ3_XXS => of!(Rows256::<Points<Iq3Xxs>>),
        GgmlType::IQ3_S => of!(Rows256::<Points<Iq3S>>),
        GgmlType::TQ1_0 => of!(Rows256::<Tq1>),
        GgmlType::TQ2_0 => of!(Rows256::<Tq2>),
        GgmlType::Q1_0 => of!(Rows32::<Q1>),
        GgmlType::Q2_0 => of!(Rows32::<Q2>),
        _ => false,
    }
}

/// One token's activations, a step at a time.
#[derive(Clone, Copy)]
struct Token<'a> {
    x: QuantizedRows<'a>,
    row: usize,
}

impl<'a> Token<'a> {
    /// A step of N values, and its scale.
    #[inline(always)]
    fn at<const N: usize>(&self, step: usize) -> Option<(&'a [i8; N], f32)> {
        let (block, step) = (step * N / 256, step % (256 / N));
        let block = self.x.block(self.row, block)?;
        Some((
            block.q.as_flattened().as_chunks().0.get(step)?,
            *block.d.get(step)?,
        ))
    }

    /// The sum over a step of 32.
    #[inline(always)]
    fn sum_of_32(&self, step: usize) -> i32 {
        let block = self.x.block(self.row, step / 8);
        block.map_or(0, |block| i32::from(block.sums32[step % 8]))
    }

    /// The sum over a step of 256.
    #[inline(always)]
    fn sum(&self, step: usize) -> i32 {
        let sums = self.x.block(self.row, step).map(|block| &block.sums32);
        sums.into_iter().flatten().fold(0, |a, b| a + i32::from(*b))
    }
}

/// M tokens of `m` from number `first` on; where there are fewer, the last one is repeated.
#[inline(always)]
fn tokens<const M: usize>(x: QuantizedRows<'_>, m: usize, first: usize) -> [Token<'_>; M] {
    let mut tokens = [Token { x, row: first }; M];
    for (i, token) in tokens.iter_mut().enumerate() {
        token.row = (first + i).min(m - 1);
    }
    tokens
}

/// Writes output `column` of M tokens from number `first` on, of those that there are.
#[inline(always)]
fn show<const M: usize>(out: &mut Tile<'_>, column: usize, first: usize, acc: [f32; M]) {
    for (t, acc) in (first..out.rows()).zip(acc) {
        out.row(t)[column] = acc;
    }
}

/// A type with blocks of 256 weights.
pub(super) trait Kind256 {
    /// Bytes of a block.
    const BYTES: usize;
    /// What the block's f16 is multiplied with: a power of two.
    const FACTOR: f32 = 1.0;
    /// Weights are the unsigned ones less one: the activations' sum is taken off.
    const CENTRED: bool = false;

    /// The bits of a block's f16.
    fn d(block: &[u8]) -> u16;
    /// The products of a block and a step of each token, summed up in 32-bit lanes.
    fn dot<I: RowIsa, const M: usize>(isa: I, block: &[u8], x: &[&[i8; 256]; M]) -> [I::V; M];
}

struct Rows256<'a, 'b, K, const M: usize> {
    weight: &'a Shard,
    rows: Range<usize>,
    x: QuantizedRows<'a>,
    out: &'a mut Tile<'b>,
    kind: PhantomData<K>,
}

impl<'a, 'b, K: Kind256, const M: usize> Rows256<'a, 'b, K, M> {
    fn new(weight: &'a Shard, rows: Range<usize>, x: &'a Activations<'_>, out: &'a mut Tile<'b>) -> Self {
        Rows256 {
            weight,
            rows,
            x: x.quantized(ActFormat::Q256),
            out,
            kind: PhantomData,
        }
    }
}

impl<I: RowIsa, K: Kind256, const M: usize> Op<I> for Rows256<'_, '_, K, M> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let (first, m) = (self.weight.rows.start, self.out.rows());
        for (column, row) in self.rows.clone().enumerate() {
            let row = self.weight.row(first + row);
            let whole = row.len() / K::BYTES / 4 * 4;
            for token in (0..m).step_by(M) {
                let x = tokens(self.x, m, token);
                let mut acc = [0.0; M];
                for (i, blocks) in row.chunks_exact(4 * K::BYTES).enumerate() {
                    four_steps::<I, K, M>(isa, blocks, 4 * i, 4, &x, &mut acc);
                }
                let rest = &row[whole * K::BYTES..];
                if !rest.is_empty() {
                    four_steps::<I, K, M>(isa, rest, whole, rest.len() / K::BYTES, &x, &mut acc);
                }
                show(self.out, column, token, acc);
            }
        }
    }
}

/// At most four steps of one row. `n` is known where there are four.
#[inline(always)]
fn four_steps<I: RowIsa, K: Kind256, const M: usize>(
    isa: I,
    blocks: &[u8],
    first: usize,
    n: usize,
    x: &[Token<'_>; M],
    acc: &mut [f32; M],
) {
    let mut products = [[isa.zero(); 4]; M];
    let mut offsets = [[0i32; 4]; M];
    let mut dx = [[0.0f32; 4]; M];
    let mut halves = [0u16; 16];
    for (i, block) in blocks.chunks_exact(K::BYTES).take(4).enumerate() {
        halves[i] = K::d(block);
        let mut steps = [&[0i8; 256]; M];
        for t in 0..M {
            let Some((step, d)) = x[t].at(first + i) else {
                return;
            };
            (steps[t], dx[t][i]) = (step, d);
            if K::CENTRED {
                offsets[t][i] = x[t].sum(first + i);
            }
        }
        let dots = K::dot(isa, block, &steps);
        for t in 0..M {
            products[t][i] = dots[t];
        }
    }
    let d = floats(isa, &halves);
    for t in 0..M {
        let sums = isa.sums(products[t]);
        for i in 0..n {
            acc[t] += ((d[i] * K::FACTOR) * dx[t][i]) * (sums[i] - offsets[t][i]) as f32;
        }
    }
}

/// Half-precision numbers, of which four are wanted.
#[inline(always)]
fn floats<I: RowIsa>(isa: I, halves: &[u16; 16]) -> [f32; 16] {
    let mut d = [0.0; 16];
    isa.store_f(isa.load_halves(halves), &mut d);
    d
}

#[inline(always)]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The same 16 bytes of `bytes` in every 16 of a vector.
#[inline(always)]
pub(super) fn repeat_at<I: RowIsa>(isa: I, bytes: &[u8], at: usize) -> I::V {
    isa.repeat(&std::array::from_fn(|i| bytes[at + i]))
}

// The types of digits.

struct Tq1;

impl Kind256 for Tq1 {
    const BYTES: usize = 54;
    const CENTRED: bool = true;

    #[inline(always)]
    fn d(block: &[u8]) -> u16 {
        u16_at(block, 52)
    }

    #[inline(always)]
    fn dot<I: RowIsa, const M: usize>(isa: I, block: &[u8], x: &[&[i8; 256]; M]) -> [I::V; M] {
        // The fractions whose first digits are the weights, in the weights' order; see `powers`.
        let mut fractions = [0u8; 256];
        let (a, b) = fractions.split_at_mut(160);
        let (b, c) = b.split_at_mut(80);
        powers::<32>(&block[..32], a);
        powers::<16>(&block[32..48], b);
        powers::<4>(&block[48..52], c);
        let mut sums = [isa.zero(); M];
        let width = 4 * I::LANES;
        for i in 0..256 / width {
            let v = isa.load(&fractions[i * width..]);
            let three_quarters = isa.average8(v, isa.average8(v, isa.zero()));
            let w = isa.and(isa.shr16(three_quarters, 6), isa.splat8(3));
            for t in 0..M {
                let x = isa.load_row(&x[t][i * width..]);
                sums[t] = isa.add16(sums[t], isa.products(w, x));
            }
        }
        widened(isa, sums)
    }
}

/// `3^n` times each byte v for ascending n, less one where that is not 0.
///
/// The digit is `(3 * v) >> 8`, or how many of 86 and 171 are at most v. Rounded averages make three quarters of a
/// byte, but count from 85 and 170; hence the one less.
#[inline(always)]
fn powers<const N: usize>(bytes: &[u8], out: &mut [u8]) {
    let mut power: [u8; N] = std::array::from_fn(|j| bytes[j]);
    for out in out.as_chunks_mut::<N>().0 {
        *out = power.map(|b| b.saturating_sub(1));
        power = power.map(|b| b.wrapping_add(b).wrapping_add(b));
    }
}

/// Pairs of 16-bit sums, added up.
#[inline(always)]
fn widened<I: RowIsa, const M: usize>(isa: I, sums: [I::V; M]) -> [I::V; M] {
    let ones = isa.splat16(1);
    let mut out = [isa.zero(); M];
    for t in 0..M {
        out[t] = isa.dot_pairs_of(isa.zero(), sums[t], ones);
    }
    out
}

struct Tq2;

impl Kind256 for Tq2 {
    const BYTES: usize = 66;
    const CENTRED: bool = true;

    #[inline(always)]
    fn d(block: &[u8]) -> u16 {
        u16_at(block, 64)
    }

    #[inline(always)]
    fn dot<I: RowIsa, const M: usize>(isa: I, block: &[u8], x: &[&[i8; 256]; M]) -> [I::V; M] {
        let block = &block[..66];
        let mut sums = [isa.zero(); M];
        let (width, vectors) = (4 * I::LANES, 16 / I::LANES);
        unrolled!(v in vectors, at most 4 => {
            let bytes = isa.load(&block[v * width..]);
            // 32 bytes hold 128 weights, in the order of the shifts.
            let first = v * width / 32 * 128 + v * width % 32;
            unrolled!(shift in 4, at most 4 => {
                let w = isa.and(isa.shr16(bytes, 2 * shift as u32), isa.splat8(3));
                for t in 0..M {
                    let x = &x[t][first + 32 * shift..];
                    let x = if width > 32 {
                        isa.load_two(x, &x[128..])
                    } else {
                        isa.load_row(x)
                    };
                    sums[t] = isa.add16(sums[t], isa.products(w, x));
                }
            });
        });
        widened(isa, sums)
    }
}

// The types with steps of 32.

/// A type with blocks of some steps of 32 weights, four at most.
trait Kind32 {
    /// Bytes of a block; its f16 comes first.
    const BYTES: usize;
    /// Steps of a block.
    const STEPS: usize;
    /// Weights are the unsigned ones less one: the activations' sum is taken off.
    const CENTRED: bool;

    /// Vector `v` of a block's weights times the activations, summed up by twos.
    fn products<I: RowIsa, const M: usize>(isa: I, block: &[u8], v: usize, x: [I::V; M]) -> [I::V; M];
}

struct Rows32<'a, 'b, K, const M: usize> {
    weight: &'a Shard,
    rows: Range<usize>,
    x: QuantizedRows<'a>,
    out: &'a mut Tile<'b>,
    kind: PhantomData<K>,
}

impl<'a, 'b, K: Kind32, const M: usize> Rows32<'a, 'b, K, M> {
    fn new(weight: &'a Shard, rows: Range<usize>, x: &'a Activations<'_>, out: &'a mut Tile<'b>) -> Self {
        Rows32 {
            weight,
            rows,
            x: x.quantized(ActFormat::Q32),
            out,
            kind: PhantomData,
        }
    }
}

impl<I: RowIsa, K: Kind32, const M: usize> Op<I> for Rows32<'_, '_, K, M> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let (first, m) = (self.weight.rows.start, self.out.rows());
        for (column, row) in self.rows.clone().enumerate() {
            let row = self.weight.row(first + row);
            for token in (0..m).step_by(M) {
                let x = tokens(self.x, m, token);
                let mut acc = [0.0; M];
                // The f16 of 8 blocks are made floats at once.
                for (i, blocks) in row.chunks(8 * K::BYTES).enumerate() {
                    let mut halves = [0u16; 16];
                    for (half, block) in halves.iter_mut().zip(blocks.chunks_exact(K::BYTES)) {
                        *half = u16_at(block, 0);
                    }
                    let d = floats(isa, &halves);
                    for (j, block) in blocks.chunks_exact(K::BYTES).enumerate() {
                        one_block::<I, K, M>(isa, (block, d[j & 15]), 8 * i + j, &x, &mut acc);
                    }
                }
                show(self.out, column, token, acc);
            }
        }
    }
}

#[inline(always)]
fn one_block<I: RowIsa, K: Kind32, const M: usize>(
    isa: I,
    (block, d): (&[u8], f32),
    index: usize,
    x: &[Token<'_>; M],
    acc: &mut [f32; M],
) {
    let mut steps = [[&[0i8; 32]; 4]; M];
    let mut dx = [[0.0f32; 4]; M];
    let mut offsets = [[0i32; 4]; M];
    for t in 0..M {
        for s in 0..K::STEPS {
            let step = index * K::STEPS + s;
            let Some((q, d)) = x[t].at(step) else { return };
            (steps[t][s], dx[t][s]) = (q, d);
            if K::CENTRED {
                offsets[t][s] = x[t].sum_of_32(step);
            }
        }
    }
    let width = 4 * I::LANES;
    let mut products = [[isa.zero(); 8]; M];
    unrolled!(v in 32 * K::STEPS / width, at most 8 => {
        let mut parts = [isa.zero(); M];
        for t in 0..M {
            let steps = &steps[t];
            parts[t] = if width > 32 {
                isa.load_two(steps[(2 * v) & 3], steps[(2 * v + 1) & 3])
            } else {
                isa.load_row(&steps[(v * width / 32) & 3][v * width % 32..])
            };
        }
        let pairs = K::products(isa, block, v, parts);
        for t in 0..M {
            products[t][v] = pairs[t];
        }
    });
    for t in 0..M {
        let sums = isa.sums_of_32(widened(isa, products[t]));
        for s in 0..K::STEPS {
            acc[t] += (d * dx[t][s]) * (sums[s] - offsets[t][s]) as f32;
        }
    }
}

struct Q1;

impl Kind32 for Q1 {
    const BYTES: usize = 18;
    const STEPS: usize = 4;
    const CENTRED: bool = false;

    #[inline(always)]
    fn products<I: RowIsa, const M: usize>(isa: I, block: &[u8], v: usize, x: [I::V; M]) -> [I::V; M] {
        // A clear bit is -1.
        let minus: [u8; 16] = std::array::from_fn(|i| !block[2 + i]);
        let mut out = [isa.zero(); M];
        for t in 0..M {
            let x = isa.negate_where(x[t], &minus[v * I::LANES / 2..]);
            out[t] = isa.products(isa.splat8(1), x);
        }
        out
    }
}

struct Q2;

impl Kind32 for Q2 {
    const BYTES: usize = 18;
    const STEPS: usize = 2;
    const CENTRED: bool = true;

    #[inline(always)]
    fn products<I: RowIsa, const M: usize>(isa: I, block: &[u8], v: usize, x: [I::V; M]) -> [I::V; M] {
        /// Where the nibble of each pair of weights is, for even pairs (low nibbles) and odd ones (high nibbles).
        static PLACES: [[u8; 64]; 2] = {
            let mut places = [[0x80; 64]; 2];
            let mut i = 0;
            while i < 64 {
                places[i / 2 % 2][i] = if i % 2 == 0 { i as u8 / 4 } else { 0x80 };
                i += 1;
            }
            places
        };
        let bytes = repeat_at(isa, block, 2);
        let (low, high) = (
            isa.and(bytes, isa.splat8(15)),
            isa.and(isa.shr16(bytes, 4), isa.splat8(15)),
        );
        let at = v * 4 * I::LANES;
        let even = isa.shuffle(low, isa.load(&PLACES[0][at..]));
        let odd = isa.shuffle(high, isa.load(&PLACES[1][at..]));
        // Lanes of one nibble n: n * 65 has n & 3 at the bottom of its low byte and n >> 2 in its high byte.
        let spread = isa.mul16(isa.or(even, odd), isa.splat16(65));
        let w = isa.and(spread, isa.splat8(3));
        let mut out = [isa.zero(); M];
        for t in 0..M {
            out[t] = isa.products(w, x[t]);
        }
        out
    }
}
