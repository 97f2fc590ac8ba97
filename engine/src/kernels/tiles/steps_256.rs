//! Blocks of 256 weights with integer scales by whole tiles.
//!
//! The integer of a weight, `s_g * q`, has up to 14 bits. Written with two digits, `high << shift | low`, each of them
//! a byte, the sum of a step is two sums over all its 256 weights: four tile products each, and nothing in between.
//!
//! | weights | digits | shift |
//! |---|---|---|
//! | unsigned, scales of 6 bits (Q4_K, Q5_K) | `q * (s / 8)`, `q * (s mod 8)`: at most 31 * 7, unsigned | 3 |
//! | unsigned, scales of 4 bits (Q2_K) | one, `q * s`: at most 45 | |
//! | Q3_K | one, `-(q * s)`: -124 ..= 128 for `q * s`, and 128 is no byte, so the float factor is negated as well | |
//! | all others | `(q * s) >> 7`, `(q * s) & 127` | 7 |
//!
//! The sum of the minima is made by the vector units, two groups per `vpdpwssd`. As a tile product it would be slower:
//! its operand, the sums of x as digits, is one more cache line per token.
//!
//! The vector work of 16 tokens is done between the products of the next 16, so that nothing waits for the products that
//! it needs. Both panels go together: a tile of tokens is loaded once for their products, which are sums of their own
//! and so do not wait for each other, and what a token's floats are multiplied with once for both.
//!
//! ```text
//!   tile unit       k = 0: panel 0 high, low; panel 1 high, low     k = 64: ...     (sums in tiles 0, 1; 2, 3)
//!   vector units    floats of token 0 of those before, 1, 2, 3      4, 5, 6, 7
//! ```

use std::marker::PhantomData;

use super::{Arithmetic, Products, STRIDE, Sixteen, TILE_ROWS, Tiled, Tiles, Waiting, Weights};
use crate::kernels::QuantizedBlock;
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{Isa, TileIsa, unrolled};
use crate::kernels::panel::steps_256::{Layout, Shape, Steps256, block_sums};
use crate::kernels::panel::token_tiles::{Coming, SHARES};
use crate::kernels::panel::{Blocks, Part};
use crate::quant::GgmlType;

/// The arithmetic of a layout.
pub(in crate::kernels) struct ByTiles<L>(PhantomData<L>);

impl<L: Layout> Tiled for Steps256<L> {
    type ByTiles = ByTiles<L>;
}

/// The integers `s_g * q` as digits of a byte.
#[derive(Clone, Copy)]
enum Digits {
    /// The scale has two digits, of which the lower one has three bits: for unsigned weights of up to 5 bits.
    Scale,
    /// The product is one.
    Product,
    /// The product with its sign changed is one.
    Negated,
    /// The upper bits of the product, and its lower seven.
    Bits,
}

impl Digits {
    const fn of(ty: GgmlType) -> Self {
        match ty {
            GgmlType::Q4_K | GgmlType::Q5_K => Digits::Scale,
            GgmlType::Q2_K => Digits::Product,
            GgmlType::Q3_K => Digits::Negated,
            _ => Digits::Bits,
        }
    }

    /// Bits of the lower one, where there are two.
    const fn shift(self) -> Option<u32> {
        match self {
            Digits::Scale => Some(3),
            Digits::Bits => Some(7),
            Digits::Product | Digits::Negated => None,
        }
    }
}

impl<L: Layout> ByTiles<L> {
    const DIGITS: Digits = Digits::of(L::TYPE);
    /// Bits of the lower digit, where there are two.
    const SHIFT: Option<u32> = Self::DIGITS.shift();
    /// Whether there are two.
    const TWO: bool = Self::SHIFT.is_some();
}

impl<L: Layout> Arithmetic for ByTiles<L> {
    const DEPTH: usize = 64;

    #[inline(always)]
    fn unpack<I: TileIsa>(
        isa: I,
        blocks: Blocks<'_>,
        _: usize,
        weights: &mut Weights,
        coming: &mut Coming<'_>,
    ) {
        for part in 0..16 / I::LANES {
            unpack::<I, L>(
                isa,
                &blocks.part::<I, Steps256<L>>(0, part),
                part,
                weights,
                coming,
            );
        }
    }

    #[inline(always)]
    fn token_tile<I: TileIsa, T: Tiles>(
        isa: I,
        tiles: &mut T,
        weights: &[Weights; 2],
        _: usize,
        waiting: &mut Waiting,
        now: &[QuantizedBlock; TILE_ROWS],
        before: Option<Sixteen<'_>>,
    ) {
        let (last, next) = waiting.next();
        match before {
            Some(mut before) => {
                products::<I, T, L>(isa, tiles, weights, now, next, Some((last, &mut before)))
            }
            None => products::<I, T, L>(isa, tiles, weights, now, next, None),
        }
    }

