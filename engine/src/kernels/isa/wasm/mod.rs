//! WebAssembly: 128-bit vectors, with or without the relaxed dot product. The intrinsics that
//! [`Isa`] is made of, and the loops that measure peak rates: the kernels are elsewhere.
//!
//! What a module contains is decided when it is built: a browser refuses a module with instructions that it does not
//! know. `-C target-feature=+simd128` brings `wasm-simd128`; the crate's feature `relaxed-simd` brings `wasm-relaxed`
//! as well. The page chooses the module.
//!
//! ```text
//!   a vector: 4 rows x 4 consecutive k
//!     unsigned weights up to M: products of pairs are summed to 16 bits, as on AVX2: 2 * 127 * M a pair, so
//!       32767 / (254 * M) pairs may be added up before they are widened
//!       relaxed: i16x8.relaxed_dot_i8x16_i7x16_s. Engines may differ in how they treat a second operand above 127,
//!         or a sum beyond 16 bits; neither occurs, so the result is the same on every engine.
//!       plain: bytes of even and of odd k, each as 16 bits, two products and a sum
//!     signed weights, 128 added: the same bytes of even and of odd k, each with its own i32x4.dot_i16x8_s
//! ```
//!
//! All unsafe code of these backends is here: loads and stores that stay inside the slice that is checked first.
#![allow(unsafe_code)]

mod peak;

use std::arch::wasm32::*;

use half::f16;

use crate::kernels::functions::Lanes;
use crate::kernels::isa::{ContiguousRows, Isa, LineIsa, Op, bytes_to_i16, lane_shuffle};
use crate::kernels::peak::LINE;

/// Vectors of 128 bits. Any module that holds this code runs only where they are.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Wasm<const RELAXED: bool>;

/// Four floats.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct F(v128);

/// Works with the relaxed dot product enabled. What one function enables LLVM enables in the whole module, and takes
/// the relaxed minimum and maximum wherever it recognises one, which differ between engines: so none is written in a
/// way that it recognises, nothing is vectorised by LLVM, and the build looks at the disassembly for any but the dot
/// product.
#[cfg(feature = "relaxed-simd")]
#[target_feature(enable = "relaxed-simd")]
fn enter<O: Op<Wasm<true>>>(op: O) -> O::Output {
    op.run(Wasm)
}

#[inline(always)]
fn load(bytes: &[u8]) -> v128 {
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes, checked above; any alignment will do.
    unsafe { v128_load(bytes.as_ptr().cast()) }
}

#[inline(always)]
fn shuffle(v: v128, pattern: [u8; 16]) -> v128 {
    i8x16_swizzle(v, load(&pattern))
}

/// Bits of half-precision numbers in 32-bit lanes to floats, infinities and NaNs included. The exponent is moved to its
/// place and its bias corrected; a subnormal number gets the exponent of 2^-14, which is then subtracted. (To multiply
/// by the difference of the biases is shorter, but a processor takes a hundred cycles for the product of a subnormal
/// float.)
#[inline(always)]
fn halves(bits: v128) -> F {
    let magnitude = v128_and(bits, u32x4_splat(0x7fff));
    let subnormal = i32x4_gt(u32x4_splat(0x400), magnitude);
    let endless = v128_and(i32x4_gt(magnitude, u32x4_splat(0x7bff)), u32x4_splat(0x7f80_0000));
    // 112 is the difference of the biases, and one more for a subnormal number: the comparison gives -1.
    let exponent = i32x4_sub(u32x4_splat(112 << 23), u32x4_shl(subnormal, 23));
    let shifted = i32x4_add(u32x4_shl(magnitude, 13), exponent);
    let value = f32x4_sub(shifted, v128_and(subnormal, u32x4_splat(113 << 23)));
    let sign = v128_and(u32x4_shl(bits, 16), u32x4_splat(0x8000_0000));
    F(v128_or(v128_or(value, endless), sign))
}

