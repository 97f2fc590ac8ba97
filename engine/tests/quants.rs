//! The block formats against vectors of the reference implementation, and against hostile bytes.

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use twinfer_engine::quant::{
    GgmlType, Mix, MixModel, Step, can_encode, decode, encode, has_min, max_abs_sum, step_len, step_unpacker,
};

/// The reference vectors' folder, or `None`, said plainly, where it is not there.
fn vectors() -> Option<PathBuf> {
    let dir = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/reference/quants"
    ));
    if !dir.is_dir() {
        println!("quants: LEFT OUT, {} is not there", dir.display());
        return None;
    }
    Some(dir)
}

/// The file `<T>.<rest>`, T being the type's name in upper case (Q4_K for q4_k).
fn read(ty: GgmlType, rest: &str) -> Option<Vec<u8>> {
    std::fs::read(vectors()?.join(format!("{}.{rest}", ty.name().to_uppercase()))).ok()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect()
}

/// Types that have vectors: every weight type but F32.
fn types() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL
        .iter()
        .copied()
        .filter(|t| t.is_weight() && *t != GgmlType::F32)
}

fn assert_decodes(ty: GgmlType, bytes: &[u8], expected: &[f32]) {
    let mut out = vec![0.0; expected.len()];
    decode(ty, bytes, &mut out).expect("the lengths fit");
    for (i, (a, b)) in out.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{}: weight {i}: {a} for {b}", ty.name());
    }
}

#[test]
fn decode_is_bit_exact() {
    if vectors().is_none() {
        return;
    }
    let (mut random, mut quantized, mut of_random, mut of_quantized) = (0, 0, 0, 0);
    for ty in types() {
        of_random += 1;
        let bytes = read(ty, "random.bin").expect("every type has random blocks");
        assert_decodes(ty, &bytes, &floats(&read(ty, "random.f32").unwrap()));
        random += 1;
        if let Some(bytes) = read(ty, "quantized.bin") {
            of_quantized += 1;
            assert_decodes(ty, &bytes, &floats(&read(ty, "quantized.f32").unwrap()));
            quantized += 1;
        }
    }
    println!("quants: {random} of {of_random} types decode bit-exact (random blocks)");
    println!("quants: {quantized} of {of_quantized} types decode bit-exact (quantized blocks)");
    assert_eq!((of_random, of_quantized), (27, 25));
}

#[test]
fn steps_equal_the_reference() {
    if vectors().is_none() {
        return;
    }
    let mut n = 0;
    for ty in types() {
        let Some(unpack) = step_unpacker(ty) else { continue };
        let bytes = read(ty, "random.bin").unwrap();
        let expected = floats(&read(ty, "random.f32").unwrap());
        let mut step = Step::default();
        for (i, expected) in expected.chunks_exact(step_len(ty)).enumerate() {
            unpack(&bytes, i, &mut step);
            let (mut sum, mut min_sum) = (0i64, 0i64);
            for (j, &e) in expected.iter().enumerate() {
                let q = i64::from(step.scale[j / 16]) * i64::from(step.q[j]);
                let scaled = f64::from(step.d) * q as f64;
                let min = f64::from(step.dmin) * f64::from(step.min[j / 16]);
                let tolerance = 1e-6 * (scaled.abs() + min.abs());
                // Only MXFP4's largest scales pass the range of f32.
                if e.is_finite() {
                    let error = (f64::from(e) - (scaled - min)).abs();
                    assert!(
                        error <= tolerance,
                        "{ty:?} step {i} weight {j}: {} for {e}",
                        scaled - min
                    );
                } else {
                    assert!(scaled.abs() > f64::from(f32::MAX), "{ty:?} step {i} weight {j}");
                }
                assert!(step.q[j] != -128 || ty == GgmlType::Q8_0, "{ty:?}: q is -128");
                assert!(has_min(ty) || (step.min[j / 16] == 0 && step.dmin == 0.0));
                sum += q.abs() * 127;
                min_sum += i64::from(step.min[j / 16]) * 127;
            }
            assert!(sum <= i64::from(max_abs_sum(ty)), "{ty:?}: {sum}");
            assert!(min_sum <= 63 * 127 * 256, "{ty:?}: {min_sum}");
        }
        n += 1;
    }
    println!("quants: {n} of 25 quantized types agree in integer form");
    assert_eq!(n, 25);
}

