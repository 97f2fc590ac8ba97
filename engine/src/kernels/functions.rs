//! The functions of the contract (exp, silu, gelu, tanh) and the reduction over a vector, over any width of lanes.
//!
//! Only IEEE add, sub, mul, div, comparisons and integer operations on the bits, each rounded by itself: so every width
//! and every instruction set gives the same bits. Accuracy, measured by the tests here: exp within 2 ulp.

/// f32 lanes, as wide as an instruction set has them.
pub trait Lanes: Copy {
    /// The same value in every lane.
    fn splat(v: f32) -> Self;
    /// Lane-wise sum.
    fn add(self, o: Self) -> Self;
    /// Lane-wise difference.
    fn sub(self, o: Self) -> Self;
    /// Lane-wise product.
    fn mul(self, o: Self) -> Self;
    /// Lane-wise quotient.
    fn div(self, o: Self) -> Self;
    /// `if self < o { yes } else { no }`, lane by lane.
    fn less(self, o: Self, yes: Self, no: Self) -> Self;
    /// The magnitude: sign bit cleared.
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign bit of `o`.
    fn sign_of(self, o: Self) -> Self;
    /// From `t = n + 1.5 * 2^23`, n an integer in -126..=127: 2^n, made of bits (`t << 23`, plus one's exponent).
    fn pow2_of_magic(self) -> Self;
}

impl Lanes for f32 {
    #[inline(always)]
    fn splat(v: f32) -> Self {
        v
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        self + o
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        self - o
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        self * o
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        self / o
    }
    #[inline(always)]
    fn less(self, o: Self, yes: Self, no: Self) -> Self {
        if self < o { yes } else { no }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f32::from_bits(self.to_bits() & 0x7fff_ffff)
    }
    #[inline(always)]
    fn sign_of(self, o: Self) -> Self {
        f32::from_bits(self.to_bits() & 0x7fff_ffff | o.to_bits() & 0x8000_0000)
    }
    #[inline(always)]
    fn pow2_of_magic(self) -> Self {
        f32::from_bits((self.to_bits() << 23).wrapping_add(0x3f80_0000))
    }
}

/// 1.5 * 2^23: adding it rounds a float of magnitude below 2^22 to an integer, ties to even.
pub const ROUND: f32 = 12_582_912.0;

/// e^x. Exactly 1 at 0, exactly 0 below -87 (so that no denormal arises), clamped above 88.
///
/// Range reduction to |r| <= ln2/2 with ln2 in two parts, then the degree-7 polynomial of Cephes' `expf`.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    let c = L::splat;
    let clamped = c(88.0).less(x, c(88.0), x);
    let t = clamped.mul(c(std::f32::consts::LOG2_E)).add(c(ROUND));
    let n = t.sub(c(ROUND));
    let r = clamped.sub(n.mul(c(0.693_359_4))).sub(n.mul(c(-2.121_944_4e-4)));
    let mut p = c(1.987_569_2e-4);
    for k in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        p = p.mul(r).add(c(k));
    }
    let y = p.mul(r.mul(r)).add(r).add(c(1.0)).mul(t.pow2_of_magic());
    x.less(c(-87.0), c(0.0), y)
}

/// x * sigmoid(x), as x / (1 + e^-x).
#[inline(always)]
pub fn silu<L: Lanes>(x: L) -> L {
    x.div(L::splat(1.0).add(exp(L::splat(0.0).sub(x))))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    one.div(one.add(exp(L::splat(0.0).sub(x))))
}

/// ln(1 + e^x) in f64, rounded once; x itself above 20, where the difference is less than half a unit of the last
/// place.
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 {
        return x;
    }
    crate::math::ln(1.0 + crate::math::exp(f64::from(x))) as f32
}

/// x * x where x is positive, 0 elsewhere; a NaN stays one.
#[inline(always)]
pub fn squared_relu<L: Lanes>(x: L) -> L {
    let zero = L::splat(0.0);
    let x = x.less(zero, zero, x);
    x.mul(x)
}

/// `g * sigmoid(1.702 g) * (u + 1)`, as `(g / (1 + e^(-1.702 g))) * (u + 1)`, with g at most 7 and u within -7..=7.
#[inline(always)]
pub fn swiglu_oai<L: Lanes>(gate: L, up: L) -> L {
    let c = L::splat;
    let g = c(7.0).less(gate, c(7.0), gate);
    let u = c(7.0).less(up, c(7.0), up);
    let u = u.less(c(-7.0), c(-7.0), u);
    g.div(c(1.0).add(exp(g.mul(c(-1.702))))).mul(u.add(c(1.0)))
}

