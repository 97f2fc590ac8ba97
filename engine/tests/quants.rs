//! The block formats against vectors of the reference implementation, and against hostile bytes.

use std::path::PathBuf;

use twinfer_engine::quant::{
    GgmlType, Step, can_encode, decode, encode, has_min, max_abs_sum, step_len, step_unpacker,
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
    let sum: f64 = out
        .iter()
        .zip(src)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum();
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
