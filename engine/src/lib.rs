//! twinfer's engine: a language model from a GGUF file, the same answer on every platform.
//!
//! A module imports only what stands before it here:
//!
//! - [`memory`] and [`team`], which the platform lends; [`math`] and [`digest`].
//! - [`quant`] (tensor types, block formats), which [`gguf`] (bytes -> header, typed metadata, tensor directory) and
//!   [`kernels`] (packed matrices and the arithmetic) know.
//! - [`batch`] and [`cache`] (what a pass computes, and what it remembers).
//! - [`model`] (configuration, bound weights, forward pass) and [`context`] (batches of tokens in, logits out).
//! - [`sample`] and [`tokenizer`], which know of all these only [`gguf`].
//! - [`generation`] (the loop that makes text), and what shows that the answer is the same everywhere: [`record`] of a
//!   model, [`trace`] of every operation.
//!
//! What puts a conversation into a model's chat template is a crate of its own, `twinfer-template`.
//!
//! The crate opens no files and no sockets, reads no clock and starts no threads: `native` and `web` do.
#![deny(missing_docs)]

pub mod batch;
pub mod cache;
pub mod context;
pub mod digest;
pub mod error;
pub mod generation;
pub mod gguf;
mod handles;
pub mod kernels;
pub mod math;
pub mod memory;
pub mod model;
pub mod quant;
pub mod record;
pub mod sample;
pub mod team;
pub mod tokenizer;
pub mod trace;

pub use error::{Error, Result};
