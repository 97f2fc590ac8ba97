//! The prefix index: pages that sequences have computed, found again by the tokens that they were computed from. A tree
//! whose nodes are whole pages; the way from the root to a node is the prefix that ends with it.
//!
//! The index holds its pages like any sequence does, and lets go of those that nobody else holds when others need room: the
//! least recently used first, and the end of a prefix before its beginning. Since no number depends on who computed a page,
//! what is found here cannot change an answer.

use super::pages::Group;
use super::sequences::{Held, NO_TOKEN};
use super::state::{Pools, Snapshot};
use crate::kernels::BLOCK;

#[cfg(test)]
mod tests;

/// What a prefix index was asked and what it gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixStats {
    /// Prefixes that were looked for.
    pub lookups: u64,
    /// Of those, how many were found in part or whole.
    pub hits: u64,
    /// Tokens that need not be computed.
    pub tokens_reused: u64,
    /// Pages that went to make room.
    pub evictions: u64,
}

const NONE: u32 = u32::MAX;

/// A page of a prefix.
#[derive(Debug)]
struct Node {
    tokens: [u32; BLOCK],
    parent: u32,
    /// The pages that follow it, by their tokens.
    children: Vec<u32>,
    /// Neighbours in the order of use.
    newer: u32,
    older: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PrefixIndex {
    nodes: Vec<Node>,
    /// Per node, one of each group; `NONE` where it has gone.
    pages: Vec<u32>,
    /// Per node, the slot of the state after its last position; `NONE` where there is none.
    states: Vec<u32>,
    unused: Vec<u32>,
    n_groups: usize,
    /// The pages that prefixes begin with, by their tokens.
    roots: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// The nodes of the prefix that was found last, from the root.
    path: Vec<u32>,
    pub(super) stats: PrefixStats,
}

impl PrefixIndex {
    pub(super) fn new(n_groups: usize) -> Self {
        PrefixIndex {
            nodes: Vec::new(),
            pages: Vec::new(),
            states: Vec::new(),
            unused: Vec::new(),
            n_groups,
            roots: Vec::new(),
            newest: NONE,
            oldest: NONE,
            path: Vec::new(),
            stats: PrefixStats::default(),
        }
    }

    /// Makes an empty sequence hold the longest prefix of `tokens` that is here; its length.
    pub(super) fn take(&mut self, tokens: &[u32], held: &mut Held, pools: &Pools) -> usize {
        self.stats.lookups += 1;
        let len = self.find(tokens, pools);
        if len > 0 {
            self.stats.hits += 1;
            self.stats.tokens_reused += len as u64;
        }
        let blocks = len.div_ceil(BLOCK);
        for (g, (table, group)) in held.tables.iter_mut().zip(&pools.groups).enumerate() {
            table.first = oldest_block(len, group);
            for node in &self.path[table.first..blocks] {
                let page = self.pages[*node as usize * self.n_groups + g];
                group.pool.share(page);
                table.pages.push_back(page);
            }
        }
        if let (Some(pool), Some(last)) = (&pools.states, self.path[..blocks].last()) {
            let slot = self.states[*last as usize];
            held.states.begin(Snapshot { len, slot }, pool);
        }
        held.tokens.extend_from_slice(&tokens[..len]);
        self.touch_path(blocks);
        len
    }

    /// Length of the longest prefix of `tokens` whose pages are all here that its next token sees, and its state where there are
    /// states; its nodes are `path`.
    fn find(&mut self, tokens: &[u32], pools: &Pools) -> usize {
        self.path.clear();
        let (mut len, mut parent) = (0, NONE);
        while len < tokens.len() {
            let Some((node, common)) = self.closest(parent, &tokens[len..]) else {
                break;
            };
            self.path.push(node);
            len += common;
            if common < BLOCK {
                break;
            }
            parent = node;
        }
        while len > 0 && !self.is_whole(len, pools) {
            len = (len - 1) / BLOCK * BLOCK;
        }
        self.path.truncate(len.div_ceil(BLOCK));
        len
    }

    /// Of a node's children, the one that has most tokens in common with the beginning of `tokens`, and how many. In
    /// their order it is a neighbour of the place where `tokens` would stand.
    fn closest(&self, parent: u32, tokens: &[u32]) -> Option<(u32, usize)> {
        let children = self.children(parent);
        let at = self.place(children, tokens);
        let common = |node: u32| {
            let own = self.nodes[node as usize].tokens.iter();
            (node, own.zip(tokens).take_while(|(a, b)| a == b).count())
        };
        let neighbours = &children[at.saturating_sub(1)..children.len().min(at + 1)];
        let found = neighbours.iter().map(|node| common(*node));
        found.filter(|(_, n)| *n > 0).max_by_key(|(_, n)| *n)
    }

