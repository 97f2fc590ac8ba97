//! Each sampler of the chain against its definition: values worked out by hand, ties, extremes.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use twinfer_engine::sample::{Sampler, SamplerKind, SamplerParams, Scratch, dry_breakers};

use super::{P, assert_left, left, logits_of, plain};

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
    let mut scratch = Scratch::default();
    let logits = logits_of(&P);
    let acted = (0..4000).filter(|_| {
        sampler.sample(&logits, &mut scratch).unwrap();
        scratch.candidates().len() == 2
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
        let mut scratch = Scratch::default();
        sampler.sample(&[2.0, -2.0, 1.0], &mut scratch).unwrap();
        let mut list: Vec<_> = scratch.candidates().iter().map(|c| (c.id, c.logit)).collect();
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
    let mut scratch = Scratch::default();
    sampler.sample(&vec![0.0; n_vocab], &mut scratch).unwrap();
    let mut logits = vec![0.0; n_vocab];
    for c in scratch.candidates() {
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
    let mut scratch = Scratch::default();
    // mu starts at 2 tau = 1 bit: of (0.6, 0.2, 0.1, 0.1) only the first (0.74 bits) stays.
    let logits = logits_of(&[0.6, 0.2, 0.1, 0.1]);
    assert_eq!(sampler.sample(&logits, &mut scratch).unwrap(), 0);
    assert_eq!(scratch.candidates().len(), 1);
    // Its surprise was 0 bits, so mu = 1 - (0 - 0.5) = 1.5, then 2, then 2.5: over the 2.32 bits of 0.2.
    sampler.sample(&logits, &mut scratch).unwrap();
    sampler.sample(&logits, &mut scratch).unwrap();
    sampler.sample(&logits, &mut scratch).unwrap();
    let kept: Vec<_> = scratch.candidates().iter().map(|c| c.id).collect();
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
        let token = sampler.sample(&wide, &mut scratch).unwrap();
        let p = scratch.candidates().iter().find(|c| c.id == token).unwrap().p;
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
    let mut scratch = Scratch::default();
    let all = with(vec![
        (0, f32::NEG_INFINITY),
        (1, f32::NEG_INFINITY),
        (2, f32::NEG_INFINITY),
    ]);
    let error = Sampler::new(all, 3)
        .unwrap()
        .sample(&[0.0; 3], &mut scratch)
        .unwrap_err();
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
        Sampler::new(params, 3)
            .unwrap()
            .sample(&[0.0, 1.0, 2.0], &mut scratch)
            .unwrap(),
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
}
