//! Prefetching where no instruction does it: a byte of each line of the packed weights is read before the line is
//! needed.

use super::WORD;
use super::drivers::{OfShard, ReadAhead};
use crate::kernels::isa::LineIsa;
use crate::kernels::matrix::Shard;

/// The weights that will be needed next.
#[derive(Clone, Copy)]
pub(crate) struct ByReading<'a>(&'a [u8]);

impl<I: LineIsa> ReadAhead<I> for ByReading<'_> {
    #[inline(always)]
    fn share(self, isa: I, i: usize, n: usize) {
        // Of a length that is found where the code runs: reads that the compiler wrote out made a model a fifth slower.
        let lines = self.0.len() / WORD;
        if let Some(share) = self.0.get(lines * i / n * WORD..lines * (i + 1) / n * WORD) {
            isa.read_early(share);
        }
    }
}

impl<'a> OfShard<'a> for ByReading<'a> {
    #[inline(always)]
    fn new(shard: &'a Shard) -> Self {
        ByReading(&shard.data)
    }

    #[inline(always)]
    fn bytes(self, start: usize, len: usize) -> Self {
        ByReading(self.0.get(start..start + len).unwrap_or_default())
    }
}
