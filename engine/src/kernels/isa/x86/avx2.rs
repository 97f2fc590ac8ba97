//! AVX2: 8 rows in a register, `vpmaddubsw` for pairs of bytes; where there is AVX-VNNI, `vpdpbusd` for four, as in
//! [`super::avx512`].
//!
//! ```text
//!   unsigned weights up to M: |w0 * x0 + w1 * x1| <= 2 * 127 * M, so 32767 / (254 * M) such sums fit 16 bits (8 for
//!     4-bit weights, 4 for 5, 2 for 6, 1 for 7). They are added up in 16 bits; vpmaddwd then multiplies by the
//!     group's factor and widens in one instruction.
//!   signed weights: vpmaddubsw(|w|, x * sign(w)); |w| <= 128 as an unsigned byte, so a sum is at most
//!     2 * 128 * 127 = 32512: exact, and widened at once. x is never -128, which vpsignb could not negate.
//! ```
//!
//! With VNNI neither limit exists: sums are 32 bits wide, and signed weights are made unsigned by adding 128.
//!
//! FMA is not used, so it is not asked for.

use std::arch::x86_64::*;

use super::processor::Processor;
use super::{Enter, byte_to_i32, isa};
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{ContiguousRows, Isa, Op, RowIsa, TileIsa, bytes_to_i16, lane_shuffle};

/// Proof that the machine has AVX2 and the half-precision conversions (Haswell, Zen and later); and AVX-VNNI (Alder
/// Lake, Zen 5 and later), where `VNNI` says so. `L2`: [`Isa::prefetch`] brings lines to the second-level cache.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Avx2<const VNNI: bool, const L2: bool = false>(());

isa! {
    ["avx2" "f16c"]
    Avx2<false>, enter;
    Avx2<false, true>, enter_l2
}
isa! {
    ["avx2" "f16c" "avxvnni"]
    Avx2<true>, enter_vnni;
    Avx2<true, true>, enter_vnni_l2
}

impl<const VNNI: bool, const L2: bool> Avx2<VNNI, L2> {
    /// The same instructions, prefetches to the second-level cache, where this processor is faster with that.
    #[inline(always)]
    pub(in crate::kernels) fn into_l2(self) -> Option<Avx2<VNNI, true>> {
        // The same features: `self` proves them.
        (!L2 && Processor::of_machine().prefetch_to_l2).then_some(Avx2(()))
    }
}

/// Eight floats. Private: made only by the methods of [`Avx2`], whose existence proves the instructions.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct F(__m256);

/// An intrinsic on registers, which the type's existence makes safe to run. What touches memory has an `unsafe` of its
/// own, which says why it stays within a slice.
macro_rules! op {
    ($($call:tt)+) => {
        // SAFETY: a value of `Avx2` (or of `F`, which only it makes) exists only where detection found the features,
        // and they are all that an intrinsic on registers asks for.
        unsafe { $($call)+ }
    };
}

#[inline(always)]
fn repeat(shuffle: [u8; 16]) -> __m256i {
    // SAFETY: the features are there, as in `op!`; 16 bytes of an array; any alignment will do.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(shuffle.as_ptr().cast())) }
}

/// See [`Isa::black_box`].
#[inline]
#[target_feature(enable = "avx2")]
fn black_box(mut v: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) v, options(nostack, preserves_flags)) };
    v
}

