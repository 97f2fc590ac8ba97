//! The samplers against their definitions: values worked out by hand, frequencies, ties, extremes, determinism, no
//! allocation, no panic.
#![allow(unsafe_code)] // the counting allocator
#![allow(clippy::unwrap_used)] // helpers of tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use twinfer_engine::sample::{
    DEFAULT_CHAIN, Sampler, SamplerKind, SamplerParams, dry_breakers, parse_samplers, parse_sampling_seq,
};
use twinfer_engine::{Error, Result};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; the counter is a plain thread-local without destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

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
    let token = sampler.sample(logits).unwrap();
    let candidates: Vec<_> = sampler.candidates().iter().map(|c| (c.id, c.p)).collect();
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

#[test]
fn defaults_are_those_of_llama_cpp() {
    let p = SamplerParams::default();
    assert_eq!(
        (p.temp, p.top_k, p.top_p, p.min_p, p.typ_p),
        (0.8, 40, 0.95, 0.05, 1.0)
    );
    assert_eq!(
        (p.xtc_probability, p.xtc_threshold, p.top_n_sigma),
        (0.0, 0.1, -1.0)
    );
    assert_eq!(
        (
            p.penalty_last_n,
            p.penalty_repeat,
            p.penalty_freq,
            p.penalty_present
        ),
        (64, 1.0, 0.0, 0.0)
    );
    assert_eq!(
        (
            p.dry_multiplier,
            p.dry_base,
            p.dry_allowed_length,
            p.dry_penalty_last_n
        ),
        (0.0, 1.75, 2, -1)
    );
    assert_eq!(
        (p.mirostat, p.mirostat_tau, p.mirostat_eta, p.min_keep),
        (0, 5.0, 0.1, 0)
    );
    assert_eq!(
        (p.dynatemp_range, p.dynatemp_exponent, p.seed),
        (0.0, 1.0, u32::MAX)
    );
    let names: Vec<_> = p.samplers.iter().map(|s| s.name()).collect();
    let expected = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";
    assert_eq!(names.join(";"), expected);
    assert_eq!(parse_samplers(expected).unwrap(), DEFAULT_CHAIN);
    assert_eq!(parse_sampling_seq("edskypmxt").unwrap(), DEFAULT_CHAIN);
    assert_eq!(
        parse_samplers(" top-k ;temp").unwrap(),
        [SamplerKind::TopK, SamplerKind::Temperature]
    );
    assert_eq!(parse_samplers("").unwrap(), []);
    assert!(parse_samplers("top_q").unwrap_err().to_string().contains("top_q"));
    assert!(parse_sampling_seq("kz").unwrap_err().to_string().contains('z'));
}

#[test]
fn top_k() {
    let with = |top_k| SamplerParams {
        top_k,
        ..plain(&[SamplerKind::TopK])
    };
    assert_left(with(1), &P, &[(3, 1.0)]);
    assert_left(with(3), &P, &[(3, 4.0 / 9.0), (2, 3.0 / 9.0), (1, 2.0 / 9.0)]);
    for all in [0, -1, 4, i32::MAX, i32::MIN] {
        assert_left(with(all), &P, &[(3, 0.4), (2, 0.3), (1, 0.2), (0, 0.1)]);
    }
    // Ties at the cut: the lower ids stay.
    assert_left(with(2), &[0.25; 4], &[(0, 0.5), (1, 0.5)]);
}

#[test]
fn top_p() {
    let with = |top_p, min_keep| SamplerParams {
        top_p,
        min_keep,
        ..plain(&[SamplerKind::TopP])
    };
    assert_left(with(0.0, 0), &P, &[(3, 1.0)]);
    assert_left(with(0.39, 0), &P, &[(3, 1.0)]);
    assert_left(with(0.5, 0), &P, &[(3, 4.0 / 7.0), (2, 3.0 / 7.0)]);
    assert_left(
        with(0.85, 0),
        &P,
        &[(3, 4.0 / 9.0), (2, 3.0 / 9.0), (1, 2.0 / 9.0)],
    );
    assert_left(with(1.0, 0), &P, &[(3, 0.4), (2, 0.3), (1, 0.2), (0, 0.1)]);
    assert_left(
        with(0.1, 3),
        &P,
        &[(3, 4.0 / 9.0), (2, 3.0 / 9.0), (1, 2.0 / 9.0)],
    );
    assert_left(with(0.1, 9), &P, &[(3, 0.4), (2, 0.3), (1, 0.2), (0, 0.1)]);
}

