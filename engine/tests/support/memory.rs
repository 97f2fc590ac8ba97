//! An allocator that counts what the current thread holds, so that a test can state a bound on memory.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call is handed to the system's allocator unchanged; the counters are plain thread-local cells without
// a destructor, so touching them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both blocks may exist while the bytes move.
        count(new_size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a call took.
pub(crate) struct Cost {
    /// The most bytes held at once beyond those held before.
    pub(crate) peak: usize,
    /// Bytes that are held afterwards beyond those held before.
    pub(crate) kept: usize,
    pub(crate) time: Duration,
}

/// Runs `f` and measures it on this thread.
pub(crate) fn measure<T>(f: impl FnOnce() -> T) -> (T, Cost) {
    let before = HELD.get();
    PEAK.set(before);
    let start = Instant::now();
    let result = f();
    let time = start.elapsed();
    let peak = (PEAK.get() - before).max(0) as usize;
    let kept = (HELD.get() - before).max(0) as usize;
    (result, Cost { peak, kept, time })
}

#[test]
fn the_allocator_counts() {
    let (kept, cost) = measure(|| {
        drop(vec![1u8; 1 << 20]);
        vec![2u8; 1 << 10]
    });
    assert_eq!((kept.len(), cost.kept), (1 << 10, 1 << 10));
    assert!((1 << 20..2 << 20).contains(&cost.peak), "{}", cost.peak);
}
