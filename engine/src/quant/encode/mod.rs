//! The quantizers: floats to blocks, with the least squared error that a bounded search finds.
//!
//! Every type's search gives a [`Step`], the integer form; the packers beside the unpackers write it as a block. The
//! result is the same on every platform: no operation but add, subtract, multiply, divide, compare and round.

mod affine;
mod group;
mod scaled;

use group::{Group, Iq4, Uniform};
use scaled::Effort;

use super::step::Step;
use super::{GgmlType, fp4, iq4, k, legacy};
use crate::{Error, Result};

/// Whether [`encode`] can write this type.
pub const fn can_encode(ty: GgmlType) -> bool {
    matches!(
        ty,
        GgmlType::F32
            | GgmlType::F16
            | GgmlType::BF16
            | GgmlType::Q4_0
            | GgmlType::Q4_1
            | GgmlType::Q5_0
            | GgmlType::Q5_1
            | GgmlType::Q8_0
            | GgmlType::Q2_K
            | GgmlType::Q3_K
            | GgmlType::Q4_K
            | GgmlType::Q5_K
            | GgmlType::Q6_K
            | GgmlType::IQ4_NL
            | GgmlType::IQ4_XS
            | GgmlType::MXFP4
    )
}

/// Quantizes whole rows into `out`, minimizing the squared error.
///
/// `importance` weighs the error: one number per column, so its length is that of a row; none means equal weights. For
/// the float types it changes nothing.
///
/// # Errors
/// `InvalidInput` where the type has no quantizer, the lengths do not fit (`src` a whole number of blocks and of rows,
/// `out` exactly its blocks), a weight is not finite or beyond what the type can hold, or an importance is negative or
/// not finite.
pub fn encode(ty: GgmlType, src: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> Result<()> {
    if !can_encode(ty) {
        return Err(invalid(format!("there is no quantizer for {}", ty.name())));
    }
    if ty.row_bytes(src.len()) != Some(out.len()) {
        return Err(invalid(format!(
            "encode {}: expected blocks of {} weights in {} bytes each, found {} weights and {} bytes",
            ty.name(),
            ty.block_len(),
            ty.block_bytes(),
            src.len(),
            out.len()
        )));
    }
    check_weights(ty, src)?;
    let importance = importance
        .map(|w| check_importance(ty, src.len(), w))
        .transpose()?;
    match ty {
        GgmlType::F32 => floats(src, out, f32::to_le_bytes),
        GgmlType::F16 => floats(src, out, |x| half::f16::from_f32_const(x).to_le_bytes()),
        GgmlType::BF16 => floats(src, out, |x| half::bf16::from_f32_const(x).to_le_bytes()),
        GgmlType::Q4_0 => blocks::<32, 18>(src, importance, out, |g, step, b| {
            scaled::one_level::<Uniform<8, 7>>(
                g,
                &Effort {
                    beyond: 2.4,
                    stride: 0.2,
                },
                step,
            );
            legacy::pack_q4_0(step, b);
        }),
        GgmlType::Q5_0 => blocks::<32, 22>(src, importance, out, |g, step, b| {
            scaled::one_level::<Uniform<16, 15>>(
                g,
                &Effort {
                    beyond: 1.8,
                    stride: 0.2,
                },
                step,
            );
            legacy::pack_q5_0(step, b);
        }),
        GgmlType::Q8_0 => blocks::<32, 34>(src, importance, out, |g, step, b| {
            scaled::one_level::<Uniform<127, 127>>(
                g,
                &Effort {
                    beyond: 0.6,
                    stride: 0.15,
                },
                step,
            );
            legacy::pack_q8_0(step, b);
        }),
        GgmlType::Q4_1 => blocks::<32, 20>(src, importance, out, |g, step, b| {
            affine::one_level(g, 15.0, step);
            legacy::pack_q4_1(step, b);
        }),
        GgmlType::Q5_1 => blocks::<32, 24>(src, importance, out, |g, step, b| {
            affine::one_level(g, 31.0, step);
            legacy::pack_q5_1(step, b);
        }),
        GgmlType::Q2_K => blocks::<256, 84>(src, importance, out, |g, step, b| {
            affine::two_levels::<16>(g, 3.0, 15.0, affine::COARSE, step);
            k::pack_q2_k(step, b);
        }),
        GgmlType::Q3_K => blocks::<256, 110>(src, importance, out, |g, step, b| {
            scaled::two_levels::<Uniform<4, 3>, 16>(
                g,
                31.0,
                &Effort {
                    beyond: 1.6,
                    stride: 0.2,
                },
                step,
            );
            k::pack_q3_k(step, b);
        }),
        GgmlType::Q4_K => blocks::<256, 144>(src, importance, out, |g, step, b| {
            affine::two_levels::<32>(g, 15.0, 63.0, affine::FINE, step);
            k::pack_q4_k(step, b);
        }),
        GgmlType::Q5_K => blocks::<256, 176>(src, importance, out, |g, step, b| {
            affine::two_levels::<32>(g, 31.0, 63.0, affine::FINE, step);
            k::pack_q5_k(step, b);
        }),
        GgmlType::Q6_K => blocks::<256, 210>(src, importance, out, |g, step, b| {
            scaled::two_levels::<Uniform<32, 31>, 16>(
                g,
                127.0,
                &Effort {
                    beyond: 1.2,
                    stride: 0.2,
                },
                step,
            );
            k::pack_q6_k(step, b);
        }),
        GgmlType::IQ4_NL => blocks::<32, 18>(src, importance, out, |g, step, b| {
            scaled::one_level::<Iq4>(
                g,
                &Effort {
                    beyond: 40.0,
                    stride: 3.0,
                },
                step,
            );
            iq4::pack_iq4_nl(step, b);
        }),
        GgmlType::IQ4_XS => blocks::<256, 136>(src, importance, out, |g, step, b| {
            scaled::two_levels::<Iq4, 32>(
                g,
                31.0,
                &Effort {
                    beyond: 40.0,
                    stride: 3.0,
                },
                step,
            );
            iq4::pack_iq4_xs(step, b);
        }),
        GgmlType::MXFP4 => blocks::<32, 17>(src, importance, out, |g, _, b| fp4::encode_mxfp4(g.x, g.w, b)),
        _ => return Err(invalid(format!("there is no quantizer for {}", ty.name()))),
    }
    Ok(())
}

fn invalid(what: String) -> Error {
    Error::InvalidInput { what }
}

/// The largest magnitude that every block of the type can hold.
fn limit(ty: GgmlType) -> f32 {
    match ty {
        GgmlType::F32 | GgmlType::MXFP4 => f32::MAX,
        // Rounds up to infinity above this.
        GgmlType::BF16 => f32::from_bits(0x7f7f_7fff),
        _ => 65504.0,
    }
}

fn check_weights(ty: GgmlType, src: &[f32]) -> Result<()> {
    let limit = limit(ty);
    for (i, &x) in src.iter().enumerate() {
        if !x.is_finite() {
            return Err(invalid(format!(
                "encode {}: weight {i} is {x}; only finite weights can be stored",
                ty.name()
            )));
        }
        if x.abs() > limit {
            return Err(invalid(format!(
                "encode {}: weight {i} is {x:e}, beyond the type's range of {limit:e}",
                ty.name()
            )));
        }
    }
    Ok(())
}

fn check_importance(ty: GgmlType, weights: usize, importance: &[f32]) -> Result<&[f32]> {
    let n = importance.len();
    if n == 0 || !weights.is_multiple_of(n) || !n.is_multiple_of(ty.block_len()) {
        return Err(invalid(format!(
            "encode {}: expected an importance for each column, found {n} for {weights} weights in blocks of {}",
            ty.name(),
            ty.block_len()
        )));
    }
    for (i, &w) in importance.iter().enumerate() {
        if !(w.is_finite() && w >= 0.0) {
            return Err(invalid(format!(
                "encode {}: the importance of column {i} is {w}; expected a finite number, not negative",
                ty.name()
            )));
        }
    }
    Ok(importance)
}

fn floats<const N: usize>(src: &[f32], out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (b, &x) in out.as_chunks_mut::<N>().0.iter_mut().zip(src) {
        *b = bytes(x);
    }
}

/// Runs the search for each block of `LEN` weights, with importances scaled to at most 1.
fn blocks<const LEN: usize, const BYTES: usize>(
    src: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    search: impl Fn(Group<'_>, &mut Step, &mut [u8; BYTES]),
) {
    let mut step = Step::default();
    let mut w = [1.0f32; LEN];
    let per_row = importance.map_or(1, |i| i.len() / LEN);
    for (i, (x, b)) in src
        .as_chunks::<LEN>()
        .0
        .iter()
        .zip(out.as_chunks_mut::<BYTES>().0)
        .enumerate()
    {
        if let Some(importance) = importance {
            weigh(&importance[LEN * (i % per_row)..][..LEN], &mut w);
        }
        search(Group { x, w: &w }, &mut step, b);
    }
}

/// Importances relative to the block's largest. A weight that counts for nothing still counts a little, so that every
/// group has a best scale.
fn weigh(importance: &[f32], w: &mut [f32]) {
    let mut largest = 0.0;
    for &i in importance {
        largest = if i > largest { i } else { largest };
    }
    for (w, &i) in w.iter_mut().zip(importance) {
        let relative = if largest > 0.0 { i / largest } else { 1.0 };
        *w = if relative < 1e-6 { 1e-6 } else { relative };
    }
}
