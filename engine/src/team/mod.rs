//! Team: a fixed set of workers that split one operation's rows between them.
//!
//! The engine starts no threads. Whoever can (natively the program's own threads, one a core; in the browser workers of
//! the page) lends `n - 1` of them to [`Team::new`] for the team's life; the caller of an operation is the n-th worker.
//! The others stay with the team: between two operations of a pass they spin for a moment, then they park, so that an
//! operation costs two cache-line hand-overs, no task spawn and no allocation.
//!
//! Work is handed out in ranges to whoever asks. The caller, who leads an operation, closes it when no range is left
//! and waits only for workers that have entered it: one that the system has not scheduled in time delays nobody, so a
//! team larger than the machine does not collapse.
//!
//! On a large machine a team knows where its workers are ([`Place`]). A few that share a last-level cache, a *domain*,
//! have a gate and a list of work of their own (`domains`), so that no cache line is written by all; a worker whose
//! domain has nothing left helps the others of its node. Nodes do not help one another: what is placed on a node's
//! memory is read by its workers alone.
//!
//! Only rows are split, never the depth of a sum: which worker computes a row, and in which order, moves no number.
//!
//! `outputs` says how an operation's outputs are split, `heads` which node has which part of a cache; `cost` counts
//! what a hand-over takes. These files hold the crate's one unsafe idea about threads: a borrowed closure, and disjoint
//! parts of one output slice, are handed to other threads for as long as the operation waits for them.
#![allow(unsafe_code)]

mod cost;
mod domains;
mod heads;
mod outputs;

pub use cost::HandOver;
pub use domains::{MAX_NODES, Place, Shares};
pub(crate) use heads::{section_of, section_start};
pub use outputs::{ByNode, Columns, Piece, RowTile, Tile, Tiled};

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Error, Result, math};
use domains::{Cut, Domain, Domains, Seen};

/// Looks in the time of one on x86, whose spin-loop hint takes some 10 ns. WebAssembly has no such hint.
const LOOKS: u32 = if cfg!(target_arch = "wasm32") { 10 } else { 1 };

/// How often a waiting worker looks before it parks. About 20 us on a server core: longer than the serial work
/// between two operations, shorter than a time slice.
const SPINS: u32 = 2_000 * LOOKS;

/// How often it looks before it lets other threads of the core run between two looks: on a machine with fewer cores
/// than workers, what it waits for may stand behind it in the queue.
const PATIENT_SPINS: u32 = 200 * LOOKS;

/// Looks per turn given away.
const SPINS_PER_TURN: u32 = 50 * LOOKS;

/// A value on its own pair of cache lines (adjacent-line prefetch makes the pair the unit of sharing).
#[repr(align(128))]
struct Padded<T>(T);

type Job = *const (dyn Fn(usize) + Sync);

/// What a worker has spent on waiting: the caller of operations (number 0) for the others to finish, the others for
/// work.
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

struct Shared {
    domains: Domains,
    root: Padded<Root>,
    leader: Padded<Leader>,
    /// Per worker.
    waited: Box<[Padded<Waited>]>,
}

/// What all domains share. Nobody writes to it but who falls asleep or wakes: of each domain the first one and the last
/// one, and the leader.
#[derive(Default)]
struct Root {
    /// Domains in which somebody sleeps.
    sleeping: AtomicUsize,
    /// Whether the leader is parked on `done`. The last one to leave a domain reads it.
    leader_sleeps: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    done: Condvar,
}

/// What the leader alone writes to, unless something fails: with each operation, so it is on lines of its own.
#[derive(Default)]
struct Leader {
    /// Held by the leader for one operation: one at a time. The number of the last one.
    region: Mutex<u32>,
    failed: Mutex<Option<Error>>,
}

impl Shared {
    /// Something has failed: what nobody has taken yet is left.
    fn fail(&self) {
        self.domains.all.iter().for_each(Domain::drop_work);
    }

