//! Linux.
#![allow(unsafe_code)] // advice on memory that a slice borrows

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use libc::c_int;
use rustix::fs::{
    Access, AtFlags, CWD, MemfdFlags, OFlags, StatxAttributes, StatxFlags, accessat, memfd_create, statx,
};
use rustix::mm::Advice;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPUs that the calling thread may run on, ascending.
pub(crate) fn affinity() -> Option<Vec<usize>> {
    let set = sched_getaffinity(None).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Restricts the calling thread to some CPUs.
pub(crate) fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Bytes that this process may lock in memory; `None` for any number.
pub(crate) fn memlock_limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Bytes of address space and of data that this process may have; `None` for any number.
pub(crate) fn address_space_limits() -> (Option<u64>, Option<u64>) {
    let limit = |of| getrlimit(of).current;
    (limit(Resource::As), limit(Resource::Data))
}

/// The whole pages that `bytes` touch.
fn pages(bytes: &[u8]) -> (*mut std::ffi::c_void, usize) {
    let page = rustix::param::page_size();
    let start = bytes.as_ptr().addr() / page * page;
    let end = (bytes.as_ptr().addr() + bytes.len()).next_multiple_of(page);
    let before = bytes.as_ptr().addr() - start;
    let first = bytes.as_ptr().wrapping_sub(before);
    (first.cast_mut().cast(), end - start)
}

fn advise(bytes: &[u8], advice: Advice) -> io::Result<()> {
    let (start, len) = pages(bytes);
    // SAFETY: the pages hold at least `bytes`, so they are mapped; none of the kinds of advice given here changes what
    // memory holds or who may access it.
    Ok(unsafe { rustix::mm::madvise(start, len, advice) }?)
}

/// Whether something is mounted on this name: no other file can take it.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Brings memory in for reading, now.
pub(crate) fn populate(bytes: &[u8]) -> io::Result<()> {
    advise(bytes, Advice::LinuxPopulateRead)
}

/// Brings memory in for writing, now. What it holds stays as it is.
pub(crate) fn populate_for_writing(bytes: &[u8]) -> io::Result<()> {
    advise(bytes, Advice::LinuxPopulateWrite)
}

/// A file that has no name and lies in memory, and the path by which this process can open it again.
pub(crate) fn memory_file() -> io::Result<(File, PathBuf)> {
    let file = File::from(memfd_create("twinfer", MemfdFlags::CLOEXEC)?);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok((file, path.into()))
}

/// Asks for huge pages, which the system gives as it can.
pub(crate) fn use_huge_pages(bytes: &[u8]) -> io::Result<()> {
    advise(bytes, Advice::LinuxHugepage)
}

/// Makes zeros of it. Its pages come when they are written to, small ones, each on the node of who writes first: the
/// allocator may have given memory that was used before, and the system, left to itself, pages of 2 MiB.
pub(crate) fn zero_anew(bytes: &mut [u8]) -> io::Result<()> {
    let page = rustix::param::page_size();
    // Refused where the system has no huge pages.
    let _ = advise(bytes, Advice::LinuxNoHugepage);
    let before = bytes.as_ptr().align_offset(page).min(bytes.len());
    let (first, rest) = bytes.split_at_mut(before);
    let (whole, last) = rest.split_at_mut(rest.len() / page * page);
    first.fill(0);
    last.fill(0);
    // SAFETY: these pages hold nothing but `whole`, which nobody else can look at meanwhile. Being no file's, they read
    // as zeros afterwards.
    Ok(unsafe { rustix::mm::madvise(whole.as_mut_ptr().cast(), whole.len(), Advice::LinuxDontNeed) }?)
}

/// The node of the page that each byte is in; `None` for pages that are not there. By the system's numbers.
pub(crate) fn nodes_of(bytes: &[&u8]) -> io::Result<Vec<Option<usize>>> {
    let mut status = vec![0i32; bytes.len()];
    // SAFETY: asked with no nodes to move to, the call reads as many addresses as it writes numbers, and moves nothing.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            bytes.len(),
            bytes.as_ptr(),
            std::ptr::null::<i32>(),
            status.as_mut_ptr(),
            0,
        )
    };
    match done {
        0 => Ok(status
            .into_iter()
            .map(|node| usize::try_from(node).ok())
            .collect()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has this thread, and those that it starts from now on, take memory from this node as long as it has some.
pub(crate) fn prefer_memory_of(node: usize) -> io::Result<()> {
    set_memory_policy(libc::MPOL_PREFERRED, &[node])
}

/// Has this thread, and those that it starts from now on, take one page from each of these nodes in turn.
pub(crate) fn interleave_memory_of(nodes: &[usize]) -> io::Result<()> {
    set_memory_policy(libc::MPOL_INTERLEAVE, nodes)
}

fn set_memory_policy(policy: c_int, nodes: &[usize]) -> io::Result<()> {
    let mut mask = [0u64; 16];
    for node in nodes {
        let word = mask
            .get_mut(node / 64)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        *word |= 1 << (node % 64);
    }
    // SAFETY: the call reads the mask, which has as many bits as are named.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, policy, mask.as_ptr(), 64 * mask.len()) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps memory from being swapped out or dropped.
pub(crate) fn lock(bytes: &[u8]) -> io::Result<()> {
    let (start, len) = pages(bytes);
    // SAFETY: the pages are mapped, as above; locking changes nothing about what they hold.
    Ok(unsafe { rustix::mm::mlock(start, len) }?)
}

/// Begins to read a part of a file into the system's cache, and does not wait for it. See `read_ahead` for how much of
/// it is read.
pub(crate) fn will_need(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match NonZeroU64::new(len) {
        Some(len) => Ok(rustix::fs::fadvise(
            file,
            offset,
            Some(len),
            rustix::fs::Advice::WillNeed,
        )?),
        // To the system no length is all of the file.
        None => Ok(()),
    }
}

/// Whether the page of a mapped file is in the system's cache; nothing is read. Of a file that this user may neither
/// write to nor owns the system says that all pages are: see [`tells_of_cache`].
pub(crate) fn is_cached(byte: &u8) -> bool {
    let (start, len) = pages(std::slice::from_ref(byte));
    let mut found = [0u8; 1];
    // SAFETY: the page is mapped, for it holds the byte; the call writes one number for it.
    let done = unsafe { libc::mincore(start, len, found.as_mut_ptr()) };
    done == 0 && found[0] & 1 == 1
}

/// Whether the system tells this user which pages of a file are in its cache (mm/mincore.c).
pub(crate) fn tells_of_cache(path: &Path, metadata: &Metadata) -> bool {
    let user = rustix::process::geteuid();
    user.is_root()
        || metadata.uid() == user.as_raw()
        || accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// The numbers of the device that a file is on.
pub(crate) fn device_of(metadata: &Metadata) -> Option<(u32, u32)> {
    let device = metadata.dev();
    Some((rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Opens a file whose reads go past the system's cache: their memory, length and offset must be aligned to the disk's
/// blocks.
pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Reads from byte `offset` on, without moving the file's position; the bytes that were read.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}
