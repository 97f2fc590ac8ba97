//! Panel layouts of the types with blocks of 256 weights. Each takes the file's bytes per weight, but IQ4_XS 1.5 % more.
//!
//! ```text
//!   vectors are 64 bytes: 16 rows x 4 bytes. nib[i]: quad i of the chunk in the low, quad i + 8 in the high nibbles.
//!
//!   q4_k    chunk = nib[0..8]                                  4 x 512
//!   q5_k    chunk = nib[0..8] | bit[0..2]                      4 x 640   bit[b]: bit j = fifth bit of quad 8b + j
//!   q6_k    chunk = nib[0..8] | two[0..4]                      4 x 768   two[j]: bits 2b, 2b + 1 = top of quad 4b + j
//!   q2_k    chunk = two[0..4]                                  4 x 256   the same, all of the weight
//!   q3_k    chunk = two[0..4] | bit[0..2]                      4 x 384
//!   iq4_xs  chunk = nib[0..8]                                  4 x 512
//!
//!   behind the chunks, byte j of each row's lane:
//!   q4_k, q5_k  low[64] scale j | scale j + 4 << 4;  low[64] the same of the minima;
//!               top[64] bits 0-1 scale j, 2-3 scale j + 4, 4-5 min j, 6-7 min j + 4;  d[16] f16; dmin[16] f16
//!   q6_k        scales[4][64] i8, groups 4v + j;  d[16] f16
//!   q2_k        scales[4][64]: scale | min << 4, groups 4v + j;  d[16] f16; dmin[16] f16
//!   q3_k        low[2][64] scale 8v + j | scale 8v + j + 4 << 4;
//!               top[64] bits 2b, 2b + 1 = top of scale 4b + j;  d[16] f16
//!   iq4_xs      low[64] scale j | scale j + 4 << 4;  top[64] bits 0-1 scale j, 2-3 scale j + 4;  d[16] f16
//! ```
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use half::f16;

use super::isa::Isa;
use super::panel::ROWS;
use super::panels_256::Layout;
use crate::quant::{IQ4_VALUES, Step};

/// A vector of the panel: 16 rows x 4 bytes.
const VECTOR: usize = 64;
const NIBBLES: usize = 8 * VECTOR;
const TWOS: usize = 4 * VECTOR;
const BITS: usize = 2 * VECTOR;

/// Part `part` of the vector at `at`.
#[inline(always)]
pub(super) fn vector<I: Isa>(isa: I, bytes: &[u8], at: usize, part: usize) -> I::V {
    isa.load(&bytes[at + part * 4 * I::ROWS..])
}

/// Part `part` of the 16 half-precision numbers at `at`.
#[inline(always)]
pub(super) fn halves<I: Isa>(isa: I, bytes: &[u8], at: usize, part: usize) -> I::F {
    isa.load_f16(&bytes[at + part * 2 * I::ROWS..])
}

/// `bits` (a mask within a byte) of `v`, moved from bit `from` to bit `to`.
#[inline(always)]
fn moved<I: Isa>(isa: I, v: I::V, from: u32, to: u32, bits: u8) -> I::V {
    let v = if from > to {
        isa.shr16(v, from - to)
    } else if from < to {
        isa.shl16(v, to - from)
    } else {
        v
    };
    isa.and(v, isa.splat8(bits << to))
}

/// Nibble `i` of a chunk.
#[inline(always)]
fn nibble<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
    moved(
        isa,
        vector(isa, chunk, i % 8 * VECTOR, part),
        i as u32 / 8 * 4,
        0,
        15,
    )
}

/// Two bits of quad `i`, at bit `to`.
#[inline(always)]
fn two_bits<I: Isa>(isa: I, twos: &[u8], part: usize, i: usize, to: u32) -> I::V {
    moved(
        isa,
        vector(isa, twos, i % 4 * VECTOR, part),
        i as u32 / 4 * 2,
        to,
        3,
    )
}

/// One bit of quad `i`, at bit `to`.
#[inline(always)]
fn one_bit<I: Isa>(isa: I, bits: &[u8], part: usize, i: usize, to: u32) -> I::V {
    moved(isa, vector(isa, bits, i / 8 * VECTOR, part), i as u32 % 8, to, 1)
}

