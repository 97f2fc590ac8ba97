//! Scalar definitions of activation quantization, norms, gates and rotation.

use crate::kernels::functions::{ROUND, gelu, inverse_rms, sigmoid, silu, squared_relu, sum16, swiglu_oai};
use crate::kernels::{Activation, RopeKind};

/// Below this magnitude (2^-110) a step is all zero: 127 / a stays finite and d never becomes a denormal's reciprocal.
pub(in crate::kernels) const TINY: u32 = 0x0880_0000;
pub(in crate::kernels) const INFINITE: u32 = 0x7f80_0000;

/// int8 per `step` values; see [`crate::kernels::Backend::quantize`].
pub(super) fn quantize(step: usize, x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) -> bool {
    for (((x, q), d), sums) in x
        .chunks_exact(step)
        .zip(q.chunks_exact_mut(step))
        .zip(d)
        .zip(sums.chunks_exact_mut(step / 16))
    {
        // The largest magnitude as an integer: one comparison finds NaN and infinity as well.
        let mut a = 0;
        for v in x {
            a = a.max(v.to_bits() & 0x7fff_ffff);
        }
        if a >= INFINITE {
            return false;
        }
        if a < TINY {
            *d = 0.0;
            q.fill(0);
            sums.fill(0);
            continue;
        }
        let a = f32::from_bits(a);
        *d = a / 127.0;
        let r = 127.0 / a;
        for ((x, q), sum) in x.chunks_exact(16).zip(q.chunks_exact_mut(16)).zip(sums) {
            *sum = 0;
            for (x, q) in x.iter().zip(q) {
                // |x * r| <= 127 (1 + 2^-23), so adding ROUND rounds to the nearest integer, ties to even.
                *q = ((x * r + ROUND) - ROUND) as i8;
                *sum += i16::from(*q);
            }
        }
    }
    true
}

pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let r = inverse_rms(sum16(n, |i| x[i] * x[i]), n, eps);
        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
            *out = (x * r) * w;
        }
    }
}

/// See [`crate::kernels::Backend::layer_norm`]. The partial sums lie side by side, so that a compiler keeps them in
/// lanes.
#[inline(always)]
pub(in crate::kernels) fn layer_norm(
    x: &[f32],
    (weight, bias): (&[f32], Option<&[f32]>),
    eps: f32,
    out: &mut [f32],
) {
    let n = weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let mean = sum16_of(x, |x| x) / n as f32;
        let r = inverse_rms(sum16_of(x, |x| (x - mean) * (x - mean)), n, eps);
        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
            *out = ((x - mean) * r) * w;
        }
        if let Some(bias) = bias {
            add(out, bias);
        }
    }
}

/// `sum16` of a function of each value.
#[inline(always)]
fn sum16_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut partial = [0.0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for x in whole {
        for (partial, x) in partial.iter_mut().zip(x) {
            *partial += f(*x);
        }
    }
    for (partial, x) in partial.iter_mut().zip(rest) {
        *partial += f(*x);
    }
    // From here the sum has the shape of one of 16 numbers; +0.0 + p is p but for a zero's sign, which no root sees.
    sum16(16, |i| partial[i])
}

#[inline(always)]
pub(in crate::kernels) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
pub(in crate::kernels) fn add_scaled(x: &mut [f32], y: &[f32], scale: f32) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += scale * y;
    }
}

pub(super) fn gate(f: Activation, gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = match f {
            Activation::Silu => silu(*gate) * up,
            Activation::Gelu => gelu(*gate) * up,
            Activation::Sigmoid => sigmoid(*gate) * up,
            Activation::SquaredRelu => squared_relu(*gate) * up,
            Activation::SwigluOai => swiglu_oai(*gate, *up),
        };
    }
}

pub(super) fn activate(f: Activation, x: &mut [f32]) {
    for x in x {
        let mut y = [*x];
        gate(f, &mut y, &[1.0]);
        *x = y[0];
    }
}

#[inline(always)]
pub(in crate::kernels) fn rotate(kind: RopeKind, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for (i, (c, s)) in cos.iter().zip(sin).enumerate() {
        let (a, b) = match kind {
            RopeKind::Interleaved => (2 * i, 2 * i + 1),
            RopeKind::Halves => (i, i + half),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x * c - y * s;
        head[b] = x * s + y * c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(step: usize, x: &[f32]) -> Option<(Vec<i8>, Vec<f32>, Vec<i16>)> {
        let (mut q, mut d, mut s) = (vec![1; x.len()], vec![9.0; x.len() / step], vec![9; x.len() / 16]);
        quantize(step, x, &mut q, &mut d, &mut s).then_some((q, d, s))
    }

    #[test]
    fn quantization_follows_its_definition_at_the_edges() {
        let mut x = vec![0.0f32; 32];
        assert_eq!(run(32, &x).unwrap(), (vec![0; 32], vec![0.0], vec![0, 0]));
        (x[0], x[1], x[17]) = (-127.0, 0.5, 1.5);
        // Ties go to even: 0.5 -> 0, 1.5 -> 2.
        let (q, d, sums) = run(32, &x).unwrap();
        assert_eq!((q[0], q[1], q[17], d[0], sums), (-127, 0, 2, 1.0, vec![-127, 2]));
        x[3] = f32::from_bits(TINY);
        assert!(run(32, &x).is_some());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[5] = bad;
            assert!(run(32, &x).is_none());
        }
        let tiny = vec![f32::from_bits(TINY - 1); 16];
        assert_eq!(run(16, &tiny).unwrap().1, vec![0.0]);
        let least = vec![-f32::from_bits(TINY); 16];
        assert_eq!(run(16, &least).unwrap().0, vec![-127; 16]);
        let largest = vec![f32::MAX; 256];
        assert_eq!(run(256, &largest).unwrap().0, vec![127; 256]);
    }

    #[test]
    fn minus_128_never_occurs() {
        // The maximum itself may come out of x * (127 / a) a little above 127; it must still round to 127.
        for i in 0..200_000u32 {
            let a = f32::from_bits(0x3f80_0000 + i * 41);
            let (q, ..) = run(16, &[-a; 16]).unwrap();
            assert_eq!(q[0], -127, "{a}");
        }
    }

    #[test]
    fn rotation_keeps_length_and_pairs() {
        let (c, s) = ([0.6f32, 1.0], [0.8f32, 0.0]);
        let mut a = [1.0f32, 2.0, 3.0, 4.0];
        rotate(RopeKind::Interleaved, &mut a, &c, &s);
        assert_eq!(a, [1.0 * 0.6 - 2.0 * 0.8, 1.0 * 0.8 + 2.0 * 0.6, 3.0, 4.0]);
        let mut b = [1.0f32, 3.0, 2.0, 4.0];
        rotate(RopeKind::Halves, &mut b, &c, &s);
        assert_eq!(b, [a[0], a[2], a[1], a[3]]);
    }
}
