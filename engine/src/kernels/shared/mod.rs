//! Bodies written once over a narrow lane trait, for every instruction set.

pub mod functions;