#[test]
fn min_p() {
    let with = |min_p, min_keep| SamplerParams {
        min_p,
        min_keep,
        ..plain(&[SamplerKind::MinP])
    };
    // The threshold is min_p * 0.4.
    assert_left(with(0.0, 0), &P, &[(3, 0.4), (2, 0.3), (1, 0.2), (0, 0.1)]);
    assert_left(
        with(0.26, 0),
        &P,
        &[(3, 4.0 / 9.0), (2, 3.0 / 9.0), (1, 2.0 / 9.0)],
    );
    assert_left(with(0.7, 0), &P, &[(3, 4.0 / 7.0), (2, 3.0 / 7.0)]);
    assert_left(with(1.0, 0), &P, &[(3, 1.0)]);
    assert_left(with(1.0, 2), &P, &[(3, 4.0 / 7.0), (2, 3.0 / 7.0)]);
}

#[test]
fn typical() {
    let with = |typ_p, min_keep| SamplerParams {
        typ_p,
        min_keep,
        ..plain(&[SamplerKind::TypP])
    };
    // Entropy of (0.97, 0.01 x 3) is 0.168: surprises 0.030 and 4.605, so the common token is the typical one.
    assert_left(with(0.5, 0), &[0.97, 0.01, 0.01, 0.01], &[(0, 1.0)]);
    // Entropy of (0.4, 0.2, 0.2, 0.2) is 1.332: the surprises 1.609 are nearer than 0.916.
    assert_left(
        with(0.5, 0),
        &[0.4, 0.2, 0.2, 0.2],
        &[(1, 1.0 / 3.0), (2, 1.0 / 3.0), (3, 1.0 / 3.0)],
    );
    // One typical token over the mass of 0.1 is enough; min_keep wants two; ties go to the lower id.
    assert_left(with(0.1, 0), &[0.4, 0.2, 0.2, 0.2], &[(1, 1.0)]);
    assert_left(with(0.1, 2), &[0.4, 0.2, 0.2, 0.2], &[(1, 0.5), (2, 0.5)]);
}

