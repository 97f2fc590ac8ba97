//! A pool of pages: which are free, and how many hold each of the others. It can be shared between threads; the free
//! pages stand in a lock-free queue.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::Result;
use crate::memory::Buffers;

/// Counts of pages. A page is free, or somebody's: it goes back when the last of those who hold it gives it back.
#[derive(Debug)]
pub struct PagePool {
    free: ArrayQueue<u32>,
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
        // A queue has room for one at least.
        let free = ArrayQueue::new(pages.max(1) as usize);
        for page in 0..pages {
            // It holds as many as there are pages.
            let _ = free.push(page);
        }
        PagePool { free, holders }
    }

    /// Pages, free or not.
    pub fn pages(&self) -> usize {
        self.holders.len()
    }

    /// Pages that are free, at some time during the call.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// A free page, with one holder.
    pub fn take(&self) -> Option<u32> {
        let page = self.free.pop()?;
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
            let _ = self.free.push(page);
        }
    }

    /// Whether others hold it beside the caller.
    pub fn is_shared(&self, page: u32) -> bool {
        self.holders[page as usize].load(Ordering::Acquire) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