/// Codes of 16 rows by quads: `[quad][4 * row + byte]`, each weight plus `offset`.
pub(super) fn quads<const N: usize>(steps: &[Step; ROWS], offset: i8) -> [[u8; VECTOR]; N] {
    let mut out = [[0; VECTOR]; N];
    for (row, step) in steps.iter().enumerate() {
        for (out, q) in out.iter_mut().zip(step.q.as_chunks::<4>().0) {
            out[4 * row..4 * row + 4].copy_from_slice(&q.map(|q| q.wrapping_add(offset) as u8));
        }
    }
    out
}

fn pack_nibbles(quads: &[[u8; VECTOR]], out: &mut [u8]) {
    for (i, out) in out[..NIBBLES].chunks_exact_mut(VECTOR).enumerate() {
        for (b, out) in out.iter_mut().enumerate() {
            *out = quads[i][b] & 15 | quads[i + 8][b] << 4;
        }
    }
}

/// Bits `shift`, `shift + 1` of 16 quads.
fn pack_twos(quads: &[[u8; VECTOR]], shift: u32, out: &mut [u8]) {
    for (i, out) in out[..TWOS].chunks_exact_mut(VECTOR).enumerate() {
        for (b, out) in out.iter_mut().enumerate() {
            let two = |quad: usize| quads[quad][b] >> shift & 3;
            *out = two(i) | two(i + 4) << 2 | two(i + 8) << 4 | two(i + 12) << 6;
        }
    }
}

/// Bit `shift` of 16 quads.
fn pack_bits(quads: &[[u8; VECTOR]], shift: u32, out: &mut [u8]) {
    for (i, out) in out[..BITS].chunks_exact_mut(VECTOR).enumerate() {
        for (b, out) in out.iter_mut().enumerate() {
            *out = (0..8).fold(0, |bits, j| bits | (quads[8 * i + j][b] >> shift & 1) << j);
        }
    }
}

pub(super) fn pack_halves(numbers: impl Iterator<Item = f32>, out: &mut [u8]) {
    for (number, out) in numbers.zip(out.chunks_exact_mut(2)) {
        // Exact: the number came from an f16.
        out.copy_from_slice(&f16::from_f32(number).to_le_bytes());
    }
}

pub(super) fn half_at(bytes: &[u8], at: usize, row: usize) -> f32 {
    f16::from_le_bytes([bytes[at + 2 * row], bytes[at + 2 * row + 1]]).to_f32()
}

/// Weights of one row back from codes: `code(chunk, quad, byte)`.
fn unpack_codes(row: usize, offset: i8, out: &mut Step, code: impl Fn(usize, usize, usize) -> u8) {
    for (k, q) in out.q.iter_mut().enumerate() {
        *q = code(k / 64, k % 64 / 4, 4 * row + k % 4).wrapping_sub(offset as u8) as i8;
    }
}

fn nibble_at(chunk: &[u8], i: usize, b: usize) -> u8 {
    chunk[i % 8 * VECTOR + b] >> (i / 8 * 4) & 15
}

fn two_at(twos: &[u8], i: usize, b: usize) -> u8 {
    twos[i % 4 * VECTOR + b] >> (i / 4 * 2) & 3
}

fn bit_at(bits: &[u8], i: usize, b: usize) -> u8 {
    bits[i / 8 * VECTOR + b] >> (i % 8) & 1
}

#[inline(always)]
pub(super) fn four_vectors<I: Isa>(isa: I, bytes: &[u8], part: usize) -> [I::V; 4] {
    [
        vector(isa, bytes, 0, part),
        vector(isa, bytes, VECTOR, part),
        vector(isa, bytes, 2 * VECTOR, part),
        vector(isa, bytes, 3 * VECTOR, part),
    ]
}

/// Six-bit scales and minima of q4_k and q5_k: three vectors.
#[inline(always)]
fn six_bit_scales<I: Isa>(isa: I, bytes: &[u8], part: usize) -> [I::V; 4] {
    let (low, top) = (vector(isa, bytes, 0, part), vector(isa, bytes, 128, part));
    let a = isa.or(moved(isa, low, 0, 0, 15), moved(isa, top, 0, 4, 3));
    let b = isa.or(moved(isa, low, 4, 0, 15), moved(isa, top, 2, 4, 3));
    [a, b, b, b]
}

