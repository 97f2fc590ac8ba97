//! Where workers are: those that share a last-level cache are a *domain*, and a node has one or more of them. A cache
//! of many workers is several domains ([`MOST_WORKERS`]).
//!
//! What the workers of a team write to while they hand work over is here, once per domain: no cache line is written by
//! the workers of two domains, so that a hand-over between many cores costs what it costs between few. Only the leader,
//! who opens and closes an operation, writes to all of them.
//!
//! Sleep is a domain's own matter too. Where there are several the leader calls one worker of each in which somebody
//! sleeps, and that one calls the others. All that domains share is a count of those in which somebody sleeps, which the
//! first one to fall asleep and the last one to wake change.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Job, Padded, lock};

/// NUMA nodes that a team can know of. Two packages of four nodes each are 8.
pub const MAX_NODES: usize = 16;

/// Where a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The NUMA node, below [`MAX_NODES`]. Work that is placed on a node is done by its workers alone.
    pub node: usize,
    /// The last-level cache, any number.
    pub cache: usize,
}

/// Workers of a domain, at most. Those of one change its lines one after the other, which with the 42 of a Xeon's node
/// is most of a hand-over; with many domains the lines that the leader writes are. `docs/machine.md` counts both.
const MOST_WORKERS: usize = 16;

/// Bit of a gate: nobody may enter. Below it are the workers inside, above it the number of the operation.
const CLOSED: u64 = 1 << 31;
const INSIDE: u64 = CLOSED - 1;

/// What the workers of a domain share, and the leader with them.
pub(super) struct Domain {
    pub(super) node: usize,
    pub(super) workers: usize,
    /// Workers of the node's domains before this one.
    before: usize,
    gate: Padded<Gate>,
    work: Padded<Work>,
    sleep: Padded<Sleep>,
}

struct Gate {
    /// See [`CLOSED`].
    state: AtomicU64,
    /// The present operation; written by the leader while the gate is closed and nobody is inside.
    job: UnsafeCell<Option<Job>>,
}

/// How the items of an operation are cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Items of the smallest piece, a multiple of the grain, and of the largest one.
    least: usize,
    most: usize,
}

impl Cut {
    /// Pieces of `n` items.
    pub(super) fn each(n: usize) -> Self {
        Cut { least: n, most: n }
    }

    /// About so many pieces of the same size, a multiple of `grain`.
    pub(super) fn even(items: usize, grain: usize, pieces: usize) -> Self {
        let grain = grain.max(1);
        Cut::each((items / pieces.max(1) / grain * grain).max(grain))
    }

    /// Large pieces first, smaller ones as less is left. Who takes a large one reads on where it is, which memory is
    /// fastest with; the last ones are so small that nobody waits long for another worker's.
    pub(super) fn shrinking(items: usize, grain: usize, workers: usize) -> Self {
        Cut {
            most: usize::MAX,
            ..Cut::even(items, grain, workers * LAST_PIECES)
        }
    }

    /// The same with pieces of at most `most` items.
    pub(super) fn bounded(items: usize, most: usize, workers: usize) -> Self {
        let most = most.max(1);
        Cut {
            least: Cut::shrinking(items, 1, workers).least.min(most),
            most,
        }
    }

    /// Items of the smallest piece.
    pub(super) fn least(self) -> usize {
        self.least
    }

    /// Items of the next piece where so many are left for so many workers: half of a worker's part.
    pub(super) fn piece(self, left: usize, workers: usize) -> usize {
        let half = left / (2 * workers) / self.least * self.least;
        half.clamp(self.least, self.most)
    }
}

/// Into how many of the smallest pieces of [`Cut::shrinking`] a worker's share could be cut.
pub(super) const LAST_PIECES: usize = 64;

/// Items of the present operation that nobody has taken yet.
struct Work {
    next: AtomicUsize,
    end: AtomicUsize,
}