#[test]
fn top_n_sigma() {
    let with = |top_n_sigma| SamplerParams {
        top_n_sigma,
        ..plain(&[SamplerKind::TopNSigma])
    };
    // Mean 2, variance (4 + 0 + 0 + 4) / 4 = 2: one sigma below 4 is 2.59, two are 1.17.
    let logits = [0.0, 2.0, 2.0, 4.0];
    let ids = |n| {
        left(with(n), &logits, &[])
            .iter()
            .map(|c| c.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(1.0), [3]);
    assert_eq!(ids(2.0), [3, 1, 2]);
    assert_eq!(ids(3.0), [3, 1, 2, 0]);
    assert_eq!(ids(0.0), [3, 1, 2, 0]);
    assert_eq!(ids(-1.0), [3, 1, 2, 0]);
}

#[test]
fn xtc() {
    let with = |probability, xtc_threshold, min_keep| SamplerParams {
        xtc_probability: probability,
        xtc_threshold,
        min_keep,
        ..plain(&[SamplerKind::Xtc])
    };
    // 0.4, 0.3 and 0.2 reach the threshold: all but the last of them go.
    assert_left(with(1.0, 0.15, 0), &P, &[(1, 2.0 / 3.0), (0, 1.0 / 3.0)]);
    // Only one reaches it: nothing goes.
    assert_left(with(1.0, 0.35, 0), &P, &[(3, 0.4), (2, 0.3), (1, 0.2), (0, 0.1)]);
    assert_left(with(1.0, 0.51, 0), &P, &[(3, 0.4), (2, 0.3), (1, 0.2), (0, 0.1)]);
    // Two would be left; three are demanded.
    assert_left(with(1.0, 0.15, 3), &P, &[(3, 0.4), (2, 0.3), (1, 0.2), (0, 0.1)]);
    // It acts at its probability.
    let mut sampler = Sampler::new(with(0.25, 0.15, 0), 4).unwrap();
    let logits = logits_of(&P);
    let acted = (0..4000).filter(|_| {
        sampler.sample(&logits).unwrap();
        sampler.candidates().len() == 2
    });
    let share = acted.count() as f64 / 4000.0;
    assert!((share - 0.25).abs() < 0.03, "{share}");
}

#[test]
fn temperature() {
    let with = |temp| SamplerParams {
        temp,
        ..plain(&[SamplerKind::Temperature])
    };
    // p ^ (1 / T), normalized: at 0.5 the squares 1, 4, 9, 16 of 30.
    assert_left(
        with(0.5),
        &P,
        &[
            (3, 16.0 / 30.0),
            (2, 9.0 / 30.0),
            (1, 4.0 / 30.0),
            (0, 1.0 / 30.0),
        ],
    );
    assert_left(with(0.0), &P, &[(3, 1.0)]);
    // Extremes: as good as greedy, as good as uniform; never NaN.
    for tiny in [1e-3, f32::MIN_POSITIVE, 1e-45] {
        assert_eq!(left(with(tiny), &logits_of(&P), &[])[0], (3, 1.0), "{tiny}");
    }
    for (_, p) in left(with(f32::MAX), &[f32::MAX, f32::MIN, 0.0, 1.0], &[]) {
        assert!((0.03..0.7).contains(&p), "{p}");
    }
    assert_eq!(
        left(with(1e-45), &[f32::MAX, f32::MIN, 0.0, 1.0], &[])[0],
        (0, 1.0)
    );
    // Ties at temperature 0: the lowest id, and -0 is 0.
    assert_eq!(left(with(0.0), &[1.0, 7.0, 7.0], &[]), [(1, 1.0)]);
    assert_eq!(left(with(0.0), &[-0.0, 0.0], &[]), [(0, 1.0)]);
    assert_eq!(left(with(0.0), &[0.0, -0.0], &[]), [(0, 1.0)]);
}

#[test]
fn dynamic_temperature() {
    let with = |temp, dynatemp_range, dynatemp_exponent| SamplerParams {
        temp,
        dynatemp_range,
        dynatemp_exponent,
        ..plain(&[SamplerKind::Temperature])
    };
    // Greatest entropy: the upper end of the range, here without effect on equal logits.
    assert_left(
        with(1.0, 0.5, 1.0),
        &[0.25; 4],
        &[(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25)],
    );
    // Entropy of (0.8, 0.2) is 0.500402 = 0.721928 of ln 2: T = 0.5 + 1.0 * 0.721928 = 1.221928;
    // odds 4 ^ (1 / T) = 3.109599.
    assert_left(with(1.0, 0.5, 1.0), &[0.8, 0.2], &[(0, 0.756667), (1, 0.243333)]);
    // Exponent 2: T = 0.5 + 0.521180 = 1.021180; odds 3.886588.
    assert_left(with(1.0, 0.5, 2.0), &[0.8, 0.2], &[(0, 0.795358), (1, 0.204642)]);
    // No entropy and a range down to 0: greedy. Temperature 0 is greedy whatever the range.
    assert_eq!(left(with(1.0, 2.0, 1.0), &[500.0, 0.0], &[])[0], (0, 1.0));
    assert_left(with(0.0, 2.0, 1.0), &P, &[(3, 1.0)]);
}

#[test]
fn penalties() {
    let base = plain(&[SamplerKind::Penalties]);
    let logit = |params: &SamplerParams, history: &[u32]| {
        let mut sampler = Sampler::new(params.clone(), 3).unwrap();
        for &token in history {
            sampler.accept(token).unwrap();
        }
        sampler.sample(&[2.0, -2.0, 1.0]).unwrap();
        let mut list: Vec<_> = sampler.candidates().iter().map(|c| (c.id, c.logit)).collect();
        list.sort_by_key(|c| c.0);
        list.into_iter().map(|c| c.1).collect::<Vec<_>>()
    };
    let repeat = SamplerParams {
        penalty_repeat: 2.0,
        ..base.clone()
    };
    assert_eq!(logit(&repeat, &[]), [2.0, -2.0, 1.0]);
    assert_eq!(logit(&repeat, &[0, 1]), [1.0, -4.0, 1.0]);
    let freq = SamplerParams {
        penalty_freq: 0.5,
        penalty_present: 0.25,
        ..base.clone()
    };
    assert_eq!(logit(&freq, &[0, 0, 2]), [0.75, -2.0, 0.25]);
    // Only the last n count; -1 is the context, 0 none.
    let short = SamplerParams {
        penalty_last_n: 2,
        ..freq.clone()
    };
    assert_eq!(logit(&short, &[0, 0, 2, 1]), [2.0, -2.75, 0.25]);
    let context = SamplerParams {
        penalty_last_n: -1,
        n_ctx: 3,
        ..freq.clone()
    };
    assert_eq!(logit(&context, &[0, 0, 2, 1]), [1.25, -2.75, 0.25]);
    let none = SamplerParams {
        penalty_last_n: 0,
        ..freq
    };
    assert_eq!(logit(&none, &[0, 0, 2, 1]), [2.0, -2.0, 1.0]);
    // Extremes stay finite.
    let wild = SamplerParams {
        penalty_repeat: 1e-38,
        penalty_freq: f32::MAX,
        penalty_present: f32::MIN,
        ..base
    };
    assert!(logit(&wild, &[0, 1, 1]).iter().all(|x| x.is_finite()));
}

#[test]
fn penalties_after_a_cut_reorder() {
    let params = SamplerParams {
        top_k: 2,
        penalty_present: 5.0,
        ..plain(&[
            SamplerKind::TopK,
            SamplerKind::Penalties,
            SamplerKind::Temperature,
        ])
    };
    let ids: Vec<_> = left(params, &[3.0, 2.0, 1.0], &[0]).iter().map(|c| c.0).collect();
    assert_eq!(ids, [1, 0]);
}

/// The logits after DRY alone, from zeros.
fn dry_logits(params: SamplerParams, n_vocab: usize, history: &[u32]) -> Vec<f32> {
    let mut sampler = Sampler::new(params, n_vocab).unwrap();
    for &token in history {
        sampler.accept(token).unwrap();
    }
    sampler.sample(&vec![0.0; n_vocab]).unwrap();
    let mut logits = vec![0.0; n_vocab];
    for c in sampler.candidates() {
        logits[c.id as usize] = c.logit;
    }
    logits
}

#[test]
fn dry() {
    let params = SamplerParams {
        dry_multiplier: 1.0,
        dry_base: 2.0,
        dry_allowed_length: 1,
        ..plain(&[SamplerKind::Dry])
    };
    // The example in llama.cpp's comments: a b c c b c y a b c. What would extend a repetition: c after `a b c`
    // (3 tokens: 2^(3-1)), b after `c` (1: 2^0), y after `b c` (2: 2^1).
    let history = [0, 1, 2, 2, 1, 2, 3, 0, 1, 2];
    assert_eq!(
        dry_logits(params.clone(), 5, &history),
        [0.0, -1.0, -4.0, -2.0, 0.0]
    );
    let longer = SamplerParams {
        dry_allowed_length: 2,
        ..params.clone()
    };
    assert_eq!(
        dry_logits(longer.clone(), 5, &history),
        [0.0, 0.0, -2.0, -1.0, 0.0]
    );
    // Only the last 6 are searched: b c y a b c.
    let short = SamplerParams {
        dry_penalty_last_n: 6,
        ..params.clone()
    };
    assert_eq!(dry_logits(short, 5, &history), [0.0, 0.0, 0.0, -2.0, 0.0]);
    let context = SamplerParams {
        n_ctx: 6,
        ..params.clone()
    };
    assert_eq!(dry_logits(context, 5, &history), [0.0, 0.0, 0.0, -2.0, 0.0]);
    // A breaker `b` limits the repetition to what follows it, and is not penalized itself.
    let breaker = SamplerParams {
        dry_sequence_breakers: vec![vec![1], vec![]],
        ..params.clone()
    };
    assert_eq!(dry_logits(breaker, 5, &history), [0.0, 0.0, -1.0, -1.0, 0.0]);
    // A breaker of two tokens, `a b`: the same limit, but `b` alone is no breaker.
    let two = SamplerParams {
        dry_sequence_breakers: vec![vec![0, 1]],
        ..params.clone()
    };
    assert_eq!(dry_logits(two, 5, &history), [0.0, -1.0, -1.0, -1.0, 0.0]);
    // A breaker as the newest token: nothing to repeat.
    let last = SamplerParams {
        dry_sequence_breakers: vec![vec![2]],
        ..params.clone()
    };
    assert_eq!(dry_logits(last, 5, &history), [0.0; 5]);
    // A long run: the exponent is bounded, the logits stay finite.
    let run = dry_logits(params.clone(), 2, &[0; 3000]);
    assert!(run[0] < -1e30 && run[0].is_finite() && run[1] == 0.0, "{run:?}");
    assert_eq!(
        dry_logits(
            SamplerParams {
                dry_base: 0.5,
                ..params
            },
            2,
            &[0; 30]
        ),
        [0.0; 2]
    );
}

/// The definition, in cubic time, with breakers left out.
fn dry_by_definition(history: &[u32], last_n: usize, allowed: usize, n_vocab: usize) -> Vec<f32> {
    let h = &history[history.len().saturating_sub(last_n)..];
    let mut best = vec![None::<usize>; n_vocab];
    for end in 1..h.len() {
        let mut length = 0;
        while length < end && h[end - 1 - length] == h[h.len() - 1 - length] {
            length += 1;
        }
        let next = h[end] as usize;
        if length >= allowed && best[next].is_none_or(|b| b < length) {
            best[next] = Some(length);
        }
    }
    best.iter()
        .map(|b| b.map_or(0.0, |length| -libm::pow(1.5, (length - allowed) as f64) as f32))
        .collect()
}

#[test]
fn dry_breakers_from_strings() {
    let vocabulary: [&[u8]; 8] = [
        b"a",
        b"\n",
        b"x\ny",
        b"on",
        b"onc",
        b"e",
        b"ce",
        "\u{e9}".as_bytes(),
    ];
    let piece = |id: u32| vocabulary[id as usize].to_vec();
    let tokenize = |text: &str| match text {
        "ce" => vec![6],
        "e" => vec![5],
        other => panic!("unexpected tail {other:?}"),
    };
    let found = dry_breakers(&["\n", "once", ""], 8, &piece, &tokenize);
    assert_eq!(found, [vec![1], vec![2], vec![3, 6], vec![4, 5]]);
}

#[test]
fn mirostat() {
    let params = SamplerParams {
        mirostat: 2,
        mirostat_tau: 0.5,
        mirostat_eta: 1.0,
        ..plain(&[])
    };
    let mut sampler = Sampler::new(params.clone(), 4).unwrap();
    // mu starts at 2 tau = 1 bit: of (0.6, 0.2, 0.1, 0.1) only the first (0.74 bits) stays.
    let logits = logits_of(&[0.6, 0.2, 0.1, 0.1]);
    assert_eq!(sampler.sample(&logits).unwrap(), 0);
    assert_eq!(sampler.candidates().len(), 1);
    // Its surprise was 0 bits, so mu = 1 - (0 - 0.5) = 1.5, then 2, then 2.5: over the 2.32 bits of 0.2.
    sampler.sample(&logits).unwrap();
    sampler.sample(&logits).unwrap();
    sampler.sample(&logits).unwrap();
    let kept: Vec<_> = sampler.candidates().iter().map(|c| c.id).collect();
    assert_eq!(kept, [0, 1]);
    // In the long run the mean surprise is tau.
    let params = SamplerParams {
        mirostat_tau: 1.2,
        mirostat_eta: 0.1,
        ..params
    };
    let wide: Vec<f32> = (0..64).map(|i| -(i as f32) * 0.15).collect();
    let mut sampler = Sampler::new(params, 64).unwrap();
    let mut bits = 0.0f64;
    for _ in 0..5000 {
        let token = sampler.sample(&wide).unwrap();
        let p = sampler.candidates().iter().find(|c| c.id == token).unwrap().p;
        bits -= f64::from(libm::log2f(p));
    }
    assert!((bits / 5000.0 - 1.2).abs() < 0.05, "{}", bits / 5000.0);
}

#[test]
fn logit_bias() {
    let with = |logit_bias| SamplerParams {
        logit_bias,
        ..plain(&[])
    };
    let ids = |bias| {
        left(with(bias), &[0.0, 1.0, 2.0], &[])
            .iter()
            .map(|c| c.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(vec![(0, 5.0)]), [0, 2, 1]);
    assert_eq!(ids(vec![(2, f32::NEG_INFINITY)]), [1, 0]);
    // Several of one token add up.
    assert_eq!(ids(vec![(0, 0.8), (2, -1.5), (0, 0.8)]), [0, 1, 2]);
    assert_eq!(ids(vec![(0, f32::MAX), (0, f32::MAX), (1, f32::MIN)]), [0, 2, 1]);
    let all = with(vec![
        (0, f32::NEG_INFINITY),
        (1, f32::NEG_INFINITY),
        (2, f32::NEG_INFINITY),
    ]);
    let error = Sampler::new(all, 3).unwrap().sample(&[0.0; 3]).unwrap_err();
    assert!(error.to_string().contains("forbids every token"), "{error}");
    let error = Sampler::new(with(vec![(3, 1.0)]), 3).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("token 3 is outside the vocabulary of 3"),
        "{error}"
    );
    // It acts before Mirostat as well.
    let params = SamplerParams {
        mirostat: 2,
        temp: 0.0,
        ..with(vec![(0, 5.0)])
    };
    assert_eq!(
        Sampler::new(params, 3).unwrap().sample(&[0.0, 1.0, 2.0]).unwrap(),
        0
    );
}

#[test]
fn order_of_the_chain_matters() {
    // At temperature 2 after top_p the cut sees the sharp distribution; before it, the flat one.
    let params = |samplers| SamplerParams {
        temp: 4.0,
        top_p: 0.5,
        ..plain(samplers)
    };
    let logits = logits_of(&[0.7, 0.1, 0.1, 0.1]);
    assert_eq!(
        left(
            params(&[SamplerKind::TopP, SamplerKind::Temperature]),
            &logits,
            &[]
        )
        .len(),
        1
    );
    assert_eq!(
        left(
            params(&[SamplerKind::Temperature, SamplerKind::TopP]),
            &logits,
            &[]
        )
        .len(),
        2
    );
}

#[test]
fn greedy_does_not_depend_on_the_seed() {
    let logits: Vec<f32> = (0..100u32).map(|i| (i * 37 % 101) as f32 * 0.1).collect();
    for seed in 0..50 {
        let params = SamplerParams {
            seed,
            ..SamplerParams::greedy()
        };
        let mut sampler = Sampler::new(params, 100).unwrap();
        // 37 i = 100 mod 101 at i = 30: 37 * 30 = 1110 = 10 * 101 + 100.
        assert_eq!(sampler.sample(&logits).unwrap(), 30);
    }
}

#[test]
fn frequencies_follow_the_distribution() {
    // Chi-square over 4 bins, 3 degrees of freedom: over 16.27 once in a thousand seeds. The seed is fixed.
    let n = 20_000;
    let mut sampler = Sampler::new(plain(&[]), 4).unwrap();
    let logits = logits_of(&P);
    let mut counts = [0u32; 4];
    for _ in 0..n {
        counts[sampler.sample(&logits).unwrap() as usize] += 1;
    }
    let mut chi2 = 0.0;
    for (count, p) in counts.iter().zip(P) {
        let expected = f64::from(p) * f64::from(n);
        chi2 += (f64::from(*count) - expected) * (f64::from(*count) - expected) / expected;
    }
    println!("chi-square of {counts:?}: {chi2:.2}");
    assert!(chi2 < 16.27);
    assert!(counts[0] > 0);
}

#[test]
fn edges() {
    for params in [
        SamplerParams::default(),
        SamplerParams::greedy(),
        SamplerParams {
            mirostat: 2,
            ..plain(&[])
        },
    ] {
        // One token; equal logits; huge differences.
        assert_eq!(left(params.clone(), &[-3.0], &[0]), [(0, 1.0)]);
        let equal = left(params.clone(), &[1.5; 50], &[]);
        assert_eq!(equal[0].0, 0);
        assert_eq!(left(params.clone(), &[f32::MIN, f32::MAX], &[]), [(1, 1.0)]);
        let mut sampler = Sampler::new(params, 2).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                sampler.sample(&[0.0, bad]),
                Err(Error::NonFiniteLogit { token: 1 })
            );
        }
        assert!(
            sampler
                .sample(&[0.0; 3])
                .unwrap_err()
                .to_string()
                .contains("expected 2 logits, found 3")
        );
        assert!(sampler.accept(2).is_err());
        assert!(sampler.sample(&[0.0; 2]).is_ok());
    }
    assert!(Sampler::new(SamplerParams::default(), 0).is_err());
    assert!(matches!(
        Sampler::new(SamplerParams::default(), usize::MAX),
        Err(Error::Limit { .. })
    ));
}

