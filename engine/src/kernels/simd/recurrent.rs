//! Steps of states: the scalar definitions, compiled for the instruction set.

use crate::kernels::isa::{Isa, Op};
use crate::kernels::scalar::recurrent as scalar;

pub(super) struct ConvStep<'a> {
    pub(super) recent: &'a mut [f32],
    pub(super) x: &'a [f32],
    pub(super) taps: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: &'a mut [f32],
}

impl<I: Isa> Op<I> for ConvStep<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::conv_row(self.recent, self.x, self.taps, self.bias, self.out);
    }
}

pub(super) struct DeltaStep<'a> {
    pub(super) state: &'a mut [f32],
    pub(super) qkv: (&'a [f32], &'a [f32], &'a [f32]),
    pub(super) gates: (f32, f32),
    pub(super) out: &'a mut [f32],
}

impl<I: Isa> Op<I> for DeltaStep<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::delta_row(self.state, self.qkv, self.gates, self.out);
    }
}

pub(super) struct ScanStep<'a> {
    pub(super) state: &'a mut [f32],
    pub(super) bcx: (&'a [f32], &'a [f32], &'a [f32]),
    pub(super) gates: (f32, f32, f32),
    pub(super) out: &'a mut [f32],
}

impl<I: Isa> Op<I> for ScanStep<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: I) {
        scalar::scan_row(self.state, self.bcx, self.gates, self.out);
    }
}