/// The workers of a domain that sleep.
#[derive(Default)]
struct Sleep {
    /// How many; changed with the lock held.
    asleep: AtomicUsize,
    /// The operation for which all who had slept since before it were called.
    called: Mutex<u32>,
    wake: Condvar,
}

// SAFETY: `job` is the only field that is not Sync by itself. The leader writes it while the gate is closed and empty;
// a worker reads it only between entering the gate and leaving it.
unsafe impl Sync for Domain {}
// SAFETY: as above; the raw pointer in `job` is dereferenced only inside the gate, while the borrow it was made from is
// kept alive by the team's operation.
unsafe impl Send for Domain {}

/// What a worker sees of its domain's gate.
pub(super) enum Seen {
    /// Nothing new.
    Same,
    /// An operation, by number, that it is inside of from now on.
    Entered(u32, Option<Job>),
    /// One that was over before it came, or the end of the team.
    Missed(u32),
}

impl Domain {
    /// Of so many workers; the node's domains before it have `before`.
    fn new(node: usize, workers: usize, before: usize) -> Self {
        Domain {
            node,
            workers,
            before,
            gate: Padded(Gate {
                state: AtomicU64::new(CLOSED),
                job: UnsafeCell::new(None),
            }),
            work: Padded(Work {
                next: AtomicUsize::new(0),
                end: AtomicUsize::new(0),
            }),
            sleep: Padded(Sleep::default()),
        }
    }

    /// The number of the last operation that was opened.
    pub(super) fn epoch(&self) -> u32 {
        (self.gate.0.state.load(Ordering::SeqCst) >> 32) as u32
    }

    /// Opens the gate for operation `epoch`. Only by the leader, and only where [`Self::is_over`].
    ///
    /// # Safety
    /// `job` stays valid until [`Self::is_over`] again.
    unsafe fn open(&self, epoch: u32, job: Job, order: Ordering) {
        debug_assert!(self.is_over());
        // SAFETY: the gate is closed and empty, so no worker reads `job` now.
        unsafe { *self.gate.0.job.get() = Some(job) };
        self.gate.0.state.store(u64::from(epoch) << 32, order);
    }

    /// Tells of operation `epoch`, which nobody can enter, and wakes all.
    pub(super) fn tell(&self, epoch: u32) {
        self.gate
            .0
            .state
            .store(u64::from(epoch) << 32 | CLOSED, Ordering::SeqCst);
        let _guard = lock(&self.sleep.0.called);
        self.sleep.0.wake.notify_all();
    }

    /// Sleeps until there is an operation after `seen`. `sleeping` counts the domains in which somebody does.
    pub(super) fn sleep(&self, seen: u32, sleeping: &AtomicUsize) {
        let Sleep { asleep, called, wake } = &self.sleep.0;
        let mut called = lock(called);
        // The leader's one call for operation `seen` may still be on its way, and would come to this worker as well.
        self.call(&mut called, seen);
        // Counted before the gate is looked at; the leader opens it before it reads the counts. One of the two sees the
        // other (both SeqCst, or a fence between), so no wake-up is lost. Who is not the first one here takes the lock
        // after that one, whose domain is counted already.
        if asleep.fetch_add(1, Ordering::SeqCst) == 0 {
            sleeping.fetch_add(1, Ordering::SeqCst);
        }
        let epoch = loop {
            let epoch = self.epoch();
            if epoch != seen {
                break epoch;
            }
            called = wake.wait(called).unwrap_or_else(PoisonError::into_inner);
        };
        if asleep.fetch_sub(1, Ordering::SeqCst) == 1 {
            sleeping.fetch_sub(1, Ordering::SeqCst);
        }
        self.call(&mut called, epoch);
    }

    /// Calls those who sleep since before operation `epoch`, unless that was done: with the lock held, so that nobody
    /// is between a look at the gate and sleep. Who comes to sleep later finds that operation.
    fn call(&self, called: &mut u32, epoch: u32) {
        if *called != epoch {
            *called = epoch;
            if self.asleep() > 0 {
                self.sleep.0.wake.notify_all();
            }
        }
    }