#[test]
fn parameters_out_of_range_are_named() {
    type Set = fn(&mut SamplerParams, f32);
    let floats: [(&str, Set); 15] = [
        ("temp", |p, x| p.temp = x),
        ("top_p", |p, x| p.top_p = x),
        ("min_p", |p, x| p.min_p = x),
        ("typ_p", |p, x| p.typ_p = x),
        ("xtc_probability", |p, x| p.xtc_probability = x),
        ("xtc_threshold", |p, x| p.xtc_threshold = x),
        ("dynatemp_range", |p, x| p.dynatemp_range = x),
        ("dynatemp_exponent", |p, x| p.dynatemp_exponent = x),
        ("penalty_repeat", |p, x| p.penalty_repeat = x),
        ("dry_multiplier", |p, x| p.dry_multiplier = x),
        ("dry_base", |p, x| p.dry_base = x),
        ("mirostat_tau", |p, x| p.mirostat_tau = x),
        ("mirostat_eta", |p, x| p.mirostat_eta = x),
        ("penalty_freq", |p, x| p.penalty_freq = x),
        ("penalty_present", |p, x| p.penalty_present = x),
    ];
    for (name, set) in floats {
        let mut bad = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        if !matches!(name, "penalty_freq" | "penalty_present") {
            bad.push(-0.5);
        }
        for value in bad {
            let mut params = SamplerParams::default();
            set(&mut params, value);
            let error = params.validate().unwrap_err().to_string();
            assert!(error.starts_with(name), "{name} = {value}: {error}");
        }
    }
    let check = |params: SamplerParams, name: &str| {
        let error = params.validate().unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    };
    let d = SamplerParams::default;
    check(SamplerParams { top_p: 1.5, ..d() }, "top_p");
    check(
        SamplerParams {
            top_n_sigma: f32::NAN,
            ..d()
        },
        "top_n_sigma",
    );
    check(
        SamplerParams {
            penalty_last_n: -2,
            ..d()
        },
        "penalty_last_n",
    );
    check(
        SamplerParams {
            penalty_last_n: i32::MAX,
            ..d()
        },
        "penalty_last_n",
    );
    check(
        SamplerParams {
            dry_penalty_last_n: -2,
            ..d()
        },
        "dry_penalty_last_n",
    );
    check(
        SamplerParams {
            dry_allowed_length: -1,
            ..d()
        },
        "dry_allowed_length",
    );
    check(SamplerParams { mirostat: 1, ..d() }, "mirostat");
    check(SamplerParams { n_ctx: 0, ..d() }, "n_ctx");
    check(
        SamplerParams {
            n_ctx: usize::MAX,
            ..d()
        },
        "n_ctx",
    );
    check(
        SamplerParams {
            logit_bias: vec![(1, f32::NAN)],
            ..d()
        },
        "logit_bias of token 1",
    );
    check(
        SamplerParams {
            logit_bias: vec![(1, f32::INFINITY)],
            ..d()
        },
        "logit_bias of token 1",
    );
    assert_eq!(d().validate(), Ok(()));
}

