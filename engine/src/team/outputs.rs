//! An operation's outputs, split between the workers of a team: rows, columns, cells, each part given to one worker as if it
//! were its own.
//!
//! The unsafe idea is one: parts that do not overlap are made of one borrowed slice, and given up before the operation returns.
#![allow(unsafe_code)]

use std::ops::Range;

use super::domains::Cut;
use super::{MAX_NODES, Shares, Team};
use crate::{Error, Result};

/// Pieces per worker of a list of products whose outputs have different numbers of rows.
const UNEVEN: usize = 16;

impl Team {
    /// Splits `out`, rows of `row_len` elements, between the workers: `f(rows, part)` gets a range of row indices and
    /// exactly those rows.
    ///
    /// # Errors
    /// As [`Team::ranges`]; [`Error::InvalidInput`] if `out` is not a whole number of rows.
    pub fn rows<T: Send>(
        &self,
        out: &mut [T],
        row_len: usize,
        grain: usize,
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        self.split_rows(None, out, row_len, grain, f)
    }

    fn split_rows<T: Send>(
        &self,
        node: Option<usize>,
        out: &mut [T],
        row_len: usize,
        grain: usize,
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        if row_len == 0 || !out.len().is_multiple_of(row_len) {
            return Err(Error::InvalidInput {
                what: format!(
                    "an output of {} elements is not a whole number of rows of {row_len}",
                    out.len()
                ),
            });
        }
        let n_rows = out.len() / row_len;
        let base = Raw(out.as_mut_ptr());
        let part = |rows: Range<usize>| {
            let base = &base;
            // SAFETY: disjoint ranges within 0..n_rows are handed out, so the parts do not overlap and lie inside `out`,
            // which stays exclusively borrowed until the operation is over. T: Send lets another thread have them.
            let part = unsafe {
                std::slice::from_raw_parts_mut(base.0.add(rows.start * row_len), rows.len() * row_len)
            };
            f(rows, part);
        };
        match node.filter(|node| *node < self.nodes()) {
            Some(node) if self.nodes() > 1 => {
                let cut = Cut::shrinking(n_rows, grain, self.n);
                self.hand_out_shares(&Shares::only(node, n_rows), cut, |_, rows| part(rows))
            }
            _ => self.ranges(n_rows, grain, part),
        }
    }

    /// As [`Team::rows`], by the workers of one node alone: who writes to memory first places it.
    pub fn rows_on<T: Send>(
        &self,
        node: usize,
        out: &mut [T],
        row_len: usize,
        grain: usize,
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        self.split_rows(Some(node), out, row_len, grain, f)
    }

