//! Work of a known size, to measure a machine's limits with: int8 dot products, f32 multiply and add, reads of memory.
//!
//! The engine has no clock: whoever has one gives [`Work`] to [`Exercise`] and divides
//! [`Done::operations`] by the time. [`Done::checksum`] depends on every operation, so that none can be optimised away,
//! and is the same on every backend per operation, so that a test can see that all of them were done.

#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
pub(super) mod simd;
#[cfg(target_arch = "x86_64")]
pub(super) mod tiles;

/// Does work at the peak rate of a backend's instructions: [`select::peak`](super::select::peak) has that of each
/// backend.
pub trait Exercise: Send + Sync + std::fmt::Debug {
    /// Does all of it.
    fn exercise(&self, work: &Work<'_>) -> Done;
}

/// Work as plain loops: what the scalar backend's own kernels can reach at most.
#[derive(Debug)]
pub struct Plain;

impl Exercise for Plain {
    fn exercise(&self, work: &Work<'_>) -> Done {
        plainly(work)
    }
}

/// A piece of work.
#[derive(Debug, Clone, Copy)]
pub enum Work<'a> {
    /// int8 dot products with all operands in registers, at the rate of the instructions that matmul kernels are made
    /// of. The checksum is 15 per operation, modulo 2^32.
    Dot {
        /// How much; a round is some hundred operations.
        rounds: usize,
    },
    /// The same by whole tiles, also in registers, where a backend has a unit for them: none are done elsewhere.
    TileDot {
        /// How much; a round is some ten thousand operations.
        rounds: usize,
    },
    /// f32 multiplications and additions, each rounded by itself, operands in registers. The checksum is the number of
    /// operations.
    MultiplyAdd {
        /// How much, below 2^24; a round is some dozen operations.
        rounds: usize,
    },
    /// Reads memory. The checksum is the sum of its little-endian 32-bit words, modulo 2^32.
    Read {
        /// What is read: whole pages of [`PAGE`] bytes of it.
        bytes: &'a [u8],
        /// In which order.
        pattern: Pattern,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Multiplications and additions (one of each is one operation), or bytes.
    pub operations: u64,
    /// See [`Work`].
    pub checksum: u64,
}

/// Of work that a backend has no instructions for.
const NOTHING: Done = Done {
    operations: 0,
    checksum: 0,
};

/// Bytes of the unit of [`Work::Read`].
pub const PAGE: usize = 4096;

/// A cache line.
pub(crate) const LINE: usize = 64;

/// How memory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// For reports.
    pub name: &'static str,
    /// Places that are read in turn, a cache line each: 1, 2, 4, 8 or 16.
    pub streams: usize,
    /// The places are pages side by side; else parts of the whole.
    pub pages: bool,
    /// Bytes that a software prefetch runs ahead, 0 for none.
    pub prefetch: usize,
    /// Loads of 16 bytes; else the widest that the backend has.
    pub narrow: bool,
    /// From the end to the beginning.
    pub backward: bool,
}

const STREAM: Pattern = Pattern {
    name: "one stream",
    streams: 1,
    pages: false,
    prefetch: 0,
    narrow: false,
    backward: false,
};

/// Patterns whose best one is taken for the limit: which one it is differs from machine to machine.
#[rustfmt::skip]
pub const PATTERNS: [Pattern; 13] = [
    STREAM,
    Pattern { name: "one stream, 16-byte loads", narrow: true, ..STREAM },
    Pattern { name: "one stream, prefetch 512 B ahead", prefetch: 512, ..STREAM },
    Pattern { name: "one stream, prefetch 1 KiB ahead", prefetch: 1024, ..STREAM },
    Pattern { name: "one stream, prefetch 2 KiB ahead", prefetch: 2048, ..STREAM },
    Pattern { name: "one stream, prefetch 4 KiB ahead", prefetch: 4096, ..STREAM },
    Pattern { name: "backward", backward: true, ..STREAM },
    Pattern { name: "2 streams", streams: 2, ..STREAM },
    Pattern { name: "4 streams", streams: 4, ..STREAM },
    Pattern { name: "8 streams", streams: 8, ..STREAM },
    Pattern { name: "4 streams, prefetch 1 KiB ahead", streams: 4, prefetch: 1024, ..STREAM },
    Pattern { name: "4 pages side by side", streams: 4, pages: true, ..STREAM },
    Pattern { name: "16 pages side by side", streams: 16, pages: true, ..STREAM },
];

/// The sum of the whole pages of `bytes`, plainly, and how many bytes they are.
pub(crate) fn sum_words(bytes: &[u8]) -> Done {
    let bytes = &bytes[..bytes.len() / PAGE * PAGE];
    let sum = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .fold(0u32, |sum, word| sum.wrapping_add(u32::from_le_bytes(*word)));
    Done {
        operations: bytes.len() as u64,
        checksum: sum.into(),
    }
}

/// See [`Plain`].
fn plainly(work: &Work<'_>) -> Done {
    use std::hint::black_box;
    const LANES: usize = 8;
    match *work {
        Work::Dot { rounds } => {
            let mut sums = [0u32; LANES];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = sum.wrapping_add(u32::from(black_box(3u8)) * 5);
                }
            }
            Done {
                operations: (rounds * LANES) as u64,
                checksum: sums.iter().fold(0u32, |a, b| a.wrapping_add(*b)).into(),
            }
        }
        Work::TileDot { .. } => NOTHING,
        Work::MultiplyAdd { rounds } => {
            let mut sums = [0.0f32; LANES];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum += black_box(0.5f32) * 2.0;
                }
            }
            Done {
                operations: (rounds * LANES) as u64,
                checksum: sums.iter().fold(0, |a, b| a + *b as u64),
            }
        }
        Work::Read { bytes, .. } => sum_words(bytes),
    }
}
