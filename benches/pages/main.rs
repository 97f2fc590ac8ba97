//! Taking a page of the cache and giving it back: `cargo bench -p twinfer-benches --bench pages`. Alone, and with
//! threads that do the same all the time, beside a list behind a mutex and the system's allocator.
//!
//! Figures are nanoseconds of one thread's pair of calls: with more threads than CPUs they include the time in which it
//! does not run.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "nothing here can fail")]

use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use twinfer_engine::cache::PagePool;

const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Pages of the pool: a cache of 256k positions.
const PAGES: u32 = 4096;
/// What a page of one head takes in f16 at a width of 64, keys or values: what the allocator is asked for.
const PAGE_BYTES: usize = 64 * 64 * 2;

/// The time of `turns` calls of `turn` by one of `threads` threads that all make them at once: the mean over the
/// threads.
fn contended(threads: usize, turns: u64, turn: &(dyn Fn() + Sync)) -> Duration {
    let barrier = Barrier::new(threads);
    let all: Duration = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let start = Instant::now();
                    (0..turns).for_each(|_| turn());
                    start.elapsed()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    all / threads as u32
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(200));
    let pool = PagePool::new(PAGES);
    let list = Mutex::new((0..PAGES).collect::<Vec<u32>>());
    let of_pool = || {
        let page = black_box(pool.take()).unwrap();
        pool.give(page);
    };
    let of_list = || {
        let page = black_box(list.lock().unwrap().pop()).unwrap();
        list.lock().unwrap().push(page);
    };
    let of_allocator = || drop(black_box(Vec::<u8>::with_capacity(PAGE_BYTES)));
    let kinds: [(&str, &(dyn Fn() + Sync)); 3] = [
        ("pool", &of_pool),
        ("mutexed list", &of_list),
        ("malloc", &of_allocator),
    ];
    let mut group = criterion.benchmark_group("take and give back a page");
    for (name, turn) in kinds {
        for threads in THREADS {
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                bencher.iter_custom(|turns| contended(threads, turns, turn));
            });
        }
    }
    group.finish();
    // Nothing was lost on the way.
    assert_eq!(
        (pool.free(), list.lock().unwrap().len()),
        (PAGES as usize, PAGES as usize)
    );
    criterion.final_summary();
}
