//! How fast steps of weights become integers on one thread: `cargo run --release --example unpack_speed [type...]`.
//!
//! Per type the median of million weights per second over rows that stay in the second-level cache; nanoseconds per step.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use twinfer_engine::quant::{GgmlType, Step, step_len, step_unpacker};

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    for &ty in GgmlType::ALL {
        let Some(unpack) = step_unpacker(ty) else { continue };
        if !asked.is_empty() && !asked.iter().any(|name| GgmlType::from_name(name) == Some(ty)) {
            continue;
        }
        let k = 64 * 1024;
        let row: Vec<u8> = (0..ty.row_bytes(k).unwrap())
            .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8)
            .collect();
        let (steps, mut step) = (k / step_len(ty), Step::default());
        let mut times: Vec<f64> = (0..31)
            .map(|_| {
                let start = Instant::now();
                for i in 0..steps {
                    unpack(black_box(&row), i, black_box(&mut step));
                }
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{:>8}: {:7.0} M weights/s, {:6.1} ns per step of {}",
            ty.name(),
            k as f64 * 1e-6 / times[15],
            times[15] * 1e9 / steps as f64,
            step_len(ty)
        );
    }
}
