//! Which node has which part of what several heads keep: one rule for who places that memory and for who hands out the
//! work on it.
//!
//! The memory of each head is divided into as many sections as the team has nodes, and the sections of all heads, one
//! head after the other, are cut into the nodes' shares:
//!
//! ```text
//! 3 heads, 2 nodes    head 0       head 1       head 2
//!                    [s0 | s1]    [s0 | s1]    [s0 | s1]
//!                     ---- node 0 ---- ---- node 1 ----
//! ```
//!
//! Where the heads divide by the nodes, a head is one node's whole. Where they do not, and where there are fewer heads
//! than nodes, some heads are divided by sections, so that each node still has its part of the bytes and of the work.

use super::{MAX_NODES, Shares, Team};

/// The nodes' shares of the sections of some heads; see the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadShares {
    heads: usize,
    nodes: usize,
    shares: Shares,
}

impl Team {
    /// How what `heads` heads keep is divided between the team's nodes.
    pub(crate) fn head_shares(&self, heads: usize) -> HeadShares {
        let nodes = self.nodes();
        HeadShares {
            heads,
            nodes,
            shares: self.shares(heads * nodes, 1),
        }
    }
}

impl HeadShares {
    /// Sections of each head.
    pub(crate) fn sections(&self) -> usize {
        self.nodes
    }

    /// The node that has a section of a head.
    pub(crate) fn node_of(&self, head: usize, section: usize) -> usize {
        self.shares.node_of(head * self.nodes + section)
    }

    /// Whether every head is one node's.
    pub(crate) fn whole_heads(&self) -> bool {
        let starts = &self.shares.0[..self.nodes];
        starts.iter().all(|start| start.is_multiple_of(self.nodes))
    }

    /// The same shares of items that stand head by head and in each section by section: of every head, a section's
    /// begin at `start(section)`, and there are `start(sections)` of them.
    pub(crate) fn of_items(&self, start: impl Fn(usize) -> usize) -> Shares {
        let of_head = start(self.nodes);
        let begin = |share: &usize| share / self.nodes * of_head + start(share % self.nodes);
        let starts = self.shares.0[..self.nodes].iter().map(begin);
        Shares::at(starts, self.heads * of_head)
    }
}

/// The first of some pages that belong to a section.
pub(crate) fn section_start(section: usize, pages: usize, sections: usize) -> usize {
    pages * section / sections
}

/// The section that a page belongs to.
pub(crate) fn section_of(page: usize, pages: usize, sections: usize) -> usize {
    ((page + 1) * sections - 1) / pages
}

/// Things in the order of the sections that they belong to, for as many blocks as there are of them.
pub(super) struct InSections<'a> {
    /// The first thing of each section; behind the last section, how many there are.
    starts: [usize; MAX_NODES + 1],
    /// The things, section by section; empty where each stands for itself.
    order: &'a [u32],
    /// Blocks that belong to one head.
    blocks: usize,
}

impl<'a> InSections<'a> {
    /// `n` things that belong to all sections alike: every head is one node's.
    pub(super) fn alike(n: usize, blocks: usize) -> Self {
        let mut starts = [n; MAX_NODES + 1];
        starts[0] = 0;
        InSections {
            starts,
            order: &[],
            blocks,
        }
    }

    /// Things of these sections, in `order`, in each section the last one first.
    pub(super) fn sorted(
        of: impl Iterator<Item = usize>,
        sections: usize,
        order: &'a mut Vec<u32>,
        blocks: usize,
    ) -> Self {
        let mut starts = [0; MAX_NODES + 1];
        order.clear();
        for section in of {
            let section = section.min(sections - 1);
            starts[section + 1] += 1;
            order.push(section as u32);
        }
        let n = order.len();
        for section in 0..MAX_NODES {
            starts[section + 1] += starts[section];
        }
        order.resize(2 * n, 0);
        let (of, sorted) = order.split_at_mut(n);
        let mut next = starts;
        for (thing, section) in of.iter().enumerate().rev() {
            let next = &mut next[*section as usize];
            sorted[*next] = thing as u32;
            *next += 1;
        }
        InSections {
            starts,
            order: sorted,
            blocks,
        }
    }

