//! Sampling: logits in, the next token out.
//!
//! [`SamplerParams`] has llama.cpp's names and defaults; [`Sampler`] runs llama.cpp's chain (logit bias, then the
//! samplers in order, then a draw), or Mirostat 2.0 in its place. Equal logits, parameters, seed and accepted
//! tokens give equal tokens on every platform: order is by logit descending, then id ascending; sums are sequential
//! f32 in that order; exp and log come from the pinned `libm`; random numbers are ChaCha8 words.
//!
//! A [`Sampler`] is one sequence's state and small; what is as large as the vocabulary is [`Scratch`], one per thread
//! that samples. [`Sampler::sample`] allocates nothing once the scratch has seen a vocabulary and a history of this
//! size.

mod candidates;
mod chain;
mod dry;
mod history;
mod params;
mod recommended;
mod rng;
mod scratch;

pub use candidates::Candidate;
pub use chain::{DEFAULT_CHAIN, SamplerKind, parse_samplers, parse_sampling_seq};
pub use dry::dry_breakers;
pub use params::{DEFAULT_DRY_BREAKERS, MAX_LAST_N, SamplerParams};
pub use recommended::Recommended;
pub use scratch::Scratch;

use crate::{Error, Result};
use candidates::Candidates;
use dry::Dry;
use history::Penalties;
use rng::Random;

/// The largest vocabulary that a sampler accepts: it bounds what [`Scratch`] allocates.
const MAX_VOCAB: usize = 1 << 24;

/// Chooses tokens. Holds the random state and the tokens accepted so far, so it belongs to one sequence.
///
/// ```
/// use twinfer_engine::sample::{Sampler, SamplerParams, Scratch};
///
/// let mut scratch = Scratch::default();
/// let mut sampler = Sampler::new(SamplerParams::greedy(), 3)?;
/// let token = sampler.sample(&[0.1, 2.0, -1.0], &mut scratch)?;
/// assert_eq!(token, 1);
/// sampler.accept(token)?;
/// # Ok::<(), twinfer_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplerParams,
    n_vocab: usize,
    /// By ascending id, each id once.
    bias: Vec<(u32, f32)>,
    penalties: Option<Penalties>,
    dry: Option<Dry>,
    random: Random,
    /// Mirostat's running bound on surprise, in bits.
    mu: f32,
}

impl Sampler {
    /// A sampler for a vocabulary of `n_vocab` tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] where a parameter is out of range, [`Error::InvalidInput`] where a biased token is outside
    /// the vocabulary, [`Error::ModelLimit`] for a vocabulary beyond 2^24.
    pub fn new(params: SamplerParams, n_vocab: usize) -> Result<Self> {
        params.validate()?;
        if n_vocab == 0 {
            return Err(Error::InvalidInput {
                what: "a sampler needs a vocabulary of at least one token".into(),
            });
        }
        if n_vocab > MAX_VOCAB {
            return Err(Error::ModelLimit {
                what: "the sampler's vocabulary".into(),
                found: n_vocab as u64,
                limit: MAX_VOCAB as u64,
            });
        }
        for &(token, _) in &params.logit_bias {
            in_vocabulary("logit_bias", token, n_vocab)?;
        }
        let mut bias = params.logit_bias.clone();
        // Stable, so that biases of one token add up in the order given.
        bias.sort_by_key(|b| b.0);
        bias.dedup_by(|next, first| {
            let same = next.0 == first.0;
            if same {
                first.1 += next.1;
            }
            same
        });
        let runs = |kind| params.mirostat == 0 && params.samplers.contains(&kind);
        let last_n = params.resolve_last_n(params.penalty_last_n);
        let penalties = (runs(SamplerKind::Penalties)
            && last_n > 0
            && (params.penalty_repeat != 1.0 || params.penalty_freq != 0.0 || params.penalty_present != 0.0))
            .then(|| {
                let (repeat, freq) = (params.penalty_repeat, params.penalty_freq);
                Penalties::new(last_n, repeat, freq, params.penalty_present)
            });
        let dry = (runs(SamplerKind::Dry)
            && params.dry_penalty_last_n != 0
            && params.dry_multiplier > 0.0
            && params.dry_base >= 1.0)
            .then(|| Dry::new(&params));
        Ok(Self {
            penalties,
            dry,
            random: Random::new(params.seed),
            mu: 2.0 * params.mirostat_tau,
            n_vocab,
            bias,
            params,
        })
    }

    /// Tokens of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// The parameters it was made with.
    pub fn params(&self) -> &SamplerParams {
        &self.params
    }

