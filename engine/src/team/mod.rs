//! Team: a fixed set of workers that split one operation's rows between them.
//!
//! The engine starts no threads. Whoever can (natively the program's own threads, one a core; in the browser workers of
//! the page) lends `n - 1` of them to [`Team::new`] for the team's life; the caller of an operation is the n-th worker.
//! The others stay with the team: between two operations of a pass they spin for a moment, then they park, so that an
//! operation costs two cache-line hand-overs, no task spawn and no allocation.
//!
//! Work is handed out in ranges to whoever asks. The caller closes an operation when no range is left and waits only for
//! workers that have entered it: one that the system has not scheduled in time delays nobody, so a team larger than the
//! machine does not collapse.
//!
//! Only rows are split, never the depth of a sum: which worker computes a row, and in which order, moves no number.
//!
//! `outputs` says how an operation's outputs are split. The two files hold the crate's one unsafe idea about threads: a
//! borrowed closure, and disjoint parts of one output slice, are handed to other threads for as long as the operation waits
//! for them.
#![allow(unsafe_code)]

mod outputs;

pub use outputs::{Columns, Piece, RowTile, Tile, Tiled};

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Error, Result, math};

/// Looks in the time of one on x86, whose spin-loop hint takes some 10 ns. WebAssembly has no such hint.
const LOOKS: u32 = if cfg!(target_arch = "wasm32") { 10 } else { 1 };

/// How often a waiting worker looks before it parks. About 20 us on a server core: longer than the serial work
/// between two operations, shorter than a time slice.
const SPINS: u32 = 2_000 * LOOKS;

/// How often it looks before it lets other threads of the core run between two looks: on a machine with fewer cores than
/// workers, what it waits for may stand behind it in the queue.
const PATIENT_SPINS: u32 = 200 * LOOKS;

/// Looks per turn given away.
const SPINS_PER_TURN: u32 = 50 * LOOKS;

/// A value on its own pair of cache lines (adjacent-line prefetch makes the pair the unit of sharing).
#[repr(align(128))]
struct Padded<T>(T);

type Job = *const (dyn Fn(usize) + Sync);

/// What a worker has spent on waiting: the caller of operations (number 0) for the others to finish, the others for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// Looks at a value that had not changed yet, about 10 ns each on a server core.
    pub spins: u64,
    /// Times that it gave up looking and slept until it was woken.
    pub parks: u64,
}

/// [`Waits`] with one writer at a time: the worker, or the caller who holds the region.
#[derive(Default)]
struct Waited {
    spins: AtomicU64,
    parks: AtomicU64,
}

impl Waited {
    fn add(&self, spins: u32, parked: bool) {
        for (count, more) in [(&self.spins, u64::from(spins)), (&self.parks, parked.into())] {
            count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }
}

/// One look in a loop of waiting; `spins` counts them.
fn pause(spins: u32) {
    if spins > PATIENT_SPINS && spins.is_multiple_of(SPINS_PER_TURN) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// Bit of [`Shared::gate`]: nobody may enter.
const CLOSED: u32 = 1 << 31;

struct Shared {
    /// Counts operations. A worker that sees a new value tries to enter.
    epoch: Padded<AtomicU32>,
    /// Workers inside the present operation, and [`CLOSED`].
    gate: Padded<AtomicU32>,
    /// The present operation; written by the leader while the gate is closed and nobody is inside.
    job: UnsafeCell<Option<Job>>,
    /// Workers parked on `wake`, and whether the leader is parked on `done`.
    sleepers: AtomicUsize,
    leader_sleeps: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    done: Condvar,
    failed: Mutex<Option<Error>>,
    /// Held by the leader for one operation: one at a time.
    region: Mutex<()>,
    /// Per worker.
    waited: Box<[Padded<Waited>]>,
}

// SAFETY: `job` is the only field that is not Sync by itself. The leader writes it while the gate is closed and empty;
// a worker reads it only between entering the gate and leaving it.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer in `job` is dereferenced only inside the gate, while the borrow it was made from is
// kept alive by `operate`.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock guards no invariant here: every value behind one is valid at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static IN_REGION: Cell<bool> = const { Cell::new(false) };
}

/// A set of workers; see the module. Clones share the same workers.
#[derive(Clone)]
pub struct Team {
    inner: Option<Arc<Handle>>,
    n: usize,
}

/// Stops the workers when the last clone of a team goes.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.0.epoch.0.fetch_add(1, Ordering::SeqCst);
        let _guard = lock(&self.0.lock);
        self.0.wake.notify_all();
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("workers", &self.n).finish()
    }
}

impl Team {
    /// The calling thread alone.
    pub fn single() -> Self {
        Team { inner: None, n: 1 }
    }

