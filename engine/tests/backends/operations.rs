//! The operations beside matrix products, with random and extreme inputs.

use twinfer_engine::kernels::peak::{PAGE, PATTERNS, Work};
use twinfer_engine::kernels::{Activation, Backend, RopeKind, select};

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

pub(crate) fn floats(random: &mut Random, n: usize) -> Vec<f32> {
    let mut v = random.floats(n);
    for _ in 0..n / 5 {
        let (at, which) = (random.below(n), random.below(EXTREMES.len()));
        v[at] = EXTREMES[which];
    }
    v
}

pub(crate) fn scalar() -> &'static dyn Backend {
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
fn work_for_measuring_is_done_in_full() {
    let mut random = Random(11);
    let words: Vec<u32> = (0..37 * PAGE / 4 + 5).map(|_| random.next() as u32).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let whole = 37 * PAGE as u64;
    let sum = words[..37 * PAGE / 4]
        .iter()
        .fold(0u32, |a, b| a.wrapping_add(*b));
    for backend in backends() {
        let (name, peak) = (backend.name(), select::peak(backend));
        let dot = peak.exercise(&Work::Dot { rounds: 1000 });
        assert!(dot.operations >= 8000, "{name}");
        assert_eq!(dot.checksum, (dot.operations * 15) & 0xffff_ffff, "{name}");
        let tiles = peak.exercise(&Work::TileDot { rounds: 100 });
        assert_eq!(tiles.operations > 0, name == "amx", "{name}");
        assert_eq!(tiles.checksum, (tiles.operations * 15) & 0xffff_ffff, "{name}");
        let float = peak.exercise(&Work::MultiplyAdd { rounds: 1000 });
        assert_eq!(float.checksum, float.operations, "{name}");
        for pattern in PATTERNS {
            let done = peak.exercise(&Work::Read {
                bytes: &bytes,
                pattern,
            });
            assert_eq!(
                (done.operations, done.checksum),
                (whole, sum.into()),
                "{name}: {}",
                pattern.name
            );
        }
    }
}
