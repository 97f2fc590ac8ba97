//! Steps of 32 (NVFP4: 16) weights with a float scale each, by whole tiles: a tile is as deep as a step.
//!
//! The sums of 16 tokens with a panel's rows stay in vector registers while the steps of a fill go by. The products of a step become
//! floats when the same step of the next 16 tokens is multiplied: a load that wants what a tile has just written waits until that has
//! reached the cache, longer than a step takes (measured: 2.6 times the time).

use std::marker::PhantomData;

use super::{Arithmetic, Products, Sixteen, TILE_ROWS, Tile, Tiles, Waiting, Weights};
use crate::kernels::QuantizedBlock;
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{Isa, TileIsa, unrolled};
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
        now: &[QuantizedBlock; TILE_ROWS],
        before: Option<Sixteen<'_>>,
    ) {
        let steps = n * (Steps32::<L>::BLOCK / L::STEP);
        let [first, second] = &mut waiting.0;
        match before {
            Some(mut before) => {
                let floats = Some((&mut before, 0));
                products::<I, T, L, 0, 1, 2, 3>(isa, tiles, &weights[0], steps, now, (first, second), floats);
                let floats = Some((&mut before, 1));
                products::<I, T, L, 2, 3, 0, 1>(isa, tiles, &weights[1], steps, now, (second, first), floats);
            }
            None => {
                products::<I, T, L, 0, 1, 2, 3>(isa, tiles, &weights[0], steps, now, (first, second), None);
                products::<I, T, L, 2, 3, 0, 1>(isa, tiles, &weights[1], steps, now, (second, first), None);
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
        let steps = n * (Steps32::<L>::BLOCK / L::STEP);
        store_last::<T, 2, 3>(tiles, steps, &mut waiting.0[1]);
        for p in 0..2 {
            let mut sums = Sums::<I>::load(isa, &last, p);
            for (step, products) in waiting.0[p].0[..steps].iter().enumerate() {
                float_steps::<I, L>(isa, &weights[p], step, products, last.x, &mut sums);
            }
            sums.store(isa, &mut last, p, skip);
        }
    }
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

/// Writes the sums of the last step, from the one of the two tiles that has them.
#[inline(always)]
fn store_last<T: Tiles, const C0: usize, const C1: usize>(tiles: &mut T, steps: usize, out: &mut Products) {
    // The remainder changes nothing but tells the compiler that there is no such step.
    let out = &mut out.0[(steps - 1) % 16];
    if steps % 2 == 1 {
        tiles.store::<C0>(out);
    } else {
        tiles.store::<C1>(out);
    }
}

/// The products of 16 tokens with a panel, a step after the other in tiles C0 and C1 in turn. Those of step s are written to the first of
/// `waiting` when step s + 1 is multiplied; until then the sums of 16 tokens before stand there, of which the float steps are made
/// first. What is left in O0 or O1 of the other panel is written to the second.
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
    steps: usize,
    x: &[QuantizedBlock; TILE_ROWS],
    (own, other): (&mut Products, &mut Products),
    mut floats: Option<(&mut Sixteen<'_>, usize)>,
) {
    let bytes: &[u8] = bytemuck::cast_slice(x);
    let mut sums = floats
        .as_ref()
        .map(|(before, panel)| Sums::<I>::load(isa, before, *panel));
    // Twice as many steps as are written out, where they are of 16.
    for half in 0..(256 / L::STEP).div_ceil(8) {
        unrolled!(s in 8, at most 8 => {
            let step = 8 * half + s;
            if step < steps {
                tiles.load_weights::<6>(weights.high[step * (L::STEP / 4)..][..L::STEP / 4].as_flattened());
                tiles.load_tokens::<STRIDE>(&bytes[step * L::STEP..]);
                if s % 2 == 0 {
                    tiles.zero::<C0>();
                    tiles.dot_signed::<C0, 6>();
                } else {
                    tiles.zero::<C1>();
                    tiles.dot_signed::<C1, 6>();
                }
                if let (Some((before, _)), Some(sums)) = (&floats, &mut sums) {
                    float_steps::<I, L>(isa, weights, step, &own.0[step % 16], before.x, sums);
                }
                if step == 0 {
                    store_last::<T, O0, O1>(tiles, steps, other);
                } else if s % 2 == 0 {
                    tiles.store::<C1>(&mut own.0[(step - 1) % 16]);
                } else {
                    tiles.store::<C0>(&mut own.0[(step - 1) % 16]);
                }
            }
        });
    }
    if let (Some((before, panel)), Some(sums)) = (&mut floats, sums) {
        sums.store(isa, before, *panel, 0);
    }
}

/// The float steps of 16 tokens with a panel's rows.
#[inline(always)]
fn float_steps<I: TileIsa, L: Layout>(
    isa: I,
    weights: &Weights,
    step: usize,
    products: &Tile,
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
