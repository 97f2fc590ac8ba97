//! Sequences and checkpoints, which callers name by handles: their tokens and, per group of layers, a table of pages.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use super::pages::{Group, ROLLBACK};
use super::state::{Pools, StateChange, States};
use crate::handles::{CheckpointId, Handle, SeqId};
use crate::kernels::BLOCK;
use crate::{Error, Result};

/// Stands for the token of a row that had an embedding instead: no token id is as large.
pub(super) const NO_TOKEN: u32 = u32::MAX;

/// What a sequence, or a checkpoint of one, holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// What it was computed from, one per position.
    pub(super) tokens: Vec<u32>,
    /// Per group.
    pub(super) tables: Vec<Table>,
    /// Of the layers that keep states.
    pub(super) states: States,
    /// The last pass that has rows of it; of that pass, the position after its last row.
    pass: u64,
    pub(crate) end: usize,
    /// How many they are.
    pub(super) rows: usize,
    /// The page that it will copy, while pages of a group are counted.
    pub(super) copied: Option<u32>,
}

/// Pages of one group, by block.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Block that `pages[0]` holds.
    pub(super) first: usize,
    pub(super) pages: VecDeque<u32>,
}

impl Table {
    /// The block after its last one.
    pub(super) fn end(&self) -> usize {
        self.first + self.pages.len()
    }

    pub(super) fn clear(&mut self, group: &Group) {
        for page in self.pages.drain(..) {
            group.pool.give(page);
        }
        self.first = 0;
    }

    /// Holds what `other` holds of the blocks before `end`, instead of what it held.
    fn copy(&mut self, other: &Table, end: usize, group: &Group) {
        self.clear(group);
        // Nothing of it begins anew, whatever the other one's window has passed.
        self.first = if end == 0 { 0 } else { other.first };
        let n = end.saturating_sub(other.first).min(other.pages.len());
        self.pages.extend(other.pages.range(..n));
        self.pages.iter().for_each(|page| group.pool.share(*page));
    }

    /// Blocks at its beginning that a sequence of `len` positions no longer needs, a rollback included.
    pub(super) fn passed(&self, len: usize, group: &Group) -> usize {
        let Some(window) = group.window() else { return 0 };
        let oldest = (len + 1).saturating_sub(window.saturating_add(ROLLBACK)) / BLOCK;
        oldest.saturating_sub(self.first).min(self.pages.len())
    }
}

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The next position in a pass, which is told by its number.
    pub(super) fn next(&mut self, pass: u64) -> (usize, bool) {
        let first = self.pass != pass;
        if first {
            self.pass = pass;
            self.end = self.tokens.len();
            self.rows = 0;
        }
        self.end += 1;
        self.rows += 1;
        (self.end - 1, first)
    }

    /// Pages that its positions up to `end` need and its table of group `g` lacks; and where the page that it goes on
    /// in is held by others too, the index of that page, which has to be copied.
    pub(super) fn wants(&self, g: usize, group: &Group) -> (usize, Option<usize>) {
        let (table, len) = (&self.tables[g], self.tokens.len());
        let more = self.end.div_ceil(BLOCK).saturating_sub(table.end());
        let is_shared = |i: &usize| {
            table
                .pages
                .get(*i)
                .is_some_and(|page| group.pool.is_shared(*page))
        };
        let partial = if len.is_multiple_of(BLOCK) {
            None
        } else {
            (len / BLOCK).checked_sub(table.first).filter(is_shared)
        };
        (more, partial)
    }

    /// Whether it can be cut to `len`: what the positions before see must still be there.
    pub(super) fn check_cut(&self, len: usize, pools: &Pools) -> Result<()> {
        if len > self.len() {
            return Err(Error::InvalidInput {
                what: format!("a sequence of {} cannot be cut to {len}", self.len()),
            });
        }
        for (table, group) in self.tables.iter().zip(&pools.groups) {
            let oldest = group
                .window()
                .map_or(0, |window| (len + 1).saturating_sub(window));
            if len > 0 && table.first * BLOCK > oldest {
                return Err(Error::WindowPassed { len, oldest });
            }
        }
        if pools.states.is_some() && len > 0 && self.states.at(len, self.len()).is_none() {
            let nearest = self.states.nearest(len);
            return Err(Error::StatePassed { len, nearest });
        }
        Ok(())
    }

    /// How much of what it has in common with `tokens` is there once it is cut so far: nothing where a sliding window
    /// has passed that place; where layers keep states, as much as there is a state of.
    pub(super) fn reusable(&self, tokens: &[u32], pools: &Pools) -> Result<usize> {
        let mut len = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        loop {
            len = match self.check_cut(len, pools) {
                Ok(()) => return Ok(len),
                Err(Error::WindowPassed { .. }) => 0,
                Err(Error::StatePassed { nearest, .. }) => nearest,
                Err(error) => return Err(error),
            };
        }
    }

    /// Forgets the tokens from `len` on, which [`Self::check_cut`] has allowed.
    pub(super) fn cut(&mut self, len: usize, pools: &Pools) {
        for (table, group) in self.tables.iter_mut().zip(&pools.groups) {
            while table.end() > len.div_ceil(BLOCK) && !table.pages.is_empty() {
                table
                    .pages
                    .pop_back()
                    .into_iter()
                    .for_each(|page| group.pool.give(page));
            }
            if len == 0 {
                table.first = 0;
            }
        }
        if let Some(pool) = &pools.states {
            self.states.cut(len, self.tokens.len(), pool);
        }
        self.tokens.truncate(len);
    }

    /// Holds the first `len` positions of another one, which may be cut so far.
    pub(super) fn copy(&mut self, other: &Held, len: usize, pools: &Pools) {
        for ((table, from), group) in self.tables.iter_mut().zip(&other.tables).zip(&pools.groups) {
            table.copy(from, len.div_ceil(BLOCK), group);
        }
        if let Some(pool) = &pools.states {
            self.states.copy(&other.states, len, other.len(), pool);
        }
        self.tokens.clear();
        self.tokens.extend_from_slice(&other.tokens[..len]);
    }

    /// Room for `positions` in its lists, so that no pass up to there allocates.
    pub(super) fn make_room(&mut self, positions: usize, pools: &Pools) {
        let more = |held: usize, wanted: usize| wanted.saturating_sub(held);
        self.tokens.reserve(more(self.tokens.len(), positions));
        if pools.states.is_some() {
            self.states.make_room();
        }
        for (table, group) in self.tables.iter_mut().zip(&pools.groups) {
            let pages = positions.div_ceil(BLOCK).min(group.pool.pages());
            table.pages.reserve(more(table.pages.len(), pages));
        }
    }

    /// What the pass does to its state at a position.
    pub(crate) fn state_change(&self, position: usize) -> StateChange {
        self.states.change(position, self.len())
    }

    /// The page of a block; the block is one that the window reaches.
    pub(crate) fn page(&self, group: usize, block: usize) -> u32 {
        let table = &self.tables[group];
        table.pages[block - table.first]
    }

    /// The page of a block, if there is one yet.
    pub(crate) fn page_if_any(&self, group: usize, block: usize) -> Option<u32> {
        let table = &self.tables[group];
        table.pages.get(block.checked_sub(table.first)?).copied()
    }
}