/// Logits that any platform makes the same: no floats but exact quarters.
fn synthetic(step: u32, n_vocab: u32) -> Vec<f32> {
    (0..n_vocab)
        .map(|id| {
            let mut x = id.wrapping_mul(0x9E37_79B9) ^ step.wrapping_mul(0x85EB_CA6B);
            x ^= x >> 15;
            x = x.wrapping_mul(0x2C1B_3C6D);
            x ^= x >> 12;
            (x % 64) as f32 * 0.25 - 8.0
        })
        .collect()
}

fn everything_on(seed: u32) -> SamplerParams {
    SamplerParams {
        seed,
        top_k: 60,
        typ_p: 0.97,
        top_n_sigma: 3.0,
        xtc_probability: 0.5,
        dynatemp_range: 0.3,
        penalty_repeat: 1.1,
        penalty_freq: 0.1,
        penalty_present: 0.1,
        dry_multiplier: 0.8,
        dry_sequence_breakers: vec![vec![7], vec![9, 10]],
        logit_bias: vec![(3, 1.0), (5, f32::NEG_INFINITY)],
        n_ctx: 256,
        ..SamplerParams::default()
    }
}

fn generate(params: SamplerParams, n: u32) -> Result<Vec<u32>> {
    let mut sampler = Sampler::new(params, 300)?;
    generate_with(&mut sampler, n)
}

