//! Systems on which nothing of this is done.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// CPUs that the calling thread may run on.
pub(crate) fn affinity() -> Option<Vec<usize>> {
    None
}

/// Whether something is mounted on this name.
pub(crate) fn is_mount_point(_: &Path) -> bool {
    false
}

/// Restricts the calling thread to some CPUs.
pub(crate) fn set_affinity(_: &[usize]) -> io::Result<()> {
    unsupported()
}

/// Bytes that this process may lock in memory; `None` for any number.
pub(crate) fn memlock_limit() -> Option<u64> {
    None
}

/// Brings memory in for reading, now.
pub(crate) fn populate(_: &[u8]) -> io::Result<()> {
    unsupported()
}

/// Brings memory in for writing, now.
pub(crate) fn populate_for_writing(_: &[u8]) -> io::Result<()> {
    unsupported()
}

/// A file that lies in memory.
pub(crate) fn memory_file() -> io::Result<(File, PathBuf)> {
    unsupported()
}

/// Asks for huge pages.
pub(crate) fn use_huge_pages(_: &[u8]) -> io::Result<()> {
    unsupported()
}

/// Keeps memory from being swapped out or dropped.
pub(crate) fn lock(_: &[u8]) -> io::Result<()> {
    unsupported()
}
