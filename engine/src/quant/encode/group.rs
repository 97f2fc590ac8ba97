//! What the quantizers measure on a group of weights: codes for a scale, least squares fits, squared errors.
//!
//! Sums run in eight lanes and are folded in one fixed order, so that a file quantized anywhere is the same file.

/// Lanes of the partial sums.
const LANES: usize = 8;

/// Weights of a group (their number a multiple of 8) with the importance of each.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) x: &'a [f32],
    pub(super) w: &'a [f32],
}

/// The integers that a code can stand for.
pub(super) trait Codebook {
    /// The largest positive value.
    const TOP: f32;
    /// The magnitude of the most negative value.
    const BOTTOM: f32;
    /// The value nearest to `v`.
    fn nearest(v: f32) -> f32;
}

/// All integers from `-BOTTOM` to `TOP`.
pub(super) struct Uniform<const BOTTOM: u8, const TOP: u8>;

impl<const BOTTOM: u8, const TOP: u8> Codebook for Uniform<BOTTOM, TOP> {
    const TOP: f32 = TOP as f32;
    const BOTTOM: f32 = BOTTOM as f32;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        round(clamp(v, -Self::BOTTOM, Self::TOP))
    }
}

/// The table of iq4_nl and iq4_xs.
pub(super) struct Iq4;

impl Codebook for Iq4 {
    const TOP: f32 = 113.0;
    const BOTTOM: f32 = 127.0;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        // Climbs the table: every midpoint below v adds the distance to the next value.
        let mut value = f32::from(crate::quant::iq4::VALUES[0]);
        for pair in crate::quant::iq4::VALUES.windows(2) {
            let (a, b) = (f32::from(pair[0]), f32::from(pair[1]));
            value += if v > (a + b) * 0.5 { b - a } else { 0.0 };
        }
        value
    }
}

