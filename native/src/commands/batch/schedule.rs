//! Which sequences are computed together.
//!
//! A pass is the last token of every sequence that decodes, and as much of the prompts, oldest first, as the batch has room
//! for. A job becomes a sequence when there is room for it in the cache; what the prefix index has of its prompt is shared.
//! A prompt that has more in common with one that is being read right now than with the index waits until it is there.
//! Where the cache gets full, the youngest sequence goes back to the queue with its tokens; they are computed anew later,
//! and since no number depends on what shared a pass or was cached, its text is the same.

use std::collections::VecDeque;

use anyhow::Result;
use twinfer_engine::Error;
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::SeqId;
use twinfer_engine::context::Context;
use twinfer_engine::error::Class;

use super::answer::Finish;
use super::desk::{Desk, Job};
use super::request::Fault;
use crate::interrupt;

/// Positions of a page of the cache.
const PAGE: usize = 64;

/// Tokens that a prompt must gain by waiting for another one.
const WORTH_WAITING: usize = PAGE;

/// See the module.
pub(super) struct Scheduler {
    context: Context,
    batch: Batch,
    /// Sequences at a time.
    parallel: usize,
    queue: VecDeque<Job>,
    /// The input has no more.
    is_last: bool,
    /// Oldest first.
    running: Vec<Running>,
    /// So many jobs, first in the queue or running, are computed one at a time: a pass of all failed.
    alone: usize,
    /// Of the present pass: row, place in `running`.
    wanted: Vec<(usize, usize)>,
    pub(super) stats: Stats,
}

/// A job with a sequence.
struct Running {
    id: SeqId,
    job: Job,
    /// Tokens that the cache holds, and that the present pass adds.
    cached: usize,
    rows: usize,
    /// Whole pages that the prefix index was given.
    published: usize,
}

impl Running {
    /// Whether tokens are to be read before the last one.
    fn is_reading(&self) -> bool {
        self.cached + 1 < self.job.tokens.len()
    }
}

/// What was computed.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Stats {
    pub(super) passes: u64,
    pub(super) prompt_tokens: u64,
    /// Of those, how many were shared with prompts before.
    pub(super) shared: u64,
    pub(super) generated: u64,
    /// Sequences that went back to the queue.
    pub(super) put_back: u64,
    /// The most sequences in a pass.
    pub(super) most: usize,
}

/// Why a job has no sequence yet.
enum Later {
    /// Another prompt is read that has more in common with its own.
    Shared,
    /// The cache is too full.
    Full,
}

type Sampled = twinfer_engine::Result<Result<u32, Finish>>;

impl Scheduler {
    pub(super) fn new(context: Context, parallel: usize) -> Self {
        Scheduler {
            context,
            batch: Batch::new(),
            parallel,
            queue: VecDeque::new(),
            is_last: false,
            running: Vec::new(),
            alone: 0,
            wanted: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Computes until all is answered, or Ctrl-C. `tick` is called after each pass.
    pub(super) fn run(&mut self, desk: &mut Desk<'_>, tick: &mut dyn FnMut(&Desk<'_>, &Stats)) -> Result<()> {
        loop {
            interrupt::check()?;
            self.admit(desk)?;
            tick(desk, &self.stats);
            if self.running.is_empty() {
                return Ok(());
            }
            self.pass(desk)?;
        }
    }

    /// Gives jobs sequences, in the queue's order but for those that wait for a prompt.
    fn admit(&mut self, desk: &mut Desk<'_>) -> Result<()> {
        let mut at = 0;
        let most = if self.alone > 0 { 1 } else { self.parallel };
        while self.running.len() < most {
            // Looking farther ahead than a full cache brings nothing.
            while self.queue.len() <= at && at < self.parallel && !self.is_last {
                match desk.next()? {
                    Some(job) => self.queue.push_back(job),
                    None => self.is_last = true,
                }
            }
            let Some(job) = self.queue.get(at) else { break };
            match self.open(&job.tokens)? {
                Ok((id, cached)) => {
                    if let Some(job) = self.queue.remove(at) {
                        self.begin(id, job, cached);
                    }
                }
                Err(Later::Shared) => at += 1,
                Err(Later::Full) => break,
            }
        }
        Ok(())
    }

    fn begin(&mut self, id: SeqId, job: Job, cached: usize) {
        if job.writing.n_tokens == 0 {
            self.stats.prompt_tokens += job.n_prompt as u64;
            self.stats.shared += cached as u64;
        }
        self.running.push(Running {
            id,
            job,
            cached,
            rows: 0,
            published: cached / PAGE,
        });
        self.stats.most = self.stats.most.max(self.running.len());
    }

    /// A sequence for these tokens, and how many of them it has already.
    fn open(&mut self, tokens: &[u32]) -> Result<Result<(SeqId, usize), Later>> {
        // The last one is always computed, for its logits.
        let tokens = &tokens[..tokens.len() - 1];
        let (id, cached) = self.context.open_prefix(tokens)?;
        let later = if self.is_being_read(tokens, cached) {
            Some(Later::Shared)
        } else if self.is_full(tokens.len() + 1, cached) {
            Some(Later::Full)
        } else {
            None
        };
        match later {
            Some(later) => {
                self.context.close(id)?;
                Ok(Err(later))
            }
            None => Ok(Ok((id, cached))),
        }
    }

    /// Whether a prompt that is being read will soon share more than is cached.
    fn is_being_read(&self, tokens: &[u32], cached: usize) -> bool {
        self.running
            .iter()
            .filter(|other| other.is_reading())
            .any(|other| {
                // What is published are whole pages.
                let others = &other.job.tokens[..other.job.tokens.len() / PAGE * PAGE];
                let common = others.iter().zip(tokens).take_while(|(a, b)| a == b).count();
                common >= cached + WORTH_WAITING
            })
    }

    /// Whether the cache has no room for one more sequence of so many tokens: beside what the others' prompts still take,
    /// each keeps a page to go on in. A single sequence may try.
    fn is_full(&self, len: usize, cached: usize) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let usage = self.context.usage();
        // With the page that it goes on in, which may be a copy of a shared one.
        let to_come = |len: usize, cached: usize| len.div_ceil(PAGE) - cached / PAGE;
        let own = to_come(len, cached) + 1;
        let others: usize = self
            .running
            .iter()
            .map(|other| to_come(other.job.tokens.len(), other.cached))
            .sum();
        usage.free + usage.evictable < own + others
    }

