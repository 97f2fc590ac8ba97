//! Generation: from a prompt's tokens to text.

mod sampling;

pub use sampling::Sampling;