    /// A team of `n` workers: the caller of each operation, and `n - 1` threads lent by `spawn`.
    ///
    /// `spawn` is called `n - 1` times with a worker's index (1 to `n - 1`) and a closure that must run on a thread of
    /// its own until the team is dropped; threads of a pool with fewer free threads than that would leave operations
    /// waiting for ever.
    pub fn new(n: usize, mut spawn: impl FnMut(usize, Box<dyn FnOnce() + Send>)) -> Self {
        if n <= 1 {
            return Self::single();
        }
        let shared = Arc::new(Shared {
            epoch: Padded(AtomicU32::new(0)),
            gate: Padded(AtomicU32::new(CLOSED)),
            job: UnsafeCell::new(None),
            sleepers: AtomicUsize::new(0),
            leader_sleeps: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            done: Condvar::new(),
            failed: Mutex::new(None),
            region: Mutex::new(()),
            waited: (0..n).map(|_| Padded(Waited::default())).collect(),
        });
        for index in 1..n {
            let shared = Arc::clone(&shared);
            spawn(index, Box::new(move || work(&shared, index)));
        }
        Team {
            inner: Some(Arc::new(Handle(shared))),
            n,
        }
    }

    /// Number of workers, the caller included.
    pub fn workers(&self) -> usize {
        self.n
    }

    /// What each worker has spent on waiting since the team was made; one entry, of nothing, for a team of one.
    pub fn waits(&self) -> Vec<Waits> {
        let waits = |w: &Padded<Waited>| Waits {
            spins: w.0.spins.load(Ordering::Relaxed),
            parks: w.0.parks.load(Ordering::Relaxed),
        };
        match &self.inner {
            Some(handle) => handle.0.waited.iter().map(waits).collect(),
            None => vec![Waits::default()],
        }
    }

    /// Runs `f` on the caller and on every worker that comes in time, until the caller's own `f` returns; then waits for
    /// those inside. `f` gets the worker's index, the caller's is 0; it must leave nothing undone when the caller's has
    /// returned.
    fn operate(&self, f: &(dyn Fn(usize) + Sync)) -> Result<()> {
        if IN_REGION.get() {
            return Err(Error::InvalidInput {
                what: "a team's operation was started from inside another one".into(),
            });
        }
        let Some(handle) = &self.inner else {
            return guarded(f, 0);
        };
        let shared = &*handle.0;
        let _region = lock(&shared.region);
        // SAFETY: lengthens the closure's lifetime for the workers. They use it only inside the gate, and this function
        // does not return (or unwind: `guarded` catches) before the gate is closed and empty.
        let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(f) };
        // SAFETY: the gate is closed and empty, so no worker reads `job` now.
        unsafe { *shared.job.get() = Some(job) };
        shared.gate.0.store(0, Ordering::SeqCst);
        shared.epoch.0.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&shared.lock);
            shared.wake.notify_all();
        }
        let own = guarded(f, 0);
        shared.gate.0.fetch_or(CLOSED, Ordering::SeqCst);
        let (mut spins, mut parked) = (0, false);
        while shared.gate.0.load(Ordering::Acquire) != CLOSED {
            spins += 1;
            if spins < SPINS {
                pause(spins);
                continue;
            }
            parked = true;
            let mut guard = lock(&shared.lock);
            shared.leader_sleeps.store(true, Ordering::SeqCst);
            while shared.gate.0.load(Ordering::SeqCst) != CLOSED {
                guard = shared.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            shared.leader_sleeps.store(false, Ordering::SeqCst);
        }
        shared.waited[0].0.add(spins, parked);
        let other = lock(&shared.failed).take();
        own.and(other.map_or(Ok(()), Err))
    }

    /// Splits `items` into ranges of at least `grain` (the last may be shorter) and hands them out to whoever is free.
    ///
    /// # Errors
    /// [`Error::Worker`] if a worker panicked (all are waited for first), [`Error::InvalidInput`] if called from inside an
    /// operation of any team, [`Error::FloatMode`] if a worker's mode is not the one that the contract needs.
    pub fn ranges(&self, items: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) -> Result<()> {
        self.hand_out(items, chunk(items, grain, self.n), |_, range| f(range))
    }

    /// Hands out ranges of `each` items: `f(worker, range)`.
    fn hand_out(&self, items: usize, each: usize, f: impl Fn(usize, Range<usize>) + Sync) -> Result<()> {
        if items == 0 {
            return Ok(());
        }
        if self.n == 1 || items <= each {
            // Still an operation, of one worker, so that a panic becomes an error and nesting is seen.
            return Self::single().operate(&|worker| f(worker, 0..items));
        }
        let next = AtomicUsize::new(0);
        self.operate(&|worker| {
            loop {
                let start = next.fetch_add(each, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                f(worker, start..items.min(start + each));
            }
        })
    }
}

/// Rows per hand-out: about four per worker for balance, in multiples of `grain`.
fn chunk(items: usize, grain: usize, workers: usize) -> usize {
    let grain = if grain == 0 { 1 } else { grain };
    let share = items / (workers * 4);
    if share <= grain {
        grain
    } else {
        share / grain * grain
    }
}

