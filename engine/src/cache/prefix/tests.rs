//! The prefix index by itself: what is found, what goes first, what stays.

use std::collections::BTreeMap;

use super::super::pages::Reach;
use super::super::pool::PagePool;
use super::super::sequences::Table;
use super::*;

/// An index with the pools of its pages.
struct Subject {
    index: PrefixIndex,
    pools: Pools,
}

impl Subject {
    fn new(reaches: &[Reach], pages: u32) -> Self {
        let groups = reaches.iter().map(|reach| Group {
            reach: *reach,
            whole: usize::MAX,
            pool: PagePool::new(pages),
        });
        Subject {
            index: PrefixIndex::new(reaches.len()),
            pools: Pools {
                groups: groups.collect(),
                states: None,
            },
        }
    }

    fn empty(&self) -> Held {
        let mut held = Held::default();
        held.tables.resize_with(self.pools.groups.len(), Table::default);
        held
    }

    /// A sequence that has computed these tokens, with pages of its own.
    fn computed(&self, tokens: &[u32]) -> Held {
        let mut held = self.empty();
        held.tokens.extend_from_slice(tokens);
        for (table, group) in held.tables.iter_mut().zip(&self.pools.groups) {
            let pages = (0..tokens.len().div_ceil(BLOCK)).map(|_| group.pool.take().unwrap());
            table.pages.extend(pages);
        }
        held
    }

    fn end(&self, mut held: Held) {
        held.cut(0, &self.pools);
    }

    /// Puts what a sequence has computed into the index; its pages in the first group.
    fn publish(&mut self, tokens: &[u32]) -> Vec<u32> {
        let mut held = self.computed(tokens);
        self.index.insert(&mut held, &self.pools);
        let pages = held.tables[0].pages.iter().copied().collect();
        self.end(held);
        pages
    }

    /// A sequence that begins with what is here of some tokens.
    fn take(&mut self, tokens: &[u32]) -> Held {
        let mut held = self.empty();
        let len = self.index.take(tokens, &mut held, &self.pools);
        assert_eq!(held.tokens, tokens[..len]);
        for table in &held.tables {
            assert_eq!(table.end(), len.div_ceil(BLOCK));
        }
        held
    }

    /// How much is here of some tokens.
    fn found(&mut self, tokens: &[u32]) -> usize {
        let held = self.take(tokens);
        let len = held.len();
        self.end(held);
        len
    }

    fn free(&self) -> usize {
        self.pools.groups[0].pool.free()
    }

    fn evictable(&self, g: usize) -> usize {
        self.index.evictable(g, &self.pools.groups[g], usize::MAX)
    }
}

/// Pages of a kind each: of two kinds the first `20 * (the lesser one)` tokens are the same.
fn tokens(kinds: &[u32]) -> Vec<u32> {
    let page = |kind: &u32| {
        let kind = *kind;
        (0..BLOCK as u32).map(move |i| if i < 20 * kind { 7 } else { 100 + kind })
    };
    kinds.iter().flat_map(page).collect()
}

#[test]
fn the_longest_prefix_is_found() {
    let mut subject = Subject::new(&[Reach::All], 40);
    assert_eq!((subject.found(&tokens(&[0])), subject.found(&[])), (0, 0));
    for kinds in [[1, 1, 1], [1, 2, 0], [2, 0, 0], [3, 1, 2], [1, 0, 3]] {
        subject.publish(&tokens(&kinds));
    }
    for (query, expected) in [
        (tokens(&[1, 1, 1]), 192),
        // Longer than what is here, and shorter.
        (tokens(&[1, 1, 1, 0]), 192),
        (tokens(&[1, 1]), 128),
        (tokens(&[1, 1])[..100].to_vec(), 100),
        (tokens(&[3])[..1].to_vec(), 1),
        // Another second page: 40 of its tokens are those of kind 2, 20 those of kind 1.
        (tokens(&[1, 3, 1]), 64 + 40),
        // Another third one.
        (tokens(&[1, 0, 1]), 128 + 20),
        (tokens(&[1, 1, 0]), 128),
        // Nothing in common, but that others have it further on.
        (tokens(&[0, 1, 1]), 0),
        (vec![100], 0),
    ] {
        assert_eq!(subject.found(&query), expected, "{query:?}");
    }
    let stats = subject.index.stats;
    assert_eq!((stats.lookups, stats.hits, stats.evictions), (12, 8, 0));
    assert_eq!(stats.tokens_reused, 192 + 192 + 128 + 100 + 1 + 104 + 148 + 128);
}

