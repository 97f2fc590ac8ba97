//! What a team's hand-over costs: `cargo bench -p twinfer-benches --bench handover`. An operation of as many pieces as
//! there are workers, each of nothing, for 2 to 128 workers of which all share a last-level cache, or each eight; and
//! what it is made of, a cache line alone and between two cores, from which it is counted for machines that are not at
//! hand.
//!
//! With more workers than CPUs an operation does not wait for those that have no CPU: it takes what the leader takes
//! alone, and now and then a switch between threads.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "nothing here can fail")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use twinfer_engine::team::{HandOver, Place, Team};

const WORKERS: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];
/// Cores that share a last-level cache on the processors that the count is for: a domain.
const DOMAIN: usize = 8;
/// Operations of a pass: five of each of 32 layers, and those around them.
const OPERATIONS: f64 = 5.0 * 32.0 + 4.0;

/// A value alone on two lines, which processors fetch together.
#[repr(align(128))]
struct Line(AtomicU64);

fn team(workers: usize, sharing: usize) -> Team {
    let places: Vec<Place> = (0..workers)
        .map(|worker| Place {
            node: 0,
            cache: worker / sharing,
        })
        .collect();
    Team::placed(&places, |_, work| {
        std::thread::spawn(work);
    })
}

/// Time of `turns` changes of a line, by two threads in turn.
fn between_two(turns: u64) -> Duration {
    let line = Arc::new(Line(AtomicU64::new(0)));
    let turn = |own: u64| {
        let line = Arc::clone(&line);
        move || {
            for i in (own..turns).step_by(2) {
                while line.0.load(Ordering::Acquire) != i {
                    std::hint::spin_loop();
                }
                line.0.store(i + 1, Ordering::Release);
            }
        }
    };
    let start = Instant::now();
    let other = std::thread::spawn(turn(1));
    turn(0)();
    other.join().unwrap();
    start.elapsed()
}

/// Domains of [`DOMAIN`] workers on one node, of which all lines between two domains take `across`.
fn domains(n: usize, alone: f64, within: f64, across: f64) -> HandOver {
    HandOver {
        alone,
        within,
        workers: DOMAIN,
        neighbours: (n - 1, across),
        farther: Vec::new(),
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(200));
    let mut group = criterion.benchmark_group("a cache line");
    let line = Line(AtomicU64::new(0));
    group.bench_function("alone", |bencher| {
        bencher.iter(|| line.0.fetch_add(1, Ordering::SeqCst));
    });
    group.bench_function("between two cores", |bencher| bencher.iter_custom(between_two));
    group.finish();

    let mut group = criterion.benchmark_group("an operation");
    for (name, sharing) in [("one cache", usize::MAX), ("caches of 8", DOMAIN)] {
        for workers in WORKERS {
            let team = team(workers, sharing);
            let done = AtomicUsize::new(0);
            group.bench_function(BenchmarkId::new(name, workers), |bencher| {
                bencher.iter(|| {
                    team.ranges(workers, 1, |items| {
                        done.fetch_add(items.len(), Ordering::Relaxed);
                    })
                    .unwrap();
                });
            });
            assert!(done.into_inner().is_multiple_of(workers), "a piece was lost");
        }
    }
    group.finish();
    criterion.final_summary();

    // Counted from lines measured here; between packages a line takes some times what it takes between two cores of
    // one.
    let mean = |turns: u64, time: Duration| time.as_secs_f64() * 1e9 / turns as f64;
    const TURNS: u64 = 1 << 20;
    let start = Instant::now();
    (0..TURNS).for_each(|_| {
        std::hint::black_box(line.0.fetch_add(1, Ordering::SeqCst));
    });
    let alone = mean(TURNS, start.elapsed());
    let within = mean(TURNS, between_two(TURNS));
    let two = HandOver {
        workers: 2,
        ..domains(1, alone, within, within)
    };
    println!(
        "\na line alone {alone:.1} ns, between two cores {within:.1} ns; an operation of two workers, counted: {:.2} \
         us; hand-overs of a pass of 32 layers ({OPERATIONS} operations), counted, microseconds:\n",
        two.nanoseconds(1) / 1e3
    );
    println!("| cores | lines between domains as within | 3 x | 6 x |\n|---|---|---|---|");
    for cores in [64, 96, 128, 192] {
        let of = |factor: f64| {
            OPERATIONS * domains(cores / DOMAIN, alone, within, factor * within).of_much_work() / 1e3
        };
        println!("| {cores} | {:.0} | {:.0} | {:.0} |", of(1.0), of(3.0), of(6.0));
    }
}
