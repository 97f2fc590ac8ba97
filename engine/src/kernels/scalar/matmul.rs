//! Scalar definition of the matmuls: exact integers inside a step, one float step after the other in ascending k.

use half::{bf16, f16};

use crate::kernels::matrix::Shard;
use crate::kernels::{ActFormat, Activations, MatmulKernel};
use crate::quant::{self, GgmlType, Step, step_len};
use crate::team::Tile;
use crate::{Error, Result};

/// Tokens that share one unpacking of a step; their accumulators fit the stack.
const TOKENS: usize = 64;

/// The kernel for a weight type.
pub(super) fn kernel(ty: GgmlType) -> Result<&'static dyn MatmulKernel> {
    match ty {
        GgmlType::F32 => Ok(&Float {
            load: |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            bytes: 4,
        }),
        GgmlType::F16 => Ok(&Float {
            load: |b| f16::from_le_bytes([b[0], b[1]]).to_f32(),
            bytes: 2,
        }),
        GgmlType::BF16 => Ok(&Float {
            load: |b| bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            bytes: 2,
        }),
        _ => QUANTIZED
            .iter()
            .find(|kernel| kernel.ty == ty)
            .map(|kernel| kernel as &dyn MatmulKernel)
            .ok_or_else(|| Error::UnsupportedType {
                id: ty.id(),
                what: format!("{} is not a weight type", ty.name()),
            }),
    }
}

macro_rules! quantized {
    ($($ty:ident)*) => { &[$(Quantized { ty: GgmlType::$ty }),*] };
}

static QUANTIZED: &[Quantized] = quantized!(
    Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS IQ1_M
    TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0
);

/// Weights that are floats: a sequential sum over k, multiply and add rounded each by itself.
#[derive(Debug)]
struct Float {
    load: fn(&[u8]) -> f32,
    bytes: usize,
}

impl MatmulKernel for Float {
    fn format(&self) -> ActFormat {
        ActFormat::F32
    }

    fn grain(&self) -> usize {
        16
    }

    fn matmul(&self, weight: &Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>) {
        let mut w = [0.0f32; 256];
        for column in 0..out.columns().len() {
            let row = weight.row(first_row + column);
            for tokens in token_blocks(x.m()) {
                let mut acc = [0.0f32; TOKENS];
                for (start, bytes) in (0..).step_by(w.len()).zip(row.chunks(w.len() * self.bytes)) {
                    let w = &mut w[..bytes.len() / self.bytes];
                    for (w, bytes) in w.iter_mut().zip(bytes.chunks_exact(self.bytes)) {
                        *w = (self.load)(bytes);
                    }
                    for (acc, token) in acc.iter_mut().zip(tokens.clone()) {
                        for (x, w) in x.row(token)[start..].iter().zip(&*w) {
                            *acc += x * w;
                        }
                    }
                }
                for (acc, token) in acc.iter().zip(tokens) {
                    out.row(token)[column] = *acc;
                }
            }
        }
    }

    fn decode_row(&self, weight: &Shard, row: usize, out: &mut [f32]) -> Result<()> {
        quant::decode(weight.ty, weight.row(row), out)
    }
}

/// Weights as scaled integers.
#[derive(Debug)]
struct Quantized {
    ty: GgmlType,
}

impl MatmulKernel for Quantized {
    fn format(&self) -> ActFormat {
        ActFormat::of(self.ty)
    }

    fn grain(&self) -> usize {
        16
    }

    fn matmul(&self, weight: &Shard, first_row: usize, x: &Activations<'_>, out: &mut Tile<'_>) {
        let Some(unpack) = quant::step_unpacker(self.ty) else {
            return;
        };
        let (len, has_min) = (step_len(self.ty), quant::has_min(self.ty));
        let inputs = x.quantized(self.format());
        let mut step = Step::default();
        for column in 0..out.columns().len() {
            let row = weight.row(first_row + column);
            for tokens in token_blocks(x.m()) {
                let mut acc = [0.0f32; TOKENS];
                for s in 0..weight.k / len {
                    unpack(row, s, &mut step);
                    for (acc, token) in acc.iter_mut().zip(tokens.clone()) {
                        let x = &inputs.column(s * len / 256)[token];
                        let s = s % (256 / len);
                        let q = &x.q.as_flattened()[s * len..(s + 1) * len];
                        let sums = &x.sums[s * len / 16..(s + 1) * len / 16];
                        let isum = dot(&step, q);
                        if has_min {
                            let msum = minimums(&step, sums);
                            *acc += x.d[s] * (step.d * isum as f32 - step.dmin * msum as f32);
                        } else {
                            *acc += (step.d * x.d[s]) * isum as f32;
                        }
                    }
                }
                for (acc, token) in acc.iter().zip(tokens) {
                    out.row(token)[column] = *acc;
                }
            }
        }
    }

    fn decode_row(&self, weight: &Shard, row: usize, out: &mut [f32]) -> Result<()> {
        quant::decode(weight.ty, weight.row(row), out)
    }
}

/// `sum over groups of scale * sum of q * x`: exact, below 2^31 for every type (asserted in `quant`).
fn dot(step: &Step, x: &[i8]) -> i32 {
    let mut sum = 0i32;
    for ((x, q), scale) in x.chunks_exact(16).zip(step.q.chunks_exact(16)).zip(&step.scale) {
        let mut group = 0i32;
        for (x, q) in x.iter().zip(q) {
            group += i32::from(*x) * i32::from(*q);
        }
        sum += i32::from(*scale) * group;
    }
    sum
}

/// `sum over groups of minimum * sum of x`.
fn minimums(step: &Step, sums: &[i16]) -> i32 {
    let mut sum = 0i32;
    for (min, x) in step.min.iter().zip(sums) {
        sum += i32::from(*min) * i32::from(*x);
    }
    sum
}

fn token_blocks(m: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..m)
        .step_by(TOKENS)
        .map(move |start| start..m.min(start + TOKENS))
}
