//! The peak rates of AVX2 and AVX-512: loops whose every vector instruction is one that is measured.
//!
//! ```text
//!   AVX-512   vpdpbusd: 64 operations. 12 sums hide its latency.
//!   AVX-VNNI  the same of 32.
//!   AVX2      8 x vpmaddubsw (32 operations each) + 7 x vpaddw, then vpmaddwd + vpaddd: the cheapest exact sum of int8
//!             products that this instruction set has, and that of the 4-bit kernels.
//! ```

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Avx2, Avx512, Enter};
use crate::kernels::peak::simd::Peak;
use crate::kernels::peak::{Done, LINE};

/// An intrinsic on registers, or a function of this module that enables the instructions it needs. What touches memory
/// has an `unsafe` of its own, which says why it stays within an array.
macro_rules! op {
    ($($call:tt)+) => {
        // SAFETY: the methods below are those of a type whose value proves the features, and they alone call the
        // functions with features.
        unsafe { $($call)+ }
    };
}

/// Hides from the compiler what a register holds, without an instruction: operations on it are neither moved out of a
/// loop nor merged.
macro_rules! opaque {
    ($class:ident $value:expr) => {
        // SAFETY: an empty text; the register stays as it is.
        unsafe { asm!("/* {0} */", inout($class) $value, options(nomem, nostack, preserves_flags)) }
    };
}

/// Sums that dot products and multiplications go round.
const SUMS: usize = 12;

/// The sum of all words.
#[target_feature(enable = "avx2")]
fn avx2_total(sums: &[__m256i]) -> u32 {
    sums.iter().fold(0, |total, sum| {
        let mut words = [0u32; 8];
        // SAFETY: 32 bytes are written, an array of 8 words; any alignment will do.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), *sum) };
        words.iter().fold(total, |a, b| a.wrapping_add(*b))
    })
}

#[target_feature(enable = "avx2")]
fn avx2_dots(rounds: usize) -> Done {
    let mut sums = [_mm256_setzero_si256(); 4];
    let (mut w, mut x) = (_mm256_set1_epi8(3), _mm256_set1_epi8(5));
    let mut ones = _mm256_set1_epi16(1);
    opaque!(ymm_reg x);
    opaque!(ymm_reg ones);
    for _ in 0..rounds {
        for sum in &mut sums {
            opaque!(ymm_reg w);
            let mut group = _mm256_maddubs_epi16(w, x);
            for _ in 1..8 {
                opaque!(ymm_reg w);
                group = _mm256_add_epi16(group, _mm256_maddubs_epi16(w, x));
            }
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(group, ones));
        }
    }
    Done {
        operations: (rounds * 4 * 8 * 32) as u64,
        checksum: avx2_total(&sums).into(),
    }
}

#[target_feature(enable = "avx2,avxvnni")]
fn avx_vnni_dots(rounds: usize) -> Done {
    let mut sums = [_mm256_setzero_si256(); SUMS];
    let (mut w, mut x) = (_mm256_set1_epi8(3), _mm256_set1_epi8(5));
    opaque!(ymm_reg w);
    opaque!(ymm_reg x);
    for sum in &mut sums {
        opaque!(ymm_reg * sum);
    }
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, w, x);
        }
    }
    Done {
        operations: (rounds * SUMS * 32) as u64,
        checksum: avx2_total(&sums).into(),
    }
}

