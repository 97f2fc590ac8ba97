//! Panel layouts of the types with one float scale per 32 (NVFP4: 16) weights.
//!
//! ```text
//!   vectors are 64 bytes: 16 rows x 4 bytes. nib[i]: quad i in the low, quad i + 4 (NVFP4: i + 2) in the high nibbles.
//!
//!   q8_0            quad[0..8] | d[16] f16                     544 bytes, as 16 rows in the file
//!   q4_0, iq4_nl    nib[0..4] | d[16] f16                      288
//!   q4_1            nib[0..4] | d[16] f16 | dmin[16] f16       320
//!   q5_0            nib[0..4] | bits | d[16] f16               352   bits: bit i = fifth bit of quad i
//!   q5_1            nib[0..4] | bits | d[16] f16 | dmin[16]    384
//!   mxfp4           nib[0..4] | d[16] bf16                     288   a power of two, exact; the file takes 272
//!   nvfp4           nib[0..2] | d[16] f16                      160   exact; the file takes 144
//! ```

use half::bf16;

use super::isa::Isa;
use super::layouts_256::{code_of, half_at, halves, pack_halves, quads, table, vector};
use super::panel::ROWS;
use super::panels_32::Layout;
use crate::quant::{FP4_VALUES, IQ4_VALUES, Step};

const VECTOR: usize = 64;
const NIBBLES: usize = 4 * VECTOR;

/// Nibble `i` of a step of `2 * vectors` quads.
#[inline(always)]
fn nibble<I: Isa>(isa: I, step: &[u8], part: usize, i: usize, vectors: usize) -> I::V {
    let v = vector(isa, step, i % vectors * VECTOR, part);
    let v = if i < vectors { v } else { isa.shr16(v, 4) };
    isa.and(v, isa.splat8(15))
}

/// The fifth bit of quad `i`, where it belongs.
#[inline(always)]
fn fifth_bit<I: Isa>(isa: I, bits: &[u8], part: usize, i: usize) -> I::V {
    let v = vector(isa, bits, 0, part);
    let v = if i < 4 {
        isa.shl16(v, 4 - i as u32)
    } else {
        isa.shr16(v, i as u32 - 4)
    };
    isa.and(v, isa.splat8(16))
}

/// Quads `0 .. 2 * vectors` as nibbles.
fn pack_nibbles(quads: &[[u8; VECTOR]], vectors: usize, out: &mut [u8]) {
    for (i, out) in out[..vectors * VECTOR].chunks_exact_mut(VECTOR).enumerate() {
        for (b, out) in out.iter_mut().enumerate() {
            *out = quads[i][b] & 15 | quads[i + vectors][b] << 4;
        }
    }
}

fn pack_fifth_bits(quads: &[[u8; VECTOR]; 8], out: &mut [u8]) {
    for (b, out) in out[..VECTOR].iter_mut().enumerate() {
        *out = (0..8).fold(0, |bits, i| bits | (quads[i][b] >> 4 & 1) << i);
    }
}

/// Weights of one row: `code(quad, byte)`.
fn unpack_codes(row: usize, len: usize, offset: u8, out: &mut Step, code: impl Fn(usize, usize) -> u8) {
    for (k, q) in out.q[..len].iter_mut().enumerate() {
        *q = code(k / 4, 4 * row + k % 4).wrapping_sub(offset) as i8;
    }
}

fn nibble_at(step: &[u8], i: usize, b: usize, vectors: usize) -> u8 {
    step[i % vectors * VECTOR + b] >> (i / vectors * 4) & 15
}

/// A byte per weight: q8_0 (`OWN`), or the scratch of types with steps of 32 and without a layout.
#[derive(Debug)]
pub(super) struct Bytes<const OWN: bool>;

impl<const OWN: bool> Layout for Bytes<OWN> {
    const BYTES: usize = 8 * VECTOR + 32;
    const OWN: bool = OWN;
    const SIGNED: bool = true;
    const MAX: i32 = 255;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, step: &[u8], part: usize, i: usize) -> I::V {
        isa.biased(vector(isa, step, i * VECTOR, part))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 8 * VECTOR, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        out[..8 * VECTOR].copy_from_slice(quads::<8>(steps, 0).as_flattened());
        pack_halves(steps.iter().map(|s| s.d), &mut out[8 * VECTOR..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 32, 0, out, |i, b| step[i * VECTOR + b]);
        out.d = half_at(step, 8 * VECTOR, row);
    }
}

/// Q4_0 (`MIN` false) and Q4_1.
#[derive(Debug)]
pub(super) struct Q4<const MIN: bool>;

impl<const MIN: bool> Layout for Q4<MIN> {
    const BYTES: usize = NIBBLES + if MIN { 64 } else { 32 };
    const MAX: i32 = 15;
    const OFFSET: i16 = if MIN { 0 } else { 8 };
    const MIN: bool = MIN;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, step: &[u8], part: usize, i: usize) -> I::V {
        nibble(isa, step, part, i, 4)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, NIBBLES, part)
    }
    #[inline(always)]
    fn dmin<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        // Without minima nothing reads it.
        halves(isa, step, if MIN { NIBBLES + 32 } else { NIBBLES }, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        pack_nibbles(&quads::<8>(steps, Self::OFFSET as i8), 4, out);
        pack_halves(steps.iter().map(|s| s.d), &mut out[NIBBLES..NIBBLES + 32]);
        pack_halves(steps.iter().map(|s| s.dmin), &mut out[NIBBLES + 32..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 32, Self::OFFSET as u8, out, |i, b| nibble_at(step, i, b, 4));
        out.d = half_at(step, NIBBLES, row);
        out.dmin = if MIN {
            half_at(step, NIBBLES + 32, row)
        } else {
            0.0
        };
    }
}

