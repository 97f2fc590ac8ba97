//! Stages of a benchmark, pass by pass: how long each took, and what it met, so that the slow ones are explained by
//! counts and not by guesses.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use twinfer_engine::team::{Team, Waits};

use crate::output::json_f64;
use crate::usage::Usage;

/// Digits of a time that the histogram keeps.
const DIGITS: u8 = 3;
/// From so many passes on the slowest hundredth is looked at by itself.
const MANY: usize = 50;

/// Reads the counters at the ends of what is measured.
#[derive(Debug, Default)]
pub(super) struct Meter {
    waits: Vec<Waits>,
    usage: Option<Usage>,
}

/// What was counted between two readings.
#[derive(Debug, Clone, Copy, Default)]
struct Met {
    /// Looks of the caller of operations at workers that were not done.
    caller_spins: u64,
    /// Looks of the other workers for work, all of them together.
    worker_spins: u64,
    /// Times that the caller or a worker slept.
    parks: u64,
    usage: Usage,
}

impl Meter {
    /// From now on; the team is still to be made.
    pub(super) fn start() -> Self {
        Meter {
            waits: Vec::new(),
            usage: Usage::now(),
        }
    }

    /// What was counted since the last reading, which `waits` gets by worker as well.
    fn lap(&mut self, team: &Team, waits: &mut [Waits]) -> Met {
        let now = team.waits();
        let usage = Usage::now();
        let mut met = Met::default();
        for (i, now) in now.iter().enumerate() {
            let before = self.waits.get(i).copied().unwrap_or_default();
            let (spins, parks) = (now.spins - before.spins, now.parks - before.parks);
            if i == 0 {
                met.caller_spins = spins;
            } else {
                met.worker_spins += spins;
            }
            met.parks += parks;
            if let Some(waits) = waits.get_mut(i) {
                waits.spins += spins;
                waits.parks += parks;
            }
        }
        if let (Some(now), Some(before)) = (usage, self.usage) {
            met.usage = now.since(before);
        }
        (self.waits, self.usage) = (now, usage);
        met
    }
}

/// A pass.
#[derive(Debug, Clone, Copy)]
struct Sample {
    nanoseconds: u64,
    met: Met,
}

/// Passes of one kind.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: String,
    samples: Vec<Sample>,
    /// Of each worker, over all passes.
    waits: Vec<Waits>,
}

/// Quantiles of the time of a pass, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// The mean pass of some.
#[derive(Debug, Clone, Copy)]
struct Mean {
    passes: usize,
    ms: f64,
    caller_spins: f64,
    worker_spins: f64,
    parks: f64,
    preempted: f64,
    minor_faults: f64,
    major_faults: f64,
}

impl Stage {
    /// A stage of at most about so many passes, whose list is in memory from now on.
    pub(super) fn new(name: &str, team: &Team, passes: usize) -> Self {
        // Written to, so that no page of it comes while passes are measured.
        let mut samples = vec![
            Sample {
                nanoseconds: u64::MAX,
                met: Met::default()
            };
            passes
        ];
        samples.clear();
        Stage {
            name: name.into(),
            samples,
            waits: vec![Waits::default(); team.workers()],
        }
    }

    /// Measures a pass.
    pub(super) fn pass(&mut self, team: &Team, f: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let mut meter = Meter::default();
        meter.lap(team, &mut []);
        let start = Instant::now();
        f()?;
        let elapsed = start.elapsed();
        self.add(&mut meter, team, elapsed);
        Ok(elapsed)
    }

    /// Adds what was measured by hand.
    pub(super) fn add(&mut self, meter: &mut Meter, team: &Team, elapsed: Duration) {
        let met = meter.lap(team, &mut self.waits);
        self.samples.push(Sample {
            nanoseconds: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            met,
        });
    }

    pub(super) fn seconds(&self) -> f64 {
        self.samples.iter().map(|s| s.nanoseconds as f64 / 1e9).sum()
    }