    /// One pass, and what comes of it.
    fn pass(&mut self, desk: &mut Desk<'_>) -> Result<()> {
        self.fill();
        let Scheduler {
            context,
            batch,
            running,
            wanted,
            ..
        } = self;
        let n_ctx = context.options().n_ctx;
        let tokenizer = &desk.prompts.tokenizer;
        let mut sampled: Vec<(usize, Sampled)> = Vec::with_capacity(wanted.len());
        let computed = context.forward(batch, &mut (), &mut |row, logits| {
            if let Some((_, i)) = wanted.get(sampled.len()).filter(|(of, _)| *of == row) {
                let job = &mut running[*i].job;
                let room = job.tokens.len() < n_ctx;
                sampled.push((*i, job.writing.sample(tokenizer, logits, room)));
            }
        });
        match computed {
            Ok(()) => self.stats.passes += 1,
            Err(error @ Error::CacheFull { .. }) => return self.make_room(desk, &error),
            Err(error) if error.class() == Class::Model => return self.one_by_one(desk, error),
            Err(error) => return Err(error.into()),
        }
        for running in &mut self.running {
            running.cached += std::mem::take(&mut running.rows);
            let whole = running.cached / PAGE;
            // What is decoded is found by nobody: only prompts are looked for.
            if whole > running.published && running.job.writing.n_tokens <= 1 {
                self.context.publish(running.id)?;
                running.published = whole;
            }
        }
        // From the end, so that places stay what they are.
        for (i, sampled) in sampled.into_iter().rev() {
            match sampled {
                Ok(Ok(token)) => {
                    self.stats.generated += 1;
                    self.running[i].job.tokens.push(token);
                }
                Ok(Err(finish)) => self.end(desk, i, Ok(finish))?,
                Err(error) if matches!(error.class(), Class::Request | Class::Model) => {
                    self.end(desk, i, Err(Fault::whole(error.to_string())))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The rows of a pass.
    fn fill(&mut self) {
        self.batch.clear();
        self.wanted.clear();
        let n_batch = self.context.options().n_batch;
        for reading in [false, true] {
            for (i, running) in self.running.iter_mut().enumerate() {
                if running.is_reading() != reading {
                    continue;
                }
                let rest = &running.job.tokens[running.cached..];
                running.rows = rest.len().min(n_batch - self.batch.len());
                let is_whole = running.rows == rest.len();
                for (n, token) in rest[..running.rows].iter().enumerate() {
                    let output = if is_whole && n + 1 == running.rows {
                        self.wanted.push((self.batch.len(), i));
                        Output::Logits
                    } else {
                        Output::None
                    };
                    self.batch.push(running.id, *token, output);
                }
            }
        }
    }

    /// Ends a sequence and answers its job.
    fn end(&mut self, desk: &mut Desk<'_>, i: usize, outcome: Result<Finish, Fault>) -> Result<()> {
        let Running { id, job, .. } = self.running.remove(i);
        self.context.close(id)?;
        self.alone = self.alone.saturating_sub(1);
        desk.answer(job, outcome)
    }

    /// After a pass that found no room: the youngest sequence goes back to the queue. What it has computed stays in the
    /// prefix index as long as nobody needs the pages.
    fn make_room(&mut self, desk: &mut Desk<'_>, error: &Error) -> Result<()> {
        if self.running.len() == 1 {
            let what = format!("{error}: the text is longer than --cache-size allows");
            return self.end(desk, 0, Err(Fault::here(what)));
        }
        if let Some(Running { id, job, .. }) = self.running.pop() {
            self.context.publish(id)?;
            self.context.close(id)?;
            self.queue.push_front(job);
            self.stats.put_back += 1;
        }
        Ok(())
    }

    /// After a pass in which a number was not finite: which sequence it was of is found by computing each alone, from its
    /// prompt on, for samplers have gone on that should not have.
    fn one_by_one(&mut self, desk: &mut Desk<'_>, error: Error) -> Result<()> {
        if self.running.len() == 1 {
            return self.end(desk, 0, Err(Fault::here(error.to_string())));
        }
        self.alone = self.running.len();
        while let Some(Running { id, mut job, .. }) = self.running.pop() {
            self.context.close(id)?;
            job.restart(&desk.prompts)?;
            self.queue.push_front(job);
        }
        Ok(())
    }
}