/// Mean squared error of `bytes` against `src`.
fn mse(ty: GgmlType, bytes: &[u8], src: &[f32]) -> f64 {
    let mut out = vec![0.0; src.len()];
    decode(ty, bytes, &mut out).expect("the lengths fit");
    let mut sum = 0.0;
    for (&a, &b) in out.iter().zip(src) {
        let error = f64::from(a) - f64::from(b);
        sum += error * error;
    }
    sum / src.len() as f64
}

fn quantize(ty: GgmlType, src: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; ty.row_bytes(src.len()).expect("whole blocks")];
    encode(ty, src, None, &mut bytes).expect("finite weights");
    bytes
}

#[test]
fn encode_is_at_least_as_good_as_the_reference() {
    if vectors().is_none() {
        return;
    }
    println!("type      ours         reference    ratio");
    let (mut n, mut better) = (0, 0);
    for ty in types().filter(|&t| can_encode(t)) {
        let Some(src) = read(ty, "src.f32") else { continue };
        let src = floats(&src);
        let ours = mse(ty, &quantize(ty, &src), &src);
        let reference = mse(ty, &read(ty, "quantized.bin").unwrap(), &src);
        println!(
            "{:8}  {ours:.5e}  {reference:.5e}  {:.4}",
            ty.name(),
            ours / reference
        );
        n += 1;
        better += usize::from(ours <= reference);
    }
    println!("quants: {better} of {n} quantizers have at most the reference's squared error");
    assert_eq!((better, n), (13, 13));
}

/// A tensor of a GGUF file as its directory has it: name, dimensions, type.
type Entry = (String, Vec<u64>, GgmlType);

/// Reads just enough of a well-formed GGUF file (version 3) for these tests: `general.file_type` and the directory.
fn directory(bytes: &[u8]) -> (Option<u32>, Vec<Entry>) {
    struct Reader<'a>(&'a [u8]);
    impl Reader<'_> {
        fn take<const N: usize>(&mut self) -> [u8; N] {
            let (head, rest) = self.0.split_first_chunk().expect("a whole file");
            self.0 = rest;
            *head
        }
        fn u32(&mut self) -> u32 {
            u32::from_le_bytes(self.take())
        }
        fn u64(&mut self) -> u64 {
            u64::from_le_bytes(self.take())
        }
        fn string(&mut self) -> String {
            let n = self.u64() as usize;
            let (head, rest) = self.0.split_at(n);
            self.0 = rest;
            String::from_utf8(head.to_vec()).expect("utf-8")
        }
        fn skip(&mut self, ty: u32) {
            match ty {
                0 | 1 | 7 => self.0 = &self.0[1..],
                2 | 3 => self.0 = &self.0[2..],
                4..=6 => self.0 = &self.0[4..],
                10..=12 => self.0 = &self.0[8..],
                8 => drop(self.string()),
                9 => {
                    let ty = self.u32();
                    for _ in 0..self.u64() {
                        self.skip(ty);
                    }
                }
                _ => panic!("unknown value type {ty}"),
            }
        }
    }
    let mut r = Reader(bytes);
    assert_eq!(&r.take(), b"GGUF");
    assert_eq!(r.u32(), 3);
    let (tensors, keys) = (r.u64(), r.u64());
    let mut file_type = None;
    for _ in 0..keys {
        let key = r.string();
        let ty = r.u32();
        if key == "general.file_type" {
            file_type = Some(r.u32());
        } else {
            r.skip(ty);
        }
    }
    let entries = (0..tensors).map(|_| {
        let name = r.string();
        let n = r.u32();
        let dims = (0..n).map(|_| r.u64()).collect();
        let ty = GgmlType::from_id(r.u32()).expect("a known type");
        r.u64();
        (name, dims, ty)
    });
    let entries = entries.collect();
    (file_type, entries)
}

