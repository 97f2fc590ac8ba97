//! What a pass takes of the cache: rows are given their positions, and their sequences pages and slots for states, all
//! of them or none; and what is done when the rows have been computed.

use super::pages::Reach;
use super::sequences::{Held, NO_TOKEN};
use super::state::Snapshot;
use super::{Cache, LayerCache, whole_texts};
use crate::batch::{Input, Row};
use crate::kernels::BLOCK;
use crate::{Error, Result};

impl Cache {
    /// Gives the rows of a pass their slots and positions, and their sequences the pages that they lie in. On an error
    /// no sequence has changed, but for pages that a window had passed.
    ///
    /// # Errors
    /// Handles that are not of an open sequence, tokens outside the vocabulary, `ContextFull`, `CacheFull`,
    /// `StatesFull`.
    pub(crate) fn prepare(&mut self, rows: &mut [Row], n_vocab: usize, n_ctx: usize) -> Result<()> {
        self.drop_pass();
        self.pass += 1;
        self.in_pass.clear();
        let whole_texts = whole_texts(&self.pools.groups);
        for row in rows {
            if let Input::Token(token) = row.input
                && token as usize >= n_vocab
            {
                return Err(Error::TokenOutOfRange { token, n_vocab });
            }
            let slot = self.sequences.sequence(row.sequence)?;
            let (position, first) = self.sequences.at_mut(slot).next(self.pass);
            if position >= n_ctx {
                return Err(Error::ContextFull {
                    needed: position + 1,
                    capacity: n_ctx,
                });
            }
            if first {
                if position > 0 && whole_texts {
                    return Err(Error::InvalidInput {
                        what: "a text of a model whose positions see those behind them must be in one pass, whole: make a \
                               batch as large as the text"
                            .into(),
                    });
                }
                self.in_pass.push(slot);
            }
            (row.slot, row.position) = (slot, position);
        }
        self.check_states()?;
        for g in 0..self.pools.groups.len() {
            self.give_back_passed(g);
            self.check_pages(g)?;
        }
        for g in 0..self.pools.groups.len() {
            for i in 0..self.in_pass.len() {
                self.reserve(g, self.in_pass[i])?;
            }
        }
        self.reserve_states()
    }

    /// Gives back the pages that windows of the sequences in the pass have passed.
    fn give_back_passed(&mut self, g: usize) {
        let group = &self.pools.groups[g];
        for slot in &self.in_pass {
            let held = self.sequences.at_mut(*slot);
            let table = &mut held.tables[g];
            for _ in 0..table.passed(held.tokens.len(), group) {
                table
                    .pages
                    .pop_front()
                    .into_iter()
                    .for_each(|page| group.pool.give(page));
                table.first += 1;
            }
        }
    }

    /// Whether there are pages of a group for the pass: some that are free, or that only the prefix index holds. Where
    /// there are not, the index lets go of the pages that sequences of the pass go on in, which are not copied then.
    fn check_pages(&mut self, g: usize) -> Result<()> {
        let mut needed = self.lacking(g);
        let mut lets_go = false;
        loop {
            let group = &self.pools.groups[g];
            let free = group.pool.free();
            let more = needed.saturating_sub(free);
            let evictable = self.prefix.evictable(g, group, more);
            if evictable == more {
                return Ok(());
            }
            if std::mem::replace(&mut lets_go, true) {
                return Err(Error::CacheFull {
                    needed,
                    free,
                    evictable,
                });
            }
            for slot in &self.in_pass {
                let held = self.sequences.at(*slot);
                if let (_, Some(i)) = held.wants(g, group) {
                    self.prefix.let_go(g, held.tables[g].pages[i], &self.pools);
                }
            }
            needed = self.lacking(g);
        }
    }

    /// Pages of a group that the pass takes. Of sequences that go on in the same page all but one copy it, and that one
    /// too where somebody holds the page who is not in the pass.
    fn lacking(&mut self, g: usize) -> usize {
        let group = &self.pools.groups[g];
        let mut pages = 0;
        // Who copies a page lets go of it for the time being, so that the next one finds it as it will.
        for slot in &self.in_pass {
            let held = self.sequences.at_mut(*slot);
            let (more, shared) = held.wants(g, group);
            held.copied = shared.map(|i| held.tables[g].pages[i]);
            held.copied.into_iter().for_each(|page| group.pool.give(page));
            pages += more + usize::from(shared.is_some());
        }
        for slot in &self.in_pass {
            let copied = self.sequences.at_mut(*slot).copied.take();
            copied.into_iter().for_each(|page| group.pool.share(page));
        }
        pages
    }

    /// Gives back what a pass that failed was to leave its states in.
    pub(super) fn drop_pass(&mut self) {
        let Some(pool) = &self.pools.states else { return };
        for slot in &self.in_pass {
            self.sequences.at_mut(*slot).states.drop_pass(pool);
        }
    }

    /// Whether there is a slot for the state of each sequence in the pass: one that is free, or that only snapshots and
    /// the prefix index hold.
    fn check_states(&mut self) -> Result<()> {
        let Some(pool) = &self.pools.states else {
            return Ok(());
        };
        let needed = self.in_pass.len();
        if needed <= pool.free() {
            return Ok(());
        }
        let mut there = pool.pages();
        for held in self.sequences.all().chain(self.checkpoints.all()) {
            if let Some(slot) = held.states.now() {
                let seen = std::mem::replace(&mut self.seen[slot as usize], self.pass);
                there -= usize::from(seen != self.pass);
            }
        }
        match needed <= there {
            true => Ok(()),
            false => Err(Error::StatesFull { needed, free: there }),
        }
    }

