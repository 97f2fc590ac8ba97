//! What stands between the matrix products: attention over a block of the cache, quantizing, norms, gates, rotations.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use twinfer_engine::kernels::{
    Activation, BLOCK, Backend, KvBlock, KvData, Partials, QuantizedQueries, Queries, RopeKind,
    attend_scratch, select,
};

use crate::meter::{Meter, Work};

/// Length of the rows: a small model's width.
const K: usize = 2048;

/// Query heads that share a kv head.
const GROUP: usize = 4;

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 71 % 257) as f32 - 128.0) / 96.0).collect()
}

/// Half-precision bits of moderate numbers.
fn halves(n: usize) -> Vec<u16> {
    (0..n)
        .map(|i| 0x3000 + (i * 97 % 2048) as u16 + if i % 3 == 0 { 0x8000 } else { 0 })
        .collect()
}

/// An operation on one backend: prepared inputs, and what it left behind.
struct Operation {
    name: &'static str,
    /// Elements, or multiply-adds of floats.
    elements: usize,
    run: fn(&dyn Backend, &Inputs, &mut Outputs),
}

/// Inputs of all operations.
struct Inputs {
    x: Vec<f32>,
    weight: Vec<f32>,
    keys: Vec<u16>,
    values: Vec<u16>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Outputs of all operations.
struct Outputs {
    row: Vec<f32>,
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i16>,
    m: Vec<f32>,
    l: Vec<f32>,
    o: Vec<f32>,
    scratch: Vec<f32>,
}

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "attend/f16/64",
        elements: 2 * GROUP * 64 * BLOCK,
        run: |backend, inputs, out| attend::<64>(backend, inputs, out),
    },
    Operation {
        name: "attend/f16/128",
        elements: 2 * GROUP * 128 * BLOCK,
        run: |backend, inputs, out| attend::<128>(backend, inputs, out),
    },
    Operation {
        name: "quantize/256",
        elements: K,
        run: |backend, inputs, out| quantize(backend, 256, inputs, out),
    },
    Operation {
        name: "quantize/32",
        elements: K,
        run: |backend, inputs, out| quantize(backend, 32, inputs, out),
    },
    Operation {
        name: "rms_norm",
        elements: K,
        run: |backend, inputs, out| backend.rms_norm(&inputs.x, &inputs.weight, 1e-6, &mut out.row),
    },
    Operation {
        name: "add",
        elements: K,
        run: |backend, inputs, out| {
            out.row.copy_from_slice(&inputs.weight);
            backend.add(&mut out.row, &inputs.x);
        },
    },
    Operation {
        name: "silu",
        elements: K,
        run: |backend, inputs, out| {
            out.row.copy_from_slice(&inputs.x);
            backend.gate(Activation::Silu, &mut out.row, &inputs.weight);
        },
    },
    Operation {
        name: "rope/halves",
        elements: 128,
        run: |backend, inputs, out| {
            out.row.copy_from_slice(&inputs.x);
            backend.rotate(RopeKind::Halves, &mut out.row[..128], &inputs.cos, &inputs.sin);
        },
    },
];

fn attend<const D: usize>(backend: &dyn Backend, inputs: &Inputs, out: &mut Outputs) {
    let queries = Queries {
        q: &inputs.x[..GROUP * D],
        stride: GROUP * D,
        heads: GROUP,
        dim_k: D,
        scale: 0.125,
        softcap: None,
        distance: None,
        quantized: QuantizedQueries::default(),
    };
    let block = KvBlock {
        k: KvData::F16(&inputs.keys[..D * BLOCK]),
        v: KvData::F16(&inputs.values[..D * BLOCK]),
        dim_v: D,
        next: None,
    };
    let mut sum = Partials {
        m: &mut out.m,
        l: &mut out.l,
        o: &mut out.o[..GROUP * D],
    };
    sum.clear();
    backend.attend(
        &queries,
        std::slice::from_ref(&(0..BLOCK)),
        &block,
        &mut sum,
        &mut out.scratch,
    );
}

fn quantize(backend: &dyn Backend, step: usize, inputs: &Inputs, out: &mut Outputs) {
    let finite = backend.quantize(step, &inputs.x, &mut out.q, &mut out.d[..K / step], &mut out.sums);
    assert!(finite, "the inputs are finite");
}

/// Runs an operation into fresh outputs; all bits of what it left.
fn bits(operation: &Operation, backend: &dyn Backend, inputs: &Inputs) -> Vec<u32> {
    let mut out = outputs();
    (operation.run)(backend, inputs, &mut out);
    let floats = out.row.iter().chain(&out.d).chain(&out.o);
    floats
        .chain(&out.m)
        .chain(&out.l)
        .map(|v| v.to_bits())
        .chain(out.q.iter().map(|&v| v as u32))
        .chain(out.sums.iter().map(|&v| v as u32))
        .collect()
}

fn outputs() -> Outputs {
    Outputs {
        row: vec![0.0; K],
        q: vec![0; K],
        d: vec![0.0; K / 16],
        sums: vec![0; K / 16],
        m: vec![0.0; GROUP],
        l: vec![0.0; GROUP],
        o: vec![0.0; GROUP * 128],
        scratch: vec![0.0; attend_scratch(128, 128)],
    }
}

pub(crate) fn run(criterion: &mut Criterion, meter: &mut Meter) {
    let inputs = Inputs {
        x: values(K),
        weight: values(K + 7)[7..].to_vec(),
        keys: halves(128 * BLOCK),
        values: halves(128 * BLOCK + 5)[5..].to_vec(),
        cos: values(64),
        sin: values(67)[3..].to_vec(),
    };
    let scalar = select::choose(Some("scalar")).expect("scalar is always there");
    for operation in OPERATIONS {
        let mut group = criterion.benchmark_group(operation.name);
        group.sample_size(20);
        let want = bits(operation, scalar, &inputs);
        for &backend in select::available() {
            assert!(
                bits(operation, backend, &inputs) == want,
                "{} of {} differs from scalar: a wrong kernel is not timed",
                operation.name,
                backend.name()
            );
            let name = format!("{}/{}", operation.name, backend.name());
            let work = Work {
                elements: operation.elements as f64,
                ..Work::default()
            };
            let mut out = outputs();
            meter.bench(
                &mut group,
                BenchmarkId::from_parameter(backend.name()),
                &name,
                work,
                || {
                    (operation.run)(backend, black_box(&inputs), &mut out);
                    black_box(&out.row);
                },
            );
        }
        group.finish();
    }
}
