//! The kernel of each weight type: its layout, and which way through it a number of tokens takes.
//!
//! *Packed* weights lie as panels; *mapped* weights as in the file: some blocks of 16 rows at a time are interleaved
//! into a buffer on the stack just before use. One token goes straight from a packed panel's bits to dot products, and
//! so do a few, one by one; more of them go in tiles, once unpacking pays. Either way a weight is read from memory
//! once.

use std::marker::PhantomData;

use super::fill::{Panel, ShardPanels};
use super::floats::{Bf16, F16, F32, Float, Floats};
use super::one_token::{FEW, OneMappedToken, TokenByToken};
use super::packing::{pack, packed_size, restore};
use super::steps_32::Steps32;
use super::steps_256::Steps256;
use super::token_tiles::{InRegisters, ManyTokens, PANELS, Product};
use super::{Drivers, Format, ROWS};
use super::{layouts_32 as l32, layouts_256 as l256};
use crate::kernels::isa::Isa;
use crate::kernels::matrix::Shard;
use crate::kernels::{ActFormat, Activations, MatmulKernel, Packing};
use crate::quant::{self, GgmlType, step_len};
use crate::team::Tile;
use crate::{Error, Result};

/// The kernel of a layout on an instruction set.
#[derive(Debug)]
pub(super) struct PanelKernel<I, W, F> {
    isa: I,
    /// Which way many tokens take.
    way: W,
    format: PhantomData<F>,
}

impl<I, W, F> PanelKernel<I, W, F> {
    fn new(isa: I, way: W) -> Self {
        PanelKernel {
            isa,
            way,
            format: PhantomData,
        }
    }
}

/// Kernels are values without bytes, so nothing is leaked.
fn leaked(kernel: impl MatmulKernel + 'static) -> &'static dyn MatmulKernel {
    Box::leak(Box::new(kernel))
}

impl<I: Drivers, W: ManyTokens<I>, F: Format> MatmulKernel for PanelKernel<I, W, F> {
    fn format(&self) -> ActFormat {
        F::ACTIVATIONS
    }

    fn grain(&self) -> usize {
        PANELS * ROWS
    }

    fn matmul(&self, weight: &Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>) {
        let start = first_row - weight.rows.start;
        let rows = start..start + out.columns().len();
        let m = x.m();
        let one_by_one = if weight.packed {
            F::ONE_BY_ONE.min(I::ONE_BY_ONE).min(FEW)
        } else {
            1
        };
        // A rest of three, one by one, would take longer than all in tiles.
        let by_fours = F::BY_FOURS && I::BY_FOURS && weight.packed && (4..=FEW).contains(&m) && m % 4 < 3;
        if m <= one_by_one || by_fours {
            let tokens = TokenByToken {
                weight,
                rows,
                x,
                out,
                format: PhantomData::<F>,
            };
            if !weight.packed {
                return self.isa.run(OneMappedToken(tokens));
            }
            return match self.isa.into_l2() {
                Some(isa) => isa.run(tokens),
                None => self.isa.run(tokens),
            };
        }
        self.way.multiply(
            self.isa,
            Product {
                weight,
                rows,
                x,
                tokens: 0..m,
                out,
                format: PhantomData::<F>,
            },
        );
    }

    fn packed_bytes(&self, n: usize, k: usize) -> Result<Option<usize>> {
        F::OWN
            .then(|| packed_size::<F>(n, k).map(|(_, bytes)| bytes))
            .transpose()
    }

    fn pack(&self, mapped: &[Vec<Shard>], packing: &Packing<'_>) -> Result<Option<Vec<Vec<Shard>>>> {
        if !F::OWN {
            return Ok(None);
        }
        pack::<I, F>(self.isa, mapped, packing).map(Some)
    }

    fn decode_row(&self, weight: &Shard, row: usize, out: &mut [f32]) -> Result<()> {
        if !weight.packed {
            return quant::decode(weight.ty, weight.row(row), out);
        }
        let local = row - weight.rows.start;
        let shard = ShardPanels::<F>::new(weight);
        let Panel::Packed(panel) = shard.panel(local / ROWS) else {
            return Ok(());
        };
        let mut buffer = [0; 256];
        let block = &mut buffer[..F::TYPE.block_bytes()];
        for (i, out) in out.chunks_exact_mut(F::BLOCK_LEN).enumerate() {
            restore::<F>(panel.some::<F>(i, 1), local % ROWS, block);
            quant::decode(F::TYPE, block, out)?;
        }
        Ok(())
    }
}

/// The kernel of a weight type, and the way that many tokens take through it.
pub(in crate::kernels) fn kernel<I: Drivers, W: ManyTokens<I>>(
    isa: I,
    way: W,
    ty: GgmlType,
) -> Result<&'static dyn MatmulKernel> {
    Ok(match ty {
        GgmlType::Q4_K => leaked(PanelKernel::<I, W, Steps256<l256::Q45K<false>>>::new(isa, way)),
        GgmlType::Q5_K => leaked(PanelKernel::<I, W, Steps256<l256::Q45K<true>>>::new(isa, way)),
        GgmlType::Q6_K => leaked(PanelKernel::<I, W, Steps256<l256::Q6K>>::new(isa, way)),
        GgmlType::Q2_K => leaked(PanelKernel::<I, W, Steps256<l256::Q2K>>::new(isa, way)),
        GgmlType::Q3_K => leaked(PanelKernel::<I, W, Steps256<l256::Q3K>>::new(isa, way)),
        GgmlType::IQ4_XS => leaked(PanelKernel::<I, W, Steps256<l256::Iq4Xs>>::new(isa, way)),
        GgmlType::Q8_0 => leaked(PanelKernel::<I, W, Steps32<l32::Q8>>::new(isa, way)),
        GgmlType::Q4_0 => leaked(PanelKernel::<I, W, Steps32<l32::Q4<false>>>::new(isa, way)),
        GgmlType::Q4_1 => leaked(PanelKernel::<I, W, Steps32<l32::Q4<true>>>::new(isa, way)),
        GgmlType::Q5_0 => leaked(PanelKernel::<I, W, Steps32<l32::Q5<false>>>::new(isa, way)),
        GgmlType::Q5_1 => leaked(PanelKernel::<I, W, Steps32<l32::Q5<true>>>::new(isa, way)),
        GgmlType::IQ4_NL => leaked(PanelKernel::<I, W, Steps32<l32::Iq4Nl>>::new(isa, way)),
        GgmlType::MXFP4 => leaked(PanelKernel::<I, W, Steps32<l32::Mxfp4>>::new(isa, way)),
        GgmlType::NVFP4 => leaked(PanelKernel::<I, W, Steps32<l32::Nvfp4>>::new(isa, way)),
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
        _ if step_len(ty) == 256 => {
            leaked(isa.without_layout(PanelKernel::<I, W, Steps256<l256::Int8>>::new(isa, way)))
        }
        _ => leaked(isa.without_layout(PanelKernel::<I, W, Steps32<l32::Int8>>::new(isa, way))),
    })
}

fn floats<I: Drivers, T: Float>(isa: I) -> &'static dyn MatmulKernel {
    match isa.floats() {
        Some(isa) => leaked(PanelKernel::<_, _, Floats<T>>::new(isa, InRegisters)),
        None => leaked(PanelKernel::<_, _, Floats<T>>::new(isa, InRegisters)),
    }
}
