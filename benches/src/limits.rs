//! The machine's two limits: how fast memory can be read, and how fast int8 dot products can be made.
//!
//! They are measured beside every result, in the same minute: a fraction of them says more than a speed does, above all on a
//! machine that others use as well.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use twinfer_engine::kernels::peak::{Done, PATTERNS, Work};
use twinfer_engine::kernels::select;

/// The two limits for a number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory read, GB/s: the best of several patterns.
    pub read: f64,
    /// int8 multiply-adds, GMAC/s; `None` where it was not measured.
    pub dot: Option<f64>,
}

impl Limits {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"memory_read_gb_s": self.read, "int8_dot_gmacs": self.dot})
    }
}

/// Bytes that each thread reads: far more than a share of any last-level cache.
const BYTES: usize = 192 << 20;

/// Runs of each kind of work; the best one counts, for a limit is what the machine can do.
const RUNS: usize = 3;

/// Measures both for a number of threads, with the instructions of the best backend here.
#[must_use]
pub fn measure(threads: usize) -> Limits {
    let backend = select::available()[0];
    let peak = select::peak(backend);
    let buffers: Vec<Vec<u8>> = thread::scope(|scope| {
        let made: Vec<_> = (0..threads)
            // Touched by the thread that reads it, so that it lies on that thread's node.
            .map(|i| scope.spawn(move || vec![i as u8 + 1; BYTES]))
            .collect();
        made.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let reads = PATTERNS.map(|pattern| best(&buffers, |bytes| peak.exercise(&Work::Read { bytes, pattern })));
    // Long enough for the clock and for threads to start, on a machine of any speed.
    let start = Instant::now();
    let rounds = 10_000;
    black_box(peak.exercise(&Work::Dot { rounds }));
    let rounds = (rounds as f64 * 0.05 / start.elapsed().as_secs_f64().clamp(1e-6, 1.0)) as usize + 1;
    let dot = best(&buffers, |_| peak.exercise(&Work::Dot { rounds }));
    Limits {
        read: reads
            .into_iter()
            .fold(0.0, |best, rate| if best < rate { rate } else { best })
            * 1e-9,
        // The scalar backend has no instruction for it.
        dot: (backend.name() != "scalar").then_some(dot * 1e-9),
    }
}

/// The best rate of some runs, one thread per buffer: operations or bytes per second, all threads together.
fn best(buffers: &[Vec<u8>], work: impl Fn(&[u8]) -> Done + Sync) -> f64 {
    let mut best = 0.0;
    for _ in 0..RUNS {
        let start = Instant::now();
        let operations: u64 = thread::scope(|scope| {
            let running: Vec<_> = buffers
                .iter()
                .map(|buffer| scope.spawn(|| black_box(work(buffer)).operations))
                .collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).sum()
        });
        let rate = operations as f64 / start.elapsed().as_secs_f64();
        if best < rate {
            best = rate;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_count() {
        let buffers = vec![vec![1u8; 4096]; 3];
        let done = |bytes: &[u8]| Done {
            operations: bytes.len() as u64 * 1_000_000_000,
            checksum: 0,
        };
        // No thread takes a second to start, so that all of the bytes are in the rate.
        assert!(best(&buffers, done) > 3.0 * 4096e9 / 10.0);
        assert_eq!(best(&[], done), 0.0);
    }
}
