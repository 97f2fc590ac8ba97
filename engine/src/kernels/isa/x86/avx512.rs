//! AVX-512 with VNNI: 16 rows in a register, `vpdpbusd` for 4 bytes of each.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes without saturation and takes the activations as a broadcast memory
//! operand. Signed weights are made unsigned by adding 128; the sums of the activations take it out again.

use std::arch::x86_64::*;

use super::processor::Processor;
use super::{Enter, byte_to_i32, isa};
use crate::kernels::functions::Lanes;
use crate::kernels::isa::{ContiguousRows, Isa, Op, bytes_to_i16, lane_shuffle};

/// Proof that the machine has AVX-512 F, BW, VL, DQ and VNNI (Zen 4, Ice Lake and later). `SPLAT`: [`Isa::add_times`]
/// puts the number into a register. `L2`: [`Isa::prefetch`] brings lines to the second-level cache.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Avx512<const SPLAT: bool, const L2: bool = false>(());

isa! {
    ["avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vnni" "avx2" "f16c"]
    Avx512<false>, enter;
    Avx512<true>, enter_splat;
    Avx512<false, true>, enter_l2;
    Avx512<true, true>, enter_splat_l2
}

impl<const SPLAT: bool, const L2: bool> Avx512<SPLAT, L2> {
    /// The same instructions, numbers put into registers, where this processor is faster with that.
    #[inline(always)]
    pub(in crate::kernels) fn with_splats(self) -> Option<Avx512<true, L2>> {
        // The same features: `self` proves them.
        (!SPLAT && !Processor::of_machine().splats_cost).then_some(Avx512(()))
    }

    /// The same instructions, prefetches to the second-level cache, where this processor is faster with that.
    #[inline(always)]
    pub(in crate::kernels) fn into_l2(self) -> Option<Avx512<SPLAT, true>> {
        (!L2 && Processor::of_machine().prefetch_to_l2).then_some(Avx512(()))
    }
}

/// Sixteen floats. Private: made only by the methods of [`Avx512`], whose existence proves the instructions.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct F(__m512);

/// An intrinsic on registers, which the type's existence makes safe to run. What touches memory has an `unsafe` of its
/// own, which says why it stays within a slice.
macro_rules! op {
    ($($call:tt)+) => {
        // SAFETY: a value of `Avx512` (or of `F`, which only it makes) exists only where detection found the features,
        // and they are all that an intrinsic on registers asks for.
        unsafe { $($call)+ }
    };
}

// After `op!`: a module sees only the macros that are defined before it.
mod rows;

#[inline(always)]
fn repeat(shuffle: [u8; 16]) -> __m512i {
    // SAFETY: the features are there, as in `op!`; 16 bytes of an array; any alignment will do.
    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(shuffle.as_ptr().cast())) }
}

/// `vpdpwssd`. As an intrinsic the compiler takes it apart on processors it is not told about: into a product and a
/// sum, which are twice as many instructions where the window of instructions in flight is what a tile is short of.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dpwssd(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the one instruction reads and writes these registers only.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {acc}, {a}, {b}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// `sum + v * x`, the number a part of the multiplication. Left to itself the compiler loads it once for several
/// products, which costs Zen 4 a sixth of the speed of attention.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_times(mut sum: __m512, v: __m512, x: &f32) -> __m512 {
    let product: __m512;
    // SAFETY: the first instruction reads the number that `x` refers to, the second registers only.
    unsafe {
        std::arch::asm!(
            "vmulps {product}, {v}, dword ptr [{x}]{{1to16}}",
            "vaddps {sum}, {sum}, {product}",
            product = out(zmm_reg) product,
            sum = inout(zmm_reg) sum,
            v = in(zmm_reg) v,
            x = in(reg) x,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    // Not `out(zmm_reg) _`: that is given the name of another kind of register.
    let _ = product;
    sum
}

/// See [`Isa::black_box`].
#[inline]
#[target_feature(enable = "avx512f")]
fn black_box(mut v: __m512i) -> __m512i {
    // SAFETY: there is no instruction in it.
    unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) v, options(nostack, preserves_flags)) };
    v
}

