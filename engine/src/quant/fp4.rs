//! The 4-bit floating-point types: mxfp4, nvfp4.
//!
//! ```text
//!   mxfp4  e u8 | qs 16          32 weights: w = 2^(e - 128) * VALUES[q]
//!            byte j holds weight j in its low and weight j + 16 in its high nibble
//!   nvfp4  d 4 bytes | qs 32     4 groups of 16: w = ue4m3(d[g]) / 2 * VALUES[q]
//!            byte 8*g + j holds weights 16*g + j (low) and 16*g + j + 8 (high)
//! ```
//!
//! `VALUES` are twice the e2m1 numbers, so that they are integers; the scales are halved in return. The scale byte 255
//! of mxfp4 is NaN in the OCP standard; ggml takes it for 2^127, and so do we.
//!
//! Source: OCP Microscaling Formats v1.0; `block_mxfp4`, `block_nvfp4` in ggml's `ggml-common.h`,
//! `ggml_e8m0_to_fp32_half` and `ggml_ue4m3_to_fp32` in `ggml-impl.h`.

use super::step::{Step, plain};

/// Twice the value of each e2m1 code.
pub(crate) const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of 2^(e - 127), the e8m0 number `e`; exact, subnormal for 0 and 1.
#[inline(always)]
pub(super) fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(match e {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        _ => u32::from(e - 1) << 23,
    })
}

/// Half of the unsigned e4m3 number (bias 7); the top bit is ignored, 0x7f (NaN) counts as 0, as in ggml.
#[inline(always)]
pub(super) fn ue4m3_half(x: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(x >> 3) & 15, x & 7);
    if x == 0x7f {
        0.0
    } else if exponent == 0 {
        // 2^-10 * mantissa
        f32::from(mantissa) * f32::from_bits((127 - 10) << 23)
    } else {
        // (8 + mantissa) / 8 * 2^(exponent - 7) / 2
        f32::from(8 + mantissa) * f32::from_bits((exponent + 127 - 11) << 23)
    }
}

pub(super) fn mxfp4(b: &[u8; 17], _: usize, out: &mut Step) {
    plain(out, e8m0_half(b[0]));
    for (j, &b) in b[1..].iter().enumerate() {
        out.q[j] = VALUES[usize::from(b & 15)];
        out.q[j + 16] = VALUES[usize::from(b >> 4)];
    }
}

pub(super) fn nvfp4(b: &[u8; 36], group: usize, out: &mut Step) {
    plain(out, ue4m3_half(b[group % 4]));
    for (j, &b) in b[4 + 8 * (group % 4)..][..8].iter().enumerate() {
        out.q[j] = VALUES[usize::from(b & 15)];
        out.q[j + 8] = VALUES[usize::from(b >> 4)];
    }
}
