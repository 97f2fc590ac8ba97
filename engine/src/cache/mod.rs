//! The cache: what layers keep of the positions before. Keys and values lie in pages of 64 positions, which are made once
//! and handed out to sequences.
//!
//! A page is one attention block of one (layer, kv head): keys d-major (`k[d][64]`), values position-major (`v[64][d]`);
//! q8_0 keys keep 4 consecutive d of a position together (`k[d / 4][64][4]`). Layers that see the same window share one
//! table of pages per sequence (a *group*); pages that no window reaches any more go back to the pool.
//!
//! Callers hold handles ([`SeqId`]). Pages are counted: a fork holds those of its origin, and a page that others hold too
//! is copied when somebody writes to it. The prefix index holds pages as well, and finds them by their tokens.
//!
//! Layers that do not keep the positions but sum them up have a state per sequence instead, in slots that are counted as pages
//! are: `state`.
//!
//! `numbers` is how a vector is stored, `pages` the memory, `pool` what is free of it, `sequences` who holds which page,
//! `prefix` the index. What a layer keeps is its mixer's choice, stated as a [`CacheKind`]; the cache knows nothing of models.

mod numbers;
mod pages;
mod pool;
mod prefix;
mod sequences;
mod state;

pub use numbers::CacheType;
pub(crate) use numbers::{Store, Stored};
pub(crate) use pages::KvCache;
pub use pool::PagePool;
pub use prefix::PrefixStats;
pub(crate) use sequences::Slots;
pub use sequences::{CheckpointId, SeqId};
pub(crate) use state::{StateCache, StatePart, StateShape};

use crate::batch::{Input, Row};
use crate::kernels::BLOCK;
use crate::memory::Buffers;
use crate::team::Team;
use crate::{Error, Result};
use pages::{Group, Reach};
use prefix::PrefixIndex;
use sequences::{Held, NO_TOKEN};
use state::{Pools, Snapshot};

// The planned buffers that hold numbers; the others are lists.
pub(crate) const KEYS: &str = "keys";
pub(crate) const VALUES: &str = "values";
pub(crate) const STATES: &str = "states of sequences";

/// What a layer keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheKind {
    /// Nothing.
    None,
    /// Keys and values of every position that its window reaches.
    Kv(KvShape),
    /// Keys and values of the texts of one pass, as they are: no later pass reads them, nor does a later layer, so all layers
    /// of one shape write to one memory.
    Pass(KvShape),
    /// Nothing: it reads what this layer keeps.
    SharedWith(usize),
    /// A state of a fixed size per sequence.
    State(StateShape),
}

/// Keys and values of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    /// Key and value heads.
    pub(crate) n_heads: usize,
    pub(crate) dim_k: usize,
    pub(crate) dim_v: usize,
    /// A position sees itself and the `window - 1` before it; `None` for all.
    pub(crate) window: Option<usize>,
}

/// How large a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pool {
    /// Every sequence can be as long as the context.
    #[default]
    Whole,
    /// As [`Pool::Whole`], with room for so many checkpoints of sequences that have gone on since: of each as much as
    /// a sliding window reaches.
    WithCheckpoints(usize),
    /// Pages of 64 positions of every group of layers. Never more than [`Pool::Whole`].
    Pages(usize),
    /// As many pages as fit so many bytes. Never more than [`Pool::Whole`].
    Bytes(u64),
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Pages of 64 positions, of the group of layers that has fewest free.
    pub pages: usize,
    /// Of those, how many nobody holds.
    pub free: usize,
    /// How many only the prefix index holds: they go when others need room.
    pub evictable: usize,
    /// Slots for states of sequences, in layers that keep a state; 0 where there are no such layers.
    pub states: usize,
    /// Of those, how many nobody holds.
    pub free_states: usize,
    /// Sequences that are open.
    pub sequences: usize,
    /// Checkpoints that are kept.
    pub checkpoints: usize,
    /// What the prefix index was asked and gave.
    pub prefix: PrefixStats,
}

