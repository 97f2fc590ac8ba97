//! Block formats of GGUF tensors: sizes, the canonical decode, the integer form that kernels compute with,
//! and the quantizers.
//!
//! One file per family draws its blocks and unpacks them to a [`Step`]; [`step`] lists them and says what a step is;
//! [`decode()`] evaluates it as floats, [`encode()`] searches for the best one.

mod decode;
mod encode;
mod fp4;
pub(crate) mod grids;
mod iq;
mod iq4;
mod k;
mod legacy;
mod mix;
pub mod step;
mod tiny;
mod types;

pub use decode::decode;
pub use encode::{can_encode, encode};
pub use mix::{Mix, MixModel, QUANTIZATION_VERSION};
pub use step::{Step, StepUnpacker, has_min, max_abs_sum, step_len, step_unpacker};
pub use types::GgmlType;
pub(crate) use {
    fp4::{VALUES as FP4_VALUES, ue4m3_half},
    iq4::VALUES as IQ4_VALUES,
};
// For the one kernel that reads these scales as they are, which only x86 has.
#[cfg(target_arch = "x86_64")]
pub(crate) use iq::{iq1_m_d, iq1_m_scales};