/// The bytes of even and of odd places, each as a signed 16-bit number.
#[inline(always)]
fn wide(bytes: v128) -> [v128; 2] {
    [i16x8_shr(i16x8_shl(bytes, 8), 8), i16x8_shr(bytes, 8)]
}

/// The same of unsigned bytes.
#[inline(always)]
fn unsigned_wide(bytes: v128) -> [v128; 2] {
    [v128_and(bytes, u16x8_splat(0xff)), u16x8_shr(bytes, 8)]
}

/// Four quads, of which number `i` is one.
#[inline(always)]
fn four_quads(quads: &[[i8; 4]], i: usize) -> v128 {
    // One load, and a shuffle each: engines spend an instruction on the address of every load that repeats its value.
    let four = &quads[i / 4 * 4..][..4];
    // SAFETY: 16 bytes, checked above; any alignment will do.
    unsafe { v128_load(four.as_ptr().cast()) }
}

/// Lane `i % 4` in every lane.
#[inline(always)]
fn repeat(v: v128, i: usize) -> v128 {
    match i % 4 {
        0 => i32x4_shuffle::<0, 0, 0, 0>(v, v),
        1 => i32x4_shuffle::<1, 1, 1, 1>(v, v),
        2 => i32x4_shuffle::<2, 2, 2, 2>(v, v),
        _ => i32x4_shuffle::<3, 3, 3, 3>(v, v),
    }
}

/// Quad `i` in every lane: an instruction for the address and a load, which take no part of what computes with vectors.
#[inline(always)]
fn quad(quads: &[[i8; 4]], i: usize) -> v128 {
    let quad = &quads[i];
    // SAFETY: a reference to four bytes; any alignment will do.
    unsafe { v128_load32_splat(quad.as_ptr().cast()) }
}

/// Four numbers, in every lane the first and third, and the second and fourth: for the bytes of [`wide`].
#[inline(always)]
fn even_and_odd(x: &[[i16; 2]; 2]) -> [v128; 2] {
    let four: &[i16] = x.as_flattened();
    // SAFETY: a reference to eight bytes; any alignment will do.
    let four = unsafe { v128_load64_splat(four.as_ptr().cast()) };
    let four = i16x8_shuffle::<0, 2, 1, 3, 4, 6, 5, 7>(four, four);
    [
        i32x4_shuffle::<0, 0, 0, 0>(four, four),
        i32x4_shuffle::<1, 1, 1, 1>(four, four),
    ]
}

