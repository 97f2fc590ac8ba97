//! Steps of 32 (NVFP4: 16) weights with a float scale each, by whole tiles: a tile is as deep as a step.
//!
//! The sums of 16 tokens with a panel's rows stay in vector registers while the steps of a fill go by. The products of
//! a step become floats when the same step of the next 16 tokens is multiplied: a load that wants what a tile has just
//! written waits until that has reached the cache, and a step alone is too short to wait in.

use std::marker::PhantomData;

use super::{Arithmetic, Products, STRIDE, Sixteen, TILE_ROWS, TileSums, Tiled, Tiles, Waiting, Weights};
use crate::kernels::QuantizedBlock;
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{Isa, TileIsa, unrolled};
use crate::kernels::panel::Blocks;
use crate::kernels::panel::steps_32::{Layout, Steps32};
use crate::kernels::panel::token_tiles::{Coming, SHARES};

/// The arithmetic of a layout.
pub(in crate::kernels) struct ByTiles<L>(PhantomData<L>);

impl<L: Layout> Tiled for Steps32<L> {
    type ByTiles = ByTiles<L>;
}

impl<L: Layout> Arithmetic for ByTiles<L> {
    const DEPTH: usize = L::STEP;

    #[inline(always)]
    fn unpack<I: TileIsa>(
        isa: I,
        blocks: Blocks<'_>,
        n: usize,
        weights: &mut Weights,
        coming: &mut Coming<'_>,
    ) {
        let quads = Steps32::<L>::BLOCK / 4;
        for part in 0..16 / I::LANES {
            let (bytes, rows) = (part * 4 * I::LANES, part * I::LANES);
            for i in 0..n {
                coming.shares_of_pair(isa, SHARES * Steps32::<L>::BLOCK / 256);
                let block = blocks.part::<I, Steps32<L>>(i, part);
                let out = &mut weights.high[i * quads..][..quads];
                unrolled!(q in quads, at most 16 => {
                    let mut quad = L::quad(isa, &block, q);
                    let offset = if L::SIGNED { I::BIAS as u8 } else { L::OFFSET as u8 };
                    if offset != 0 {
                        quad = isa.sub8(quad, isa.splat8(offset));
                    }
                    isa.store(quad, &mut out[q][bytes..]);
                });
                unrolled!(s in Steps32::<L>::BLOCK / L::STEP, at most 4 => {
                    let step = i * (Steps32::<L>::BLOCK / L::STEP) + s;
                    isa.store_f(L::d(isa, &block, s), &mut weights.d[step][rows..]);
                    if L::MIN {
                        isa.store_f(L::m(isa, &block), &mut weights.dmin[step][rows..]);
                    }
                });
            }
        }
    }

    #[inline(always)]
    fn token_tile<I: TileIsa, T: Tiles>(
        isa: I,
        tiles: &mut T,
        weights: &[Weights; 2],
        n: usize,
        waiting: &mut Waiting,
        now: &[QuantizedBlock; TILE_ROWS],
        before: Option<Sixteen<'_>>,
    ) {
        if Self::steps(n) < Self::STEPS {
            if let Some(mut before) = before {
                step_by_step::<I, T, L>(isa, tiles, weights, Self::steps(n), waiting, &mut before, 0);
            }
            return;
        }
        let [first, second] = &mut waiting.products;
        match before {
            Some(mut before) => {
                let floats = (&mut before, 0);
                products::<I, T, L, 0, 1, 2, 3>(isa, tiles, &weights[0], now, (first, second), floats);
                let floats = (&mut before, 1);
                products::<I, T, L, 2, 3, 0, 1>(isa, tiles, &weights[1], now, (second, first), floats);
            }
            None => {
                products_alone::<T, L, 0, 1, 2, 3>(tiles, &weights[0], now, (first, second));
                products_alone::<T, L, 2, 3, 0, 1>(tiles, &weights[1], now, (second, first));
            }
        }
    }

