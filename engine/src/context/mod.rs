//! Context: batches of tokens in, logits out.
//!
//! A [`Context`] owns the workspace and the cache's pages, both made once. Its sequences are named by handles, which callers
//! keep and copy as they like. A pass computes a [`Batch`]: rows of any of them. No number depends on how tokens are split
//! into passes, on what shares a batch, on whether a prefix was found in the cache, or on the number of threads.

mod embed;
mod sizes;

pub use sizes::{ContextOptions, ContextPlan, HeldBytes, held_bytes};

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::batch::{Batch, Output};
use crate::cache::{Cache, CheckpointId, SeqId, Sizes, Usage};
use crate::kernels::ActFormat;
use crate::memory::{Buffers, Memory};
use crate::model::config::{Config, OutputMatrix};
use crate::model::pooling::{no_scores, wanted};
use crate::model::probe::Probe;
use crate::model::{Model, Pass, Workspace, no_logits};
use crate::team::Team;
use crate::{Error, Result};

/// Everything that is allocated for a context.
#[derive(Debug)]
struct Parts {
    cache: Cache,
    workspace: Workspace,
    batch: Batch,
    logits: Vec<f32>,
}

impl Parts {
    fn make(
        config: &Config,
        formats: &[ActFormat],
        team: &Team,
        sizes: &Sizes,
        (cache, workspace): (&mut Buffers<'_>, &mut Buffers<'_>),
    ) -> Result<Self> {
        Ok(Parts {
            cache: Cache::make(config.cache_kinds(), sizes, cache)?,
            workspace: Workspace::make(config, formats, sizes, team.workers(), workspace)?,
            batch: Batch::with_room(sizes.n_batch, workspace)?,
            logits: workspace.rows("logits", 1, config.n_vocab)?,
        })
    }
}

/// Gets the logits of each position.
type LogitSink<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// Everything that running a model needs beside its weights; see the module.
#[derive(Debug)]
pub struct Context {
    model: Arc<Model>,
    team: Team,
    options: ContextOptions,
    cache: Cache,
    workspace: Workspace,
    batch: Batch,
    /// Logits that [`Context::prefill`] and [`Context::decode`] give out.
    logits: Vec<f32>,
}

impl Context {
    /// A context of the given sizes. All memory that passes use is allocated here; [`ContextPlan`] says how much it is.
    ///
    /// # Errors
    /// Sizes of zero, or more than there is memory for.
    pub fn new(model: Arc<Model>, team: Team, options: ContextOptions) -> Result<Self> {
        let sizes = options.sizes()?;
        let memory: &dyn Memory = &*model.memory;
        let mut of_cache = Buffers::made("the cache (a shorter context needs less)", memory);
        let mut of_pass = Buffers::made("the buffers of a pass (a smaller batch needs less)", memory);
        let Parts {
            mut cache,
            workspace,
            batch,
            logits,
        } = Parts::make(
            &model.config,
            &model.weights.formats(),
            &team,
            &sizes,
            (&mut of_cache, &mut of_pass),
        )?;
        if team.nodes() > 1 {
            cache.place(&team)?;
        }
        Ok(Context {
            model,
            team,
            options: ContextOptions {
                n_batch: sizes.n_batch,
                ..options
            },
            cache,
            workspace,
            batch,
            logits,
        })
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

    /// The memory of keys, values and states, with the node of the team whose workers read it.
    pub fn placed_cache(&self) -> Vec<(usize, &[u8])> {
        self.cache.placed(&self.team)
    }

    /// An empty sequence. Its pages are taken as it grows, and given back by [`Self::close`].
    ///
    /// # Errors
    /// `TooManySequences`.
    pub fn open(&mut self) -> Result<SeqId> {
        self.cache.open()
    }

    /// A sequence that begins with the longest prefix of `tokens` that the prefix index has, and its length. The logits after
    /// a prefix are not kept: who needs those of the last token leaves that one out.
    ///
    /// # Errors
    /// `TooManySequences`.
    pub fn open_prefix(&mut self, tokens: &[u32]) -> Result<(SeqId, usize)> {
        self.cache.open_prefix(tokens)
    }

    /// A new sequence that begins with the first `len` tokens of another one. Both hold the same pages; the last one, where it
    /// is not full, is copied when one of them goes on.
    ///
    /// # Errors
    /// A handle that is not of an open sequence, `TooManySequences`; and as [`Self::truncate`].
    pub fn fork(&mut self, id: SeqId, len: usize) -> Result<SeqId> {
        self.cache.fork(id, len)
    }

    /// Forgets a sequence's tokens from `len` on.
    ///
    /// # Errors
    /// A handle that is not of an open sequence; a `len` beyond the sequence, or so far back that a sliding window's pages are
    /// gone (`WindowPassed`), or one of which a layer that keeps a state has none (`StatePassed`): there is one of the sequence's
    /// own length, of 0, and of some ends of passes and of pages. The sequence is unchanged then.
    pub fn truncate(&mut self, id: SeqId, len: usize) -> Result<()> {
        self.cache.truncate(id, len)
    }

    /// Makes a sequence begin with what it has in common with `tokens` and forgets the rest; how much stays. Where a sliding
    /// window has passed that place, nothing stays; where layers keep states, as much as there is a state of.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn reuse(&mut self, id: SeqId, tokens: &[u32]) -> Result<usize> {
        let held = self.cache.tokens(id)?;
        let common = held.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let mut len = common;
        loop {
            len = match self.cache.truncate(id, len) {
                Ok(()) => return Ok(len),
                Err(Error::WindowPassed { .. }) => 0,
                Err(Error::StatePassed { nearest, .. }) => nearest,
                Err(error) => return Err(error),
            };
        }
    }