impl<const RELAXED: bool> Isa for Wasm<RELAXED>
where
    Self: Run,
{
    const NAME: &'static str = if RELAXED { "wasm-relaxed" } else { "wasm-simd128" };
    const LANES: usize = 4;
    const MR: usize = 2;
    const NR: usize = 8;
    // Of steps of 32 weights: two need more registers than there are, and were no faster in Chromium.
    const SIDE_BY_SIDE: usize = 1;
    const BIAS: i32 = 128;
    const WIDE_GROUPS: bool = false;

    type V = v128;
    type F = F;
    type X = <Self as Run>::X;
    type SignedX = [v128; 2];

    #[inline(always)]
    fn run<O: Op<Self>>(self, op: O) -> O::Output {
        Run::run(self, op)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> v128 {
        load(bytes)
    }

    #[inline(always)]
    fn prefetch(self, _: &[u8], _: usize) {}

    #[inline(always)]
    fn prefetch_l2(self, _: &[u8], _: usize) {}

    #[inline(always)]
    fn store(self, v: v128, bytes: &mut [u8]) {
        let bytes = &mut bytes[..16];
        // SAFETY: 16 bytes, checked above; any alignment will do.
        unsafe { v128_store(bytes.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn join(self, rows: &ContiguousRows<'_>, first: usize, at: usize) -> v128 {
        let (p, _) = rows.every_fourth::<1>(first, at);
        // SAFETY: 16 bytes, as the rows promise; any alignment will do.
        unsafe { v128_load(p.cast()) }
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [v128; 4]) -> [v128; 4] {
        let (ab, cd) = (
            i32x4_shuffle::<0, 4, 1, 5>(a, b),
            i32x4_shuffle::<0, 4, 1, 5>(c, d),
        );
        let (ab2, cd2) = (
            i32x4_shuffle::<2, 6, 3, 7>(a, b),
            i32x4_shuffle::<2, 6, 3, 7>(c, d),
        );
        [
            i64x2_shuffle::<0, 2>(ab, cd),
            i64x2_shuffle::<1, 3>(ab, cd),
            i64x2_shuffle::<0, 2>(ab2, cd2),
            i64x2_shuffle::<1, 3>(ab2, cd2),
        ]
    }

    #[inline(always)]
    fn store_split(self, v: v128, low: &mut [u8], high: &mut [u8]) {
        let (low, high) = (&mut low[..8], &mut high[..8]);
        let v = i16x8_shuffle::<0, 2, 4, 6, 1, 3, 5, 7>(v, v);
        // SAFETY: 8 bytes each, checked above; any alignment will do.
        unsafe {
            v128_store64_lane::<0>(v, low.as_mut_ptr().cast());
            v128_store64_lane::<1>(v, high.as_mut_ptr().cast());
        }
    }

    #[inline(always)]
    fn splat8(self, v: u8) -> v128 {
        u8x16_splat(v)
    }

    #[inline(always)]
    fn splat32(self, v: u32) -> v128 {
        u32x4_splat(v)
    }

    #[inline(always)]
    fn zero(self) -> v128 {
        u32x4_splat(0)
    }

    #[inline(always)]
    fn and(self, a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }

    #[inline(always)]
    fn or(self, a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }

    #[inline(always)]
    fn shl16(self, v: v128, n: u32) -> v128 {
        i16x8_shl(v, n)
    }

    #[inline(always)]
    fn shr16(self, v: v128, n: u32) -> v128 {
        u16x8_shr(v, n)
    }

    #[inline(always)]
    fn add8(self, a: v128, b: v128) -> v128 {
        i8x16_add(a, b)
    }

    #[inline(always)]
    fn sub8(self, a: v128, b: v128) -> v128 {
        i8x16_sub(a, b)
    }

    #[inline(always)]
    fn mul16(self, a: v128, b: v128) -> v128 {
        i16x8_mul(a, b)
    }

    #[inline(always)]
    fn equal8(self, a: v128, b: v128) -> v128 {
        i8x16_eq(a, b)
    }

    #[inline(always)]
    fn shuffle_lanes(self, v: v128, pattern: [u8; 4]) -> v128 {
        shuffle(v, lane_shuffle(pattern))
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], v: v128) -> v128 {
        i8x16_swizzle(load(&table.map(|v| v as u8)), v)
    }

    #[inline(always)]
    fn activations(self, quads: &[[i8; 4]], i: usize) -> Self::X {
        <Self as Run>::activations(four_quads(quads, i), i)
    }

    #[inline(always)]
    fn signed_activations(self, quads: &[[i8; 4]], i: usize) -> [v128; 2] {
        let [even, odd] = wide(four_quads(quads, i));
        [repeat(even, i), repeat(odd, i)]
    }

    #[inline(always)]
    fn dot(self, acc: v128, w: v128, x: Self::X) -> v128 {
        i16x8_add(acc, <Self as Run>::pairs(w, x))
    }

    #[inline(always)]
    fn biased(self, w: v128) -> v128 {
        v128_xor(w, u8x16_splat(128))
    }

    #[inline(always)]
    fn dot_signed(self, acc: v128, w: v128, x: [v128; 2]) -> v128 {
        let [even, odd] = unsigned_wide(w);
        let acc = i32x4_add(acc, i32x4_dot_i16x8(even, x[0]));
        i32x4_add(acc, i32x4_dot_i16x8(odd, x[1]))
    }

    #[inline(always)]
    fn factor(self, bytes: v128, j: usize, sign_extend: bool, signed_weights: bool) -> v128 {
        // Shifts and shuffles of 16-bit lanes: engines make the pattern of a shuffle of bytes anew each time, in four
        // instructions.
        if signed_weights {
            let top = u32x4_shl(bytes, 24 - 8 * j as u32);
            if sign_extend {
                i32x4_shr(top, 24)
            } else {
                u32x4_shr(top, 24)
            }
        } else {
            // For the dot product of pairs: the number in both halves of the lane.
            let of_two = if sign_extend {
                wide(bytes)
            } else {
                unsigned_wide(bytes)
            }[j % 2];
            if j < 2 {
                i16x8_shuffle::<0, 0, 2, 2, 4, 4, 6, 6>(of_two, of_two)
            } else {
                i16x8_shuffle::<1, 1, 3, 3, 5, 5, 7, 7>(of_two, of_two)
            }
        }
    }

    #[inline(always)]
    fn add_scaled(self, sum: v128, group: v128, factor: v128, signed_weights: bool) -> v128 {
        if signed_weights {
            i32x4_add(sum, i32x4_mul(group, factor))
        } else {
            i32x4_add(sum, i32x4_dot_i16x8(group, factor))
        }
    }

    #[inline(always)]
    fn add_group(self, sum: v128, group: v128, signed_weights: bool) -> v128 {
        if signed_weights {
            i32x4_add(sum, group)
        } else {
            i32x4_add(sum, i32x4_dot_i16x8(group, i16x8_splat(1)))
        }
    }

    #[inline(always)]
    fn pairs(self, bytes: v128, j: usize) -> v128 {
        shuffle(bytes, bytes_to_i16(2 * j, 2 * j + 1, false))
    }

    #[inline(always)]
    fn pairs_negated(self, bytes: v128, j: usize, shift: u32) -> v128 {
        let high = shuffle(bytes, bytes_to_i16(2 * j, 2 * j + 1, true));
        i16x8_neg(i16x8_shr(high, 8 - shift))
    }

    #[inline(always)]
    fn splat16(self, v: i16) -> v128 {
        i16x8_splat(v)
    }

    #[inline(always)]
    fn dot_pairs(self, acc: v128, a: v128, x: [i16; 2]) -> v128 {
        let x = i32x4_splat(i32::from(x[0] as u16) | i32::from(x[1]) << 16);
        i32x4_add(acc, i32x4_dot_i16x8(a, x))
    }

    #[inline(always)]
    fn to_f(self, v: v128) -> F {
        F(f32x4_convert_i32x4(v))
    }

    #[inline(always)]
    fn load_f(self, v: &[f32]) -> F {
        let v = &v[..4];
        // SAFETY: four floats, checked above; any alignment will do.
        F(unsafe { v128_load(v.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> F {
        F(load(bytes))
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..8];
        // SAFETY: 8 bytes, checked above; any alignment will do.
        halves(unsafe { u32x4_load_extend_u16x4(bytes.as_ptr().cast()) })
    }

    #[inline(always)]
    fn f16_of_lanes(self, v: v128, upper: bool) -> F {
        halves(if upper {
            u32x4_shr(v, 16)
        } else {
            v128_and(v, u32x4_splat(0xffff))
        })
    }

    #[inline(always)]
    fn load_halves(self, v: &[u16]) -> F {
        let v = &v[..4];
        // SAFETY: 8 bytes, checked above; any alignment will do.
        halves(unsafe { u32x4_load_extend_u16x4(v.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..8];
        // SAFETY: 8 bytes, checked above; any alignment will do.
        let wide = unsafe { u32x4_load_extend_u16x4(bytes.as_ptr().cast()) };
        F(u32x4_shl(wide, 16))
    }

    #[inline(always)]
    fn store_f(self, v: F, out: &mut [f32]) {
        let out = &mut out[..4];
        // SAFETY: four floats, checked above; any alignment will do.
        unsafe { v128_store(out.as_mut_ptr().cast(), v.0) }
    }

    #[inline(always)]
    fn store_i8(self, v: F, out: &mut [i8]) {
        let out = &mut out[..4];
        let words = i32x4_trunc_sat_f32x4(f32x4_nearest(v.0));
        let bytes = i8x16_narrow_i16x8(i16x8_narrow_i32x4(words, words), words);
        // SAFETY: four bytes, checked above; any alignment will do.
        unsafe { v128_store32_lane::<0>(bytes, out.as_mut_ptr().cast()) }
    }

    #[inline(always)]
    fn max_magnitude(self, v: &[f32]) -> u32 {
        let mut max = u32x4_splat(0);
        for v in v.as_chunks::<4>().0 {
            max = u32x4_max(max, v128_and(self.load_f(v).0, u32x4_splat(0x7fff_ffff)));
        }
        lanes(max).into_iter().fold(0, u32::max)
    }

    const QUERIES: usize = 2;

    #[inline(always)]
    fn max_f(self, a: F, b: F) -> F {
        // Not `f32x4_pmax`: LLVM knows it as a comparison and a choice, and may take a relaxed maximum for them. A
        // choice of bits is opaque to it.
        F(v128_bitselect(b.0, a.0, f32x4_lt(a.0, b.0)))
    }

    #[inline(always)]
    fn max_lane(self, v: F) -> f32 {
        let mut max = f32::NEG_INFINITY;
        for lane in lanes(v.0).map(f32::from_bits) {
            if max < lane {
                max = lane;
            }
        }
        max
    }

    #[inline(always)]
    fn sum_lane(self, v: F) -> f32 {
        let [a, b, c, d] = lanes(v.0).map(f32::from_bits);
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..4];
        // SAFETY: four bytes, checked above; any alignment will do.
        let v = unsafe { v128_load32_zero(bytes.as_ptr().cast()) };
        F(f32x4_convert_i32x4(i32x4_extend_low_i16x8(
            i16x8_extend_low_i8x16(v),
        )))
    }

    #[inline(always)]
    fn store_halves(self, v: F, out: &mut [u16]) -> bool {
        let mut finite = true;
        for (out, lane) in out[..4].iter_mut().zip(lanes(v.0)) {
            let half = f16::from_f32(f32::from_bits(lane));
            finite &= half.is_finite();
            *out = half.to_bits();
        }
        finite
    }
}

impl<const RELAXED: bool> LineIsa for Wasm<RELAXED>
where
    Self: Run,
{
    #[inline(always)]
    fn read_early(self, bytes: &[u8]) {
        // All at once: a processor retires in order, so that each read of memory holds everything up, but many that are
        // on their way together hold it up no longer than one.
        for line in bytes.as_chunks::<LINE>().0 {
            // SAFETY: a reference.
            unsafe { std::ptr::read_volatile(&line[0]) };
        }
    }

    #[inline(always)]
    fn activations_at(self, quads: &[[i8; 4]], i: usize) -> Self::X {
        <Self as Run>::spread(quad(quads, i))
    }

    #[inline(always)]
    fn signed_activations_at(self, quads: &[[i8; 4]], i: usize) -> [v128; 2] {
        wide(quad(quads, i))
    }

    #[inline(always)]
    fn add_minima(self, acc: v128, bytes: v128, x: &[[i16; 2]; 2]) -> v128 {
        let ([even, odd], x) = (unsigned_wide(bytes), even_and_odd(x));
        let acc = i32x4_add(acc, i32x4_dot_i16x8(even, x[0]));
        i32x4_add(acc, i32x4_dot_i16x8(odd, x[1]))
    }

    #[inline(always)]
    fn sub_offsets(self, acc: v128, bytes: v128, shift: u32, x: &[[i16; 2]; 2]) -> v128 {
        let ([even, odd], x) = (wide(bytes), even_and_odd(x));
        let sum = i32x4_add(i32x4_dot_i16x8(even, x[0]), i32x4_dot_i16x8(odd, x[1]));
        i32x4_sub(acc, i32x4_shl(sum, shift))
    }
}

#[inline(always)]
fn lanes(v: v128) -> [u32; 4] {
    [
        u32x4_extract_lane::<0>(v),
        u32x4_extract_lane::<1>(v),
        u32x4_extract_lane::<2>(v),
        u32x4_extract_lane::<3>(v),
    ]
}

/// What differs between the two backends.
pub(in crate::kernels) trait Run:
    Copy + Send + Sync + std::fmt::Debug + 'static + Sized
{
    /// [`Isa::run`].
    fn run<O: Op<Self>>(self, op: O) -> O::Output
    where
        Self: Isa;
    /// [`Isa::X`].
    type X: Copy;
    /// Quad `i % 4` of four, in every lane.
    fn activations(four: v128, i: usize) -> Self::X;
    /// A quad that is in every lane already.
    fn spread(quad: v128) -> Self::X;
    /// `w[2i] * x[2i] + w[2i + 1] * x[2i + 1]` in 16 bits, or other sums of two of a lane's products; w is unsigned and
    /// at most 127.
    fn pairs(w: v128, x: Self::X) -> v128;
}

impl Run for Wasm<false> {
    type X = [v128; 2];

    #[inline(always)]
    fn run<O: Op<Self>>(self, op: O) -> O::Output {
        op.run(self)
    }

    #[inline(always)]
    fn activations(four: v128, i: usize) -> [v128; 2] {
        let [even, odd] = wide(four);
        [repeat(even, i), repeat(odd, i)]
    }

    #[inline(always)]
    fn spread(quad: v128) -> [v128; 2] {
        wide(quad)
    }

    #[inline(always)]
    fn pairs(w: v128, x: [v128; 2]) -> v128 {
        let [even, odd] = unsigned_wide(w);
        i16x8_add(i16x8_mul(even, x[0]), i16x8_mul(odd, x[1]))
    }
}

#[cfg(feature = "relaxed-simd")]
impl Run for Wasm<true> {
    type X = v128;

    #[inline(always)]
    fn run<O: Op<Self>>(self, op: O) -> O::Output {
        enter(op)
    }

    #[inline(always)]
    fn activations(four: v128, i: usize) -> v128 {
        repeat(four, i)
    }

    #[inline(always)]
    fn spread(quad: v128) -> v128 {
        quad
    }

    #[inline(always)]
    fn pairs(w: v128, x: v128) -> v128 {
        i16x8_relaxed_dot_i8x16_i7x16(x, w)
    }
}

impl Lanes for F {
    #[inline(always)]
    fn splat(v: f32) -> Self {
        F(f32x4_splat(v))
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        F(f32x4_add(self.0, o.0))
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        F(f32x4_sub(self.0, o.0))
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        F(f32x4_mul(self.0, o.0))
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        F(f32x4_div(self.0, o.0))
    }
    #[inline(always)]
    fn less(self, o: Self, yes: Self, no: Self) -> Self {
        F(v128_bitselect(yes.0, no.0, f32x4_lt(self.0, o.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        F(f32x4_abs(self.0))
    }
    #[inline(always)]
    fn sign_of(self, o: Self) -> Self {
        let sign = u32x4_splat(0x8000_0000);
        F(v128_bitselect(o.0, self.0, sign))
    }
    #[inline(always)]
    fn pow2_of_magic(self) -> Self {
        F(i32x4_add(u32x4_shl(self.0, 23), u32x4_splat(0x3f80_0000)))
    }
}
