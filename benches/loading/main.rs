//! From a model's file to the first token, cold and warm, for each way of loading: `cargo bench -p twinfer-benches
//! --bench loading`, and with `-- --docs` the table of docs/machine.md. Beside the time of each its share of the disk's
//! or the memory's rate, which are measured in the same run, faults of pages, and the most memory that the process had.
//!
//! The program is built and a model of random weights is made first; `-- --model FILE` takes another one, which should
//! be no larger than half of the memory. Cold is what the system's cache holds nothing of: root empties it whole,
//! anyone else asks it to forget the file.
#![allow(missing_docs, reason = "a program")]

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("what is measured here only Linux tells");
}
