//! Hostile models through the whole load path: malformed and nonsensical files get an error that says what is wrong,
//! with little memory and time, and never a panic. Headers alone are in `tests/gguf`.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)] // helpers of tests

mod contexts;
mod encoders;
mod experts;
mod families;
mod hyperparameters;
mod latent;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/memory.rs"]
mod memory;
mod random;
mod reference;
mod seeds;
mod shared_layers;
mod small;
#[path = "../support/special_ids.rs"]
mod special_ids;
mod states;
mod tensors;
mod vocabularies;
mod weights;
