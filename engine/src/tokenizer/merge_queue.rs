//! The queue of the merge loop: candidates by order, then from left to right.
//!
//! One bucket per order. Within an order candidates mostly arrive from left to right, so a bucket is a list that
//! is read from the front, with a heap for the few that arrive late. A single heap over a megabyte of candidates
//! spends its time in cache misses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

/// Two adjacent parts that may join.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Index of the left part.
    pub(super) left: u32,
    /// Bytes of both together: a candidate whose parts have grown since is out of date.
    pub(super) len: u32,
    /// What they become.
    pub(super) symbol: u32,
}

#[derive(Default)]
struct Bucket {
    ascending: Vec<Candidate>,
    /// How many of `ascending` are taken.
    taken: usize,
    late: BinaryHeap<Reverse<Candidate>>,
    /// Whether its order is in the queue's heap of orders.
    waiting: bool,
}

impl Bucket {
    fn push(&mut self, candidate: Candidate) {
        if self.taken == self.ascending.len() {
            self.ascending.clear();
            self.taken = 0;
        }
        if self
            .ascending
            .last()
            .is_none_or(|last| last.left <= candidate.left)
        {
            self.ascending.push(candidate);
        } else {
            self.late.push(Reverse(candidate));
        }
    }

    fn pop(&mut self) -> Option<Candidate> {
        let next = self.ascending.get(self.taken);
        match self.late.peek() {
            Some(Reverse(late)) if next.is_none_or(|next| late.left < next.left) => {
                self.late.pop().map(|Reverse(candidate)| candidate)
            }
            _ => {
                let next = next.copied();
                self.taken += usize::from(next.is_some());
                next
            }
        }
    }
}

/// Candidates, taken lowest order first, at equal order leftmost first. Empty again once it is drained.
#[derive(Default)]
pub(super) struct Queue {
    buckets: Vec<Bucket>,
    /// Order -> index in `buckets`.
    index: HashMap<u32, u32>,
    orders: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Queue {
    /// Adds a candidate.
    pub(super) fn push(&mut self, order: u32, candidate: Candidate) {
        let next = self.index.len() as u32;
        let i = *self.index.entry(order).or_insert(next);
        if i as usize == self.buckets.len() {
            self.buckets.push(Bucket::default());
        }
        let bucket = &mut self.buckets[i as usize];
        bucket.push(candidate);
        if !bucket.waiting {
            bucket.waiting = true;
            self.orders.push(Reverse((order, i)));
        }
    }

    /// Takes the best candidate.
    pub(super) fn pop(&mut self) -> Option<Candidate> {
        while let Some(&Reverse((_, i))) = self.orders.peek() {
            let bucket = &mut self.buckets[i as usize];
            if let Some(candidate) = bucket.pop() {
                return Some(candidate);
            }
            bucket.waiting = false;
            self.orders.pop();
        }
        self.index.clear();
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn takes_what_a_sorted_list_would(
            pushes in prop::collection::vec(prop::option::of((0..4u32, 0..20u32)), 0..200),
        ) {
            let (mut queue, mut list) = (Queue::default(), Vec::new());
            for (n, push) in pushes.iter().enumerate() {
                if let Some((order, left)) = *push {
                    queue.push(order, Candidate { left, len: n as u32, symbol: 0 });
                    list.push((order, left));
                } else {
                    list.sort_unstable();
                    let expected = (!list.is_empty()).then(|| list.remove(0).1);
                    prop_assert_eq!(queue.pop().map(|candidate| candidate.left), expected);
                }
            }
        }
    }
}