impl<const VNNI: bool, const L2: bool> Isa for Avx2<VNNI, L2>
where
    Self: Enter,
{
    const NAME: &'static str = if VNNI { "avx-vnni" } else { "avx2" };
    const LANES: usize = 8;
    const MR: usize = 3;
    const NR: usize = 16;
    const SIDE_BY_SIDE: usize = 2;
    const BIAS: i32 = if VNNI { 128 } else { 0 };
    const WIDE_GROUPS: bool = VNNI;

    type V = __m256i;
    type F = F;
    type X = __m256i;
    type SignedX = __m256i;

    #[inline(always)]
    fn run<O: Op<Self>>(self, op: O) -> O::Output {
        self.enter(op)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m256i {
        let bytes = &bytes[..32];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], at: usize) {
        let line = bytes.as_ptr().wrapping_add(at).cast();
        if L2 {
            // SAFETY: a hint, for which any address will do.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line) };
        } else {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        }
    }

    #[inline(always)]
    fn prefetch_l2(self, bytes: &[u8], at: usize) {
        // SAFETY: a hint, for which any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().wrapping_add(at).cast()) };
    }

    #[inline(always)]
    fn black_box(self, v: __m256i) -> __m256i {
        op!(black_box(v))
    }

    #[inline(always)]
    fn store(self, v: __m256i, bytes: &mut [u8]) {
        let bytes = &mut bytes[..32];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) };
    }

    #[inline(always)]
    fn join(self, rows: &ContiguousRows<'_>, first: usize, at: usize) -> __m256i {
        let (p, next) = rows.every_fourth::<2>(first, at);
        // SAFETY: the features are there, as in `op!`; 16 bytes at each place, as `every_fourth` promises; any
        // alignment will do.
        unsafe { _mm256_loadu2_m128i(p.add(next).cast(), p.cast()) }
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        op!({
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab2, cd2),
                _mm256_unpackhi_epi64(ab2, cd2),
            ]
        })
    }

    #[inline(always)]
    fn store_split(self, v: __m256i, low: &mut [u8], high: &mut [u8]) {
        let (low, high) = (&mut low[..16], &mut high[..16]);
        // SAFETY: the features are there, as in `op!`; the lengths of both slices were checked above; any alignment
        // will do.
        unsafe {
            // In every 16 bytes the lower halves, then the upper ones; then all the lower ones.
            let split = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7,
                10, 11, 14, 15,
            );
            let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(v, split));
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_castsi256_si128(v));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(v));
        };
    }

    #[inline(always)]
    fn splat8(self, v: u8) -> __m256i {
        op!(_mm256_set1_epi8(v as i8))
    }

    #[inline(always)]
    fn splat32(self, v: u32) -> __m256i {
        op!(_mm256_set1_epi32(v as i32))
    }

    #[inline(always)]
    fn zero(self) -> __m256i {
        op!(_mm256_setzero_si256())
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn shl16(self, v: __m256i, n: u32) -> __m256i {
        op!(_mm256_sll_epi16(v, _mm_cvtsi32_si128(n as i32)))
    }

    #[inline(always)]
    fn shr16(self, v: __m256i, n: u32) -> __m256i {
        op!(_mm256_srl_epi16(v, _mm_cvtsi32_si128(n as i32)))
    }

    #[inline(always)]
    fn add8(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_add_epi8(a, b))
    }

    #[inline(always)]
    fn sub8(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_sub_epi8(a, b))
    }

    #[inline(always)]
    fn mul16(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_mullo_epi16(a, b))
    }

    #[inline(always)]
    fn equal8(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_cmpeq_epi8(a, b))
    }

    #[inline(always)]
    fn shuffle_lanes(self, v: __m256i, pattern: [u8; 4]) -> __m256i {
        op!(_mm256_shuffle_epi8(v, repeat(lane_shuffle(pattern))))
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], v: __m256i) -> __m256i {
        op!(_mm256_shuffle_epi8(repeat(table.map(|v| v as u8)), v))
    }

    #[inline(always)]
    fn activations(self, quads: &[[i8; 4]], i: usize) -> __m256i {
        self.splat32(u32::from_le_bytes(quads[i].map(|v| v as u8)))
    }

    #[inline(always)]
    fn signed_activations(self, quads: &[[i8; 4]], i: usize) -> __m256i {
        self.activations(quads, i)
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        if VNNI {
            op!(_mm256_dpbusd_avx_epi32(acc, w, x))
        } else {
            op!(_mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)))
        }
    }

    #[inline(always)]
    fn biased(self, w: __m256i) -> __m256i {
        if VNNI {
            op!(_mm256_xor_si256(w, _mm256_set1_epi8(-128)))
        } else {
            w
        }
    }

    #[inline(always)]
    fn dot_signed(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        if VNNI {
            return self.dot(acc, w, x);
        }
        let x = op!(_mm256_sign_epi8(x, w));
        let sums = op!(_mm256_maddubs_epi16(_mm256_abs_epi8(w), x));
        op!(_mm256_add_epi32(
            acc,
            _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
        ))
    }

    #[inline(always)]
    fn factor(self, bytes: __m256i, j: usize, sign_extend: bool, signed_weights: bool) -> __m256i {
        if VNNI || signed_weights {
            let v = op!(_mm256_shuffle_epi8(bytes, repeat(byte_to_i32(j, sign_extend))));
            if sign_extend {
                op!(_mm256_srai_epi32::<24>(v))
            } else {
                v
            }
        } else {
            // For vpmaddwd: the number in both halves of the lane.
            let v = op!(_mm256_shuffle_epi8(
                bytes,
                repeat(bytes_to_i16(j, j, sign_extend))
            ));
            if sign_extend {
                op!(_mm256_srai_epi16::<8>(v))
            } else {
                v
            }
        }
    }

    #[inline(always)]
    fn add_scaled(self, sum: __m256i, group: __m256i, factor: __m256i, signed_weights: bool) -> __m256i {
        if VNNI || signed_weights {
            op!(_mm256_add_epi32(sum, _mm256_mullo_epi32(group, factor)))
        } else {
            op!(_mm256_add_epi32(sum, _mm256_madd_epi16(group, factor)))
        }
    }

    #[inline(always)]
    fn add_group(self, sum: __m256i, group: __m256i, signed_weights: bool) -> __m256i {
        if VNNI || signed_weights {
            op!(_mm256_add_epi32(sum, group))
        } else {
            op!(_mm256_add_epi32(
                sum,
                _mm256_madd_epi16(group, _mm256_set1_epi16(1))
            ))
        }
    }

    #[inline(always)]
    fn pairs(self, bytes: __m256i, j: usize) -> __m256i {
        op!(_mm256_shuffle_epi8(
            bytes,
            repeat(bytes_to_i16(2 * j, 2 * j + 1, false))
        ))
    }

    #[inline(always)]
    fn pairs_negated(self, bytes: __m256i, j: usize, shift: u32) -> __m256i {
        let high = op!(_mm256_shuffle_epi8(
            bytes,
            repeat(bytes_to_i16(2 * j, 2 * j + 1, true))
        ));
        let v = op!(_mm256_sra_epi16(high, _mm_cvtsi32_si128(8 - shift as i32)));
        op!(_mm256_sub_epi16(_mm256_setzero_si256(), v))
    }

    #[inline(always)]
    fn splat16(self, v: i16) -> __m256i {
        op!(_mm256_set1_epi16(v))
    }

    #[inline(always)]
    fn dot_pairs(self, acc: __m256i, a: __m256i, x: [i16; 2]) -> __m256i {
        let x = i32::from(x[0] as u16) | i32::from(x[1]) << 16;
        self.dot_pairs_of(acc, a, op!(_mm256_set1_epi32(x)))
    }

    #[inline(always)]
    fn to_f(self, v: __m256i) -> F {
        F(op!(_mm256_cvtepi32_ps(v)))
    }

    #[inline(always)]
    fn load_f(self, v: &[f32]) -> F {
        let v = &v[..8];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm256_loadu_ps(v.as_ptr()) })
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..32];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..16];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bytes.as_ptr().cast())) })
    }

    #[inline(always)]
    fn f16_of_lanes(self, v: __m256i, upper: bool) -> F {
        // The halves of each 128 bits to its lower end, then these to the lower end of all.
        let at = if upper { 2 } else { 0 };
        let gather: [u8; 16] = std::array::from_fn(|i| {
            if i < 8 {
                (i / 2 * 4 + i % 2 + at) as u8
            } else {
                0x80
            }
        });
        let halves = op!(_mm256_shuffle_epi8(v, repeat(gather)));
        let halves = op!(_mm256_permute4x64_epi64::<0b1000>(halves));
        F(op!(_mm256_cvtph_ps(_mm256_castsi256_si128(halves))))
    }

    #[inline(always)]
    fn load_halves(self, v: &[u16]) -> F {
        let v = &v[..8];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(v.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..16];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        let wide = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) };
        F(op!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))))
    }

    #[inline(always)]
    fn store_f(self, v: F, out: &mut [f32]) {
        let out = &mut out[..8];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v.0) };
    }

    #[inline(always)]
    fn store_i8(self, v: F, out: &mut [i8]) {
        let out = &mut out[..8];
        let ints = op!(_mm256_cvtps_epi32(v.0));
        let words = op!(_mm_packs_epi32(
            _mm256_castsi256_si128(ints),
            _mm256_extracti128_si256::<1>(ints)
        ));
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_packs_epi16(words, words)) };
    }

    #[inline(always)]
    fn max_magnitude(self, v: &[f32]) -> u32 {
        let mut max = self.zero();
        for v in v.as_chunks::<8>().0 {
            // SAFETY: the features are there, as in `op!`; an array of that size; any alignment will do.
            let bits = unsafe { _mm256_loadu_si256(v.as_ptr().cast()) };
            let magnitude = op!(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fff_ffff)));
            max = op!(_mm256_max_epu32(max, magnitude));
        }
        let mut lanes = [0u32; 8];
        // SAFETY: the features are there, as in `op!`; an array of that size; any alignment will do.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), max) };
        lanes.into_iter().fold(0, u32::max)
    }

    const QUERIES: usize = 2;

    #[inline(always)]
    fn max_f(self, a: F, b: F) -> F {
        // vmaxps gives its second operand where neither is greater.
        F(op!(_mm256_max_ps(b.0, a.0)))
    }

    #[inline(always)]
    fn max_lane(self, v: F) -> f32 {
        op!({
            let v = _mm_max_ps(_mm256_castps256_ps128(v.0), _mm256_extractf128_ps::<1>(v.0));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn sum_lane(self, v: F) -> f32 {
        op!({
            let v = _mm_add_ps(_mm256_castps256_ps128(v.0), _mm256_extractf128_ps::<1>(v.0));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..8];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn store_halves(self, v: F, out: &mut [u16]) -> bool {
        let out = &mut out[..8];
        let halves = op!(_mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(v.0));
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), halves) };
        let exponent = op!(_mm_set1_epi16(0x7c00));
        op!(_mm_movemask_epi8(_mm_cmpeq_epi16(
            _mm_and_si128(halves, exponent),
            exponent
        ))) == 0
    }
}

impl<const VNNI: bool, const L2: bool> RowIsa for Avx2<VNNI, L2>
where
    Self: Enter,
{
    #[inline(always)]
    fn load_row(self, v: &[i8]) -> __m256i {
        let v = &v[..32];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm256_loadu_si256(v.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_two(self, low: &[i8], high: &[i8]) -> __m256i {
        let (low, high) = (&low[..16], &high[..16]);
        // SAFETY: the features are there, as in `op!`; the lengths of both slices were checked above; any alignment
        // will do.
        unsafe { _mm256_loadu2_m128i(high.as_ptr().cast(), low.as_ptr().cast()) }
    }

    #[inline(always)]
    fn repeat(self, bytes: &[u8; 16]) -> __m256i {
        repeat(*bytes)
    }

    #[inline(always)]
    fn join_u64(self, parts: &[u64]) -> __m256i {
        let [a, b, c, d] = std::array::from_fn(|i| parts[i] as i64);
        op!(_mm256_set_epi64x(d, c, b, a))
    }

    #[inline(always)]
    fn join_u32(self, parts: &[u32]) -> __m256i {
        let [a, b, c, d, e, f, g, h] = std::array::from_fn(|i| parts[i] as i32);
        op!(_mm256_set_epi32(h, g, f, e, d, c, b, a))
    }

    #[inline(always)]
    fn shuffle(self, v: __m256i, places: __m256i) -> __m256i {
        op!(_mm256_shuffle_epi8(v, places))
    }

    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_xor_si256(a, b))
    }

    #[inline(always)]
    fn abs8(self, v: __m256i) -> __m256i {
        op!(_mm256_abs_epi8(v))
    }

    #[inline(always)]
    fn average8(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_avg_epu8(a, b))
    }

    #[inline(always)]
    fn add16(self, a: __m256i, b: __m256i) -> __m256i {
        op!(_mm256_add_epi16(a, b))
    }

    #[inline(always)]
    fn negate_by(self, x: __m256i, signs: __m256i) -> __m256i {
        op!(_mm256_sign_epi8(x, signs))
    }

    #[inline(always)]
    fn negate_where(self, x: __m256i, bits: &[u8]) -> __m256i {
        let word = i32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
        // Byte i of the word to bytes 8 * i ..; each keeps its own bit.
        let places = op!(_mm256_setr_epi64x(
            0,
            0x0101_0101_0101_0101,
            0x0202_0202_0202_0202,
            0x0303_0303_0303_0303
        ));
        let own = op!(_mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64));
        let bit = op!(_mm256_and_si256(
            _mm256_shuffle_epi8(_mm256_set1_epi32(word), places),
            own
        ));
        let minus = op!(_mm256_cmpeq_epi8(bit, own));
        op!(_mm256_sub_epi8(_mm256_xor_si256(x, minus), minus))
    }

    #[inline(always)]
    fn products(self, w: __m256i, x: __m256i) -> __m256i {
        op!(_mm256_maddubs_epi16(w, x))
    }

    #[inline(always)]
    fn dot_pairs_of(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        if VNNI {
            op!(_mm256_dpwssd_avx_epi32(acc, a, b))
        } else {
            op!(_mm256_add_epi32(acc, _mm256_madd_epi16(a, b)))
        }
    }

    #[inline(always)]
    fn sums(self, v: [__m256i; 4]) -> [i32; 4] {
        let [a, b, c, d] = v;
        let all = op!(_mm256_hadd_epi32(
            _mm256_hadd_epi32(a, b),
            _mm256_hadd_epi32(c, d)
        ));
        let four = op!(_mm_add_epi32(
            _mm256_castsi256_si128(all),
            _mm256_extracti128_si256::<1>(all)
        ));
        let mut sums = [0i32; 4];
        // SAFETY: the features are there, as in `op!`; an array of that size; any alignment will do.
        unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), four) };
        sums
    }

    #[inline(always)]
    fn sums_of_32(self, v: [__m256i; 8]) -> [i32; 4] {
        let [a, b, c, d, ..] = v;
        self.sums([a, b, c, d])
    }
}

