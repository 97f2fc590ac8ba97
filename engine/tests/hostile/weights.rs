//! Weights that are not numbers, or so large that sums overflow: an evaluation ends with an error, never with logits.

use twinfer_engine::Error;
use twinfer_engine::cache::CacheType;

use crate::small::{ARCHITECTURES, Small};

fn not_finite(small: &Small, what: &str) {
    match small.run_with(what, CacheType::F16) {
        Err((_, Error::NonFinite { .. })) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn that_are_not_finite() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let base = Small::read(name);
        for (spec, _) in &base.tensors {
            let width = spec.shape[0];
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let what = |which: &str| format!("{name}: {} with {bad} in {which}", spec.name);
                not_finite(&base.clone().change(&spec.name, |_, _| bad), &what("all places"));
                // Column 3 of every row: of the embedding, any token may be asked for.
                let column = base
                    .clone()
                    .change(&spec.name, |i, v| if i % width == 3 { bad } else { v });
                not_finite(&column, &what("a column"));
                count += 2;
                if spec.name != "token_embd.weight" {
                    let one = base
                        .clone()
                        .change(&spec.name, |i, v| if i == 3 { bad } else { v });
                    not_finite(&one, &what("one place"));
                    count += 1;
                }
            }
        }
    }
    println!("hostile: {count} of {count} models with NaN or infinite weights end with an error");
}

/// Finite weights whose products are not.
#[test]
fn that_overflow() {
    let mut count = 0;
    for name in ARCHITECTURES {
        let base = Small::read(name);
        for (spec, _) in base
            .tensors
            .iter()
            .filter(|(spec, _)| spec.name.ends_with(".weight"))
        {
            for factor in [1e10, 1e20, 1e30, 1e37] {
                let what = format!("{name}: {} times {factor}", spec.name);
                // A norm or a cap behind it may bring the numbers back; what comes out is finite or an error.
                match base
                    .clone()
                    .change(&spec.name, |_, v| v * factor)
                    .run_with(&what, CacheType::F16)
                {
                    Ok(logits) => {
                        let same = logits.iter().all(|l| *l == logits[0]);
                        assert!(!same, "{what}: every logit is {}", logits[0]);
                    }
                    Err((_, Error::NonFinite { .. })) => {}
                    Err((_, other)) => panic!("{what}: {other}"),
                }
                count += 1;
            }
        }
    }
    println!("hostile: {count} of {count} models with huge weights end with an error or finite logits");
}

/// Half precision ends at 65504: what f32 holds may be too large for a cache of f16.
#[test]
fn that_overflow_the_cache_only() {
    let base = Small::read("llama-gqa").change("blk.0.attn_v.weight", |_, v| v * 1e7);
    assert!(base.run_with("f32", CacheType::F32).is_ok());
    match base.run_with("f16", CacheType::F16) {
        Err((_, Error::NonFinite { layer: 0, op })) => assert_eq!(op, "kv_cache"),
        other => panic!("{other:?}"),
    }
}

/// A sum of squares beyond f32 must not become a row of zeros, which would pass for a result.
#[test]
fn that_overflow_a_norm() {
    for name in ARCHITECTURES {
        let base = Small::read(name).change("token_embd.weight", |_, v| v * 1e25);
        not_finite(&base, name);
    }
}