#[inline(always)]
fn six_bit_mins<I: Isa>(isa: I, bytes: &[u8], part: usize) -> [I::V; 4] {
    let (low, top) = (vector(isa, bytes, 64, part), vector(isa, bytes, 128, part));
    let a = isa.or(moved(isa, low, 0, 0, 15), moved(isa, top, 4, 4, 3));
    let b = isa.or(moved(isa, low, 4, 0, 15), moved(isa, top, 6, 4, 3));
    [a, b, b, b]
}

/// Scales, minima and floats of q4_k and q5_k.
fn pack_six_bits(steps: &[Step; ROWS], out: &mut [u8]) {
    for (row, step) in steps.iter().enumerate() {
        for j in 0..4 {
            let (s, s4) = (step.scale[2 * j] as u8, step.scale[2 * j + 8] as u8);
            let (m, m4) = (step.min[2 * j], step.min[2 * j + 8]);
            let lane = 4 * row + j;
            out[lane] = s & 15 | s4 << 4;
            out[64 + lane] = m & 15 | m4 << 4;
            out[128 + lane] = s >> 4 | s4 >> 4 << 2 | m >> 4 << 4 | m4 >> 4 << 6;
        }
    }
    pack_halves(steps.iter().map(|s| s.d), &mut out[192..224]);
    pack_halves(steps.iter().map(|s| s.dmin), &mut out[224..256]);
}

fn unpack_six_bits(bytes: &[u8], row: usize, out: &mut Step) {
    for g in 0..16 {
        let (group, lane) = (g / 2, 4 * row + g / 2 % 4);
        let (shift, high) = (group / 4 * 4, group / 4 * 2);
        let top = bytes[128 + lane];
        out.scale[g] = (bytes[lane] >> shift & 15 | (top >> high & 3) << 4) as i8;
        out.min[g] = bytes[64 + lane] >> shift & 15 | (top >> (high + 4) & 3) << 4;
    }
    out.d = half_at(bytes, 192, row);
    out.dmin = half_at(bytes, 224, row);
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Q4K;

impl Layout for Q4K {
    const BYTES: usize = 16 * 144;
    const CHUNK: usize = NIBBLES;
    const GROUP: usize = 32;
    const MAX: i32 = 15;
    const SIGNED_SCALES: bool = false;
    const MIN: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
        nibble(isa, chunk, part, i)
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        six_bit_scales(isa, &step[2048..], part)
    }
    #[inline(always)]
    fn mins<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        six_bit_mins(isa, &step[2048..], part)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 2240, part)
    }
    #[inline(always)]
    fn dmin<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 2272, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let quads = quads::<64>(steps, 0);
        for (quads, out) in quads.chunks_exact(16).zip(out.chunks_exact_mut(Self::CHUNK)) {
            pack_nibbles(quads, out);
        }
        pack_six_bits(steps, &mut out[2048..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 0, out, |c, i, b| nibble_at(&step[c * Self::CHUNK..], i, b));
        unpack_six_bits(&step[2048..], row, out);
    }
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Q5K;

impl Layout for Q5K {
    const BYTES: usize = 16 * 176;
    const CHUNK: usize = NIBBLES + BITS;
    const GROUP: usize = 32;
    const MAX: i32 = 31;
    const SIGNED_SCALES: bool = false;
    const MIN: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
        let (nibbles, bits) = chunk.split_at(NIBBLES);
        isa.or(nibble(isa, nibbles, part, i), one_bit(isa, bits, part, i, 4))
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        six_bit_scales(isa, &step[2560..], part)
    }
    #[inline(always)]
    fn mins<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        six_bit_mins(isa, &step[2560..], part)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 2752, part)
    }
    #[inline(always)]
    fn dmin<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 2784, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let quads = quads::<64>(steps, 0);
        for (quads, out) in quads.chunks_exact(16).zip(out.chunks_exact_mut(Self::CHUNK)) {
            pack_nibbles(quads, out);
            pack_bits(quads, 4, &mut out[NIBBLES..]);
        }
        pack_six_bits(steps, &mut out[2560..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 0, out, |c, i, b| {
            let (nibbles, bits) = step[c * Self::CHUNK..].split_at(NIBBLES);
            nibble_at(nibbles, i, b) | bit_at(bits, i, b) << 4
        });
        unpack_six_bits(&step[2560..], row, out);
    }
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Q6K;

