//! Team: a fixed set of workers that split one operation's rows between them.
//!
//! The engine starts no threads. Whoever owns threads (natively a rayon pool, in the browser the one of
//! wasm-bindgen-rayon) lends `n - 1` of them to [`Team::new`] for the team's life; the caller of an operation is the n-th
//! worker. The others stay resident: between two operations of a forward pass they spin for a moment, then they park, so
//! an operation costs two cache-line hand-overs, no task spawn and no allocation.
//!
//! Work is handed out in ranges to whoever asks. The caller closes an operation when no range is left and waits only for
//! workers that have entered it: one that the system has not scheduled in time delays nobody, so a team larger than the
//! machine does not collapse.
//!
//! Only rows are split, never the depth of a sum: which worker computes a row, and in which order, moves no number.
//!
//! This file holds the crate's one unsafe idea about threads: a borrowed closure, and disjoint parts of one output slice,
//! are handed to other threads for as long as the operation waits for them.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::memory::{Heap, Memory};
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
    /// Where weights that the workers pack lie; `None` for the heap.
    memory: Option<Arc<dyn Memory>>,
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
        Team {
            inner: None,
            n: 1,
            memory: None,
        }
    }

    /// The same workers, with the platform's memory for the weights that they pack.
    pub fn with_memory(self, memory: Arc<dyn Memory>) -> Self {
        Team {
            memory: Some(memory),
            ..self
        }
    }

    /// Where weights that the workers pack lie: the heap, where the platform said nothing.
    pub fn memory(&self) -> &dyn Memory {
        match &self.memory {
            Some(memory) => &**memory,
            None => &Heap,
        }
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
            memory: None,
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
    /// operation of any team, or if a worker's floating-point mode is not the one that the contract needs.
    pub fn ranges(&self, items: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) -> Result<()> {
        self.hand_out(items, chunk(items, grain, self.n), |_, range| f(range))
    }

    /// Hands out ranges of `step` items: `f(worker, range)`.
    fn hand_out(&self, items: usize, step: usize, f: impl Fn(usize, Range<usize>) + Sync) -> Result<()> {
        if items == 0 {
            return Ok(());
        }
        if self.n == 1 || items <= step {
            // Still an operation, of one worker, so that a panic becomes an error and nesting is seen.
            return Self::single().operate(&|worker| f(worker, 0..items));
        }
        let next = AtomicUsize::new(0);
        self.operate(&|worker| {
            loop {
                let start = next.fetch_add(step, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                f(worker, start..items.min(start + step));
            }
        })
    }

    /// Splits `out`, rows of `row_len` elements, between the workers: `f(rows, part)` gets a range of row indices and
    /// exactly those rows.
    ///
    /// # Errors
    /// As [`Team::ranges`]; [`Error::InvalidInput`] if `out` is not a whole number of rows.
    pub fn rows<T: Send>(
        &self,
        out: &mut [T],
        row_len: usize,
        grain: usize,
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        if row_len == 0 || !out.len().is_multiple_of(row_len) {
            return Err(Error::InvalidInput {
                what: format!(
                    "an output of {} elements is not a whole number of rows of {row_len}",
                    out.len()
                ),
            });
        }
        let n_rows = out.len() / row_len;
        let base = Raw(out.as_mut_ptr());
        self.ranges(n_rows, grain, |rows| {
            let base = &base;
            // SAFETY: `ranges` hands out disjoint ranges within 0..n_rows, so the parts do not overlap and lie inside
            // `out`, which stays exclusively borrowed until `ranges` returns. T: Send lets another thread have them.
            let part = unsafe {
                std::slice::from_raw_parts_mut(base.0.add(rows.start * row_len), rows.len() * row_len)
            };
            f(rows, part);
        })
    }

    /// Three outputs with the same number of rows, each given with its row length: `f(row, a, b, c)` once per row.
    ///
    /// # Errors
    /// As [`Team::rows`]; also if the numbers of rows differ.
    pub fn rows3<A: Send, B: Send, C: Send>(
        &self,
        a: (&mut [A], usize),
        b: (&mut [B], usize),
        c: (&mut [C], usize),
        f: impl Fn(usize, &mut [A], &mut [B], &mut [C]) + Sync,
    ) -> Result<()> {
        let rows = a.0.len().checked_div(a.1).unwrap_or(0);
        let step = chunk(rows, 1, self.n);
        self.rows3_by(step, a, b, c, |_, row, a, b, c| f(row, a, b, c))
    }

    /// As [`Team::rows3`] for rows that are much work: `step` of them at a time, and the worker's index, below
    /// [`Team::workers`], comes first.
    ///
    /// # Errors
    /// As [`Team::rows3`].
    pub fn rows3_by<A: Send, B: Send, C: Send>(
        &self,
        step: usize,
        (a, a_len): (&mut [A], usize),
        (b, b_len): (&mut [B], usize),
        (c, c_len): (&mut [C], usize),
        f: impl Fn(usize, usize, &mut [A], &mut [B], &mut [C]) + Sync,
    ) -> Result<()> {
        let rows = a.len().checked_div(a_len).unwrap_or(0);
        let whole = |len: usize, row_len: usize| rows.checked_mul(row_len) == Some(len);
        if !(whole(a.len(), a_len) && whole(b.len(), b_len) && whole(c.len(), c_len)) {
            return Err(Error::InvalidInput {
                what: "three outputs have different numbers of rows".into(),
            });
        }
        let (a, b, c) = (Raw(a.as_mut_ptr()), Raw(b.as_mut_ptr()), Raw(c.as_mut_ptr()));
        self.hand_out(rows, step.max(1), |worker, range| {
            let (a, b, c) = (&a, &b, &c);
            for row in range {
                // SAFETY: as in `rows`: each row index is handed out once, and each of the three slices has `rows`
                // rows of its length (checked above).
                let (a, b, c) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(a.0.add(row * a_len), a_len),
                        std::slice::from_raw_parts_mut(b.0.add(row * b_len), b_len),
                        std::slice::from_raw_parts_mut(c.0.add(row * c_len), c_len),
                    )
                };
                f(worker, row, a, b, c);
            }
        })
    }

    /// Splits the columns of some outputs between the workers in one operation: the shape of matmuls whose weights' rows
    /// are divided. Each output is a row-major matrix, given with its row length n; all have the same number of rows.
    /// `f(i, tile)` gets some columns of output i, the first a multiple of `grain`.
    ///
    /// # Errors
    /// As [`Team::rows`].
    pub fn columns<const N: usize>(
        &self,
        outs: [(&mut [f32], usize); N],
        grain: usize,
        f: impl Fn(usize, Tile<'_>) + Sync,
    ) -> Result<()> {
        // The outputs' columns stand one after the other, each output at a multiple of the grain.
        let mut end = 0;
        let outs = outs.map(|(out, n)| {
            let start = end;
            end += n.next_multiple_of(grain.max(1));
            let rows = if n > 0 && out.len().is_multiple_of(n) {
                out.len() / n
            } else {
                usize::MAX
            };
            (Raw(out.as_mut_ptr()), n, rows, start)
        });
        if outs.iter().any(|(_, _, rows, _)| *rows == usize::MAX) {
            return Err(Error::InvalidInput {
                what: "an output is not a whole number of rows".into(),
            });
        }
        self.ranges(end, grain, |range| {
            for (i, (base, n, rows, start)) in outs.iter().enumerate() {
                let first = range.start.max(*start);
                let last = range.end.min(start + n);
                if first < last {
                    let columns = first - start..last - start;
                    f(
                        i,
                        Tile {
                            base: base.0,
                            stride: *n,
                            rows: *rows,
                            columns,
                            borrow: std::marker::PhantomData,
                        },
                    );
                }
            }
        })
    }
}

