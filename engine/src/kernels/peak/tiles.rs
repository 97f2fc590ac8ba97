//! [`Work::TileDot`] on a unit that multiplies whole tiles; all other work on the instruction set beside it.

use super::{Done, Exercise, Work};
use crate::kernels::tiles::{TILE_ROWS, TileSums, TileUnit, Tiles};

/// The peak rates of an instruction set and a unit.
#[derive(Debug)]
struct WithUnit<U>(&'static dyn Exercise, U);

/// Work for a unit, and for `others`. Only detection makes `unit`.
pub(in crate::kernels) fn exercise<U: TileUnit>(
    others: &'static dyn Exercise,
    unit: U,
) -> &'static dyn Exercise {
    Box::leak(Box::new(WithUnit(others, unit)))
}

impl<U: TileUnit> Exercise for WithUnit<U> {
    fn exercise(&self, work: &Work<'_>) -> Done {
        match *work {
            Work::TileDot { rounds } => dots(self.1, rounds),
            _ => self.0.exercise(work),
        }
    }
}

/// Products of tiles in registers, four sums in turn: so no product waits for the one before it.
fn dots<U: TileUnit>(unit: U, rounds: usize) -> Done {
    const DEPTH: usize = 64;
    let mut tiles = unit.tiles::<DEPTH>();
    tiles.load_tokens::<DEPTH>(&[3; TILE_ROWS * DEPTH]);
    tiles.load_weights::<6>(&[5; DEPTH / 4 * 64]);
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for _ in 0..rounds {
        tiles.dot_signed::<0, 6>();
        tiles.dot_signed::<1, 6>();
        tiles.dot_signed::<2, 6>();
        tiles.dot_signed::<3, 6>();
    }
    let mut sums = [const { TileSums::ZERO }; 4];
    let [a, b, c, d] = &mut sums;
    tiles.store::<0>(a);
    tiles.store::<1>(b);
    tiles.store::<2>(c);
    tiles.store::<3>(d);
    let words = sums
        .iter()
        .flat_map(|tile| tile.0.as_flattened().as_chunks::<4>().0);
    let checksum = words.fold(0u32, |sum, word| sum.wrapping_add(u32::from_le_bytes(*word)));
    Done {
        operations: (rounds * 4 * TILE_ROWS * TILE_ROWS * DEPTH) as u64,
        checksum: checksum.into(),
    }
}