fn generate_with(sampler: &mut Sampler, n: u32) -> Result<Vec<u32>> {
    (0..n)
        .map(|step| {
            let token = sampler.sample(&synthetic(step, 300))?;
            sampler.accept(token)?;
            Ok(token)
        })
        .collect()
}

#[test]
fn golden_sequences() {
    let default = SamplerParams {
        seed: 42,
        ..SamplerParams::default()
    };
    assert_eq!(generate(default.clone(), 16).unwrap(), GOLDEN_DEFAULT);
    assert_eq!(generate(everything_on(42), 16).unwrap(), GOLDEN_EVERYTHING);
    let mirostat = SamplerParams {
        mirostat: 2,
        ..default.clone()
    };
    assert_eq!(generate(mirostat, 16).unwrap(), GOLDEN_MIROSTAT);
    assert_ne!(
        generate(
            SamplerParams {
                seed: 43,
                ..default.clone()
            },
            16
        )
        .unwrap(),
        GOLDEN_DEFAULT
    );

    let mut sampler = Sampler::new(everything_on(42), 300).unwrap();
    let first = generate_with(&mut sampler, 100).unwrap();
    sampler.reset();
    assert_eq!(generate_with(&mut sampler, 100).unwrap(), first);
    assert_eq!(first[..16], GOLDEN_EVERYTHING);
}

