//! Any parameters and logits: a token that was offered, or an error; the same tokens from the same seed.
//!
//! Input: 20 words of parameters, one byte for the number of logits, the rest logits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinfer_engine::sample::{Sampler, SamplerKind, SamplerParams, Scratch};
use twinfer_fuzz as _;

fn draw(params: &SamplerParams, rows: &[&[f32]], n_vocab: usize) -> Option<Vec<u32>> {
    let mut sampler = Sampler::new(params.clone(), n_vocab).ok()?;
    let mut scratch = Scratch::default();
    let mut tokens = Vec::new();
    for logits in rows {
        match sampler.sample(logits, &mut scratch) {
            Ok(token) => {
                let bias = params.logit_bias.iter().find(|(id, _)| *id == token);
                assert!((token as usize) < n_vocab);
                assert!(bias.is_none_or(|(_, bias)| *bias != f32::NEG_INFINITY));
                assert!(logits.iter().all(|l| l.is_finite()));
                sampler.accept(token).expect("a token of the vocabulary");
                tokens.push(token);
            }
            // A row that is not finite, or biases that forbid everything.
            Err(_) => tokens.push(u32::MAX),
        }
    }
    Some(tokens)
}

fuzz_target!(|data: &[u8]| {
    let words: Vec<u32> = data
        .as_chunks()
        .0
        .iter()
        .map(|&b| u32::from_le_bytes(b))
        .collect();
    let Some((head, rest)) = words.split_at_checked(22) else {
        return;
    };
    let f = |i: usize| f32::from_bits(head[i]);
    let n_vocab = head[20] as usize % 64 + 1;
    let kinds = [
        SamplerKind::Penalties,
        SamplerKind::Dry,
        SamplerKind::TopNSigma,
        SamplerKind::TopK,
        SamplerKind::TypP,
        SamplerKind::TopP,
        SamplerKind::MinP,
        SamplerKind::Xtc,
        SamplerKind::Temperature,
    ];
    let params = SamplerParams {
        seed: head[0],
        min_keep: head[1] as usize % 8,
        top_k: head[2] as i32,
        top_p: f(3),
        min_p: f(4),
        xtc_probability: f(5),
        xtc_threshold: f(6),
        typ_p: f(7),
        temp: f(8),
        dynatemp_range: f(9),
        dynatemp_exponent: f(10),
        penalty_last_n: head[11] as i8 as i32,
        penalty_repeat: f(12),
        penalty_freq: f(13),
        penalty_present: f(14),
        dry_multiplier: f(15),
        dry_base: f(16),
        dry_allowed_length: head[17] as i8 as i32,
        dry_penalty_last_n: (head[17] >> 8) as i8 as i32,
        dry_sequence_breakers: vec![vec![head[17] >> 16 & 63], vec![1, 2]],
        mirostat: (head[21] & 2) as i32,
        top_n_sigma: f(18),
        mirostat_tau: f(19),
        mirostat_eta: 0.1,
        logit_bias: vec![
            (head[21] >> 8 & 63, f(19)),
            (head[21] >> 16 & 63, f32::NEG_INFINITY),
        ],
        samplers: (0..kinds.len())
            .filter(|i| head[21] >> (i + 23) & 1 == 0)
            .map(|i| kinds[(i + head[1] as usize / 8) % kinds.len()])
            .collect(),
        n_ctx: 64,
    };
    let logits: Vec<f32> = rest.iter().map(|&bits| f32::from_bits(bits)).collect();
    let rows: Vec<&[f32]> = logits.chunks_exact(n_vocab).take(32).collect();
    assert_eq!(draw(&params, &rows, n_vocab), draw(&params, &rows, n_vocab));
});