    /// Slots for the states that the pass leaves; and where it goes through the end of a page, for the state there,
    /// which the prefix index can make use of.
    fn reserve_states(&mut self) -> Result<()> {
        if self.pools.states.is_none() {
            return Ok(());
        }
        for i in 0..self.in_pass.len() {
            let next = self.state_slot().ok_or(Error::StatesFull {
                needed: self.in_pass.len() - i,
                free: 0,
            })?;
            self.sequences.at_mut(self.in_pass[i]).states.prepare(next);
        }
        for i in 0..self.in_pass.len() {
            let held = self.sequences.at(self.in_pass[i]);
            let (start, end) = (held.len(), held.end);
            let len = end / BLOCK * BLOCK;
            if len > start
                && len < end
                && let Some(slot) = self.state_slot()
            {
                let states = &mut self.sequences.at_mut(self.in_pass[i]).states;
                states.prepare_snapshot(Snapshot { len, slot });
            }
        }
        Ok(())
    }

    /// A free slot, or one that is made so: snapshots go where there are many, then what the prefix index has used
    /// least recently, then any snapshot.
    fn state_slot(&mut self) -> Option<u32> {
        const MANY: usize = 2;
        loop {
            let pool = self.pools.states.as_ref()?;
            if let Some(slot) = pool.take() {
                return Some(slot);
            }
            let gone = self.drop_snapshot(MANY, false)
                || self.prefix.evict_state(&self.pools)
                || self.drop_snapshot(0, false)
                || self.drop_snapshot(0, true);
            if !gone {
                return None;
            }
        }
    }

    /// One snapshot less, of those who have most and more than `least`; `shared`: also one that others hold. False if
    /// there is none.
    fn drop_snapshot(&mut self, least: usize, shared: bool) -> bool {
        let Some(pool) = &self.pools.states else {
            return false;
        };
        let mut most = usize::MAX;
        loop {
            // Of those who have fewer than who was asked before.
            let count = |held: &Held| held.states.snapshots();
            let counts = self.sequences.all().chain(self.checkpoints.all()).map(count);
            let Some(next) = counts.filter(|n| *n > least && *n < most).max() else {
                return false;
            };
            most = next;
            let all = self.sequences.all_mut().chain(self.checkpoints.all_mut());
            for held in all.filter(|held| held.states.snapshots() == most) {
                if held.states.drop_one(shared, pool) {
                    return true;
                }
            }
        }
    }

    /// The pages of a group that a sequence's rows of the pass lie in. There are as many, as [`Self::check_pages`] has
    /// found.
    fn reserve(&mut self, g: usize, slot: usize) -> Result<()> {
        let (more, shared) = self.sequences.at(slot).wants(g, &self.pools.groups[g]);
        if let Some(i) = shared {
            // On the node of the one that it is copied from.
            let section = self.pools.groups[g]
                .pool
                .section(self.sequences.at(slot).tables[g].pages[i]);
            let copy = self.page(g, section)?;
            let from = std::mem::replace(&mut self.sequences.at_mut(slot).tables[g].pages[i], copy);
            let layers = self.layers.iter_mut().filter_map(LayerCache::kv_mut);
            for cache in layers.filter(|cache| cache.group == g) {
                cache.copy_page(from, copy);
            }
            self.pools.groups[g].pool.give(from);
        }
        for _ in 0..more {
            let table = &self.sequences.at(slot).tables[g];
            let before = table.pages.back().copied();
            let section = self.pools.groups[g].section(slot, table.end(), before);
            let page = self.page(g, section)?;
            self.sequences.at_mut(slot).tables[g].pages.push_back(page);
        }
        Ok(())
    }

    /// A free page, of this section where it has one, or one that the prefix index lets go of.
    fn page(&mut self, g: usize, section: usize) -> Result<u32> {
        loop {
            if let Some(page) = self.pools.groups[g].pool.take_of(section) {
                return Ok(page);
            }
            if !self.prefix.evict(g, &self.pools) {
                return Err(Error::CacheFull {
                    needed: 1,
                    free: 0,
                    evictable: 0,
                });
            }
        }
    }

    /// The rows that were prepared have been computed.
    pub(crate) fn advance(&mut self, rows: &[Row]) {
        for (g, group) in self.pools.groups.iter().enumerate() {
            if group.reach == Reach::Pass {
                for slot in &self.in_pass {
                    self.sequences.at_mut(*slot).tables[g].clear(group);
                }
            }
        }
        for row in rows {
            let token = match row.input {
                Input::Token(token) => token,
                Input::Embedding(_) => NO_TOKEN,
            };
            self.sequences.at_mut(row.slot).tokens.push(token);
        }
        let Some(pool) = &self.pools.states else { return };
        for slot in &self.in_pass {
            let held = self.sequences.at_mut(*slot);
            let (len, rows) = (held.len(), held.rows);
            held.states.advance(len, rows, pool);
        }
    }
}
