//! States: what layers keep that do not keep the positions before but one state of a fixed size, which each position
//! changes.
//!
//! A state lies in a slot; all layers with states use the same slot of a sequence. A pass reads a sequence's state in
//! one slot and leaves the new one in another, which is the sequence's when the pass is over. So a pass that fails has
//! changed nothing, slots are shared by forks and checkpoints without being copied, and what a sequence was after a
//! pass can be kept: a *snapshot*, to which it can be cut. A sequence without a slot is in the state from which all
//! begin: zeros.

use super::pages::Group;
use super::pool::PagePool;
use super::{STATES, Sizes};
use crate::kernels::BLOCK;
use crate::memory::Buffers;
use crate::team::Team;
use crate::{Error, Result};

/// Snapshots that a sequence keeps at most.
const MAX_SNAPSHOTS: usize = 8;

/// What one layer keeps of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateShape {
    /// The last inputs of a convolution.
    pub(crate) recent: StatePart,
    /// What sums up all positions.
    pub(crate) memory: StatePart,
}

impl StateShape {
    /// Bytes of a sequence; saturates.
    pub(crate) fn bytes(&self) -> usize {
        let numbers = |part: StatePart| part.items.saturating_mul(part.len);
        let all = numbers(self.recent).saturating_add(numbers(self.memory));
        all.saturating_mul(size_of::<f32>())
    }
}

/// A part of a state, in pieces that workers compute by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StatePart {
    pub(crate) items: usize,
    /// Numbers of an item.
    pub(crate) len: usize,
}

/// The states of one layer, `[item][slot][number]`, so that what a worker changes lies together.
#[derive(Debug)]
pub(crate) struct StateCache {
    pub(crate) recent: Vec<f32>,
    pub(crate) memory: Vec<f32>,
    shape: StateShape,
    slots: usize,
}

impl StateCache {
    pub(super) fn make(shape: StateShape, sizes: &Sizes, buffers: &mut Buffers<'_>) -> Result<Self> {
        let mut part = |part: StatePart| {
            let rows = part.items.saturating_mul(sizes.n_states);
            buffers.cached(STATES, rows, part.len)
        };
        Ok(StateCache {
            recent: part(shape.recent)?,
            memory: part(shape.memory)?,
            shape,
            slots: sizes.n_states,
        })
    }

    /// Bytes of each item's memory, which need not be there yet, with the node of those who will use it.
    pub(super) fn planned(&self, team: &Team) -> impl Iterator<Item = (usize, u64)> {
        let (shape, slots) = (self.shape, self.slots);
        [shape.recent, shape.memory].into_iter().flat_map(move |part| {
            let shares = team.shares(part.items, 1);
            let item = part.len.saturating_mul(slots).saturating_mul(size_of::<f32>());
            (0..part.items).map(move |i| (shares.node_of(i), item as u64))
        })
    }

    /// Has each item's memory written to by workers of the node that will use it: who writes to a page first places it.
    pub(super) fn place(&mut self, team: &Team) -> Result<()> {
        const PIECE: usize = 1024;
        for (part, numbers) in [
            (self.shape.recent, &mut self.recent),
            (self.shape.memory, &mut self.memory),
        ] {
            if !numbers.is_empty() {
                let item = numbers.len() / part.items;
                let shares = team.shares(part.items, 1);
                team.rows_placed(&shares, numbers, item, 1, |_, part| {
                    part.iter_mut().step_by(PIECE).for_each(|number| *number = 0.0);
                })?;
            }
        }
        Ok(())
    }

    /// The memory of each item, with the node of those who use it.
    pub(super) fn placed(&self, team: &Team) -> impl Iterator<Item = (usize, &[u8])> {
        let parts = [self.shape.recent, self.shape.memory]
            .into_iter()
            .zip(self.bytes());
        parts.flat_map(move |(part, bytes)| {
            let shares = team.shares(part.items, 1);
            let items = bytes.chunks_exact((bytes.len() / part.items.max(1)).max(1));
            items
                .enumerate()
                .map(move |(item, bytes)| (shares.node_of(item), bytes))
        })
    }

