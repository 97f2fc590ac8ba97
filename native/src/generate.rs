//! The loop that turns a prompt into text: what `run` and `chat` share.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use twinfer_engine::cache::SeqId;
use twinfer_engine::context::Context;
use twinfer_engine::sample::{Sampler, Scratch};
use twinfer_engine::tokenizer::{StopFilter, TokenKind, Tokenizer};

use crate::interrupt;
use crate::progress::Progress;
use crate::settings::Verbosity;

/// Why the text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The model said so.
    ModelEnded,
    /// A stop string appeared.
    Stop,
    /// A token appeared that is a whole stop string.
    StopToken,
    /// As many tokens as were asked for.
    Limit,
    /// No room is left.
    ContextFull,
    /// Ctrl-C.
    Interrupted,
}

/// One generation's measures.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// Tokens of the prompt that had to be computed.
    pub(crate) n_prompt: usize,
    pub(crate) prompt_time: Duration,
    pub(crate) n_generated: usize,
    /// Steps of one token each: the prompt gives the first token already.
    pub(crate) n_steps: usize,
    pub(crate) generation_time: Duration,
}

impl Outcome {
    /// The one-line summary that ends a run.
    pub(crate) fn summary(&self) -> String {
        let speed = |n: usize, time: Duration| n as f64 / time.as_secs_f64().clamp(1e-9, f64::MAX);
        let end = match self.end {
            End::ModelEnded => "",
            End::Stop | End::StopToken => "; stopped at a stop string",
            End::Limit => "; stopped at --predict",
            End::ContextFull => "; stopped because the context is full (see --ctx-size)",
            End::Interrupted => "; interrupted",
        };
        let mut summary = format!(
            "prompt: {} tokens, {:.1} tokens/s; generated: {} tokens",
            self.n_prompt,
            speed(self.n_prompt, self.prompt_time),
            self.n_generated,
        );
        if self.n_steps > 0 {
            let speed = speed(self.n_steps, self.generation_time);
            summary.push_str(&format!(", {speed:.1} tokens/s"));
        }
        summary + end
    }
}

/// What a generation may do.
#[derive(Debug)]
pub(crate) struct Limits<'a> {
    /// Tokens at most; `None` for as many as fit.
    pub(crate) predict: Option<usize>,
    pub(crate) stop: &'a [String],
    /// Print special tokens.
    pub(crate) special: bool,
    /// The text starts with the first token rather than going on after a prompt.
    pub(crate) at_start: bool,
}

/// A sequence and the tokens that its cache holds.
#[derive(Debug)]
pub(crate) struct Session {
    context: Context,
    sequence: SeqId,
    tokens: Vec<u32>,
    scratch: Scratch,
    verbosity: Verbosity,
}

impl Session {
    pub(crate) fn new(mut context: Context, verbosity: Verbosity) -> Result<Self> {
        let sequence = context.open()?;
        Ok(Self {
            context,
            sequence,
            tokens: Vec::new(),
            scratch: Scratch::default(),
            verbosity,
        })
    }

    /// Positions that the context has.
    pub(crate) fn capacity(&self) -> usize {
        self.context.options().n_ctx
    }

    /// Tokens in the cache.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Makes the cache agree with the longest common beginning, less one token: the last one is always computed, for
    /// its logits. Returns how many tokens stay.
    fn reuse(&mut self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let kept = common.min(prompt.len().saturating_sub(1));
        if self.context.truncate(self.sequence, kept).is_ok() {
            self.tokens.truncate(kept);
            return kept;
        }
        // A sliding window has moved past it. The old pages go back before the new sequence takes any.
        self.tokens.clear();
        let _ = self.context.truncate(self.sequence, 0);
        0
    }

    /// Evaluates the prompt (what of it is not cached) and generates. `on_text` gets each piece of text that is
    /// complete.
    pub(crate) fn generate(
        &mut self,
        tokenizer: &Tokenizer,
        sampler: &mut Sampler,
        prompt: &[u32],
        limits: &Limits<'_>,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Outcome> {
        let _guard = interrupt::Guard::new();
        let kept = self.reuse(prompt);
        let new = &prompt[kept..];
        for &token in prompt {
            sampler.accept(token)?;
        }
        let mut outcome = Outcome {
            end: End::Limit,
            n_prompt: new.len(),
            prompt_time: Duration::ZERO,
            n_generated: 0,
            n_steps: 0,
            generation_time: Duration::ZERO,
        };

        let start = Instant::now();
        let mut progress = Progress::new("reading the prompt", new.len() as u64, self.verbosity);
        let first = {
            let mut report = |done: usize, total: usize| {
                progress.set(done as u64, total as u64);
                if interrupt::requested() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let logits = self.context.prefill_with(self.sequence, new, &mut report)?;
            logits
                .map(|logits| sampler.sample(logits, &mut self.scratch))
                .transpose()?
        };
        drop(progress);
        outcome.prompt_time = start.elapsed();
        self.tokens
            .extend_from_slice(&new[..self.context.seq_len(self.sequence)? - kept]);
        let Some(mut token) = first else {
            outcome.end = End::Interrupted;
            return Ok(outcome);
        };

        let start = Instant::now();
        let mut decoder = tokenizer.stream_decoder(limits.special);
        if limits.at_start {
            decoder = decoder.at_start();
        }
        let mut stop = StopFilter::new(limits.stop);
        let stop_tokens = stop_tokens(tokenizer, limits.stop);
        outcome.end = loop {
            if limits.predict == Some(0) {
                break End::Limit;
            }
            if tokenizer.is_end(token) {
                break End::ModelEnded;
            }
            outcome.n_generated += 1;
            sampler.accept(token)?;
            if stop_tokens.contains(&token) {
                break End::StopToken;
            }
            let (text, stopped) = stop.push(decoder.push(token));
            if !text.is_empty() {
                on_text(&text)?;
            }
            if stopped {
                break End::Stop;
            }
            if interrupt::requested() {
                break End::Interrupted;
            }
            // What would follow the last token is not computed.
            if limits.predict.is_some_and(|n| outcome.n_generated >= n) {
                break End::Limit;
            }
            if self.tokens.len() >= self.capacity() {
                break End::ContextFull;
            }
            let logits = self.context.decode(self.sequence, token)?;
            self.tokens.push(token);
            outcome.n_steps += 1;
            token = sampler.sample(logits, &mut self.scratch)?;
        };
        if outcome.end != End::Stop {
            let (mut text, stopped) = stop.push(decoder.flush());
            if !stopped {
                text.push_str(&stop.finish());
            }
            if !text.is_empty() {
                on_text(&text)?;
            }
        }
        outcome.generation_time = start.elapsed();
        Ok(outcome)
    }
}

/// The tokens that end the text: stop strings that are one special token each, such as `<|stop|>`. What they print is
/// nothing unless special tokens are printed, so that no text would show them.
fn stop_tokens(tokenizer: &Tokenizer, stop: &[String]) -> Vec<u32> {
    let token = |text: &String| {
        let id = tokenizer.find_token(text.as_bytes())?;
        (tokenizer.token_kind(id) == TokenKind::Control).then_some(id)
    };
    stop.iter().filter_map(token).collect()
}

/// A seed that differs each time.
pub(crate) fn random_seed() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library seeds each hasher from the system's entropy.
    let random = std::hash::RandomState::new().build_hasher().finish();
    (random >> 32) as u32
}
