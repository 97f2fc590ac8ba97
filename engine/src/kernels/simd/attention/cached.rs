//! The numbers of a cache page: read as floats in whatever type they are kept, and rounded to half precision.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use crate::kernels::functions::Lanes;
use crate::kernels::isa::{Isa, Op};
use crate::kernels::scalar::attention as scalar;

/// Rows of numbers as the cache holds them: keys by d, values by position.
pub(super) trait CachedRows: Copy {
    /// N vectors of row `row`, from number `at` on.
    fn load<I: Isa, const N: usize>(self, isa: I, row: usize, at: usize) -> [I::F; N];
    fn get(self, row: usize, at: usize) -> f32;
}

/// Rows of `width` numbers.
#[derive(Clone, Copy)]
pub(super) struct Plain<'a, T> {
    numbers: &'a [T],
    width: usize,
}

impl CachedRows for Plain<'_, f32> {
    #[inline(always)]
    fn load<I: Isa, const N: usize>(self, isa: I, row: usize, at: usize) -> [I::F; N] {
        let numbers = &self.numbers[row * self.width + at..][..N * I::LANES];
        let mut out = [I::F::splat(0.0); N];
        for n in 0..N {
            out[n] = isa.load_f(&numbers[n * I::LANES..]);
        }
        out
    }
    #[inline(always)]
    fn get(self, row: usize, at: usize) -> f32 {
        self.numbers[row * self.width + at]
    }
}

impl CachedRows for Plain<'_, u16> {
    #[inline(always)]
    fn load<I: Isa, const N: usize>(self, isa: I, row: usize, at: usize) -> [I::F; N] {
        let numbers = &self.numbers[row * self.width + at..][..N * I::LANES];
        let mut out = [I::F::splat(0.0); N];
        for n in 0..N {
            out[n] = isa.load_halves(&numbers[n * I::LANES..]);
        }
        out
    }
    #[inline(always)]
    fn get(self, row: usize, at: usize) -> f32 {
        half::f16::from_bits(self.numbers[row * self.width + at]).to_f32_const()
    }
}

pub(super) fn plain<T>(numbers: &[T], width: usize) -> Plain<'_, T> {
    Plain { numbers, width }
}

/// Halves as floats: whole vectors, as a block has 64 positions.
#[inline(always)]
pub(super) fn widened<'a, I: Isa>(isa: I, from: &[u16], to: &'a mut [f32]) -> &'a [f32] {
    for (from, to) in from.as_chunks::<16>().0.iter().zip(to.as_chunks_mut::<16>().0) {
        for part in 0..16 / I::LANES {
            let at = part * I::LANES;
            isa.store_f(isa.load_halves(&from[at..]), &mut to[at..]);
        }
    }
    to
}

/// A page of values in q8_0 as floats; `scales` is room for its scales.
#[inline(always)]
pub(super) fn dequantize<I: Isa>(isa: I, page: &[u8], scales: &mut [f32], to: &mut [f32]) {
    let (quants, halves) = page.split_at(to.len());
    let scales = &mut scales[..to.len() / 32];
    for (from, to) in halves
        .chunks_exact(2 * I::LANES)
        .zip(scales.chunks_exact_mut(I::LANES))
    {
        isa.store_f(isa.load_f16(from), to);
    }
    for ((from, to), scale) in quants
        .as_chunks::<32>()
        .0
        .iter()
        .zip(to.as_chunks_mut::<32>().0)
        .zip(scales)
    {
        let scale = I::F::splat(*scale);
        for at in (0..32).step_by(I::LANES) {
            isa.store_f(isa.load_i8(&from[at..]).mul(scale), &mut to[at..]);
        }
    }
}

pub(in crate::kernels::simd) struct ToHalves<'a> {
    pub(in crate::kernels::simd) x: &'a [f32],
    pub(in crate::kernels::simd) out: &'a mut [u16],
}

impl<I: Isa> Op<I> for ToHalves<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self, isa: I) -> bool {
        let whole = self.x.len() / I::LANES * I::LANES;
        let mut finite = true;
        for (x, out) in self.x[..whole]
            .chunks_exact(I::LANES)
            .zip(self.out.chunks_exact_mut(I::LANES))
        {
            finite &= isa.store_halves(isa.load_f(x), out);
        }
        finite & scalar::to_halves(&self.x[whole..], &mut self.out[whole..])
    }
}
