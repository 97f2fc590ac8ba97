//! The columns of several outputs, of matrices whose weights' rows are divided between nodes and workers.

use std::marker::PhantomData;
use std::ops::Range;

use super::tile::{Raw, Tile};
use crate::team::domains::Cut;
use crate::team::{MAX_NODES, Shares, Team};
use crate::{Error, Result};

/// Pieces per worker of a list of products whose outputs have different numbers of rows.
const UNEVEN: usize = 16;

impl Team {
    /// Splits the columns of some outputs between the workers in one operation: the shape of matrix products whose
    /// weights' rows are divided. `f(by, node, tile, second)` gets the node of the worker, some columns of one of
    /// `outs`, the first a multiple of the largest grain, and the same columns of its second output where it has one.
    /// Columns that are placed on a node ([`Columns::placed`]) go to its workers.
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
            // Where weights were placed for a team on more nodes, their cut is of no use to this one: it makes its own.
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
            // They stand in the order of the list: those that end before the range are passed over, at the first one
            // behind it the piece is done. There may be hundreds.
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
}

/// Outputs whose columns [`Team::products`] hands out, and what makes them: a row-major matrix, and where what combines
/// two products needs no operation of its own, a second one of the same shape.
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
    borrow: PhantomData<&'a mut [f32]>,
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
            borrow: PhantomData,
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
            return Err(Error::Internal {
                what: format!(
                    "outputs of {} and {second} elements are not the same rows of {}",
                    self.len, self.n
                ),
            });
        }
        Ok(())
    }

    /// Some columns of `base`, which is one of the two outputs. What makes a `Tile` safe is promised by `products`: it
    /// has checked the lengths, and hands out no column twice.
    fn tile(&self, base: &Raw<f32>, columns: &Range<usize>) -> Tile<'_> {
        Tile {
            base: base.0,
            stride: self.n,
            rows: self.rows(),
            columns: columns.clone(),
            borrow: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;
    use crate::team::tests::{teams, threads};

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
}