    /// Where among children one with these tokens stands, or would.
    fn place(&self, children: &[u32], tokens: &[u32]) -> usize {
        children.partition_point(|node| self.nodes[*node as usize].tokens.as_slice() < tokens)
    }

    /// Whether each group has the pages that a sequence of `len` positions along the path needs, and there is its state.
    fn is_whole(&self, len: usize, pools: &Pools) -> bool {
        if pools.states.is_some() {
            let last = self.path[len.div_ceil(BLOCK) - 1];
            if !len.is_multiple_of(BLOCK) || self.states[last as usize] == NONE {
                return false;
            }
        }
        pools.groups.iter().enumerate().all(|(g, group)| {
            self.path[oldest_block(len, group)..len.div_ceil(BLOCK)]
                .iter()
                .all(|node| self.pages[*node as usize * self.n_groups + g] != NONE)
        })
    }

    /// Takes in the whole pages of a sequence. Where a page of the same tokens is here already, the sequence goes on with that
    /// one, so that no page is kept twice.
    pub(super) fn insert(&mut self, held: &mut Held, pools: &Pools) {
        self.path.clear();
        let mut parent = NONE;
        let len = held.len();
        // Behind the last state nothing could be gone on from.
        let end = match &pools.states {
            Some(_) => held.states.last_boundary(len),
            None => len,
        };
        for block in 0..end / BLOCK {
            let mut tokens = [0; BLOCK];
            tokens.copy_from_slice(&held.tokens[block * BLOCK..(block + 1) * BLOCK]);
            if tokens.contains(&NO_TOKEN) {
                break;
            }
            let node = match self.closest(parent, &tokens) {
                Some((node, BLOCK)) => node,
                _ => self.add(parent, tokens),
            };
            for (g, (table, group)) in held.tables.iter_mut().zip(&pools.groups).enumerate() {
                let here = &mut self.pages[node as usize * self.n_groups + g];
                // A window may have passed it; a prefix that ends further on does not need it.
                let Some(own) = block
                    .checked_sub(table.first)
                    .and_then(|i| table.pages.get_mut(i))
                else {
                    continue;
                };
                if *here == NONE {
                    group.pool.share(*own);
                    *here = *own;
                } else if *here != *own {
                    group.pool.share(*here);
                    group.pool.give(std::mem::replace(own, *here));
                }
            }
            let state = &mut self.states[node as usize];
            if let (Some(pool), NONE) = (&pools.states, *state)
                && let Some(slot) = held.states.at((block + 1) * BLOCK, len)
            {
                pool.share(slot);
                *state = slot;
            }
            self.path.push(node);
            parent = node;
        }
        self.touch_path(self.path.len());
    }

    /// A new node with no pages yet.
    fn add(&mut self, parent: u32, tokens: [u32; BLOCK]) -> u32 {
        let node = self.unused.pop().unwrap_or(self.nodes.len() as u32);
        let at = self.place(self.children(parent), &tokens);
        self.children_mut(parent).insert(at, node);
        match self.nodes.get_mut(node as usize) {
            // It has no children: it was a leaf when it was removed.
            Some(unused) => (unused.tokens, unused.parent) = (tokens, parent),
            None => {
                self.nodes.push(Node {
                    tokens,
                    parent,
                    children: Vec::new(),
                    newer: NONE,
                    older: NONE,
                });
                self.pages.resize(self.nodes.len() * self.n_groups, NONE);
                self.states.push(NONE);
                // Removing allocates nothing.
                self.unused.reserve(self.nodes.len());
            }
        }
        self.link_newest(node);
        node
    }

    fn children(&self, parent: u32) -> &[u32] {
        match parent {
            NONE => &self.roots,
            parent => &self.nodes[parent as usize].children,
        }
    }

    fn children_mut(&mut self, parent: u32) -> &mut Vec<u32> {
        match parent {
            NONE => &mut self.roots,
            parent => &mut self.nodes[parent as usize].children,
        }
    }

    /// The beginning of the path becomes the most recently used, the root's side last: an end goes before its beginning.
    fn touch_path(&mut self, nodes: usize) {
        for i in (0..nodes).rev() {
            let node = self.path[i];
            self.unlink(node);
            self.link_newest(node);
        }
    }

