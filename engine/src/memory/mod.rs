//! Memory: where packed weights lie is the platform's choice, and a request that cannot be met is an error, not the end
//! of the process.

mod buffers;
mod bytes;

pub(crate) use buffers::Buffers;
pub use buffers::Planned;
pub use bytes::{Bytes, Owner};

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

use crate::{Error, Result};

/// Where a platform puts packed weights (natively pages of its own choice, in the browser the heap), and what it does
/// for other large memory.
pub trait Memory: Send + Sync + std::fmt::Debug {
    /// `len` zeros that start at a multiple of [`ALIGNMENT`]. Whoever writes to a page first places it: what is for
    /// different nodes lies on different pages.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is not so much.
    fn zeroed(&self, len: usize, node: Option<usize>) -> Result<Box<dyn Buffer>>;

    /// Told of much memory of the heap that nobody has written to yet and that is used all over: a platform may ask for
    /// larger pages.
    fn advise(&self, _: &[u8]) {}

    /// Keys and values, or states, will lie here, where zeros are. Where there are several nodes each has those of its
    /// heads: a page is on the node of who writes to it next.
    fn advise_cache(&self, _: &mut [u8]) {}
}

/// Where every [`Buffer`] starts: at a cache line.
pub const ALIGNMENT: usize = 64;

/// Memory that is being filled.
pub trait Buffer: Send {
    /// All of it.
    fn bytes(&mut self) -> &mut [u8];

    /// From here on it is read and shared.
    fn freeze(self: Box<Self>) -> Result<Bytes>;
}

/// The heap.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap;

struct HeapBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Memory for Heap {
    fn zeroed(&self, len: usize, _: Option<usize>) -> Result<Box<dyn Buffer>> {
        // Room to start at a cache line.
        let memory: Vec<u8> = zeros("packed weights", len.saturating_add(ALIGNMENT))?;
        let start = memory.as_ptr().align_offset(ALIGNMENT) % ALIGNMENT;
        Ok(Box::new(HeapBuffer { memory, start, len }))
    }
}

impl Buffer for HeapBuffer {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    fn freeze(self: Box<Self>) -> Result<Bytes> {
        let range = self.start..self.start + self.len;
        Bytes::from_vec(self.memory).slice(range)
    }
}

/// `n` zeros of a buffer for `what`. A large buffer consists of pages that the system hands out as zeros: none is
/// written to, and the thread that uses one first places it; but allocators write to all where T asks for an alignment
/// beyond 16 bytes.
///
/// # Errors
/// `Memory` if the allocator refuses.
pub(crate) fn zeros<T: Zeroable>(what: &str, n: usize) -> Result<Vec<T>> {
    try_zeroed_vec(n).map_err(|()| refused::<T>(what, n as u64))
}

/// As [`zeros`], `rows` rows of `width`.
pub(crate) fn zero_rows<T: Zeroable>(what: &str, rows: usize, width: usize) -> Result<Vec<T>> {
    match rows.checked_mul(width) {
        Some(n) => zeros(what, n),
        None => Err(refused::<T>(what, (rows as u64).saturating_mul(width as u64))),
    }
}

/// An empty vector with room for `n`.
///
/// # Errors
/// `Memory` if the allocator refuses.
pub(crate) fn room<T>(what: &str, n: usize) -> Result<Vec<T>> {
    let mut out = Vec::new();
    match out.try_reserve_exact(n) {
        Ok(()) => Ok(out),
        Err(_) => Err(refused::<T>(what, n as u64)),
    }
}

fn refused<T>(what: &str, n: u64) -> Error {
    Error::Memory {
        what: what.into(),
        bytes: n.saturating_mul(size_of::<T>() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_gives_aligned_zeros() {
        for len in [0, 1, 63, 64, 65, 4096] {
            let mut buffer = Heap.zeroed(len, None).unwrap();
            assert!(buffer.bytes().iter().all(|byte| *byte == 0));
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
            buffer.bytes().fill(7);
            let bytes = buffer.freeze().unwrap();
            assert_eq!(&*bytes, &vec![7; len]);
        }
        assert!(matches!(Heap.zeroed(usize::MAX, None), Err(Error::Memory { .. })));
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert_eq!(zeros::<f32>("x", 3), Ok(vec![0.0; 3]));
        assert_eq!(zero_rows::<u16>("x", 2, 3), Ok(vec![0; 6]));
        for n in [1usize << 50, usize::MAX / 8, usize::MAX] {
            let bytes = (n as u64).saturating_mul(8);
            let expected = Error::Memory {
                what: "x".into(),
                bytes,
            };
            assert_eq!(zeros::<u64>("x", n), Err(expected.clone()));
            assert_eq!(room::<u64>("x", n).map(drop), Err(expected));
        }
        let overflow = zero_rows::<u8>("x", usize::MAX, usize::MAX);
        assert!(matches!(overflow, Err(Error::Memory { bytes: u64::MAX, .. })));
    }
}
