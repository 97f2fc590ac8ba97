//! Quantization, norms and gates over the lanes of an instruction set. What has no sum in it is the scalar definition,
//! compiled for the instruction set: the compiler may widen such a loop but not move a rounding.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use crate::kernels::functions::{Lanes, gelu, inverse_rms, sigmoid, silu, squared_relu, swiglu_oai};
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

pub(super) struct LayerNorm<'a> {
    pub(super) x: &'a [f32],
    pub(super) weights: (&'a [f32], Option<&'a [f32]>),
    pub(super) eps: f32,
    pub(super) out: &'a mut [f32],
}

impl<I: Isa> Op<I> for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::layer_norm(self.x, self.weights, self.eps, self.out);
    }
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
        let Gate { f, gate: x, up } = self;
        match f {
            Activation::Silu => gate::<I, Silu>(isa, x, up),
            Activation::Gelu => gate::<I, Gelu>(isa, x, up),
            Activation::Sigmoid => gate::<I, Sigmoid>(isa, x, up),
            Activation::SquaredRelu => gate::<I, SquaredRelu>(isa, x, up),
            Activation::SwigluOai => gate::<I, SwigluOai>(isa, x, up),
        }
    }
}

pub(super) struct Activate<'a> {
    pub(super) f: Activation,
    pub(super) x: &'a mut [f32],
}

impl<I: Isa> Op<I> for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let Activate { f, x } = self;
        match f {
            Activation::Silu => activate::<I, Silu>(isa, x),
            Activation::Gelu => activate::<I, Gelu>(isa, x),
            Activation::Sigmoid => activate::<I, Sigmoid>(isa, x),
            Activation::SquaredRelu => activate::<I, SquaredRelu>(isa, x),
            Activation::SwigluOai => activate::<I, SwigluOai>(isa, x),
        }
    }
}

/// An activation as a type: a function handed over as a value need not be inlined, and then lacks the instruction set.
trait Function {
    fn of<L: Lanes>(gate: L, up: L) -> L;
}

macro_rules! functions {
    ($($name:ident: |$gate:ident, $up:ident| $value:expr;)*) => {$(
        struct $name;

        impl Function for $name {
            #[inline(always)]
            fn of<L: Lanes>($gate: L, $up: L) -> L {
                $value
            }
        }
    )*};
}

functions! {
    Silu: |gate, up| silu(gate).mul(up);
    Gelu: |gate, up| gelu(gate).mul(up);
    Sigmoid: |gate, up| sigmoid(gate).mul(up);
    SquaredRelu: |gate, up| squared_relu(gate).mul(up);
    SwigluOai: |gate, up| swiglu_oai(gate, up);
}

#[inline(always)]
fn gate<I: Isa, A: Function>(isa: I, gate: &mut [f32], up: &[f32]) {
    let n = gate.len() / I::LANES * I::LANES;
    for (gate, up) in gate[..n]
        .chunks_exact_mut(I::LANES)
        .zip(up.chunks_exact(I::LANES))
    {
        isa.store_f(A::of(isa.load_f(gate), isa.load_f(up)), gate);
    }
    for (gate, up) in gate[n..].iter_mut().zip(&up[n..]) {
        *gate = A::of(*gate, *up);
    }
}

#[inline(always)]
fn activate<I: Isa, A: Function>(isa: I, x: &mut [f32]) {
    let n = x.len() / I::LANES * I::LANES;
    for x in x[..n].chunks_exact_mut(I::LANES) {
        isa.store_f(A::of(isa.load_f(x), I::F::splat(1.0)), x);
    }
    for x in &mut x[n..] {
        *x = A::of(*x, 1.0);
    }
}

pub(super) struct AddScaled<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) y: &'a [f32],
    pub(super) scale: f32,
}

impl<I: Isa> Op<I> for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::add_scaled(self.x, self.y, self.scale);
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