    #[inline(always)]
    fn last_rows<I: TileIsa, T: Tiles>(
        isa: I,
        tiles: &mut T,
        weights: &[Weights; 2],
        n: usize,
        waiting: &mut Waiting,
        mut last: Sixteen<'_>,
        skip: usize,
    ) {
        if Self::steps(n) < Self::STEPS {
            return step_by_step::<I, T, L>(isa, tiles, weights, Self::steps(n), waiting, &mut last, skip);
        }
        tiles.store::<3>(&mut waiting.products[1].0[Self::STEPS - 1]);
        for (p, weights) in weights.iter().enumerate() {
            let mut sums = Sums::<I>::load(isa, &last, p);
            for (step, products) in waiting.products[p].0[..Self::STEPS].iter().enumerate() {
                float_steps::<I, L>(isa, weights, step, products, last.x, &mut sums);
            }
            sums.store(isa, &mut last, p, skip);
        }
    }
}

impl<L: Layout> ByTiles<L> {
    /// Steps of a whole fill: an even number.
    const STEPS: usize = 256 / L::STEP;

    /// Those of `n` blocks.
    #[inline(always)]
    fn steps(n: usize) -> usize {
        n * (Steps32::<L>::BLOCK / L::STEP)
    }
}

/// The products of 16 tokens with what is less than a fill, at the end of rows: each step by itself.
#[inline(always)]
fn step_by_step<I: TileIsa, T: Tiles, L: Layout>(
    isa: I,
    tiles: &mut T,
    weights: &[Weights; 2],
    steps: usize,
    waiting: &mut Waiting,
    tokens: &mut Sixteen<'_>,
    skip: usize,
) {
    let bytes: &[u8] = bytemuck::cast_slice(tokens.x);
    let products = &mut waiting.products[0].0[0];
    for (p, weights) in weights.iter().enumerate() {
        let mut sums = Sums::<I>::load(isa, tokens, p);
        for step in 0..steps {
            multiply::<T, L, 0>(tiles, weights, bytes, step);
            tiles.store::<0>(products);
            float_steps::<I, L>(isa, weights, step, products, tokens.x, &mut sums);
        }
        sums.store(isa, tokens, p, skip);
    }
}

/// The products of one step, in tile C.
#[inline(always)]
fn multiply<T: Tiles, L: Layout, const C: usize>(tiles: &mut T, weights: &Weights, x: &[u8], step: usize) {
    tiles.load_weights::<6>(weights.high[step * (L::STEP / 4)..][..L::STEP / 4].as_flattened());
    tiles.load_tokens::<STRIDE>(&x[step * L::STEP..]);
    tiles.zero::<C>();
    tiles.dot_signed::<C, 6>();
}

/// The sums of 16 tokens with a panel's rows, in vectors.
struct Sums<I: Isa>([[I::F; 4]; TILE_ROWS]);

impl<I: Isa> Sums<I> {
    #[inline(always)]
    fn load(isa: I, tokens: &Sixteen<'_>, panel: usize) -> Self {
        let mut sums = [[I::F::splat(0.0); 4]; TILE_ROWS];
        unrolled!(part in 16 / I::LANES, at most 4 => {
            unrolled!(t in TILE_ROWS, at most 16 => {
                sums[t][part] = isa.load_f(&tokens.sums[t][panel % 2 * 16 + part * I::LANES..]);
            });
        });
        Sums(sums)
    }

    /// Writes those of all tokens but the first `skip`.
    #[inline(always)]
    fn store(self, isa: I, tokens: &mut Sixteen<'_>, panel: usize, skip: usize) {
        unrolled!(part in 16 / I::LANES, at most 4 => {
            unrolled!(t in TILE_ROWS, at most 16 => {
                if t >= skip {
                    isa.store_f(self.0[t][part], &mut tokens.sums[t][panel % 2 * 16 + part * I::LANES..]);
                }
            });
        });
    }
}

