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
pub(crate) fn ue4m3_half(x: u8) -> f32 {
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

/// Quantizes 32 weights to the scale and codes of least squared error, each counted `importance` times.
///
/// In f64, since the scales span all of f32.
pub(super) fn encode_mxfp4(x: &[f32], importance: &[f32], b: &mut [u8; 17]) {
    let mut largest = 0.0f32;
    for &x in x {
        largest = if x.abs() > largest { x.abs() } else { largest };
    }
    // The exponent byte that puts the largest weight at 4 to 8 (of 6 at most), as the OCP standard has it.
    let standard = (largest.to_bits() >> 23) as i32 - 2;
    let mut best = (f64::INFINITY, 0u8);
    for e in standard - 2..=standard + 2 {
        // Above 252 the largest code passes the range of f32.
        let e = e.clamp(0, 252) as u8;
        let d = f64::from(e8m0_half(e));
        let mut error = 0.0;
        for (&x, &w) in x[..32].iter().zip(importance) {
            let x = f64::from(x.abs());
            let miss = x - d * magnitude(x / d).0;
            error += f64::from(w) * miss * miss;
        }
        if error < best.0 {
            best = (error, e);
        }
    }
    let d = f64::from(e8m0_half(best.1));
    let code = |x: f32| magnitude(f64::from(x.abs()) / d).1 | u8::from(x < 0.0) << 3;
    b[0] = best.1;
    for (j, b) in b[1..].iter_mut().enumerate() {
        *b = code(x[j]) | code(x[j + 16]) << 4;
    }
}

/// The magnitude nearest to `v`, which is not negative, and its code.
fn magnitude(v: f64) -> (f64, u8) {
    let code = VALUES[..8].windows(2).fold(0, |code, pair| {
        code + u8::from(2.0 * v > f64::from(pair[0]) + f64::from(pair[1]))
    });
    (f64::from(VALUES[usize::from(code)]), code)
}