#[target_feature(enable = "avx2")]
fn avx2_multiply_adds(rounds: usize) -> Done {
    let mut sums = [_mm256_setzero_ps(); SUMS];
    let (mut a, mut b) = (_mm256_set1_ps(0.5), _mm256_set1_ps(2.0));
    opaque!(ymm_reg b);
    for _ in 0..rounds {
        for sum in &mut sums {
            opaque!(ymm_reg a);
            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(a, b));
        }
    }
    let checksum = sums.iter().fold(0, |total, sum| {
        let mut lanes = [0f32; 8];
        // SAFETY: 8 floats are written, the length of the array; any alignment will do.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), *sum) };
        lanes.iter().fold(total, |a, b| a + *b as u64)
    });
    Done {
        operations: (rounds * SUMS * 8) as u64,
        checksum,
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512_dots(rounds: usize) -> Done {
    let mut sums = [_mm512_setzero_si512(); SUMS];
    let (mut w, mut x) = (_mm512_set1_epi8(3), _mm512_set1_epi8(5));
    opaque!(zmm_reg w);
    opaque!(zmm_reg x);
    for sum in &mut sums {
        opaque!(zmm_reg * sum);
    }
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, w, x);
        }
    }
    let checksum = sums.iter().fold(0u32, |total, sum| {
        total.wrapping_add(_mm512_reduce_add_epi32(*sum) as u32)
    });
    Done {
        operations: (rounds * SUMS * 64) as u64,
        checksum: checksum.into(),
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512_multiply_adds(rounds: usize) -> Done {
    let mut sums = [_mm512_setzero_ps(); SUMS];
    let (mut a, mut b) = (_mm512_set1_ps(0.5), _mm512_set1_ps(2.0));
    opaque!(zmm_reg b);
    for _ in 0..rounds {
        for sum in &mut sums {
            opaque!(zmm_reg a);
            *sum = _mm512_add_ps(*sum, _mm512_mul_ps(a, b));
        }
    }
    let checksum = sums.iter().fold(0, |total, sum| {
        let mut lanes = [0f32; 16];
        // SAFETY: 16 floats are written, the length of the array; any alignment will do.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), *sum) };
        lanes.iter().fold(total, |a, b| a + *b as u64)
    });
    Done {
        operations: (rounds * SUMS * 16) as u64,
        checksum,
    }
}

impl<const VNNI: bool> Peak for Avx2<VNNI>
where
    Self: Enter,
{
    type Sums = [__m256i; 4];

    #[inline(always)]
    fn sums(self) -> Self::Sums {
        [op!(_mm256_setzero_si256()); 4]
    }

    #[inline(always)]
    fn add_line<const NARROW: bool>(self, sums: &mut Self::Sums, line: &[u8; LINE]) {
        let at = line.as_ptr();
        for (i, sum) in sums.iter_mut().enumerate() {
            let v = if NARROW {
                // SAFETY: the features are there, as in `op!`; `i` is below 4, so the 16 bytes lie within the line
                // of 64.
                unsafe { _mm256_zextsi128_si256(_mm_loadu_si128(at.add(16 * i).cast())) }
            } else if i < 2 {
                // SAFETY: the features are there, as in `op!`; `i` is below 2, so the 32 bytes lie within the line
                // of 64.
                unsafe { _mm256_loadu_si256(at.add(32 * i).cast()) }
            } else {
                return;
            };
            *sum = op!(_mm256_add_epi32(*sum, v));
        }
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> u32 {
        op!(avx2_total(&sums))
    }

    #[inline(always)]
    fn dots(self, rounds: usize) -> Done {
        if VNNI {
            op!(avx_vnni_dots(rounds))
        } else {
            op!(avx2_dots(rounds))
        }
    }

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> Done {
        op!(avx2_multiply_adds(rounds))
    }
}

impl Peak for Avx512<false> {
    type Sums = [__m512i; 4];

    #[inline(always)]
    fn sums(self) -> Self::Sums {
        [op!(_mm512_setzero_si512()); 4]
    }

    #[inline(always)]
    fn add_line<const NARROW: bool>(self, sums: &mut Self::Sums, line: &[u8; LINE]) {
        let at = line.as_ptr();
        if !NARROW {
            // Additions of one line a cycle do not wait for each other long enough to matter: one sum does.
            // SAFETY: the features are there, as in `op!`; 64 bytes are read, the length of the line.
            let v = unsafe { _mm512_loadu_si512(at.cast()) };
            sums[0] = op!(_mm512_add_epi32(sums[0], v));
            return;
        }
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the features are there, as in `op!`; `i` is below 4, so the 16 bytes lie within the line of 64.
            let v = unsafe { _mm512_zextsi128_si512(_mm_loadu_si128(at.add(16 * i).cast())) };
            *sum = op!(_mm512_add_epi32(*sum, v));
        }
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> u32 {
        sums.iter().fold(0, |total, sum| {
            total.wrapping_add(op!(_mm512_reduce_add_epi32(*sum)) as u32)
        })
    }

    #[inline(always)]
    fn dots(self, rounds: usize) -> Done {
        op!(avx512_dots(rounds))
    }

    #[inline(always)]
    fn multiply_adds(self, rounds: usize) -> Done {
        op!(avx512_multiply_adds(rounds))
    }
}
