//! Every backend that this machine has gives the scalar backend's bits: matrix products of every type, storage and
//! shape, the other operations, and whole models.
//!
//! Two environment variables are for processors that are emulated (`cargo xtask emulate`): `TWINFER_TEST_BACKEND` names
//! the one backend to compare, which then must be there; with `TWINFER_TEST_REDUCED` a part of the cases is compared.
#![allow(clippy::unwrap_used)] // helpers of tests

mod attention;
mod matmul;
mod models;
mod operations;

use std::sync::Once;

use twinfer_engine::kernels::{Backend, select};

/// The backends beside scalar. Those that this build knows and this machine lacks are named.
fn backends() -> Vec<&'static dyn Backend> {
    static NAMED: Once = Once::new();

    if let Ok(name) = std::env::var("TWINFER_TEST_BACKEND") {
        // A test that was asked for and cannot be done has not passed.
        let backend = select::choose(Some(&name)).unwrap();
        assert_eq!(backend.name(), name, "TWINFER_TEST_BACKEND names one backend");
        NAMED.call_once(|| println!("backends: comparing {name} alone"));
        return vec![backend];
    }
    NAMED.call_once(|| {
        for name in select::missing() {
            println!("backends: LEFT OUT {name}: this machine lacks its instructions");
        }
    });
    select::available()
        .iter()
        .copied()
        .filter(|backend| backend.name() != "scalar")
        .chain(select::plain_tiles())
        .collect()
}

/// Whether a part of the cases is enough: each type, storage, operation and kind of edge, but not each combination. An
/// emulated processor is some hundred times slower than a real one.
fn reduced() -> bool {
    std::env::var_os("TWINFER_TEST_REDUCED").is_some()
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
