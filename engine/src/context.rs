//! Context: batches of tokens in, logits out.
//!
//! A [`Context`] owns the workspace and the cache's pages, both made once; a [`Sequence`] is a page table in it. A step
//! computes a [`Batch`]: rows of one or more sequences. No number depends on how tokens are split into steps, on what
//! shares a batch, or on the number of threads.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::model::cache::{CachePool, cache_bytes};
pub use crate::model::cache::{CacheType, Sequence};
use crate::model::probe::Probe;
use crate::model::{Model, Step, Workspace};
use crate::team::Team;
use crate::{Error, Result, memory};

/// Sizes of a context.
#[derive(Debug, Clone)]
pub struct ContextOptions {
    /// Positions per sequence.
    pub n_ctx: usize,
    /// Rows of the largest step.
    pub n_batch: usize,
    /// Sequences at a time.
    pub n_sequences: usize,
    /// Format of cached keys.
    pub cache_type_k: CacheType,
    /// Format of cached values.
    pub cache_type_v: CacheType,
}

impl Default for ContextOptions {
    fn default() -> Self {
        ContextOptions {
            n_ctx: 4096,
            n_batch: 512,
            n_sequences: 1,
            cache_type_k: CacheType::default(),
            cache_type_v: CacheType::default(),
        }
    }
}

/// Gets the logits of each position.
type LogitSink<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// What a row puts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A token id.
    Token(u32),
    /// A row of the batch's embeddings.
    Embedding(usize),
}

/// What a row gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Nothing: it only fills the cache.
    None,
    /// Logits over the vocabulary.
    Logits,
    /// The hidden state after the last norm.
    Hidden,
}

/// A row's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// n_vocab logits, all finite.
    Logits(&'a [f32]),
    /// n_embd values.
    Hidden(&'a [f32]),
}

/// Which positions a row sees, within its layer's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mask {
    /// Itself and what is before it.
    #[default]
    Causal,
    /// The whole sequence, the rows of this batch included.
    Bidirectional,
    /// The first positions of the sequence, up to this number, and then causally.
    Prefix(usize),
}

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) input: Input,
    /// Index into the sequences given with the batch.
    pub(crate) sequence: usize,
    pub(crate) output: Output,
    /// Given by the context: the sequence's next position.
    pub(crate) position: usize,
    /// Length of the sequence after this batch.
    pub(crate) end: usize,
}

/// Rows for one step. Rows of one sequence take its next positions in the order in which they are pushed.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    rows: Vec<Row>,
    embeddings: Vec<f32>,
    mask: Mask,
}

impl Batch {
    /// An empty causal batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties it and sets its mask; memory is kept.
    pub fn clear(&mut self, mask: Mask) {
        self.rows.clear();
        self.embeddings.clear();
        self.mask = mask;
    }

    /// Adds a token to the sequence with index `sequence`.
    pub fn push(&mut self, sequence: usize, token: u32, output: Output) {
        self.rows.push(Row {
            input: Input::Token(token),
            sequence,
            output,
            position: 0,
            end: 0,
        });
    }