/// The tanh form of GELU, 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), as x / (1 + e^-2u): the same
/// function without tanh's cancellation.
#[inline(always)]
pub fn gelu<L: Lanes>(x: L) -> L {
    let c = L::splat;
    let cubic = x.mul(x).mul(x).mul(c(0.044_715)).add(x);
    x.div(c(1.0).add(exp(cubic.mul(c(-1.595_769)))))
}

/// tanh: Cephes' odd polynomial below 0.625, (1 - e^-2|x|) / (1 + e^-2|x|) above.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let c = L::splat;
    let z = x.mul(x);
    let mut p = c(-5.704_989e-3);
    for k in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p.mul(z).add(c(k));
    }
    let small = p.mul(z).mul(x).add(x);
    let e = exp(x.abs().mul(c(-2.0)));
    let large = c(1.0).sub(e).div(c(1.0).add(e)).sign_of(x);
    x.abs().less(c(0.625), small, large)
}

/// Sum of `f(i)` for i in 0..n: sixteen strided partial sums from +0.0, then one fixed tree.
#[inline(always)]
pub fn sum16(n: usize, mut f: impl FnMut(usize) -> f32) -> f32 {
    let mut partial = [0.0f32; 16];
    for i in 0..n {
        partial[i % 16] += f(i);
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            partial[i] += partial[i + width];
        }
    }
    partial[0]
}

/// The factor of an RMS norm over `n` values whose squares sum to `sum`. Squares that overflow would give a row of
/// zeros, which looks like a result; NaN ends the pass with an error.
#[inline(always)]
pub fn inverse_rms(sum: f32, n: usize, eps: f32) -> f32 {
    let mean = sum / n as f32;
    if mean.is_finite() {
        1.0 / (mean + eps).sqrt()
    } else {
        f32::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(a: f32, b: f64) -> f64 {
        let unit = f64::from(f32::from_bits(a.to_bits() + 1)) - f64::from(a);
        ((f64::from(a) - b) / unit).abs()
    }

    #[test]
    fn exp_is_accurate_and_its_edges_are_exact() {
        assert_eq!(exp(0.0f32).to_bits(), 1.0f32.to_bits());
        assert_eq!(exp(-0.0f32).to_bits(), 1.0f32.to_bits());
        assert_eq!(exp(-87.5f32).to_bits(), 0);
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
        assert_eq!(exp(1000.0f32), exp(88.0f32));
        assert!(exp(f32::NAN).is_nan());
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let error = ulps(exp(x), crate::math::exp(f64::from(x)));
            if error > worst {
                worst = error;
            }
        }
        println!("exp: worst error {worst:.2} ulp");
        assert!(worst < 2.0, "{worst}");
    }

    #[test]
    fn gates_and_tanh_follow_their_definitions() {
        for i in -4000..=4000 {
            let x = i as f32 * 5e-3;
            let d = f64::from(x);
            let close = |got: f32, want: f64| (f64::from(got) - want).abs() <= 4e-7 * want.abs() + 1e-9;
            assert!(close(silu(x), d / (1.0 + crate::math::exp(-d))), "silu {x}");
            let u = 0.797_884_560_802_865_4 * (d + 0.044_715 * d * d * d);
            assert!(
                (f64::from(gelu(x)) - d / (1.0 + crate::math::exp(-2.0 * u))).abs() < 1e-6,
                "gelu {x}"
            );
            assert!(close(tanh(x), libm::tanh(d)), "tanh {x}");
        }
        assert_eq!(tanh(50.0f32), 1.0);
        assert_eq!(tanh(-50.0f32), -1.0);
        assert_eq!(silu(-1000.0f32), -1000.0 / (1.0 + exp(88.0f32)));
    }

    #[test]
    fn the_sum_has_its_fixed_shape() {
        // 1e8 and -1e8 meet only in the tree (lanes 0 and 8), after lane 0 has swallowed the small value.
        let mut v = [0.0f32; 40];
        (v[0], v[16], v[8]) = (1e8, 1.0, -1e8);
        assert_eq!(sum16(v.len(), |i| v[i]), 0.0);
        assert_eq!(sum16(0, |_| 1.0), 0.0);
    }
}
