//! Every backend that this machine has gives the scalar backend's bits: matrix products of every type, storage and shape,
//! the other operations, and whole models.
#![allow(clippy::unwrap_used)] // helpers of tests

mod attention;
mod matmul;
mod models;
mod operations;

use twinfer_engine::kernels::{Backend, select};

/// The backends beside scalar. Those that this build knows and this machine lacks are named.
fn backends() -> Vec<&'static dyn Backend> {
    for name in select::missing() {
        println!("backends: LEFT OUT {name}: this machine lacks its instructions");
    }
    select::available()
        .iter()
        .copied()
        .filter(|backend| backend.name() != "scalar")
        .collect()
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// Magnitudes from 2^-8 to 2^3, either sign.
    fn float(&mut self) -> f32 {
        let bits = self.next() as u32;
        f32::from_bits(bits & 0x807f_ffff | ((119 + (bits >> 24) % 12) << 23))
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Equal bits, NaNs alike.
fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{what}: number {i} is {got:e}, scalar has {want:e}"
        );
    }
}