    /// Splits the columns of some outputs between the workers in one operation: the shape of matrix products whose weights'
    /// rows are divided. `f(by, node, tile, second)` gets the node of the worker, some columns of one of `outs`, the first a
    /// multiple of the largest grain, and the same columns of its second output where it has one. Columns that are placed
    /// on a node ([`Columns::placed`]) go to its workers.
    ///
    /// # Errors
    /// As [`Team::rows`]; also if an output and its second one differ in length.
    pub fn products<P: Sync>(
        &self,
        outs: &mut [Columns<'_, P>],
        f: impl Fn(&P, usize, Tile<'_>, Option<Tile<'_>>) + Sync,
    ) -> Result<()> {
        // On each node its columns of the outputs stand one after the other, each output's at a multiple of the grain.
        let grain = outs.iter().map(|out| out.grain).max().unwrap_or(1).max(1);
        let nodes = self.nodes();
        let (mut starts, mut end) = ([0; MAX_NODES], 0);
        for out in &mut *outs {
            out.check()?;
            // What was placed for a team on more nodes is anyone's.
            let placed = |shares: &Shares| nodes > 1 && shares.0[nodes] == out.n;
            if !out.shares.as_ref().is_some_and(placed) {
                out.shares = Some(self.shares(out.n, grain));
            }
        }
        for (node, start) in starts.iter_mut().enumerate().take(nodes) {
            *start = end;
            for out in &mut *outs {
                out.start[node] = end;
                end += out.on(node).len().next_multiple_of(grain);
            }
        }
        let shares = Shares::at(starts[..nodes].iter().copied(), end);
        let outs = &*outs;
        // Columns of different lengths are different amounts of work: a large piece might be most of it.
        let even = outs.windows(2).all(|pair| pair[0].rows() == pair[1].rows());
        let cut = if even {
            Cut::shrinking(end, grain, self.n)
        } else {
            Cut::even(end, grain, UNEVEN * self.n)
        };
        let run = |worker, range: Range<usize>| {
            let node = self.node_of(worker);
            // They stand in the order of the list: those that end before the range are passed over, at the first one behind it
            // the piece is done. There may be hundreds.
            let passed = outs.partition_point(|out| out.start[node] + out.on(node).len() <= range.start);
            for out in &outs[passed..] {
                let (own, start) = (out.on(node), out.start[node]);
                if start >= range.end {
                    break;
                }
                let first = range.start.max(start);
                let last = range.end.min(start + own.len());
                if first < last {
                    let columns = own.start + first - start..own.start + last - start;
                    let second = out.second.as_ref().map(|(base, _)| out.tile(base, &columns));
                    f(&out.by, node, out.tile(&out.first, &columns), second);
                }
            }
        };
        match nodes {
            1 => self.hand_out(end, cut, run),
            _ => self.hand_out_shares(&shares, cut, run),
        }
    }

    /// Splits a row-major matrix of rows of `n` into cells of `rows` x `columns` (the last ones may be smaller), each of
    /// them much work, and hands them out one by one: `f(worker, rows, tile)`, with the worker's index below
    /// [`Team::workers`]. Column by column, in each the last rows first: in causal attention they take longest.
    ///
    /// # Errors
    /// As [`Team::rows`].
    pub fn cells<T: Send>(
        &self,
        out: &mut [T],
        n: usize,
        (rows, columns): (usize, usize),
        f: impl Fn(usize, Range<usize>, Tile<'_, T>) + Sync,
    ) -> Result<()> {
        if n == 0 || rows == 0 || columns == 0 || !out.len().is_multiple_of(n) {
            return Err(Error::InvalidInput {
                what: format!("{} elements cannot be cut into cells of rows of {n}", out.len()),
            });
        }
        let m = out.len() / n;
        let (down, across) = (m.div_ceil(rows), n.div_ceil(columns));
        let base = Raw(out.as_mut_ptr());
        self.hand_out(down * across, Cut::each(1), |worker, range| {
            let base = &base;
            for cell in range {
                let (row, column) = ((down - 1 - cell % down) * rows, cell / down * columns);
                let part = row..m.min(row + rows);
                let tile = Tile {
                    // SAFETY: row is below m, so the address is inside `out`. The tile's rows and columns are this
                    // cell's: no other cell has any of them, and each cell is handed out once.
                    base: unsafe { base.0.add(row * n) },
                    stride: n,
                    rows: part.len(),
                    columns: column..n.min(column + columns),
                    borrow: std::marker::PhantomData,
                };
                f(worker, part, tile);
            }
        })
    }

    /// Splits independent items between the workers: item i owns columns `i * columns..` of a row-major matrix of rows of `n` (the
    /// last item may have fewer), all its rows, and the i-th of as many equal parts of `own`: what it keeps from one operation to
    /// the next. `f(item, tile, part)`; pieces are of `grain` items at least.
    ///
    /// # Errors
    /// As [`Team::rows`]; also if `own` is not a whole number of parts.
    pub fn items<T: Send, S: Send>(
        &self,
        (out, n, columns): (&mut [T], usize, usize),
        own: &mut [S],
        grain: usize,
        f: impl Fn(usize, Tile<'_, T>, &mut [S]) + Sync,
    ) -> Result<()> {
        let items = if columns == 0 { 0 } else { n.div_ceil(columns) };
        if items == 0 || !out.len().is_multiple_of(n) || !own.len().is_multiple_of(items) {
            return Err(Error::InvalidInput {
                what: format!(
                    "{} and {} elements cannot be cut into items of {columns} columns of {n}",
                    out.len(),
                    own.len()
                ),
            });
        }
        let (m, part_len) = (out.len() / n, own.len() / items);
        let (base, own) = (Raw(out.as_mut_ptr()), Raw(own.as_mut_ptr()));
        self.ranges(items, grain, |range| {
            let (base, own) = (&base, &own);
            for item in range {
                let tile = Tile {
                    base: base.0,
                    stride: n,
                    rows: m,
                    columns: item * columns..n.min((item + 1) * columns),
                    borrow: std::marker::PhantomData,
                };
                // SAFETY: `own` has `items` parts of this length, and each item is handed out once, so no two of these overlap;
                // the same is true of the tiles' columns, which lie inside rows of n. Both slices stay borrowed until the
                // operation is over. S: Send lets another thread have them.
                let part = unsafe { std::slice::from_raw_parts_mut(own.0.add(item * part_len), part_len) };
                f(item, tile, part);
            }
        })
    }

    /// Hands out tiles of some rows of an output, each cut across into cells of some columns, and each cell whole or in parts:
    /// `f(worker, tile, block of columns, piece)`, with the worker's index below [`Team::workers`].
    /// Each piece is much work: they are handed out one by one, block by block of columns, in each the last tiles first: in
    /// causal attention they take longest.
    ///
    /// # Errors
    /// As [`Team::rows`]; also if tiles overlap or are not in order, or there is no room for their parts.
    pub fn tiles(
        &self,
        out: &mut Tiled<'_>,
        tiles: &mut [RowTile],
        f: impl Fn(usize, &RowTile, usize, Piece<'_>) + Sync,
    ) -> Result<()> {
        let (n, columns) = (out.n, out.columns);
        let invalid = |what: String| Err(Error::InvalidInput { what });
        if n == 0 || columns == 0 || !out.out.len().is_multiple_of(n) {
            return invalid(format!(
                "{} elements cannot be cut into rows of {n}, and those into {columns} columns",
                out.out.len()
            ));
        }
        let across = n.div_ceil(columns);
        let (mut row, mut part, mut units) = (0, 0, 0);
        for tile in &mut *tiles {
            if tile.rows.start < row || tile.rows.end <= tile.rows.start {
                return invalid(format!("the tile of rows {:?} is not after row {row}", tile.rows));
            }
            (tile.part, tile.unit) = (part, units);
            row = tile.rows.end;
            part += tile.parts * tile.rows.len() * across;
            units += tile.parts.max(1);
        }
        let room = out
            .parts
            .iter()
            .all(|(buffer, width)| part * width <= buffer.len());
        if row > out.out.len() / n || !room {
            return invalid(format!(
                "{row} rows and {part} parts of rows are more than there is room for"
            ));
        }
        let base = Raw(out.out.as_mut_ptr());
        let bases = out
            .parts
            .each_mut()
            .map(|(buffer, width)| (Raw(buffer.as_mut_ptr()), *width));
        let tiles = &*tiles;
        self.hand_out(units * across, Cut::each(1), |worker, range| {
            let (base, bases) = (&base, &bases);
            for item in range {
                let (block, unit) = (item / units, units - 1 - item % units);
                let tile = &tiles[tiles.partition_point(|tile| tile.unit <= unit) - 1];
                let piece = if tile.parts == 0 {
                    let column = block * columns;
                    Piece::Cell(Tile {
                        // SAFETY: the rows are inside `out` (checked above). Tiles have no rows in common, blocks no columns,
                        // and each pair of them is handed out once.
                        base: unsafe { base.0.add(tile.rows.start * n) },
                        stride: n,
                        rows: tile.rows.len(),
                        columns: column..n.min(column + columns),
                        borrow: std::marker::PhantomData,
                    })
                } else {
                    let (part, rows) = (unit - tile.unit, tile.rows.len());
                    let first = tile.part_row(block, part);
                    // SAFETY: `part_row` counts parts without a gap over tiles, blocks and parts of a cell, each of them
                    // `rows` rows, and the last one ends inside each buffer (checked above).
                    let [a, b, c] = bases.each_ref().map(|(base, width)| unsafe {
                        std::slice::from_raw_parts_mut(base.0.add(first * width), rows * width)
                    });
                    Piece::Part(part, a, b, c)
                };
                f(worker, tile, block, piece);
            }
        })
    }
}

/// What [`Team::tiles`] hands out pieces of.
pub struct Tiled<'a> {
    /// A row-major matrix.
    pub out: &'a mut [f32],
    /// Elements of its rows.
    pub n: usize,
    /// Of those, how many a block has; the last one may have fewer.
    pub columns: usize,
    /// Three buffers for parts, with the elements of each that a row's part of a block takes.
    pub parts: [(&'a mut [f32], usize); 3],
}

/// Some rows of an output that are computed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowTile {
    /// The rows.
    pub rows: Range<usize>,
    /// Parts that each of its cells is handed out in; 0 for whole cells.
    pub parts: usize,
    /// Rows of parts before its own.
    part: usize,
    /// Units of a block before its own.
    unit: usize,
}

impl RowTile {
    /// A tile of these rows.
    pub fn new(rows: Range<usize>, parts: usize) -> Self {
        RowTile {
            rows,
            parts,
            part: 0,
            unit: 0,
        }
    }

    /// The first row in the buffers of parts of a part of its cell in a block of columns; [`Team::tiles`] has given them out.
    /// The parts of a cell lie one after the other.
    pub fn part_row(&self, block: usize, part: usize) -> usize {
        self.part + (block * self.parts + part) * self.rows.len()
    }
}

/// A piece of work of [`Team::tiles`].
pub enum Piece<'a> {
    /// All of a cell: its columns of the output.
    Cell(Tile<'a>),
    /// A part of a cell, by number, with its rows of the three buffers.
    Part(usize, &'a mut [f32], &'a mut [f32], &'a mut [f32]),
}

/// Outputs whose columns [`Team::products`] hands out, and what makes them: a row-major matrix, and where what combines two
/// products needs no operation of its own, a second one of the same shape.
pub struct Columns<'a, P> {
    /// What makes them.
    pub by: P,
    first: Raw<f32>,
    len: usize,
    /// With its length.
    second: Option<(Raw<f32>, usize)>,
    /// Elements of a row.
    n: usize,
    grain: usize,
    /// Which columns are which node's; `None` for any.
    shares: Option<Shares>,
    /// Where each node's columns stand among those of an operation.
    start: [usize; MAX_NODES],
    borrow: std::marker::PhantomData<&'a mut [f32]>,
}

impl<P: std::fmt::Debug> std::fmt::Debug for Columns<'_, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Columns")
            .field("by", &self.by)
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

impl<'a, P> Columns<'a, P> {
    /// `out`, rows of `n`, in pieces that begin at a multiple of `grain`.
    pub fn of(out: &'a mut [f32], n: usize, grain: usize, by: P) -> Self {
        Columns {
            by,
            first: Raw(out.as_mut_ptr()),
            len: out.len(),
            second: None,
            n,
            grain,
            shares: None,
            start: [0; MAX_NODES],
            borrow: std::marker::PhantomData,
        }
    }

    /// Columns that lie on the nodes of the team: where what makes them does.
    pub fn placed(self, shares: Option<Shares>) -> Self {
        Columns { shares, ..self }
    }

    fn rows(&self) -> usize {
        self.len / self.n.max(1)
    }

    fn on(&self, node: usize) -> Range<usize> {
        self.shares.map_or(0..self.n, |shares| shares.of(node))
    }

    /// Hands out the same columns of another output with them.
    pub fn with(self, second: &'a mut [f32]) -> Self {
        Columns {
            second: Some((Raw(second.as_mut_ptr()), second.len())),
            ..self
        }
    }

    fn check(&self) -> Result<()> {
        let second = self.second.as_ref().map_or(self.len, |(_, len)| *len);
        if self.n == 0 || !self.len.is_multiple_of(self.n) || second != self.len {
            return Err(Error::InvalidInput {
                what: format!(
                    "outputs of {} and {second} elements are not the same rows of {}",
                    self.len, self.n
                ),
            });
        }
        Ok(())
    }

    /// Some columns of `base`, which is one of the two outputs. What makes a `Tile` safe is promised by `products`: it has
    /// checked the lengths, and hands out no column twice.
    fn tile(&self, base: &Raw<f32>, columns: &Range<usize>) -> Tile<'_> {
        Tile {
            base: base.0,
            stride: self.n,
            rows: self.rows(),
            columns: columns.clone(),
            borrow: std::marker::PhantomData,
        }
    }
}

struct Raw<T>(*mut T);
// SAFETY: the pointer is only used to make disjoint slices, each for one thread, of elements that are Send.
unsafe impl<T: Send> Sync for Raw<T> {}
// SAFETY: it stands for an exclusive borrow of elements that are Send, which may go to another thread.
unsafe impl<T: Send> Send for Raw<T> {}

/// Some columns of a row-major output matrix, all its rows; the other columns belong to other workers.
pub struct Tile<'a, T = f32> {
    base: *mut T,
    stride: usize,
    rows: usize,
    columns: Range<usize>,
    borrow: std::marker::PhantomData<&'a mut T>,
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
            borrow: std::marker::PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shares;
    use super::super::tests::{teams, threads};
    use super::{Columns, Piece, RowTile, Tiled};

    #[test]
    fn every_row_is_computed_once() {
        for team in teams() {
            for rows in [0, 1, 2, 15, 16, 17, 1000] {
                let mut out = vec![0u32; rows * 3];
                for _ in 0..20 {
                    team.rows(&mut out, 3, 2, |range, part| {
                        for (row, values) in range.zip(part.chunks_mut(3)) {
                            values.iter_mut().for_each(|v| *v += row as u32 + 1);
                        }
                    })
                    .unwrap();
                }
                for (i, v) in out.iter().enumerate() {
                    assert_eq!(*v, 20 * (i as u32 / 3 + 1));
                }
            }
        }
    }

    #[test]
    fn what_is_on_a_node_is_done_by_its_workers() {
        for team in teams() {
            let node_of_this = |threads: &std::sync::Mutex<Vec<(std::thread::ThreadId, usize)>>, node| {
                let mut threads = threads.lock().unwrap();
                let id = std::thread::current().id();
                match threads.iter().find(|(thread, _)| *thread == id) {
                    Some((_, known)) => assert_eq!(*known, node),
                    None => threads.push((id, node)),
                }
            };
            let threads = std::sync::Mutex::new(Vec::new());
            for node in 0..team.nodes() {
                for rows in [1, 2, 100] {
                    let mut out = vec![0u8; rows];
                    team.rows_on(node, &mut out, 1, 1, |_, part| {
                        node_of_this(&threads, node);
                        part.iter_mut().for_each(|v| *v += 1);
                    })
                    .unwrap();
                    assert!(out.iter().all(|v| *v == 1));
                }
            }
            // All columns of one product on the last node, those of another one anywhere, those of a third split unevenly.
            let last = team.nodes() - 1;
            let (mut a, mut b, mut c) = (vec![0.0; 64], vec![0.0; 64], vec![0.0; 64]);
            let uneven = Shares::at((0..=last).map(|node| 16 * node), 64);
            let mut outs = [
                Columns::of(&mut a, 64, 16, 'a').placed(Some(Shares::only(last, 64))),
                Columns::of(&mut b, 32, 16, 'b'),
                Columns::of(&mut c, 64, 16, 'c').placed(Some(uneven)),
            ];
            team.products(&mut outs, |by, node, mut tile, _| {
                node_of_this(&threads, node);
                match by {
                    'a' => assert_eq!(node, last),
                    'c' if node < last => assert_eq!(tile.columns(), 16 * node..16 * (node + 1)),
                    'c' => assert!(tile.columns().start >= 16 * last),
                    _ => (),
                }
                (0..tile.rows()).for_each(|row| tile.row(row).iter_mut().for_each(|v| *v += 1.0));
            })
            .unwrap();
            assert!([a, b, c].iter().flatten().all(|v| *v == 1.0));
        }
    }

    #[test]
    fn columns_are_disjoint_and_whole() {
        for team in teams() {
            let (mut a, mut b) = (vec![0.0; 5 * 100], vec![0.0; 3 * 7]);
            let mut outs = [Columns::of(&mut a, 100, 16, 100), Columns::of(&mut b, 7, 8, 7)];
            team.products(&mut outs, |width, _, mut tile, second| {
                assert!(second.is_none());
                assert!(tile.columns().start.is_multiple_of(16));
                for row in 0..tile.rows() {
                    let first = tile.columns().start;
                    for (column, v) in tile.row(row).iter_mut().enumerate() {
                        *v += (row * width + first + column) as f32;
                    }
                }
            })
            .unwrap();
            assert!(a.iter().enumerate().all(|(i, v)| *v == i as f32));
            assert!(b.iter().enumerate().all(|(i, v)| *v == i as f32));
        }
    }

    #[test]
    fn a_second_output_comes_with_the_same_columns() {
        for team in teams() {
            let (mut a, mut b, mut c) = (vec![0.0; 4 * 50], vec![1.0; 4 * 50], vec![0.0; 4 * 9]);
            let mut outs = [
                Columns::of(&mut a, 50, 8, true).with(&mut b),
                Columns::of(&mut c, 9, 8, false),
            ];
            team.products(&mut outs, |two, _, mut a, b| {
                assert_eq!(*two, b.is_some());
                let Some(mut b) = b else {
                    return (0..4).for_each(|row| a.row(row).iter_mut().for_each(|c| *c += 1.0));
                };
                assert_eq!(a.columns(), b.columns());
                assert!(a.columns().start.is_multiple_of(8));
                for row in 0..a.rows() {
                    let first = a.columns().start;
                    for (i, (a, b)) in a.row(row).iter_mut().zip(b.row(row)).enumerate() {
                        *b += (row * 50 + first + i) as f32;
                        *a += *b;
                    }
                }
            })
            .unwrap();
            assert!(a.iter().enumerate().all(|(i, a)| *a == (i + 1) as f32));
            assert_eq!(a, b);
            assert!(c.iter().all(|c| *c == 1.0));
        }
    }

    #[test]
    fn outputs_that_are_not_whole_rows_are_errors() {
        let team = threads(2);
        let (mut a, mut b) = (vec![0.0; 100], vec![0.0; 99]);
        for outs in [
            Columns::of(&mut a[..99], 50, 8, ()),
            Columns::of(&mut [], 0, 8, ()),
            Columns::of(&mut [0.0; 100], 50, 8, ()).with(&mut b),
        ] {
            assert!(team.products(&mut [outs], |(), _, _, _| ()).is_err());
        }
        team.products(&mut [] as &mut [Columns<'_, ()>], |(), _, _, _| ())
            .unwrap();
    }

    #[test]
    fn cells_cover_a_matrix_once() {
        for team in teams() {
            let mut out = vec![0.0; 10 * 7];
            team.cells(&mut out, 7, (3, 2), |worker, rows, mut tile| {
                assert!(worker < team.workers());
                assert_eq!(rows.len(), tile.rows());
                for (i, row) in rows.enumerate() {
                    let columns = tile.columns();
                    for (v, column) in tile.row(i).iter_mut().zip(columns) {
                        *v += (row * 7 + column + 1) as f32;
                    }
                }
            })
            .unwrap();
            assert!(out.iter().enumerate().all(|(i, v)| *v == (i + 1) as f32));
            assert!(team.cells(&mut out, 4, (3, 2), |_, _, _| ()).is_err());
        }
    }

    #[test]
    fn items_own_their_columns_and_their_parts() {
        for team in teams() {
            for (rows, grain) in [(0, 1), (1, 1), (5, 2)] {
                let (mut out, mut own) = (vec![0.0; rows * 19], vec![0u32; 5 * 3]);
                team.items((&mut out, 19, 4), &mut own, grain, |item, mut tile, part| {
                    assert_eq!((tile.rows(), part.len()), (rows, 3));
                    assert_eq!(tile.columns(), item * 4..19.min(item * 4 + 4));
                    for row in 0..rows {
                        let first = tile.columns().start;
                        for (i, v) in tile.row(row).iter_mut().enumerate() {
                            *v += (row * 19 + first + i) as f32;
                        }
                    }
                    part.iter_mut().for_each(|p| *p += item as u32 + 1);
                })
                .unwrap();
                assert!(out.iter().enumerate().all(|(i, v)| *v == i as f32));
                assert!(own.iter().enumerate().all(|(i, p)| *p == i as u32 / 3 + 1));
            }
            let (mut out, mut own) = (vec![0.0; 8], vec![0u32; 5]);
            assert!(team.items((&mut out, 4, 2), &mut own, 1, |_, _, _| ()).is_err());
            assert!(
                team.items((&mut out, 3, 1), &mut own[..3], 1, |_, _, _| ())
                    .is_err()
            );
            assert!(team.items((&mut out, 4, 0), &mut own, 1, |_, _, _| ()).is_err());
            assert!(team.items((&mut out, 0, 4), &mut own, 1, |_, _, _| ()).is_err());
        }
    }

    #[test]
    fn tiles_cover_their_rows_once() {
        for team in teams() {
            let mut out = vec![0.0; 10 * 7];
            let mut parts = [vec![0.0; 48], vec![0.0; 96], vec![0.0; 48]];
            let [a, b, c] = &mut parts;
            let mut tiled = Tiled {
                out: &mut out,
                n: 7,
                columns: 2,
                parts: [(a, 1), (b, 2), (c, 1)],
            };
            // Row 3 is nobody's; rows 4 and 5 are in parts, and row 9.
            let mut tiles =
                [(0..3, 0), (4..6, 3), (6..9, 0), (9..10, 5)].map(|(rows, parts)| RowTile::new(rows, parts));
            team.tiles(&mut tiled, &mut tiles, |worker, tile, block, piece| {
                assert!(worker < team.workers());
                match piece {
                    Piece::Cell(mut cell) => {
                        assert_eq!(cell.columns().start, block * 2);
                        for i in 0..cell.rows() {
                            let columns = cell.columns();
                            for (v, column) in cell.row(i).iter_mut().zip(columns) {
                                *v += ((tile.rows.start + i) * 7 + column + 1) as f32;
                            }
                        }
                    }
                    Piece::Part(part, a, b, c) => {
                        assert_eq!((b.len(), c.len()), (2 * a.len(), a.len()));
                        let number = (tile.rows.start * 1000 + block * 100 + part * 10) as f32;
                        a.iter_mut()
                            .enumerate()
                            .for_each(|(row, a)| *a += number + row as f32);
                        b.iter_mut().for_each(|b| *b += 1.0);
                    }
                }
            })
            .unwrap();
            for (i, v) in out.iter().enumerate() {
                let row = i / 7;
                let whole = !matches!(row, 3 | 4 | 5 | 9);
                assert_eq!(*v, if whole { (i + 1) as f32 } else { 0.0 });
            }
            let [a, b, _] = &parts;
            for (index, first, rows) in [(1, 4, 2), (3, 9, 1)] {
                for block in 0..4 {
                    for part in 0..tiles[index].parts {
                        for row in 0..rows {
                            let number = (first * 1000 + block * 100 + part * 10 + row) as f32;
                            assert_eq!(a[tiles[index].part_row(block, part) + row], number);
                        }
                    }
                }
            }
            // 4 blocks of 2 rows in 3 parts and of 1 row in 5.
            assert_eq!(b.iter().sum::<f32>(), 2.0 * 4.0 * 11.0);
            assert_eq!(a.iter().filter(|a| **a == 0.0).count(), 48 - 4 * 11);
        }
    }

    #[test]
    fn tiles_that_do_not_fit_are_errors() {
        let team = threads(2);
        let (mut out, mut parts) = (vec![0.0; 12], [vec![0.0; 8], vec![0.0; 8], vec![0.0; 8]]);
        for (n, columns, tiles) in [
            (5, 1, vec![(0..1, 0)]),
            (0, 1, vec![]),
            (4, 0, vec![(0..1, 0)]),
            (4, 4, vec![(0..2, 0), (1..3, 0)]),
            (4, 4, vec![(1..1, 0)]),
            (4, 4, vec![(2..4, 0)]),
            (4, 2, vec![(0..1, 5)]),
        ] {
            let [a, b, c] = &mut parts;
            let mut tiled = Tiled {
                out: &mut out,
                n,
                columns,
                parts: [(a, 1), (b, 1), (c, 1)],
            };
            let mut tiles: Vec<_> = tiles
                .into_iter()
                .map(|(rows, parts)| RowTile::new(rows, parts))
                .collect();
            assert!(team.tiles(&mut tiled, &mut tiles, |_, _, _, _| ()).is_err());
        }
    }
}
