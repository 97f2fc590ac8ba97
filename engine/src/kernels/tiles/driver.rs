//! The loops of products by whole tiles, as those of [`panel`](crate::kernels::panel)'s register tiles: 256 weights of
//! two panels are unpacked once, and all tokens are multiplied with them, 16 at a time.
//!
//! ```text
//!   for tokens by 512
//!     for pairs of panels                  one where all activations stay in the second-level cache; else eight
//!       for k by 256                       take the activations of a fill from there
//!         for pairs of panels              unpack
//!           for tokens by 16               tiles; before them prefetches of what is needed later: weights and
//!                                          activations of the next fill, outputs
//! ```
//!
//! 16 tokens times a pair of panels take a unit some 150 ns, about what one line from the last cache or from memory
//! takes: so everything that is not in the second-level cache is asked for in small shares, long before.
//!
//! Where the tokens are no multiple of 16 the last tile begins 16 before the end, and adds to the sums of those alone
//! that the tile before it has not.

use std::ops::Range;

use super::{Arithmetic, Sixteen, TILE_ROWS, TileUnit, Tiles, Waiting, Weights};
use crate::kernels::QuantizedBlock;
use crate::kernels::isa::{Isa, Op, TileIsa};
use crate::kernels::panel::fill::{Buffer, Inputs, ShardPanels};
use crate::kernels::panel::token_tiles::{Coming, InRegisters, ManyTokens, Product, SHARES, Sums};
use crate::kernels::panel::{Drivers, Format, ROWS, block_bytes};

/// Tokens whose sums are kept at a time.
const TOKENS: usize = 512;

/// The same where there are no more: to clear space for [`TOKENS`] would be felt.
const FEW_TOKENS: usize = 64;

/// Tokens for which half the space is cleared, where sums of [`PAIRS`] are kept.
const HALF: usize = TOKENS / 2;

/// Rows of a pair of panels.
const PAIR: usize = 2 * ROWS;

/// Pairs of panels whose sums are kept at a time, of as many tokens.
const PAIRS: usize = 8;

/// Bytes of activations that stay in the second-level cache beside sums, outputs and weights.
const CACHED: usize = 1 << 20;

impl<'a> Coming<'a> {
    /// Prefetches the next shares of two panels to the second-level cache.
    #[inline(always)]
    pub(super) fn shares_of_pair<I: Isa>(&mut self, isa: I, shares: usize) {
        self.add_due(shares);
        while let Some(at) = self.line() {
            isa.prefetch_l2(self.weights, at);
            isa.prefetch_l2(self.weights, at + self.panel_bytes);
        }
    }
}

/// Products by a unit's tiles, of 16 tokens and more: fewer do not fill a tile, and take the register tiles.
impl<I: Drivers + TileIsa, U: TileUnit> ManyTokens<I> for U {
    const NAME: Option<&'static str> = Some(U::NAME);

    #[inline(always)]
    fn multiply<F: Format>(self, isa: I, mut product: Product<'_, '_, '_, F>) {
        if <F::ByTiles as Arithmetic>::DEPTH == 0 {
            return InRegisters.multiply(isa, product);
        }
        let all = product.tokens.clone();
        let one_pair = product.rows.len() <= PAIR || stays(&product, all.len().min(TOKENS));
        for first in all.clone().step_by(TOKENS) {
            let part = product.some(first..all.end.min(first + TOKENS));
            match part.tokens.len() {
                0..TILE_ROWS => InRegisters.multiply(isa, part),
                TILE_ROWS..=FEW_TOKENS => in_tiles(self, isa, part, &mut Sums::<FEW_TOKENS>::new().0),
                _ if one_pair => in_tiles(self, isa, part, &mut Sums::<TOKENS>::new().0),
                few if few <= HALF => in_tiles(self, isa, part, &mut Sums::<{ HALF * PAIRS }>::new().0),
                _ => in_tiles(self, isa, part, &mut Sums::<{ TOKENS * PAIRS }>::new().0),
            }
        }
    }
}