#[test]
fn prefixes_with_the_same_beginning_hold_its_pages_together() {
    let mut subject = Subject::new(&[Reach::All], 40);
    let first = subject.publish(&tokens(&[1, 1, 1]));
    assert_eq!((subject.free(), subject.evictable(0)), (37, 3));
    // What it has computed itself goes for what was here.
    let second = subject.publish(&tokens(&[1, 1, 2, 2]));
    assert_eq!((&second[..2], subject.free()), (&first[..2], 35));
    // The beginning alone is nothing new, and of a page that is not whole there is nothing to keep.
    subject.publish(&tokens(&[1, 1]));
    subject.publish(&tokens(&[1, 1, 2, 2, 3])[..300]);
    assert_eq!(subject.free(), 35);
    let other = subject.publish(&tokens(&[2, 1, 1]));
    assert_eq!(subject.free(), 32);
    assert!(
        other
            .iter()
            .all(|page| !first.contains(page) && !second.contains(page))
    );
    // A row that was no token cannot be found again, nor what is behind it.
    let mut unknown = tokens(&[3, 3, 3]);
    unknown[70] = NO_TOKEN;
    subject.publish(&unknown);
    assert_eq!((subject.free(), subject.found(&tokens(&[3, 3, 3]))), (31, 64));
    assert_eq!(subject.evictable(0), 9);
    assert_eq!(subject.index.evictable(0, &subject.pools.groups[0], 4), 4);
    subject.index.clear(&subject.pools);
    assert_eq!((subject.free(), subject.found(&tokens(&[1]))), (40, 0));
}

#[test]
fn what_was_used_least_recently_goes_first_and_ends_before_beginnings() {
    let (a, b) = (tokens(&[0, 1, 1]), tokens(&[2, 2]));
    for used in [&a, &b] {
        let mut subject = Subject::new(&[Reach::All], 5);
        subject.publish(&a);
        subject.publish(&b);
        assert_eq!(subject.found(used), used.len());
        let mut left = [(&a, 3), (&b, 2)];
        // The other one goes, then this one.
        left.sort_by_key(|(tokens, _)| *tokens == used);
        for (i, (tokens, pages)) in left.into_iter().enumerate() {
            for gone in 1..=pages {
                assert!(subject.index.evict(0, &subject.pools));
                // Looking does not count as use here: the length alone is asked for.
                let mut found = |tokens: &[u32]| subject.index.find(tokens, &subject.pools);
                assert_eq!(found(tokens), (pages - gone) * BLOCK);
                if i == 0 {
                    assert_eq!(found(used), used.len());
                }
            }
        }
        assert!(!subject.index.evict(0, &subject.pools));
        assert_eq!((subject.free(), subject.index.stats.evictions), (5, 5));
    }
    // A part of a prefix that was used is newer than the rest of it.
    let mut subject = Subject::new(&[Reach::All], 5);
    subject.publish(&a);
    subject.publish(&b);
    assert_eq!(subject.found(&a[..70]), 70);
    for (of_a, of_b) in [(128, 128), (128, 64), (128, 0), (64, 0), (0, 0)] {
        assert!(subject.index.evict(0, &subject.pools));
        let mut found = |tokens: &[u32]| subject.index.find(tokens, &subject.pools);
        assert_eq!((found(&a), found(&b)), (of_a, of_b));
    }
}

