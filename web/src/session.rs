//! One conversation in steps: the prompt's batches, then a token at a time. Between two steps the worker hears the page.

use std::ops::ControlFlow;

use twinfer_engine::Result;
use twinfer_engine::cache::Sequence;
use twinfer_engine::context::Context;
use twinfer_engine::digest::Digest;
use twinfer_engine::model::probe::Probe;
use twinfer_engine::sample::{Sampler, Scratch};
use twinfer_engine::tokenizer::{StopFilter, StreamDecoder, Tokenizer};
use twinfer_engine::trace::{Capture, Place, Trace, describe};

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model said so.
    ModelEnded,
    /// A stop string appeared.
    Stop,
    /// As many tokens as were asked for.
    Limit,
    /// No room is left.
    ContextFull,
}

impl End {
    /// The word that JavaScript gets.
    pub fn name(self) -> &'static str {
        match self {
            End::ModelEnded => "end",
            End::Stop => "stop",
            End::Limit => "limit",
            End::ContextFull => "context-full",
        }
    }
}

/// What a step gave.
#[derive(Debug)]
pub enum Step {
    /// A token and the text that it completes.
    Token(u32, String),
    /// The end, with text that was held back.
    End(End, String),
}

/// A generation under way.
struct Run {
    /// Tokens of the prompt that are still to be evaluated.
    rest: Vec<u32>,
    sampler: Sampler,
    decoder: StreamDecoder,
    stop: StopFilter,
    max_tokens: Option<usize>,
    generated: usize,
    /// Chosen, not given out yet: the first token.
    next: Option<u32>,
    /// Given out, not evaluated yet.
    last: Option<u32>,
}

/// What a generation may do, beside its sampler.
#[derive(Debug)]
pub struct Limits {
    pub max_tokens: Option<usize>,
    pub stop: Vec<String>,
    /// The text begins with the first token rather than going on after a prompt.
    pub at_start: bool,
}

/// A sequence, the tokens that its cache holds, and what is under way with it.
pub struct Session {
    context: Context,
    sequence: Sequence,
    tokens: Vec<u32>,
    scratch: Scratch,
    run: Option<Run>,
    evaluation: Option<Evaluation>,
}

/// What is wanted of given tokens.
pub enum Wanted {
    /// The digest of all logits.
    Digest,
    /// The digest of every operation's output.
    Trace,
    /// What one operation made of one position.
    Values(Place),
}

/// Given tokens under way.
struct Evaluation {
    /// Those that are still to be evaluated.
    rest: Vec<u32>,
    /// Tokens per step.
    batch: usize,
    seen: Seen,
}

/// What is collected of them.
enum Seen {
    Logits(Digest),
    Operations(Trace),
    Values(Capture),
}

impl Probe for Seen {
    fn op(&mut self, layer: usize, op: &'static str, width: usize, values: &[f32]) {
        match self {
            Seen::Logits(_) => {}
            Seen::Operations(trace) => trace.op(layer, op, width, values),
            Seen::Values(capture) => capture.op(layer, op, width, values),
        }
    }
}

