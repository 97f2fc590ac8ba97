//! Block formats of GGUF tensors: sizes, the canonical decode, the integer form that kernels compute with,
//! and the quantizers.
//!
//! One file per family draws its blocks and unpacks them to a [`Step`]; [`step`] lists them and says what a step is;
//! [`decode()`] evaluates it as floats.

mod decode;
mod fp4;
mod grids;
mod iq;
mod iq4;
mod k;
mod legacy;
pub mod step;
mod tiny;
mod types;

pub use decode::decode;
pub use step::{Step, StepUnpacker, has_min, max_abs_sum, step_len, step_unpacker};
pub use types::GgmlType;

#[allow(missing_docs)]
mod temporary {
    use super::*;
    #[derive(Debug, Clone)]
    pub struct Step {
        pub q: [i8; 256],
        pub scale: [i8; 16],
        pub min: [u8; 16],
        pub d: f32,
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
    pub const fn step_len(ty: GgmlType) -> usize {
        match ty.block_len() {
            256 => 256,
            1 => 1,
            _ => 32,
        }
    }
    pub const fn has_min(_: GgmlType) -> bool {
        false
    }
    pub fn step_unpacker(ty: GgmlType) -> Option<fn(&[u8], usize, &mut Step)> {
        match ty {
            GgmlType::Q8_0 => Some(|row, s, out| {
                let b = &row[s * 34..s * 34 + 34];
                out.d = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
                out.scale = [1; 16];
                for (q, b) in out.q.iter_mut().zip(&b[2..]) {
                    *q = *b as i8;
                }
            }),
            _ => None,
        }
    }
    pub fn decode(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> crate::Result<()> {
        match ty {
            GgmlType::F32 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]])
                }
            }
            GgmlType::F16 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *o = half::f16::from_le_bytes([b[0], b[1]]).to_f32()
                }
            }
            _ => {}
        }
        Ok(())
    }
}
pub use temporary::*;
