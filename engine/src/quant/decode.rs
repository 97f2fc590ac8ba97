//! The canonical decode: what the numbers in a tensor's bytes are, as 32-bit floats.
//!
//! Bit-exact to ggml's `dequantize_row_*`. It evaluates the integer form of [`super::step`]: the products
//! `(d * scale) * q` and `dmin * min` are exact in f32 (11 bits of an f16 scale, at most 8 of `scale`, at most 7 of
//! `q`, and no subnormals but in mxfp4, where both factors are exact), so at most one operation, the subtraction,
//! rounds.

use super::GgmlType;
use super::step::{Step, StepUnpacker, has_min, step_len, step_unpacker};
use crate::{Error, Result};

/// Decodes a whole number of blocks.
///
/// `out` takes as many weights as `bytes` holds. Scales that are not finite give weights that are not finite.
///
/// # Errors
/// `InvalidInput` where `bytes` is not a whole number of blocks, `out` has another length than the weights in `bytes`,
/// or the type is an integer or F64, which no weight has.
pub fn decode(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if !ty.is_weight() {
        return Err(Error::InvalidInput {
            what: format!("{} is no type of weights and is not decoded to floats", ty.name()),
        });
    }
    if ty.row_bytes(out.len()) != Some(bytes.len()) {
        return Err(Error::InvalidInput {
            what: format!(
                "decode {}: expected blocks of {} bytes for {} weights each, found {} bytes for {} weights",
                ty.name(),
                ty.block_bytes(),
                ty.block_len(),
                bytes.len(),
                out.len()
            ),
        });
    }
    match ty {
        GgmlType::F32 => floats(bytes, out, f32::from_le_bytes),
        GgmlType::F16 => floats(bytes, out, |b| half::f16::from_le_bytes(b).to_f32_const()),
        GgmlType::BF16 => floats(bytes, out, |b| half::bf16::from_le_bytes(b).to_f32_const()),
        _ => {
            if let Some(unpack) = step_unpacker(ty) {
                steps(ty, bytes, out, unpack);
            }
        }
    }
    Ok(())
}

fn floats<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (w, &b) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *w = number(b);
    }
}

fn steps(ty: GgmlType, bytes: &[u8], out: &mut [f32], unpack: StepUnpacker) {
    let mut step = Step::default();
    let (len, min) = (step_len(ty), has_min(ty));
    for (i, out) in out.chunks_exact_mut(len).enumerate() {
        unpack(bytes, i, &mut step);
        evaluate(&step, min, out);
    }
}

/// The canonical decode of one step, `out` as long as the type's steps are. `min` says whether the type has minima.
#[inline(always)]
pub(crate) fn evaluate(step: &Step, min: bool, out: &mut [f32]) {
    for (g, (out, q)) in out.chunks_exact_mut(16).zip(step.q.chunks_exact(16)).enumerate() {
        let d = step.d * f32::from(step.scale[g]);
        if min {
            let m = step.dmin * f32::from(step.min[g]);
            for (w, &q) in out.iter_mut().zip(q) {
                *w = d * f32::from(q) - m;
            }
        } else {
            for (w, &q) in out.iter_mut().zip(q) {
                *w = d * f32::from(q);
            }
        }
    }
}
