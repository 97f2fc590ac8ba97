//! What an instruction set gives to products by whole tiles ([`tiles`](crate::kernels::tiles)) beside the unit that
//! multiplies them.

use super::RowIsa;

/// What is made of a tile's integers, and how weights become digits, beside [`RowIsa`].
pub(crate) trait TileIsa: RowIsa {
    /// 16-bit lanes shifted to the right, signs in. `n` is known where the code is compiled, here and below.
    fn sar16(self, v: Self::V, n: u32) -> Self::V;
    /// `(high << shift) + low` in 32-bit lanes.
    fn join_digits(self, high: Self::V, low: Self::V, shift: u32) -> Self::V;
}
