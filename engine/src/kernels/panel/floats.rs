//! The kernels for float weights: sums sequential in k, multiply and add rounded each by itself.
//!
//! ```text
//!   panel: k = 0: row 0, row 1, ... row 15 | k = 1: ...      a block is one weight: a word (f32) or a tail (f16, bf16)
//! ```
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::token_tiles::{Coming, SHARES, Scratch, place, stride, sums_of};
use super::{Blocks, Drivers, Format, Input, PREFETCH_DISTANCE, Part, ROWS, ReadAhead, block_bytes};
use crate::kernels::ActFormat;
use crate::kernels::functions::Lanes;
use crate::kernels::isa::Isa;
use crate::quant::GgmlType;

/// A float type.
pub(in crate::kernels) trait Float: std::fmt::Debug + Send + Sync + 'static {
    /// The type in the file.
    const TYPE: GgmlType;
    /// One weight of each row as f32.
    fn load<I: Isa>(isa: I, block: &Part<'_>) -> I::F;
}

macro_rules! float {
    ($name:ident, $ty:ident, $load:ident, $at:literal) => {
        #[doc = concat!("Weights of type ", stringify!($ty), ".")]
        #[derive(Debug)]
        pub(super) struct $name;

        impl Float for $name {
            const TYPE: GgmlType = GgmlType::$ty;
            #[inline(always)]
            fn load<I: Isa>(isa: I, block: &Part<'_>) -> I::F {
                block.$load(isa, $at)
            }
        }
    };
}
float!(F32, F32, f32_word, 0);
float!(F16, F16, f16_tail, 0);
float!(Bf16, BF16, bf16_tail, 0);

/// The format of a float type.
#[derive(Debug)]
pub(in crate::kernels) struct Floats<T>(PhantomData<T>);

impl<T: Float> Format for Floats<T> {
    const TYPE: GgmlType = T::TYPE;
    const BLOCK_LEN: usize = 1;
    const FILL: usize = 64;
    const WORDS_AT: usize = 0;
    const WORDS: usize = T::TYPE.block_bytes() / 4;
    const TAILS: usize = T::TYPE.block_bytes() % 4 / 2;
    const OWN: bool = true;
    const ACTIVATIONS: ActFormat = ActFormat::F32;
    // A tile of few tokens is bound by memory, as one token is.
    const ONE_BY_ONE: usize = 1;

    #[inline(always)]
    fn tail(block: &[u8], _: usize) -> u16 {
        u16::from_le_bytes([block[0], block[1]])
    }

    fn restore_tail(block: &mut [u8], _: usize, tail: u16) {
        block.copy_from_slice(&tail.to_le_bytes());
    }

    #[inline(always)]
    fn one_token<I: Drivers, A: ReadAhead<I>>(
        isa: I,
        blocks: Blocks<'_>,
        n: usize,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    ) {
        // All 16 rows side by side: their chains of additions hide each other's latency.
        let mut sums = [I::F::splat(0.0); 4];
        let parts = ROWS / I::LANES;
        for part in 0..parts {
            sums[part] = isa.load_f(&acc[part * I::LANES..]);
        }
        let bytes = if Self::WORDS > 0 {
            blocks.words
        } else {
            blocks.tails
        };
        for (k, x) in x.x[..n].iter().enumerate() {
            ahead.share(isa, k, n);
            isa.prefetch(bytes, PREFETCH_DISTANCE + k * block_bytes::<Self>());
            for part in 0..parts {
                let w = T::load(isa, &blocks.part::<I, Self>(k, part));
                sums[part] = isa.add_times(sums[part], w, x);
            }
        }
        for part in 0..parts {
            isa.store_f(sums[part], &mut acc[part * I::LANES..]);
        }
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, blocks: Blocks<'_>, n: usize, scratch: &mut Scratch, coming: &mut Coming<'_>) {
        for (k, out) in scratch.floats.chunks_exact_mut(ROWS).enumerate().take(n) {
            if k.is_multiple_of(Self::FILL / SHARES) {
                coming.shares(isa, 1);
            }
            for part in 0..ROWS / I::LANES {
                let w = T::load(isa, &blocks.part::<I, Self>(k, part));
                isa.store_f(w, &mut out[part * I::LANES..]);
            }
        }
    }

    #[inline(always)]
    fn tile<I: Isa, const P: usize, const M: usize>(
        isa: I,
        scratch: &[Scratch; 2],
        part: usize,
        n: usize,
        x: &[Input<'_>; M],
        acc: &mut [f32],
    ) {
        let acc = &mut acc[..M * stride::<I>()];
        let mut rows: [&[f32]; M] = [&[]; M];
        let mut sums = [[I::F::splat(0.0); P]; M];
        for t in 0..M {
            rows[t] = &x[t].x[..n];
            for p in 0..P {
                sums[t][p] = isa.load_f(&acc[sums_of::<I>(t, part + p)..]);
            }
        }
        for k in 0..n.min(64) {
            let mut w = [I::F::splat(0.0); P];
            for p in 0..P {
                let (panel, row) = place::<I>(part + p);
                w[p] = isa.load_f(&scratch[panel].floats[k * ROWS + row * I::LANES..]);
            }
            for t in 0..M {
                for p in 0..P {
                    sums[t][p] = isa.add_times(sums[t][p], w[p], &rows[t][k]);
                }
            }
        }
        for t in 0..M {
            for p in 0..P {
                isa.store_f(sums[t][p], &mut acc[sums_of::<I>(t, part + p)..]);
            }
        }
    }
}