    /// `None` of no pass.
    pub(super) fn times(&self) -> Option<Times> {
        // Resizes itself, so that any time is recorded.
        let mut histogram = Histogram::<u64>::new(DIGITS).ok()?;
        for sample in &self.samples {
            histogram.record(sample.nanoseconds).ok()?;
        }
        if histogram.is_empty() {
            return None;
        }
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        Some(Times {
            p50: ms(histogram.value_at_quantile(0.5)),
            p90: ms(histogram.value_at_quantile(0.9)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        })
    }

    /// All of these passes as one stage.
    pub(super) fn all<'a>(name: &str, stages: impl Iterator<Item = &'a Stage>) -> Stage {
        let mut all = Stage {
            name: name.into(),
            samples: Vec::new(),
            waits: Vec::new(),
        };
        for stage in stages {
            all.samples.extend_from_slice(&stage.samples);
            all.waits.resize(stage.waits.len(), Waits::default());
            for (sum, more) in all.waits.iter_mut().zip(&stage.waits) {
                sum.spins += more.spins;
                sum.parks += more.parks;
            }
        }
        all
    }

    pub(super) fn passes(&self) -> usize {
        self.samples.len()
    }

    /// The slowest hundredth and the others, where there are many; else all in `.1`.
    fn means(&self) -> (Option<Mean>, Option<Mean>) {
        let mut sorted: Vec<&Sample> = self.samples.iter().collect();
        sorted.sort_by_key(|sample| sample.nanoseconds);
        let slow = if sorted.len() < MANY {
            0
        } else {
            sorted.len().div_ceil(100)
        };
        let (others, slowest) = sorted.split_at(sorted.len() - slow);
        (mean(slowest), mean(others))
    }

    /// A row of the table of times.
    fn row(&self) -> Vec<String> {
        let mut row = vec![
            self.name.clone(),
            self.samples.len().to_string(),
            format!("{:.3}", self.seconds()),
        ];
        // A single pass has no quantiles.
        match self.times().filter(|_| self.samples.len() > 1) {
            Some(times) => row.extend(times.cells()),
            None => row.extend(std::iter::repeat_n(String::new(), 4)),
        }
        row
    }

    pub(super) fn json(&self) -> Value {
        let (slowest, others) = self.means();
        json!({
            "passes": self.samples.len(),
            "seconds": json_f64(self.seconds()),
            "pass_ms": self.times().map(|times| times.json()),
            "waits": self.waits.iter().map(|waits| json!({ "spins": waits.spins, "parks": waits.parks })).collect::<Vec<_>>(),
            "slowest_met": slowest.map(|mean| mean.json()),
            "others_met": others.map(|mean| mean.json()),
        })
    }
}

fn mean(samples: &[&Sample]) -> Option<Mean> {
    let n = samples.len();
    let mean = |value: fn(&Sample) -> u64| {
        let sum: u64 = samples.iter().map(|sample| value(sample)).sum();
        sum as f64 / n as f64
    };
    (n > 0).then(|| Mean {
        passes: n,
        ms: mean(|s| s.nanoseconds) / 1e6,
        caller_spins: mean(|s| s.met.caller_spins),
        worker_spins: mean(|s| s.met.worker_spins),
        parks: mean(|s| s.met.parks),
        preempted: mean(|s| s.met.usage.preempted),
        minor_faults: mean(|s| s.met.usage.minor_faults),
        major_faults: mean(|s| s.met.usage.major_faults),
    })
}

impl Times {
    pub(super) fn cells(self) -> [String; 4] {
        [self.p50, self.p90, self.p99, self.max].map(|ms| format!("{ms:.3}"))
    }

    pub(super) fn json(self) -> Value {
        json!({
            "p50": json_f64(self.p50),
            "p90": json_f64(self.p90),
            "p99": json_f64(self.p99),
            "max": json_f64(self.max),
        })
    }
}

impl Mean {
    fn json(self) -> Value {
        json!({
            "passes": self.passes,
            "ms": json_f64(self.ms),
            "caller_spins": json_f64(self.caller_spins),
            "worker_spins": json_f64(self.worker_spins),
            "parks": json_f64(self.parks),
            "preempted": json_f64(self.preempted),
            "minor_faults": json_f64(self.minor_faults),
            "major_faults": json_f64(self.major_faults),
        })
    }