/// Q5_0 (`MIN` false) and Q5_1.
#[derive(Debug)]
pub(super) struct Q5<const MIN: bool>;

impl<const MIN: bool> Layout for Q5<MIN> {
    const BYTES: usize = NIBBLES + VECTOR + if MIN { 64 } else { 32 };
    const MAX: i32 = 31;
    const OFFSET: i16 = if MIN { 0 } else { 16 };
    const MIN: bool = MIN;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, step: &[u8], part: usize, i: usize) -> I::V {
        let bit = fifth_bit(isa, &step[NIBBLES..], part, i);
        isa.or(nibble(isa, step, part, i, 4), bit)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, NIBBLES + VECTOR, part)
    }
    #[inline(always)]
    fn dmin<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        // Without minima nothing reads it.
        halves(isa, step, NIBBLES + VECTOR + if MIN { 32 } else { 0 }, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let quads = quads::<8>(steps, Self::OFFSET as i8);
        pack_nibbles(&quads, 4, out);
        pack_fifth_bits(&quads, &mut out[NIBBLES..]);
        let floats = &mut out[NIBBLES + VECTOR..];
        pack_halves(steps.iter().map(|s| s.d), &mut floats[..32]);
        pack_halves(steps.iter().map(|s| s.dmin), &mut floats[32..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 32, Self::OFFSET as u8, out, |i, b| {
            nibble_at(step, i, b, 4) | (step[NIBBLES + b] >> i & 1) << 4
        });
        out.d = half_at(step, NIBBLES + VECTOR, row);
        out.dmin = if MIN {
            half_at(step, NIBBLES + VECTOR + 32, row)
        } else {
            0.0
        };
    }
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Iq4Nl;

impl Layout for Iq4Nl {
    const BYTES: usize = NIBBLES + 32;
    const SIGNED: bool = true;
    const MAX: i32 = 255;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, step: &[u8], part: usize, i: usize) -> I::V {
        table(isa, &IQ4_VALUES, nibble(isa, step, part, i, 4))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, NIBBLES, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let mut quads = quads::<8>(steps, 0);
        quads.as_flattened_mut().iter_mut().for_each(|v| *v = code_of(*v));
        pack_nibbles(&quads, 4, out);
        pack_halves(steps.iter().map(|s| s.d), &mut out[NIBBLES..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 32, 0, out, |i, b| {
            IQ4_VALUES[usize::from(nibble_at(step, i, b, 4))] as u8
        });
        out.d = half_at(step, NIBBLES, row);
    }
}

/// The doubled e2m1 numbers plus [`FP4_OFFSET`]: unsigned, at most 24.
const FP4_UNSIGNED: [i8; 16] = {
    let mut table = FP4_VALUES;
    let mut i = 0;
    while i < 16 {
        table[i] += FP4_OFFSET;
        i += 1;
    }
    table
};
const FP4_OFFSET: i8 = 12;

/// The first code of a doubled e2m1 number: -0 becomes 0, the same number.
fn fp4_code(value: u8) -> u8 {
    FP4_VALUES.iter().position(|v| *v as u8 == value).unwrap_or(0) as u8
}

fn fp4_quads<const N: usize>(steps: &[Step; ROWS]) -> [[u8; VECTOR]; N] {
    let mut quads = quads::<N>(steps, 0);
    quads
        .as_flattened_mut()
        .iter_mut()
        .for_each(|v| *v = fp4_code(*v));
    quads
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Mxfp4;

impl Layout for Mxfp4 {
    const BYTES: usize = NIBBLES + 32;
    const MAX: i32 = 24;
    const OFFSET: i16 = FP4_OFFSET as i16;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, step: &[u8], part: usize, i: usize) -> I::V {
        isa.lookup(&FP4_UNSIGNED, nibble(isa, step, part, i, 4))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        isa.load_bf16(&step[NIBBLES + part * 2 * I::ROWS..])
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        pack_nibbles(&fp4_quads::<8>(steps), 4, out);
        for (step, out) in steps.iter().zip(out[NIBBLES..].chunks_exact_mut(2)) {
            // Exact: a power of two, subnormal at the least with one of the upper 16 bits set.
            out.copy_from_slice(&bf16::from_f32(step.d).to_le_bytes());
        }
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 32, 0, out, |i, b| {
            FP4_VALUES[usize::from(nibble_at(step, i, b, 4))] as u8
        });
        let d = &step[NIBBLES + 2 * row..];
        out.d = bf16::from_le_bytes([d[0], d[1]]).to_f32();
    }
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Nvfp4;

impl Layout for Nvfp4 {
    const STEP: usize = 16;
    const BYTES: usize = 2 * VECTOR + 32;
    const MAX: i32 = 24;
    const OFFSET: i16 = FP4_OFFSET as i16;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, step: &[u8], part: usize, i: usize) -> I::V {
        isa.lookup(&FP4_UNSIGNED, nibble(isa, step, part, i, 2))
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 2 * VECTOR, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        pack_nibbles(&fp4_quads::<4>(steps), 2, out);
        pack_halves(steps.iter().map(|s| s.d), &mut out[2 * VECTOR..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 16, 0, out, |i, b| {
            FP4_VALUES[usize::from(nibble_at(step, i, b, 2))] as u8
        });
        out.d = half_at(step, 2 * VECTOR, row);
    }
}
