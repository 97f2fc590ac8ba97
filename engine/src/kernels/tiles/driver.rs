//! The loops of products by whole tiles, as those of [`panel`](crate::kernels::panel)'s register tiles: 256 weights of two panels are
//! unpacked once, and all tokens are multiplied with them, 16 at a time.
//!
//! ```text
//!   for tokens by 512
//!     for up to four pairs of panels       as many sums as stay in the second-level cache
//!       for k by 256                       the activations of a fill come from there for all pairs but the first
//!         for pairs of panels              unpack
//!           for tokens by 16               tiles
//! ```
//!
//! A tile unit is so fast that the activations count: those of 512 tokens are more than a core's caches hold, and read once for each
//! pair of panels they took half of the time.
//!
//! Where the tokens are no multiple of 16 the last tile begins 16 before the end, and adds to the sums of those alone that the tile
//! before it has not.

use std::ops::Range;

use super::{Arithmetic, Sixteen, TILE_ROWS, TileUnit, Tiles, Waiting, Weights};
use crate::kernels::QuantizedBlock;
use crate::kernels::isa::{Isa, Op, TileIsa};
use crate::kernels::panel::fill::{Buffer, Inputs, ShardPanels};
use crate::kernels::panel::token_tiles::{Coming, InRegisters, ManyTokens, Product, Sums, TOKENS};
use crate::kernels::panel::{Drivers, Format, ROWS};

/// Tokens of which a few sums are cleared at a time.
const FEW: usize = 64;

/// Rows of a pair of panels.
const PAIR: usize = 2 * ROWS;

/// Pairs of panels that take a fill of activations one after the other.
const PAIRS: usize = 4;

/// Products by a unit's tiles, of 16 tokens and more: fewer do not fill a tile, and take the register tiles.
impl<I: Drivers + TileIsa, U: TileUnit> ManyTokens<I> for U {
    const NAME: Option<&'static str> = Some(U::NAME);

    #[inline(always)]
    fn multiply<F: Format>(self, isa: I, mut product: Product<'_, '_, '_, F>) {
        if <F::ByTiles as Arithmetic>::DEPTH == 0 {
            return InRegisters.multiply(isa, product);
        }
        let all = product.tokens.clone();
        let pairs = product.rows.len().div_ceil(PAIR);
        for first in all.clone().step_by(TOKENS) {
            let part = product.some(first..all.end.min(first + TOKENS));
            match (part.tokens.len(), pairs) {
                (0..TILE_ROWS, _) => InRegisters.multiply(isa, part),
                (TILE_ROWS..=FEW, _) => {
                    in_tiles(self, isa, part, &mut [const { Sums::<FEW>::new() }; PAIRS]);
                }
                // Little work: sums that are cleared and not used would be felt.
                (_, 1) => in_tiles(self, isa, part, &mut [Sums::<TOKENS>::new()]),
                _ => in_tiles(self, isa, part, &mut [const { Sums::<TOKENS>::new() }; PAIRS]),
            }
        }
    }
}

/// A product of at most N tokens, by tiles as deep as the format wants them.
fn in_tiles<I: TileIsa, U: TileUnit, F: Format, const N: usize>(
    unit: U,
    isa: I,
    product: Product<'_, '_, '_, F>,
    sums: &mut [Sums<N>],
) {
    match <F::ByTiles as Arithmetic>::DEPTH {
        64 => isa.run(InTiles(unit.tiles::<64>(), product, sums)),
        32 => isa.run(InTiles(unit.tiles::<32>(), product, sums)),
        _ => isa.run(InTiles(unit.tiles::<16>(), product, sums)),
    }
}

/// Rows of a weight times some tokens, by tiles.
struct InTiles<'a, 'b, 'c, 'd, T, F, const N: usize>(T, Product<'a, 'b, 'c, F>, &'d mut [Sums<N>]);

