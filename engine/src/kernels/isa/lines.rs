//! What an instruction set gives to one token's products in loops over lines
//! ([`lines_256`](crate::kernels::panel::lines_256)), where it has no prefetch.

use super::Isa;

/// What the loops over lines need beside [`Isa`].
pub(crate) trait LineIsa: Isa {
    /// Prefetches lines of memory by reading a byte of each.
    fn read_early(self, lines: &[u8]);
    /// [`Isa::activations`] of a quad whose number is known only where the code runs.
    fn activations_at(self, quads: &[[i8; 4]], i: usize) -> Self::X;
    /// [`Isa::signed_activations`] of such a quad.
    fn signed_activations_at(self, quads: &[[i8; 4]], i: usize) -> Self::SignedX;
    /// `acc` plus the products of the four bytes of each lane, zero-extended, with four numbers.
    fn add_minima(self, acc: Self::V, bytes: Self::V, x: &[[i16; 2]; 2]) -> Self::V;
    /// `acc` minus the products of the four bytes of each lane, sign-extended, with four numbers and `1 << shift`,
    /// shift below 8.
    fn sub_offsets(self, acc: Self::V, bytes: Self::V, shift: u32, x: &[[i16; 2]; 2]) -> Self::V;
}
