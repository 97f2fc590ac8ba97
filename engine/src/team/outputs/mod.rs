//! An operation's outputs, split between the workers of a team: rows, columns, cells, each part given to one worker as
//! if it were its own. Here rows, cells and items; the columns of a list of products are in `products`, tiles of rows
//! in `row_tiles`.
//!
//! The unsafe idea is one: parts that do not overlap are made of one borrowed slice, and given up before the operation
//! returns. What they are made of is in `tile`.
#![allow(unsafe_code)]

mod products;
mod row_tiles;
mod tile;

pub use products::Columns;
pub use row_tiles::{ByNode, Piece, RowTile, Tiled};
pub use tile::Tile;

use std::marker::PhantomData;
use std::ops::Range;

use super::domains::Cut;
use super::{Shares, Team};
use crate::{Error, Result};
use tile::Raw;

impl Team {
    /// Splits `out`, rows of `row_len` elements, between the workers: `f(rows, part)` gets a range of row indices and
    /// exactly those rows.
    ///
    /// # Errors
    /// As [`Team::ranges`]; [`Error::Internal`] if `out` is not a whole number of rows.
    pub fn rows<T: Send>(
        &self,
        out: &mut [T],
        row_len: usize,
        grain: usize,
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        let n_rows = n_rows(out, row_len)?;
        // SAFETY: each row below that number is handed out once.
        let part = unsafe { parts(out, row_len, f) };
        self.ranges(n_rows, grain, part)
    }

    /// As [`Team::rows`], in pieces of at most `most` rows: the workers stay near one another.
    ///
    /// # Errors
    /// As [`Team::rows`].
    pub fn rows_in_order<T: Send>(
        &self,
        out: &mut [T],
        row_len: usize,
        most: usize,
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        let n_rows = n_rows(out, row_len)?;
        // SAFETY: each row below that number is handed out once.
        let part = unsafe { parts(out, row_len, f) };
        let cut = Cut::bounded(n_rows, most, self.n);
        self.hand_out(n_rows, cut, |_, rows| part(rows))
    }

    /// As [`Team::rows_in_order`], of an output on each node, the first node's first: `f(node, rows, part)`. The
    /// workers of a node split its output alone, for who writes to memory first places it. All nodes work at the same
    /// time.
    ///
    /// # Errors
    /// As [`Team::rows`]; [`Error::Internal`] if there are more outputs than nodes.
    pub fn rows_on_nodes<T: Send>(
        &self,
        outs: &mut [&mut [T]],
        row_len: usize,
        most: usize,
        f: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        if outs.len() > self.nodes() {
            return Err(Error::Internal {
                what: format!("outputs on {} nodes, of a team on {}", outs.len(), self.nodes()),
            });
        }
        // The rows of all outputs one after the other, and where in them each begins.
        let (mut starts, mut all) = (Vec::with_capacity(outs.len()), 0);
        for out in outs.iter() {
            starts.push(all);
            all += n_rows(out, row_len)?;
        }
        let f = &f;
        let mut part_of = Vec::with_capacity(outs.len());
        for (node, out) in outs.iter_mut().enumerate() {
            let f = move |rows: Range<usize>, part: &mut [T]| f(node, rows, part);
            // SAFETY: each row of all outputs is handed out once, and belongs to one of them.
            part_of.push(unsafe { parts(out, row_len, f) });
        }
        let shares = Shares::at(starts.iter().copied(), all);
        let cut = Cut::bounded(all, most, self.n);
        self.hand_out_shares(&shares, cut, |_, rows| {
            // A piece is of one node's share.
            let node = shares.node_of(rows.start);
            part_of[node](rows.start - starts[node]..rows.end - starts[node]);
        })
    }

    /// As [`Team::rows`], each node's share by its workers alone.
    pub(crate) fn rows_placed<T: Send>(
        &self,
        shares: &Shares,
        out: &mut [T],
        row_len: usize,
        grain: usize,
        f: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        let n_rows = n_rows(out, row_len)?;
        // SAFETY: each row below that number is handed out once.
        let part = unsafe { parts(out, row_len, f) };
        if self.nodes() == 1 {
            return self.ranges(n_rows, grain, part);
        }
        if !shares.cover(n_rows) {
            return Err(Error::Internal {
                what: format!("the nodes' shares are not those of {n_rows} rows: {shares:?}"),
            });
        }
        let cut = Cut::shrinking(n_rows, grain, self.n);
        self.hand_out_shares(shares, cut, |_, rows| part(rows))
    }

