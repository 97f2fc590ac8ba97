//! Bodies written once over a narrow lane trait, for every instruction set.
//!
//! `isa` is that trait; `rows` multiplies rows of the file's bytes with a few tokens; `panel` drives a matmul over panels of 16 rows; `panels_256`, `panels_32` and `panels_float` are
//! its kernels, `layouts_256` and `layouts_32` what the panels look like; `backend` makes a backend of an instruction set.

pub mod functions;

// An instruction set that has no SIMD backend yet uses none of these.
#[cfg(target_arch = "x86_64")]
mod attention;
#[cfg(target_arch = "x86_64")]
pub(crate) mod backend;
#[cfg(target_arch = "x86_64")]
mod elementwise;
#[cfg(target_arch = "x86_64")]
pub(crate) mod isa;
#[cfg(target_arch = "x86_64")]
mod layouts_256;
#[cfg(target_arch = "x86_64")]
mod layouts_32;
#[cfg(target_arch = "x86_64")]
mod panel;
#[cfg(target_arch = "x86_64")]
mod panels_256;
#[cfg(target_arch = "x86_64")]
mod panels_32;
#[cfg(target_arch = "x86_64")]
mod panels_float;
#[cfg(target_arch = "x86_64")]
mod rows;
