//! Each kernel by itself: `cargo bench -p twinfer-benches -- FILTER`. How to read it: `benches/README.md`.
//!
//! A result is compared with the scalar backend's, bit for bit, before it is timed. Without `--bench` (as `cargo test`
//! runs it) every kernel is run once on small shapes: that is the comparison alone.
#![allow(missing_docs, reason = "a program")]

mod batches;
mod matmul;
mod meter;
mod operations;

use anyhow::Result;
use criterion::Criterion;

use meter::Meter;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut meter = Meter::new()?;
    batches::run(&meter);
    matmul::run(&mut criterion, &mut meter);
    operations::run(&mut criterion, &mut meter);
    criterion.final_summary();
    meter.table();
    Ok(())
}
