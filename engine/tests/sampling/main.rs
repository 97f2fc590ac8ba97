//! The samplers against their definitions, and the sampler as a whole.
#![allow(clippy::unwrap_used)] // helpers of tests

#[path = "../support/allocations.rs"]
mod allocations;
mod filters;
mod sampler;

use twinfer_engine::sample::{Sampler, SamplerKind, SamplerParams, Scratch};

/// Everything off: the plain distribution, ready for one sampler to be turned on.
fn plain(samplers: &[SamplerKind]) -> SamplerParams {
    SamplerParams {
        seed: 1,
        temp: 1.0,
        samplers: samplers.to_vec(),
        ..SamplerParams::default()
    }
}

/// Logits whose softmax is `p`.
fn logits_of(p: &[f32]) -> Vec<f32> {
    p.iter().map(|&p| libm::logf(p)).collect()
}

/// What is left after sampling: (id, probability).
fn left(params: SamplerParams, logits: &[f32], history: &[u32]) -> Vec<(u32, f32)> {
    let mut sampler = Sampler::new(params, logits.len()).unwrap();
    for &token in history {
        sampler.accept(token).unwrap();
    }
    let mut scratch = Scratch::default();
    let token = sampler.sample(logits, &mut scratch).unwrap();
    let candidates: Vec<_> = scratch.candidates().iter().map(|c| (c.id, c.p)).collect();
    assert!(
        candidates.iter().any(|c| c.0 == token),
        "{token} is not in {candidates:?}"
    );
    let sum: f64 = candidates.iter().map(|c| f64::from(c.1)).fold(0.0, |a, b| a + b);
    assert!((sum - 1.0).abs() < 1e-5, "probabilities add up to {sum}");
    candidates
}

#[track_caller]
fn assert_left(params: SamplerParams, p: &[f32], expected: &[(u32, f32)]) {
    let found = left(params, &logits_of(p), &[]);
    let ids = |v: &[(u32, f32)]| v.iter().map(|x| x.0).collect::<Vec<_>>();
    assert_eq!(ids(&found), ids(expected), "{found:?}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f.1 - e.1).abs() < 1e-5, "{found:?} is not {expected:?}");
    }
}

const P: [f32; 4] = [0.1, 0.2, 0.3, 0.4];