impl<const VNNI: bool, const L2: bool> TileIsa for Avx2<VNNI, L2>
where
    Self: Enter,
{
    #[inline(always)]
    fn sar16(self, v: __m256i, n: u32) -> __m256i {
        op!(_mm256_sra_epi16(v, _mm_cvtsi32_si128(n as i32)))
    }

    #[inline(always)]
    fn join_digits(self, high: __m256i, low: __m256i, shift: u32) -> __m256i {
        op!({
            let high = _mm256_sll_epi32(high, _mm_cvtsi32_si128(shift as i32));
            _mm256_add_epi32(high, low)
        })
    }
}

impl Lanes for F {
    #[inline(always)]
    fn splat(v: f32) -> Self {
        F(op!(_mm256_set1_ps(v)))
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        F(op!(_mm256_add_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        F(op!(_mm256_sub_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        F(op!(_mm256_mul_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        F(op!(_mm256_div_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn less(self, o: Self, yes: Self, no: Self) -> Self {
        let mask = op!(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, o.0));
        F(op!(_mm256_blendv_ps(no.0, yes.0, mask)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        F(op!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)))
    }
    #[inline(always)]
    fn sign_of(self, o: Self) -> Self {
        let sign = op!(_mm256_set1_ps(-0.0));
        F(op!(_mm256_or_ps(
            _mm256_andnot_ps(sign, self.0),
            _mm256_and_ps(sign, o.0)
        )))
    }
    #[inline(always)]
    fn pow2_of_magic(self) -> Self {
        let bits = op!(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0)));
        F(op!(_mm256_castsi256_ps(_mm256_add_epi32(
            bits,
            _mm256_set1_epi32(0x3f80_0000)
        ))))
    }
}
