//! Arithmetic: what a backend must provide, the packed weight, and the activations it is multiplied with.
//!
//! The [`scalar`] backend defines every number (`docs/numerics.md`); another backend is a faster way to the same bits.
//! [`select`] is the only file that names all of them.
//!
//! The SIMD backends are one, over many instruction sets: `isa` has a list of intrinsics for each, `simd` the
//! operations and which kernel a type gets, `panel` the matrix product over weights in panels, `rows` that over a
//! file's rows. `tiles` is the way of many tokens through panels where a unit multiplies whole tiles (AMX).
//!
//! Shapes, in all of this module: m tokens, n outputs, k depth. Activations are rows of k, weights rows of k (one per
//! output), results rows of n.

mod activations;
mod attention;
mod backend;
pub mod functions;
#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
mod isa;
mod matrix;
#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
mod panel;
pub mod peak;
#[cfg(target_arch = "x86_64")]
mod rows;
pub mod scalar;
pub mod select;
#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
mod simd;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_feature = "simd128")]
#[path = "no_tiles.rs"]
mod tiles;

pub(crate) use activations::ActBuffer;
pub use activations::{ActFormat, Activations, Operand, QuantizedBlock, QuantizedRows};
pub(crate) use attention::q8_page_len;
pub use attention::{
    BLOCK, Distance, KvBlock, KvData, MAX_HEAD_DIM, Partials, QuantizedQueries, Queries, SPAN, attend_scratch,
};
pub(crate) use backend::MatmulKernel;
pub use backend::{Activation, Backend, Packing, Placement, RopeKind, Storage};
pub use matrix::PackedMatrix;
pub(crate) use matrix::matrix_rows;

/// Channels of a convolution that are computed together.
pub const CONV_WIDTH: usize = 64;

/// Columns that the state of a head is cut into, where it has `width`.
pub fn state_columns(width: usize) -> usize {
    scalar::recurrent::block_width(width)
}

/// Tokens that a unit for whole tiles (AMX) multiplies at a time; fewer go without it. `None` where this build knows no
/// such unit.
#[cfg(target_arch = "x86_64")]
pub const TILE_TOKENS: Option<usize> = Some(tiles::TILE_ROWS);
/// There is none elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub const TILE_TOKENS: Option<usize> = None;

/// Version of the numerics contract. It stands in every digest record; a change that moves any number bumps it.
pub const NUMERICS_VERSION: u32 = 2;
