//! Matrix products: every type, backend and storage, with 1, 4 and 512 tokens.
//!
//! 512 tokens meet a matrix that a core's cache holds a good part of, as in a long prompt; 1 and 4 tokens one that
//! comes from memory, as when text is written.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use twinfer_engine::kernels::{Backend, Operand, Packing, Storage, select};
use twinfer_engine::memory::Bytes;
use twinfer_engine::quant::GgmlType;
use twinfer_engine::team::Team;

use crate::meter::{Meter, Work, timing};

pub(crate) const TYPES: &[GgmlType] = &[
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::Q8_0,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
    GgmlType::MXFP4,
    GgmlType::IQ1_S,
    GgmlType::IQ2_XXS,
    GgmlType::IQ2_XS,
    GgmlType::IQ3_S,
    GgmlType::TQ2_0,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::F32,
];

const TOKENS: [usize; 3] = [512, 4, 1];

/// Beyond every last-level cache of a desktop; of a server's, a core's share.
pub(crate) const FROM_MEMORY: usize = 96 << 20;

pub(crate) fn run(criterion: &mut Criterion, meter: &mut Meter) {
    for &ty in TYPES {
        let mut group = criterion.benchmark_group(format!("matmul/{}", ty.name()));
        group.sample_size(10);
        for &backend in select::available() {
            // The definition of the numbers is slow; the fast ones are compared with it below.
            if backend.name() == "scalar" {
                continue;
            }
            for (storage, storage_name) in [(Storage::Packed, "packed"), (Storage::Mapped, "mapped")] {
                for tokens in TOKENS {
                    let id = format!("{}/{storage_name}/{tokens}", backend.name());
                    let name = format!("matmul/{}/{id}", ty.name());
                    if !wanted(&name) {
                        continue;
                    }
                    // Enough for a whole tile and a part of one.
                    check(backend, ty, storage, tokens.min(20));
                    let (n, k) = shape(ty, tokens);
                    let weight = backend
                        .pack(
                            ty,
                            n,
                            k,
                            weights(ty, n, k),
                            &Packing::on_heap(storage, &meter.team),
                        )
                        .expect("a shape that fits the type");
                    let operand = Operand::new(backend, &meter.team, &weight, activations(tokens, k))
                        .expect("finite activations");
                    let mut out = vec![0.0; tokens * n];
                    let macs = (tokens * n * k) as f64;
                    let work = Work {
                        macs: if ty.is_float() { 0.0 } else { macs },
                        elements: if ty.is_float() { macs } else { 0.0 },
                        bytes: if tokens > 8 { 0.0 } else { weight.bytes() as f64 },
                    };
                    let team = meter.team.clone();
                    meter.bench(&mut group, BenchmarkId::from_parameter(&id), &name, work, || {
                        operand
                            .matmul(&team, &weight, &mut out)
                            .expect("shapes that agree");
                        black_box(&out);
                    });
                }
            }
        }
        group.finish();
    }
}

/// Whether the command line's filter names it: what it leaves out should not be prepared either. Criterion understands
/// more (regular expressions); then everything is prepared.
fn wanted(name: &str) -> bool {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    match filters.as_slice() {
        [filter] if !filter.contains(['.', '*', '|', '(', '[', '^', '$', '+', '?', '\\']) => {
            name.contains(filter.as_str())
        }
        _ => true,
    }
}

fn shape(ty: GgmlType, tokens: usize) -> (usize, usize) {
    let k = 2048;
    if !timing() {
        (40, 512)
    } else if tokens > 8 {
        (1024, k)
    } else {
        (FROM_MEMORY / ty.row_bytes(k).expect("whole blocks"), k)
    }
}

/// Moderate blocks: every byte small, so that no scale is infinite.
pub(crate) fn weights(ty: GgmlType, n: usize, k: usize) -> Bytes {
    let bytes = ty.row_bytes(k).expect("whole blocks") * n;
    Bytes::from_vec(
        (0..bytes)
            .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8 & 0x3b)
            .collect(),
    )
}

pub(crate) fn activations(tokens: usize, k: usize) -> Vec<f32> {
    (0..tokens * k)
        .map(|i| ((i * 37 % 201) as f32 - 100.0) / 64.0)
        .collect()
}

/// The product must be scalar's, bit for bit.
fn check(backend: &dyn Backend, ty: GgmlType, storage: Storage, tokens: usize) {
    let product = |backend: &dyn Backend, storage| {
        let (n, k, team) = (24, 512, Team::single());
        let weight = backend
            .pack(ty, n, k, weights(ty, n, k), &Packing::on_heap(storage, &team))
            .expect("a shape that fits the type");
        let operand =
            Operand::new(backend, &team, &weight, activations(tokens, k)).expect("finite activations");
        let mut out = vec![0.0f32; tokens * n];
        operand
            .matmul(&team, &weight, &mut out)
            .expect("shapes that agree");
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let scalar = select::choose(Some("scalar")).expect("scalar is always there");
    assert!(
        product(backend, storage) == product(scalar, Storage::Mapped),
        "{} {} ({storage:?}) differs from scalar: a wrong kernel is not timed",
        backend.name(),
        ty.name()
    );
}
