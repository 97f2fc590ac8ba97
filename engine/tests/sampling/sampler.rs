//! The sampler as a whole: defaults, frequencies, seeds and sequences, parameters out of range, no allocation, no
//! panic.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use twinfer_engine::sample::{
    DEFAULT_CHAIN, Sampler, SamplerKind, SamplerParams, Scratch, parse_samplers, parse_sampling_seq,
};
use twinfer_engine::{Error, Result};

use super::allocations::allocations;
use super::{P, left, logits_of, plain};

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
fn greedy_does_not_depend_on_the_seed() {
    let logits: Vec<f32> = (0..100u32).map(|i| (i * 37 % 101) as f32 * 0.1).collect();
    for seed in 0..50 {
        let params = SamplerParams {
            seed,
            ..SamplerParams::greedy()
        };
        let mut scratch = Scratch::default();
        let mut sampler = Sampler::new(params, 100).unwrap();
        // 37 i = 100 mod 101 at i = 30: 37 * 30 = 1110 = 10 * 101 + 100.
        assert_eq!(sampler.sample(&logits, &mut scratch).unwrap(), 30);
    }
}

#[test]
fn frequencies_follow_the_distribution() {
    // Chi-square over 4 bins, 3 degrees of freedom: over 16.27 once in a thousand seeds. The seed is fixed.
    let n = 20_000;
    let mut scratch = Scratch::default();
    let mut sampler = Sampler::new(plain(&[]), 4).unwrap();
    let logits = logits_of(&P);
    let mut counts = [0u32; 4];
    for _ in 0..n {
        counts[sampler.sample(&logits, &mut scratch).unwrap() as usize] += 1;
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
        let mut scratch = Scratch::default();
        let mut sampler = Sampler::new(params, 2).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                sampler.sample(&[0.0, bad], &mut scratch),
                Err(Error::NonFiniteLogit { token: 1 })
            );
        }
        assert!(
            sampler
                .sample(&[0.0; 3], &mut scratch)
                .unwrap_err()
                .to_string()
                .contains("expected 2 logits, found 3")
        );
        assert!(sampler.accept(2).is_err());
        assert!(sampler.sample(&[0.0; 2], &mut scratch).is_ok());
    }
    assert!(Sampler::new(SamplerParams::default(), 0).is_err());
    assert!(matches!(
        Sampler::new(SamplerParams::default(), usize::MAX),
        Err(Error::ModelLimit { .. })
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
            match params.validate() {
                Err(Error::Parameter { name: found, .. }) => assert_eq!(found, name, "{value}"),
                other => panic!("{name} = {value}: {other:?}"),
            }
        }
    }
    let check = |params: SamplerParams, name: &str| {
        let error = params.validate().unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        assert!(
            matches!(error, Error::Parameter { name: found, .. } if found == name),
            "{error}"
        );
        error.to_string()
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
        "logit_bias",
    );
    let error = check(
        SamplerParams {
            logit_bias: vec![(1, f32::INFINITY)],
            ..d()
        },
        "logit_bias",
    );
    assert!(error.ends_with("it is inf for token 1"), "{error}");
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
    let mut scratch = Scratch::default();
    (0..n)
        .map(|step| {
            let token = sampler.sample(&synthetic(step, 300), &mut scratch)?;
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
        let mut scratch = Scratch::fitting(&sampler);
        let before = allocations();
        for logits in logits.iter().cycle().take(64) {
            let token = sampler.sample(logits, &mut scratch).unwrap();
            sampler.accept(token).unwrap();
        }
        let count = allocations() - before;
        assert_eq!(count, 0, "{:?}", sampler.params());
    }
}

#[test]
fn logits_are_not_changed_and_large_vocabularies_are_quick() {
    let logits = synthetic(1, 128_256);
    let before = logits.clone();
    let mut sampler = Sampler::new(everything_on(3), 128_256).unwrap();
    let mut scratch = Scratch::fitting(&sampler);
    let start = std::time::Instant::now();
    for _ in 0..20 {
        sampler.sample(&logits, &mut scratch).unwrap();
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
            let mut scratch = Scratch::default();
            for _ in 0..3 {
                if let Ok(token) = sampler.sample(&logits, &mut scratch) {
                    prop_assert!((token as usize) < logits.len());
                    prop_assert!(scratch.candidates().iter().all(|c| c.logit.is_finite() && c.p.is_finite()));
                    sampler.accept(token).unwrap();
                }
            }
        }
    }
}
