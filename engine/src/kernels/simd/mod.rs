//! A backend made of an instruction set: its operations.

mod attention;
mod elementwise;
mod recurrent;
#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use attention::{Attend, Merge, ToHalves};
use elementwise::{Activate, Add, AddScaled, Gate, LayerNorm, Quantize, RmsNorm, Rotate};
use recurrent::{ConvStep, DeltaStep, ScanStep};

use crate::Result;
use crate::kernels::isa::Isa;
use crate::kernels::panel::token_tiles::ManyTokens;
use crate::kernels::panel::{self, Drivers};
use crate::kernels::{
    Activation, Backend, KvBlock, PackedMatrix, Packing, Partials, Queries, RopeKind, Storage,
};
use crate::memory::Bytes;
use crate::quant::GgmlType;

/// The backend of an instruction set.
#[derive(Debug)]
struct Simd<I, W>(I, W);

/// The backend of an instruction set and of a way for many tokens. Only detection makes `isa`, so it is made for one
/// that is there.
pub(super) fn backend<I: Drivers, W: ManyTokens<I>>(isa: I, way: W) -> &'static dyn Backend {
    Box::leak(Box::new(Simd(isa, way)))
}

impl<I: Drivers, W: ManyTokens<I>> Backend for Simd<I, W> {
    fn name(&self) -> &'static str {
        W::NAME.unwrap_or(I::NAME)
    }

    fn pack(
        &self,
        ty: GgmlType,
        n: usize,
        k: usize,
        bytes: Bytes,
        packing: &Packing<'_>,
    ) -> Result<PackedMatrix> {
        let mapped = PackedMatrix::mapped(ty, n, k, bytes, panel::kernel(self.0, self.1, ty)?)?;
        match packing.storage {
            Storage::Auto | Storage::Packed => mapped.packed(packing),
            Storage::Mapped => Ok(mapped),
        }
    }

    fn quantize(&self, step: usize, x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) -> bool {
        self.0.run(Quantize { step, x, q, d, sums })
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        self.0.run(RmsNorm { x, weight, eps, out });
    }

    fn layer_norm(&self, x: &[f32], weights: (&[f32], Option<&[f32]>), eps: f32, out: &mut [f32]) {
        self.0.run(LayerNorm { x, weights, eps, out });
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        self.0.run(Add(x, y));
    }

    fn add_scaled(&self, x: &mut [f32], y: &[f32], scale: f32) {
        self.0.run(AddScaled { x, y, scale });
    }

    fn activate(&self, f: Activation, x: &mut [f32]) {
        self.0.run(Activate { f, x });
    }

    fn gate(&self, f: Activation, gate: &mut [f32], up: &[f32]) {
        self.0.run(Gate { f, gate, up });
    }

    fn rotate(&self, kind: RopeKind, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        self.0.run(Rotate { kind, head, cos, sin });
    }

    fn conv_row(&self, recent: &mut [f32], x: &[f32], taps: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.0.run(ConvStep {
            recent,
            x,
            taps,
            bias,
            out,
        });
    }

    fn delta_row(
        &self,
        state: &mut [f32],
        qkv: (&[f32], &[f32], &[f32]),
        gates: (f32, f32),
        out: &mut [f32],
    ) {
        self.0.run(DeltaStep {
            state,
            qkv,
            gates,
            out,
        });
    }

    fn scan_row(
        &self,
        state: &mut [f32],
        bcx: (&[f32], &[f32], &[f32]),
        gates: (f32, f32, f32),
        out: &mut [f32],
    ) {
        self.0.run(ScanStep {
            state,
            bcx,
            gates,
            out,
        });
    }

    fn attend(
        &self,
        queries: &Queries<'_>,
        visible: &[Range<usize>],
        block: &KvBlock<'_>,
        sum: &mut Partials<'_>,
        scratch: &mut [f32],
    ) {
        let op = Attend {
            queries,
            visible,
            block,
            sum: sum.reborrow(),
            scratch,
        };
        match self.0.floats() {
            Some(isa) => isa.run(op),
            None => self.0.run(op),
        }
    }

    fn merge(&self, sum: &mut Partials<'_>, later: &Partials<'_>) {
        self.0.run(Merge {
            sum: sum.reborrow(),
            later,
        });
    }

    fn to_halves(&self, x: &[f32], out: &mut [u16]) -> bool {
        self.0.run(ToHalves { x, out })
    }
}