    fn row(self, name: String) -> Vec<String> {
        let mut row = vec![name, self.passes.to_string(), format!("{:.3}", self.ms)];
        row.extend([self.caller_spins, self.worker_spins].map(|spins| format!("{spins:.0}")));
        let few = [self.parks, self.preempted, self.minor_faults, self.major_faults];
        row.extend(few.map(|n| format!("{n:.2}")));
        row
    }
}

/// The table of times.
pub(super) fn times_table(stages: &[&Stage]) -> String {
    let head = ["stage", "passes", "s", "P50 ms", "P90 ms", "P99 ms", "max ms"];
    let rows: Vec<Vec<String>> = stages.iter().map(|stage| stage.row()).collect();
    super::report::table(&head, &[0], &rows)
}

/// The table of what a pass met.
pub(super) fn met_table(stages: &[&Stage]) -> String {
    let head = [
        "the mean pass met",
        "passes",
        "ms",
        "caller's looks",
        "others' looks",
        "sleeps",
        "preempted",
        "minor faults",
        "major faults",
    ];
    let mut rows = Vec::new();
    for stage in stages {
        let (slowest, others) = stage.means();
        let apart = slowest.is_some();
        rows.extend(slowest.map(|mean| mean.row(format!("{}, slowest", stage.name))));
        let name = if apart {
            format!("{}, others", stage.name)
        } else {
            stage.name.clone()
        };
        rows.extend(others.map(|mean| mean.row(name)));
    }
    super::report::table(&head, &[0], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(nanoseconds: impl Iterator<Item = u64>) -> Stage {
        let mut stage = Stage::new("x", &Team::single(), 0);
        stage.samples = nanoseconds
            .map(|nanoseconds| Sample {
                nanoseconds,
                met: Met {
                    parks: u64::from(nanoseconds > 990_000),
                    ..Met::default()
                },
            })
            .collect();
        stage
    }

    #[test]
    fn quantiles_are_those_of_the_passes() {
        let stage = stage((1..=1000).map(|i| i * 1000));
        let times = stage.times().unwrap();
        for (found, expected) in [
            (times.p50, 0.5),
            (times.p90, 0.9),
            (times.p99, 0.99),
            (times.max, 1.0),
        ] {
            assert!((found / expected - 1.0).abs() < 0.002, "{times:?}");
        }
        assert!((stage.seconds() - 0.5005).abs() < 1e-9);
        assert!(self::stage(0..0).times().is_none());
    }

    #[test]
    fn the_slowest_hundredth_is_apart() {
        let (slowest, others) = stage((1..=1000).rev().map(|i| i * 1000)).means();
        let (slowest, others) = (slowest.unwrap(), others.unwrap());
        assert_eq!((slowest.passes, others.passes), (10, 990));
        assert_eq!((slowest.parks, others.parks), (1.0, 0.0));
        assert!((slowest.ms - 0.9955).abs() < 1e-9);
        let (slowest, others) = stage(1..=3).means();
        assert!(slowest.is_none() && others.unwrap().passes == 3);
    }

    #[test]
    fn waits_are_counted_by_pass_and_worker() {
        let team = Team::new(2, |_, work| {
            std::thread::spawn(work);
        });
        let mut stage = Stage::new("x", &team, 3);
        for _ in 0..3 {
            stage
                .pass(&team, || {
                    // Long enough for the other worker to fall asleep and be woken.
                    std::thread::sleep(Duration::from_millis(20));
                    Ok(team.ranges(2, 1, |_| std::thread::sleep(Duration::from_millis(1)))?)
                })
                .unwrap();
        }
        assert_eq!(stage.samples.len(), 3);
        let by_pass: u64 = stage.samples.iter().map(|sample| sample.met.parks).sum();
        let by_worker: u64 = stage.waits.iter().map(|waits| waits.parks).sum();
        assert_eq!(by_pass, by_worker);
        assert!(stage.seconds() >= 0.06);
    }
}