const GOLDEN_DEFAULT: [u32; 16] = [
    52, 255, 177, 237, 169, 82, 258, 11, 50, 65, 95, 135, 15, 163, 233, 230,
];
const GOLDEN_EVERYTHING: [u32; 16] = [
    149, 255, 125, 47, 14, 143, 258, 141, 274, 281, 58, 104, 40, 11, 83, 226,
];
const GOLDEN_MIROSTAT: [u32; 16] = [
    52, 288, 177, 259, 246, 108, 108, 63, 82, 281, 95, 135, 15, 190, 257, 233,
];

#[test]
fn sampling_allocates_nothing() {
    let cases = [
        SamplerParams::default(),
        SamplerParams::greedy(),
        everything_on(1),
        SamplerParams {
            top_k: 0,
            top_p: 0.999,
            typ_p: 0.9,
            ..everything_on(2)
        },
        SamplerParams {
            mirostat: 2,
            ..SamplerParams::default()
        },
    ];
    let logits: Vec<Vec<f32>> = (0..8).map(|step| synthetic(step, 32_000)).collect();
    for params in cases {
        let mut sampler = Sampler::new(params, 32_000).unwrap();
        let before = ALLOCATIONS.with(Cell::get);
        for logits in logits.iter().cycle().take(64) {
            let token = sampler.sample(logits).unwrap();
            sampler.accept(token).unwrap();
        }
        let count = ALLOCATIONS.with(Cell::get) - before;
        assert_eq!(count, 0, "{:?}", sampler.params());
    }
}