    /// Its memory.
    pub(super) fn bytes(&self) -> [&[u8]; 2] {
        [&self.recent, &self.memory].map(|numbers| bytemuck::cast_slice(numbers))
    }
}

/// What is handed out of a cache: pages of groups of layers, slots of states where layers have some.
#[derive(Debug)]
pub(super) struct Pools {
    pub(super) groups: Vec<Group>,
    pub(super) states: Option<PagePool>,
}

/// A state that a sequence had at an earlier length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) len: usize,
    pub(super) slot: u32,
}

/// The slots that a sequence, or a checkpoint of one, holds.
#[derive(Debug, Default)]
pub(super) struct States {
    /// Its state. None at length 0.
    now: Option<u32>,
    /// Where the pass under way leaves its state, and one further back that it leaves on the way.
    next: Option<u32>,
    kept: Option<Snapshot>,
    /// By length.
    snapshots: Vec<Snapshot>,
}

impl States {
    /// Room in the list.
    pub(super) fn make_room(&mut self) {
        self.snapshots.reserve(MAX_SNAPSHOTS + 1);
    }

    pub(super) fn now(&self) -> Option<u32> {
        self.now
    }

    pub(super) fn snapshots(&self) -> usize {
        self.snapshots.len()
    }

    /// Of a sequence of `len`, the state at a length up to it.
    pub(super) fn at(&self, at: usize, len: usize) -> Option<u32> {
        if at == len {
            return self.now;
        }
        let found = self.snapshots.binary_search_by_key(&at, |snapshot| snapshot.len);
        found.ok().map(|i| self.snapshots[i].slot)
    }

    /// The greatest length that has a snapshot and is at most `len`; 0 without one.
    pub(super) fn nearest(&self, len: usize) -> usize {
        let before = self.snapshots.partition_point(|snapshot| snapshot.len <= len);
        before.checked_sub(1).map_or(0, |i| self.snapshots[i].len)
    }

    /// The same of those lengths that are whole pages, and the own length `len`.
    pub(super) fn last_boundary(&self, len: usize) -> usize {
        if self.now.is_some() && len.is_multiple_of(BLOCK) {
            return len;
        }
        let whole = |snapshot: &&Snapshot| snapshot.len.is_multiple_of(BLOCK);
        self.snapshots
            .iter()
            .rev()
            .find(whole)
            .map_or(0, |snapshot| snapshot.len)
    }

    /// Nothing of it is left.
    pub(super) fn clear(&mut self, pool: &PagePool) {
        self.drop_pass(pool);
        self.now.take().into_iter().for_each(|slot| pool.give(slot));
        for snapshot in self.snapshots.drain(..) {
            pool.give(snapshot.slot);
        }
    }

    /// Gives back what a pass was to write to.
    pub(super) fn drop_pass(&mut self, pool: &PagePool) {
        let kept = self.kept.take().map(|kept| kept.slot);
        for slot in self.next.take().into_iter().chain(kept) {
            pool.give(slot);
        }
    }

    /// A sequence of `from` becomes one of `len`, of which it has a state.
    pub(super) fn cut(&mut self, len: usize, from: usize, pool: &PagePool) {
        self.drop_pass(pool);
        if len == from {
            return;
        }
        let slot = self.at(len, from).filter(|_| len > 0);
        slot.into_iter().for_each(|slot| pool.share(slot));
        if let Some(slot) = std::mem::replace(&mut self.now, slot) {
            pool.give(slot);
        }
        while let Some(last) = self.snapshots.pop_if(|last| last.len > len) {
            pool.give(last.slot);
        }
    }

