//! Quantization, norms and gates over the lanes of an instruction set. What has no sum in it is the scalar definition,
//! compiled for the instruction set: the compiler may widen such a loop but not move a rounding.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use crate::kernels::functions::{Lanes, gelu, inverse_rms, silu};
use crate::kernels::isa::{Isa, Op, sum_lanes};
use crate::kernels::scalar::elementwise as scalar;
use crate::kernels::{Activation, RopeKind};

pub(super) struct Quantize<'a> {
    pub(super) step: usize,
    pub(super) x: &'a [f32],
    pub(super) q: &'a mut [i8],
    pub(super) d: &'a mut [f32],
    pub(super) sums: &'a mut [i16],
}

impl<I: Isa> Op<I> for Quantize<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self, isa: I) -> bool {
        let Quantize { step, x, q, d, sums } = self;
        for (((x, q), d), sums) in x
            .chunks_exact(step)
            .zip(q.chunks_exact_mut(step))
            .zip(d)
            .zip(sums.chunks_exact_mut(step / 16))
        {
            let a = isa.max_magnitude(x);
            if a >= scalar::INFINITE {
                return false;
            }
            if a < scalar::TINY {
                *d = 0.0;
                q.fill(0);
                sums.fill(0);
                continue;
            }
            let a = f32::from_bits(a);
            *d = a / 127.0;
            let r = I::F::splat(127.0 / a);
            for ((x, q), sum) in x
                .as_chunks::<16>()
                .0
                .iter()
                .zip(q.as_chunks_mut::<16>().0)
                .zip(sums)
            {
                for part in 0..16 / I::LANES {
                    let at = part * I::LANES;
                    isa.store_i8(isa.load_f(&x[at..]).mul(r), &mut q[at..]);
                }
                // In a register: where each addition may change what is read next, it is a loop of bytes.
                let mut of_q = 0;
                for q in q {
                    of_q += i16::from(*q);
                }
                *sum = of_q;
            }
        }
        true
    }
}

pub(super) struct RmsNorm<'a> {
    pub(super) x: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
    pub(super) out: &'a mut [f32],
}

impl<I: Isa> Op<I> for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let n = self.weight.len();
        for (x, out) in self.x.chunks_exact(n).zip(self.out.chunks_exact_mut(n)) {
            let r = inverse_rms(sum_of_squares(isa, x), n, self.eps);
            for ((out, x), w) in out.iter_mut().zip(x).zip(self.weight) {
                *out = (x * r) * w;
            }
        }
    }
}

/// `sum16(x * x)`: the sixteen partial sums in lanes.
#[inline(always)]
fn sum_of_squares<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let (whole, rest) = x.as_chunks::<16>();
    let mut lanes = [I::F::splat(0.0); 4];
    for x in whole {
        for part in 0..16 / I::LANES {
            let x = isa.load_f(&x[part * I::LANES..]);
            lanes[part] = lanes[part].add(x.mul(x));
        }
    }
    if !rest.is_empty() {
        let mut partial = [0.0f32; 16];
        for part in 0..16 / I::LANES {
            isa.store_f(lanes[part], &mut partial[part * I::LANES..]);
        }
        for (partial, x) in partial.iter_mut().zip(rest) {
            *partial += x * x;
        }
        for part in 0..16 / I::LANES {
            lanes[part] = isa.load_f(&partial[part * I::LANES..]);
        }
    }
    // From here the sum has the shape of a sum of 16 numbers: +0.0 + p is p, a square is never -0.0.
    sum_lanes(isa, &lanes)
}

pub(super) struct Gate<'a> {
    pub(super) f: Activation,
    pub(super) gate: &'a mut [f32],
    pub(super) up: &'a [f32],
}

impl<I: Isa> Op<I> for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        match self.f {
            Activation::Silu => gate::<I, Silu>(isa, self.gate, self.up),
            Activation::Gelu => gate::<I, Gelu>(isa, self.gate, self.up),
        }
    }
}

/// An activation as a type: a function handed over as a value need not be inlined, and then lacks the instruction set.
trait Function {
    fn of<L: Lanes>(x: L) -> L;
}

struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn of<L: Lanes>(x: L) -> L {
        silu(x)
    }
}

struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn of<L: Lanes>(x: L) -> L {
        gelu(x)
    }
}

#[inline(always)]
fn gate<I: Isa, A: Function>(isa: I, gate: &mut [f32], up: &[f32]) {
    let n = gate.len() / I::LANES * I::LANES;
    for (gate, up) in gate[..n]
        .chunks_exact_mut(I::LANES)
        .zip(up.chunks_exact(I::LANES))
    {
        isa.store_f(A::of(isa.load_f(gate)).mul(isa.load_f(up)), gate);
    }
    for (gate, up) in gate[n..].iter_mut().zip(&up[n..]) {
        *gate = A::of(*gate) * up;
    }
}

pub(super) struct Add<'a>(pub(super) &'a mut [f32], pub(super) &'a [f32]);

impl<I: Isa> Op<I> for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::add(self.0, self.1);
    }
}

pub(super) struct Rotate<'a> {
    pub(super) kind: RopeKind,
    pub(super) head: &'a mut [f32],
    pub(super) cos: &'a [f32],
    pub(super) sin: &'a [f32],
}

impl<I: Isa> Op<I> for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::rotate(self.kind, self.head, self.cos, self.sin);
    }
}