    /// Adds an input embedding (n_embd values, already scaled) in place of a token.
    pub fn push_embedding(&mut self, sequence: usize, embedding: &[f32], output: Output) {
        let index = self
            .rows
            .iter()
            .filter(|row| matches!(row.input, Input::Embedding(_)))
            .count();
        self.embeddings.extend_from_slice(embedding);
        self.rows.push(Row {
            input: Input::Embedding(index),
            sequence,
            output,
            position: 0,
            end: 0,
        });
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Everything that running a model needs beside its weights; see the module.
#[derive(Debug)]
pub struct Context {
    model: Arc<Model>,
    team: Team,
    options: ContextOptions,
    pool: CachePool,
    workspace: Workspace,
    batch: Batch,
    /// Logits that [`Context::prefill`] and [`Context::decode`] give out.
    logits: Vec<f32>,
}

impl Context {
    /// A context of the given sizes. All memory that steps use is allocated here.
    ///
    /// # Errors
    /// Sizes of zero, or more than there is memory for.
    pub fn new(model: Arc<Model>, team: Team, options: ContextOptions) -> Result<Self> {
        for (name, value) in [
            ("n_ctx", options.n_ctx),
            ("n_batch", options.n_batch),
            ("n_sequences", options.n_sequences),
        ] {
            if value == 0 {
                return Err(Error::InvalidInput {
                    what: format!("{name} must be at least 1"),
                });
            }
        }
        let options = ContextOptions {
            n_batch: options
                .n_batch
                .min(options.n_ctx.saturating_mul(options.n_sequences)),
            ..options
        };
        let types = (options.cache_type_k, options.cache_type_v);
        let pool = CachePool::new(
            &model.config,
            options.n_ctx,
            options.n_batch,
            options.n_sequences,
            types,
        )?;
        let workspace = Workspace::new(
            &model,
            (options.n_batch, options.n_ctx, team.workers()),
            options.cache_type_k,
            &*model.memory,
        )?;
        let logits = memory::zeros("the logits", model.config.n_vocab)?;
        let batch = Batch {
            rows: memory::room("the rows of a batch", options.n_batch)?,
            ..Batch::default()
        };
        Ok(Context {
            model,
            team,
            options,
            pool,
            workspace,
            batch,
            logits,
        })
    }

    /// Bytes that the cache of such a context takes.
    ///
    /// # Errors
    /// As [`Context::new`].
    pub fn cache_bytes(model: &Model, options: &ContextOptions) -> Result<u64> {
        let types = (options.cache_type_k, options.cache_type_v);
        cache_bytes(
            &model.config,
            options.n_ctx,
            options.n_batch,
            options.n_sequences,
            types,
        )
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Its sizes.
    pub fn options(&self) -> &ContextOptions {
        &self.options
    }

    /// The team that computes.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// An empty sequence. Its pages are taken as it grows and given back when it is dropped.
    pub fn new_sequence(&self) -> Sequence {
        self.pool.sequence()
    }

    /// One step: `sink(row, value)` gets every row that wants an output, in order. On an error no sequence has changed
    /// its length.
    ///
    /// # Errors
    /// Token ids outside the vocabulary, more rows than `n_batch`, a full context, values that are not finite.
    pub fn forward<P: Probe>(
        &mut self,
        batch: &mut Batch,
        sequences: &mut [&mut Sequence],
        probe: &mut P,
        sink: &mut dyn FnMut(usize, Value<'_>),
    ) -> Result<()> {
        let config = &self.model.config;
        let invalid = |what: String| Err(Error::InvalidInput { what });
        if batch.rows.len() > self.options.n_batch {
            return invalid(format!(
                "a batch of {} rows, at most {}",
                batch.rows.len(),
                self.options.n_batch
            ));
        }
        let embeddings = batch
            .rows
            .iter()
            .filter(|row| matches!(row.input, Input::Embedding(_)))
            .count();
        if batch.embeddings.len() != embeddings * config.n_embd {
            return invalid(format!("embeddings must have {} values each", config.n_embd));
        }
        for row in &batch.rows {
            if let Input::Token(id) = row.input
                && id as usize >= config.n_vocab
            {
                return invalid(format!(
                    "token id {id} is outside the vocabulary of {}",
                    config.n_vocab
                ));
            }
            if row.sequence >= sequences.len() {
                return invalid(format!(
                    "row of sequence {}, {} given",
                    row.sequence,
                    sequences.len()
                ));
            }
        }
        for (index, sequence) in sequences.iter_mut().enumerate() {
            let mut next = sequence.len();
            for row in batch.rows.iter_mut().filter(|row| row.sequence == index) {
                row.position = next;
                next += 1;
            }
            batch
                .rows
                .iter_mut()
                .filter(|row| row.sequence == index)
                .for_each(|row| row.end = next);
            if next > self.options.n_ctx {
                return Err(Error::ContextFull {
                    needed: next,
                    capacity: self.options.n_ctx,
                });
            }
            sequence.reserve(next - sequence.len())?;
        }
        let step = Step {
            rows: &batch.rows,
            embeddings: &batch.embeddings,
            mask: batch.mask,
            sequences,
            n_ctx: self.options.n_ctx,
        };
        self.model.forward(
            &step,
            &mut self.workspace,
            &mut self.pool,
            &self.team,
            probe,
            sink,
        )?;
        for (index, sequence) in sequences.iter_mut().enumerate() {
            sequence.advance(batch.rows.iter().filter(|row| row.sequence == index).count());
        }
        Ok(())
    }

    /// Appends tokens to a sequence and gives the logits after the last one.
    ///
    /// # Errors
    /// As [`Context::forward`]; also if there are no tokens. Steps before the one that failed are kept.
    pub fn prefill(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<&[f32]> {
        self.prefill_with(sequence, tokens, &mut |_, _| ControlFlow::Continue(()))?;
        Ok(&self.logits)
    }

    /// As [`Context::prefill`], with `progress(done, total)` after each step; it may end the prefill, which then gives
    /// `None`.
    ///
    /// # Errors
    /// As [`Context::prefill`].
    pub fn prefill_with(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<&[f32]>> {
        if tokens.is_empty() {
            return Err(Error::InvalidInput {
                what: "there are no tokens to evaluate".into(),
            });
        }
        let mut done = 0;
        while done < tokens.len() {
            let n = self.options.n_batch.min(tokens.len() - done);
            let last = done + n == tokens.len();
            self.step(
                sequence,
                &tokens[done..done + n],
                &|i| {
                    if last && i + 1 == n {
                        Output::Logits
                    } else {
                        Output::None
                    }
                },
                &mut (),
                None,
            )?;
            done += n;
            if progress(done, tokens.len()).is_break() {
                return Ok(None);
            }
        }
        Ok(Some(&self.logits))
    }

    /// Appends one token and gives the logits after it. Allocates nothing.
    ///
    /// # Errors
    /// As [`Context::forward`].
    pub fn decode(&mut self, sequence: &mut Sequence, token: u32) -> Result<&[f32]> {
        self.step(sequence, &[token], &|_| Output::Logits, &mut (), None)?;
        Ok(&self.logits)
    }

    /// Appends tokens and gives the logits after each: `sink(index, logits)`.
    ///
    /// # Errors
    /// As [`Context::prefill`].
    pub fn eval_all(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.eval_probed(sequence, tokens, &mut (), sink)
    }

    /// As [`Context::eval_all`], with a look at every operation.
    ///
    /// # Errors
    /// As [`Context::prefill`].
    pub fn eval_probed<P: Probe>(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        probe: &mut P,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let n_batch = self.options.n_batch;
        for (i, tokens) in tokens.chunks(n_batch).enumerate() {
            let mut shifted = |row: usize, logits: &[f32]| sink(i * n_batch + row, logits);
            self.step(sequence, tokens, &|_| Output::Logits, probe, Some(&mut shifted))?;
        }
        Ok(())
    }

    /// One step of one sequence; without a sink the last logits are kept in `self.logits`.
    fn step<P: Probe>(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        output: &dyn Fn(usize) -> Output,
        probe: &mut P,
        mut sink: Option<LogitSink<'_>>,
    ) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        let mut logits = std::mem::take(&mut self.logits);
        batch.clear(Mask::Causal);
        for (i, token) in tokens.iter().enumerate() {
            batch.push(0, *token, output(i));
        }
        let result = self.forward(&mut batch, &mut [sequence], probe, &mut |row, value| {
            if let Value::Logits(values) = value {
                match &mut sink {
                    Some(sink) => sink(row, values),
                    None => logits.copy_from_slice(values),
                }
            }
        });
        (self.batch, self.logits) = (batch, logits);
        result
    }
}