/// Runs `f` with nesting marked; a panic becomes its message.
fn guarded(f: &(dyn Fn(usize) + Sync), worker: usize) -> Result<()> {
    if !math::float_environment_is_strict() {
        return Err(Error::FloatMode);
    }
    IN_REGION.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| f(worker)));
    IN_REGION.set(false);
    result.map_err(|panic| Error::Worker {
        what: message(&*panic),
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).into()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "unknown reason".into()
    }
}

/// A worker's life.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let (mut spins, mut parked) = (0, false);
        let mut epoch = shared.epoch.0.load(Ordering::Acquire);
        while epoch == seen {
            spins += 1;
            if spins < SPINS {
                pause(spins);
            } else {
                parked = true;
                let mut guard = lock(&shared.lock);
                // Counted before `epoch` is looked at again; the leader moves `epoch` before it reads the count. One of
                // the two sees the other (both SeqCst), so no wake-up is lost.
                shared.sleepers.fetch_add(1, Ordering::SeqCst);
                while shared.epoch.0.load(Ordering::SeqCst) == seen {
                    guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                shared.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            epoch = shared.epoch.0.load(Ordering::Acquire);
        }
        shared.waited[index].0.add(spins, parked);
        seen = epoch;
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // Too late for the operation that moved `epoch`? Then perhaps in time for the next; either is whole.
        let enter = |gate: u32| (gate & CLOSED == 0).then_some(gate + 1);
        if shared
            .gate
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter)
            .is_err()
        {
            continue;
        }
        // SAFETY: inside the gate; entering it was ordered after the leader's write of `job`.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job {
            // SAFETY: the closure outlives the operation: `operate` waits until this worker has left the gate.
            let f = unsafe { &*job };
            if let Err(error) = guarded(f, index) {
                *lock(&shared.failed) = Some(error);
            }
        }
        if shared.gate.0.fetch_sub(1, Ordering::SeqCst) == CLOSED + 1
            && shared.leader_sleeps.load(Ordering::SeqCst)
        {
            let _guard = lock(&shared.lock);
            shared.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn threads(n: usize) -> Team {
        Team::new(n, |_, f| {
            std::thread::spawn(f);
        })
    }

    #[test]
    fn more_workers_than_cores_lose_nothing() {
        // Many short operations, each of which must see the results of the one before; workers come and go, park and wake.
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        // Miri runs one thread at a time, a thousand times slower.
        let (workers, rounds) = if cfg!(miri) { (3, 10) } else { (4 * cores, 3000) };
        let team = threads(workers);
        let mut out = vec![0u32; 64];
        for round in 0..rounds {
            team.rows(&mut out, 1, 1, |_, part| {
                part.iter_mut().for_each(|v| {
                    assert_eq!(*v, round);
                    *v += 1;
                });
            })
            .unwrap();
            if round % 1000 == 999 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        assert!(out.iter().all(|v| *v == 3000));
    }

    #[test]
    fn waiting_is_counted() {
        assert_eq!(Team::single().waits(), vec![Waits::default()]);
        let team = threads(2);
        assert_eq!(team.waits().len(), 2);
        // Both are inside; the caller has done its half, and the other waits until it sleeps.
        let leader = std::thread::current().id();
        let shared = Arc::clone(&team.inner.as_ref().unwrap().0);
        let inside = AtomicUsize::new(0);
        team.ranges(2, 1, |_| {
            inside.fetch_add(1, Ordering::SeqCst);
            while inside.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            while std::thread::current().id() != leader && !shared.leader_sleeps.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        })
        .unwrap();
        let waits = team.waits();
        assert!(waits[0].spins > 0 && waits[0].parks == 1, "{waits:?}");
    }

    #[test]
    fn a_panic_is_an_error_and_the_team_goes_on() {
        let team = threads(2);
        for _ in 0..3 {
            let error = team
                .ranges(100, 1, |range| assert!(!range.contains(&57), "row 57 fails"))
                .unwrap_err();
            assert!(error.to_string().contains("row 57 fails"), "{error}");
            team.ranges(100, 1, |_| ()).unwrap();
        }
    }

    #[test]
    fn nesting_is_an_error() {
        let team = threads(2);
        let nested = AtomicUsize::new(0);
        team.ranges(8, 1, |range| {
            assert!(team.ranges(8, 1, |_| ()).is_err());
            nested.fetch_add(range.len(), Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(nested.into_inner(), 8);
    }

    #[test]
    fn workers_that_parked_wake_up_and_take_part() {
        let team = threads(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            // Two items that wait for each other: done only if two workers are inside at once.
            let met = AtomicUsize::new(0);
            team.ranges(2, 1, |_| {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            })
            .unwrap();
        }
    }
}
