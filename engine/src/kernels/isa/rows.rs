//! What an instruction set gives to the products over a file's rows ([`rows`](crate::kernels::rows)).

use super::Isa;

/// What products row by row need beside [`Isa`]: the bytes of a vector are consecutive weights of one row.
pub(crate) trait RowIsa: Isa {
    /// `4 * LANES` signed bytes.
    fn load_row(self, v: &[i8]) -> Self::V;
    /// Half a vector of each.
    fn load_two(self, low: &[i8], high: &[i8]) -> Self::V;
    /// The same 16 bytes in every 16.
    fn repeat(self, bytes: &[u8; 16]) -> Self::V;
    /// The first `LANES / 2` numbers, each 8 bytes.
    fn join_u64(self, parts: &[u64]) -> Self::V;
    /// The first `LANES` numbers, each 4 bytes.
    fn join_u32(self, parts: &[u32]) -> Self::V;
    /// Within every 16 bytes, `v[places]`; a place is below 16, or 0x80 for zero.
    fn shuffle(self, v: Self::V, places: Self::V) -> Self::V;
    /// Bits in one of the two.
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// Magnitudes of signed bytes.
    fn abs8(self, v: Self::V) -> Self::V;
    /// `(a + b + 1) >> 1` of unsigned bytes.
    fn average8(self, a: Self::V, b: Self::V) -> Self::V;
    /// Sum of 16-bit lanes, wrapping.
    fn add16(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bytes of `x` negated where those of `signs` are negative; where one is 0, anything of that magnitude or 0. No
    /// byte of `x` is -128.
    fn negate_by(self, x: Self::V, signs: Self::V) -> Self::V;
    /// Bytes of `x`, none of them -128, negated where a bit is set: bit i of byte j for byte 8 * j + i.
    fn negate_where(self, x: Self::V, bits: &[u8]) -> Self::V;
    /// Sums of two neighbouring products, 16 bits: unsigned bytes of at most 127, times signed ones. The caller knows
    /// that they fit.
    fn products(self, w: Self::V, x: Self::V) -> Self::V;
    /// `acc + a[0] * b[0] + a[1] * b[1]` in 32-bit lanes, a and b being 16-bit ones.
    fn dot_pairs_of(self, acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all 32-bit lanes of each vector.
    fn sums(self, v: [Self::V; 4]) -> [i32; 4];
    /// The sums of every 8 lanes, of the vectors that hold the first 32 of them.
    fn sums_of_32(self, v: [Self::V; 8]) -> [i32; 4];
}