impl Layout for Q6K {
    const BYTES: usize = 16 * 210;
    const CHUNK: usize = NIBBLES + TWOS;
    const GROUP: usize = 16;
    const MAX: i32 = 63;
    const OFFSET_SHIFT: Option<u32> = Some(5);
    const SIGNED_SCALES: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
        let (nibbles, twos) = chunk.split_at(NIBBLES);
        isa.or(nibble(isa, nibbles, part, i), two_bits(isa, twos, part, i, 4))
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        four_vectors(isa, &step[3072..], part)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 3328, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let quads = quads::<64>(steps, 32);
        for (quads, out) in quads.chunks_exact(16).zip(out.chunks_exact_mut(Self::CHUNK)) {
            pack_nibbles(quads, out);
            pack_twos(quads, 4, &mut out[NIBBLES..]);
        }
        pack_bytes(steps, |step, g| step.scale[g] as u8, &mut out[3072..]);
        pack_halves(steps.iter().map(|s| s.d), &mut out[3328..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 32, out, |c, i, b| {
            let (nibbles, twos) = step[c * Self::CHUNK..].split_at(NIBBLES);
            nibble_at(nibbles, i, b) | two_at(twos, i, b) << 4
        });
        for g in 0..16 {
            out.scale[g] = step[3072 + g / 4 * VECTOR + 4 * row + g % 4] as i8;
        }
        out.min = [0; 16];
        (out.d, out.dmin) = (half_at(step, 3328, row), 0.0);
    }
}

/// A byte per group of 16: four vectors.
pub(super) fn pack_bytes(steps: &[Step; ROWS], byte: impl Fn(&Step, usize) -> u8, out: &mut [u8]) {
    for (row, step) in steps.iter().enumerate() {
        for g in 0..16 {
            out[g / 4 * VECTOR + 4 * row + g % 4] = byte(step, g);
        }
    }
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Q2K;

impl Layout for Q2K {
    const BYTES: usize = 16 * 84;
    const CHUNK: usize = TWOS;
    const GROUP: usize = 16;
    const MAX: i32 = 3;
    const SIGNED_SCALES: bool = false;
    const MIN: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
        two_bits(isa, chunk, part, i, 0)
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        let [a, b, c, d] = four_vectors(isa, &step[1024..], part);
        let mask = isa.splat8(15);
        [
            isa.and(a, mask),
            isa.and(b, mask),
            isa.and(c, mask),
            isa.and(d, mask),
        ]
    }
    #[inline(always)]
    fn mins<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        let [a, b, c, d] = four_vectors(isa, &step[1024..], part);
        [
            moved(isa, a, 4, 0, 15),
            moved(isa, b, 4, 0, 15),
            moved(isa, c, 4, 0, 15),
            moved(isa, d, 4, 0, 15),
        ]
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 1280, part)
    }
    #[inline(always)]
    fn dmin<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 1312, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let quads = quads::<64>(steps, 0);
        for (quads, out) in quads.chunks_exact(16).zip(out.chunks_exact_mut(Self::CHUNK)) {
            pack_twos(quads, 0, out);
        }
        pack_bytes(
            steps,
            |s, g| s.scale[g] as u8 & 15 | s.min[g] << 4,
            &mut out[1024..],
        );
        pack_halves(steps.iter().map(|s| s.d), &mut out[1280..1312]);
        pack_halves(steps.iter().map(|s| s.dmin), &mut out[1312..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 0, out, |c, i, b| two_at(&step[c * Self::CHUNK..], i, b));
        for g in 0..16 {
            let byte = step[1024 + g / 4 * VECTOR + 4 * row + g % 4];
            (out.scale[g], out.min[g]) = ((byte & 15) as i8, byte >> 4);
        }
        (out.d, out.dmin) = (half_at(step, 1280, row), half_at(step, 1312, row));
    }
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Q3K;