    #[inline(always)]
    fn last_rows<I: TileIsa, T: Tiles>(
        isa: I,
        _: &mut T,
        weights: &[Weights; 2],
        _: usize,
        waiting: &mut Waiting,
        mut last: Sixteen<'_>,
        skip: usize,
    ) {
        let factors = Factors::of_both::<L>(isa, weights);
        for t in skip..TILE_ROWS {
            float_steps::<I, L>(isa, &factors, waiting.last(), &mut last, t);
        }
    }
}

/// What a panel's rows are multiplied with, in the vectors that they fill.
struct Factors<I: Isa> {
    d: [I::F; 4],
    dmin: [I::F; 4],
    /// The minima of two groups.
    mins: [[I::V; 8]; 4],
}

impl<I: Isa> Factors<I> {
    #[inline(always)]
    fn of_both<L: Layout>(isa: I, weights: &[Weights; 2]) -> [Self; 2] {
        [Self::of::<L>(isa, &weights[0]), Self::of::<L>(isa, &weights[1])]
    }

    #[inline(always)]
    fn of<L: Layout>(isa: I, weights: &Weights) -> Self {
        let zero = I::F::splat(0.0);
        let mut factors = Factors {
            d: [zero; 4],
            dmin: [zero; 4],
            mins: [[isa.zero(); 8]; 4],
        };
        unrolled!(part in 16 / I::LANES, at most 4 => {
            factors.d[part] = isa.load_f(&weights.d[0][part * I::LANES..]);
            if L::MIN {
                factors.dmin[part] = isa.load_f(&weights.dmin[0][part * I::LANES..]);
                unrolled!(i in Shape::<I, L>::GROUPS / 2, at most 8 => {
                    factors.mins[part][i] = isa.load(&weights.mins[i][part * 4 * I::LANES..]);
                });
            }
        });
        factors
    }
}

