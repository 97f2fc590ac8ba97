//! Softmax states of one tile over different positions, joined.
// Indices name registers here: several arrays are walked by the same number.
#![allow(clippy::needless_range_loop)]

use crate::kernels::Partials;
use crate::kernels::functions::{Lanes, exp};
use crate::kernels::isa::{Isa, Op};

/// Factors of a merge, per query: `o = o * a + later * b`, or `later` where nothing was seen before.
pub(super) struct Merged {
    pub(super) a: [f32; 16],
    pub(super) b: [f32; 16],
    pub(super) empty: [bool; 16],
}

/// Joins the states (m, l) of Q queries to `sum`'s, queries in lanes; the factors for o.
#[inline(always)]
pub(super) fn join<I: Isa, const Q: usize>(
    isa: I,
    sum: &mut Partials<'_>,
    (m2, l2): (&[f32; 16], &[f32; 16]),
) -> ([f32; 16], [f32; 16], [bool; 16]) {
    let (mut m1, mut l1, mut empty) = ([0.0f32; 16], [0.0f32; 16], [false; 16]);
    m1[..Q].copy_from_slice(&sum.m[..Q]);
    l1[..Q].copy_from_slice(&sum.l[..Q]);
    let (mut a, mut b, mut m, mut l) = ([0.0f32; 16], [0.0f32; 16], [0.0f32; 16], [0.0f32; 16]);
    let mut at = 0;
    while at < Q {
        let (v1, v2) = (isa.load_f(&m1[at..]), isa.load_f(&m2[at..]));
        let max = v1.less(v2, v2, v1);
        let (va, vb) = (exp(v1.sub(max)), exp(v2.sub(max)));
        let sum = isa.load_f(&l1[at..]).mul(va).add(isa.load_f(&l2[at..]).mul(vb));
        isa.store_f(max, &mut m[at..]);
        isa.store_f(va, &mut a[at..]);
        isa.store_f(vb, &mut b[at..]);
        isa.store_f(sum, &mut l[at..]);
        at += I::LANES;
    }
    for i in 0..Q {
        empty[i] = l1[i] == 0.0;
        (sum.m[i], sum.l[i]) = if empty[i] { (m2[i], l2[i]) } else { (m[i], l[i]) };
    }
    (a, b, empty)
}

pub(in crate::kernels::simd) struct Merge<'a> {
    pub(in crate::kernels::simd) sum: Partials<'a>,
    pub(in crate::kernels::simd) later: &'a Partials<'a>,
}

impl<I: Isa> Op<I> for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let (mut sum, later) = (self.sum, self.later);
        let dim_v = sum.o.len() / sum.m.len();
        let whole = dim_v / I::LANES * I::LANES;
        for index in 0..sum.m.len() {
            if later.l[index] == 0.0 {
                continue;
            }
            let (mut m, mut l) = ([0.0f32; 16], [0.0f32; 16]);
            (m[0], l[0]) = (later.m[index], later.l[index]);
            let (a, b, empty) = join::<I, 1>(isa, &mut sum.part(index..index + 1), (&m, &l));
            let o = &mut sum.o[index * dim_v..(index + 1) * dim_v];
            let later = &later.o[index * dim_v..(index + 1) * dim_v];
            if empty[0] {
                o.copy_from_slice(later);
                continue;
            }
            let (wide_a, wide_b) = (I::F::splat(a[0]), I::F::splat(b[0]));
            for (x, y) in o[..whole]
                .chunks_exact_mut(I::LANES)
                .zip(later.chunks_exact(I::LANES))
            {
                isa.store_f(isa.load_f(x).mul(wide_a).add(isa.load_f(y).mul(wide_b)), x);
            }
            for (x, y) in o[whole..].iter_mut().zip(&later[whole..]) {
                *x = *x * a[0] + *y * b[0];
            }
        }
    }
}
