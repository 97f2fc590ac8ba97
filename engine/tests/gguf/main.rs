//! GGUF: the reference vectors, hostile headers, chunked parsing, split files and the writer.
//!
//! Reference data is read from `../shared/reference` beside the project. Where it is not there, the tests that need it
//! say so and are left out.
#![allow(missing_docs)]

mod build;
mod chunks;
mod hostile;
mod limits;
#[path = "../support/memory.rs"]
mod memory;
mod metadata;
mod reference;
mod round_trip;
mod split;
