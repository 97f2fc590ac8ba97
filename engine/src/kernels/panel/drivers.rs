//! What a backend chooses between the drivers here: its instructions alone do not decide it.

use super::steps_256::Layout;
use super::{Blocks, Input, ROWS};
use crate::kernels::MatmulKernel;
use crate::kernels::isa::Isa;
use crate::kernels::matrix::Shard;

/// The choices of a backend.
pub(crate) trait Drivers: Isa {
    /// How the packed weights that one token needs next are prefetched by reading them, or [`NoReads`].
    type Ahead<'a>: ReadAhead<Self> + OfShard<'a>;

    /// [`Format::ONE_BY_ONE`](super::Format::ONE_BY_ONE), at most.
    const ONE_BY_ONE: usize;

    /// Whether registers are many enough for four tokens straight from a panel's bits, in formats that can: four to
    /// [`FEW`](super::one_token::FEW) tokens go that way then, unless three would be left alone.
    const BY_FOURS: bool;

    /// One token times a block of 256 weights of a panel's rows, added to `acc`.
    fn block_of_256<L: Layout, A: ReadAhead<Self>>(
        self,
        blocks: Blocks<'_>,
        ahead: A,
        x: &Input<'_>,
        acc: &mut [f32; ROWS],
    );

    /// The kernel of a type without a panel layout; `unpacking` is the one that unpacks its rows to bytes as it goes.
    fn without_layout<K: MatmulKernel>(self, unpacking: K) -> impl MatmulKernel + use<Self, K>;

    /// The same instructions and numbers for work that is mostly products of floats.
    type Floats: Drivers;
    /// [`Drivers::Floats`] where this processor is faster with it.
    fn floats(self) -> Option<Self::Floats>;

    /// The same instructions and numbers, prefetches to the second-level cache.
    type IntoL2: Drivers;
    /// [`Drivers::IntoL2`] where this processor reads packed weights faster with it, one token or a few one by one.
    fn into_l2(self) -> Option<Self::IntoL2>;
}

/// Packed weights that are multiplied next, prefetched in shares by reading a byte of each line.
pub(crate) trait ReadAhead<I>: Copy {
    /// Prefetches share `i` of `n`.
    fn share(self, isa: I, i: usize, n: usize);
}

/// [`ReadAhead`] of a shard's weights.
pub(crate) trait OfShard<'a>: Copy {
    /// Of all of them. Asked for once a product, as to find a shard's bytes is a call.
    fn new(shard: &'a Shard) -> Self;
    /// Of `len` bytes from byte `start` on; of none where the weights end before.
    fn bytes(self, start: usize, len: usize) -> Self;
}

/// Nothing is read ahead: mapped weights, and packed ones where the arithmetic has prefetches beside it
/// ([`Part::prefetch`](super::Part::prefetch)).
#[derive(Clone, Copy)]
pub(crate) struct NoReads;

impl<I> ReadAhead<I> for NoReads {
    #[inline(always)]
    fn share(self, _: I, _: usize, _: usize) {}
}

impl OfShard<'_> for NoReads {
    #[inline(always)]
    fn new(_: &Shard) -> Self {
        NoReads
    }

    #[inline(always)]
    fn bytes(self, _: usize, _: usize) -> Self {
        NoReads
    }
}