    /// Chooses a token from `logits`, one per token of the vocabulary. They are not changed. The token does not
    /// enter the history: [`Self::accept`] does that.
    ///
    /// # Errors
    /// [`Error::NonFiniteLogit`] where a logit is NaN or infinite; [`Error::InvalidInput`] where the count is not
    /// the vocabulary's or the biases forbid every token.
    pub fn sample(&mut self, logits: &[f32], scratch: &mut Scratch) -> Result<u32> {
        if logits.len() != self.n_vocab {
            return Err(Error::InvalidInput {
                what: format!("expected {} logits, found {}", self.n_vocab, logits.len()),
            });
        }
        if let Some(token) = logits.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFiniteLogit { token: token as u32 });
        }
        scratch.fit(self.n_vocab, self.dry_history());
        scratch.candidates.fill(logits);
        self.apply_bias(&mut scratch.candidates)?;
        if self.params.mirostat == 2 {
            return self.mirostat(&mut scratch.candidates);
        }
        for i in 0..self.params.samplers.len() {
            self.apply(self.params.samplers[i], scratch);
        }
        // One candidate needs no random number: greedy text does not depend on the seed.
        if scratch.candidates.len() > 1 {
            scratch.candidates.softmax();
        } else {
            scratch.candidates.keep_best();
        }
        self.draw(&scratch.candidates).map(|c| c.id)
    }

    /// Takes a token into the history that penalties and DRY look back on: the prompt's tokens, and each one that
    /// was sampled and kept.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] where the token is outside the vocabulary.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        in_vocabulary("accept", token, self.n_vocab)?;
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token);
        }
        if let Some(dry) = &mut self.dry {
            dry.accept(token);
        }
        Ok(())
    }

    /// Back to the state after [`Self::new`]: empty history, random numbers from the seed's beginning.
    pub fn reset(&mut self) {
        self.random = Random::new(self.params.seed);
        self.mu = 2.0 * self.params.mirostat_tau;
        self.clear_history();
    }

    /// Empties the history alone: the random numbers and Mirostat's state go on. For a conversation whose prompt is
    /// given anew at each turn.
    pub fn clear_history(&mut self) {
        if let Some(penalties) = &mut self.penalties {
            penalties.reset();
        }
        if let Some(dry) = &mut self.dry {
            dry.reset();
        }
    }

    pub(crate) fn dry_history(&self) -> usize {
        self.dry.as_ref().map_or(0, Dry::history)
    }

    fn apply_bias(&self, candidates: &mut Candidates) -> Result<()> {
        if self.bias.is_empty() {
            return Ok(());
        }
        candidates.bias(&self.bias);
        if candidates.len() == 0 {
            return Err(Error::InvalidInput {
                what: "logit_bias forbids every token of the vocabulary".into(),
            });
        }
        Ok(())
    }

    fn apply(&mut self, kind: SamplerKind, scratch: &mut Scratch) {
        let p = &self.params;
        let list = &mut scratch.candidates;
        match kind {
            SamplerKind::Penalties => {
                if let Some(penalties) = &self.penalties {
                    penalties.apply(list, &mut scratch.per_token);
                }
            }
            SamplerKind::Dry => {
                if let Some(dry) = &self.dry {
                    dry.apply(list, &mut scratch.per_token, &mut scratch.dry);
                }
            }
            SamplerKind::TopNSigma => list.top_n_sigma(p.top_n_sigma),
            SamplerKind::TopK => list.top_k(p.top_k),
            SamplerKind::TypP => list.typical(p.typ_p, p.min_keep),
            SamplerKind::TopP => list.top_p(p.top_p, p.min_keep),
            SamplerKind::MinP => list.min_p(p.min_p, p.min_keep),
            SamplerKind::Xtc => {
                if p.xtc_probability > 0.0 && p.xtc_threshold <= 0.5 && list.len() >= 2 {
                    let chance = self.random.unit();
                    list.xtc(chance, p.xtc_probability, p.xtc_threshold, p.min_keep);
                }
            }
            SamplerKind::Temperature => {
                if p.temp > 0.0 && p.dynatemp_range > 0.0 {
                    list.dynamic_temperature(p.temp, p.dynatemp_range, p.dynatemp_exponent);
                } else {
                    list.temperature(p.temp);
                }
            }
        }
    }

    /// "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity", Basu et al. 2020; version 2.
    fn mirostat(&mut self, list: &mut Candidates) -> Result<u32> {
        list.temperature(self.params.temp);
        list.softmax();
        list.drop_surprising(self.mu);
        list.softmax();
        let chosen = self.draw(list)?;
        let error = -libm::log2f(chosen.p) - self.params.mirostat_tau;
        self.mu = candidates::saturate(self.mu - self.params.mirostat_eta * error);
        Ok(chosen.id)
    }

    fn draw(&mut self, list: &Candidates) -> Result<Candidate> {
        let r = if list.len() > 1 { self.random.unit() } else { 0.0 };
        // The list is never empty and its best probability is above 0; should that ever fail, it is an error.
        list.pick(r).ok_or_else(|| Error::Internal {
            what: "no candidate is left to sample from".into(),
        })
    }
}

fn in_vocabulary(what: &str, token: u32, n_vocab: usize) -> Result<()> {
    if (token as usize) < n_vocab {
        return Ok(());
    }
    Err(Error::InvalidInput {
        what: format!("{what}: token {token} is outside the vocabulary of {n_vocab}"),
    })
}
