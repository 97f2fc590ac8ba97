//! What all fuzz targets share: an allocator that refuses absurd amounts.
//!
//! Without a sanitizer libFuzzer does not see single allocations. This one counts, and an allocation that takes the sum
//! over the bound fails, which ends the process and so becomes a finding.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a target may hold at once: what the hostile files of the tests are held to.
const BOUND: usize = 64 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Bounded;

impl Bounded {
    fn take(bytes: usize) -> bool {
        let fits = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= BOUND;
        if !fits {
            HELD.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

// SAFETY: calls go to the system's allocator unchanged or fail with null, as the trait allows.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !Self::take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;