    /// Workers that sleep.
    pub(super) fn asleep(&self) -> usize {
        self.sleep.0.asleep.load(Ordering::SeqCst)
    }

    /// Calls those who sleep, or one of them, who calls the others. By the leader, who has opened the gate for
    /// operation `epoch`.
    fn wake(&self, epoch: u32, all: bool) {
        if self.asleep() > 0 {
            let mut called = lock(&self.sleep.0.called);
            match all {
                true => self.call(&mut called, epoch),
                false => self.sleep.0.wake.notify_one(),
            }
        }
    }

    /// Looks for an operation after `seen`, and enters it.
    pub(super) fn enter(&self, seen: u32) -> Seen {
        let state = &self.gate.0.state;
        let mut now = state.load(Ordering::Acquire);
        loop {
            let epoch = (now >> 32) as u32;
            if epoch == seen {
                return Seen::Same;
            }
            if now & CLOSED != 0 {
                return Seen::Missed(epoch);
            }
            match state.compare_exchange_weak(now, now + 1, Ordering::SeqCst, Ordering::Acquire) {
                // SAFETY: inside the gate; entering it was ordered after the leader's write of `job`.
                Ok(_) => return Seen::Entered(epoch, unsafe { *self.gate.0.job.get() }),
                Err(other) => now = other,
            }
        }
    }

    /// Leaves, and closes the gate: a worker leaves when there is nothing left to take. Whether it was the last one
    /// inside.
    pub(super) fn leave(&self) -> bool {
        let leave = |state: u64| Some((state - 1) | CLOSED);
        let before = self
            .gate
            .0
            .state
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, leave);
        before.is_ok_and(|before| before & INSIDE == 1)
    }

    /// Whether nobody is inside and nobody can enter.
    pub(super) fn is_over(&self) -> bool {
        self.gate.0.state.load(Ordering::SeqCst) & (CLOSED | INSIDE) == CLOSED
    }

    /// Whether the operation is over here. Where nobody has come and others have taken its work, the gate is closed;
    /// while somebody is inside, nothing that the workers write to is looked at but the gate.
    pub(super) fn finish(&self) -> bool {
        let state = self.gate.0.state.load(Ordering::SeqCst);
        if state & (CLOSED | INSIDE) == 0 && self.is_drained() {
            self.gate.0.state.fetch_or(CLOSED, Ordering::SeqCst);
        }
        self.is_over()
    }

    /// Items to hand out. Only by the leader, while the gate is closed.
    fn give(&self, items: Range<usize>) {
        self.work.0.next.store(items.start, Ordering::Relaxed);
        self.work.0.end.store(items.end, Ordering::Relaxed);
    }

    /// A piece that nobody else gets.
    pub(super) fn take(&self, cut: Cut) -> Option<Range<usize>> {
        let work = &self.work.0;
        let mut start = work.next.load(Ordering::SeqCst);
        loop {
            let end = work.end.load(Ordering::SeqCst);
            if start >= end {
                return None;
            }
            let next = end.min(start + cut.piece(end - start, self.workers));
            match work
                .next
                .compare_exchange_weak(start, next, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return Some(start..next),
                Err(other) => start = other,
            }
        }
    }

    /// Whether everything has been taken. In one order with the gates and with who sleeps (SeqCst): the leader must not
    /// go to sleep over work that has just been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.work.0.next.load(Ordering::SeqCst) >= self.work.0.end.load(Ordering::SeqCst)
    }

    /// Forgets what has not been taken.
    pub(super) fn drop_work(&self) {
        self.work.0.end.store(0, Ordering::SeqCst);
    }
}

