//! The parts themselves: a pointer that stands for an exclusive borrow, and some columns of a matrix as if they were
//! one's own.

use std::marker::PhantomData;
use std::ops::Range;

/// Where an output begins: for the closure of an operation, which other threads run as well.
pub(super) struct Raw<T>(pub(super) *mut T);
// SAFETY: the pointer is only used to make disjoint slices, each for one thread, of elements that are Send.
unsafe impl<T: Send> Sync for Raw<T> {}
// SAFETY: it stands for an exclusive borrow of elements that are Send, which may go to another thread.
unsafe impl<T: Send> Send for Raw<T> {}

/// Some columns of a row-major output matrix, all its rows; the other columns belong to other workers.
///
/// Who makes one promises that its rows and columns lie inside the matrix and that nobody else has them.
pub struct Tile<'a, T = f32> {
    pub(super) base: *mut T,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) columns: Range<usize>,
    pub(super) borrow: PhantomData<&'a mut T>,
}

impl<T> Tile<'_, T> {
    /// Number of rows (tokens, m).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns (outputs, n) that this tile owns.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Columns of one row, to read and write: `row` below [`Self::rows`].
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row lies inside the matrix (asserted), its columns inside the row (by construction), and only
        // this tile owns these columns; `&mut self` keeps two such slices from living at once.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.base.add(row * self.stride + self.columns.start),
                self.columns.len(),
            )
        }
    }

    /// A part of this tile: columns relative to its first.
    pub fn part(&mut self, columns: Range<usize>) -> Tile<'_, T> {
        assert!(
            columns.start <= columns.end && columns.end <= self.columns.len(),
            "columns out of the tile"
        );
        let start = self.columns.start;
        Tile {
            base: self.base,
            stride: self.stride,
            rows: self.rows,
            columns: start + columns.start..start + columns.end,
            borrow: PhantomData,
        }
    }
}