/// The products of 16 tokens with a whole fill of a panel, a step after the other in tiles C0 and C1 in turn. Those of
/// step s are written to the first of `waiting` when step s + 1 is multiplied; until then the sums of 16 tokens before
/// stand there, of which the float steps are made first. The last step of the other panel is left in O1, and written to
/// the second.
#[inline(always)]
fn products<
    I: TileIsa,
    T: Tiles,
    L: Layout,
    const C0: usize,
    const C1: usize,
    const O0: usize,
    const O1: usize,
>(
    isa: I,
    tiles: &mut T,
    weights: &Weights,
    x: &[QuantizedBlock; TILE_ROWS],
    (own, other): (&mut Products, &mut Products),
    (before, panel): (&mut Sixteen<'_>, usize),
) {
    let bytes: &[u8] = bytemuck::cast_slice(x);
    let steps = ByTiles::<L>::STEPS;
    let mut sums = Sums::<I>::load(isa, before, panel);
    unrolled!(step in steps, at most 16 => {
        if step.is_multiple_of(2) {
            multiply::<T, L, C0>(tiles, weights, bytes, step);
        } else {
            multiply::<T, L, C1>(tiles, weights, bytes, step);
        }
        float_steps::<I, L>(isa, weights, step, &own.0[step], before.x, &mut sums);
        if step == 0 {
            tiles.store::<O1>(&mut other.0[steps - 1]);
        } else if step.is_multiple_of(2) {
            tiles.store::<C1>(&mut own.0[step - 1]);
        } else {
            tiles.store::<C0>(&mut own.0[step - 1]);
        }
    });
    sums.store(isa, before, panel, 0);
}

/// [`products`] of the first 16 tokens, when there are none before.
#[inline(always)]
fn products_alone<T: Tiles, L: Layout, const C0: usize, const C1: usize, const O0: usize, const O1: usize>(
    tiles: &mut T,
    weights: &Weights,
    x: &[QuantizedBlock; TILE_ROWS],
    (own, other): (&mut Products, &mut Products),
) {
    let bytes: &[u8] = bytemuck::cast_slice(x);
    tiles.store::<O1>(&mut other.0[ByTiles::<L>::STEPS - 1]);
    for step in (0..ByTiles::<L>::STEPS).step_by(2) {
        multiply::<T, L, C0>(tiles, weights, bytes, step);
        tiles.store::<C0>(&mut own.0[step]);
        multiply::<T, L, C1>(tiles, weights, bytes, step + 1);
        if step + 2 < ByTiles::<L>::STEPS {
            tiles.store::<C1>(&mut own.0[step + 1]);
        }
    }
}

/// The float steps of 16 tokens with a panel's rows.
#[inline(always)]
fn float_steps<I: TileIsa, L: Layout>(
    isa: I,
    weights: &Weights,
    step: usize,
    products: &TileSums,
    x: &[QuantizedBlock; TILE_ROWS],
    Sums(sums): &mut Sums<I>,
) {
    // The remainder changes nothing but tells the compiler that no index below is out of range.
    let step = step % (256 / L::STEP);
    unrolled!(part in 16 / I::LANES, at most 4 => {
        let d = isa.load_f(&weights.d[step][part * I::LANES..]);
        let m = isa.load_f(&weights.dmin[step][part * I::LANES..]);
        unrolled!(t in TILE_ROWS, at most 16 => {
            let dx = I::F::splat(x[t].d[step]);
            let isum = isa.to_f(isa.load(&products.0[t][part * 4 * I::LANES..]));
            let product = if L::MIN {
                let msum = i32::from(x[t].sums[2 * step]) + i32::from(x[t].sums[2 * step + 1]);
                dx.mul(d.mul(isum).add(m.mul(I::F::splat(msum as f32))))
            } else {
                d.mul(dx).mul(isum)
            };
            sums[t][part] = sums[t][part].add(product);
        });
    });
}