/// The domains of a team, node by node.
pub(super) struct Domains {
    pub(super) all: Box<[Domain]>,
    /// Of each node, its domains, and the workers of the nodes before it.
    nodes: Box<[(Range<usize>, usize)]>,
    /// The domain of each worker.
    of_worker: Box<[usize]>,
}

impl Domains {
    /// Of workers that are there.
    pub(super) fn new(places: &[Place]) -> Self {
        let mut found: Vec<Place> = places.to_vec();
        found.sort_unstable();
        found.dedup();
        let node_of = |place: &Place| place.node.min(MAX_NODES - 1);
        let mut ids: Vec<usize> = found.iter().map(node_of).collect();
        ids.dedup();
        let (mut all, mut nodes, mut before_node) = (Vec::new(), Vec::new(), 0);
        let mut of_worker = vec![0; places.len()];
        for (node, id) in ids.iter().enumerate() {
            let (first, mut before) = (all.len(), 0);
            for cache in found.iter().filter(|place| node_of(place) == *id) {
                let here = places.iter().enumerate().filter(|(_, place)| *place == cache);
                let here: Vec<usize> = here.map(|(worker, _)| worker).collect();
                let parts = here.len().div_ceil(MOST_WORKERS);
                for part in 0..parts {
                    let workers = &here[part * here.len() / parts..(part + 1) * here.len() / parts];
                    workers.iter().for_each(|worker| of_worker[*worker] = all.len());
                    all.push(Domain::new(node, workers.len(), before));
                    before += workers.len();
                }
            }
            nodes.push((first..all.len(), before_node));
            before_node += before;
        }
        Domains {
            all: all.into(),
            nodes: nodes.into(),
            of_worker: of_worker.into(),
        }
    }

    /// Opens all gates for operation `epoch`. Only by the leader, where all are closed and nobody is inside.
    ///
    /// # Safety
    /// `job` stays valid until all of them are so again.
    pub(super) unsafe fn open(&self, epoch: u32, job: Job) {
        // The stores to several gates overlap, and one fence puts all of them before what the leader reads then.
        let several = self.all.len() > 1;
        let order = if several {
            Ordering::Release
        } else {
            Ordering::SeqCst
        };
        for domain in &self.all {
            // SAFETY: as this function's.
            unsafe { domain.open(epoch, job, order) };
        }
        if several {
            fence(Ordering::SeqCst);
        }
    }

    /// Calls those who sleep for operation `epoch`, whose gates have been opened: of several domains one worker each.
    pub(super) fn wake(&self, epoch: u32, sleeping: &AtomicUsize) {
        if sleeping.load(Ordering::SeqCst) > 0 {
            let all = self.all.len() == 1;
            self.all.iter().for_each(|domain| domain.wake(epoch, all));
        }
    }

    /// Number of nodes.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A worker's domain.
    pub(super) fn of_worker(&self, worker: usize) -> &Domain {
        &self.all[self.of_worker[worker]]
    }

    /// A worker's node.
    pub(super) fn node_of(&self, worker: usize) -> usize {
        self.of_worker(worker).node
    }

    /// A worker's domain, then the others of its node.
    pub(super) fn reach_of(&self, worker: usize) -> impl Iterator<Item = &Domain> {
        let own = self.of_worker[worker];
        let node = self.nodes[self.all[own].node].0.clone();
        (own..node.end).chain(node.start..own).map(|i| &self.all[i])
    }

    /// Cuts items into the nodes' shares, as large as their shares of the workers, at multiples of `each`.
    pub(super) fn shares(&self, items: usize, each: usize) -> Shares {
        let (pieces, workers) = (items.div_ceil(each), self.of_worker.len());
        let mut shares = Shares::default();
        for (start, (_, before)) in shares.0.iter_mut().zip(&self.nodes) {
            *start = (pieces * before / workers * each).min(items);
        }
        shares.0[self.nodes.len()..].fill(items);
        shares
    }

