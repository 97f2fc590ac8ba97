//! Block formats of GGUF tensors: sizes, the canonical decode, the integer form that kernels compute with,
//! and the quantizers.

mod types;

pub use types::GgmlType;