    fn unlink(&mut self, node: u32) {
        let Node { newer, older, .. } = self.nodes[node as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, node: u32) {
        let next = self.newest;
        let own = &mut self.nodes[node as usize];
        (own.newer, own.older) = (NONE, next);
        match next {
            NONE => self.oldest = node,
            next => self.nodes[next as usize].newer = node,
        }
        self.newest = node;
    }

    /// Pages of a group that nobody but the index holds; counted up to `most`.
    pub(super) fn evictable(&self, g: usize, group: &Group, most: usize) -> usize {
        let pages = self.pages.iter().skip(g).step_by(self.n_groups.max(1));
        let evictable = pages.filter(|page| **page != NONE && !group.pool.is_shared(**page));
        evictable.take(most).count()
    }

    /// Gives back a page of a group that nobody else holds; false if there is none. Allocates nothing. Who uses a page
    /// uses those before it, so the oldest node is a leaf: passed over is only what sequences and checkpoints hold, or
    /// what a window has passed.
    pub(super) fn evict(&mut self, g: usize, pools: &Pools) -> bool {
        let (mut node, mut inner) = (self.oldest, NONE);
        while node != NONE {
            let found = &self.nodes[node as usize];
            let (newer, leaf) = (found.newer, found.children.is_empty());
            let page = &mut self.pages[node as usize * self.n_groups + g];
            if *page != NONE && !pools.groups[g].pool.is_shared(*page) {
                if pools.groups[g].window().is_some() {
                    // What follows may still be of use: to a prefix so much longer that its window does not reach here.
                    pools.groups[g].pool.give(std::mem::replace(page, NONE));
                    self.stats.evictions += 1;
                    self.remove_empty(node, pools);
                    return true;
                }
                if leaf {
                    self.remove(node, pools);
                    return true;
                }
                if inner == NONE {
                    inner = node;
                }
            }
            node = newer;
        }
        // What hangs on it is held by who computed the same beginning in pages of its own.
        if inner != NONE {
            self.remove_from(inner, pools);
        }
        inner != NONE
    }

    /// Gives back the slot of a state that nobody else holds; false if there is none. Allocates nothing.
    pub(super) fn evict_state(&mut self, pools: &Pools) -> bool {
        let Some(pool) = &pools.states else { return false };
        let mut node = self.oldest;
        while node != NONE {
            let state = &mut self.states[node as usize];
            if *state != NONE && !pool.is_shared(*state) {
                pool.give(std::mem::replace(state, NONE));
                self.stats.evictions += 1;
                self.remove_empty(node, pools);
                return true;
            }
            node = self.nodes[node as usize].newer;
        }
        false
    }

    /// Removes a leaf that has no page and no state, and its ancestors for which the same becomes true.
    fn remove_empty(&mut self, mut node: u32, pools: &Pools) {
        while node != NONE {
            let found = &self.nodes[node as usize];
            let at = node as usize * self.n_groups;
            let empty = self.pages[at..at + self.n_groups]
                .iter()
                .all(|page| *page == NONE)
                && self.states[node as usize] == NONE;
            if !empty || !found.children.is_empty() {
                return;
            }
            let parent = found.parent;
            self.remove(node, pools);
            node = parent;
        }
    }

    /// Removes a leaf.
    fn remove(&mut self, node: u32, pools: &Pools) {
        for (g, group) in pools.groups.iter().enumerate() {
            let page = std::mem::replace(&mut self.pages[node as usize * self.n_groups + g], NONE);
            if page != NONE {
                group.pool.give(page);
                self.stats.evictions += 1;
            }
        }
        let state = std::mem::replace(&mut self.states[node as usize], NONE);
        if let (Some(pool), true) = (&pools.states, state != NONE) {
            pool.give(state);
        }
        self.unlink(node);
        let Node { parent, tokens, .. } = &self.nodes[node as usize];
        let parent = *parent;
        let at = self.place(self.children(parent), tokens);
        self.children_mut(parent).remove(at);
        self.unused.push(node);
    }

    /// Lets go of a page of a group, whoever else holds it, and of what cannot be found without it. Allocates nothing.
    pub(super) fn let_go(&mut self, g: usize, page: u32, pools: &Pools) {
        let mut pages = self.pages.iter().skip(g).step_by(self.n_groups.max(1));
        let Some(node) = pages.position(|held| *held == page) else {
            return;
        };
        if pools.groups[g].window().is_some() {
            self.pages[node * self.n_groups + g] = NONE;
            pools.groups[g].pool.give(page);
            self.stats.evictions += 1;
            self.remove_empty(node as u32, pools);
        } else {
            self.remove_from(node as u32, pools);
        }
    }

    /// Removes a node and all that hang on it.
    fn remove_from(&mut self, node: u32, pools: &Pools) {
        loop {
            let mut leaf = node;
            while let Some(child) = self.nodes[leaf as usize].children.last() {
                leaf = *child;
            }
            self.remove(leaf, pools);
            if leaf == node {
                return;
            }
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self, pools: &Pools) {
        while self.oldest != NONE {
            self.remove_from(self.oldest, pools);
        }
    }
}

/// The first block that a sequence of `len` positions still needs for its next one.
fn oldest_block(len: usize, group: &Group) -> usize {
    group
        .window()
        .map_or(0, |window| (len + 1).saturating_sub(window) / BLOCK)
}
