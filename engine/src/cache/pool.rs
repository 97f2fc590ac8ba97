//! A pool of pages: which are free, and how many hold each of the others. It can be shared between threads; the free
//! pages stand in lock-free queues, one for each section of the pages: of memory that several nodes share, a section
//! lies on one of them (`team::heads`), and who takes a page says of which section it is to be.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::Result;
use crate::memory::Buffers;
use crate::team::{section_of, section_start};

/// Counts of pages. A page is free, or somebody's: it goes back when the last of those who hold it gives it back.
#[derive(Debug)]
pub struct PagePool {
    /// Of each section.
    free: Vec<ArrayQueue<u32>>,
    /// Holders of each page.
    holders: Vec<AtomicU32>,
}

impl PagePool {
    /// So many pages, all of them free.
    pub fn new(pages: u32) -> Self {
        Self::filled(pages, (0..pages).map(|_| AtomicU32::new(0)).collect())
    }

    /// As [`Self::new`], where there is memory for the lists.
    ///
    /// # Errors
    /// `Memory` if the allocator refuses.
    pub(super) fn make(pages: u32, buffers: &mut Buffers<'_>) -> Result<Self> {
        // The queue has a stamp beside each page, and no way to say that there is no memory for it.
        drop(buffers.room::<[usize; 2]>("lists of free pages", pages as usize)?);
        let mut holders = buffers.room("holders of pages", pages as usize)?;
        if buffers.only_counts() {
            return Ok(Self::filled(0, holders));
        }
        holders.extend((0..pages).map(|_| AtomicU32::new(0)));
        Ok(Self::filled(pages, holders))
    }

    fn filled(pages: u32, holders: Vec<AtomicU32>) -> Self {
        PagePool {
            free: vec![queue(0..pages)],
            holders,
        }
    }

    /// Divides the pages into sections. All of them are free: nobody has taken one yet.
    pub(super) fn divide(&mut self, sections: usize) {
        let pages = self.pages();
        let start = |section| section_start(section, pages, sections) as u32;
        self.free = (0..sections)
            .map(|section| queue(start(section)..start(section + 1)))
            .collect();
    }

    /// Sections of the pages; 1 where they lie on one node, or anywhere.
    pub(super) fn sections(&self) -> usize {
        self.free.len()
    }

    /// The section of a page.
    pub(super) fn section(&self, page: u32) -> usize {
        section_of(page as usize, self.pages(), self.sections())
    }

    /// Pages, free or not.
    pub fn pages(&self) -> usize {
        self.holders.len()
    }

    /// Pages that are free, at some time during the call.
    pub fn free(&self) -> usize {
        self.free.iter().map(ArrayQueue::len).sum()
    }

    /// A free page, with one holder.
    pub fn take(&self) -> Option<u32> {
        self.take_of(0)
    }

    /// As [`Self::take`], of a section; of the next one after it that has some where that one has none.
    pub(super) fn take_of(&self, section: usize) -> Option<u32> {
        let sections = self.sections();
        let page = (section..section + sections).find_map(|section| self.free[section % sections].pop())?;
        self.holders[page as usize].store(1, Ordering::Relaxed);
        Some(page)
    }

    /// One more holder of a page that the caller holds.
    pub fn share(&self, page: u32) {
        self.holders[page as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One holder less; the last one's page is free.
    pub fn give(&self, page: u32) {
        // What this holder read or wrote is done before the next one takes the page.
        if self.holders[page as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
            // Cannot be full: it has room for every page there is.
            let _ = self.free[self.section(page)].push(page);
        }
    }

    /// Whether others hold it beside the caller.
    pub fn is_shared(&self, page: u32) -> bool {
        self.holders[page as usize].load(Ordering::Acquire) > 1
    }
}

/// A queue of these pages, with room for all of them.
fn queue(pages: std::ops::Range<u32>) -> ArrayQueue<u32> {
    // A queue has room for one at least.
    let queue = ArrayQueue::new(pages.len().max(1));
    for page in pages {
        // It holds as many as there are pages.
        let _ = queue.push(page);
    }
    queue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_section_are_taken_first_and_come_back_to_it() {
        let mut pool = PagePool::new(7);
        pool.divide(3);
        let sections: Vec<usize> = (0..7).map(|page| pool.section(page)).collect();
        assert_eq!(sections, [0, 0, 1, 1, 2, 2, 2]);
        assert_eq!((pool.pages(), pool.free()), (7, 7));
        let taken: Vec<u32> = (0..7).map(|_| pool.take_of(1).unwrap()).collect();
        // The section's own, then those of the next, around.
        assert_eq!(taken, [2, 3, 4, 5, 6, 0, 1]);
        assert_eq!(pool.take_of(1), None);
        [5, 0].into_iter().for_each(|page| pool.give(page));
        assert_eq!(
            (pool.free(), pool.take_of(2), pool.take_of(2)),
            (2, Some(5), Some(0))
        );
        // More sections than pages: some have none.
        let mut pool = PagePool::new(1);
        pool.divide(4);
        assert_eq!((pool.take_of(1), pool.take_of(1)), (Some(0), None));
        pool.give(0);
        assert_eq!(pool.free(), 1);
    }

    #[test]
    fn a_page_is_free_when_its_last_holder_gives_it_back() {
        let pool = PagePool::new(2);
        let page = pool.take().unwrap();
        assert!(!pool.is_shared(page));
        pool.share(page);
        assert!(pool.is_shared(page));
        assert_eq!((pool.pages(), pool.free()), (2, 1));
        pool.give(page);
        assert_eq!(pool.free(), 1);
        pool.give(page);
        assert_eq!(pool.free(), 2);
        let both = [pool.take().unwrap(), pool.take().unwrap()];
        assert_ne!(both[0], both[1]);
        assert_eq!(pool.take(), None);
        assert_eq!(PagePool::new(0).take(), None);
    }

    /// No page has two owners, and none is lost. Few turns: this also runs under Miri.
    #[test]
    fn threads_take_and_give_back() {
        const TURNS: usize = if cfg!(miri) { 20 } else { 2_000 };
        let pool = PagePool::new(5);
        let owned: Vec<AtomicU32> = (0..5).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..TURNS {
                        let Some(page) = pool.take() else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(owned[page as usize].fetch_add(1, Ordering::SeqCst), 0);
                        if turn % 3 == 0 {
                            pool.share(page);
                            pool.give(page);
                        }
                        assert_eq!(owned[page as usize].fetch_sub(1, Ordering::SeqCst), 1);
                        pool.give(page);
                    }
                });
            }
        });
        assert_eq!(pool.free(), 5);
    }
}
