//! A backend made of an instruction set: which kernel each type gets, and the other operations.

use std::ops::Range;

use super::attention::{Attend, Merge, ToHalves};
use super::elementwise::{Add, Gate, Quantize, RmsNorm, Rotate};
use super::floats::{Bf16, F16, F32, Float, Floats};
use super::isa::Isa;
use super::limits::{Exercise, Peak};
use super::panel::Panels;
use super::steps_32::Steps32;
use super::steps_256::Steps256;
use super::{layouts_32 as l32, layouts_256 as l256};
use crate::kernels::{
    Activation, Backend, KvBlock, MatmulKernel, PackedMatrix, Packing, Partials, Queries, RopeKind, Storage,
    limits,
};
use crate::memory::Bytes;
use crate::quant::{GgmlType, step_len};
use crate::{Error, Result};

/// The backend of an instruction set.
#[derive(Debug)]
struct Simd<I>(I);

/// The backend of an instruction set. Only detection makes `isa`, so it is made for one that is there.
pub(crate) fn backend<I: Peak>(isa: I) -> &'static dyn Backend {
    Box::leak(Box::new(Simd(isa)))
}

fn kernel<I: Isa>(isa: I, ty: GgmlType) -> Result<&'static dyn MatmulKernel> {
    Ok(match ty {
        GgmlType::Q4_K => Panels::<I, Steps256<l256::Q45K<false>>>::kernel(isa),
        GgmlType::Q5_K => Panels::<I, Steps256<l256::Q45K<true>>>::kernel(isa),
        GgmlType::Q6_K => Panels::<I, Steps256<l256::Q6K>>::kernel(isa),
        GgmlType::Q2_K => Panels::<I, Steps256<l256::Q2K>>::kernel(isa),
        GgmlType::Q3_K => Panels::<I, Steps256<l256::Q3K>>::kernel(isa),
        GgmlType::IQ4_XS => Panels::<I, Steps256<l256::Iq4Xs>>::kernel(isa),
        GgmlType::Q8_0 => Panels::<I, Steps32<l32::Q8>>::kernel(isa),
        GgmlType::Q4_0 => Panels::<I, Steps32<l32::Q4<false>>>::kernel(isa),
        GgmlType::Q4_1 => Panels::<I, Steps32<l32::Q4<true>>>::kernel(isa),
        GgmlType::Q5_0 => Panels::<I, Steps32<l32::Q5<false>>>::kernel(isa),
        GgmlType::Q5_1 => Panels::<I, Steps32<l32::Q5<true>>>::kernel(isa),
        GgmlType::IQ4_NL => Panels::<I, Steps32<l32::Iq4Nl>>::kernel(isa),
        GgmlType::MXFP4 => Panels::<I, Steps32<l32::Mxfp4>>::kernel(isa),
        GgmlType::NVFP4 => Panels::<I, Steps32<l32::Nvfp4>>::kernel(isa),
        GgmlType::F32 => floats::<I, F32>(isa),
        GgmlType::F16 => floats::<I, F16>(isa),
        GgmlType::BF16 => floats::<I, Bf16>(isa),
        _ if !ty.is_weight() => {
            return Err(Error::UnsupportedType {
                id: ty.id(),
                what: format!("{} is not a weight type", ty.name()),
            });
        }
        // Types without a layout: unpacked to bytes as they are used.
        _ if step_len(ty) == 256 => Panels::<I, Steps256<l256::Int8>>::kernel(isa),
        _ => Panels::<I, Steps32<l32::Int8>>::kernel(isa),
    })
}

fn floats<I: Isa, T: Float>(isa: I) -> &'static dyn MatmulKernel {
    match isa.floats() {
        Some(isa) => Panels::<_, Floats<T>>::kernel(isa),
        None => Panels::<_, Floats<T>>::kernel(isa),
    }
}

impl<I: Peak> Backend for Simd<I> {
    fn name(&self) -> &'static str {
        I::NAME
    }

    fn pack(
        &self,
        ty: GgmlType,
        n: usize,
        k: usize,
        bytes: Bytes,
        packing: &Packing<'_>,
    ) -> Result<PackedMatrix> {
        let mapped = PackedMatrix::mapped(ty, n, k, bytes, kernel(self.0, ty)?)?;
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

    fn add(&self, x: &mut [f32], y: &[f32]) {
        self.0.run(Add(x, y));
    }

    fn gate(&self, f: Activation, gate: &mut [f32], up: &[f32]) {
        self.0.run(Gate { f, gate, up });
    }

    fn rotate(&self, kind: RopeKind, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        self.0.run(Rotate { kind, head, cos, sin });
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

    fn exercise(&self, work: &limits::Work<'_>) -> limits::Done {
        self.0.run(Exercise(work))
    }
}