/// Slots for sequences, or for checkpoints. A slot keeps the memory of its lists for the next one.
#[derive(Debug)]
pub(crate) struct Slots {
    context: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    limit: usize,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    used: bool,
    held: Held,
}

/// Positions that a new slot has room for in its lists.
const FIRST_ROOM: usize = 1024;

impl Slots {
    /// For `limit` at a time.
    pub(super) fn new(context: u32, limit: usize) -> Self {
        Slots {
            context,
            slots: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    /// A number that no other context of the process has.
    pub(super) fn next_context() -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// An empty slot; its tables hold nothing.
    fn open(&mut self, pools: &Pools) -> Result<Handle> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.limit.min(u32::MAX as usize) => {
                let mut held = Held::default();
                held.tables.resize_with(pools.groups.len(), Table::default);
                held.make_room(FIRST_ROOM, pools);
                self.slots.push(Slot {
                    generation: 0,
                    used: false,
                    held,
                });
                // Closing allocates nothing.
                self.free.reserve(self.slots.len());
                self.slots.len() as u32 - 1
            }
            None => return Err(Error::TooManySequences { limit: self.limit }),
        };
        let found = &mut self.slots[slot as usize];
        found.used = true;
        found.held.pass = 0;
        Ok(Handle {
            context: self.context,
            slot,
            generation: found.generation,
        })
    }

    fn close(&mut self, handle: Handle, pools: &Pools) -> Result<()> {
        let slot = self.slot(handle)?;
        let found = &mut self.slots[slot];
        found.held.cut(0, pools);
        found.used = false;
        // A slot that has been used so often is not used again, so that no handle is valid twice.
        if let Some(next) = found.generation.checked_add(1) {
            found.generation = next;
            self.free.push(slot as u32);
        }
        Ok(())
    }

    fn slot(&self, handle: Handle) -> Result<usize> {
        let slot = handle.slot as usize;
        let known = |found: &Slot| found.used && found.generation == handle.generation;
        if handle.context == self.context && self.slots.get(slot).is_some_and(known) {
            return Ok(slot);
        }
        Err(Error::UnknownSequence {
            foreign: handle.context != self.context,
        })
    }

    /// One sequence becomes the first `len` positions of another one.
    pub(super) fn copy_within(&mut self, from: usize, to: usize, len: usize, pools: &Pools) {
        let held = std::mem::take(&mut self.slots[from].held);
        self.slots[to].held.copy(&held, len, pools);
        self.slots[from].held = held;
    }

    pub(crate) fn at(&self, slot: usize) -> &Held {
        &self.slots[slot].held
    }

    /// What all of them hold, with those that are not used, which hold nothing.
    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.slots.iter().map(|slot| &slot.held)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        self.slots.iter_mut().map(|slot| &mut slot.held)
    }

    pub(super) fn at_mut(&mut self, slot: usize) -> &mut Held {
        &mut self.slots[slot].held
    }
}

/// Slots of one kind of handle.
macro_rules! typed {
    ($id:ident, $open:ident, $close:ident, $slot:ident) => {
        impl Slots {
            pub(super) fn $open(&mut self, pools: &Pools) -> Result<$id> {
                self.open(pools).map($id)
            }

            pub(super) fn $close(&mut self, id: $id, pools: &Pools) -> Result<()> {
                self.close(id.0, pools)
            }

            pub(super) fn $slot(&self, id: $id) -> Result<usize> {
                self.slot(id.0)
            }
        }
    };
}

typed!(SeqId, open_sequence, close_sequence, sequence);
typed!(CheckpointId, open_checkpoint, close_checkpoint, checkpoint);
