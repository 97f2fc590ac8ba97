//! The cache: what layers keep of the positions before. Keys and values lie in pages of 64 positions, which are made
//! once and handed out to sequences.
//!
//! A page is one attention block of one (layer, kv head): keys d-major (`k[d][64]`), values position-major
//! (`v[64][d]`); q8_0 keys keep 4 consecutive d of a position together (`k[d / 4][64][4]`). Layers that see the same
//! window share one table of pages per sequence (a *group*); pages that no window reaches any more go back to the pool.
//!
//! Callers hold handles ([`SeqId`]). Pages are counted: a fork holds those of its origin, and a page that others hold
//! too is copied when somebody writes to it. The prefix index holds pages as well, and finds them by their tokens.
//!
//! Layers that do not keep the positions but sum them up have a state per sequence instead, in slots that are counted
//! as pages are: `state`.
//!
//! `numbers` is how a vector is stored, `pages` the memory, `pool` what is free of it, `sequences` who holds which
//! page, `prefix` the index, `pass` what a pass takes. What a layer keeps is its mixer's choice, stated as a
//! [`CacheKind`]; the cache knows nothing of models.

mod numbers;
mod pages;
mod pass;
mod pool;
mod prefix;
mod sequences;
mod state;

pub use crate::handles::{CheckpointId, SeqId};
pub use numbers::CacheType;
pub(crate) use numbers::{Store, Stored};
pub(crate) use pages::KvCache;
pub use pool::PagePool;
pub use prefix::PrefixStats;
pub(crate) use sequences::Slots;
pub(crate) use state::{StateCache, StatePart, StateShape};

use crate::memory::Buffers;
use crate::team::Team;
use crate::{Error, Result};
use pages::{Group, PlannedGroup, Reach};
use prefix::PrefixIndex;
use state::Pools;

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

impl CacheKind {
    /// How far back its pages go, of what has some.
    fn reach(self) -> Option<Reach> {
        match self {
            CacheKind::Kv(shape) => Some(shape.window.map_or(Reach::All, Reach::Window)),
            CacheKind::Pass(_) => Some(Reach::Pass),
            CacheKind::None | CacheKind::SharedWith(_) | CacheKind::State(_) => None,
        }
    }
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
    /// Pages of 64 positions, of every group of layers that see equally far back. What open sequences leave of them is
    /// for checkpoints and the prefix index.
    Pages(usize),
    /// As [`Self::Pages`], but of no group more than [`Self::Whole`]: for texts of which nothing is kept.
    UpTo(usize),
    /// As many pages as fit so many bytes: those of whole sequences, which in layers with a sliding window are few, and
    /// with the rest those of a shorter one. So a sequence as long as the context has room wherever its bytes have.
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
        layers.get_mut(of).ok_or_else(|| Error::Internal {
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
        let of_pass = Sizes {
            type_k: CacheType::F32,
            type_v: CacheType::F32,
            ..*sizes
        };
        let has_state = kinds.clone().any(|kind| matches!(kind, CacheKind::State(_)));
        let groups = planned_groups(kinds.clone(), sizes);
        let in_bytes = match sizes.pool {
            Pool::Bytes(bytes) => pages::in_bytes(bytes, &groups)?,
            Pool::Whole | Pool::WithCheckpoints(_) | Pool::Pages(_) | Pool::UpTo(_) => (0, 0),
        };
        let pages = groups.iter().map(|group| group.pages(sizes, in_bytes));
        let pages = pages.collect::<Result<Vec<u32>>>()?;
        let mut layers = Vec::new();
        let mut passing = Vec::<(KvShape, usize)>::new();
        for (i, kind) in kinds.enumerate() {
            let (shape, sizes) = match kind {
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
                CacheKind::Kv(shape) => (shape, sizes),
                CacheKind::Pass(shape) => {
                    if let Some((_, layer)) = passing.iter().find(|(other, _)| *other == shape) {
                        layers.push(LayerCache::Reused(*layer));
                        continue;
                    }
                    passing.push((shape, i));
                    (shape, &of_pass)
                }
            };
            let reach = kind.reach();
            let group = groups
                .iter()
                .position(|group| Some(group.reach) == reach)
                .unwrap_or(0);
            let memory = (group, pages[group] as usize);
            layers.push(LayerCache::Kv(KvCache::make(shape, memory, sizes, buffers)?));
        }
        // After the pages, which are more: where there is no memory for them, nothing has been written to.
        let groups = groups
            .iter()
            .zip(pages)
            .map(|(group, pages)| Group::make(group, pages, buffers))
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

    /// Places the memory of keys and values on the nodes of those who will read it: heads are split between nodes, and
    /// where they do not divide, the pages of some heads. Nobody has taken a page yet.
    pub(crate) fn place(&mut self, team: &Team) -> Result<()> {
        for group in &mut self.pools.groups {
            group.pool.divide(team.nodes());
        }
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

    /// Bytes of the same, node by node: what [`Self::placed`] will give out once the memory is there. Saturates.
    pub(crate) fn planned(&self, team: &Team) -> Vec<u64> {
        let mut nodes = vec![0u64; team.nodes()];
        let mut add = |(node, bytes): (usize, u64)| {
            if let Some(sum) = nodes.get_mut(node) {
                *sum = sum.saturating_add(bytes);
            }
        };
        for layer in &self.layers {
            match layer {
                LayerCache::None | LayerCache::Reused(_) => {}
                LayerCache::Kv(cache) => cache.planned(team).for_each(&mut add),
                LayerCache::State(cache) => cache.planned(team).for_each(&mut add),
            }
        }
        nodes
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
        Ok(&self
            .checkpoints
            .at(self.checkpoints.checkpoint(checkpoint)?)
            .tokens)
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

    /// Whether sequences can grow, all of them: of each, the tokens that it holds and those that it is to hold. What
    /// only the prefix index holds is room.
    pub(crate) fn has_room(&self, sequences: impl Iterator<Item = (usize, usize)> + Clone) -> bool {
        self.pools.groups.iter().enumerate().all(|(g, group)| {
            let grown = sequences.clone().map(|(held, wanted)| group.growth(held, wanted));
            let lacks = grown.sum::<usize>().saturating_sub(group.pool.free());
            self.prefix.evictable(g, group, lacks) == lacks
        })
    }

    pub(crate) fn usage(&self) -> Usage {
        let count = |(g, group): (usize, &Group)| {
            let (free, evictable) = (group.pool.free(), self.prefix.evictable(g, group, usize::MAX));
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
}

/// Whether a pass must have its texts whole: nothing of them is kept for a later one.
fn whole_texts(groups: &[Group]) -> bool {
    groups.iter().any(|group| group.reach == Reach::Pass)
}

/// Groups of layers that see equally far back.
fn planned_groups(kinds: impl Iterator<Item = CacheKind>, sizes: &Sizes) -> Vec<PlannedGroup> {
    let mut groups = Vec::<PlannedGroup>::new();
    for kind in kinds {
        let Some(reach) = kind.reach() else { continue };
        let known = groups.iter().position(|group| group.reach == reach);
        let group = known.unwrap_or(groups.len());
        if known.is_none() {
            groups.push(PlannedGroup::new(reach, sizes));
        }
        if let CacheKind::Kv(shape) = kind {
            let bytes = &mut groups[group].page_bytes;
            *bytes = bytes.saturating_add(KvCache::page_bytes(shape, sizes));
        }
    }
    groups
}
