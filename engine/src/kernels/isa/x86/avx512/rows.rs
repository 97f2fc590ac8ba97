//! Intrinsics of AVX-512 beside those of [`Isa`](crate::kernels::isa::Isa): for few tokens row by row, and for weights
//! and sums of whole tiles.

use std::arch::x86_64::*;

use super::{Avx512, Enter, dpwssd, repeat};
use crate::kernels::isa::{RowIsa, TileIsa};

impl<const SPLAT: bool, const L2: bool> RowIsa for Avx512<SPLAT, L2>
where
    Self: Enter,
{
    #[inline(always)]
    fn load_row(self, v: &[i8]) -> __m512i {
        let v = &v[..64];
        // SAFETY: the features are there, as in `op!`; the slice is as long, checked above; any alignment will do.
        unsafe { _mm512_loadu_si512(v.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_two(self, low: &[i8], high: &[i8]) -> __m512i {
        let (low, high) = (&low[..32], &high[..32]);
        // SAFETY: the features are there, as in `op!`; the lengths of both slices were checked above; any alignment
        // will do.
        unsafe {
            _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm256_loadu_si256(low.as_ptr().cast())),
                _mm256_loadu_si256(high.as_ptr().cast()),
            )
        }
    }

    #[inline(always)]
    fn repeat(self, bytes: &[u8; 16]) -> __m512i {
        repeat(*bytes)
    }

    #[inline(always)]
    fn join_u64(self, parts: &[u64]) -> __m512i {
        let [a, b, c, d, e, f, g, h] = std::array::from_fn(|i| parts[i] as i64);
        op!(_mm512_set_epi64(h, g, f, e, d, c, b, a))
    }

    #[inline(always)]
    fn join_u32(self, parts: &[u32]) -> __m512i {
        let p: [i32; 16] = std::array::from_fn(|i| parts[i] as i32);
        op!(_mm512_setr_epi32(
            p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13], p[14],
            p[15]
        ))
    }

    #[inline(always)]
    fn shuffle(self, v: __m512i, places: __m512i) -> __m512i {
        op!(_mm512_shuffle_epi8(v, places))
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_xor_si512(a, b))
    }

    #[inline(always)]
    fn abs8(self, v: __m512i) -> __m512i {
        op!(_mm512_abs_epi8(v))
    }

    #[inline(always)]
    fn average8(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_avg_epu8(a, b))
    }

    #[inline(always)]
    fn add16(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_add_epi16(a, b))
    }

    #[inline(always)]
    fn negate_by(self, x: __m512i, signs: __m512i) -> __m512i {
        op!(_mm512_mask_sub_epi8(
            x,
            _mm512_movepi8_mask(signs),
            _mm512_setzero_si512(),
            x
        ))
    }

    #[inline(always)]
    fn negate_where(self, x: __m512i, bits: &[u8]) -> __m512i {
        let bits: [u8; 8] = std::array::from_fn(|i| bits[i]);
        op!(_mm512_mask_sub_epi8(
            x,
            u64::from_le_bytes(bits),
            _mm512_setzero_si512(),
            x
        ))
    }

    #[inline(always)]
    fn products(self, w: __m512i, x: __m512i) -> __m512i {
        op!(_mm512_maddubs_epi16(w, x))
    }

    #[inline(always)]
    fn dot_pairs_of(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        op!(dpwssd(acc, a, b))
    }

    #[inline(always)]
    fn sums(self, v: [__m512i; 4]) -> [i32; 4] {
        let [a, b, c, d] = v;
        // Each 16 bytes: a0 + a2, b0 + b2, a1 + a3, b1 + b3.
        let ab = op!(_mm512_add_epi32(
            _mm512_unpacklo_epi32(a, b),
            _mm512_unpackhi_epi32(a, b)
        ));
        let cd = op!(_mm512_add_epi32(
            _mm512_unpacklo_epi32(c, d),
            _mm512_unpackhi_epi32(c, d)
        ));
        let all = op!(_mm512_add_epi32(
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd)
        ));
        let half = op!(_mm256_add_epi32(
            _mm512_castsi512_si256(all),
            _mm512_extracti64x4_epi64::<1>(all)
        ));
        let four = op!(_mm_add_epi32(
            _mm256_castsi256_si128(half),
            _mm256_extracti128_si256::<1>(half)
        ));
        let mut sums = [0i32; 4];
        // SAFETY: the features are there, as in `op!`; an array of that size; any alignment will do.
        unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), four) };
        sums
    }

    #[inline(always)]
    fn sums_of_32(self, v: [__m512i; 8]) -> [i32; 4] {
        let [a, b, ..] = v;
        let all = op!(_mm256_hadd_epi32(
            _mm256_hadd_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a)),
            _mm256_hadd_epi32(_mm512_castsi512_si256(b), _mm512_extracti64x4_epi64::<1>(b))
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
}

impl<const SPLAT: bool, const L2: bool> TileIsa for Avx512<SPLAT, L2>
where
    Self: Enter,
{
    #[inline(always)]
    fn sar16(self, v: __m512i, n: u32) -> __m512i {
        op!(_mm512_sra_epi16(v, _mm_cvtsi32_si128(n as i32)))
    }

    #[inline(always)]
    fn join_digits(self, high: __m512i, low: __m512i, shift: u32) -> __m512i {
        op!({
            let high = _mm512_sll_epi32(high, _mm_cvtsi32_si128(shift as i32));
            _mm512_add_epi32(high, low)
        })
    }
}
