//! The instruction sets, as lists of intrinsics: what they give to the kernels, which are elsewhere. A vector of 32-bit
//! lanes, an integer dot product of 4 bytes per lane, and floats.
//!
//! A lane is one output row of a panel; a panel has 16 rows, so an instruction set works on it in `16 / LANES` parts. A
//! value of the implementing type proves that the machine has the instructions: only detection makes one.
//!
//! What measures an instruction set's peak rates (`peak` of each) is here too: its loops are of single instructions.
//!
//! [`Isa`] is what every kernel needs. `RowIsa`, `LineIsa` and `TileIsa` are more instructions, for drivers that not
//! every backend chooses ([`Drivers`](crate::kernels::panel::Drivers)). All unsafe code of the kernels is below this
//! module.

#[cfg(target_arch = "wasm32")]
mod lines;
#[cfg(target_arch = "x86_64")]
mod rows;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "wasm32")]
pub(super) mod wasm;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

#[cfg(target_arch = "wasm32")]
pub(crate) use lines::LineIsa;
#[cfg(target_arch = "x86_64")]
pub(crate) use rows::RowIsa;
#[cfg(target_arch = "x86_64")]
pub(crate) use tiles::TileIsa;

use crate::kernels::functions::Lanes;

/// Work that runs with the instruction set enabled. `run` must be `#[inline(always)]`, as everything it calls.
pub(crate) trait Op<I: Isa> {
    type Output;
    fn run(self, isa: I) -> Self::Output;
}