#[test]
fn mixes_choose_as_llama_cpp_does() {
    let Some(dir) = vectors() else { return };
    let dir = dir.join("../models/quantized");
    // stories260K has 5 layers, 8 query heads over 4 key/value heads, and its own output matrix.
    let model = MixModel {
        n_layers: 5,
        n_experts: 0,
        gqa: 2,
        tied_output: false,
        value_layers: Vec::new(),
    };
    let (mut files, mut tensors) = (0, 0);
    for &mix in Mix::ALL {
        let path = dir.join(format!("stories260K-{}.gguf", mix.name().to_uppercase()));
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let (file_type, entries) = directory(&bytes);
        assert_eq!(file_type, Some(mix.file_type()), "{mix:?}");
        for (name, dims, ty) in entries {
            let chosen = mix.tensor_type(&name, &dims, &model).unwrap_or(GgmlType::F32);
            assert_eq!(chosen, ty, "{mix:?}: {name} {dims:?}");
            tensors += 1;
        }
        files += 1;
    }
    println!("quants: {files} mixes choose llama.cpp's type for all {tensors} tensors");
    assert_eq!(files, 11);
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    for &ty in GgmlType::ALL {
        let (len, bytes) = (ty.block_len(), ty.block_bytes());
        for (n, b) in [
            (len, bytes - 1),
            (len, bytes + 1),
            (len + 1, bytes),
            (2 * len, bytes),
            (0, bytes),
        ] {
            assert!(
                decode(ty, &vec![0; b], &mut vec![0.0; n]).is_err(),
                "{ty:?} {n} {b}"
            );
            assert!(
                encode(ty, &vec![0.0; n], None, &mut vec![0; b]).is_err(),
                "{ty:?} {n} {b}"
            );
        }
        assert_eq!(
            decode(ty, &vec![0; bytes], &mut vec![0.0; len]).is_ok(),
            ty.is_weight(),
            "{ty:?}"
        );
        let encoded = encode(ty, &vec![0.0; len], None, &mut vec![0; bytes]);
        assert_eq!(encoded.is_ok(), can_encode(ty), "{ty:?}");
        if can_encode(ty) {
            for importance in [vec![], vec![1.0; len + 1], vec![-1.0; len], vec![f32::NAN; len]] {
                let mut out = vec![0; bytes];
                assert!(
                    encode(ty, &vec![0.0; len], Some(&importance), &mut out).is_err(),
                    "{ty:?}"
                );
            }
        }
    }
}

#[test]
fn weights_that_cannot_be_stored_are_errors() {
    for ty in GgmlType::ALL.iter().copied().filter(|&t| can_encode(t)) {
        let mut src = vec![0.5; ty.block_len()];
        let mut out = vec![0; ty.block_bytes()];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            src[0] = bad;
            let error = encode(ty, &src, None, &mut out)
                .expect_err("not finite")
                .to_string();
            assert!(
                error.contains("finite") && error.contains("weight 0"),
                "{ty:?}: {error}"
            );
        }
        // Everything else is stored, or is an error: never an infinity.
        for large in [
            f32::MAX,
            -f32::MAX,
            1e30,
            70000.0,
            65504.0,
            1e-30,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
        ] {
            src[0] = large;
            if encode(ty, &src, None, &mut out).is_ok() {
                let mut back = vec![0.0; src.len()];
                decode(ty, &out, &mut back).expect("the lengths fit");
                assert!(back.iter().all(|w| w.is_finite()), "{ty:?} {large}");
            }
        }
    }
}

