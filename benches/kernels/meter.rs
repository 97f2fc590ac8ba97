//! Times a routine under criterion and turns the time into rates and fractions of the machine's limits.

use std::time::{Duration, Instant};

use anyhow::Result;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Throughput};
use twinfer_benches::machine::{self, Machine};
use twinfer_benches::program;
use twinfer_benches::rates::Rates;
use twinfer_benches::statistics::median;
use twinfer_engine::team::Team;

/// What one call of a routine does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// int8 multiply-adds, 0 where there are none.
    pub(crate) macs: f64,
    /// Float multiply-adds, or elements where there are none.
    pub(crate) elements: f64,
    /// Bytes of weights or cache that are read, where they come from memory.
    pub(crate) bytes: f64,
}

/// Runs benchmarks and keeps a line of each.
pub(crate) struct Meter {
    pub(crate) team: Team,
    limits: Option<Rates>,
    lines: Vec<String>,
}

/// Whether timing is asked for: cargo passes `--bench`, and `--test` turns it off again.
pub(crate) fn timing() -> bool {
    let has = |wanted: &str| std::env::args().any(|arg| arg == wanted);
    has("--bench") && !has("--test") && !has("--list")
}

fn threads() -> usize {
    std::env::var("TWINFER_BENCH_THREADS")
        .ok()
        .and_then(|n| n.parse().ok())
        .filter(|n| (1..=1024).contains(n))
        .unwrap_or(1)
}

impl Meter {
    /// Starts the threads and has the limits measured.
    pub(crate) fn new() -> Result<Self> {
        let threads = threads();
        let team = Team::new(threads, |_, job| {
            std::thread::spawn(job);
        });
        let mut meter = Meter {
            team,
            limits: None,
            lines: Vec::new(),
        };
        if timing() {
            println!("{}", Machine::describe().line());
            let limits = Rates::measure(&program::last_built()?, threads)?;
            let load = machine::load().map_or_else(String::new, |load| format!("; load average {load:.1}"));
            println!(
                "{threads} threads: memory read {:.1} GB/s, int8 dot product {:.0} GMAC/s{load}\n",
                limits.read, limits.dot
            );
            meter.limits = Some(limits);
        }
        Ok(meter)
    }

    /// Times `routine`. Nothing of it happens where the command line's filter leaves it out.
    pub(crate) fn bench(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        id: BenchmarkId,
        name: &str,
        work: Work,
        mut routine: impl FnMut(),
    ) {
        let elements = if work.macs > 0.0 { work.macs } else { work.elements };
        group.throughput(Throughput::Elements(elements as u64));
        let mut seconds = Vec::new();
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                for _ in 0..iterations {
                    routine();
                }
                let time: Duration = start.elapsed();
                seconds.push(time.as_secs_f64() / iterations as f64);
                time
            });
        });
        let (Some(time), Some(limits)) = (median(&seconds), self.limits) else {
            return;
        };
        let mut line = format!("{name:<34}");
        let mut rate = |amount: f64, unit: &str, limit: Option<f64>| {
            if amount > 0.0 {
                let rate = amount * 1e-9 / time;
                line += &format!(" {rate:8.2} {unit}");
                if let Some(limit) = limit {
                    line += &format!(" ({:3.0} %)", rate / limit * 100.0);
                }
            }
        };
        rate(work.macs, "GMAC/s", Some(limits.dot));
        rate(work.elements, "G/s", None);
        rate(work.bytes, "GB/s", Some(limits.read));
        self.lines.push(line);
    }

    /// Prints what was found, the percentages being those of the limits.
    pub(crate) fn table(&self) {
        if !self.lines.is_empty() {
            println!(
                "\nmedians, with the fraction of the limit:\n{}",
                self.lines.join("\n")
            );
        }
    }
}