#[test]
fn what_is_held_stays() {
    let (a, b) = (tokens(&[0, 1, 1]), tokens(&[2, 2]));
    let mut subject = Subject::new(&[Reach::All], 5);
    subject.publish(&a);
    subject.publish(&b);
    // As a sequence or a checkpoint: a page and a part of the second one.
    let held = subject.take(&a[..80]);
    subject.found(&b);
    assert_eq!(subject.evictable(0), 3);
    for _ in 0..3 {
        assert!(subject.index.evict(0, &subject.pools));
    }
    assert!(!subject.index.evict(0, &subject.pools));
    assert_eq!((subject.found(&a), subject.found(&b)), (128, 0));
    // Its pages are let go of all the same where they are asked for by name, with what hangs on them.
    let page = held.tables[0].pages[0];
    subject.index.let_go(0, page, &subject.pools);
    assert_eq!((subject.found(&a), subject.free()), (0, 3));
    assert!(!subject.pools.groups[0].pool.is_shared(page));
    subject.end(held);
    assert_eq!(subject.free(), 5);
}

/// A sequence may hold an end that is here with a beginning of its own: what only the index holds can go all the same.
#[test]
fn a_beginning_goes_whose_end_is_held() {
    let a = tokens(&[0, 1]);
    let mut subject = Subject::new(&[Reach::All], 4);
    subject.publish(&a[..BLOCK]);
    let mut held = subject.computed(&a);
    let mut fork = subject.empty();
    fork.copy(&held, held.len(), &subject.pools);
    subject.index.insert(&mut held, &subject.pools);
    subject.end(held);
    assert_eq!((subject.free(), subject.evictable(0)), (1, 1));
    assert!(subject.index.evict(0, &subject.pools));
    assert_eq!((subject.free(), subject.found(&a)), (2, 0));
    assert!(!subject.index.evict(0, &subject.pools));
    subject.end(fork);
    assert_eq!(subject.free(), 4);
}

#[test]
fn a_window_needs_only_the_last_pages() {
    let mut subject = Subject::new(&[Reach::All, Reach::Window(BLOCK)], 8);
    let a = tokens(&[1, 1, 1, 1]);
    let found = |subject: &mut Subject| -> Vec<usize> {
        let lens = (1..=4).map(|pages| &a[..pages * BLOCK]);
        lens.map(|tokens| subject.index.find(tokens, &subject.pools))
            .collect()
    };
    // A sequence whose window has passed the first two pages: what is longer does not miss them.
    let mut held = subject.computed(&a);
    for _ in 0..2 {
        let page = held.tables[1].pages.pop_front().unwrap();
        subject.pools.groups[1].pool.give(page);
        held.tables[1].first += 1;
    }
    subject.index.insert(&mut held, &subject.pools);
    subject.end(held);
    assert_eq!(found(&mut subject), [0, 0, 192, 256]);
    let held = subject.take(&a);
    assert_eq!((held.tables[1].first, held.tables[1].pages.len()), (3, 1));
    subject.end(held);
    // The end's page of the window is the oldest; what another sequence has of them comes to stand beside the others.
    assert!(subject.index.evict(1, &subject.pools));
    assert_eq!(found(&mut subject), [0, 0, 192, 192]);
    subject.publish(&a);
    assert_eq!(found(&mut subject), [64, 128, 192, 256]);
    assert_eq!((subject.evictable(0), subject.evictable(1)), (4, 4));
    // Whoever takes a page of all positions takes the window's with it, and not the other way round.
    for _ in 0..2 {
        assert!(subject.index.evict(0, &subject.pools));
    }
    assert_eq!((subject.evictable(0), subject.evictable(1)), (2, 2));
    for _ in 0..2 {
        assert!(subject.index.evict(1, &subject.pools));
    }
    assert_eq!((subject.evictable(0), subject.evictable(1)), (2, 0));
    assert_eq!(found(&mut subject), [0, 0, 0, 0]);
    subject.index.clear(&subject.pools);
    assert!(subject.pools.groups.iter().all(|group| group.pool.free() == 8));
}

