//! Panels of float weights: for each k the 16 rows side by side, in the file's type. A sum is sequential in k; multiply
//! and add are rounded each by itself.
//!
//! ```text
//!   k = 0: row 0, row 1, ... row 15 | k = 1: row 0, ...      (64 bytes each for f32, 32 for f16 and bf16)
//! ```
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use super::functions::Lanes;
use super::isa::Isa;
use super::panel::{Format, ROWS, Row};
use crate::kernels::ActFormat;
use crate::quant::{self, GgmlType};

/// A float type.
pub(super) trait Float: std::fmt::Debug + Send + Sync + 'static {
    /// The type in the file.
    const TYPE: GgmlType;
    /// `ROWS` numbers as f32.
    fn load<I: Isa>(isa: I, bytes: &[u8]) -> I::F;
}

macro_rules! float {
    ($name:ident, $ty:ident, $load:ident) => {
        #[doc = concat!("Weights of type ", stringify!($ty), ".")]
        #[derive(Debug)]
        pub(super) struct $name;

        impl Float for $name {
            const TYPE: GgmlType = GgmlType::$ty;
            #[inline(always)]
            fn load<I: Isa>(isa: I, bytes: &[u8]) -> I::F {
                isa.$load(bytes)
            }
        }
    };
}
float!(F32, F32, load_f32);
float!(F16, F16, load_f16);
float!(Bf16, BF16, load_bf16);

/// The format of a float type; a panel step is one k.
#[derive(Debug)]
pub(super) struct Floats<T>(PhantomData<T>);

impl<T: Float> Format for Floats<T> {
    const STEP: usize = 1;
    const BYTES: usize = ROWS * T::TYPE.block_bytes();
    const OWN: bool = true;
    const ACTIVATIONS: ActFormat = ActFormat::F32;

    fn pack(_: GgmlType, rows: &[Option<&[u8]>; ROWS], first: usize, out: &mut [u8]) {
        let size = T::TYPE.block_bytes();
        for (r, row) in rows.iter().enumerate() {
            if let Some(row) = row {
                let numbers = row[first * size..].chunks_exact(size);
                for (out, number) in out.chunks_exact_mut(Self::BYTES).zip(numbers) {
                    out[r * size..(r + 1) * size].copy_from_slice(number);
                }
            }
        }
    }

    fn decode(panel: &[u8], row: usize, out: &mut [f32]) {
        let size = T::TYPE.block_bytes();
        for (step, out) in panel.chunks_exact(Self::BYTES).zip(out) {
            let number = &step[row * size..(row + 1) * size];
            // Cannot fail: one number of the type into one float.
            let _ = quant::decode(T::TYPE, number, std::slice::from_mut(out));
        }
    }

    #[inline(always)]
    fn accumulate<I: Isa, const M: usize>(
        isa: I,
        panel: &[u8],
        first: usize,
        x: &[Row<'_>; M],
        acc: &mut [[f32; ROWS]; M],
    ) {
        let n = panel.len() / Self::BYTES;
        let mut rows: [&[f32]; M] = [&[]; M];
        for t in 0..M {
            match x[t].x.get(first..first + n) {
                Some(row) => rows[t] = row,
                None => return,
            }
        }
        let parts = ROWS / I::ROWS;
        let mut sums = [[I::F::splat(0.0); M]; 4];
        for part in 0..parts {
            for t in 0..M {
                sums[part][t] = isa.load_f(&acc[t][part * I::ROWS..]);
            }
        }
        for (k, step) in panel.chunks_exact(Self::BYTES).enumerate() {
            for part in 0..parts {
                let w = T::load(isa, &step[part * I::ROWS * T::TYPE.block_bytes()..]);
                for t in 0..M {
                    sums[part][t] = sums[part][t].add(I::F::splat(rows[t][k]).mul(w));
                }
            }
        }
        for part in 0..parts {
            for t in 0..M {
                isa.store_f(sums[part][t], &mut acc[t][part * I::ROWS..]);
            }
        }
    }
}