#[test]
fn importance_moves_the_error() {
    // Half of the columns matter a thousandfold: their error falls.
    let src: Vec<f32> = (0..512u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect();
    let importance: Vec<f32> = (0..256).map(|i| if i % 2 == 0 { 1.0 } else { 0.001 }).collect();
    let quantized = types().filter(|t| can_encode(*t) && !t.is_float());
    for ty in quantized {
        let even = |importance: Option<&[f32]>| {
            let mut bytes = vec![0; ty.row_bytes(512).expect("whole blocks")];
            encode(ty, &src, importance, &mut bytes).expect("finite weights");
            let mut out = vec![0.0; 512];
            decode(ty, &bytes, &mut out).expect("the lengths fit");
            let errors = out
                .iter()
                .zip(&src)
                .step_by(2)
                .map(|(a, b)| f64::from((a - b) * (a - b)));
            errors.sum::<f64>()
        };
        let (with, without) = (even(Some(&importance)), even(None));
        // MXFP4 can only choose among a few powers of two.
        let least = if ty == GgmlType::MXFP4 { 1.0 } else { 0.999 };
        assert!(with <= least * without, "{ty:?}: {with} for {without}");
    }
}

/// The largest error of a code as a part of the block's largest magnitude: half the distance between codes, and what
/// the search may clip.
fn error_bound(ty: GgmlType) -> f32 {
    match ty {
        GgmlType::F32 => 0.0,
        GgmlType::F16 => 1.0 / 2048.0,
        GgmlType::BF16 => 1.0 / 256.0,
        GgmlType::Q8_0 => 0.01,
        GgmlType::Q6_K => 0.05,
        GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5_K => 0.12,
        GgmlType::Q2_K => 0.7,
        GgmlType::Q3_K => 0.5,
        _ => 0.3,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_decode(seed in proptest::collection::vec(any::<u8>(), 1..600), blocks in 1usize..4) {
        for &ty in GgmlType::ALL {
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(blocks * ty.block_bytes()).collect();
            let mut out = vec![0.0; blocks * ty.block_len()];
            prop_assert_eq!(decode(ty, &bytes, &mut out).is_ok(), ty.is_weight());
            let Some(unpack) = step_unpacker(ty) else { continue };
            let mut step = Step::default();
            for i in 0..out.len() / step_len(ty) + 2 {
                unpack(&bytes, i, &mut step);
                let largest = (0..step_len(ty))
                    .map(|j| (i32::from(step.scale[j / 16]) * i32::from(step.q[j])).abs())
                    .max();
                prop_assert!(largest.unwrap_or(0) * 127 * step_len(ty) as i32 <= max_abs_sum(ty), "{:?}", ty);
                prop_assert!(step.q.iter().all(|&q| q != -128) || ty == GgmlType::Q8_0);
            }
            // Any row, of a fitting length or not, unpacks as far as it goes.
            unpack(&seed, blocks, &mut step);
        }
    }

    #[test]
    fn encode_then_decode_is_near(
        unit in proptest::collection::vec(-1.0f32..1.0, 256),
        exponent in -20i32..12,
        offset in -1.0f32..1.0,
        zeros in 0usize..257,
    ) {
        let scale = f32::from_bits(((127 + exponent) as u32) << 23);
        let mut src: Vec<f32> = unit.iter().map(|u| (u + offset) * scale).collect();
        src[256 - zeros.min(256)..].fill(0.0);
        let largest = src.iter().fold(0.0f32, |a, x| if x.abs() > a { x.abs() } else { a });
        for ty in GgmlType::ALL.iter().copied().filter(|&t| can_encode(t)) {
            let bytes = quantize(ty, &src);
            let mut out = vec![0.0; 256];
            decode(ty, &bytes, &mut out).expect("the lengths fit");
            // Half precision scales end at 2^-24.
            let bound = error_bound(ty) * largest + if ty == GgmlType::F32 { 0.0 } else { 1e-6 };
            for (i, (a, b)) in out.iter().zip(&src).enumerate() {
                prop_assert!((a - b).abs() <= bound, "{:?} weight {}: {} for {}, bound {}", ty, i, a, b, bound);
            }
        }
    }
}
