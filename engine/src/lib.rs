//! twinfer's engine: a language model from a GGUF file, the same answer on every platform.
//!
//! The way of the data, one module after the other, no back references:
//!
//! [`gguf`] (bytes -> header, typed metadata, tensor directory) -> [`quant`] (block formats) ->
//! [`kernels`] (packed matrices and the arithmetic) -> [`cache`] and [`batch`] (what a pass remembers, and what it
//! computes) -> [`model`] (configuration, bound weights, forward pass) -> [`context`] (batches of tokens in, logits
//! out) -> [`sample`] -> [`tokenizer`] -> [`generation`] -> text. Below all of them lie [`memory`] and [`team`], which the platform lends.
//! What puts a conversation into a model's chat template is a crate of its own, `twinfer-template`.
//!
//! That it is the same answer everywhere can be checked: [`digest`] of the logits, [`record`] of a model, [`trace`] of every
//! operation.
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