/// An instruction set. All methods are `#[inline(always)]` and compile to an instruction or a few; slices hold at least
/// one vector.
pub(crate) trait Isa: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// The name that `--backend` takes.
    const NAME: &'static str;
    /// 32-bit lanes: rows that one vector covers. Divides 16.
    const LANES: usize;
    /// The register tile of a matmul is MR x NR: tokens times outputs, as many as the registers hold.
    const MR: usize;
    /// See [`Isa::MR`]: one vector of outputs or two, at most 32 outputs.
    const NR: usize;
    /// Vectors of a panel, 1 or 2, that one token is multiplied with side by side: they share its activations' loads,
    /// and use more of a line of memory when it is there.
    const SIDE_BY_SIDE: usize;
    /// What [`Isa::biased`] adds to signed weights: their dot products must be corrected by it.
    const BIAS: i32;

    /// Group accumulators of unsigned weights are 32-bit sums; those of signed weights always are.
    const WIDE_GROUPS: bool;

    /// Integers: bytes, 16-bit pairs or 32-bit lanes.
    type V: Copy;
    /// f32 lanes.
    type F: Lanes;
    /// Four activations in every lane, as [`Isa::dot`] takes them.
    type X: Copy;
    /// The same for [`Isa::dot_signed`].
    type SignedX: Copy;

    /// Runs `op` with the instruction set enabled.
    fn run<O: Op<Self>>(self, op: O) -> O::Output;

    /// `4 * LANES` bytes.
    fn load(self, bytes: &[u8]) -> Self::V;
    /// Hints that the bytes from `at` on will be read soon; `at` may lie beyond the slice.
    fn prefetch(self, bytes: &[u8], at: usize);
    /// The same for bytes that the second-level cache shall keep until then.
    fn prefetch_l2(self, bytes: &[u8], at: usize);
    /// The same value, as [`std::hint::black_box`] gives it, but from register to register: the compiler must have
    /// computed it at this place. Without such a barrier compilers first load all that a long straight piece of code
    /// needs, have no registers for it, and spill.
    #[inline(always)]
    fn black_box(self, v: Self::V) -> Self::V {
        v
    }
    /// Writes `4 * LANES` bytes.
    fn store(self, v: Self::V, bytes: &mut [u8]);
    /// 16 bytes from byte `at` on of every fourth row from row `first` on, as many as fill a vector.
    fn join(self, rows: &ContiguousRows<'_>, first: usize, at: usize) -> Self::V;
    /// Within every 16 bytes: lane j of vector i becomes lane i of vector j.
    fn transpose(self, v: [Self::V; 4]) -> [Self::V; 4];
    /// Writes the lower halves of the lanes, and the upper ones: `2 * LANES` bytes each.
    fn store_split(self, v: Self::V, low: &mut [u8], high: &mut [u8]);
    /// The same byte everywhere.
    fn splat8(self, v: u8) -> Self::V;
    /// The same 32 bits in every lane.
    fn splat32(self, v: u32) -> Self::V;
    /// Zero.
    fn zero(self) -> Self::V;
    /// Bits in both.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bits in either.
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// 16-bit lanes shifted to the left. `n` is known where the code is compiled, here and below.
    fn shl16(self, v: Self::V, n: u32) -> Self::V;
    /// 16-bit lanes shifted to the right, zeros in.
    fn shr16(self, v: Self::V, n: u32) -> Self::V;
    /// Sum of bytes, wrapping.
    fn add8(self, a: Self::V, b: Self::V) -> Self::V;
    /// Difference of bytes, wrapping.
    fn sub8(self, a: Self::V, b: Self::V) -> Self::V;
    /// Low halves of the products of 16-bit lanes.
    fn mul16(self, a: Self::V, b: Self::V) -> Self::V;
    /// All bits of a byte where the bytes are equal, else none.
    fn equal8(self, a: Self::V, b: Self::V) -> Self::V;
    /// Byte `pattern[b]` of each lane as byte b, 0 for 0x80.
    fn shuffle_lanes(self, v: Self::V, pattern: [u8; 4]) -> Self::V;
    /// `table[v]` for bytes of 0..16.
    fn lookup(self, table: &[i8; 16], v: Self::V) -> Self::V;

    /// Quad `i` of activations in every lane, for [`Isa::dot`]. `i` is known where the code is compiled; quads are
    /// asked for in order, and there are fours of them.
    fn activations(self, quads: &[[i8; 4]], i: usize) -> Self::X;
    /// The same for [`Isa::dot_signed`].
    fn signed_activations(self, quads: &[[i8; 4]], i: usize) -> Self::SignedX;
    /// `acc` plus, per lane, 4 unsigned weights (at most 127; any byte with [`Isa::WIDE_GROUPS`]) times 4 activations
    /// (-127..=127). `acc` is a *group accumulator*: zero at first, at most [`group_quads`] additions, read by
    /// [`Isa::add_group`].
    fn dot(self, acc: Self::V, w: Self::V, x: Self::X) -> Self::V;
    /// Signed bytes as [`Isa::dot_signed`] wants them: [`Isa::BIAS`] added.
    fn biased(self, w: Self::V) -> Self::V;
    /// As [`Isa::dot`] with weights from [`Isa::biased`]; any number of additions.
    fn dot_signed(self, acc: Self::V, w: Self::V, x: Self::SignedX) -> Self::V;
    /// Byte `j` of each lane as the factor of a group accumulator; sign- or zero-extended.
    fn factor(self, bytes: Self::V, j: usize, sign_extend: bool, signed_weights: bool) -> Self::V;
    /// `sum + factor * group`, in 32-bit lanes.
    fn add_scaled(self, sum: Self::V, group: Self::V, factor: Self::V, signed_weights: bool) -> Self::V;
    /// `sum + group`, in 32-bit lanes.
    fn add_group(self, sum: Self::V, group: Self::V, signed_weights: bool) -> Self::V;

    /// Bytes `2 * j` and `2 * j + 1` of each lane as a pair of 16-bit numbers, zero-extended.
    fn pairs(self, bytes: Self::V, j: usize) -> Self::V;
    /// The same sign-extended, times `-(1 << shift)`, shift below 8.
    fn pairs_negated(self, bytes: Self::V, j: usize, shift: u32) -> Self::V;
    /// The same number in both halves of every lane.
    fn splat16(self, v: i16) -> Self::V;
    /// `acc + a[0] * x[0] + a[1] * x[1]` per lane.
    fn dot_pairs(self, acc: Self::V, a: Self::V, x: [i16; 2]) -> Self::V;

    /// 32-bit integers to floats, rounded to nearest even.
    fn to_f(self, v: Self::V) -> Self::F;
    /// `LANES` floats.
    fn load_f(self, v: &[f32]) -> Self::F;
    /// `LANES` floats, little-endian bytes.
    fn load_f32(self, bytes: &[u8]) -> Self::F;
    /// `LANES` half-precision numbers, little-endian bytes; exact.
    fn load_f16(self, bytes: &[u8]) -> Self::F;
    /// The half-precision number in the lower or the upper half of each lane; exact.
    fn f16_of_lanes(self, v: Self::V, upper: bool) -> Self::F;
    /// `LANES` half-precision numbers; exact.
    fn load_halves(self, v: &[u16]) -> Self::F;
    /// `LANES` bfloat16 numbers, little-endian bytes; exact.
    fn load_bf16(self, bytes: &[u8]) -> Self::F;
    /// `sum + v * x` of a number in memory, the product rounded before it is added. To put the number in every lane of
    /// a register first is an instruction of its own, which a processor may have no room for beside multiplications and
    /// additions.
    #[inline(always)]
    fn add_times(self, sum: Self::F, v: Self::F, x: &f32) -> Self::F {
        sum.add(v.mul(Self::F::splat(*x)))
    }
    /// Writes `LANES` floats.
    fn store_f(self, v: Self::F, out: &mut [f32]);
    /// Quantizes `LANES` values, `|x * r| < 127.5`: rounds to nearest even, writes the bytes.
    fn store_i8(self, v: Self::F, out: &mut [i8]);
    /// Largest magnitude as an integer, over whole vectors of `v`.
    fn max_magnitude(self, v: &[f32]) -> u32;

    // Attention.

    /// Queries that share a load of keys or values: as many as the registers hold with four vectors each. At most
    /// `LANES`.
    const QUERIES: usize;
    /// Lane by lane `if a < b { b } else { a }`.
    fn max_f(self, a: Self::F, b: Self::F) -> Self::F;
    /// The largest lane, NaNs left out. Where the largest is zero and both zeros occur, it may be either of them.
    fn max_lane(self, v: Self::F) -> f32;
    /// The sum of all lanes: of those of the lower and the upper half, lane by lane, then of that sum's halves, down to
    /// one.
    fn sum_lane(self, v: Self::F) -> f32;
    /// `LANES` signed bytes as floats.
    fn load_i8(self, bytes: &[u8]) -> Self::F;
    /// Writes `LANES` numbers in half precision, rounded to nearest even. False if one is not finite then.
    fn store_halves(self, v: Self::F, out: &mut [u16]) -> bool;
}