/// To the nearest integer, ties to even, for |v| below 2^22: exact, and faster than a call where the processor has no
/// instruction.
#[inline(always)]
pub(super) fn round(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

#[inline(always)]
pub(super) fn clamp(v: f32, low: f32, high: f32) -> f32 {
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

/// The nearest half-precision number; the quantizers never pass what half precision cannot hold.
pub(super) fn to_half(v: f32) -> f32 {
    half::f16::from_f32_const(clamp(v, -65504.0, 65504.0)).to_f32_const()
}

/// Below this half precision is subnormal and loses digits.
pub(super) const SUBNORMAL: f32 = 1.0 / 16_384.0;

/// The nearest half-precision number to a scale; the smallest one, 2^-24, where that would be 0 and the scale is not.
pub(super) fn to_half_scale(v: f32) -> f32 {
    const SMALLEST: f32 = 1.0 / 16_777_216.0;
    match to_half(v) {
        0.0 if v > 0.0 => SMALLEST,
        0.0 if v < 0.0 => -SMALLEST,
        d => d,
    }
}

#[inline(always)]
fn fold(s: [f32; LANES]) -> f32 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// Sums of a group with codes q: `w q q`, `w q`, `w x q`.
#[derive(Clone, Copy, Default)]
pub(super) struct CodeSums {
    pub(super) qq: f32,
    pub(super) q: f32,
    pub(super) xq: f32,
}

impl<'a> Group<'a> {
    /// Runs `body(lane, x, w)` over the weights, and folds the lanes of the sums that it adds to.
    #[inline(always)]
    fn sum<const N: usize>(&self, body: impl Fn(f32, f32) -> [f32; N]) -> [f32; N] {
        let mut sums = [[0.0f32; LANES]; N];
        for (x, w) in self
            .x
            .as_chunks::<LANES>()
            .0
            .iter()
            .zip(self.w.as_chunks::<LANES>().0)
        {
            for lane in 0..LANES {
                let terms = body(x[lane], w[lane]);
                for (sum, term) in sums.iter_mut().zip(terms) {
                    sum[lane] += term;
                }
            }
        }
        sums.map(fold)
    }

    /// The weight of largest magnitude, with its sign.
    pub(super) fn extreme(&self) -> f32 {
        let mut extreme = 0.0f32;
        for &x in self.x {
            if x.abs() > extreme.abs() {
                extreme = x;
            }
        }
        extreme
    }

    /// Least and greatest weight.
    pub(super) fn range(&self) -> (f32, f32) {
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for &x in self.x {
            low = if x < low { x } else { low };
            high = if x > high { x } else { high };
        }
        (low, high)
    }

    /// Sum of w, sum of w x.
    pub(super) fn moments(&self) -> (f32, f32) {
        let [w, wx] = self.sum(|x, w| [w, w * x]);
        (w, wx)
    }

    /// The squared error of scale `s` with the nearest codes.
    #[inline(always)]
    pub(super) fn scale_error<C: Codebook>(&self, s: f32) -> f32 {
        let t = if s == 0.0 { 0.0 } else { 1.0 / s };
        let [error] = self.sum(|x, w| {
            let e = x - s * C::nearest(x * t);
            [w * e * e]
        });
        error
    }

    /// Sums over the codes nearest to `x * t`; `q` is left 0.
    #[inline(always)]
    pub(super) fn scale_sums<C: Codebook>(&self, t: f32) -> CodeSums {
        let [xq, qq] = self.sum(|x, w| {
            let q = C::nearest(x * t);
            let wq = w * q;
            [wq * x, wq * q]
        });
        CodeSums { qq, q: 0.0, xq }
    }

    /// The squared error of `s * q + offset` with the nearest codes 0 ..= top.
    #[inline(always)]
    pub(super) fn affine_error(&self, s: f32, offset: f32, top: f32) -> f32 {
        let t = if s == 0.0 { 0.0 } else { 1.0 / s };
        let [error] = self.sum(|x, w| {
            let e = x - (s * round(clamp((x - offset) * t, 0.0, top)) + offset);
            [w * e * e]
        });
        error
    }

    /// Sums over the codes 0 ..= top nearest to `(x - offset) * t`.
    #[inline(always)]
    pub(super) fn affine_sums(&self, t: f32, offset: f32, top: f32) -> CodeSums {
        let [q, qq, xq] = self.sum(|x, w| {
            let q = round(clamp((x - offset) * t, 0.0, top));
            let wq = w * q;
            [wq, wq * q, wq * x]
        });
        CodeSums { qq, q, xq }
    }

    /// Writes the codes nearest to `x / s`.
    pub(super) fn scale_codes<C: Codebook>(&self, s: f32, q: &mut [i8]) {
        let t = if s == 0.0 { 0.0 } else { 1.0 / s };
        for (q, &x) in q.iter_mut().zip(self.x) {
            *q = C::nearest(x * t) as i8;
        }
    }

    /// Writes the codes 0 ..= top nearest to `(x - offset) / s`.
    pub(super) fn affine_codes(&self, s: f32, offset: f32, top: f32, q: &mut [i8]) {
        let t = if s == 0.0 { 0.0 } else { 1.0 / s };
        for (q, &x) in q.iter_mut().zip(self.x) {
            *q = round(clamp((x - offset) * t, 0.0, top)) as i8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_nearest() {
        let values = crate::quant::iq4::VALUES;
        for i in -1400..=1300 {
            let v = i as f32 * 0.1;
            let best = values
                .iter()
                .map(|&c| (f32::from(c) - v).abs())
                .fold(f32::INFINITY, |a, b| if b < a { b } else { a });
            assert_eq!((Iq4::nearest(v) - v).abs(), best, "{v}");
        }
        assert_eq!(Uniform::<8, 7>::nearest(-100.0), -8.0);
        assert_eq!(Uniform::<8, 7>::nearest(f32::INFINITY), 7.0);
        assert_eq!(Uniform::<8, 7>::nearest(2.5), 2.0);
        assert_eq!(Uniform::<8, 7>::nearest(-3.5), -4.0);
    }
}
