//! The search for types without a minimum: w = d * scale * q.
//!
//! One level (q4_0, q5_0, q8_0, iq4_nl): one half-precision scale for 32 weights. Two levels (q3_k, q6_k, iq4_xs): an
//! integer scale per group and one half-precision factor for 256 weights.
//!
//! A group's scale is found by trying extents (what code the largest weight gets) on both sides, each followed by a
//! least squares fit. With two levels the factor and the integer scales are then fitted in turn, every error
//! measured with the scale as it will be stored.

use super::group::{Codebook, Group, SUBNORMAL, clamp, round, to_half, to_half_scale};
use crate::quant::Step;

/// How far and how finely extents are tried.
pub(super) struct Effort {
    /// How many codes beyond the codebook's end the largest weight may reach: clipping pays where codes are few.
    pub(super) beyond: f32,
    /// Distance between extents.
    pub(super) stride: f32,
}

/// The scale of least squared error, as far as the search goes; 0 for a group of zeros.
fn best_scale<C: Codebook>(g: Group<'_>, effort: &Effort) -> f32 {
    let extreme = g.extreme();
    if extreme.abs() < TINY {
        return 0.0;
    }
    let mut best = (f32::INFINITY, 0.0);
    for end in [C::TOP, -C::BOTTOM] {
        let n = ((effort.beyond + 0.6) / effort.stride) as i32;
        for i in 0..=n {
            let extent = end.abs() - 0.6 + i as f32 * effort.stride;
            let t = if end < 0.0 { -extent } else { extent } / extreme;
            let sums = g.scale_sums::<C>(t);
            if sums.qq > 0.0 {
                let s = sums.xq / sums.qq;
                let error = g.scale_error::<C>(s);
                if error < best.0 {
                    best = (error, s);
                }
            }
        }
    }
    for _ in 0..3 {
        let sums = g.scale_sums::<C>(1.0 / best.1);
        if sums.qq == 0.0 {
            break;
        }
        let s = sums.xq / sums.qq;
        let error = g.scale_error::<C>(s);
        if error >= best.0 {
            break;
        }
        best = (error, s);
    }
    best.1
}

/// Groups whose largest weight is below this become zeros: half precision could not hold their scale.
pub(super) const TINY: f32 = 1e-8;

/// One level: fills `q` and `d` of the step.
pub(super) fn one_level<C: Codebook>(g: Group<'_>, effort: &Effort, out: &mut Step) {
    let s = best_scale::<C>(g, effort);
    let mut best = (g.scale_error::<C>(0.0), 0.0);
    // Rounding to half precision moves the optimum a little; its neighbours are cheap to try.
    let bits = half::f16::from_f32_const(to_half(s)).to_bits();
    for delta in [0u16, 1, 2, u16::MAX, u16::MAX - 1] {
        let d = half::f16::from_bits(bits.wrapping_add(delta)).to_f32_const();
        if d.is_finite() && d != 0.0 {
            let error = g.scale_error::<C>(d);
            if error < best.0 {
                best = (error, d);
            }
        }
    }
    out.d = best.1;
    g.scale_codes::<C>(out.d, &mut out.q);
}

/// Two levels over groups of `LEN` weights with integer scales from `-top - 1` to `top`: fills `q`, `scale` and `d`.
pub(super) fn two_levels<C: Codebook, const LEN: usize>(
    block: Group<'_>,
    top: f32,
    effort: &Effort,
    out: &mut Step,
) {
    let groups = || {
        block
            .x
            .chunks_exact(LEN)
            .zip(block.w.chunks_exact(LEN))
            .map(|(x, w)| Group { x, w })
    };
    let mut ideal = [0.0f32; 16];
    let mut largest = 0.0f32;
    for (s, g) in ideal.iter_mut().zip(groups()) {
        *s = best_scale::<C>(g, effort);
        if s.abs() > largest.abs() {
            largest = *s;
        }
    }
    let mut best = (f32::INFINITY, 0.0f32, [0.0f32; 16]);
    // The group with the largest scale gets one of the last few integers, on the longer, negative side or the other.
    // Where half precision has few digits left it may need a factor well above that.
    let ends = if largest.abs() / top < SUBNORMAL {
        [top, 0.8 * top, 0.6 * top, 0.4 * top]
    } else {
        [-top - 1.0, top, -top, 0.97 * top]
    };
    for end in ends {
        let mut d = to_half_scale(largest / end);
        for _ in 0..4 {
            if d == 0.0 {
                break;
            }
            let (mut error, mut scales) = (0.0, [0.0f32; 16]);
            let (mut xl, mut ll) = (0.0f64, 0.0f64);
            for ((sc, &s), g) in scales.iter_mut().zip(&ideal).zip(groups()) {
                let (e, chosen) = integer_scale::<C>(g, s, d, top);
                *sc = chosen;
                error += e;
                if chosen != 0.0 {
                    let sums = g.scale_sums::<C>(1.0 / (d * chosen));
                    xl += f64::from(chosen) * f64::from(sums.xq);
                    ll += f64::from(chosen) * f64::from(chosen) * f64::from(sums.qq);
                }
            }
            if error >= best.0 {
                break;
            }
            best = (error, d, scales);
            let next = if ll > 0.0 {
                to_half_scale((xl / ll) as f32)
            } else {
                0.0
            };
            if next == d {
                break;
            }
            d = next;
        }
    }
    let (_, d, scales) = best;
    out.d = d;
    for (i, (&sc, g)) in scales.iter().zip(groups()).enumerate() {
        g.scale_codes::<C>(d * sc, &mut out.q[LEN * i..][..LEN]);
        for scale in &mut out.scale[LEN / 16 * i..][..LEN / 16] {
            *scale = sc as i8;
        }
    }
}

/// The integer scale near `s / d` of least error, and that error.
fn integer_scale<C: Codebook>(g: Group<'_>, s: f32, d: f32, top: f32) -> (f32, f32) {
    let near = round(clamp(s / d, -top - 1.0, top));
    let mut best = (f32::INFINITY, 0.0);
    for step in [0.0, -1.0, 1.0] {
        let sc = clamp(near + step, -top - 1.0, top);
        let error = g.scale_error::<C>(d * sc);
        if error < best.0 {
            best = (error, sc);
        }
    }
    best
}
