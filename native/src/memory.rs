//! Memory that the engine is lent: files mapped, and pages for packed weights; huge pages for these, for a pass's
//! buffers and for the cache.
//!
//! ```text
//!   packed weights    [ matrix | matrix | matrix |    free    ]  one reservation of 256 MiB or more, at a multiple of
//!                     in huge pages where the system has them  2 MiB; the next one where a matrix does not fit
//! ```
//!
//! Matrices lie one after the other, so that all of it can be huge pages: in mappings of their own the ends would be
//! small pages, and the memory of huge ones would reach beyond them. What no matrix has touched takes no memory. What
//! is for a node has reservations of its own: a page is on one node.
#![allow(unsafe_code)] // mapping files, and disjoint parts of one mapping

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use memmap2::{Mmap, MmapOptions, MmapRaw, UncheckedAdvice};
use twinfer_engine::Error;
use twinfer_engine::memory::{ALIGNMENT, Buffer, Heap, Memory};
use twinfer_engine::memory::{Bytes, Owner};

use crate::address_space::Unmapped;
use crate::{failure, mapped, output_file, read_ahead, system};

/// Size of a huge page on x86-64.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Address space that is reserved at a time.
const RESERVATION: usize = 256 << 20;

/// Maps a file.
pub(crate) fn map(path: &Path) -> Result<Bytes> {
    let shown = path.display();
    // Before it is opened: opening a FIFO waits for somebody to write to it.
    let metadata = std::fs::metadata(path).map_err(|error| failure::no_file(path, "open", error))?;
    if metadata.is_dir() {
        bail!("`{shown}` is a directory; give the .gguf file in it");
    }
    if !metadata.is_file() {
        bail!(
            "`{shown}` is not a regular file; models are mapped into memory, so write it to a file and give that"
        );
    }
    let file = File::open(path).with_context(|| format!("cannot open `{shown}`"))?;
    output_file::protect(path);
    let metadata = file
        .metadata()
        .with_context(|| format!("cannot open `{shown}`"))?;
    if metadata.len() == 0 {
        // There is nothing to map; the parser says what is missing.
        return Ok(Bytes::from_static(&[]));
    }
    read_ahead::header(&file, &metadata);
    // SAFETY: the map is read-only. If another process shortens the file meanwhile, reading the lost pages raises a
    // signal that ends this process, as `mapped` says; one that writes to it changes the numbers that are read. No lock
    // prevents either, for this program as for every one that maps files.
    let map = unsafe { Mmap::map(&file) };
    let refused = |error| Unmapped {
        bytes: metadata.len(),
        error,
    };
    let map = map
        .map_err(refused)
        .with_context(|| format!("cannot map `{shown}`"))?;
    let listed = mapped::list(&map, path, &metadata);
    Ok(Bytes::owned_by(FileMap { listed, map }))
}

/// A mapped file. Pages that are released go back to the system's cache of the file, and come again when they are read.
struct FileMap {
    /// It goes before the map does.
    listed: mapped::Listed,
    map: Mmap,
}

