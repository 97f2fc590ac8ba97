//! The sampler on logits that need no model: every parameter, ties, and vocabularies of any size.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use twinfer_engine::sample::{Sampler, SamplerParams, Scratch, parse_samplers};
use twinfer_engine::{Error, Result};

/// A sampler's parameters by name; those that are not named stand at their defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Setting {
    /// Seed of the random numbers.
    pub seed: u32,
    /// The samplers that run, as `top_k;top_p;temperature`; nothing is the default chain.
    pub samplers: Option<String>,
    /// Numbers by llama.cpp's names.
    pub numbers: BTreeMap<String, f64>,
    /// Token sequences that end a repetition, for DRY.
    pub dry_sequence_breakers: Vec<Vec<u32>>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Setting {
    /// The engine's parameters. An unknown name is an error.
    pub fn params(&self) -> Result<SamplerParams> {
        let mut params = SamplerParams {
            seed: self.seed,
            dry_sequence_breakers: self.dry_sequence_breakers.clone(),
            logit_bias: self.logit_bias.clone(),
            ..SamplerParams::default()
        };
        if let Some(samplers) = &self.samplers {
            params.samplers = parse_samplers(samplers)?;
        }
        for (name, &value) in &self.numbers {
            let (float, int) = (value as f32, value as i32);
            match name.as_str() {
                "min_keep" => params.min_keep = value as usize,
                "top_k" => params.top_k = int,
                "top_p" => params.top_p = float,
                "min_p" => params.min_p = float,
                "xtc_probability" => params.xtc_probability = float,
                "xtc_threshold" => params.xtc_threshold = float,
                "typ_p" => params.typ_p = float,
                "temp" => params.temp = float,
                "dynatemp_range" => params.dynatemp_range = float,
                "dynatemp_exponent" => params.dynatemp_exponent = float,
                "penalty_last_n" => params.penalty_last_n = int,
                "penalty_repeat" => params.penalty_repeat = float,
                "penalty_freq" => params.penalty_freq = float,
                "penalty_present" => params.penalty_present = float,
                "dry_multiplier" => params.dry_multiplier = float,
                "dry_base" => params.dry_base = float,
                "dry_allowed_length" => params.dry_allowed_length = int,
                "dry_penalty_last_n" => params.dry_penalty_last_n = int,
                "mirostat" => params.mirostat = int,
                "top_n_sigma" => params.top_n_sigma = float,
                "mirostat_tau" => params.mirostat_tau = float,
                "mirostat_eta" => params.mirostat_eta = float,
                _ => {
                    return Err(Error::InvalidInput {
                        what: format!("there is no sampler parameter `{name}`"),
                    });
                }
            }
        }
        Ok(params)
    }
}

/// The ids of `n` tokens.
pub fn draw(setting: &Setting, n_vocab: usize, n: usize) -> Result<Value> {
    let mut sampler = Sampler::new(setting.params()?, n_vocab)?;
    let mut scratch = Scratch::fitting(&sampler);
    let mut logits = vec![0.0; n_vocab];
    let mut ids = Vec::with_capacity(n);
    for draw in 0..n as u32 {
        for (id, logit) in (0_u32..).zip(&mut logits) {
            // Multiplicative hashing; the logits repeat after five draws, so that penalties and DRY have something to
            // act on.
            let hash = (id ^ (draw % 5) << 20).wrapping_mul(0x9e37_79b1) >> 16;
            // 1/16 apart, so that ties occur; most of the mass lies in few tokens.
            *logit = (hash % 256) as f32 / 16.0 - 4.0;
        }
        let id = sampler.sample(&logits, &mut scratch)?;
        sampler.accept(id)?;
        ids.push(id);
    }
    Ok(json!({ "ids": ids }))
}
