//! A tile unit in plain Rust: the shapes and layouts of AMX, so that everything around a unit is tested on any machine.

use super::{ROW_BYTES, TILE_ROWS, TileSums, TileUnit, Tiles};

/// The unit.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Plain;

impl TileUnit for Plain {
    const NAME: &'static str = "plain-tiles";

    type Tiles<const K: usize> = PlainTiles<K>;

    fn tiles<const K: usize>(self) -> PlainTiles<K> {
        PlainTiles([const { TileSums::ZERO }; 8])
    }
}

/// Its tiles. Of what a depth of K leaves unused nothing is read.
#[derive(Debug)]
pub(in crate::kernels) struct PlainTiles<const K: usize>([TileSums; 8]);

impl<const K: usize> PlainTiles<K> {
    /// Adds `product(token's four bytes, row's four bytes)` for every quad to the 32 bits of each token and row.
    #[inline(always)]
    fn dot<const C: usize, const B: usize>(&mut self, add: impl Fn([u8; 4], [u8; 4], [u8; 4]) -> [u8; 4]) {
        let (x, w) = (self.0[4].clone(), self.0[B].clone());
        for (x, sums) in x.0.iter().zip(&mut self.0[C].0) {
            for (quad, x) in x[..K].as_chunks::<4>().0.iter().enumerate() {
                let w = w.0[quad].as_chunks::<4>().0;
                for (sum, w) in sums.as_chunks_mut::<4>().0.iter_mut().zip(w) {
                    *sum = add(*sum, *x, *w);
                }
            }
        }
    }
}

/// The sum plus the products of four bytes.
fn add_bytes(sum: [u8; 4], x: [u8; 4], w: [i32; 4]) -> [u8; 4] {
    let mut sum = i32::from_le_bytes(sum);
    for (x, w) in x.iter().zip(w) {
        sum = sum.wrapping_add(i32::from(*x as i8) * w);
    }
    sum.to_le_bytes()
}

impl<const K: usize> Tiles for PlainTiles<K> {
    fn zero<const C: usize>(&mut self) {
        self.0[C] = TileSums::ZERO;
    }

    fn load_tokens<const STRIDE: usize>(&mut self, x: &[u8]) {
        for (i, row) in self.0[4].0.iter_mut().enumerate() {
            row[..K].copy_from_slice(&x[i * STRIDE..][..K]);
        }
    }

    fn load_weights<const B: usize>(&mut self, w: &[u8]) {
        let rows = w[..K / 4 * ROW_BYTES].as_chunks::<ROW_BYTES>().0;
        self.0[B].0[..K / 4].copy_from_slice(rows);
    }

    fn store<const C: usize>(&mut self, out: &mut TileSums) {
        const { assert!(TILE_ROWS == 16) };
        *out = self.0[C].clone();
    }

    fn dot_signed<const C: usize, const B: usize>(&mut self) {
        self.dot::<C, B>(|sum, x, w| add_bytes(sum, x, w.map(|w| i32::from(w as i8))));
    }

    fn dot_unsigned<const C: usize, const B: usize>(&mut self) {
        self.dot::<C, B>(|sum, x, w| add_bytes(sum, x, w.map(i32::from)));
    }
}