    /// Holds what a sequence of `from` held at length `len`, of which that one has a state.
    pub(super) fn copy(&mut self, other: &States, len: usize, from: usize, pool: &PagePool) {
        self.clear(pool);
        self.now = other.at(len, from).filter(|_| len > 0);
        let before = other.snapshots.iter().take_while(|snapshot| snapshot.len <= len);
        self.snapshots.extend(before);
        let held = self.snapshots.iter().map(|snapshot| snapshot.slot);
        held.chain(self.now).for_each(|slot| pool.share(slot));
    }

    /// An empty sequence is in a state that others hold.
    pub(super) fn begin(&mut self, found: Snapshot, pool: &PagePool) {
        self.clear(pool);
        pool.share(found.slot);
        self.now = Some(found.slot);
        pool.share(found.slot);
        self.keep(found, pool);
    }

    /// Where the pass leaves its state.
    pub(super) fn prepare(&mut self, next: u32) {
        self.next = Some(next);
    }

    /// Where the pass leaves the state that it meets on the way.
    pub(super) fn prepare_snapshot(&mut self, kept: Snapshot) {
        self.kept = Some(kept);
    }

    /// The pass is over: the sequence has length `len`, of which so many positions are the pass's.
    pub(super) fn advance(&mut self, len: usize, rows: usize, pool: &PagePool) {
        let Some(next) = self.next.take() else { return };
        if let Some(slot) = self.now.replace(next) {
            pool.give(slot);
        }
        if let Some(kept) = self.kept.take() {
            self.keep(kept, pool);
        }
        // At the end of a page for the prefix index, and for who takes generated text back.
        if rows > 1 || len.is_multiple_of(BLOCK) {
            pool.share(next);
            self.keep(Snapshot { len, slot: next }, pool);
        }
    }

    /// One more snapshot, which nobody else was told to hold; where there are too many, another one goes.
    fn keep(&mut self, snapshot: Snapshot, pool: &PagePool) {
        match self
            .snapshots
            .binary_search_by_key(&snapshot.len, |held| held.len)
        {
            Ok(_) => pool.give(snapshot.slot),
            Err(i) => self.snapshots.insert(i, snapshot),
        }
        if self.snapshots.len() > MAX_SNAPSHOTS {
            self.drop_one(true, pool);
        }
    }

    /// Lets go of the snapshot whose neighbours are nearest to one another; the last one, and the last one of whole
    /// pages, go when there are no others. `shared`: also one that others hold. False if there is none.
    pub(super) fn drop_one(&mut self, shared: bool, pool: &PagePool) -> bool {
        let boundary = self
            .snapshots
            .iter()
            .rposition(|snapshot| snapshot.len.is_multiple_of(BLOCK));
        let last = self.snapshots.len().checked_sub(1);
        let crowded = |i: &usize| {
            let before = i.checked_sub(1).map_or(0, |i| self.snapshots[i].len);
            let after = self.snapshots.get(i + 1).map_or(usize::MAX, |after| after.len);
            let precious = last == Some(*i) || boundary == Some(*i);
            (precious, after - before)
        };
        let may_go = |i: &usize| shared || !pool.is_shared(self.snapshots[*i].slot);
        let Some(i) = (0..self.snapshots.len()).filter(may_go).min_by_key(crowded) else {
            return false;
        };
        pool.give(self.snapshots.remove(i).slot);
        true
    }

    /// What the pass does to the state at a position of a sequence that had length `len` before.
    pub(super) fn change(&self, position: usize, len: usize) -> StateChange {
        let place = |slot: u32| slot as usize;
        StateChange {
            to: self.next.map(place),
            from: (position == len).then(|| self.now.map(place)),
            kept: self
                .kept
                .filter(|kept| kept.len == position + 1)
                .map(|kept| place(kept.slot)),
        }
    }
}

/// What a row of a pass does to the state of its sequence. In the memory of an item its slots lie one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateChange {
    /// The slot that it changes.
    to: Option<usize>,
    /// Of the sequence's first row, the slot that it goes on from; none of them for zeros.
    from: Option<Option<usize>>,
    /// The slot that has a copy of the state after the row.
    kept: Option<usize>,
}

