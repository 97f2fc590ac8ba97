//! How fast the matrix kernels are on one thread: `cargo run --release --example kernel_speed [type...]`.
//!
//! Each backend and type: 512 tokens (GMAC/s) and one token (GB/s of weights), medians. A result is compared with scalar's
//! before it is timed. Beside them the rate at which this thread reads memory, in the same minute.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use twinfer_engine::gguf::Bytes;
use twinfer_engine::kernels::{Backend, Operand, Storage, select};
use twinfer_engine::quant::GgmlType;
use twinfer_engine::team::Team;

/// Seconds that this thread has run on a core, where the system says so (Linux): on a busy machine the clock on the wall
/// measures the neighbours. Else the time since `start`.
fn seconds(start: Instant) -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| start.elapsed().as_secs_f64(), |ns| ns * 1e-9)
}

/// Median seconds of `runs` runs.
fn median(runs: usize, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let before = seconds(start);
            f();
            seconds(start) - before
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

/// Moderate blocks: every byte small, so that no scale is infinite.
fn weights(ty: GgmlType, n: usize, k: usize) -> Bytes {
    let len = ty.row_bytes(k).unwrap() * n;
    Bytes::from_vec(
        (0..len)
            .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8 & 0x3b)
            .collect(),
    )
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let types: Vec<GgmlType> = if asked.is_empty() {
        vec![
            GgmlType::Q4_K,
            GgmlType::Q6_K,
            GgmlType::Q8_0,
            GgmlType::Q5_K,
            GgmlType::F16,
        ]
    } else {
        asked
            .iter()
            .filter_map(|name| GgmlType::from_name(name))
            .collect()
    };
    let team = Team::single();
    let memory = vec![1u64; 32 << 20];
    let seconds = median(5, || {
        black_box(memory.iter().fold(0u64, |a, b| a.wrapping_add(*b)));
    });
    println!(
        "memory read, one thread: {:.1} GB/s",
        memory.len() as f64 * 8e-9 / seconds
    );
    let (n, k) = (1024, 2048);
    let x: Vec<f32> = (0..512 * k)
        .map(|i| ((i * 37 % 201) as f32 - 100.0) / 64.0)
        .collect();
    for ty in types {
        let scalar = select::choose(Some("scalar")).unwrap();
        let want = product(scalar, ty, (16, k), &x[..9 * k], &team);
        for backend in select::available() {
            assert_eq!(product(*backend, ty, (16, k), &x[..9 * k], &team), want);
            if backend.name() == "scalar" {
                continue;
            }
            let bytes = weights(ty, n, k);
            let weight = backend.pack(ty, n, k, bytes, Storage::Packed, &team).unwrap();
            let batch = Operand::new(*backend, &team, &weight, x.clone()).unwrap();
            let mut out = vec![0.0; 512 * n];
            let prefill = median(7, || batch.matmul(&team, &weight, &mut out).unwrap());
            // Beyond the third-level cache.
            let n_large = (96 << 20) / ty.row_bytes(k).unwrap();
            let bytes = weights(ty, n_large, k);
            let large = backend
                .pack(ty, n_large, k, bytes, Storage::Packed, &team)
                .unwrap();
            let one = Operand::new(*backend, &team, &large, x[..k].to_vec()).unwrap();
            let mut out = vec![0.0; n_large];
            let decode = median(7, || one.matmul(&team, &large, &mut out).unwrap());
            println!(
                "{:>8} {:>8}: 512 tokens {:6.1} GMAC/s, one token {:5.1} GB/s",
                ty.name(),
                backend.name(),
                512.0 * (n * k) as f64 * 1e-9 / prefill,
                large.bytes() as f64 * 1e-9 / decode
            );
        }
    }
}

fn product(backend: &dyn Backend, ty: GgmlType, (n, k): (usize, usize), x: &[f32], team: &Team) -> Vec<f32> {
    let weight = backend
        .pack(ty, n, k, weights(ty, n, k), Storage::Packed, team)
        .unwrap();
    let operand = Operand::new(backend, team, &weight, x.to_vec()).unwrap();
    let mut out = vec![0.0; x.len() / k * n];
    operand.matmul(team, &weight, &mut out).unwrap();
    out
}
