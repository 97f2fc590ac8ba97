//! Steps of 32 (NVFP4: 16) weights with a float scale each, by whole tiles: a tile is as deep as a step.
//!
//! The sums of 16 tokens with a panel's rows stay in vector registers while the steps of a fill go by. The sums of a step are written
//! while the product of the next one is made, and become floats one step later still.

use std::marker::PhantomData;

use super::{Arithmetic, Sixteen, TILE_ROWS, Tile, Tiles, Waiting, Weights};
use crate::kernels::QuantizedBlock;
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{TileIsa, unrolled};
use crate::kernels::panel::Blocks;
use crate::kernels::panel::steps_32::{Layout, Steps32};

/// The arithmetic of a layout.
pub(in crate::kernels) struct ByTiles<L>(PhantomData<L>);

/// Bytes from one token's activations to the next one's.
const STRIDE: usize = size_of::<QuantizedBlock>();

impl<L: Layout> Arithmetic for ByTiles<L> {
    const DEPTH: usize = L::STEP;

    #[inline(always)]
    fn unpack<I: TileIsa>(isa: I, blocks: Blocks<'_>, n: usize, weights: &mut Weights) {
        let quads = Steps32::<L>::BLOCK / 4;
        for part in 0..16 / I::LANES {
            let (bytes, rows) = (part * 4 * I::LANES, part * I::LANES);
            for i in 0..n {
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
        _: &[QuantizedBlock; TILE_ROWS],
        before: Option<Sixteen<'_>>,
    ) {
        // What is in flight at the end of a tile is little: nothing is carried over.
        if let Some(before) = before {
            Self::last_rows(isa, tiles, weights, n, waiting, before, 0);
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
        let steps = n * (Steps32::<L>::BLOCK / L::STEP);
        for p in 0..2 {
            let [first, _] = &mut waiting.0;
            let waiting = [&mut first.high, &mut first.low];
            products::<I, T, L>(isa, tiles, &weights[p], steps, waiting, &mut last, (p, skip));
        }
    }
}

/// The products of 16 tokens with a panel's rows, `steps` steps, added to the sums.
#[inline(always)]
fn products<I: TileIsa, T: Tiles, L: Layout>(
    isa: I,
    tiles: &mut T,
    weights: &Weights,
    steps: usize,
    [even, odd]: [&mut Tile; 2],
    tokens: &mut Sixteen<'_>,
    (panel, skip): (usize, usize),
) {
    let bytes: &[u8] = bytemuck::cast_slice(tokens.x);
    let mut sums = [[I::F::splat(0.0); 4]; TILE_ROWS];
    unrolled!(part in 16 / I::LANES, at most 4 => {
        for t in 0..TILE_ROWS {
            sums[t][part] = isa.load_f(&tokens.sums[t][panel % 2 * 16 + part * I::LANES..]);
        }
    });
    // Twice as many as are written out, for steps of 16.
    for half in 0..(256 / L::STEP).div_ceil(8) {
        unrolled!(s in 8, at most 8 => {
            let step = 8 * half + s;
            if step < steps {
                tiles.load_weights::<6>(weights.high[step * (L::STEP / 4)..][..L::STEP / 4].as_flattened());
                tiles.load_tokens::<STRIDE>(&bytes[step * L::STEP..]);
                if s % 2 == 0 {
                    tiles.zero::<0>();
                    tiles.dot_signed::<0, 6>();
                } else {
                    tiles.zero::<1>();
                    tiles.dot_signed::<1, 6>();
                }
                if step > 0 {
                    if s % 2 == 0 {
                        tiles.store::<1>(odd);
                        float_steps::<I, L>(isa, weights, step - 1, odd, tokens.x, &mut sums);
                    } else {
                        tiles.store::<0>(even);
                        float_steps::<I, L>(isa, weights, step - 1, even, tokens.x, &mut sums);
                    }
                }
            }
        });
    }
    if steps % 2 == 1 {
        tiles.store::<0>(even);
        float_steps::<I, L>(isa, weights, steps - 1, even, tokens.x, &mut sums);
    } else {
        tiles.store::<1>(odd);
        float_steps::<I, L>(isa, weights, steps - 1, odd, tokens.x, &mut sums);
    }
    unrolled!(part in 16 / I::LANES, at most 4 => {
        for t in 0..TILE_ROWS {
            if t >= skip {
                isa.store_f(sums[t][part], &mut tokens.sums[t][panel % 2 * 16 + part * I::LANES..]);
            }
        }
    });
}

/// The float steps of 16 tokens with a panel's rows.
#[inline(always)]
fn float_steps<I: TileIsa, L: Layout>(
    isa: I,
    weights: &Weights,
    step: usize,
    products: &Tile,
    x: &[QuantizedBlock; TILE_ROWS],
    sums: &mut [[I::F; 4]; TILE_ROWS],
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
