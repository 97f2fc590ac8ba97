//! Bodies written once over a narrow lane trait, for every instruction set.
//!
//! `isa` is that trait; `blocks` says how rows become panels, `panel` drives a matmul over them; `steps_256`, `steps_32`
//! and `floats` are its kernels, `layouts_256` and `layouts_32` what the panels hold; `backend` makes a backend of an
//! instruction set.

pub mod functions;

// An instruction set that has no SIMD backend yet uses none of these.
#[cfg(target_arch = "x86_64")]
mod attention;
#[cfg(target_arch = "x86_64")]
pub(crate) mod backend;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod elementwise;
#[cfg(target_arch = "x86_64")]
mod floats;
#[cfg(target_arch = "x86_64")]
pub(crate) mod isa;
#[cfg(target_arch = "x86_64")]
mod layouts_256;
#[cfg(target_arch = "x86_64")]
mod layouts_32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod limits;
#[cfg(target_arch = "x86_64")]
mod panel;
#[cfg(target_arch = "x86_64")]
mod steps_256;
#[cfg(target_arch = "x86_64")]
mod steps_32;