/// What the index should hold: per prefix, its page and when it was used.
#[derive(Default)]
struct Plain {
    pages: BTreeMap<Vec<u32>, (u32, u64)>,
    time: u64,
}

impl Plain {
    /// A prefix is used: its beginning last.
    fn used(&mut self, tokens: &[u32], pages: &[u32]) {
        for (i, page) in pages.iter().enumerate().rev() {
            self.time += 1;
            let prefix = tokens[..(i + 1) * BLOCK].to_vec();
            self.pages.insert(prefix, (*page, self.time));
        }
    }

    fn longest(&self, tokens: &[u32]) -> usize {
        let common = |prefix: &Vec<u32>| prefix.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.pages.keys().map(common).max().unwrap_or(0)
    }

    /// The prefix with this page.
    fn of(&self, page: u32) -> Vec<u32> {
        let found = self.pages.iter().find(|(_, (own, _))| *own == page);
        found.unwrap().0.clone()
    }

    /// The page that goes next: that of an end, which nobody holds, used least recently.
    fn next(&self, held: &[Held]) -> Option<(Vec<u32>, u32)> {
        let is_end = |prefix: &Vec<u32>| {
            let longer = |other: &&Vec<u32>| other.len() > prefix.len() && other.starts_with(prefix);
            !self.pages.keys().any(|other| longer(&other))
        };
        let is_held = |page: &u32| held.iter().any(|held| held.tables[0].pages.contains(page));
        let ends = self.pages.iter();
        let ends = ends.filter(|(prefix, (page, _))| is_end(prefix) && !is_held(page));
        let oldest = ends.min_by_key(|(_, (_, time))| *time)?;
        Some((oldest.0.clone(), oldest.1.0))
    }
}

/// Random use against the plain model: what is found is the longest, what goes is what that one says.
#[test]
fn random_use_is_that_of_a_plain_list() {
    let mut subject = Subject::new(&[Reach::All], 24);
    let (mut plain, mut held) = (Plain::default(), Vec::<Held>::new());
    let mut state = 1u64;
    let mut below = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let (mut found, mut evicted) = (0, 0);
    for _ in 0..4000 {
        let kinds: Vec<u32> = (0..=below(4)).map(|_| below(4) as u32).collect();
        let mut query = tokens(&kinds);
        match below(5) {
            0 => {
                while subject.free() < kinds.len() {
                    let next = plain.next(&held);
                    assert_eq!(subject.index.evict(0, &subject.pools), next.is_some());
                    let Some((prefix, page)) = next else { break };
                    plain.pages.remove(&prefix);
                    assert!(!subject.index.pages.contains(&page));
                    evicted += 1;
                }
                if subject.free() >= kinds.len() {
                    let pages = subject.publish(&query);
                    plain.used(&query, &pages);
                }
            }
            1 if !held.is_empty() => {
                let at = below(held.len() as u64) as usize;
                subject.end(held.swap_remove(at));
            }
            _ => {
                query.truncate(query.len() - below(BLOCK as u64) as usize);
                let taken = subject.take(&query);
                assert_eq!(taken.len(), plain.longest(&query), "{kinds:?} {}", query.len());
                found += usize::from(taken.len() > 0);
                let pages: Vec<u32> = taken.tables[0].pages.iter().copied().collect();
                if let Some(last) = pages.last() {
                    let prefix = plain.of(*last);
                    assert!(prefix.starts_with(&taken.tokens));
                    plain.used(&prefix, &pages);
                }
                match held.len() < 3 {
                    true => held.push(taken),
                    false => subject.end(taken),
                }
            }
        }
        let kept = subject.index.pages.iter().filter(|page| **page != NONE);
        assert_eq!(kept.count(), plain.pages.len());
    }
    assert!(found > 500 && evicted > 200, "{found} {evicted}");
    held.into_iter().for_each(|held| subject.end(held));
    assert_eq!(subject.free() + plain.pages.len(), 24);
}
