//! The integer form that every kernel computes with: a step of weights as `(d * scale) * q - dmin * min`.
//!
//! ```text
//!   weight   0 ....... 15 | 16 ...... 31 | ... | 240 ..... 255
//!   q        i8 each                                              small integers, code values or grid points
//!   scale    scale[0]     | scale[1]     | ... | scale[15]        i8, one per 16 weights
//!   min      min[0]       | min[1]       | ... | min[15]          u8, one per 16 weights
//!   d, dmin  one float each for the whole step
//! ```
//!
//! Formats whose groups are 32 weights wide repeat the entry. Inside a step a dot product with int8 activations is
//! exact in 32-bit integers: the largest |sum of scale * q * 127| over a step is, per type,
//!
//! | type | largest scale * q | weights | bound |
//! |---|---|---|---|
//! | q4_0, q4_1, q5_0, q5_1, q8_0 | 8, 15, 16, 31, 128 | 32 | 520 192 (q8_0) |
//! | iq4_nl, mxfp4, q1_0, q2_0 | 127, 12, 1, 2 | 32 | 516 128 (iq4_nl) |
//! | nvfp4 | 12 | 16 | 24 384 |
//! | q2_k | 15 * 3 | 256 | 1 463 040 |
//! | q3_k | 32 * 4 | 256 | 4 161 536 |
//! | q4_k | 63 * 15 | 256 | 30 723 840 |
//! | q5_k | 63 * 31 | 256 | 63 495 936 |
//! | q6_k | 128 * 32 | 256 | 133 169 152 |
//! | iq1_s, iq1_m | 15 * 9 | 256 | 4 389 120 |
//! | iq2_xxs, iq2_xs, iq2_s | 31 * 43 | 256 | 43 338 496 |
//! | iq3_xxs | 31 * 62 | 256 | 62 488 064 |
//! | iq3_s | 31 * 15 | 256 | 15 118 080 |
//! | iq4_xs | 32 * 127 | 256 | 132 128 768 |
//! | tq1_0, tq2_0 | 1, 2 | 256 | 65 024 |
//!
//! and the minimum's part, `sum of min * 127`, is at most 63 * 127 * 256 = 2 048 256. [`max_abs_sum`] states the bound.

use super::{GgmlType, fp4, iq, iq4, k, legacy, tiny};

/// Up to 256 weights as scaled integers: weight `i` is `(d * scale[i / 16]) * q[i] - dmin * min[i / 16]`.
///
/// Only the first [`step_len`] weights of the type, and their groups, hold anything; the rest keeps what was there
/// before. `q` is never -128 but in q8_0, whose files may hold that byte (no quantizer writes it).
#[derive(Debug, Clone)]
pub struct Step {
    /// The integers, one per weight.
    pub q: [i8; 256],
    /// The integer factor of each group of 16 weights.
    pub scale: [i8; 16],
    /// The integer minimum of each group of 16 weights; 0 for the types without one.
    pub min: [u8; 16],
    /// The factor of the whole step. It can be infinite or NaN in a damaged file.
    pub d: f32,
    /// The factor of the minima; 0 for the types without them.
    pub dmin: f32,
}

impl Default for Step {
    fn default() -> Self {
        Step {
            q: [0; 256],
            scale: [0; 16],
            min: [0; 16],
            d: 0.0,
            dmin: 0.0,
        }
    }
}

/// Weights per step: 256 for the types with blocks of 256, 16 for nvfp4, 32 for all other quantized types
/// (a block of q2_0 gives 2 steps, one of q1_0 gives 4), and 1 for floats and integers.
pub const fn step_len(ty: GgmlType) -> usize {
    match ty {
        GgmlType::NVFP4 => 16,
        _ => match ty.block_len() {
            256 => 256,
            1 => 1,
            _ => 32,
        },
    }
}

