//! Digests of float operations over a grid of inputs: is the platform's arithmetic the one that the numerics
//! contract is written in? IEEE 754 single and double precision, each operation rounded by itself, denormals
//! kept, conversions saturating as Rust defines them, and pinned `libm` for the rest.
//!
//! NaNs enter the digest as one value, since wasm leaves their sign and payload open (the engine never digests
//! them either).

use std::collections::BTreeMap;
use std::hint::black_box;

use crate::sha256;

/// Inputs around everything that rounds or flushes in a special way, then a deterministic spread over all bits.
fn grid() -> Vec<f32> {
    let mut values = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        -2.5,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::from_bits(0x007f_ffff),
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::EPSILON,
        1.0 + f32::EPSILON,
        1.0 - f32::EPSILON / 2.0,
        127.5,
        -128.5,
        65504.0,
        65520.0,
        2_147_483_648.0,
        -87.5,
        88.9,
    ];
    let mut state = 0x9e37_79b9_u32;
    for _ in 0..180 {
        // xorshift32: any spread over signs, exponents and mantissas will do.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        values.push(f32::from_bits(state));
        // The same mantissa at a magnitude where activations and logits live.
        values.push(f32::from_bits(
            (state & 0x807f_ffff) | ((120 + (state >> 8) % 14) << 23),
        ));
    }
    values
}

/// The bits of `x`, all NaNs alike.
fn bits(x: f32) -> u64 {
    if x.is_nan() {
        0x7fc0_0000
    } else {
        x.to_bits().into()
    }
}

/// As [`bits`].
fn bits64(x: f64) -> u64 {
    if x.is_nan() {
        0x7ff8_0000_0000_0000
    } else {
        x.to_bits()
    }
}

fn digest(values: impl Iterator<Item = u64>) -> String {
    sha256(values.map(u64::to_le_bytes))
}

/// A digest per operation, by the operation's name.
pub fn digests() -> BTreeMap<&'static str, String> {
    let grid = grid();
    // black_box: the operations are to run where the code runs, not in the compiler.
    let unary = |f: fn(f32) -> u64| digest(grid.iter().map(|&x| f(black_box(x))));
    let binary = |f: fn(f32, f32) -> u64| {
        digest(
            grid.iter()
                .flat_map(|&x| grid.iter().map(move |&y| f(black_box(x), black_box(y)))),
        )
    };
    BTreeMap::from([
        ("add", binary(|x, y| bits(x + y))),
        ("sub", binary(|x, y| bits(x - y))),
        ("mul", binary(|x, y| bits(x * y))),
        ("div", binary(|x, y| bits(x / y))),
        ("mul_then_add", binary(|x, y| bits(x * y + x))),
        (
            "f64_mul_then_add",
            binary(|x, y| bits64(f64::from(x) * f64::from(y) + 1.0 / f64::from(x))),
        ),
        (
            "f64_to_f32",
            binary(|x, y| bits((f64::from(x) / f64::from(y)) as f32)),
        ),
        ("less", binary(|x, y| u64::from(x < y))),
        ("sqrt", unary(|x| bits(x.sqrt()))),
        ("round_ties_even", unary(|x| bits(x.round_ties_even()))),
        ("to_i32", unary(|x| (x as i32) as u64)),
        ("to_i8", unary(|x| (x as i8) as u64)),
        ("from_i32", unary(|x| bits(x.to_bits() as i32 as f32))),
        (
            "to_f16",
            unary(|x| {
                let half = half::f16::from_f32(x);
                if half.is_nan() {
                    0x7e00
                } else {
                    half.to_bits().into()
                }
            }),
        ),
        (
            "from_f16",
            unary(|x| bits(half::f16::from_bits(x.to_bits() as u16).to_f32())),
        ),
        (
            "to_bf16",
            unary(|x| {
                let half = half::bf16::from_f32(x);
                if half.is_nan() {
                    0x7fc0
                } else {
                    half.to_bits().into()
                }
            }),
        ),
        ("libm_expf", unary(|x| bits(libm::expf(x)))),
        ("libm_exp", unary(|x| bits64(libm::exp(x.into())))),
        ("libm_logf", unary(|x| bits(libm::logf(x)))),
        ("libm_log", unary(|x| bits64(libm::log(x.into())))),
        ("libm_sin", unary(|x| bits64(libm::sin(x.into())))),
        ("libm_cos", unary(|x| bits64(libm::cos(x.into())))),
        ("libm_tanhf", unary(|x| bits(libm::tanhf(x)))),
        ("libm_erff", unary(|x| bits(libm::erff(x)))),
        ("libm_pow", binary(|x, y| bits64(libm::pow(x.into(), y.into())))),
    ])
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    /// Each of these comes out otherwise when a multiply and an add are fused, or when denormals are flushed.
    #[test]
    fn arithmetic_is_strict() {
        let x = black_box(1.0_f32 + f32::EPSILON);
        assert_eq!((x * x - x * x).to_bits(), 0);
        let product = black_box(x * x);
        assert_eq!(
            (x * x - product).to_bits(),
            0,
            "a fused multiply-add leaves the rounding error here"
        );
        assert_eq!(
            (black_box(f32::MIN_POSITIVE) * 0.5).to_bits(),
            0x0040_0000,
            "denormals are flushed"
        );
        assert_eq!(black_box(2.5_f32).round_ties_even(), 2.0);
    }
}
