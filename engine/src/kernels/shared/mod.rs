//! Bodies written once over a narrow lane trait, for every instruction set.
//!
//! `isa` is that trait; `blocks` says how rows become panels, `rows` multiplies rows as they are in the file, `codebooks` those
//! over codebooks, `panel` drives a matmul over them; `steps_256`, `steps_32` and `floats` are its kernels, `lines_256` one more for
//! browsers, `layouts_256` and `layouts_32` what the panels hold; `backend` makes a backend of an instruction set.
// An instruction set that has no SIMD backend yet uses few of these, WebAssembly no kernels for rows.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_macros))]

mod attention;
pub(crate) mod backend;
mod blocks;
mod codebooks;
mod elementwise;
mod floats;
pub mod functions;
pub(crate) mod isa;
mod layouts_256;
mod layouts_32;
pub(crate) mod limits;
mod lines_256;
mod panel;
pub(crate) mod rows;
mod steps_256;
mod steps_32;
