//! A sequence: its length and, per group of layers, the table of its pages.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::pages::{Group, ROLLBACK};
use crate::kernels::BLOCK;
use crate::{Error, Result};

/// One stream of tokens in a context: its length and its pages. Dropping it gives the pages back.
#[derive(Debug)]
pub struct Sequence {
    len: usize,
    tables: Vec<Table>,
}

/// Pages of one group, by block.
#[derive(Debug)]
struct Table {
    window: Option<usize>,
    free: Arc<ArrayQueue<u32>>,
    /// Block that `pages[0]` holds.
    first: usize,
    pages: VecDeque<u32>,
}

impl Table {
    fn release(&mut self, page: Option<u32>) {
        if let Some(page) = page {
            // Cannot be full: the queue has room for every page there is.
            let _ = self.free.push(page);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        while let Some(page) = self.pages.pop_back() {
            self.release(Some(page));
        }
    }
}

impl Sequence {
    /// An empty one.
    pub(super) fn new(groups: &[Group]) -> Self {
        let tables = groups
            .iter()
            .map(|group| Table {
                window: group.window,
                free: Arc::clone(&group.free),
                first: 0,
                pages: VecDeque::with_capacity(group.pages),
            })
            .collect();
        Sequence { len: 0, tables }
    }

    /// Tokens that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the tokens from `len` on.
    ///
    /// # Errors
    /// If `len` is beyond the sequence, or so far back that a sliding window's pages are gone; the sequence is unchanged
    /// then, and a caller evaluates anew.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::InvalidInput {
                what: format!("a sequence of {} cannot be cut to {len}", self.len),
            });
        }
        for table in &self.tables {
            let oldest = table.window.map_or(0, |window| (len + 1).saturating_sub(window));
            if len > 0 && table.first * BLOCK > oldest {
                return Err(Error::WindowPassed { len, oldest });
            }
        }
        for table in &mut self.tables {
            while table.first + table.pages.len() > len.div_ceil(BLOCK) && !table.pages.is_empty() {
                let page = table.pages.pop_back();
                table.release(page);
            }
            if len == 0 {
                table.first = 0;
            }
        }
        self.len = len;
        Ok(())
    }

    /// Makes room for `n` more positions. Either all groups have it or nothing changes but what windows gave back.
    pub(crate) fn reserve(&mut self, n: usize) -> Result<()> {
        for table in &mut self.tables {
            if let Some(window) = table.window {
                let oldest = (self.len + 1).saturating_sub(window.saturating_add(ROLLBACK)) / BLOCK;
                while table.first < oldest && !table.pages.is_empty() {
                    let page = table.pages.pop_front();
                    table.release(page);
                    table.first += 1;
                }
            }
            while (table.first + table.pages.len()) * BLOCK < self.len + n {
                match table.free.pop() {
                    Some(page) => table.pages.push_back(page),
                    None => {
                        return Err(Error::CacheFull {
                            needed: (self.len + n).div_ceil(BLOCK) - table.first - table.pages.len(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// `n` positions were written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// The page of a block; the block is one that the window reaches.
    pub(crate) fn page(&self, group: usize, block: usize) -> u32 {
        let table = &self.tables[group];
        table.pages[block - table.first]
    }

    /// The page of a block, if there is one yet.
    pub(crate) fn page_if_any(&self, group: usize, block: usize) -> Option<u32> {
        let table = &self.tables[group];
        table.pages.get(block.checked_sub(table.first)?).copied()
    }
}