    /// Keeps what a sequence is now, whatever becomes of it. Pages are shared with it, as those of a fork are.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn checkpoint(&mut self, id: SeqId) -> Result<CheckpointId> {
        self.cache.checkpoint(id)
    }

    /// Makes any sequence what the checkpoint is; the checkpoint stays.
    ///
    /// # Errors
    /// Handles that are not of an open sequence and a kept checkpoint.
    pub fn restore(&mut self, id: SeqId, checkpoint: CheckpointId) -> Result<()> {
        self.cache.restore(id, checkpoint)
    }

    /// Lets go of a checkpoint.
    ///
    /// # Errors
    /// A handle that is not of a kept one.
    pub fn forget(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.cache.forget(checkpoint)
    }

    /// Ends a sequence; its handle is an error from now on.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn close(&mut self, id: SeqId) -> Result<()> {
        self.cache.close(id)
    }

    /// Tokens that a sequence holds; `u32::MAX` stands for a row that had an embedding instead.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn tokens(&self, id: SeqId) -> Result<&[u32]> {
        self.cache.tokens(id)
    }

    /// Number of tokens that a sequence holds.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn seq_len(&self, id: SeqId) -> Result<usize> {
        self.tokens(id).map(<[u32]>::len)
    }

    /// Makes room in a sequence's lists for so many tokens, so that no pass up to there allocates. Without it, they double
    /// when they are full.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn make_room(&mut self, id: SeqId, tokens: usize) -> Result<()> {
        self.cache.make_room(id, tokens.min(self.options.n_ctx))
    }

    /// Puts the whole pages that a sequence has computed into the prefix index, for [`Self::open_prefix`] to find. They stay
    /// until others need the room, also when the sequence has ended. Not inside a pass: it may allocate.
    ///
    /// # Errors
    /// A handle that is not of an open sequence.
    pub fn publish(&mut self, id: SeqId) -> Result<()> {
        self.cache.publish(id)
    }

    /// Keeps the longest prefix of `tokens` that the prefix index has from being evicted, until the checkpoint is let go of;
    /// its length.
    ///
    /// # Errors
    /// None at present.
    pub fn pin(&mut self, tokens: &[u32]) -> Result<(CheckpointId, usize)> {
        self.cache.pin(tokens)
    }

    /// Empties the prefix index.
    pub fn clear_prefixes(&mut self) {
        self.cache.clear_prefix();
    }

    /// The memory of keys, values and states, piece by piece. The system may not have given it yet: a platform can bring it in
    /// before the first pass, so that no pass waits for it.
    pub fn cache_memory(&self) -> impl Iterator<Item = &[u8]> {
        self.cache.memory()
    }

    /// What the cache holds, and what the prefix index gave.
    pub fn usage(&self) -> Usage {
        self.cache.usage()
    }

    /// Whether there are pages for sequences to grow, all of them: of each, the tokens that it holds and those that it
    /// is to hold. What only the prefix index holds is room. A page that a sequence shares and goes on in is copied, so
    /// it is a page more.
    pub fn has_room(&self, sequences: impl Iterator<Item = (usize, usize)> + Clone) -> bool {
        self.cache.has_room(sequences)
    }

    /// One pass: `sink(row, values)` gets what every row wants that wants something, in order; the vector of a text comes once,
    /// with the first row that is part of it. Without rows nothing is done. On an error no sequence has changed its length.
    ///
    /// # Errors
    /// Rows that want different things, or what the model does not make; a text that is not whole in the pass where positions
    /// see those behind them; handles that are not of open sequences, token ids outside the vocabulary, more rows than
    /// `n_batch`, a sequence longer than `n_ctx`, more pages or states than can be had (`CacheFull`, `StatesFull`), values that
    /// are not finite.
    pub fn forward<P: Probe>(
        &mut self,
        batch: &mut Batch,
        probe: &mut P,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let config = &self.model.config;
        if batch.rows.len() > self.options.n_batch {
            return Err(Error::Limit {
                what: "number of rows of a batch".into(),
                found: batch.rows.len() as u64,
                limit: self.options.n_batch as u64,
            });
        }
        match wanted(&batch.rows)? {
            Output::Logits if config.output.matrix == OutputMatrix::None => return Err(no_logits()),
            Output::Scores if config.pooling.rank.is_none() => return Err(no_scores()),
            _ => {}
        }
        if batch.embeddings.len() != batch.n_embeddings() * config.n_embd {
            return Err(Error::InvalidInput {
                what: format!("embeddings must have {} values each", config.n_embd),
            });
        }
        self.cache.prepare(
            &mut batch.rows,
            config.n_vocab,
            config.max_positions(self.options.n_ctx),
        )?;
        let pass = Pass {
            rows: &batch.rows,
            embeddings: &batch.embeddings,
            sequences: &self.cache.sequences,
            n_ctx: self.options.n_ctx,
        };
        self.model.forward(
            &pass,
            &mut self.workspace,
            &mut self.cache.layers,
            &self.team,
            probe,
            sink,
        )?;
        self.cache.advance(&batch.rows);
        Ok(())
    }

    /// Appends tokens to a sequence and gives the logits after the last one.
    ///
    /// # Errors
    /// As [`Context::forward`]; also if there are no tokens. Passes before the one that failed are kept.
    pub fn prefill(&mut self, id: SeqId, tokens: &[u32]) -> Result<&[f32]> {
        self.prefill_with(id, tokens, &mut |_, _| ControlFlow::Continue(()))?;
        Ok(&self.logits)
    }

    /// As [`Context::prefill`], with `progress(done, total)` after each pass; it may end the prefill, which then gives
    /// `None`.
    ///
    /// # Errors
    /// As [`Context::prefill`].
    pub fn prefill_with(
        &mut self,
        id: SeqId,
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
            self.pass(
                id,
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
    pub fn decode(&mut self, id: SeqId, token: u32) -> Result<&[f32]> {
        self.pass(id, &[token], &|_| Output::Logits, &mut (), None)?;
        Ok(&self.logits)
    }

    /// Appends tokens and gives the logits after each: `sink(index, logits)`.
    ///
    /// # Errors
    /// As [`Context::prefill`].
    pub fn eval_all(&mut self, id: SeqId, tokens: &[u32], sink: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        self.eval_probed(id, tokens, &mut (), sink)
    }

    /// As [`Context::eval_all`], with a look at every operation.
    ///
    /// # Errors
    /// As [`Context::prefill`].
    pub fn eval_probed<P: Probe>(
        &mut self,
        id: SeqId,
        tokens: &[u32],
        probe: &mut P,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let n_batch = self.options.n_batch;
        for (i, tokens) in tokens.chunks(n_batch).enumerate() {
            let mut shifted = |row: usize, logits: &[f32]| sink(i * n_batch + row, logits);
            self.pass(id, tokens, &|_| Output::Logits, probe, Some(&mut shifted))?;
        }
        Ok(())
    }

    /// One pass of one sequence; without a sink the last logits are kept in `self.logits`.
    fn pass<P: Probe>(
        &mut self,
        id: SeqId,
        tokens: &[u32],
        output: &dyn Fn(usize) -> Output,
        probe: &mut P,
        mut sink: Option<LogitSink<'_>>,
    ) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        let mut logits = std::mem::take(&mut self.logits);
        batch.clear();
        for (i, token) in tokens.iter().enumerate() {
            batch.push(id, *token, output(i));
        }
        let result = self.forward(&mut batch, probe, &mut |row, values| match &mut sink {
            Some(sink) => sink(row, values),
            None => logits.copy_from_slice(values),
        });
        (self.batch, self.logits) = (batch, logits);
        result
    }
}