/// What a cache is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Positions per sequence.
    pub(crate) n_ctx: usize,
    /// Rows of the largest pass.
    pub(crate) n_batch: usize,
    /// Sequences at a time.
    pub(crate) n_sequences: usize,
    /// How many pages.
    pub(crate) pool: Pool,
    /// How many slots for states, where layers keep some.
    pub(crate) n_states: usize,
    /// Format of keys.
    pub(crate) type_k: CacheType,
    /// Format of values.
    pub(crate) type_v: CacheType,
}

/// What one layer keeps.
#[derive(Debug)]
pub(crate) enum LayerCache {
    None,
    Kv(KvCache),
    /// The memory is this layer's: for reading, or, where nothing outlasts a pass, for writing too.
    Reused(usize),
    State(StateCache),
}

impl LayerCache {
    /// The memory of layer `i`.
    pub(crate) fn of(layers: &mut [LayerCache], i: usize) -> Result<&mut LayerCache> {
        let of = match layers.get(i) {
            Some(LayerCache::Reused(of)) => *of,
            _ => i,
        };
        layers.get_mut(of).ok_or_else(|| Error::InvalidInput {
            what: format!("there is no memory for layer {i}"),
        })
    }

    fn kv_mut(&mut self) -> Option<&mut KvCache> {
        match self {
            LayerCache::Kv(cache) => Some(cache),
            LayerCache::None | LayerCache::State(_) | LayerCache::Reused(_) => None,
        }
    }
}

/// The cache of a context, for all layers.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) sequences: Slots,
    checkpoints: Slots,
    pools: Pools,
    prefix: PrefixIndex,
    /// Number of the last pass.
    pass: u64,
    /// Slots of the sequences that the present pass has rows of.
    in_pass: Vec<usize>,
    /// Per slot of states, the pass that last found it to be a sequence's or a checkpoint's own.
    seen: Vec<u64>,
}

impl Cache {
    /// For layers of these kinds.
    pub(crate) fn make(
        kinds: impl Iterator<Item = CacheKind> + Clone,
        sizes: &Sizes,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let page_bytes = kinds.clone().fold(0u64, |sum, kind| match kind {
            CacheKind::None | CacheKind::Pass(_) | CacheKind::State(_) | CacheKind::SharedWith(_) => sum,
            CacheKind::Kv(shape) => sum.saturating_add(KvCache::page_bytes(shape, sizes)),
        });
        let of_pass = Sizes {
            type_k: CacheType::F32,
            type_v: CacheType::F32,
            ..*sizes
        };
        let has_state = kinds.clone().any(|kind| matches!(kind, CacheKind::State(_)));
        let (mut layers, mut groups) = (Vec::new(), Vec::<(Reach, u32)>::new());
        let mut passing = Vec::<(KvShape, usize)>::new();
        for (i, kind) in kinds.enumerate() {
            let (shape, reach, sizes) = match kind {
                CacheKind::None => {
                    layers.push(LayerCache::None);
                    continue;
                }
                CacheKind::State(shape) => {
                    layers.push(LayerCache::State(StateCache::make(shape, sizes, buffers)?));
                    continue;
                }
                CacheKind::SharedWith(layer) => {
                    layers.push(LayerCache::Reused(layer));
                    continue;
                }
                CacheKind::Kv(shape) => (shape, shape.window.map_or(Reach::All, Reach::Window), sizes),
                CacheKind::Pass(shape) => {
                    if let Some((_, layer)) = passing.iter().find(|(other, _)| *other == shape) {
                        layers.push(LayerCache::Reused(*layer));
                        continue;
                    }
                    passing.push((shape, i));
                    (shape, Reach::Pass, &of_pass)
                }
            };
            let found = groups.iter().position(|(other, _)| *other == reach);
            let group = found.unwrap_or(groups.len());
            if found.is_none() {
                groups.push((reach, Group::pages(reach, sizes, page_bytes)?));
            }
            let pages = groups[group].1 as usize;
            layers.push(LayerCache::Kv(KvCache::make(
                shape,
                (group, pages),
                sizes,
                buffers,
            )?));
        }
        // After the pages, which are more: where there is no memory for them, nothing has been written to.
        let groups = groups
            .into_iter()
            .map(|(reach, pages)| Group::make(reach, pages, buffers))
            .collect::<Result<Vec<_>>>()?;
        let (states, seen) = match has_state {
            true => {
                let slots = state::slots(sizes)?;
                let seen = buffers.rows("holders of states", slots as usize, 1)?;
                (Some(PagePool::make(slots, buffers)?), seen)
            }
            false => (None, Vec::new()),
        };
        let context = Slots::next_context();
        Ok(Cache {
            layers,
            sequences: Slots::new(context, sizes.n_sequences),
            checkpoints: Slots::new(context, usize::MAX),
            prefix: PrefixIndex::new(groups.len()),
            pools: Pools { groups, states },
            pass: 0,
            in_pass: Vec::new(),
            seen,
        })
    }