impl Team {
    /// Two outputs of the same shape, rows of `n`, whose columns are handed out together: `f(a, b)` gets the same columns
    /// of both, the first a multiple of `grain`. What combines them needs no operation of its own.
    ///
    /// # Errors
    /// As [`Team::rows`]; also if the shapes differ.
    pub fn column_pairs(
        &self,
        a: &mut [f32],
        b: &mut [f32],
        n: usize,
        grain: usize,
        f: impl Fn(Tile<'_>, Tile<'_>) + Sync,
    ) -> Result<()> {
        if n == 0 || !a.len().is_multiple_of(n) || a.len() != b.len() {
            return Err(Error::InvalidInput {
                what: format!(
                    "{} and {} elements are not the same rows of {n}",
                    a.len(),
                    b.len()
                ),
            });
        }
        let rows = a.len() / n;
        let (a, b) = (Raw(a.as_mut_ptr()), Raw(b.as_mut_ptr()));
        self.ranges(n, grain, |columns| {
            let (a, b) = (&a, &b);
            let tile = |base: &Raw<f32>| Tile {
                base: base.0,
                stride: n,
                rows,
                columns: columns.clone(),
                borrow: std::marker::PhantomData,
            };
            f(tile(a), tile(b));
        })
    }

    /// Splits a row-major matrix of rows of `n` into cells of `rows` x `columns` (the last ones may be smaller), each of
    /// them much work, and hands them out one by one: `f(worker, rows, tile)`, with the worker's index below
    /// [`Team::workers`]. Column by column, in each the last rows first: in causal attention they take longest.
    ///
    /// # Errors
    /// As [`Team::rows`].
    pub fn cells(
        &self,
        out: &mut [f32],
        n: usize,
        (rows, columns): (usize, usize),
        f: impl Fn(usize, Range<usize>, Tile<'_>) + Sync,
    ) -> Result<()> {
        if n == 0 || rows == 0 || columns == 0 || !out.len().is_multiple_of(n) {
            return Err(Error::InvalidInput {
                what: format!("{} elements cannot be cut into cells of rows of {n}", out.len()),
            });
        }
        let m = out.len() / n;
        let (down, across) = (m.div_ceil(rows), n.div_ceil(columns));
        let base = Raw(out.as_mut_ptr());
        self.hand_out(down * across, 1, |worker, range| {
            let base = &base;
            for cell in range {
                let (row, column) = ((down - 1 - cell % down) * rows, cell / down * columns);
                let part = row..m.min(row + rows);
                let tile = Tile {
                    // SAFETY: row is below m, so the address is inside `out`. The tile's rows and columns are this
                    // cell's: no other cell has any of them, and each cell is handed out once.
                    base: unsafe { base.0.add(row * n) },
                    stride: n,
                    rows: part.len(),
                    columns: column..n.min(column + columns),
                    borrow: std::marker::PhantomData,
                };
                f(worker, part, tile);
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

struct Raw<T>(*mut T);
// SAFETY: the pointer is only used to make disjoint slices, each for one thread, of elements that are Send.
unsafe impl<T: Send> Sync for Raw<T> {}

/// Some columns of a row-major output matrix, all its rows; the other columns belong to other workers.
pub struct Tile<'a> {
    base: *mut f32,
    stride: usize,
    rows: usize,
    columns: Range<usize>,
    borrow: std::marker::PhantomData<&'a mut f32>,
}

impl Tile<'_> {
    /// Number of rows (tokens, m).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns (outputs, n) that this tile owns.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Columns of one row, to read and write: `row` below [`Self::rows`].
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row lies inside the matrix (asserted), its columns inside the row (by construction), and only
        // this tile owns these columns; `&mut self` keeps two such slices from living at once.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.base.add(row * self.stride + self.columns.start),
                self.columns.len(),
            )
        }
    }

    /// A part of this tile: columns relative to its first.
    pub fn part(&mut self, columns: Range<usize>) -> Tile<'_> {
        assert!(
            columns.start <= columns.end && columns.end <= self.columns.len(),
            "columns out of the tile"
        );
        let start = self.columns.start;
        Tile {
            base: self.base,
            stride: self.stride,
            rows: self.rows,
            columns: start + columns.start..start + columns.end,
            borrow: std::marker::PhantomData,
        }
    }
}

