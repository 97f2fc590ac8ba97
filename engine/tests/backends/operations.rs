//! The operations beside matrix products, with random and extreme inputs.

use twinfer_engine::kernels::{
    Activation, BLOCK, Backend, KvBlock, KvData, Partial, Query, RopeKind, select,
};

use crate::{Random, assert_same, backends, reduced};

/// Lengths around every vector.
const LENGTHS: [usize; 12] = [1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 770];

const EXTREMES: [f32; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    87.0,
    -87.0,
    -87.1,
    88.0,
    88.1,
    1e4,
    -1e4,
    1e-40,
    -1e-40,
    0.625,
    -0.625,
    1e30,
    -1e30,
    3e38,
    f32::MIN_POSITIVE,
    12.5,
];

fn floats(random: &mut Random, n: usize) -> Vec<f32> {
    let mut v = random.floats(n);
    for _ in 0..n / 5 {
        let (at, which) = (random.below(n), random.below(EXTREMES.len()));
        v[at] = EXTREMES[which];
    }
    v
}

fn scalar() -> &'static dyn Backend {
    select::choose(Some("scalar")).unwrap()
}

#[test]
fn quantization_is_scalars() {
    let mut random = Random(3);
    let mut compared = 0;
    for backend in backends() {
        for step in [16, 32, 256] {
            for round in 0..if reduced() { 32 } else { 400 } {
                let n = step * (1 + round % 5);
                let mut x = floats(&mut random, n);
                match round % 8 {
                    // Values half way between two integers: ties.
                    1 => x.iter_mut().for_each(|x| *x = (*x * 8.0).round() / 2.0 + 0.5),
                    2 => x.fill(f32::from_bits(0x087f_ffff)),
                    3 => x.fill(-f32::from_bits(0x0880_0000)),
                    4 => x[round % n] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][round % 3],
                    5 => x.iter_mut().for_each(|x| *x *= 1e-36),
                    6 => x.fill(if round % 16 < 8 { f32::MAX } else { -0.0 }),
                    _ => (),
                }
                let run = |backend: &dyn Backend| {
                    let (mut q, mut d, mut s) = (vec![9i8; n], vec![9.0; n / step], vec![9i16; n / 16]);
                    let finite = backend.quantize(step, &x, &mut q, &mut d, &mut s);
                    finite.then(|| (q, d.iter().map(|d| d.to_bits()).collect::<Vec<_>>(), s))
                };
                assert_eq!(
                    run(backend),
                    run(scalar()),
                    "{} step {step} round {round}",
                    backend.name()
                );
                compared += 1;
            }
        }
    }
    println!("backends: {compared} quantized rows bit-equal to scalar's");
}

#[test]
fn vector_operations_are_scalars() {
    let mut random = Random(4);
    let mut compared = 0;
    for backend in backends() {
        for n in LENGTHS {
            for round in 0..if reduced() { 2 } else { 20 } {
                let (x, y) = (floats(&mut random, 3 * n), floats(&mut random, 3 * n));
                let what = format!("{} n {n} round {round}", backend.name());
                let twice = |f: &dyn Fn(&dyn Backend, &mut [f32])| {
                    let (mut a, mut b) = (x.clone(), x.clone());
                    f(backend, &mut a);
                    f(scalar(), &mut b);
                    (a, b)
                };
                let check = |name: &str, (got, want): (Vec<f32>, Vec<f32>)| {
                    assert_same(&got, &want, &format!("{name}, {what}"));
                };
                check("rms_norm", twice(&|b, out| b.rms_norm(&x, &y[..n], 1e-5, out)));
                check("add", twice(&|b, x| b.add(x, &y)));
                check("silu", twice(&|b, x| b.gate(Activation::Silu, x, &y)));
                check("gelu", twice(&|b, x| b.gate(Activation::Gelu, x, &y)));
                let half = (3 * n) / 2;
                let (cos, sin) = (random.floats(half), random.floats(half));
                for kind in [RopeKind::Interleaved, RopeKind::Halves] {
                    check("rotate", twice(&|b, head| b.rotate(kind, head, &cos, &sin)));
                }
                compared += 6;
            }
        }
    }
    println!("backends: {compared} vector operations bit-equal to scalar's");
}

#[test]
fn attention_is_scalars() {
    let mut random = Random(5);
    let mut compared = 0;
    for backend in backends() {
        for (dim_k, dim_v) in [
            (8, 8),
            (16, 16),
            (20, 12),
            (64, 64),
            (72, 40),
            (96, 128),
            (256, 256),
            (512, 512),
        ] {
            for half in [false, true] {
                let visible_ranges = [0..64, 0..1, 63..64, 0..17, 5..6, 15..33, 16..48, 31..64];
                for (round, visible) in visible_ranges.into_iter().enumerate() {
                    // The longest heads are what takes the time; they have the same edges as those of 96 and 128.
                    if reduced() && dim_k > 200 && round > 1 {
                        continue;
                    }
                    let q = random.floats(dim_k);
                    let (k, v) = (random.floats(dim_k * BLOCK), random.floats(dim_v * BLOCK));
                    let as_halves = |v: &[f32]| -> Vec<u16> { v.iter().map(|v| half_bits(*v)).collect() };
                    let (k16, v16) = (as_halves(&k), as_halves(&v));
                    let block = KvBlock {
                        k: if half { KvData::F16(&k16) } else { KvData::F32(&k) },
                        v: if half { KvData::F16(&v16) } else { KvData::F32(&v) },
                        dim_v,
                    };
                    let query = Query {
                        q: &q,
                        scale: if round % 3 == 0 { 0.125 } else { 3.0 },
                        softcap: (round % 2 == 1).then_some(20.0),
                    };
                    let run = |backend: &dyn Backend| {
                        let mut out = Partial::default();
                        backend.attend(&query, &block, visible.clone(), &mut out);
                        let mut sum = out.clone();
                        (sum.m, sum.l) = (sum.m - 1.5, sum.l * 0.7);
                        backend.merge(&mut sum, &out, dim_v);
                        [
                            &[out.m, out.l, sum.m, sum.l][..],
                            &out.o[..dim_v],
                            &sum.o[..dim_v],
                        ]
                        .concat()
                    };
                    let what = format!("{} {dim_k} {dim_v} {half} {visible:?}", backend.name());
                    assert_same(&run(backend), &run(scalar()), &what);
                    compared += 1;
                }
            }
        }
    }
    println!("backends: {compared} attention blocks and merges bit-equal to scalar's");
}

/// Truncated to half precision: any finite bits will do.
fn half_bits(v: f32) -> u16 {
    let bits = v.to_bits();
    let exponent = (bits >> 23 & 255) as i32 - 112;
    let magnitude = if exponent <= 0 {
        0
    } else {
        (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16
    };
    (bits >> 16) as u16 & 0x8000 | magnitude
}