impl<const SPLAT: bool, const L2: bool> Isa for Avx512<SPLAT, L2>
where
    Self: Enter,
{
    const NAME: &'static str = "avx512";
    const LANES: usize = 16;
    const MR: usize = 6;
    const NR: usize = 32;
    const SIDE_BY_SIDE: usize = 1;
    const BIAS: i32 = 128;
    const WIDE_GROUPS: bool = true;

    type V = __m512i;
    type F = F;
    type X = __m512i;
    type SignedX = __m512i;

    #[inline(always)]
    fn run<O: Op<Self>>(self, op: O) -> O::Output {
        self.enter(op)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m512i {
        let bytes = &bytes[..64];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
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
    fn black_box(self, v: __m512i) -> __m512i {
        op!(black_box(v))
    }

    #[inline(always)]
    fn store(self, v: __m512i, bytes: &mut [u8]) {
        let bytes = &mut bytes[..64];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), v) };
    }

    #[inline(always)]
    fn join(self, rows: &ContiguousRows<'_>, first: usize, at: usize) -> __m512i {
        let (p, next) = rows.every_fourth::<4>(first, at);
        // SAFETY: the features are there, as in `op!`; 16 bytes at each place, as `every_fourth` promises; any
        // alignment will do.
        unsafe {
            let low = _mm256_loadu2_m128i(p.add(next).cast(), p.cast());
            let high = _mm256_loadu2_m128i(p.add(3 * next).cast(), p.add(2 * next).cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        op!({
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab2, cd2) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab2, cd2),
                _mm512_unpackhi_epi64(ab2, cd2),
            ]
        })
    }

    #[inline(always)]
    fn store_split(self, v: __m512i, low: &mut [u8], high: &mut [u8]) {
        let (low, high) = (&mut low[..32], &mut high[..32]);
        // SAFETY: the features are there, as in `op!`; the lengths of both slices were checked above; any alignment
        // will do.
        unsafe {
            _mm256_storeu_si256(low.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(v));
            _mm256_storeu_si256(
                high.as_mut_ptr().cast(),
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(v)),
            );
        };
    }

    #[inline(always)]
    fn splat8(self, v: u8) -> __m512i {
        op!(_mm512_set1_epi8(v as i8))
    }

    #[inline(always)]
    fn splat32(self, v: u32) -> __m512i {
        op!(_mm512_set1_epi32(v as i32))
    }

    #[inline(always)]
    fn zero(self) -> __m512i {
        op!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn shl16(self, v: __m512i, n: u32) -> __m512i {
        op!(_mm512_sll_epi16(v, _mm_cvtsi32_si128(n as i32)))
    }

    #[inline(always)]
    fn shr16(self, v: __m512i, n: u32) -> __m512i {
        op!(_mm512_srl_epi16(v, _mm_cvtsi32_si128(n as i32)))
    }

    #[inline(always)]
    fn add8(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_add_epi8(a, b))
    }

    #[inline(always)]
    fn sub8(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_sub_epi8(a, b))
    }

    #[inline(always)]
    fn mul16(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_mullo_epi16(a, b))
    }

    #[inline(always)]
    fn equal8(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_movm_epi8(_mm512_cmpeq_epi8_mask(a, b)))
    }

    #[inline(always)]
    fn shuffle_lanes(self, v: __m512i, pattern: [u8; 4]) -> __m512i {
        op!(_mm512_shuffle_epi8(v, repeat(lane_shuffle(pattern))))
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], v: __m512i) -> __m512i {
        op!(_mm512_shuffle_epi8(repeat(table.map(|v| v as u8)), v))
    }

    #[inline(always)]
    fn activations(self, quads: &[[i8; 4]], i: usize) -> __m512i {
        self.splat32(u32::from_le_bytes(quads[i].map(|v| v as u8)))
    }

    #[inline(always)]
    fn signed_activations(self, quads: &[[i8; 4]], i: usize) -> __m512i {
        self.activations(quads, i)
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        op!(_mm512_dpbusd_epi32(acc, w, x))
    }

    #[inline(always)]
    fn biased(self, w: __m512i) -> __m512i {
        op!(_mm512_xor_si512(w, _mm512_set1_epi8(-128)))
    }

    #[inline(always)]
    fn dot_signed(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        self.dot(acc, w, x)
    }

    #[inline(always)]
    fn factor(self, bytes: __m512i, j: usize, sign_extend: bool, _: bool) -> __m512i {
        let v = op!(_mm512_shuffle_epi8(bytes, repeat(byte_to_i32(j, sign_extend))));
        if sign_extend {
            op!(_mm512_srai_epi32::<24>(v))
        } else {
            v
        }
    }

    #[inline(always)]
    fn add_scaled(self, sum: __m512i, group: __m512i, factor: __m512i, _: bool) -> __m512i {
        op!(_mm512_add_epi32(sum, _mm512_mullo_epi32(group, factor)))
    }

    #[inline(always)]
    fn add_group(self, sum: __m512i, group: __m512i, _: bool) -> __m512i {
        op!(_mm512_add_epi32(sum, group))
    }

    #[inline(always)]
    fn pairs(self, bytes: __m512i, j: usize) -> __m512i {
        op!(_mm512_shuffle_epi8(
            bytes,
            repeat(bytes_to_i16(2 * j, 2 * j + 1, false))
        ))
    }

    #[inline(always)]
    fn pairs_negated(self, bytes: __m512i, j: usize, shift: u32) -> __m512i {
        let high = op!(_mm512_shuffle_epi8(
            bytes,
            repeat(bytes_to_i16(2 * j, 2 * j + 1, true))
        ));
        let v = op!(_mm512_sra_epi16(high, _mm_cvtsi32_si128(8 - shift as i32)));
        op!(_mm512_sub_epi16(_mm512_setzero_si512(), v))
    }

    #[inline(always)]
    fn splat16(self, v: i16) -> __m512i {
        op!(_mm512_set1_epi16(v))
    }

    #[inline(always)]
    fn dot_pairs(self, acc: __m512i, a: __m512i, x: [i16; 2]) -> __m512i {
        let x = i32::from(x[0] as u16) | i32::from(x[1]) << 16;
        op!(dpwssd(acc, a, _mm512_set1_epi32(x)))
    }

    #[inline(always)]
    fn to_f(self, v: __m512i) -> F {
        F(op!(_mm512_cvtepi32_ps(v)))
    }

    #[inline(always)]
    fn load_f(self, v: &[f32]) -> F {
        let v = &v[..16];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm512_loadu_ps(v.as_ptr()) })
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..64];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..32];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())) })
    }

    #[inline(always)]
    fn f16_of_lanes(self, v: __m512i, upper: bool) -> F {
        let v = if upper { op!(_mm512_srli_epi32::<16>(v)) } else { v };
        F(op!(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(v))))
    }

    #[inline(always)]
    fn load_halves(self, v: &[u16]) -> F {
        let v = &v[..16];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(v.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..32];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        let wide = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.as_ptr().cast())) };
        F(op!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))))
    }

    #[inline(always)]
    fn store_f(self, v: F, out: &mut [f32]) {
        let out = &mut out[..16];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v.0) };
    }

    #[inline(always)]
    fn store_i8(self, v: F, out: &mut [i8]) {
        let out = &mut out[..16];
        let bytes = op!(_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v.0)));
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) };
    }

    #[inline(always)]
    fn max_magnitude(self, v: &[f32]) -> u32 {
        let mut max = self.zero();
        for v in v.as_chunks::<16>().0 {
            // SAFETY: the features are there, as in `op!`; an array of that size; any alignment will do.
            let bits = unsafe { _mm512_loadu_si512(v.as_ptr().cast()) };
            let magnitude = op!(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fff_ffff)));
            max = op!(_mm512_max_epu32(max, magnitude));
        }
        op!(_mm512_reduce_max_epu32(max))
    }

    const QUERIES: usize = 6;

    #[inline(always)]
    fn add_times(self, sum: F, v: F, x: &f32) -> F {
        if SPLAT {
            sum.add(v.mul(F::splat(*x)))
        } else {
            F(op!(add_times(sum.0, v.0, x)))
        }
    }

    #[inline(always)]
    fn max_f(self, a: F, b: F) -> F {
        // vmaxps gives its second operand where neither is greater.
        F(op!(_mm512_max_ps(b.0, a.0)))
    }

    #[inline(always)]
    fn max_lane(self, v: F) -> f32 {
        op!({
            let v = _mm256_max_ps(_mm512_castps512_ps256(v.0), _mm512_extractf32x8_ps::<1>(v.0));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn sum_lane(self, v: F) -> f32 {
        op!({
            let v = _mm256_add_ps(_mm512_castps512_ps256(v.0), _mm512_extractf32x8_ps::<1>(v.0));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8]) -> F {
        let bytes = &bytes[..16];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        F(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn store_halves(self, v: F, out: &mut [u16]) -> bool {
        let out = &mut out[..16];
        let halves = op!(_mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(v.0));
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), halves) };
        let exponent = op!(_mm256_set1_epi16(0x7c00));
        op!(_mm256_cmpeq_epi16_mask(
            _mm256_and_si256(halves, exponent),
            exponent
        )) == 0
    }
}

impl Lanes for F {
    #[inline(always)]
    fn splat(v: f32) -> Self {
        F(op!(_mm512_set1_ps(v)))
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        F(op!(_mm512_add_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        F(op!(_mm512_sub_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        F(op!(_mm512_mul_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        F(op!(_mm512_div_ps(self.0, o.0)))
    }
    #[inline(always)]
    fn less(self, o: Self, yes: Self, no: Self) -> Self {
        let mask = op!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0));
        F(op!(_mm512_mask_blend_ps(mask, no.0, yes.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        F(op!(_mm512_abs_ps(self.0)))
    }
    #[inline(always)]
    fn sign_of(self, o: Self) -> Self {
        let sign = op!(_mm512_set1_ps(-0.0));
        F(op!(_mm512_or_ps(
            _mm512_andnot_ps(sign, self.0),
            _mm512_and_ps(sign, o.0)
        )))
    }
    #[inline(always)]
    fn pow2_of_magic(self) -> Self {
        let bits = op!(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)));
        F(op!(_mm512_castsi512_ps(_mm512_add_epi32(
            bits,
            _mm512_set1_epi32(0x3f80_0000)
        ))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the two forms runs depends on the processor; both must give the numbers of the other tests.
    #[test]
    fn both_forms_of_add_times_round_twice() {
        let Some(isa) = Avx512::<false>::detect() else {
            return;
        };
        let v: [f32; 16] = std::array::from_fn(|i| (i as f32 - 7.5) * 1.000_1e3);
        let sums: [f32; 16] = std::array::from_fn(|i| 1.0 / (i as f32 + 3.0));
        for x in [0.0, -0.0, 1.0, -1.234_567e-3, 7.7e11, f32::MIN_POSITIVE] {
            let mut got = [[0.0; 16]; 2];
            let [memory, register] = &mut got;
            isa.store_f(isa.add_times(isa.load_f(&sums), isa.load_f(&v), &x), memory);
            let splat = Avx512::<true>(());
            splat.store_f(
                splat.add_times(splat.load_f(&sums), splat.load_f(&v), &x),
                register,
            );
            for got in got {
                for i in 0..16 {
                    assert_eq!(got[i].to_bits(), (sums[i] + v[i] * x).to_bits(), "{x} {i}");
                }
            }
        }
    }
}
