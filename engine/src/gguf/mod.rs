//! GGUF: header, typed metadata, tensor directory.
//!
//! Bytes in, no I/O: the same parser serves a mapped file and the chunks of a fetch stream. Every bound is
//! checked before anything is allocated.

mod metadata;

pub use metadata::{Array, Metadata, Value};