    /// The nodes' shares of all of them, of every block: items by number.
    pub(super) fn shares(&self, heads: &HeadShares) -> Shares {
        heads.of_items(|section| self.starts[section] * self.blocks)
    }

    /// The block and the thing that an item stands for. Items stand head by head, then section by section, then block
    /// by block.
    pub(super) fn at(&self, item: usize) -> (usize, usize) {
        let n = self.starts[MAX_NODES];
        let (head, item) = (item / (n * self.blocks), item % (n * self.blocks));
        let section = self.starts[1..].partition_point(|end| end * self.blocks <= item);
        let (start, end) = (self.starts[section], self.starts[section + 1]);
        let item = item - start * self.blocks;
        let place = start + item % (end - start);
        let thing = match self.order.get(place) {
            Some(thing) => *thing as usize,
            None => n - 1 - place,
        };
        (head * self.blocks + item / (end - start), thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Place;

    /// A team of so many nodes with two workers each.
    fn team(nodes: usize) -> Team {
        let places: Vec<Place> = (0..2 * nodes)
            .map(|worker| Place {
                node: worker / 2,
                cache: 0,
            })
            .collect();
        Team::placed(&places, |_, work| {
            std::thread::spawn(work);
        })
    }

    #[test]
    fn every_node_has_as_many_sections() {
        for nodes in 1..=4 {
            let team = team(nodes);
            for heads in [1, 2, 3, 5, 8] {
                let shares = team.head_shares(heads);
                assert_eq!(shares.sections(), nodes);
                assert_eq!(shares.whole_heads(), heads % nodes == 0);
                let mut sections = vec![0; nodes];
                let mut last = 0;
                for head in 0..heads {
                    for section in 0..nodes {
                        let node = shares.node_of(head, section);
                        assert!(node >= last);
                        last = node;
                        sections[node] += 1;
                    }
                }
                assert!(
                    sections.iter().all(|n| *n == heads),
                    "{heads} heads: {sections:?}"
                );
            }
        }
    }

    #[test]
    fn pages_are_in_the_sections_that_they_stand_in() {
        for pages in [1, 2, 3, 7, 16, 19] {
            for sections in 1..=5 {
                for section in 0..sections {
                    let own =
                        section_start(section, pages, sections)..section_start(section + 1, pages, sections);
                    for page in 0..pages {
                        assert_eq!(own.contains(&page), section_of(page, pages, sections) == section);
                    }
                }
            }
        }
    }

    /// Every pair of a block and a thing is one item, of the node that has the thing's section of the block's head.
    #[test]
    fn items_are_of_the_node_that_has_their_section() {
        for nodes in 2..=4 {
            let team = team(nodes);
            for (heads, blocks) in [(1, 1), (1, 4), (2, 1), (3, 1), (5, 1), (8, 1)] {
                let of = [0, 3, 1, 1, 0, 2, 1, 0, 9];
                let of = of.map(|section: usize| section.min(nodes - 1));
                let shares = team.head_shares(heads);
                let mut order = Vec::new();
                let sorted = InSections::sorted(of.iter().copied(), nodes, &mut order, blocks);
                let alike = InSections::alike(of.len(), blocks);
                for (items, whole) in [(&sorted, false), (&alike, true)] {
                    if whole && !shares.whole_heads() {
                        continue;
                    }
                    let all = heads * blocks * of.len();
                    let of_nodes = items.shares(&shares);
                    let mut met = vec![0; all];
                    for node in 0..nodes {
                        for item in of_nodes.of(node) {
                            let (block, thing) = items.at(item);
                            met[block * of.len() + thing] += 1;
                            assert_eq!(shares.node_of(block / blocks, of[thing]), node);
                        }
                    }
                    assert!(
                        met.iter().all(|n| *n == 1),
                        "{heads} heads, {nodes} nodes: {met:?}"
                    );
                }
            }
        }
        // Of one head and one section the last things come first, as without nodes.
        let alike = InSections::alike(3, 2);
        let all: Vec<_> = (0..6).map(|item| alike.at(item)).collect();
        assert_eq!(all, [(0, 2), (0, 1), (0, 0), (1, 2), (1, 1), (1, 0)]);
    }
}