impl Owner for FileMap {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn release(&self, range: Range<usize>) {
        self.listed.give_back(range.len());
        // Pages that the range only touches stay: a neighbour may be reading them.
        const PAGE: usize = 4096;
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if start < end {
            // SAFETY: the map is of a file and nobody writes to it, so that pages dropped here are read again from the
            // file as they were. Where it fails they stay, which costs memory alone.
            let _ = unsafe {
                self.map
                    .unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }
}

/// Bytes of address space that are reserved for a matrix of so many; `None` where there are not so many.
fn reservation_of(len: usize) -> Option<usize> {
    let whole = len.checked_next_multiple_of(HUGE_PAGE)?.max(RESERVATION);
    whole.checked_add(HUGE_PAGE)
}

/// Bytes of address space that packed weights of so many bytes take at least, saturating.
pub(crate) fn reserved(packed: u64) -> u64 {
    let whole = (RESERVATION + HUGE_PAGE) as u64;
    packed.div_ceil(RESERVATION as u64).saturating_mul(whole)
}

/// Pages for packed weights.
#[derive(Debug)]
pub(crate) struct Pages {
    huge: bool,
    /// Whether nodes share the cache, where a huge page would hold heads of two of them.
    divided_cache: bool,
    /// Of what is for no node, of the first node, of the second, ...
    open: Mutex<Vec<Option<Open>>>,
}

/// A reservation that matrices are put into at present.
#[derive(Debug)]
struct Open {
    map: Arc<MmapRaw>,
    /// Where the next matrix may begin.
    next: usize,
}

impl Pages {
    /// `huge`: advise the system to use huge pages; `nodes` share the cache.
    pub(crate) fn new(huge: bool, nodes: usize) -> Self {
        Pages {
            huge,
            divided_cache: nodes > 1,
            open: Mutex::default(),
        }
    }

    fn reserve(&self, len: usize) -> twinfer_engine::Result<Open> {
        let refused = |what: &str, bytes: usize| Error::Memory {
            what: what.into(),
            bytes: bytes as u64,
        };
        let no_memory = || refused("packed weights", len);
        let whole = reservation_of(len).ok_or_else(no_memory)?;
        // The address space is as a rule without limit, memory is not: what cannot be had is refused before it is
        // written to.
        if system::available_memory().is_some_and(|free| len as u64 > free) {
            return Err(no_memory());
        }
        let map = MmapOptions::new().len(whole).no_reserve_swap().map_anon();
        let map = map.map_err(|_| refused("a reservation of address space for packed weights", whole))?;
        let next = map.as_ptr().align_offset(HUGE_PAGE) % HUGE_PAGE;
        if self.huge {
            // Where the system has none, small pages do.
            let _ = system::use_huge_pages(&map);
        }
        Ok(Open {
            map: Arc::new(map.into()),
            next,
        })
    }
}

impl Memory for Pages {
    fn zeroed(&self, len: usize, node: Option<usize>) -> twinfer_engine::Result<Box<dyn Buffer>> {
        if len == 0 {
            return Heap.zeroed(0, node);
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of = node.map_or(0, |node| node + 1);
        if open.len() <= of {
            open.resize_with(of + 1, || None);
        }
        let open = &mut open[of];
        let fits = |open: &Open| {
            open.next
                .checked_add(len)
                .is_some_and(|end| end <= open.map.len())
        };
        let place = match open {
            Some(place) if fits(place) => place,
            _ => open.insert(self.reserve(len)?),
        };
        let start = place.next;
        place.next = (start + len).next_multiple_of(ALIGNMENT);
        Ok(Box::new(Part {
            map: Arc::clone(&place.map),
            start,
            len,
        }))
    }

    fn advise(&self, memory: &[u8]) {
        if self.huge && memory.len() >= HUGE_PAGE {
            // Where the system has none, small pages do.
            let _ = system::use_huge_pages(memory);
        }
    }

    fn advise_cache(&self, zeros: &mut [u8]) {
        if self.divided_cache {
            // Where the system cannot, some of it may lie on another node.
            let _ = system::zero_anew(zeros);
        } else if self.huge && zeros.len() >= 2 * HUGE_PAGE {
            // A layer's keys, of which a first token would fill a whole page. Where they are few, that is most of them.
            let _ = system::use_huge_pages(zeros);
        }
    }
}

/// A matrix' part of a reservation. No two parts overlap: each begins where the one before it ended.
struct Part {
    map: Arc<MmapRaw>,
    start: usize,
    len: usize,
}

impl Buffer for Part {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the part lies inside the map (checked when it was made), which `self` keeps; it overlaps no other
        // part, and `&mut self` keeps two such slices from living at once. The memory is zeroed by the system.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.start), self.len) }
    }