    /// Gives each domain its part of its node's share. Only by the leader, while all gates are closed.
    pub(super) fn give(&self, shares: &Shares, each: usize) {
        for (node, (domains, _)) in self.nodes.iter().enumerate() {
            let items = shares.of(node);
            let domains = &self.all[domains.clone()];
            let workers: usize = domains.iter().map(|domain| domain.workers).sum();
            let pieces = items.len().div_ceil(each);
            let at = |before: usize| (items.start + pieces * before / workers * each).min(items.end);
            for domain in domains {
                domain.give(at(domain.before)..at(domain.before + domain.workers));
            }
        }
    }
}

/// Items of an operation, node by node: where each node's begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shares(pub(super) [usize; MAX_NODES + 1]);

impl Shares {
    /// All of them on one node.
    pub(super) fn only(node: usize, items: usize) -> Self {
        let mut shares = Shares::default();
        shares.0[node + 1..].fill(items);
        shares
    }

    /// Whether they are shares of so many items: each of them is one node's.
    pub(super) fn cover(&self, items: usize) -> bool {
        self.0[0] == 0 && self.0[MAX_NODES] == items && self.0.is_sorted()
    }

    /// Those of a node.
    pub fn of(&self, node: usize) -> Range<usize> {
        self.0[node]..self.0[node + 1]
    }

    /// The node that has an item; the last one for those beyond the end.
    pub(crate) fn node_of(&self, item: usize) -> usize {
        self.0[1..MAX_NODES].partition_point(|end| *end <= item)
    }