impl Session {
    pub fn new(context: Context) -> Self {
        let sequence = context.new_sequence();
        Session {
            context,
            sequence,
            tokens: Vec::new(),
            scratch: Scratch::default(),
            run: None,
            evaluation: None,
        }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Begins a generation: how many tokens of the prompt the cache holds already.
    pub fn begin(
        &mut self,
        tokenizer: &Tokenizer,
        mut sampler: Sampler,
        prompt: &[u32],
        limits: &Limits,
    ) -> Result<usize> {
        self.run = None;
        self.evaluation = None;
        for &token in prompt {
            sampler.accept(token)?;
        }
        let kept = self.reuse(prompt);
        let mut decoder = tokenizer.stream_decoder(false);
        if limits.at_start {
            decoder = decoder.at_start();
        }
        self.run = Some(Run {
            rest: prompt[kept..].to_vec(),
            sampler,
            decoder,
            stop: StopFilter::new(&limits.stop),
            max_tokens: limits.max_tokens,
            generated: 0,
            next: None,
            last: None,
        });
        Ok(kept)
    }

    /// Makes the cache agree with the longest common beginning, less one token: the last one is always computed, for its
    /// logits. Returns how many tokens stay.
    fn reuse(&mut self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let kept = common.min(prompt.len().saturating_sub(1));
        if self.sequence.truncate(kept).is_ok() {
            self.tokens.truncate(kept);
            return kept;
        }
        // A sliding window has moved past it. The old pages go back before the new sequence takes any.
        self.tokens.clear();
        self.sequence = self.context.new_sequence();
        0
    }

    /// Evaluates the next batch of the prompt; true once all of it is done.
    pub fn prefill(&mut self) -> Result<bool> {
        let Some(run) = &mut self.run else {
            return Ok(true);
        };
        if run.rest.is_empty() {
            return Ok(true);
        }
        let before = self.sequence.len();
        let mut one_step = |done: usize, total: usize| {
            if done == total {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let logits = self
            .context
            .prefill_with(&mut self.sequence, &run.rest, &mut one_step)?;
        run.next = logits
            .map(|logits| run.sampler.sample(logits, &mut self.scratch))
            .transpose()?;
        let done = self.sequence.len() - before;
        self.tokens.extend(run.rest.drain(..done));
        Ok(run.rest.is_empty())
    }

    /// The next token; after an end, and after an error, there is nothing more. A token is given out before it is
    /// evaluated, so its text does not wait for the next one's arithmetic.
    pub fn step(&mut self, tokenizer: &Tokenizer) -> Result<Option<Step>> {
        let Some(mut run) = self.run.take() else {
            return Ok(None);
        };
        if run.max_tokens.is_some_and(|most| run.generated >= most) {
            return Ok(Some(run.end(End::Limit)));
        }
        let token = match (run.next.take(), run.last.take()) {
            (Some(token), _) => token,
            (None, None) => return Ok(None),
            (None, Some(_)) if self.tokens.len() >= self.context.options().n_ctx => {
                return Ok(Some(run.end(End::ContextFull)));
            }
            (None, Some(last)) => {
                let logits = self.context.decode(&mut self.sequence, last)?;
                self.tokens.push(last);
                run.sampler.sample(logits, &mut self.scratch)?
            }
        };
        if tokenizer.is_end(token) && !run.ignores(token) {
            return Ok(Some(run.end(End::ModelEnded)));
        }
        run.generated += 1;
        run.sampler.accept(token)?;
        let (text, stopped) = run.stop.push(run.decoder.push(token));
        if stopped {
            return Ok(Some(Step::End(End::Stop, text)));
        }
        run.last = Some(token);
        self.run = Some(run);
        Ok(Some(Step::Token(token, text)))
    }

    /// Begins to evaluate these tokens, at most `batch` a step.
    pub fn begin_evaluation(&mut self, tokens: Vec<u32>, batch: usize, wanted: Wanted) {
        self.run = None;
        self.tokens.clear();
        self.sequence = self.context.new_sequence();
        let seen = match wanted {
            Wanted::Digest => Seen::Logits(Digest::new()),
            Wanted::Trace => Seen::Operations(Trace::new(&describe(&self.context, &tokens, 0))),
            Wanted::Values(place) => Seen::Values(Capture::new(place)),
        };
        self.evaluation = Some(Evaluation {
            rest: tokens,
            batch: batch.clamp(1, self.context.options().n_batch),
            seen,
        });
    }

    /// Evaluates the next step of them; what was wanted, as text, once all are done.
    pub fn evaluate(&mut self) -> Result<Option<String>> {
        let Some(mut evaluation) = self.evaluation.take() else {
            return Ok(None);
        };
        let Evaluation { rest, batch, seen } = &mut evaluation;
        let n = rest.len().min(*batch);
        let result = if let Seen::Logits(digest) = seen {
            let mut sink = |_: usize, logits: &[f32]| digest.update(logits);
            self.context.eval_all(&mut self.sequence, &rest[..n], &mut sink)
        } else {
            self.context
                .eval_probed(&mut self.sequence, &rest[..n], seen, &mut |_, _| {})
        };
        if result.is_err() || n == rest.len() {
            // The cache is as it was made; no list of tokens stands for it.
            self.sequence = self.context.new_sequence();
        }
        result?;
        rest.drain(..n);
        if !rest.is_empty() {
            self.evaluation = Some(evaluation);
            return Ok(None);
        }
        match evaluation.seen {
            Seen::Logits(digest) => Ok(Some(digest.finish())),
            Seen::Operations(trace) => Ok(Some(trace.to_text())),
            Seen::Values(capture) => capture.to_text().map(Some),
        }
    }
}

impl Run {
    /// Whether the sampler was told never to choose this token.
    fn ignores(&self, token: u32) -> bool {
        let mut bias = self.sampler.params().logit_bias.iter();
        bias.any(|(id, bias)| *id == token && *bias == f32::NEG_INFINITY)
    }

    fn end(mut self, end: End) -> Step {
        let (mut text, stopped) = self.stop.push(self.decoder.flush());
        if !stopped {
            text.push_str(&self.stop.finish());
        }
        Step::End(end, text)
    }
}