/// Runs `f` with nesting marked; a panic becomes its message.
fn guarded(f: &(dyn Fn(usize) + Sync), worker: usize) -> Result<()> {
    if !math::float_environment_is_strict() {
        let what =
            "the thread's floating-point mode flushes denormals or does not round to nearest; reset it"
                .into();
        return Err(Error::InvalidInput { what });
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

    fn threads(n: usize) -> Team {
        Team::new(n, |_, f| {
            std::thread::spawn(f);
        })
    }

    #[test]
    fn every_row_is_computed_once() {
        for n in [1, 2, 3, 7] {
            let team = threads(n);
            for rows in [0, 1, 2, 15, 16, 17, 1000] {
                let mut out = vec![0u32; rows * 3];
                for _ in 0..20 {
                    team.rows(&mut out, 3, 2, |range, part| {
                        for (row, values) in range.zip(part.chunks_mut(3)) {
                            values.iter_mut().for_each(|v| *v += row as u32 + 1);
                        }
                    })
                    .unwrap();
                }
                for (i, v) in out.iter().enumerate() {
                    assert_eq!(*v, 20 * (i as u32 / 3 + 1));
                }
            }
        }
    }

    #[test]
    fn columns_are_disjoint_and_whole() {
        for n in [1, 3] {
            let team = threads(n);
            let (mut a, mut b) = (vec![0.0; 5 * 100], vec![0.0; 5 * 7]);
            team.columns([(&mut a, 100), (&mut b, 7)], 16, |i, mut tile| {
                assert!(tile.columns().start.is_multiple_of(16));
                for row in 0..tile.rows() {
                    let first = tile.columns().start;
                    for (column, v) in tile.row(row).iter_mut().enumerate() {
                        *v += (row * [100, 7][i] + first + column) as f32;
                    }
                }
            })
            .unwrap();
            assert!(a.iter().enumerate().all(|(i, v)| *v == i as f32));
            assert!(b.iter().enumerate().all(|(i, v)| *v == i as f32));
        }
    }

    #[test]
    fn cells_cover_a_matrix_once() {
        for n in [1, 3] {
            let team = threads(n);
            let mut out = vec![0.0; 10 * 7];
            team.cells(&mut out, 7, (3, 2), |worker, rows, mut tile| {
                assert!(worker < n);
                assert_eq!(rows.len(), tile.rows());
                for (i, row) in rows.enumerate() {
                    let columns = tile.columns();
                    for (v, column) in tile.row(i).iter_mut().zip(columns) {
                        *v += (row * 7 + column + 1) as f32;
                    }
                }
            })
            .unwrap();
            assert!(out.iter().enumerate().all(|(i, v)| *v == (i + 1) as f32));
            assert!(team.cells(&mut out, 4, (3, 2), |_, _, _| ()).is_err());
        }
    }

    #[test]
    fn pairs_of_columns_belong_together() {
        for n in [1, 3] {
            let team = threads(n);
            let (mut a, mut b) = (vec![0.0; 4 * 50], vec![1.0; 4 * 50]);
            team.column_pairs(&mut a, &mut b, 50, 8, |mut a, mut b| {
                assert_eq!(a.columns(), b.columns());
                assert!(a.columns().start.is_multiple_of(8));
                for row in 0..a.rows() {
                    let first = a.columns().start;
                    for (i, (a, b)) in a.row(row).iter_mut().zip(b.row(row)).enumerate() {
                        *b += (row * 50 + first + i) as f32;
                        *a += *b;
                    }
                }
            })
            .unwrap();
            assert!(a.iter().enumerate().all(|(i, a)| *a == (i + 1) as f32));
            assert_eq!(a, b);
            assert!(
                team.column_pairs(&mut a, &mut b[..150], 50, 8, |_, _| ())
                    .is_err()
            );
        }
    }

    #[test]
    fn more_workers_than_cores_lose_nothing() {
        // Many short operations, each of which must see the results of the one before; workers come and go, park and wake.
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let team = threads(4 * cores);
        let mut out = vec![0u32; 64];
        for round in 0..3000u32 {
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
