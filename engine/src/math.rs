//! Scalar mathematics of the numerics contract: the pinned pure-Rust `libm`, in f64, rounded once by the caller.
//!
//! Everything that is not a plain IEEE operation goes through here or through the polynomials of
//! [`crate::kernels::functions`]; the system's libm differs between platforms and versions.

/// `base` to the power `exponent`.
pub fn pow(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}

/// Sine and cosine of an angle in radians.
pub fn sin_cos(angle: f64) -> (f64, f64) {
    libm::sincos(angle)
}

/// Natural logarithm.
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// e to the power x, in f64. The forward pass uses the f32 polynomial instead.
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// Square root: exact by IEEE 754 on every platform.
pub fn sqrt(x: f64) -> f64 {
    x.sqrt()
}

/// Whether this thread rounds to nearest and keeps denormals, as the contract needs. Both are changed by one control
/// register on x86, which code outside the engine may have touched.
pub fn float_environment_is_strict() -> bool {
    let seen = std::hint::black_box;
    let keeps_denormals = (seen(f32::MIN_POSITIVE) * seen(0.5)).to_bits() == 0x0040_0000
        && (seen(f32::from_bits(0x0040_0000)) + seen(0.0)).to_bits() == 0x0040_0000;
    let half_ulp = f32::EPSILON / 2.0;
    let to_nearest_even = seen(1.0f32) + seen(half_ulp) == 1.0
        && seen(1.0 + f32::EPSILON) + seen(half_ulp) == 1.0 + 2.0 * f32::EPSILON
        && seen(-1.0f32) - seen(half_ulp) == -1.0;
    keeps_denormals && to_nearest_even
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    /// The contract pins these functions by their results: one digest over a grid that covers rope angles,
    /// frequencies and the edges. A new `libm` that changes one bit fails here, on every platform.
    #[test]
    fn results_are_pinned() {
        let mut hash = Sha256::new();
        for i in 0..4000u32 {
            let x = f64::from(i) * 0.37 + 1e-3;
            let (s, c) = super::sin_cos(x * 11.0);
            for v in [
                s,
                c,
                super::pow(10000.0, -f64::from(i % 256) / 128.0),
                super::pow(1_000_000.0, -f64::from(i % 128) / 64.0),
                super::ln(x),
                super::exp(-x / 16.0),
                super::sqrt(x),
            ] {
                hash.update(v.to_bits().to_le_bytes());
            }
        }
        let digest = hash
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>();
        assert_eq!(
            digest,
            "9e5277492f347a6a4108ffa24f3fca261e8a8d4aa928edd024667dacb33cd84d"
        );
    }
}