    fn freeze(self: Box<Self>) -> twinfer_engine::Result<Bytes> {
        Ok(Bytes::from_owner(Frozen(*self)))
    }
}

/// A part that nobody writes to any more.
struct Frozen(Part);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `Part::bytes`; from here on the part is only read.
        unsafe { std::slice::from_raw_parts(self.0.map.as_ptr().add(self.0.start), self.0.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_zeroed_and_apart() {
        for huge in [false, true] {
            let pages = Pages::new(huge, 1);
            let sizes = [
                1,
                64,
                4097,
                HUGE_PAGE + 5,
                0,
                RESERVATION - HUGE_PAGE,
                RESERVATION + 9,
            ];
            let mut buffers: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(i, &size)| pages.zeroed(size, [None, Some(0), Some(2)][i % 3]).unwrap())
                .collect();
            for (i, (buffer, &size)) in buffers.iter_mut().zip(&sizes).enumerate() {
                let bytes = buffer.bytes();
                assert_eq!(bytes.len(), size);
                assert!(bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) || size == 0);
                for at in [0, size / 2, size.saturating_sub(1)] {
                    if let Some(byte) = bytes.get_mut(at) {
                        assert!(*byte == 0 || *byte == i as u8 + 1);
                        *byte = i as u8 + 1;
                    }
                }
            }
            let frozen: Vec<Bytes> = buffers
                .into_iter()
                .map(|buffer| buffer.freeze().unwrap())
                .collect();
            drop(pages);
            for (i, (bytes, &size)) in frozen.iter().zip(&sizes).enumerate() {
                assert!(size == 0 || bytes[0] == i as u8 + 1 && bytes[size - 1] == i as u8 + 1);
            }
        }
        assert!(matches!(
            Pages::new(false, 1).zeroed(usize::MAX, None),
            Err(Error::Memory { .. })
        ));
    }

    /// Of a cache that nodes share no page is there yet, wherever the allocator has its memory from, and each one comes
    /// alone.
    #[test]
    fn a_divided_cache_comes_anew() {
        const PAGE: usize = 4096;
        let mut used = vec![7u8; 3 * HUGE_PAGE + 5];
        let middle = &mut used[3..3 * HUGE_PAGE];
        // Whether a page and the next one are there; `None` where the system does not say.
        let there = |bytes: &[u8]| {
            let nodes = system::nodes_of(&[&bytes[HUGE_PAGE], &bytes[HUGE_PAGE + PAGE]]).ok()?;
            Some([nodes[0].is_some(), nodes[1].is_some()])
        };
        assert!(there(middle).is_none_or(|there| there == [true, true]));
        Pages::new(true, 2).advise_cache(middle);
        assert!(there(middle).is_none_or(|there| there == [false, false]));
        middle[HUGE_PAGE] = 0;
        assert!(there(middle).is_none_or(|there| there == [true, false]));
        if cfg!(target_os = "linux") {
            assert!(middle.iter().all(|byte| *byte == 0));
        }
        let (before, behind) = (&used[..3], &used[3 * HUGE_PAGE..]);
        assert!(before.iter().chain(behind).all(|byte| *byte == 7));
        Pages::new(true, 1).advise_cache(&mut used);
        assert_eq!(used[0], 7);
        Pages::new(true, 2).advise_cache(&mut used[1..4]);
        Pages::new(true, 2).advise_cache(&mut []);
        assert_eq!(used[0], 7);
    }

    #[test]
    fn released_pages_of_a_file_are_read_again() {
        let path = std::env::temp_dir().join(format!("twinfer-release-{}", std::process::id()));
        let content: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = map(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&*bytes, &content);
        let part = bytes.slice(100..39_000).unwrap();
        for range in [0..0, 5..6, 0..38_900, 5..100_000, 50_000..60_000] {
            part.release(range);
            assert_eq!(&*bytes, &content);
        }
    }
}
