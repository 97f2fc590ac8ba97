//! The machine's two limits: how fast memory can be read, and how fast int8 dot products can be made.
//!
//! They are measured beside every result, in the same minute: a fraction of them says more than a speed does, above all on a
//! machine that others use as well.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

/// The two limits for a number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory read, GB/s: the best of several patterns.
    pub read: f64,
    /// int8 multiply-adds, GMAC/s; `None` where it was not measured.
    pub dot: Option<f64>,
}

impl Limits {
    /// From what `twinfer doctor --json` prints.
    #[must_use]
    pub fn from_doctor(report: &Value) -> Option<Self> {
        let limits = &report["limits"];
        Some(Limits {
            read: limits["memory_read_gb_s"].as_f64()?,
            dot: limits["int8_dot_gmacs"].as_f64(),
        })
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"memory_read_gb_s": self.read, "int8_dot_gmacs": self.dot})
    }
}

/// Bytes that each thread reads: far more than a share of any last-level cache.
const BYTES: usize = 192 << 20;

/// Concurrent streams per thread: which number is best depends on the prefetchers.
const STREAMS: [usize; 4] = [1, 2, 4, 8];

/// Measures both for a number of threads.
#[must_use]
pub fn measure(threads: usize) -> Limits {
    Limits {
        read: memory_read(threads),
        dot: None,
    }
}

/// Measures how fast `threads` threads read memory together, GB/s.
#[must_use]
pub fn memory_read(threads: usize) -> f64 {
    let buffers: Vec<Vec<u64>> = thread::scope(|scope| {
        let made: Vec<_> = (0..threads)
            // Touched by the thread that reads it, so that it lies on that thread's node.
            .map(|i| scope.spawn(move || vec![i as u64 + 1; BYTES / 8]))
            .collect();
        made.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut best = 0.0f64;
    for streams in STREAMS {
        for _ in 0..3 {
            let start = Instant::now();
            thread::scope(|scope| {
                for buffer in &buffers {
                    scope.spawn(move || black_box(sum(buffer, streams)));
                }
            });
            let rate = (buffers.len() * BYTES) as f64 * 1e-9 / start.elapsed().as_secs_f64();
            if rate > best {
                best = rate;
            }
        }
    }
    best
}

/// Reads `data` as several streams at once.
fn sum(data: &[u64], streams: usize) -> u64 {
    const LINES: usize = 32;
    let length = data.len() / streams;
    let mut total = [0u64; LINES];
    for at in (0..length / LINES * LINES).step_by(LINES) {
        for stream in 0..streams {
            let start = stream * length + at;
            for (total, value) in total.iter_mut().zip(&data[start..start + LINES]) {
                *total = total.wrapping_add(*value);
            }
        }
    }
    total.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_the_doctor() {
        let report = json!({"limits": {"memory_read_gb_s": 30.5, "int8_dot_gmacs": 100.0}});
        let limits = Limits::from_doctor(&report).unwrap();
        assert_eq!((limits.read, limits.dot), (30.5, Some(100.0)));
        assert_eq!(
            Limits::from_doctor(&json!({"limits": limits.json()})),
            Some(limits)
        );
        assert_eq!(Limits::from_doctor(&json!({"limits": null})), None);
    }

    #[test]
    fn every_stream_is_read() {
        let data = vec![1u64; 32 * 8 * 5];
        for streams in STREAMS {
            assert_eq!(sum(&data, streams), 32 * 8 * 5);
        }
    }
}