    /// Places the memory of keys and values on the nodes of those who will read it: heads are split between nodes.
    pub(crate) fn place(&mut self, team: &Team) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| match layer {
            LayerCache::None | LayerCache::Reused(_) => Ok(()),
            LayerCache::Kv(cache) => cache.place(team),
            LayerCache::State(cache) => cache.place(team),
        })
    }

    /// The memory of keys, values and states, with the node of those who read it.
    pub(crate) fn placed(&self, team: &Team) -> Vec<(usize, &[u8])> {
        let mut all = Vec::new();
        for layer in &self.layers {
            match layer {
                LayerCache::None | LayerCache::Reused(_) => {}
                LayerCache::Kv(cache) => all.extend(cache.placed(team)),
                LayerCache::State(cache) => all.extend(cache.placed(team)),
            }
        }
        all
    }

    /// An empty sequence.
    pub(crate) fn open(&mut self) -> Result<SeqId> {
        let id = self.sequences.open_sequence(&self.pools)?;
        self.drop_pass();
        // A pass may have rows of all of them, and allocates nothing.
        self.in_pass.clear();
        self.in_pass.reserve(self.sequences.used());
        Ok(id)
    }

    /// A sequence that holds the longest prefix of `tokens` that the index has; its length.
    pub(crate) fn open_prefix(&mut self, tokens: &[u32]) -> Result<(SeqId, usize)> {
        let id = self.open()?;
        let held = self.sequences.at_mut(self.sequences.sequence(id)?);
        Ok((id, self.prefix.take(tokens, held, &self.pools)))
    }

    /// A checkpoint of the longest prefix of `tokens` that the index has: while it is kept, none of its pages goes.
    pub(crate) fn pin(&mut self, tokens: &[u32]) -> Result<(CheckpointId, usize)> {
        let id = self.checkpoints.open_checkpoint(&self.pools)?;
        let held = self.checkpoints.at_mut(self.checkpoints.checkpoint(id)?);
        Ok((id, self.prefix.take(tokens, held, &self.pools)))
    }

    /// A sequence that holds the first `len` positions of another one.
    pub(crate) fn fork(&mut self, id: SeqId, len: usize) -> Result<SeqId> {
        let from = self.sequences.sequence(id)?;
        self.sequences.at(from).check_cut(len, &self.pools)?;
        let fork = self.open()?;
        let to = self.sequences.sequence(fork)?;
        self.sequences.copy_within(from, to, len, &self.pools);
        Ok(fork)
    }

    /// Keeps what a sequence is.
    pub(crate) fn checkpoint(&mut self, id: SeqId) -> Result<CheckpointId> {
        let held = self.sequences.at(self.sequences.sequence(id)?);
        let checkpoint = self.checkpoints.open_checkpoint(&self.pools)?;
        let slot = self.checkpoints.checkpoint(checkpoint)?;
        self.checkpoints.at_mut(slot).copy(held, held.len(), &self.pools);
        Ok(checkpoint)
    }

    /// Makes a sequence what the checkpoint is.
    pub(crate) fn restore(&mut self, id: SeqId, checkpoint: CheckpointId) -> Result<()> {
        let slot = self.sequences.sequence(id)?;
        let held = self.checkpoints.at(self.checkpoints.checkpoint(checkpoint)?);
        self.sequences.at_mut(slot).copy(held, held.len(), &self.pools);
        Ok(())
    }

    /// Lets go of a checkpoint.
    pub(crate) fn forget(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.checkpoints.close_checkpoint(checkpoint, &self.pools)
    }

    /// How much of `tokens` a sequence can begin with once it is cut.
    pub(crate) fn reusable(&self, id: SeqId, tokens: &[u32]) -> Result<usize> {
        self.sequences
            .at(self.sequences.sequence(id)?)
            .reusable(tokens, &self.pools)
    }

    /// The same of a sequence that would be what the checkpoint is.
    pub(crate) fn reusable_of(&self, checkpoint: CheckpointId, tokens: &[u32]) -> Result<usize> {
        self.checkpoints
            .at(self.checkpoints.checkpoint(checkpoint)?)
            .reusable(tokens, &self.pools)
    }

    /// The tokens of a checkpoint.
    pub(crate) fn tokens_of(&self, checkpoint: CheckpointId) -> Result<&[u32]> {
        Ok(&self.checkpoints.at(self.checkpoints.checkpoint(checkpoint)?).tokens)
    }

    /// Whether a sequence cannot be cut to every length that it had: a window may have passed it, or its state be gone.
    pub(crate) fn loses_lengths(&self) -> bool {
        self.pools.states.is_some() || self.pools.groups.iter().any(|group| group.window().is_some())
    }

    /// Forgets the tokens of a sequence from `len` on.
    pub(crate) fn truncate(&mut self, id: SeqId, len: usize) -> Result<()> {
        let held = self.sequences.at_mut(self.sequences.sequence(id)?);
        held.check_cut(len, &self.pools)?;
        held.cut(len, &self.pools);
        Ok(())
    }

    /// Ends a sequence.
    pub(crate) fn close(&mut self, id: SeqId) -> Result<()> {
        self.sequences.close_sequence(id, &self.pools)
    }

    /// The tokens that a sequence was computed from; `u32::MAX` for a row that had an embedding instead.
    pub(crate) fn tokens(&self, id: SeqId) -> Result<&[u32]> {
        Ok(&self.sequences.at(self.sequences.sequence(id)?).tokens)
    }

    /// Room in a sequence's lists for `positions`.
    pub(crate) fn make_room(&mut self, id: SeqId, positions: usize) -> Result<()> {
        let slot = self.sequences.sequence(id)?;
        self.sequences.at_mut(slot).make_room(positions, &self.pools);
        Ok(())
    }

    /// Puts the whole pages of a sequence into the prefix index; nothing where they end with the pass.
    pub(crate) fn publish(&mut self, id: SeqId) -> Result<()> {
        let held = self.sequences.at_mut(self.sequences.sequence(id)?);
        if !whole_texts(&self.pools.groups) {
            self.prefix.insert(held, &self.pools);
        }
        Ok(())
    }

    /// Empties the prefix index.
    pub(crate) fn clear_prefix(&mut self) {
        self.prefix.clear(&self.pools);
    }

    /// The memory of keys, values and states.
    pub(crate) fn memory(&self) -> impl Iterator<Item = &[u8]> {
        self.layers.iter().flat_map(|layer| match layer {
            LayerCache::None | LayerCache::Reused(_) => [&[][..]; 2],
            LayerCache::Kv(cache) => [cache.k.bytes(), cache.v.bytes()],
            LayerCache::State(cache) => cache.bytes(),
        })
    }

    pub(crate) fn usage(&self) -> Usage {
        let count = |(g, group): (usize, &Group)| {
            let (free, evictable) = (group.pool.free(), self.prefix.evictable(g, group));
            (group.pool.pages(), free, evictable)
        };
        let fullest = self
            .pools
            .groups
            .iter()
            .enumerate()
            .map(count)
            .min_by_key(|(_, free, evictable)| free + evictable);
        let (pages, free, evictable) = fullest.unwrap_or_default();
        Usage {
            pages,
            free,
            evictable,
            states: self.pools.states.as_ref().map_or(0, PagePool::pages),
            free_states: self.pools.states.as_ref().map_or(0, PagePool::free),
            sequences: self.sequences.used(),
            checkpoints: self.checkpoints.used(),
            prefix: self.prefix.stats,
        }
    }

    /// Gives the rows of a pass their slots and positions, and their sequences the pages that they lie in. On an error no
    /// sequence has changed, but for pages that a window had passed.
    ///
    /// # Errors
    /// Handles that are not of an open sequence, tokens outside the vocabulary, `ContextFull`, `CacheFull`, `StatesFull`.
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
        for (g, group) in self.pools.groups.iter().enumerate() {
            let mut needed = 0;
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
                let (more, shared) = held.wants(g, group);
                needed += more + usize::from(shared.is_some());
            }
            let free = group.pool.free();
            if needed > free {
                let evictable = self.prefix.evictable(g, group);
                if needed > free + evictable {
                    return Err(Error::CacheFull {
                        needed,
                        free,
                        evictable,
                    });
                }
            }
        }
        for g in 0..self.pools.groups.len() {
            for i in 0..self.in_pass.len() {
                self.reserve(g, self.in_pass[i])?;
            }
        }
        self.reserve_states()
    }

    /// Gives back what a pass that failed was to leave its states in.
    fn drop_pass(&mut self) {
        let Some(pool) = &self.pools.states else { return };
        for slot in &self.in_pass {
            self.sequences.at_mut(*slot).states.drop_pass(pool);
        }
    }

    /// Whether there is a slot for the state of each sequence in the pass: one that is free, or that only snapshots and the prefix
    /// index hold.
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

    /// Slots for the states that the pass leaves; and where it goes through the end of a page, for the state there, which the prefix
    /// index can make use of.
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

    /// A free slot, or one that is made so: snapshots go where there are many, then what the prefix index has used least
    /// recently, then any snapshot.
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

    /// One snapshot less, of those who have most and more than `least`; `shared`: also one that others hold. False if there is none.
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

    /// The pages of a group that a sequence's rows of the pass lie in. There are as many, as [`Self::prepare`] has counted.
    fn reserve(&mut self, g: usize, slot: usize) -> Result<()> {
        let (more, shared) = self.sequences.at(slot).wants(g, &self.pools.groups[g]);
        if let Some(i) = shared {
            let copy = self.page(g)?;
            let from = std::mem::replace(&mut self.sequences.at_mut(slot).tables[g].pages[i], copy);
            let layers = self.layers.iter_mut().filter_map(LayerCache::kv_mut);
            for cache in layers.filter(|cache| cache.group == g) {
                cache.copy_page(from, copy);
            }
            self.pools.groups[g].pool.give(from);
        }
        for _ in 0..more {
            let page = self.page(g)?;
            self.sequences.at_mut(slot).tables[g].pages.push_back(page);
        }
        Ok(())
    }

    /// A free page, or one that the prefix index lets go of.
    fn page(&mut self, g: usize) -> Result<u32> {
        loop {
            if let Some(page) = self.pools.groups[g].pool.take() {
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

/// Whether a pass must have its texts whole: nothing of them is kept for a later one.
fn whole_texts(groups: &[Group]) -> bool {
    groups.iter().any(|group| group.reach == Reach::Pass)
}