/// Whether weights of this type have a minimum: `w = d * (scale * q) - dmin * min`, not `w = d * (scale * q)`.
pub const fn has_min(ty: GgmlType) -> bool {
    matches!(
        ty,
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q2_K | GgmlType::Q4_K | GgmlType::Q5_K
    )
}

/// The largest |sum over a step of `scale * q * x`| for |x| at most 127: what an i32 accumulator must hold.
/// 0 for floats and integers, which have no steps.
pub const fn max_abs_sum(ty: GgmlType) -> i32 {
    let largest = match ty {
        GgmlType::Q4_0 => 8,
        GgmlType::Q4_1 => 15,
        GgmlType::Q5_0 => 16,
        GgmlType::Q5_1 => 31,
        GgmlType::Q8_0 => 128,
        GgmlType::Q2_K => 15 * 3,
        GgmlType::Q3_K => 32 * 4,
        GgmlType::Q4_K => 63 * 15,
        GgmlType::Q5_K => 63 * 31,
        GgmlType::Q6_K => 128 * 32,
        GgmlType::IQ1_S | GgmlType::IQ1_M => 15 * 9,
        GgmlType::IQ2_XXS | GgmlType::IQ2_XS | GgmlType::IQ2_S => 31 * 43,
        GgmlType::IQ3_XXS => 31 * 62,
        GgmlType::IQ3_S => 31 * 15,
        GgmlType::IQ4_NL => 127,
        GgmlType::IQ4_XS => 32 * 127,
        GgmlType::TQ1_0 | GgmlType::Q1_0 => 1,
        GgmlType::TQ2_0 | GgmlType::Q2_0 => 2,
        GgmlType::MXFP4 | GgmlType::NVFP4 => 12,
        GgmlType::F32
        | GgmlType::F16
        | GgmlType::BF16
        | GgmlType::F64
        | GgmlType::I8
        | GgmlType::I16
        | GgmlType::I32
        | GgmlType::I64 => 0,
    };
    largest * 127 * step_len(ty) as i32
}

/// Unpacks one step of a row: `(row, step, out)`, the step counted over the whole row.
///
/// A step that the row does not hold gives `Step::default()`. Never allocates, never panics.
pub type StepUnpacker = fn(row: &[u8], step: usize, out: &mut Step);

/// The unpacker of this type; `None` for floats and integers, which are not quantized.
pub fn step_unpacker(ty: GgmlType) -> Option<StepUnpacker> {
    Some(match ty {
        GgmlType::Q4_0 => |row, i, out| unpack::<18, 1>(row, i, out, legacy::q4_0),
        GgmlType::Q4_1 => |row, i, out| unpack::<20, 1>(row, i, out, legacy::q4_1),
        GgmlType::Q5_0 => |row, i, out| unpack::<22, 1>(row, i, out, legacy::q5_0),
        GgmlType::Q5_1 => |row, i, out| unpack::<24, 1>(row, i, out, legacy::q5_1),
        GgmlType::Q8_0 => |row, i, out| unpack::<34, 1>(row, i, out, legacy::q8_0),
        GgmlType::Q2_K => |row, i, out| unpack::<84, 1>(row, i, out, k::q2_k),
        GgmlType::Q3_K => |row, i, out| unpack::<110, 1>(row, i, out, k::q3_k),
        GgmlType::Q4_K => |row, i, out| unpack::<144, 1>(row, i, out, k::q4_k),
        GgmlType::Q5_K => |row, i, out| unpack::<176, 1>(row, i, out, k::q5_k),
        GgmlType::Q6_K => |row, i, out| unpack::<210, 1>(row, i, out, k::q6_k),
        GgmlType::IQ1_S => |row, i, out| unpack::<50, 1>(row, i, out, iq::iq1_s),
        GgmlType::IQ1_M => |row, i, out| unpack::<56, 1>(row, i, out, iq::iq1_m),
        GgmlType::IQ2_XXS => |row, i, out| unpack::<66, 1>(row, i, out, iq::iq2_xxs),
        GgmlType::IQ2_XS => |row, i, out| unpack::<74, 1>(row, i, out, iq::iq2_xs),
        GgmlType::IQ2_S => |row, i, out| unpack::<82, 1>(row, i, out, iq::iq2_s),
        GgmlType::IQ3_XXS => |row, i, out| unpack::<98, 1>(row, i, out, iq::iq3_xxs),
        GgmlType::IQ3_S => |row, i, out| unpack::<110, 1>(row, i, out, iq::iq3_s),
        GgmlType::IQ4_NL => |row, i, out| unpack::<18, 1>(row, i, out, iq4::iq4_nl),
        GgmlType::IQ4_XS => |row, i, out| unpack::<136, 1>(row, i, out, iq4::iq4_xs),
        GgmlType::TQ1_0 => |row, i, out| unpack::<54, 1>(row, i, out, tiny::tq1_0),
        GgmlType::TQ2_0 => |row, i, out| unpack::<66, 1>(row, i, out, tiny::tq2_0),
        GgmlType::MXFP4 => |row, i, out| unpack::<17, 1>(row, i, out, fp4::mxfp4),
        GgmlType::NVFP4 => |row, i, out| unpack::<36, 4>(row, i, out, fp4::nvfp4),
        GgmlType::Q1_0 => |row, i, out| unpack::<18, 4>(row, i, out, tiny::q1_0),
        GgmlType::Q2_0 => |row, i, out| unpack::<18, 2>(row, i, out, tiny::q2_0),
        GgmlType::F32
        | GgmlType::F16
        | GgmlType::BF16
        | GgmlType::F64
        | GgmlType::I8
        | GgmlType::I16
        | GgmlType::I32
        | GgmlType::I64 => return None,
    })
}