    /// Shares that begin at these items; the last one ends at `items`.
    pub(crate) fn at(starts: impl Iterator<Item = usize>, items: usize) -> Self {
        let mut shares = Shares([items; MAX_NODES + 1]);
        for (share, start) in shares.0[..MAX_NODES].iter_mut().zip(starts) {
            *share = start.min(items);
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(nodes: &[&[usize]]) -> Vec<Place> {
        let mut places = Vec::new();
        for (node, caches) in nodes.iter().enumerate() {
            for (cache, workers) in caches.iter().enumerate() {
                places.extend(std::iter::repeat_n(Place { node, cache }, *workers));
            }
        }
        places
    }

    #[test]
    fn shares_are_whole_and_in_proportion() {
        for nodes in [
            vec![&[1][..]],
            vec![&[8, 8], &[8, 8]],
            vec![&[3], &[1], &[2, 2]],
            vec![&[1]; 8],
        ] {
            let domains = Domains::new(&places(&nodes));
            assert_eq!(domains.nodes(), nodes.len());
            let workers: usize = nodes.iter().flat_map(|node| *node).sum();
            let cuts = [
                (0, 1),
                (1, 1),
                (7, 2),
                (1000, 1),
                (1000, 16),
                (8, 1),
                (5, 100),
                (5000, 32),
            ];
            let cuts = cuts.iter().flat_map(|(items, grain)| {
                let shrinking = Cut::shrinking(*items, *grain, workers);
                [(*items, *grain, Cut::each(*grain)), (*items, *grain, shrinking)]
            });
            for (items, grain, cut) in cuts {
                let each = cut.least();
                assert!(each.is_multiple_of(grain));
                let shares = domains.shares(items, each);
                domains.give(&shares, each);
                let mut taken = vec![0; items];
                for (node, caches) in nodes.iter().enumerate() {
                    let share = shares.of(node);
                    let fair = items * caches.iter().sum::<usize>() / workers;
                    assert!(share.len().abs_diff(fair) <= 2 * each, "{share:?} of {items}");
                    assert!(share.clone().all(|item| shares.node_of(item) == node));
                    for domain in domains.all.iter().filter(|domain| domain.node == node) {
                        while let Some(range) = domain.take(cut) {
                            assert!(range.start >= share.start && range.end <= share.end);
                            taken[range].iter_mut().for_each(|taken| *taken += 1);
                        }
                        assert!(domain.is_drained());
                    }
                }
                assert!(taken.iter().all(|taken| *taken == 1), "{items} by {cut:?}");
            }
        }
    }

    #[test]
    fn pieces_shrink_and_end_on_the_grain() {
        let cut = Cut::shrinking(64 * 32, 32, 2);
        let domains = Domains::new(&places(&[&[2]]));
        domains.give(&domains.shares(64 * 32, cut.least()), cut.least());
        let pieces: Vec<usize> =
            std::iter::from_fn(|| domains.all[0].take(cut).map(|piece| piece.len() / 32)).collect();
        assert_eq!(pieces, [16, 12, 9, 6, 5, 4, 3, 2, 1, 1, 1, 1, 1, 1, 1]);
        // Items that are no whole number of grains: the last piece alone is smaller.
        let cut = Cut::shrinking(1000, 32, 1);
        assert_eq!(
            (cut.piece(1000, 1), cut.piece(40, 1), cut.piece(8, 1)),
            (480, 32, 32)
        );
        assert_eq!(Cut::each(1).piece(1000, 2), 1);
        assert_eq!(Cut::even(1000, 32, 8), Cut::each(96));
    }

    #[test]
    fn a_worker_goes_from_its_own_domain_to_its_neighbours() {
        let domains = Domains::new(&places(&[&[2, 2, 2], &[2, 2]]));
        let caches = |worker| -> Vec<usize> {
            let from = domains.reach_of(worker);
            from.map(|domain| domain.before).collect()
        };
        assert_eq!(caches(0), [0, 2, 4]);
        assert_eq!(caches(3), [2, 4, 0]);
        assert_eq!(caches(9), [2, 0]);
        assert_eq!((domains.node_of(5), domains.node_of(6)), (0, 1));
    }

    /// The 43 cores of a node of a Xeon share a cache: three domains, whose workers are neighbours.
    #[test]
    fn a_cache_of_many_workers_is_several_domains() {
        let domains = Domains::new(&places(&[&[43], &[16, 1]]));
        let workers: Vec<usize> = domains.all.iter().map(|domain| domain.workers).collect();
        assert_eq!(workers, [14, 14, 15, 16, 1]);
        assert_eq!(domains.nodes(), 2);
        let before = |worker| domains.of_worker(worker).before;
        assert_eq!([13, 14, 28, 42, 43, 59].map(before), [0, 14, 28, 28, 0, 16]);
        let reach: Vec<usize> = domains.reach_of(20).map(|domain| domain.before).collect();
        assert_eq!(reach, [14, 28, 0]);
    }

    #[test]
    fn nodes_may_have_any_numbers() {
        let place = |node, cache| Place { node, cache };
        let domains = Domains::new(&[place(3, 0), place(7, 0), place(3, 9), place(700, 0)]);
        assert_eq!(domains.nodes(), 3);
        let nodes: Vec<usize> = (0..4).map(|worker| domains.node_of(worker)).collect();
        assert_eq!(nodes, [0, 1, 0, 2]);
    }

    #[test]
    fn a_gate_is_entered_once_per_operation_and_closed_by_who_leaves() {
        let domains = Domains::new(&places(&[&[2]]));
        let domain = &domains.all[0];
        let nothing = |_: usize| ();
        let job: Job = std::ptr::from_ref::<dyn Fn(usize) + Sync>(&nothing);
        assert!(domain.is_over() && matches!(domain.enter(0), Seen::Same));
        // SAFETY: the job outlives the test.
        unsafe { domains.open(1, job) };
        assert!(matches!(domain.enter(0), Seen::Entered(1, Some(_))));
        assert!(matches!(domain.enter(1), Seen::Same));
        assert!(!domain.is_over());
        assert!(domain.leave() && domain.is_over());
        assert!(matches!(domain.enter(0), Seen::Missed(1)));
        domain.tell(2);
        assert!(matches!(domain.enter(1), Seen::Missed(2)));
        assert_eq!(domain.epoch(), 2);
    }
}
