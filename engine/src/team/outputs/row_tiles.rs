//! Tiles of some rows of an output, whole or in parts that are joined afterwards: the shape of attention.

use std::marker::PhantomData;
use std::ops::Range;

use super::tile::{Raw, Tile};
use crate::team::Team;
use crate::team::domains::Cut;
use crate::team::heads::InSections;
use crate::{Error, Result};

impl Team {
    /// Hands out tiles of some rows of an output, each cut across into cells of some columns, and each cell whole or in
    /// parts: `f(worker, tile, block of columns, piece)`, with the worker's index below [`Team::workers`]. Each piece
    /// is much work: they are handed out one by one, block by block of columns, in each the last tiles first: in causal
    /// attention they take longest. On several nodes they go to those that [`Tiled::by_node`] says.
    ///
    /// # Errors
    /// As [`Team::rows`]; also if tiles overlap or are not in order, there is no room for their parts, or the blocks
    /// are not as many for each head.
    pub fn tiles(
        &self,
        out: &mut Tiled<'_>,
        tiles: &mut [RowTile],
        f: impl Fn(usize, &RowTile, usize, Piece<'_>) + Sync,
    ) -> Result<()> {
        let (n, columns) = (out.n, out.columns);
        let invalid = |what: String| Err(Error::Internal { what });
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
            units += tile.units();
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
        let by_node = match &mut out.by_node {
            Some(by) if self.nodes() > 1 && units * across > 1 => {
                if by.heads == 0 || !across.is_multiple_of(by.heads) {
                    return invalid(format!(
                        "{across} blocks of columns are not as many for each of {} heads",
                        by.heads
                    ));
                }
                let (heads, blocks) = (self.head_shares(by.heads), across / by.heads);
                let items = match heads.whole_heads() {
                    true => InSections::alike(units, blocks),
                    false => {
                        let section = by.section;
                        let of = tiles
                            .iter()
                            .flat_map(|tile| (0..tile.units()).map(move |part| section(tile, part)));
                        InSections::sorted(of, heads.sections(), by.order, blocks)
                    }
                };
                Some((items.shares(&heads), items))
            }
            _ => None,
        };
        let run = |worker, range: Range<usize>| {
            let (base, bases) = (&base, &bases);
            for item in range {
                let (block, unit) = match &by_node {
                    None => (item / units, units - 1 - item % units),
                    Some((_, items)) => items.at(item),
                };
                let tile = &tiles[tiles.partition_point(|tile| tile.unit <= unit) - 1];
                let piece = if tile.parts == 0 {
                    let column = block * columns;
                    Piece::Cell(Tile {
                        // SAFETY: the rows are inside `out` (checked above). Tiles have no rows in common, blocks no
                        // columns, and each pair of them is handed out once.
                        base: unsafe { base.0.add(tile.rows.start * n) },
                        stride: n,
                        rows: tile.rows.len(),
                        columns: column..n.min(column + columns),
                        borrow: PhantomData,
                    })
                } else {
                    let (part, rows) = (unit - tile.unit, tile.rows.len());
                    let first = tile.part_row(block, part);
                    // SAFETY: `part_row` counts parts without a gap over tiles, blocks and parts of a cell, each of
                    // them `rows` rows, and the last one ends inside each buffer (checked above).
                    let [a, b, c] = bases.each_ref().map(|(base, width)| unsafe {
                        std::slice::from_raw_parts_mut(base.0.add(first * width), rows * width)
                    });
                    Piece::Part(part, a, b, c)
                };
                f(worker, tile, block, piece);
            }
        };
        match &by_node {
            None => self.hand_out(units * across, Cut::each(1), run),
            Some((shares, _)) => self.hand_out_shares(shares, Cut::each(1), run),
        }
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
    /// Which node's workers do a piece, on several nodes; `None` for any.
    pub by_node: Option<ByNode<'a>>,
}

/// Pieces that read what heads keep, by the nodes whose memory that is: see `heads`.
pub struct ByNode<'a> {
    /// How many heads; as many blocks of columns belong to each.
    pub heads: usize,
    /// The section of its head's memory, of as many as the team has nodes, that goes with a tile or a part of it.
    pub section: &'a dyn Fn(&RowTile, usize) -> usize,
    /// Memory for the order of pieces: two numbers for each tile or part.
    pub order: &'a mut Vec<u32>,
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

    /// Pieces of one of its cells.
    fn units(&self) -> usize {
        self.parts.max(1)
    }

    /// The first row in the buffers of parts of a part of its cell in a block of columns; [`Team::tiles`] has given
    /// them out. The parts of a cell lie one after the other.
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

#[cfg(test)]
mod tests {
    use super::{ByNode, Piece, RowTile, Tiled};
    use crate::team::tests::{teams, threads};
    use crate::team::{Place, Team};

    const TWO_NODES: [Place; 2] = [Place { node: 0, cache: 0 }, Place { node: 1, cache: 0 }];

    fn spawn(_: usize, work: Box<dyn FnOnce() + Send>) {
        std::thread::spawn(work);
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
                by_node: None,
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

    /// Pieces are done by the workers of the node that has the section they read, each once.
    #[test]
    fn pieces_go_to_the_node_of_their_section() {
        for team in teams() {
            let nodes = team.nodes();
            for (heads, blocks) in [(1, 1), (1, 4), (2, 1), (3, 1), (5, 1), (8, 1)] {
                let across = heads * blocks;
                let mut out = vec![0.0; 9 * across];
                let mut parts = [vec![0.0; 99 * 8], vec![0.0; 99 * 8], vec![0.0; 99 * 8]];
                let [a, b, c] = &mut parts;
                let section = |tile: &RowTile, part: usize| (tile.rows.start + 3 * part) % nodes;
                let mut order = Vec::new();
                let mut tiled = Tiled {
                    out: &mut out,
                    n: across,
                    columns: 1,
                    parts: [(a, 1), (b, 1), (c, 1)],
                    by_node: Some(ByNode {
                        heads,
                        section: &section,
                        order: &mut order,
                    }),
                };
                let mut tiles = [(0..3, 0), (3..4, 5), (4..6, 7), (6..7, 0), (8..9, 9)]
                    .map(|(rows, parts)| RowTile::new(rows, parts));
                let shares = team.head_shares(heads);
                team.tiles(&mut tiled, &mut tiles, |worker, tile, block, piece| {
                    let part = match piece {
                        Piece::Cell(mut cell) => {
                            (0..cell.rows()).for_each(|row| cell.row(row)[0] += 1.0);
                            0
                        }
                        Piece::Part(part, a, ..) => {
                            a.iter_mut().for_each(|a| *a += 1.0);
                            part
                        }
                    };
                    let node = shares.node_of(block / blocks, section(tile, part));
                    assert_eq!(team.node_of(worker), node);
                })
                .unwrap();
                let whole = out.iter().filter(|v| **v == 1.0).count();
                assert_eq!(
                    (whole, out.iter().sum::<f32>()),
                    (4 * across, (4 * across) as f32)
                );
                let all = (5 + 2 * 7 + 9) * across;
                assert!(parts[0][..all].iter().all(|v| *v == 1.0) && parts[0][all] == 0.0);
            }
        }
        let (team, mut out) = (Team::placed(&TWO_NODES, spawn), [0.0; 9]);
        for heads in [0, 2] {
            let mut order = Vec::new();
            let mut tiled = Tiled {
                out: &mut out,
                n: 9,
                columns: 3,
                parts: [(&mut [], 0), (&mut [], 0), (&mut [], 0)],
                by_node: Some(ByNode {
                    heads,
                    section: &|_, _| 0,
                    order: &mut order,
                }),
            };
            let tiles = &mut [RowTile::new(0..1, 0)];
            assert!(team.tiles(&mut tiled, tiles, |_, _, _, _| ()).is_err());
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
                by_node: None,
            };
            let mut tiles: Vec<_> = tiles
                .into_iter()
                .map(|(rows, parts)| RowTile::new(rows, parts))
                .collect();
            assert!(team.tiles(&mut tiled, &mut tiles, |_, _, _, _| ()).is_err());
        }
    }
}