impl StateChange {
    /// The state that the row meets, for it to change: `len` numbers of `item`.
    pub(crate) fn enter<'a>(&self, item: &'a mut [f32], len: usize) -> &'a mut [f32] {
        let Some(to) = self.to else { return &mut [] };
        let place = to * len..(to + 1) * len;
        match self.from {
            None => (),
            Some(None) => item[place.clone()].fill(0.0),
            Some(Some(from)) => item.copy_within(from * len..(from + 1) * len, to * len),
        }
        &mut item[place]
    }

    /// The row has changed it.
    pub(crate) fn leave(&self, item: &mut [f32], len: usize) {
        if let (Some(to), Some(kept)) = (self.to, self.kept) {
            item.copy_within(to * len..(to + 1) * len, kept * len);
        }
    }
}

/// How many slots there are in a cache of these sizes.
///
/// # Errors
/// More than can be numbered.
pub(super) fn slots(sizes: &Sizes) -> Result<u32> {
    u32::try_from(sizes.n_states).map_err(|_| Error::Limit {
        what: "number of states".into(),
        found: sizes.n_states as u64,
        limit: u32::MAX.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(states: &States) -> Vec<usize> {
        states.snapshots.iter().map(|snapshot| snapshot.len).collect()
    }

    #[test]
    fn the_last_snapshot_and_the_last_of_whole_pages_stay() {
        let pool = PagePool::new(40);
        let mut states = States::default();
        for len in (100..=2000).step_by(100) {
            states.prepare(pool.take().unwrap());
            states.advance(len, 100, &pool);
        }
        // Only 1600 is a whole number of pages; the others lie apart.
        let kept = lens(&states);
        assert_eq!((kept.len(), kept.last()), (MAX_SNAPSHOTS, Some(&2000)));
        assert!(kept.contains(&1600), "{kept:?}");
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= 800), "{kept:?}");
        assert_eq!(pool.free(), 40 - MAX_SNAPSHOTS);
        assert_eq!(
            (states.nearest(1999), states.last_boundary(2000)),
            (kept[6], 1600)
        );
        assert_eq!(states.at(1600, 2000).is_some(), kept.contains(&1600));
        for _ in 0..6 {
            assert!(states.drop_one(false, &pool));
        }
        assert_eq!(lens(&states), [1600, 2000]);
        assert!(states.drop_one(false, &pool));
        // The last one is the sequence's own state as well.
        assert!(!states.drop_one(false, &pool));
        assert!(states.drop_one(true, &pool));
        assert!(!states.drop_one(true, &pool));
        assert_eq!(pool.free(), 39);
        states.clear(&pool);
        assert_eq!(pool.free(), 40);
    }

    #[test]
    fn a_pass_that_is_given_up_gives_its_slots_back() {
        let pool = PagePool::new(4);
        let mut states = States::default();
        states.prepare(pool.take().unwrap());
        let slot = pool.take().unwrap();
        states.prepare_snapshot(Snapshot { len: BLOCK, slot });
        assert_eq!(pool.free(), 2);
        states.drop_pass(&pool);
        states.advance(100, 100, &pool);
        assert_eq!((states.now(), states.snapshots(), pool.free()), (None, 0, 4));
        states.prepare(pool.take().unwrap());
        states.prepare_snapshot(Snapshot {
            len: BLOCK,
            slot: pool.take().unwrap(),
        });
        states.advance(100, 100, &pool);
        assert_eq!(lens(&states), [BLOCK, 100]);
        let mut copy = States::default();
        copy.copy(&states, BLOCK, 100, &pool);
        assert_eq!((lens(&copy), copy.now()), (vec![BLOCK], states.at(BLOCK, 100)));
        states.cut(BLOCK, 100, &pool);
        assert_eq!((lens(&states), states.now()), (vec![BLOCK], copy.now()));
        states.clear(&pool);
        assert_eq!(pool.free(), 3);
        copy.cut(0, BLOCK, &pool);
        assert_eq!(pool.free(), 4);
    }
}
