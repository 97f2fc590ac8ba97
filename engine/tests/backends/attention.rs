//! Attention: tiles of queries against blocks of the cache, and the joining of softmax states.

use std::ops::Range;

use twinfer_engine::kernels::{
    BLOCK, Backend, Distance, KvBlock, KvData, Partials, QuantizedQueries, Queries, attend_scratch,
};

use crate::operations::{floats, scalar};
use crate::{Random, assert_same, backends, reduced};

/// A tile of tokens against three blocks, one after the other, and the states merged once more.
struct Case {
    group: usize,
    dims: (usize, usize),
    visible: Vec<Range<usize>>,
    softcap: Option<f32>,
    scale: f32,
    /// Position of the first token, seen from the block, where distance takes something off a score.
    distance: Option<f32>,
}

impl Case {
    fn run(&self, backend: &dyn Backend, q: &[f32], blocks: &[KvBlock<'_>]) -> Vec<f32> {
        let (dim_k, dim_v) = self.dims;
        let mut int8 = (Vec::new(), Vec::new(), Vec::new());
        if dim_k.is_multiple_of(32) {
            let (width, tokens) = (self.group * dim_k, self.visible.len());
            int8 = (
                vec![0; tokens * width],
                vec![0.0; tokens * width / 32],
                vec![0; tokens * width / 16],
            );
            for (token, q) in q.chunks(2 * width).enumerate() {
                let part = |n: usize| token * width / n..(token + 1) * width / n;
                let (ints, d, sums) = (&mut int8.0[part(1)], &mut int8.1[part(32)], &mut int8.2[part(16)]);
                assert!(scalar().quantize(32, &q[..width], ints, d, sums));
            }
        }
        let slopes: Vec<f32> = (0..self.group).map(|i| 0.75 / (i + 1) as f32).collect();
        let tokens = 0..self.visible.len();
        let positions: Vec<f32> = tokens
            .map(|i| self.distance.unwrap_or_default() + i as f32)
            .collect();
        let queries = Queries {
            q,
            // One kv head of two.
            stride: 2 * self.group * dim_k,
            heads: self.group,
            dim_k,
            scale: self.scale,
            softcap: self.softcap,
            distance: self.distance.map(|_| Distance {
                slopes: &slopes,
                positions: &positions,
            }),
            quantized: QuantizedQueries {
                q: &int8.0,
                d: &int8.1,
                sums: &int8.2,
            },
        };
        let n = self.visible.len() * self.group;
        // What nobody writes must not be read.
        let (mut m, mut l, mut o) = (vec![f32::NAN; n], vec![0.0; n], vec![f32::NAN; n * dim_v]);
        let mut sum = Partials {
            m: &mut m,
            l: &mut l,
            o: &mut o,
        };
        let mut scratch = vec![f32::NAN; attend_scratch(dim_k, dim_v)];
        let mut seen = Vec::new();
        for block in blocks {
            backend.attend(&queries, &self.visible, block, &mut sum, &mut scratch);
            seen.extend_from_slice(sum.m);
            seen.extend_from_slice(sum.l);
            seen.extend_from_slice(sum.o);
        }
        let (mut m, mut l, mut o) = (vec![-1.5; n], vec![0.0; n], vec![0.25; n * dim_v]);
        l.iter_mut().step_by(2).for_each(|l| *l = 1.25);
        let mut earlier = Partials {
            m: &mut m,
            l: &mut l,
            o: &mut o,
        };
        backend.merge(&mut earlier, &sum);
        [seen, m, l, o].concat()
    }
}

/// Cached numbers in each form.
struct Cached {
    floats: Vec<f32>,
    halves: Vec<u16>,
    bytes: Vec<u8>,
}

impl Cached {
    /// A page of vectors of `dim`. As q8_0 any bytes but -128 with any finite scales, as the cache stores them.
    fn new(random: &mut Random, dim: usize) -> Self {
        let floats = random.floats(dim * BLOCK);
        let halves = floats.iter().map(|v| half_bits(*v)).collect();
        let mut bytes = Vec::new();
        if dim.is_multiple_of(32) {
            bytes.extend((0..dim * BLOCK).map(|_| (random.below(255) as i8).wrapping_sub(127) as u8));
            for scale in random.floats(dim / 32 * BLOCK) {
                bytes.extend(half_bits(scale.abs() / 64.0).to_le_bytes());
            }
        }
        Cached {
            floats,
            halves,
            bytes,
        }
    }

    /// Form number `form`: f32, f16, q8_0.
    fn data(&self, form: usize) -> KvData<'_> {
        match form {
            0 => KvData::F32(&self.floats),
            1 => KvData::F16(&self.halves),
            _ => KvData::Q8(&self.bytes),
        }
    }
}