    /// Hands out items one by one: `f(index, item)`.
    ///
    /// # Errors
    /// As [`Team::ranges`].
    pub fn each<T: Send>(&self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) -> Result<()> {
        let base = Raw(items.as_mut_ptr());
        self.hand_out(items.len(), Cut::each(1), |_, range| {
            let base = &base;
            for item in range {
                // SAFETY: `item` is below the slice's length, and each item is handed out once, so nobody else has it
                // until the operation is over; until then the slice stays exclusively borrowed. T: Send lets another
                // thread have it.
                f(item, unsafe { &mut *base.0.add(item) });
            }
        })
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
            return Err(Error::Internal {
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
                    borrow: PhantomData,
                };
                f(worker, part, tile);
            }
        })
    }

    /// Splits independent items between the workers: item i owns columns `i * columns..` of a row-major matrix of rows
    /// of `n` (the last item may have fewer), all its rows, and the i-th of as many equal parts of `own`: what it keeps
    /// from one operation to the next. `f(item, tile, part)`; pieces are of `grain` items at least.
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
            return Err(Error::Internal {
                what: format!(
                    "{} and {} elements cannot be cut into items of {columns} columns of {n}",
                    out.len(),
                    own.len()
                ),
            });
        }
        let (m, part_len) = (out.len() / n, own.len() / items);
        let (base, own) = (Raw(out.as_mut_ptr()), Raw(own.as_mut_ptr()));
        let run = |range: Range<usize>| {
            let (base, own) = (&base, &own);
            for item in range {
                let tile = Tile {
                    base: base.0,
                    stride: n,
                    rows: m,
                    columns: item * columns..n.min((item + 1) * columns),
                    borrow: PhantomData,
                };
                // SAFETY: `own` has `items` parts of this length, and each item is handed out once, so no two of these
                // overlap; the same is true of the tiles' columns, which lie inside rows of n. Both slices stay
                // borrowed until the operation is over. S: Send lets another thread have them.
                let part = unsafe { std::slice::from_raw_parts_mut(own.0.add(item * part_len), part_len) };
                f(item, tile, part);
            }
        };
        // Whatever the grain, an item is the same node's, who has placed what it keeps.
        let cut = Cut::shrinking(items, grain, self.n);
        if self.nodes() == 1 || items <= cut.least() {
            return self.ranges(items, grain, run);
        }
        self.hand_out_shares(&self.shares(items, 1), cut, |_, range| run(range))
    }
}

/// The number of an output's rows.
fn n_rows<T>(out: &[T], row_len: usize) -> Result<usize> {
    if row_len == 0 || !out.len().is_multiple_of(row_len) {
        return Err(Error::Internal {
            what: format!(
                "an output of {} elements is not a whole number of rows of {row_len}",
                out.len()
            ),
        });
    }
    Ok(out.len() / row_len)
}