/// Finds the block of step `i`, blocks being `BYTES` long and holding `STEPS` steps, and unpacks it with `block`, whose
/// second argument is the step inside the block.
#[inline(always)]
fn unpack<const BYTES: usize, const STEPS: usize>(
    row: &[u8],
    i: usize,
    out: &mut Step,
    block: impl Fn(&[u8; BYTES], usize, &mut Step),
) {
    match row.as_chunks::<BYTES>().0.get(i / STEPS) {
        Some(bytes) => block(bytes, i % STEPS, out),
        None => *out = Step::default(),
    }
}

/// The half-precision number at the start of `bytes`.
#[inline(always)]
pub(super) fn f16_at<const N: usize>(bytes: &[u8; N], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32_const()
}

/// What a step of a type without minima and without group scales has beside `q`.
#[inline(always)]
pub(super) fn plain(out: &mut Step, d: f32) {
    out.scale = [1; 16];
    out.min = [0; 16];
    out.d = d;
    out.dmin = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_fit_the_blocks() {
        for &ty in GgmlType::ALL {
            assert_eq!(ty.block_len() % step_len(ty), 0, "{ty:?}");
            assert_eq!(step_unpacker(ty).is_some(), ty.is_weight() && !ty.is_float());
            assert_eq!(max_abs_sum(ty) > 0, step_unpacker(ty).is_some());
        }
        assert_eq!(step_len(GgmlType::Q1_0), 32);
        assert_eq!(step_len(GgmlType::NVFP4), 16);
        assert_eq!(step_len(GgmlType::F32), 1);
    }

    #[test]
    fn a_step_beyond_the_row_is_zero() {
        for &ty in GgmlType::ALL {
            let Some(unpack) = step_unpacker(ty) else { continue };
            let row = vec![0x55; ty.block_bytes()];
            let steps = ty.block_len() / step_len(ty);
            for step in [steps, steps + 1, usize::MAX] {
                let mut out = Step::default();
                unpack(&row, 0, &mut out);
                unpack(&row, step, &mut out);
                assert_eq!(out.d, 0.0);
                assert!(out.q.iter().all(|&q| q == 0), "{ty:?}");
            }
        }
    }
}