#[test]
fn attention_is_scalars() {
    let mut random = Random(5);
    let mut compared = 0;
    let ranges = [0..64, 0..1, 63..64, 0..17, 5..6, 15..33, 16..48, 31..64, 7..7];
    for backend in backends() {
        for dims in [
            (8, 8),
            (16, 16),
            (20, 12),
            (32, 32),
            (64, 64),
            (72, 40),
            (96, 128),
            (128, 96),
            (256, 256),
            (512, 512),
            (576, 512),
        ] {
            for (round, (group, tokens)) in [(1, 1), (3, 1), (4, 1), (8, 2), (1, 5), (2, 9), (7, 2), (4, 11)]
                .into_iter()
                .enumerate()
            {
                // The longest heads are what takes the time; they have the same edges as those of 96 and 128.
                if reduced() && (dims.0 > 128 || round % 4 != dims.0 / 8 % 4) {
                    continue;
                }
                for forms in [(0, 0), (1, 1), (2, 2), (1, 2), (2, 0)] {
                    let whole = |dim: usize, form| form < 2 || dim.is_multiple_of(32);
                    if !whole(dims.0, forms.0) || !whole(dims.1, forms.1) {
                        continue;
                    }
                    let visible = (0..tokens)
                        .map(|_| ranges[random.below(ranges.len())].clone())
                        .collect();
                    let case = Case {
                        group,
                        dims,
                        visible,
                        softcap: (round % 2 == 1).then_some(20.0),
                        scale: if round % 3 == 0 { 0.125 } else { 3.0 },
                        distance: (round % 4 > 1).then_some(40.0 * (round as f32 - 4.0)),
                    };
                    let q = random.floats(tokens * 2 * group * dims.0);
                    let pages: Vec<_> = (0..3)
                        .map(|_| (Cached::new(&mut random, dims.0), Cached::new(&mut random, dims.1)))
                        .collect();
                    let blocks: Vec<_> = pages
                        .iter()
                        .map(|(k, v)| KvBlock {
                            k: k.data(forms.0),
                            v: v.data(forms.1),
                            dim_v: dims.1,
                            next: None,
                        })
                        .collect();
                    let what = format!("{} {dims:?} {forms:?} {:?}", backend.name(), case.visible);
                    let run = |backend| case.run(backend, &q, &blocks);
                    assert_same(&run(backend), &run(scalar()), &what);
                    compared += 1;
                }
            }
        }
    }
    println!("backends: {compared} tiles of attention bit-equal to scalar's");
}

#[test]
fn scores_of_zero_and_beyond_the_range_are_scalars() {
    let mut random = Random(6);
    for backend in backends() {
        for round in 0..if reduced() { 16 } else { 60 } {
            let mut q = random.floats(2 * 32 * 2);
            let (mut k, v) = (random.floats(32 * BLOCK), random.floats(32 * BLOCK));
            match round % 4 {
                0 => q.fill(-0.0),
                1 => k.fill(0.0),
                // Scores that overflow: infinite, or NaN where both signs meet.
                2 => k.iter_mut().step_by(7).for_each(|k| *k = 3e38),
                _ => {
                    for k in &mut k {
                        *k = if random.below(3) == 0 { 3e38 } else { -3e38 };
                    }
                }
            }
            let case = Case {
                group: 2,
                dims: (32, 32),
                visible: std::iter::once(0..64 - round).collect(),
                softcap: (round % 8 > 3).then_some(30.0),
                scale: 1.0,
                distance: (round % 3 == 0).then_some(30.0),
            };
            let block = KvBlock {
                k: KvData::F32(&k),
                v: KvData::F32(&v),
                dim_v: 32,
                next: None,
            };
            let run = |backend| case.run(backend, &q, &[block, block]);
            let what = format!("{} round {round}", backend.name());
            assert_same(&run(backend), &run(scalar()), &what);
        }
    }
}

#[test]
fn rounding_to_half_precision_is_scalars() {
    let mut random = Random(7);
    for backend in backends() {
        for n in [1, 7, 8, 16, 33, 100] {
            for round in 0..if reduced() { 16 } else { 200 } {
                let mut x = floats(&mut random, n);
                match round % 4 {
                    // Around the largest half, the smallest one, and ties.
                    0 => x.iter_mut().for_each(|x| *x *= 2.0),
                    1 => x.iter_mut().for_each(|x| *x *= 1e-6),
                    2 => x[round % n] = [65519.99, 65520.0, f32::NAN, f32::INFINITY][round / 4 % 4],
                    _ => x
                        .iter_mut()
                        .for_each(|x| *x = f32::from_bits(x.to_bits() & !0xfff)),
                }
                let run = |backend: &dyn Backend| {
                    let mut out = vec![7u16; n];
                    let finite = backend.to_halves(&x, &mut out);
                    (finite, finite.then_some(out))
                };
                assert_eq!(run(backend), run(scalar()), "{} {x:?}", backend.name());
            }
        }
    }
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
