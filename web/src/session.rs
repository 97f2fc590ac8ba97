//! One conversation: the prompt's passes, then a token at a time. Between two of them the worker hears the page.

use std::collections::VecDeque;
use std::time::Duration;

use twinfer_engine::Result;
use twinfer_engine::cache::SeqId;
use twinfer_engine::context::Context;
use twinfer_engine::digest::Digest;
use twinfer_engine::generation::{Bounds, Driver, End, Event, Generation, Speculation};
use twinfer_engine::model::probe::Probe;
use twinfer_engine::sample::Sampler;
use twinfer_engine::tokenizer::Tokenizer;
use twinfer_engine::trace::{Capture, Place, Trace, describe};

/// The word that JavaScript gets for why a text ended.
pub fn end_name(end: End) -> &'static str {
    match end {
        End::ModelEnded => "end",
        End::Stop => "stop",
        End::Limit => "limit",
        End::ContextFull => "context-full",
        End::Interrupted => "interrupted",
    }
}

/// What comes of a generation.
#[derive(Debug)]
pub enum Output {
    /// A token and the text that it completes.
    Token(u32, String),
    /// The end, with text that was held back.
    End(End, String),
}

/// A sequence, and what is under way with it.
pub struct Session {
    context: Context,
    sequence: SeqId,
    driver: Driver,
    run: Option<Generation>,
    /// Made by passes, not given out yet.
    outputs: VecDeque<Output>,
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
    /// Tokens per pass.
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
    pub fn new(mut context: Context) -> Result<Self> {
        let sequence = context.open()?;
        Ok(Session {
            context,
            sequence,
            driver: Driver::new(Speculation::OFF, None),
            run: None,
            outputs: VecDeque::new(),
            evaluation: None,
        })
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Begins a generation: how many tokens of the prompt the cache holds already.
    pub fn begin(
        &mut self,
        tokenizer: &Tokenizer,
        sampler: Sampler,
        prompt: &[u32],
        bounds: &Bounds,
    ) -> Result<usize> {
        self.run = None;
        self.outputs.clear();
        self.evaluation = None;
        let run = Generation::new(
            &mut self.context,
            self.sequence,
            prompt,
            sampler,
            tokenizer,
            bounds,
        )?;
        let reused = run.counts().reused;
        self.run = Some(run);
        Ok(reused)
    }

    /// Evaluates the next batch of the prompt; true once all of it is done.
    pub fn prefill(&mut self) -> Result<bool> {
        if self.run.as_ref().is_some_and(Generation::is_reading) {
            self.pass()?;
        }
        Ok(!self.run.as_ref().is_some_and(Generation::is_reading))
    }

    /// The next token; after an end, and after an error, there is nothing more. A token is given out before it is
    /// evaluated, so its text does not wait for the next one's arithmetic.
    pub fn next_output(&mut self) -> Result<Option<Output>> {
        while self.outputs.is_empty() && self.run.is_some() {
            self.pass()?;
        }
        Ok(self.outputs.pop_front())
    }

    /// Makes a pass and keeps what it gave.
    fn pass(&mut self) -> Result<()> {
        let Some(mut run) = self.run.take() else {
            return Ok(());
        };
        let generations = std::slice::from_mut(&mut run);
        self.driver.pass(&mut self.context, generations)?;
        let (outputs, mut failed) = (&mut self.outputs, Ok(()));
        self.driver.finish(
            &mut self.context,
            generations,
            Duration::ZERO,
            &mut |_, event| match event {
                Event::Token { id, text } => outputs.push_back(Output::Token(id, text.into())),
                Event::End { end, text } => outputs.push_back(Output::End(end, text.into())),
                Event::Failed(error) => failed = Err(error),
            },
        );
        failed?;
        if !run.is_over() {
            self.run = Some(run);
        }
        Ok(())
    }

    /// Begins to evaluate these tokens, at most `batch` a pass.
    pub fn begin_evaluation(&mut self, tokens: Vec<u32>, batch: usize, wanted: Wanted) -> Result<()> {
        self.run = None;
        self.outputs.clear();
        self.context.truncate(self.sequence, 0)?;
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
        Ok(())
    }

    /// Evaluates the next of them, a pass; what was wanted, as text, once all are done.
    pub fn evaluate(&mut self) -> Result<Option<String>> {
        let Some(mut evaluation) = self.evaluation.take() else {
            return Ok(None);
        };
        let Evaluation { rest, batch, seen } = &mut evaluation;
        let n = rest.len().min(*batch);
        let result = if let Seen::Logits(digest) = seen {
            let mut sink = |_: usize, logits: &[f32]| digest.update(logits);
            self.context.eval_all(self.sequence, &rest[..n], &mut sink)
        } else {
            self.context
                .eval_probed(self.sequence, &rest[..n], seen, &mut |_, _| {})
        };
        if result.is_err() || n == rest.len() {
            self.context.truncate(self.sequence, 0)?;
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
