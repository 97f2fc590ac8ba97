//! GGUF: header, typed metadata, tensor directory.
//!
//! Bytes in, no I/O: the same parser serves a mapped file and the chunks of a fetch stream. Every bound is
//! checked before anything is allocated.
//!
//! [`Parser`] reads a header from chunks, [`Gguf`] is one file's header, [`GgufSet`] those of a model's files (one or
//! several), [`ModelFile`] the set with the bytes behind it, [`Writer`] the way back.

mod directory;
mod limits;
mod magic;
mod metadata;
mod model_file;
mod parser;
pub mod split;
mod value_type;
pub mod writer;

pub use directory::{DEFAULT_ALIGNMENT, Gguf, MAX_DIMS, TensorInfo};
pub use limits::Limits;
pub use metadata::{Array, Metadata, Value};
pub use model_file::ModelFile;
pub use parser::{Parser, Status};
pub use split::GgufSet;
pub use writer::{TensorSpec, Writer};