#[test]
fn logits_are_not_changed_and_large_vocabularies_are_quick() {
    let logits = synthetic(1, 128_256);
    let before = logits.clone();
    let mut sampler = Sampler::new(everything_on(3), 128_256).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..20 {
        sampler.sample(&logits).unwrap();
    }
    println!(
        "vocabulary of 128256: {:.2} ms a token",
        start.elapsed().as_secs_f64() * 50.0
    );
    assert_eq!(logits, before);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/sampling.proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn dry_is_its_definition(history in proptest::collection::vec(0u32..4, 1..60), last_n in 1usize..70,
                             allowed in 1usize..4) {
        let params = SamplerParams {
            dry_multiplier: 1.0,
            dry_base: 1.5,
            dry_allowed_length: allowed as i32,
            dry_penalty_last_n: last_n as i32,
            ..plain(&[SamplerKind::Dry])
        };
        prop_assert_eq!(dry_logits(params, 4, &history), dry_by_definition(&history, last_n, allowed, 4));
    }

    #[test]
    fn any_parameters_give_a_token_or_an_error(
        logits in proptest::collection::vec(prop_oneof![
            8 => -20.0f32..20.0,
            1 => any::<f32>().prop_filter("finite", |x| x.is_finite()),
        ], 1..80),
        history in proptest::collection::vec(0u32..100, 0..40),
        unit in proptest::array::uniform6(prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..1.0]),
        scale in proptest::array::uniform8(prop_oneof![
            Just(0.0f32), Just(1.0), Just(f32::MAX), Just(1e-45), 0.0f32..10.0,
        ]),
        signed in proptest::array::uniform3(any::<f32>()),
        ints in proptest::array::uniform4(-2i32..50),
        miro in any::<bool>(),
        chain in proptest::collection::vec(0usize..9, 0..12),
        bias in proptest::collection::vec((0u32..100, any::<f32>()), 0..4),
    ) {
        let params = SamplerParams {
            seed: ints[0] as u32,
            min_keep: ints[0].unsigned_abs() as usize,
            top_k: ints[1],
            top_p: unit[0], min_p: unit[1], typ_p: unit[2], xtc_probability: unit[3], xtc_threshold: unit[4],
            temp: scale[0], dynatemp_range: scale[1], dynatemp_exponent: scale[2],
            penalty_last_n: ints[2], penalty_repeat: scale[3], penalty_freq: signed[0], penalty_present: signed[1],
            dry_multiplier: scale[4], dry_base: scale[5], dry_allowed_length: ints[3], dry_penalty_last_n: ints[2],
            dry_sequence_breakers: vec![vec![1], vec![2, 3], vec![]],
            mirostat: if miro { 2 } else { 0 },
            top_n_sigma: signed[2], mirostat_tau: scale[6], mirostat_eta: scale[7],
            logit_bias: bias,
            samplers: chain.into_iter().map(|i| DEFAULT_CHAIN[i]).collect(),
            n_ctx: 16,
        };
        if let Ok(mut sampler) = Sampler::new(params, logits.len()) {
            for token in history {
                let _ = sampler.accept(token);
            }
            for _ in 0..3 {
                if let Ok(token) = sampler.sample(&logits) {
                    prop_assert!((token as usize) < logits.len());
                    prop_assert!(sampler.candidates().iter().all(|c| c.logit.is_finite() && c.p.is_finite()));
                    sampler.accept(token).unwrap();
                }
            }
        }
    }
}