impl Layout for Q3K {
    const BYTES: usize = 16 * 110;
    const CHUNK: usize = TWOS + BITS;
    const GROUP: usize = 16;
    const MAX: i32 = 7;
    const OFFSET_SHIFT: Option<u32> = Some(2);
    const SIGNED_SCALES: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
        let (twos, bits) = chunk.split_at(TWOS);
        isa.or(two_bits(isa, twos, part, i, 0), one_bit(isa, bits, part, i, 2))
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        let top = vector(isa, step, 1664, part);
        let mut scales = [top; 4];
        for v in 0..4 {
            let low = vector(isa, step, 1536 + v / 2 * VECTOR, part);
            let low = moved(isa, low, v as u32 % 2 * 4, 0, 15);
            let scale = isa.or(low, moved(isa, top, 2 * v as u32, 4, 3));
            scales[v] = isa.add8(scale, isa.splat8(-32i8 as u8));
        }
        scales
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 1728, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let quads = quads::<64>(steps, 4);
        for (quads, out) in quads.chunks_exact(16).zip(out.chunks_exact_mut(Self::CHUNK)) {
            pack_twos(quads, 0, out);
            pack_bits(quads, 2, &mut out[TWOS..]);
        }
        for (row, step) in steps.iter().enumerate() {
            let scale = |g: usize| step.scale[g].wrapping_add(32) as u8;
            for j in 0..4 {
                let lane = 4 * row + j;
                out[1536 + lane] = scale(j) & 15 | scale(j + 4) << 4;
                out[1600 + lane] = scale(j + 8) & 15 | scale(j + 12) << 4;
                out[1664 + lane] = (0..4).fold(0, |top, b| top | (scale(4 * b + j) >> 4 & 3) << (2 * b));
            }
        }
        pack_halves(steps.iter().map(|s| s.d), &mut out[1728..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 4, out, |c, i, b| {
            let (twos, bits) = step[c * Self::CHUNK..].split_at(TWOS);
            two_at(twos, i, b) | bit_at(bits, i, b) << 2
        });
        for g in 0..16 {
            let lane = 4 * row + g % 4;
            let low = step[1536 + g / 8 * VECTOR + lane] >> (g / 4 % 2 * 4) & 15;
            let top = step[1664 + lane] >> (g / 4 * 2) & 3;
            out.scale[g] = (low | top << 4) as i8 - 32;
        }
        out.min = [0; 16];
        (out.d, out.dmin) = (half_at(step, 1728, row), 0.0);
    }
}

/// See the module's drawing.
#[derive(Debug)]
pub(super) struct Iq4Xs;

impl Layout for Iq4Xs {
    const BYTES: usize = 2048 + 128 + 32;
    const CHUNK: usize = NIBBLES;
    const GROUP: usize = 32;
    const SIGNED: bool = true;
    const MAX: i32 = 255;
    const SIGNED_SCALES: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
        table::<I>(isa, &IQ4_VALUES, nibble(isa, chunk, part, i))
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        let (low, top) = (vector(isa, step, 2048, part), vector(isa, step, 2112, part));
        let centre = isa.splat8(-32i8 as u8);
        let a = isa.or(moved(isa, low, 0, 0, 15), moved(isa, top, 0, 4, 3));
        let b = isa.or(moved(isa, low, 4, 0, 15), moved(isa, top, 2, 4, 3));
        let (a, b) = (isa.add8(a, centre), isa.add8(b, centre));
        [a, b, b, b]
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        halves(isa, step, 2176, part)
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        let mut quads = quads::<64>(steps, 0);
        quads.as_flattened_mut().iter_mut().for_each(|v| *v = code_of(*v));
        for (quads, out) in quads.chunks_exact(16).zip(out.chunks_exact_mut(Self::CHUNK)) {
            pack_nibbles(quads, out);
        }
        for (row, step) in steps.iter().enumerate() {
            let scale = |g: usize| step.scale[2 * g].wrapping_add(32) as u8;
            for j in 0..4 {
                let lane = 4 * row + j;
                out[2048 + lane] = scale(j) & 15 | scale(j + 4) << 4;
                out[2112 + lane] = scale(j) >> 4 & 3 | (scale(j + 4) >> 4 & 3) << 2;
            }
        }
        pack_halves(steps.iter().map(|s| s.d), &mut out[2176..]);
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        unpack_codes(row, 0, out, |c, i, b| {
            IQ4_VALUES[usize::from(nibble_at(&step[c * Self::CHUNK..], i, b))] as u8
        });
        for g in 0..16 {
            let (group, lane) = (g / 2, 4 * row + g / 2 % 4);
            let low = step[2048 + lane] >> (group / 4 * 4) & 15;
            let top = step[2112 + lane] >> (group / 4 * 2) & 3;
            out.scale[g] = (low | top << 4) as i8 - 32;
        }
        out.min = [0; 16];
        (out.d, out.dmin) = (half_at(step, 2176, row), 0.0);
    }
}

