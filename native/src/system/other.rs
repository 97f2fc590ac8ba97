//! Systems on which nothing of this is done.

use std::fs::{File, Metadata};
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

/// Bytes of address space and of data that this process may have.
pub(crate) fn address_space_limits() -> (Option<u64>, Option<u64>) {
    (None, None)
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

/// Makes zeros of it, which come anew when they are written to.
pub(crate) fn zero_anew(_: &mut [u8]) -> io::Result<()> {
    unsupported()
}

/// Keeps memory from being swapped out or dropped.
pub(crate) fn lock(_: &[u8]) -> io::Result<()> {
    unsupported()
}

/// The node of the page that each byte is in.
pub(crate) fn nodes_of(_: &[&u8]) -> io::Result<Vec<Option<usize>>> {
    unsupported()
}

/// Asks for memory of a node.
pub(crate) fn prefer_memory_of(_: usize) -> io::Result<()> {
    unsupported()
}

/// Begins to read a part of a file into the system's cache.
pub(crate) fn will_need(_: &File, _: u64, _: u64) -> io::Result<()> {
    unsupported()
}

/// Whether the page of a mapped file is in the system's cache.
pub(crate) fn is_cached(_: &u8) -> bool {
    false
}

/// Whether the system tells which pages are.
pub(crate) fn tells_of_cache(_: &Path, _: &Metadata) -> bool {
    false
}

/// The numbers of the device that a file is on.
pub(crate) fn device_of(_: &Metadata) -> Option<(u32, u32)> {
    None
}

/// Takes memory from some nodes in turn.
pub(crate) fn interleave_memory_of(_: &[usize]) -> io::Result<()> {
    unsupported()
}

/// Opens a file whose reads go past the system's cache.
pub(crate) fn open_direct(_: &Path) -> io::Result<File> {
    unsupported()
}

/// Reads from byte `offset` on.
pub(crate) fn read_at(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    unsupported()
}