/// A product by tiles as deep as the format wants them, with space for the sums of a pair of panels at least.
fn in_tiles<I: TileIsa, U: TileUnit, F: Format>(
    unit: U,
    isa: I,
    product: Product<'_, '_, '_, F>,
    sums: &mut [[f32; PAIR]],
) {
    match <F::ByTiles as Arithmetic>::DEPTH {
        64 => isa.run(InTiles(unit.tiles::<64>(), product, sums)),
        32 => isa.run(InTiles(unit.tiles::<32>(), product, sums)),
        _ => isa.run(InTiles(unit.tiles::<16>(), product, sums)),
    }
}

/// Rows of a weight times some tokens, by tiles.
struct InTiles<'a, 'b, 'c, 'd, T, F>(T, Product<'a, 'b, 'c, F>, &'d mut [[f32; PAIR]]);

impl<I: TileIsa, T: Tiles, F: Format> Op<I> for InTiles<'_, '_, '_, '_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let InTiles(mut tiles, mut product, all_sums) = self;
        let m = product.tokens.len();
        let shard = ShardPanels::<F>::new(product.weight);
        let inputs = Inputs::<F>::new(product.x);
        let mut buffer = Buffer::new();
        let mut weights = [const { Weights::new() }; 2];
        let mut waiting = Waiting::new();
        let end = product.rows.end.div_ceil(ROWS);
        let fills = shard.fills();
        let tokens = product.tokens.clone();
        let x_of = |i: usize| &inputs.fill(i).quantized[tokens.clone()];
        let x_stays = stays(&product, m);
        let token_tiles = m.div_ceil(TILE_ROWS);
        let tile = |i: usize| {
            let start = (i * TILE_ROWS).min(m - TILE_ROWS);
            start..start + TILE_ROWS
        };
        let first_panel = product.rows.start / ROWS;
        let high = match x_stays {
            true => 2,
            false => 2 * (all_sums.len() / m),
        };
        let shares = SHARES * (2 * (ROWS / I::LANES) + token_tiles);
        let mut coming = match high {
            2 => Coming::new::<F>(product.weight, high, shares),
            // Other panels come before the next fill of each.
            _ => Coming::at_distance::<F>(product.weight, high, F::FILL * block_bytes::<F>(), shares),
        };
        for group in (first_panel..end).step_by(high) {
            let pairs = (group..end.min(group + high)).step_by(2);
            if group > first_panel {
                all_sums[..m * pairs.len()].as_flattened_mut().fill(0.0);
            }
            for i in 0..fills {
                let x = x_of(i);
                let next_x = match i + 1 < fills && !x_stays {
                    true => x_of(i + 1),
                    false => &[],
                };
                let share = next_x.len().div_ceil(token_tiles * pairs.len());
                let last_fill = i + 1 == fills;
                for (number, first) in pairs.clone().enumerate() {
                    let sums = &mut all_sums[number * m..(number + 1) * m];
                    let panels = first..end.min(first + 2);
                    coming.at_fill::<F>(first, i);
                    let mut n = 0;
                    for (panel, weights) in (first..).zip(&mut weights) {
                        // Of an odd number of panels the last one takes both places.
                        let panel = shard.panel(panel.min(end - 1));
                        let (fill, blocks) = shard.fill(isa, &panel, i, &mut buffer);
                        F::ByTiles::unpack(isa, fill, blocks, weights, &mut coming);
                        n = blocks;
                    }
                    for t in 0..token_tiles {
                        coming.shares_of_pair(isa, SHARES);
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

/// Whether the activations of some tokens stay in the second-level cache.
fn stays<F>(product: &Product<'_, '_, '_, F>, tokens: usize) -> bool {
    let blocks = product.weight.k.div_ceil(QuantizedBlock::LEN);
    tokens * blocks * size_of::<QuantizedBlock>() <= CACHED
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