/// `values[codes]` as [`Isa::dot_signed`] takes them: the bias is in the table already.
#[inline(always)]
pub(super) fn table<I: Isa>(isa: I, values: &[i8; 16], codes: I::V) -> I::V {
    let mut biased = *values;
    let mut i = 0;
    while i < 16 {
        biased[i] = values[i].wrapping_add(I::BIAS as i8);
        i += 1;
    }
    isa.lookup(&biased, codes)
}

/// The code of a value of IQ4's table; 0 stands where there is none (padding).
pub(super) const fn code_of(value: u8) -> u8 {
    CODES[value as usize]
}

const CODES: [u8; 256] = {
    let mut codes = [0; 256];
    let mut i = 0;
    while i < 16 {
        codes[IQ4_VALUES[i] as u8 as usize] = i as u8;
        i += 1;
    }
    codes
};

/// The scratch of types without a layout of their own: a byte per weight, and floats as they are.
///
/// ```text
///   chunk = quad[0..16]  4 x 1024 | scales[4][64] i8, groups 4v + j | d[16] f32
/// ```
#[derive(Debug)]
pub(super) struct Int8;

impl Layout for Int8 {
    const BYTES: usize = 4096 + 256 + 64;
    const CHUNK: usize = 16 * VECTOR;
    const OWN: bool = false;
    const GROUP: usize = 16;
    const SIGNED: bool = true;
    const MAX: i32 = 255;
    const SIGNED_SCALES: bool = true;

    #[inline(always)]
    fn quad<I: Isa>(isa: I, chunk: &[u8], part: usize, i: usize) -> I::V {
        isa.biased(vector(isa, chunk, i * VECTOR, part))
    }
    #[inline(always)]
    fn scales<I: Isa>(isa: I, step: &[u8], part: usize) -> [I::V; 4] {
        four_vectors(isa, &step[4096..], part)
    }
    #[inline(always)]
    fn d<I: Isa>(isa: I, step: &[u8], part: usize) -> I::F {
        isa.load_f32(&step[4352 + part * 4 * I::ROWS..])
    }
    fn pack(steps: &[Step; ROWS], out: &mut [u8]) {
        out[..4096].copy_from_slice(quads::<64>(steps, 0).as_flattened());
        pack_bytes(steps, |step, g| step.scale[g] as u8, &mut out[4096..4352]);
        for (step, out) in steps.iter().zip(out[4352..].chunks_exact_mut(4)) {
            out.copy_from_slice(&step.d.to_le_bytes());
        }
    }
    fn unpack(step: &[u8], row: usize, out: &mut Step) {
        for (k, q) in out.q.iter_mut().enumerate() {
            *q = step[k / 4 * VECTOR + 4 * row + k % 4] as i8;
        }
        for g in 0..16 {
            out.scale[g] = step[4096 + g / 4 * VECTOR + 4 * row + g % 4] as i8;
        }
        let d = &step[4352 + 4 * row..];
        out.min = [0; 16];
        (out.d, out.dmin) = (f32::from_le_bytes([d[0], d[1], d[2], d[3]]), 0.0);
    }
}