/// The products of 16 tokens with both panels, to `out`. Meanwhile of those before, whose products wait, the float steps
/// are made.
#[inline(always)]
fn products<I: TileIsa, T: Tiles, L: Layout>(
    isa: I,
    tiles: &mut T,
    weights: &[Weights; 2],
    x: &[QuantizedBlock; TILE_ROWS],
    out: &mut Products,
    mut before: Option<(&Products, &mut Sixteen<'_>)>,
) {
    let bytes: &[u8] = bytemuck::cast_slice(x);
    let factors = Factors::of_both::<L>(isa, weights);
    macro_rules! float_steps {
        ($first:expr, $n:expr) => {
            if let Some((products, tokens)) = &mut before {
                unrolled!(t in $n, at most 4 => {
                    float_steps::<I, L>(isa, &factors, products, tokens, $first + t);
                });
            }
        };
    }
    macro_rules! product {
        ($tile:literal, $weights:literal, $digits:expr, $k:expr) => {
            tiles.load_weights::<$weights>($digits[16 * $k..16 * $k + 16].as_flattened());
            dot::<T, L, $tile, $weights>(tiles);
        };
    }
    tiles.zero::<0>();
    tiles.zero::<2>();
    if ByTiles::<L>::TWO {
        tiles.zero::<1>();
        tiles.zero::<3>();
    }
    unrolled!(k in 4, at most 4 => {
        tiles.load_tokens::<STRIDE>(&bytes[64 * k..]);
        if ByTiles::<L>::TWO {
            product!(0, 6, weights[0].high, k);
            float_steps!(4 * k, 1);
            product!(1, 7, weights[0].low, k);
            float_steps!(4 * k + 1, 1);
            product!(2, 6, weights[1].high, k);
            float_steps!(4 * k + 2, 1);
            product!(3, 7, weights[1].low, k);
            float_steps!(4 * k + 3, 1);
        } else {
            product!(0, 6, weights[0].high, k);
            float_steps!(4 * k, 2);
            product!(2, 7, weights[1].high, k);
            float_steps!(4 * k + 2, 2);
        }
    });
    let [a, b, c, d, ..] = &mut out.0;
    tiles.store::<0>(a);
    if ByTiles::<L>::TWO {
        tiles.store::<1>(b);
    }
    tiles.store::<2>(c);
    if ByTiles::<L>::TWO {
        tiles.store::<3>(d);
    }
}

/// One product of tiles.
#[inline(always)]
fn dot<T: Tiles, L: Layout, const C: usize, const B: usize>(tiles: &mut T) {
    match ByTiles::<L>::DIGITS {
        Digits::Scale | Digits::Product => tiles.dot_unsigned::<C, B>(),
        Digits::Negated | Digits::Bits => tiles.dot_signed::<C, B>(),
    }
}

/// The float steps of one token with both panels' rows.
#[inline(always)]
fn float_steps<I: TileIsa, L: Layout>(
    isa: I,
    factors: &[Factors<I>; 2],
    products: &Products,
    tokens: &mut Sixteen<'_>,
    t: usize,
) {
    let dx = I::F::splat(tokens.x[t].d[0]);
    let sums_of_x = block_sums::<L>(&tokens.x[t]);
    unrolled!(part in 16 / I::LANES, at most 4 => {
        // Both panels' before one is written, so that what they are multiplied with is loaded once.
        let mut steps = [dx; 2];
        unrolled!(panel in 2, at most 4 => {
            let factors = &factors[panel];
            let high = isa.load(&products.0[2 * panel].0[t][part * 4 * I::LANES..]);
            let isum = match ByTiles::<L>::SHIFT {
                Some(shift) => {
                    let low = isa.load(&products.0[2 * panel + 1].0[t][part * 4 * I::LANES..]);
                    isa.join_digits(high, low, shift)
                }
                None => high,
            };
            let (d, isum) = (factors.d[part], isa.to_f(isum));
            steps[panel] = if L::MIN {
                let mut msum = isa.zero();
                unrolled!(i in Shape::<I, L>::GROUPS / 2, at most 8 => {
                    msum = isa.dot_pairs(msum, factors.mins[part][i], sums_of_x[i]);
                });
                dx.mul(d.mul(isum).sub(factors.dmin[part].mul(isa.to_f(msum))))
            } else {
                d.mul(dx).mul(isum)
            };
        });
        unrolled!(panel in 2, at most 4 => {
            let sums = &mut tokens.sums[t][panel * 16 + part * I::LANES..];
            isa.store_f(isa.load_f(sums).add(steps[panel]), sums);
        });
    });
}

/// One block of as many rows as a vector has.
#[inline(always)]
fn unpack<I: TileIsa, L: Layout>(
    isa: I,
    block: &Part<'_>,
    part: usize,
    weights: &mut Weights,
    coming: &mut Coming<'_>,
) {
    let at = part * 4 * I::LANES;
    let scales = L::scales(isa, block);
    let quads = Shape::<I, L>::QUADS;
    unrolled!(g in Shape::<I, L>::GROUPS, at most 16 => {
        if g.is_multiple_of(Shape::<I, L>::GROUPS / SHARES) {
            coming.shares_of_pair(isa, 1);
        }
        // The group's scale in both halves of each lane.
        let bytes = scales[g / 4];
        let j = (g % 4) as u8;
        let scale = match ByTiles::<L>::DIGITS {
            Digits::Scale | Digits::Product => isa.shuffle_lanes(bytes, [j, 0x80, j, 0x80]),
            Digits::Negated => {
                let bytes = isa.sub8(isa.zero(), bytes);
                isa.sar16(isa.shuffle_lanes(bytes, [0x80, j, 0x80, j]), 8)
            }
            Digits::Bits => isa.sar16(isa.shuffle_lanes(bytes, [0x80, j, 0x80, j]), 8),
        };
        unrolled!(i in quads, at most 8 => {
            let quad = g * quads + i;
            let (high, low) = digits::<I, L>(isa, L::quad(isa, block, quad), scale);
            isa.store(high, &mut weights.high[quad][at..]);
            if ByTiles::<L>::TWO {
                isa.store(low, &mut weights.low[quad][at..]);
            }
        });
    });
    if L::MIN {
        let mins = L::mins(isa, block);
        unrolled!(i in Shape::<I, L>::GROUPS / 2, at most 8 => {
            isa.store(isa.pairs(mins[i / 2], i % 2), &mut weights.mins[i][at..]);
        });
        isa.store_f(L::dmin(isa, block), &mut weights.dmin[0][part * I::LANES..]);
    }
    let d = L::d(isa, block);
    let d = match ByTiles::<L>::DIGITS {
        Digits::Negated => I::F::splat(0.0).sub(d),
        _ => d,
    };
    isa.store_f(d, &mut weights.d[0][part * I::LANES..]);
}

/// The digits of a quad of weights times its group's scale.
#[inline(always)]
fn digits<I: TileIsa, L: Layout>(isa: I, quad: I::V, scale: I::V) -> (I::V, I::V) {
    // Products of both bytes of a 16-bit lane at once: that of the lower one stays below 256.
    match ByTiles::<L>::DIGITS {
        Digits::Product => return (isa.mul16(quad, scale), quad),
        Digits::Scale => {
            let high = isa.shr16(scale, 3);
            let low = isa.and(scale, isa.splat16(7));
            return (isa.mul16(quad, high), isa.mul16(quad, low));
        }
        Digits::Negated | Digits::Bits => {}
    }
    // The weight without what it is stored with.
    let q = match Shape::<I, L>::OFFSET {
        Some(shift) => isa.sub8(quad, isa.splat8(1 << shift)),
        None => quad,
    };
    let even = isa.mul16(isa.sar16(isa.shl16(q, 8), 8), scale);
    let odd = isa.mul16(isa.sar16(q, 8), scale);
    let (lower, upper) = (isa.splat32(0x00ff_00ff), isa.splat32(0xff00_ff00));
    match ByTiles::<L>::DIGITS {
        Digits::Negated => (isa.or(isa.and(even, lower), isa.shl16(odd, 8)), even),
        _ => {
            let high = isa.or(
                isa.and(isa.sar16(even, 7), lower),
                isa.and(isa.shl16(odd, 1), upper),
            );
            let low = isa.or(
                isa.and(even, isa.splat32(0x007f_007f)),
                isa.and(isa.shl16(odd, 8), isa.splat32(0x7f00_7f00)),
            );
            (high, low)
        }
    }
}
