//! The scalar backend: plain loops that DEFINE the numbers. Read it beside `docs/numerics.md`.

pub(super) mod attention;
pub(super) mod elementwise;
mod matmul;
pub(super) mod recurrent;

use std::ops::Range;

use super::{Activation, Backend, KvBlock, PackedMatrix, Packing, Partials, Queries, RopeKind};
use crate::Result;
use crate::memory::Bytes;
use crate::quant::GgmlType;

/// The reference backend.
#[derive(Debug)]
pub struct Scalar;

impl Backend for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn pack(&self, ty: GgmlType, n: usize, k: usize, bytes: Bytes, _: &Packing<'_>) -> Result<PackedMatrix> {
        PackedMatrix::mapped(ty, n, k, bytes, matmul::kernel(ty)?)
    }

    fn quantize(&self, step: usize, x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) -> bool {
        elementwise::quantize(step, x, q, d, sums)
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        elementwise::rms_norm(x, weight, eps, out);
    }

    fn layer_norm(&self, x: &[f32], weights: (&[f32], Option<&[f32]>), eps: f32, out: &mut [f32]) {
        elementwise::layer_norm(x, weights, eps, out);
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        elementwise::add(x, y);
    }

    fn add_scaled(&self, x: &mut [f32], y: &[f32], scale: f32) {
        elementwise::add_scaled(x, y, scale);
    }

    fn activate(&self, f: Activation, x: &mut [f32]) {
        elementwise::activate(f, x);
    }

    fn gate(&self, f: Activation, gate: &mut [f32], up: &[f32]) {
        elementwise::gate(f, gate, up);
    }

    fn rotate(&self, kind: RopeKind, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        elementwise::rotate(kind, head, cos, sin);
    }

    fn conv_row(&self, recent: &mut [f32], x: &[f32], taps: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        recurrent::conv_row(recent, x, taps, bias, out);
    }

    fn delta_row(
        &self,
        state: &mut [f32],
        qkv: (&[f32], &[f32], &[f32]),
        gates: (f32, f32),
        out: &mut [f32],
    ) {
        recurrent::delta_row(state, qkv, gates, out);
    }

    fn scan_row(
        &self,
        state: &mut [f32],
        bcx: (&[f32], &[f32], &[f32]),
        gates: (f32, f32, f32),
        out: &mut [f32],
    ) {
        recurrent::scan_row(state, bcx, gates, out);
    }

    fn attend(
        &self,
        queries: &Queries<'_>,
        visible: &[Range<usize>],
        block: &KvBlock<'_>,
        sum: &mut Partials<'_>,
        _: &mut [f32],
    ) {
        attention::attend(queries, visible, block, sum);
    }

    fn merge(&self, sum: &mut Partials<'_>, later: &Partials<'_>) {
        attention::merge(sum, later);
    }

    fn to_halves(&self, x: &[f32], out: &mut [u16]) -> bool {
        attention::to_halves(x, out)
    }
}