/// The bytes of 16 rows of a file, one after the other in memory.
#[derive(Clone, Copy)]
pub(crate) struct ContiguousRows<'a> {
    /// At least `16 * row` bytes: what [`ContiguousRows::every_fourth`] promises stands on it.
    bytes: &'a [u8],
    row: usize,
}

impl<'a> ContiguousRows<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        ContiguousRows {
            bytes,
            row: bytes.len() / 16,
        }
    }

    /// All bytes.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where byte `at` of row `first` is, and the distance to that of four rows later. 16 bytes may be read there, and
    /// in every fourth row, `N` altogether.
    #[inline(always)]
    pub(crate) fn every_fourth<const N: usize>(&self, first: usize, at: usize) -> (*const u8, usize) {
        assert!(first + 4 * N <= 16 + 3 && self.row >= 16 && at <= self.row - 16);
        (
            self.bytes.as_ptr().wrapping_add(first * self.row + at),
            4 * self.row,
        )
    }
}

/// Adds to each sum the products of its weights with quad `i` of the activations: [`Isa::dot_signed`] or [`Isa::dot`].
#[inline(always)]
pub(crate) fn add_quad<I: Isa, const P: usize>(
    isa: I,
    signed: bool,
    sums: &mut [I::V; P],
    w: &[I::V; P],
    quads: &[[i8; 4]],
    i: usize,
) {
    if signed {
        let x = isa.signed_activations(quads, i);
        for p in 0..P {
            sums[p] = isa.black_box(isa.dot_signed(sums[p], w[p], x));
        }
    } else {
        let x = isa.activations(quads, i);
        for p in 0..P {
            sums[p] = isa.black_box(isa.dot(sums[p], w[p], x));
        }
    }
}

/// The sum of 16 numbers in the vectors that they fill, as the tree of [`super::functions::sum16`].
#[inline(always)]
pub(crate) fn sum_lanes<I: Isa>(isa: I, v: &[I::F; 4]) -> f32 {
    isa.sum_lane(match 16 / I::LANES {
        1 => v[0],
        2 => v[0].add(v[1]),
        _ => v[0].add(v[2]).add(v[1].add(v[3])),
    })
}

/// How many dot products of unsigned weights up to `max` may be added up in one group accumulator of an instruction
/// set: a power of two.
pub(crate) const fn group_quads<I: Isa>(max: i32) -> usize {
    if I::WIDE_GROUPS {
        64
    } else {
        // A 16-bit lane of the accumulator takes two products at a time.
        1 << (32767 / (2 * 127 * max)).ilog2()
    }
}

/// Repeats the body with `$i` = 0, 1, ... below `$n`, which is at most the number stated, each written out, so that
/// shifts and registers are known where the code is compiled.
macro_rules! unrolled {
    ($i:ident in $n:expr, at most 4 => $body:block) => {
        unrolled!(@ $i, $n, $body, 0 1 2 3)
    };
    ($i:ident in $n:expr, at most 8 => $body:block) => {
        unrolled!(@ $i, $n, $body, 0 1 2 3 4 5 6 7)
    };
    ($i:ident in $n:expr, at most 16 => $body:block) => {
        unrolled!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $n:expr, $body:block, $($value:literal)*) => {
        $(
            if $value < $n {
                let $i: usize = $value;
                $body
            }
        )*
    };
}
pub(crate) use unrolled;

/// The shuffle within 16 bytes that takes byte `pattern[b]` of each 32-bit lane to byte b; 0x80 gives zero.
pub(crate) const fn lane_shuffle(pattern: [u8; 4]) -> [u8; 16] {
    let mut out = [0x80; 16];
    let mut i = 0;
    while i < 16 {
        if pattern[i % 4] < 4 {
            out[i] = (i / 4 * 4) as u8 + pattern[i % 4];
        }
        i += 1;
    }
    out
}

/// Two bytes of each lane to two 16-bit numbers: at the bottom of each, or at the top for sign extension.
pub(crate) const fn bytes_to_i16(a: usize, b: usize, sign_extend: bool) -> [u8; 16] {
    if sign_extend {
        lane_shuffle([0x80, a as u8, 0x80, b as u8])
    } else {
        lane_shuffle([a as u8, 0x80, b as u8, 0x80])
    }
}