impl<I: TileIsa, T: Tiles, F: Format, const N: usize> Op<I> for InTiles<'_, '_, '_, '_, T, F, N> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let InTiles(mut tiles, mut product, sums) = self;
        let m = product.tokens.len();
        let shard = ShardPanels::<F>::new(product.weight);
        let inputs = Inputs::<F>::new(product.x);
        let mut buffer = Buffer::new();
        let mut weights = [const { Weights::new() }; 2];
        let mut waiting = Waiting::new();
        let end = product.rows.end.div_ceil(ROWS);
        let token_tiles = m.div_ceil(TILE_ROWS);
        let tile = |i: usize| {
            let start = (i * TILE_ROWS).min(m - TILE_ROWS);
            start..start + TILE_ROWS
        };
        let mut coming = Coming::behind_fill::<F>(product.weight, token_tiles);
        for group in (product.rows.start / ROWS..end).step_by(2 * sums.len()) {
            let pairs = (group..end.min(group + 2 * sums.len())).step_by(2);
            for sums in sums.iter_mut().take(pairs.len()) {
                sums.0[..m].as_flattened_mut().fill(0.0);
            }
            for i in 0..shard.fills() {
                let x = &inputs.fill(i).blocks()[product.tokens.clone()];
                let next_x = match i + 1 < shard.fills() {
                    true => &inputs.fill(i + 1).blocks()[product.tokens.clone()],
                    false => &[],
                };
                let last_fill = i + 1 == shard.fills();
                for (number, first) in pairs.clone().enumerate() {
                    let Some(sums) = sums.get_mut(number).and_then(|sums| sums.0.get_mut(..m)) else {
                        return;
                    };
                    coming.at_fill::<F>(first, i);
                    let mut n = 0;
                    for (panel, weights) in (first..).zip(&mut weights) {
                        // Of an odd number of panels the last one takes both places.
                        let panel = shard.panel(panel.min(end - 1));
                        let (fill, blocks) = shard.fill(isa, &panel, i, &mut buffer);
                        F::ByTiles::unpack(isa, fill, blocks, weights);
                        n = blocks;
                    }
                    let panels = first..end.min(first + 2);
                    let share = next_x.len().div_ceil(token_tiles * pairs.len());
                    for t in 0..token_tiles {
                        coming.share_of_pair(isa);
                        prefetch_blocks(isa, next_x, (number * token_tiles + t) * share, share);
                        if last_fill {
                            product.prefetch_outputs(isa, panels.clone(), tile(t));
                        }
                        let Some(now) = sixteen(x, tile(t)) else {
                            return;
                        };
                        let before = t.checked_sub(1).and_then(|t| Sixteen::at(x, sums, tile(t)));
                        F::ByTiles::token_tile(isa, &mut tiles, &weights, n, &mut waiting, now, before);
                        if last_fill && t > 0 {
                            product.show(panels.clone(), tile(t - 1), PAIR, sums.as_flattened());
                        }
                    }
                    let last = tile(token_tiles - 1);
                    let skip = (token_tiles - 1) * TILE_ROWS - last.start;
                    if let Some(tokens) = Sixteen::at(x, sums, last.clone()) {
                        F::ByTiles::last_rows(isa, &mut tiles, &weights, n, &mut waiting, tokens, skip);
                    }
                    if last_fill {
                        product.show(panels, last.start + skip..m, PAIR, sums.as_flattened());
                    }
                }
            }
        }
    }
}

/// Brings some activations of the next fill to the second-level cache.
#[inline(always)]
fn prefetch_blocks<I: Isa>(isa: I, x: &[QuantizedBlock], first: usize, n: usize) {
    let Some(x) = x.get(first..x.len().min(first + n)) else {
        return;
    };
    for block in x {
        let bytes = bytemuck::bytes_of(block);
        for line in (0..size_of::<QuantizedBlock>()).step_by(64) {
            isa.prefetch_l2(bytes, line);
        }
    }
}

/// Some 16 tokens.
#[inline(always)]
fn sixteen(x: &[QuantizedBlock], tokens: Range<usize>) -> Option<&[QuantizedBlock; TILE_ROWS]> {
    x.get(tokens.start..)?.first_chunk()
}

impl<'a> Sixteen<'a> {
    /// Some 16 tokens of all activations and sums.
    #[inline(always)]
    fn at(x: &'a [QuantizedBlock], sums: &'a mut [[f32; PAIR]], tokens: Range<usize>) -> Option<Self> {
        Some(Sixteen {
            x: sixteen(x, tokens.clone())?,
            sums: sums.get_mut(tokens.start..)?.first_chunk_mut()?,
        })
    }
}