    /// Whether every domain's part of the operation is done.
    fn finish(&self) -> bool {
        self.domains.all.iter().all(Domain::finish)
    }

    /// Wakes the leader, if it sleeps.
    fn wake_leader(&self) {
        let root = &self.root.0;
        if root.leader_sleeps.load(Ordering::SeqCst) {
            let _guard = lock(&root.lock);
            root.done.notify_all();
        }
    }
}

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
        self.0.root.0.stop.store(true, Ordering::SeqCst);
        let mut epoch = lock(&self.0.leader.0.region);
        *epoch = epoch.wrapping_add(1);
        self.0.domains.all.iter().for_each(|domain| domain.tell(*epoch));
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
    pub fn new(n: usize, spawn: impl FnMut(usize, Box<dyn FnOnce() + Send>)) -> Self {
        Self::placed(&vec![Place::default(); n], spawn)
    }

    /// As [`Self::new`], of workers whose places are known; the first one is the caller's.
    pub fn placed(places: &[Place], mut spawn: impl FnMut(usize, Box<dyn FnOnce() + Send>)) -> Self {
        let n = places.len();
        if n <= 1 {
            return Self::single();
        }
        let shared = Arc::new(Shared {
            domains: Domains::new(places),
            root: Padded(Root::default()),
            leader: Padded(Leader::default()),
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

    /// Number of nodes that they are on.
    pub fn nodes(&self) -> usize {
        self.inner.as_ref().map_or(1, |handle| handle.0.domains.nodes())
    }

    /// The node of each worker, counted from 0 without gaps in the order of [`Place::node`].
    pub fn node_of(&self, worker: usize) -> usize {
        self.inner
            .as_ref()
            .map_or(0, |handle| handle.0.domains.node_of(worker))
    }

    /// Last-level caches that its workers share. Of an operation's items the workers of each have a part of their own,
    /// one after the other: so many places in a sequence of items are worked on at the same time.
    pub fn caches(&self) -> usize {
        self.inner.as_ref().map_or(1, |handle| handle.0.domains.all.len())
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

    /// Runs `f` on the caller and on every worker that comes in time; then waits for those inside, and until nothing is
    /// left of what the domains were given. `f` gets the worker's index, the caller's is 0; it returns when nothing is
    /// left to take for that worker.
    fn operate(&self, work: Option<(&Shares, usize)>, f: &(dyn Fn(usize) + Sync)) -> Result<()> {
        if IN_REGION.get() {
            return Err(Error::Internal {
                what: "a team's operation was started from inside another one".into(),
            });
        }
        let (Some(handle), Some((shares, each))) = (&self.inner, work) else {
            return guarded(f, 0);
        };
        let shared = &*handle.0;
        let (root, leader) = (&shared.root.0, &shared.leader.0);
        let mut region = lock(&leader.region);
        *region = region.wrapping_add(1);
        shared.domains.give(shares, each);
        // SAFETY: lengthens the closure's lifetime for the workers. They use it only inside a gate, and this function
        // does not return (or unwind: `guarded` catches) before all gates are closed and empty.
        let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(f) };
        // SAFETY: as above; all gates have been closed and empty since the operation before.
        unsafe { shared.domains.open(*region, job) };
        shared.domains.wake(*region, &root.sleeping);
        let own = guarded(f, 0);
        if own.is_err() {
            shared.fail();
        }
        let (mut spins, mut parked) = (0, false);
        while !shared.finish() {
            spins += 1;
            if spins < SPINS {
                pause(spins);
                continue;
            }
            parked = true;
            let mut guard = lock(&root.lock);
            root.leader_sleeps.store(true, Ordering::SeqCst);
            while !shared.finish() {
                guard = root.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            root.leader_sleeps.store(false, Ordering::SeqCst);
        }
        shared.waited[0].0.add(spins, parked);
        let other = lock(&leader.failed).take();
        own.and(other.map_or(Ok(()), Err))
    }

    /// Splits `items` into ranges of at least `grain` (the last may be shorter) and hands them out to whoever is free.
    /// Of a team on several nodes the first ones go to the first node, and so on.
    ///
    /// # Errors
    /// [`Error::Worker`] if a worker panicked (all are waited for first), [`Error::Internal`] if called from inside
    /// an operation of any team, [`Error::FloatMode`] if a worker's mode is not the one that the contract needs.
    pub fn ranges(&self, items: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) -> Result<()> {
        self.hand_out(items, Cut::shrinking(items, grain, self.n), |_, range| f(range))
    }

    /// Hands out items in pieces: `f(worker, range)`.
    fn hand_out(&self, items: usize, cut: Cut, f: impl Fn(usize, Range<usize>) + Sync) -> Result<()> {
        if self.inner.is_none() || items <= cut.least() {
            return self.alone(items, f);
        }
        self.hand_out_shares(&self.shares(items, cut.least()), cut, f)
    }

    /// All of it by the caller. Still an operation, of one worker, so that a panic becomes an error and nesting is
    /// seen.
    fn alone(&self, items: usize, f: impl Fn(usize, Range<usize>) + Sync) -> Result<()> {
        if items == 0 {
            return Ok(());
        }
        self.operate(None, &|worker| f(worker, 0..items))
    }

    /// The nodes' shares of items that are handed out by `each`.
    pub(crate) fn shares(&self, items: usize, each: usize) -> Shares {
        match &self.inner {
            Some(handle) => handle.0.domains.shares(items, each),
            None => Shares::only(0, items),
        }
    }

    /// Hands out items in pieces, those of a node's share to its workers.
    fn hand_out_shares(
        &self,
        shares: &Shares,
        cut: Cut,
        f: impl Fn(usize, Range<usize>) + Sync,
    ) -> Result<()> {
        let Some(handle) = &self.inner else {
            return self.alone(shares.0[1], f);
        };
        let domains = &handle.0.domains;
        self.operate(Some((shares, cut.least())), &|worker| {
            for domain in domains.reach_of(worker) {
                while let Some(range) = domain.take(cut) {
                    f(worker, range);
                }
            }
        })
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
    let domain = shared.domains.of_worker(index);
    let mut seen = 0;
    loop {
        let (mut spins, mut parked) = (0, false);
        let job = loop {
            match domain.enter(seen) {
                Seen::Same => (),
                Seen::Entered(epoch, job) => {
                    seen = epoch;
                    break job;
                }
                // Too late for that one; perhaps in time for the next: either is whole.
                Seen::Missed(epoch) => {
                    seen = epoch;
                    if shared.root.0.stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            }
            spins += 1;
            if spins < SPINS {
                pause(spins);
                continue;
            }
            parked = true;
            domain.sleep(seen, &shared.root.0.sleeping);
        };
        shared.waited[index].0.add(spins, parked);
        if let Some(job) = job {
            // SAFETY: the closure outlives the operation: `operate` waits until this worker has left the gate.
            let f = unsafe { &*job };
            if let Err(error) = guarded(f, index) {
                *lock(&shared.leader.0.failed) = Some(error);
                shared.fail();
            }
        }
        if domain.leave() {
            shared.wake_leader();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    pub(super) fn threads(n: usize) -> Team {
        Team::new(n, |_, f| {
            std::thread::spawn(f);
        })
    }

    /// Workers of some nodes, each with some caches of one or more workers.
    fn placed(nodes: &[&[usize]]) -> Team {
        let mut places = Vec::new();
        for (node, caches) in nodes.iter().enumerate() {
            for (cache, workers) in caches.iter().enumerate() {
                places.extend(std::iter::repeat_n(Place { node, cache }, *workers));
            }
        }
        // Not in order: the caller's place is the last node's.
        places.reverse();
        Team::placed(&places, |_, f| {
            std::thread::spawn(f);
        })
    }

    pub(super) fn teams() -> Vec<Team> {
        let mut teams: Vec<Team> = [1, 2, 3, 7].map(threads).into();
        let nodes: [&[&[usize]]; 4] = [
            &[&[2, 2]],
            &[&[1], &[1]],
            &[&[3, 1], &[2]],
            &[&[1], &[1], &[1], &[2, 1]],
        ];
        teams.extend(nodes.map(placed));
        teams
    }

    #[test]
    fn more_workers_than_cores_lose_nothing() {
        // Many short operations, each of which must see the results of the one before; workers come and go, park and
        // wake.
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        // Miri runs one thread at a time, a thousand times slower.
        let (workers, rounds) = if cfg!(miri) { (3, 10) } else { (4 * cores, 3000) };
        for team in [threads(workers), placed(&[&[1, 1], &[1]])] {
            many_short_operations(&team, rounds);
        }
    }

    fn many_short_operations(team: &Team, rounds: u32) {
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
        assert!(out.iter().all(|v| *v == rounds));
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
            while std::thread::current().id() != leader && !shared.root.0.leader_sleeps.load(Ordering::SeqCst)
            {
                std::thread::yield_now();
            }
        })
        .unwrap();
        let waits = team.waits();
        assert!(waits[0].spins > 0 && waits[0].parks == 1, "{waits:?}");
    }

    #[test]
    fn a_panic_is_an_error_and_the_team_goes_on() {
        for team in [threads(2), placed(&[&[1], &[1]]), placed(&[&[1, 1], &[2, 1]])] {
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
            let error = team.ranges(8, 1, |_| ()).unwrap_err();
            assert_eq!(error.class(), Class::Internal, "{error}");
            nested.fetch_add(range.len(), Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(nested.into_inner(), 8);
    }

    #[test]
    fn workers_that_parked_wake_up_and_take_part() {
        let domains: [(Team, usize); 4] = [
            (threads(2), 1),
            (threads(5), 1),
            (placed(&[&[2, 2], &[1, 3]]), 4),
            (placed(&[&[2], &[1], &[1]]), 3),
        ];
        for (team, domains) in domains {
            let n = team.workers();
            let shared = Arc::clone(&team.inner.as_ref().unwrap().0);
            let asleep = || shared.domains.all.iter().map(Domain::asleep).sum::<usize>();
            // Where the leader is alone in a domain nobody of it sleeps.
            let alone = usize::from(shared.domains.of_worker(0).workers == 1);
            for _ in 0..3 {
                let sleeping = || shared.root.0.sleeping.load(Ordering::SeqCst);
                while asleep() < n - 1 || sleeping() < domains - alone {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                assert_eq!(sleeping(), domains - alone);
                // Items that wait for each other: done only if all workers are inside at once.
                let met = AtomicUsize::new(0);
                team.ranges(n, 1, |_| {
                    met.fetch_add(1, Ordering::SeqCst);
                    while met.load(Ordering::SeqCst) < n {
                        std::thread::yield_now();
                    }
                })
                .unwrap();
            }
        }
    }

    /// Who falls asleep after the leader has opened an operation, and before its call for those who sleep since the one
    /// before, must not take that call from them.
    #[test]
    fn a_call_reaches_those_who_sleep_longest() {
        let rounds = if cfg!(miri) { 3 } else { 300 };
        let team = placed(&[&[4], &[3]]);
        let n = team.workers();
        for round in 0..rounds {
            // Some of them sleep, some are about to, some still look.
            std::thread::sleep(std::time::Duration::from_micros(round % 60 * 10));
            for _ in 0..round % 3 {
                team.ranges(n, 1, |_| ()).unwrap();
            }
            let met = AtomicUsize::new(0);
            team.ranges(n, 1, |_| {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < n {
                    std::thread::yield_now();
                }
            })
            .unwrap();
        }
    }
}
