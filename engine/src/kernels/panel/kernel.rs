//! Matmul over panels: 16 output rows interleaved, so that a 32-bit lane of a vector is one output ([`super`] draws
//! it). There is no horizontal sum, and the floats of one output are added in the order of the steps, as the contract asks.
//!
//! *Packed* weights lie as panels; *mapped* weights as in the file: some blocks of 16 rows at a time are interleaved into a
//! buffer on the stack just before use.
//!
//! One token goes straight from a packed panel's bits to dot products. More tokens, and mapped weights: 256 weights of 32 rows or so (*a fill*) are
//! unpacked to bytes once, into a scratch that stays in the first-level cache, and all tokens pass over it, some at a time
//! against some vectors of rows, as the registers allow:
//!
//! ```text
//!   for up to 512 tokens                 sums of floats wait in an array of [token][row]
//!     for panels, as many as a tile is high
//!       for each fill along k            unpack -> bytes, scales as factors, d
//!         for tokens by I::TOKENS        tile: I::PARTS vectors x I::TOKENS tokens in registers
//!                                        after the last fill: its sums to where they are shown
//! ```

use std::marker::PhantomData;

use super::fill::{Panel, Source};
use super::floats::{Bf16, F16, F32, Float, Floats};
use super::one_token::{OneMappedToken, OneToken};
use super::packing::{pack, restore};
use super::steps_32::Steps32;
use super::steps_256::Steps256;
use super::token_tiles::{PANELS, TOKENS, Tokens};
use super::{Drivers, Format, ROWS};
use super::{layouts_32 as l32, layouts_256 as l256};
use crate::kernels::matrix::Shard;
use crate::kernels::{ActFormat, Activations, MatmulKernel};
use crate::quant::{self, GgmlType, step_len};
use crate::team::{Team, Tile};
use crate::{Error, Result};

/// The kernel of a layout on an instruction set.
#[derive(Debug)]
pub(super) struct Panels<I, F> {
    isa: I,
    format: PhantomData<F>,
}

impl<I: Drivers, F: Format> Panels<I, F> {
    /// The kernel. It is a value without bytes, so nothing is leaked.
    pub(super) fn kernel(isa: I) -> &'static dyn MatmulKernel {
        Box::leak(Box::new(Panels {
            isa,
            format: PhantomData::<F>,
        }))
    }
}

impl<I: Drivers, F: Format> MatmulKernel for Panels<I, F> {
    fn format(&self) -> ActFormat {
        F::ACTIVATIONS
    }

    fn grain(&self) -> usize {
        PANELS * ROWS
    }

    fn matmul(&self, weight: &Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>) {
        let start = first_row - weight.rows.start;
        let rows = start..start + out.columns().len();
        let one = |token, out: &mut Tile<'_>| {
            let one = OneToken {
                weight,
                rows: rows.clone(),
                x,
                token,
                out,
                format: PhantomData::<F>,
            };
            if weight.packed {
                self.isa.run(one);
            } else {
                self.isa.run(OneMappedToken(one));
            }
        };
        if x.m() == 1 || weight.packed && x.m() < I::TOKENS {
            return (0..x.m()).for_each(|token| one(token, out));
        }
        for first in (0..x.m()).step_by(TOKENS) {
            self.isa.run(Tokens {
                weight,
                rows: rows.clone(),
                x,
                tokens: first..x.m().min(first + TOKENS),
                out,
                format: PhantomData::<F>,
            });
        }
    }

    fn pack(&self, mapped: &Shard, team: &Team) -> Result<Option<Vec<Shard>>> {
        if !F::OWN {
            return Ok(None);
        }
        Ok(Some(vec![pack::<I, F>(self.isa, mapped, team)?]))
    }

    fn decode_row(&self, weight: &Shard, row: usize, out: &mut [f32]) -> Result<()> {
        if !weight.packed {
            return quant::decode(weight.ty, weight.row(row), out);
        }
        let local = row - weight.rows.start;
        let source = Source::<F>::new(weight);
        let Panel::Packed(panel) = source.panel(local / ROWS) else {
            return Ok(());
        };
        let mut buffer = [0; 256];
        let block = &mut buffer[..F::TYPE.block_bytes()];
        for (i, out) in out.chunks_exact_mut(F::BLOCK).enumerate() {
            restore::<F>(panel.some::<F>(i, 1), local % ROWS, block);
            quant::decode(F::TYPE, block, out)?;
        }
        Ok(())
    }
}

/// The kernel of a weight type.
pub(in crate::kernels) fn kernel<I: Drivers>(isa: I, ty: GgmlType) -> Result<&'static dyn MatmulKernel> {
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
        _ if step_len(ty) == 256 => isa.without_layout(Panels::<I, Steps256<l256::Int8>>::kernel(isa)),
        _ => isa.without_layout(Panels::<I, Steps32<l32::Int8>>::kernel(isa)),
    })
}

fn floats<I: Drivers, T: Float>(isa: I) -> &'static dyn MatmulKernel {
    match isa.floats() {
        Some(isa) => Panels::<_, Floats<T>>::kernel(isa),
        None => Panels::<_, Floats<T>>::kernel(isa),
    }
}
