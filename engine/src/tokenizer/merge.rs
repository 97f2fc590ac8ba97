//! The merge loop that SPM and BPE share: join the best adjacent pair until no pair joins.
//!
//! "Best" is the lowest order, at equal order the leftmost pair. Short pieces are scanned (cheaper than a queue);
//! long ones use a queue over a linked list, so a megabyte without a space costs n log n, not n squared. Both
//! give the same result.

use super::merge_queue::{Candidate, Queue};

/// A symbol that no pair joins with and no token stands for.
pub(super) const NO_SYMBOL: u32 = u32::MAX;

/// What two adjacent symbols become.
#[derive(Clone, Copy)]
pub(super) struct Joined {
    /// The lower the earlier it is joined.
    pub(super) order: u32,
    /// The symbol that takes their place.
    pub(super) symbol: u32,
}

/// The rule by which adjacent symbols join.
pub(super) trait JoinRule {
    /// What `left` and `right` become, whose bytes together are `text`; `None` where they stay apart.
    fn join(&self, left: u32, right: u32, text: &[u8]) -> Option<Joined>;
}

/// A run of bytes that is one symbol.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Where it begins in the piece.
    pub(super) start: u32,
    /// The symbol, or [`NO_SYMBOL`].
    pub(super) symbol: u32,
}

/// Up to this many parts, scanning for the minimum is faster than a queue.
const SCAN_MAX: usize = 48;

/// Buffers of the merge loop, reused from piece to piece.
#[derive(Default)]
pub(super) struct Merger {
    /// The piece as initial symbols, filled by the caller; afterwards the joined ones.
    pub(super) parts: Vec<Part>,
    joins: Vec<Option<Joined>>,
    links: Vec<Link>,
    queue: Queue,
}

#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    end: u32,
}

const NONE: u32 = u32::MAX;

impl Merger {
    /// Joins [`Self::parts`] of `piece` until nothing joins. `piece` is shorter than 4 GiB, parts are in
    /// ascending order from 0.
    pub(super) fn run(&mut self, piece: &[u8], rule: &impl JoinRule) {
        if self.parts.len() <= SCAN_MAX {
            self.scan(piece, rule);
        } else {
            self.queue(piece, rule);
        }
    }

    fn scan(&mut self, piece: &[u8], rule: &impl JoinRule) {
        let Self { parts, joins, .. } = self;
        let join_at = |parts: &[Part], i: usize| {
            let (left, right) = (parts.get(i)?, parts.get(i + 1)?);
            let end = parts.get(i + 2).map_or(piece.len(), |part| part.start as usize);
            rule.join(left.symbol, right.symbol, &piece[left.start as usize..end])
        };
        joins.clear();
        joins.extend((0..parts.len()).map(|i| join_at(parts, i)));
        loop {
            let mut best: Option<(usize, Joined)> = None;
            for (i, join) in joins.iter().enumerate() {
                if let Some(join) = *join
                    && best.is_none_or(|(_, b)| join.order < b.order)
                {
                    best = Some((i, join));
                }
            }
            let Some((i, join)) = best else { return };
            parts[i].symbol = join.symbol;
            parts.remove(i + 1);
            joins.remove(i + 1);
            joins[i] = join_at(parts, i);
            if i > 0 {
                joins[i - 1] = join_at(parts, i - 1);
            }
        }
    }

    fn queue(&mut self, piece: &[u8], rule: &impl JoinRule) {
        let Self {
            parts, links, queue, ..
        } = self;
        let n = parts.len();
        links.clear();
        links.extend((0..n).map(|i| Link {
            previous: (i as u32).wrapping_sub(1),
            next: if i + 1 < n { i as u32 + 1 } else { NONE },
            end: parts.get(i + 1).map_or(piece.len() as u32, |part| part.start),
        }));
        let offer = |queue: &mut Queue, parts: &[Part], links: &[Link], left: u32, right: u32| {
            let (l, r) = (parts[left as usize], parts[right as usize]);
            let end = links[right as usize].end;
            if let Some(joined) = rule.join(l.symbol, r.symbol, &piece[l.start as usize..end as usize]) {
                queue.push(
                    joined.order,
                    Candidate {
                        left,
                        len: end - l.start,
                        symbol: joined.symbol,
                    },
                );
            }
        };
        for right in 1..n as u32 {
            offer(queue, parts, links, right - 1, right);
        }
        while let Some(Candidate { left, len, symbol }) = queue.pop() {
            // a part that was joined into its left neighbour is empty: end 0
            let link = links[left as usize];
            if link.end == 0 || link.next == NONE {
                continue;
            }
            let right = links[link.next as usize];
            if right.end - parts[left as usize].start != len {
                continue;
            }
            parts[left as usize].symbol = symbol;
            links[left as usize] = Link {
                previous: link.previous,
                next: right.next,
                end: right.end,
            };
            links[link.next as usize].end = 0;
            if right.next != NONE {
                links[right.next as usize].previous = left;
                offer(queue, parts, links, left, right.next);
            }
            if link.previous != NONE {
                offer(queue, parts, links, link.previous, left);
            }
        }
        let mut i = 0;
        parts.retain(|_| {
            i += 1;
            links[i - 1].end != 0
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Joins by a made-up rule over short texts of few letters: many ties, many stale candidates.
    struct Rule(u64);

    impl JoinRule for Rule {
        fn join(&self, _: u32, _: u32, text: &[u8]) -> Option<Joined> {
            let mut hash = self.0 | 1;
            for &byte in text {
                hash = (hash ^ u64::from(byte))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(23);
            }
            (!hash.is_multiple_of(3)).then_some(Joined {
                order: (hash >> 8) as u32 % 7,
                symbol: (hash >> 33) as u32,
            })
        }
    }

    proptest! {
        #[test]
        fn scan_and_queue_agree(text in "[ab]{0,60}", seed: u64) {
            let parts: Vec<Part> =
                (0..text.len()).map(|i| Part { start: i as u32, symbol: NO_SYMBOL }).collect();
            let (mut scan, mut queue) = (Merger::default(), Merger::default());
            scan.parts.clone_from(&parts);
            scan.scan(text.as_bytes(), &Rule(seed));
            queue.parts = parts;
            queue.queue(text.as_bytes(), &Rule(seed));
            let list = |m: &Merger| m.parts.iter().map(|p| (p.start, p.symbol)).collect::<Vec<_>>();
            prop_assert_eq!(list(&scan), list(&queue));
        }
    }
}