/// `f` on a range of an output's rows.
///
/// # Safety
/// Whoever calls what this gives, from several threads or one, hands out ranges of rows that the output has, of which
/// no two overlap.
unsafe fn parts<'a, T: Send>(
    out: &'a mut [T],
    row_len: usize,
    f: impl Fn(Range<usize>, &mut [T]) + Sync + 'a,
) -> impl Fn(Range<usize>) + Sync + 'a {
    let (base, len) = (Raw(out.as_mut_ptr()), out.len());
    move |rows| {
        let base = &base;
        debug_assert!(rows.end * row_len <= len);
        // SAFETY: the ranges lie inside the output and are disjoint, as the caller promises, so the parts do not
        // overlap; `out` stays exclusively borrowed as long as this closure lives. T: Send lets another thread have one.
        let part =
            unsafe { std::slice::from_raw_parts_mut(base.0.add(rows.start * row_len), rows.len() * row_len) };
        f(rows, part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shares;
    use super::super::tests::teams;
    use super::Columns;

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
    fn rows_in_order_are_computed_once_in_small_pieces() {
        for team in teams() {
            for (rows, most) in [(0, 1), (1, 0), (17, 1), (1000, 7), (1000, 5000)] {
                let mut out = vec![0u32; rows * 2];
                team.rows_in_order(&mut out, 2, most, |range, part| {
                    // A team of one takes all of it.
                    assert!(range.len() <= most.max(1) || team.workers() == 1);
                    part.iter_mut().for_each(|v| *v += 1);
                })
                .unwrap();
                assert!(out.iter().all(|v| *v == 1));
            }
            assert!(team.rows_in_order(&mut [0u8; 3], 2, 1, |_, _| ()).is_err());
        }
    }

    #[test]
    fn all_nodes_work_at_the_same_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::time::{Duration, Instant};
        for team in teams() {
            let mut outs = vec![[0u8; 1]; team.nodes()];
            let mut slices: Vec<&mut [u8]> = outs.iter_mut().map(|out| &mut out[..]).collect();
            let (inside, met) = (AtomicUsize::new(0), AtomicUsize::new(0));
            team.rows_on_nodes(&mut slices, 1, 1, |_, _, _| {
                inside.fetch_add(1, Ordering::SeqCst);
                // Nodes that took turns would each wait in vain for the others.
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(20) {
                    if inside.load(Ordering::SeqCst) == team.nodes() {
                        met.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    std::thread::yield_now();
                }
            })
            .unwrap();
            assert_eq!(met.into_inner(), team.nodes());
        }
    }

    #[test]
    fn every_item_is_somebodys_once() {
        for team in teams() {
            for n in [0, 1, 2, 100] {
                let mut items = vec![0usize; n];
                team.each(&mut items, |item, own| *own += item + 1).unwrap();
                assert!(items.iter().enumerate().all(|(i, item)| *item == i + 1));
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
            for rows in [0, 1, 2, 100] {
                for most in [1, 3, 1000] {
                    // Of each node another number, of some none.
                    let mut outs: Vec<Vec<usize>> = (0..team.nodes())
                        .map(|node| vec![0; 3 * (rows * node % 7 + rows)])
                        .collect();
                    let mut slices: Vec<&mut [usize]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                    team.rows_on_nodes(&mut slices, 3, most, |node, range, part| {
                        node_of_this(&threads, node);
                        assert!(range.len() <= most || team.workers() == 1);
                        assert_eq!(part.len(), 3 * range.len());
                        for (row, values) in range.zip(part.chunks_mut(3)) {
                            values.iter_mut().for_each(|v| *v += 100 * node + row + 1);
                        }
                    })
                    .unwrap();
                    for (node, out) in outs.iter().enumerate() {
                        let rows = out.chunks(3).enumerate();
                        rows.for_each(|(row, values)| assert_eq!(values, [100 * node + row + 1; 3]));
                    }
                }
            }
            // All rows, each node's share by its own.
            let mut out = vec![0u8; 300];
            let shares = team
                .head_shares(3)
                .of_items(|section| 100 * section / team.nodes());
            team.rows_placed(&shares, &mut out, 1, 1, |rows, part| {
                rows.for_each(|row| node_of_this(&threads, shares.node_of(row)));
                part.iter_mut().for_each(|v| *v += 1);
            })
            .unwrap();
            assert!(out.iter().all(|v| *v == 1));
            let short = Shares::only(0, 299);
            assert_eq!(
                team.rows_placed(&short, &mut out, 1, 1, |_, _| ()).is_err(),
                team.nodes() > 1
            );
            let mut one_too_many = vec![[0u8; 1]; team.nodes() + 1];
            let mut slices: Vec<&mut [u8]> = one_too_many.iter_mut().map(|out| &mut out[..]).collect();
            assert!(team.rows_on_nodes(&mut slices, 1, 1, |_, _, _| ()).is_err());
            // All columns of one product on the last node, those of another one anywhere, those of a third split
            // unevenly.
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
}
