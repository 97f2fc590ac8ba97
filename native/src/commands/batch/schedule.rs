//! Which sequences are computed together.
//!
//! A pass is the last token of every sequence that makes text, and as much of the prompts, oldest first, as the batch
//! has room for ([`Driver`]). A job becomes a sequence when there is room for it in the cache; what the prefix index
//! or a sequence has of its prompt is shared. A prompt that has more in common with one that is being read right now
//! waits until that one is there. Where the cache gets full, the youngest sequence goes back to the queue with
//! its tokens; they are computed anew later, and since no number depends on what shared a pass or was cached, its text
//! is the same.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;
use twinfer_engine::Error;
use twinfer_engine::cache::SeqId;
use twinfer_engine::context::Context;
use twinfer_engine::error::Class;
use twinfer_engine::generation::{Driver, End, Event, Generation};
use twinfer_engine::kernels::BLOCK as PAGE;

use super::answer::Finish;
use super::desk::{Desk, Job};
use super::request::Fault;
use crate::{interrupt, mapped};

/// Tokens that a prompt must gain by waiting for another one, or by sharing a page of it that is not whole, of which
/// there is a copy as soon as both go on: fewer are as soon computed.
const WORTH_SHARING: usize = 16;

/// See the module.
pub(super) struct Scheduler {
    context: Context,
    driver: Driver,
    /// Sequences at a time.
    parallel: usize,
    queue: VecDeque<Job>,
    /// The input has no more.
    is_last: bool,
    /// Oldest first.
    running: Vec<Running>,
    /// So many jobs, first in the queue or running, are computed one at a time: a pass of all failed.
    alone: usize,
    pub(super) stats: Stats,
}

/// A job with a sequence.
struct Running {
    job: Job,
    generation: Generation,
    /// Whole pages that the prefix index was given.
    published: usize,
    /// How it ended.
    outcome: Option<Result<Finish, Error>>,
}

impl Running {
    /// Tokens that the cache holds.
    fn cached(&self) -> usize {
        self.generation.tokens().len() - self.generation.pending()
    }
}

impl AsMut<Generation> for Running {
    fn as_mut(&mut self) -> &mut Generation {
        &mut self.generation
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
    /// Drafts that were evaluated, and those that were right.
    pub(super) drafted: usize,
    pub(super) accepted: usize,
}

/// Why a job has no sequence yet.
enum Later {
    /// Another prompt is read that has more in common with its own.
    Shared,
    /// The cache is too full.
    Full,
}

/// What the beginning of a prompt has in common with what runs.
struct Common {
    /// With what a sequence has computed: who has most, and how much.
    most: Option<(SeqId, usize)>,
    /// With what is being read, and will be there.
    soon: usize,
}

impl Scheduler {
    pub(super) fn new(context: Context, driver: Driver, parallel: usize) -> Self {
        Scheduler {
            context,
            driver,
            parallel,
            queue: VecDeque::new(),
            is_last: false,
            running: Vec::new(),
            alone: 0,
            stats: Stats::default(),
        }
    }

    /// Computes until all is answered, or Ctrl-C. `tick` is called before each pass.
    pub(super) fn run(&mut self, desk: &mut Desk<'_>, tick: &mut dyn FnMut(&Desk<'_>, &Stats)) -> Result<()> {
        loop {
            interrupt::check()?;
            mapped::check_at_times()?;
            self.admit(desk)?;
            tick(desk, &self.stats);
            if self.running.is_empty() {
                return mapped::check();
            }
            self.pass(desk)?;
        }
    }

    /// Gives jobs sequences, in the queue's order but for those that wait for a prompt.
    fn admit(&mut self, desk: &mut Desk<'_>) -> Result<()> {
        let mut at = 0;
        let most = if self.alone > 0 { 1 } else { self.parallel };
        while self.running.len() < most {
            // Jobs that wait are as many as could run: looking farther ahead would only take memory.
            while self.queue.len() <= at && at < self.parallel && !self.is_last {
                match desk.next()? {
                    Some(job) => self.queue.push_back(job),
                    None => self.is_last = true,
                }
            }
            if at >= self.queue.len() {
                break;
            }
            match self.open(at)? {
                Ok(id) => {
                    if let Some(job) = self.queue.remove(at) {
                        self.begin(desk, id, job)?;
                    }
                }
                Err(Later::Shared) => at += 1,
                Err(Later::Full) => break,
            }
        }
        Ok(())
    }

    /// A sequence for the job at this place of the queue.
    fn open(&mut self, at: usize) -> Result<Result<SeqId, Later>> {
        let tokens = self.queue[at].tokens();
        // The last one is always computed, for its logits.
        let before_last = &tokens[..tokens.len() - 1];
        let (mut id, mut cached) = self.context.open_prefix(before_last)?;
        let Common { most, mut soon } = self.in_common(before_last);
        if let Some((other, len)) = most.filter(|(_, len)| *len >= cached + WORTH_SHARING) {
            // There are no more handles than are needed.
            self.context.close(id)?;
            (id, cached) = match self.context.fork(other, len) {
                Ok(fork) => (fork, len),
                // A window has passed that place: only whole pages are left to share.
                Err(Error::WindowPassed { .. }) => {
                    soon = soon / PAGE * PAGE;
                    self.context.open_prefix(before_last)?
                }
                Err(error) => return Err(error.into()),
            };
        }
        let later = if soon >= cached + WORTH_SHARING {
            Later::Shared
        } else if self.is_full(tokens.len(), cached) {
            Later::Full
        } else {
            return Ok(Ok(id));
        };
        self.context.close(id)?;
        Ok(Err(later))
    }

    /// What the beginning of some tokens has in common with what runs.
    fn in_common(&self, tokens: &[u32]) -> Common {
        let mut found = Common { most: None, soon: 0 };
        // Of a state there is one at the end of a page, which the index gives.
        let by_page = self.context.model().has_state();
        for other in &self.running {
            let others = other.generation.tokens();
            let common = others.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            if other.generation.is_reading() {
                found.soon = found
                    .soon
                    .max(if by_page { common / PAGE * PAGE } else { common });
            }
            let here = common.min(other.cached());
            if !by_page && here > found.most.map_or(0, |(_, most)| most) {
                found.most = Some((other.generation.sequence(), here));
            }
        }
        found
    }

    /// Whether the cache has no room for one more sequence of so many tokens, beside what the others are going to take
    /// next. A single sequence may always try.
    fn is_full(&self, len: usize, cached: usize) -> bool {
        if self.running.is_empty() {
            return false;
        }
        // In a pass each has the state that it goes on from and the one that it leaves.
        let states = self.context.options().states();
        if self.context.model().has_state() && 2 * (self.running.len() + 1) > states {
            return true;
        }
        let others = self.running.iter();
        let others = others.map(|other| (other.cached(), other.generation.tokens().len()));
        // With the page that it goes on in, which may be a copy of a shared one.
        !self.context.has_room(others.chain([(cached, len + PAGE)]))
    }

    fn begin(&mut self, desk: &mut Desk<'_>, id: SeqId, mut job: Job) -> Result<()> {
        let generation = match job.begun.take() {
            Some(mut generation) => {
                generation.go_on_in(&mut self.context, id)?;
                generation
            }
            None => {
                let tokenizer = &desk.prompts.tokenizer;
                let sampler = match job.sampler.take() {
                    Some(sampler) => sampler,
                    None => job.sampling.sampler(tokenizer, desk.prompts.n_ctx)?,
                };
                let (prompt, limits) = (&job.prompt, &job.limits);
                let generation = Generation::new(&mut self.context, id, prompt, sampler, tokenizer, limits)?;
                self.stats.prompt_tokens += prompt.len() as u64;
                self.stats.shared += generation.counts().reused as u64;
                generation
            }
        };
        self.running.push(Running {
            job,
            generation,
            published: 0,
            outcome: None,
        });
        self.stats.most = self.stats.most.max(self.running.len());
        Ok(())
    }

    /// One pass, and what comes of it.
    fn pass(&mut self, desk: &mut Desk<'_>) -> Result<()> {
        let start = Instant::now();
        match self.driver.pass(&mut self.context, &mut self.running) {
            Ok(_) => self.stats.passes += 1,
            Err(error @ (Error::CacheFull { .. } | Error::StatesFull { .. })) => {
                return self.make_room(desk, &error);
            }
            Err(error) if error.class() == Class::Model => return self.one_by_one(desk, &error),
            Err(error) => return Err(error.into()),
        }
        let mut texts = Vec::new();
        let (driver, context) = (&mut self.driver, &mut self.context);
        driver.finish(context, &mut self.running, start.elapsed(), &mut |i, event| {
            texts.push(match event {
                Event::Token { text, .. } => (i, text.to_owned(), None),
                Event::End { end, text } => (i, text.to_owned(), Some(Ok(finish(end)))),
                Event::Failed(error) => (i, String::new(), Some(Err(error))),
            });
        });
        for (i, text, outcome) in texts {
            let running = &mut self.running[i];
            let given = u64::from(outcome.is_none());
            self.stats.generated += given;
            running.job.given += given;
            running.job.text.push_str(&text);
            running.outcome = outcome;
        }
        self.publish()?;
        // From the end, so that places stay what they are.
        for i in (0..self.running.len()).rev() {
            match self.running[i].outcome.take() {
                None => {}
                Some(Ok(finish)) => self.end(desk, i, Ok(finish))?,
                Some(Err(error)) => match error.class() {
                    Class::Request => self.end(desk, i, Err(Fault::whole(error.to_string())))?,
                    Class::Model => self.end(desk, i, Err(Fault::here(error.to_string())))?,
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    /// Gives the index what was read of prompts. What is generated is looked for by nobody.
    fn publish(&mut self) -> Result<()> {
        for running in &mut self.running {
            let whole = running.cached().min(running.job.prompt.len()) / PAGE;
            if whole > running.published {
                self.context.publish(running.generation.sequence())?;
                running.published = whole;
            }
        }
        Ok(())
    }

    /// Ends a sequence and answers its job.
    fn end(&mut self, desk: &mut Desk<'_>, i: usize, outcome: Result<Finish, Fault>) -> Result<()> {
        let Running { job, generation, .. } = self.running.remove(i);
        self.context.close(generation.sequence())?;
        self.alone = self.alone.saturating_sub(1);
        let counts = generation.counts();
        self.stats.drafted += counts.drafted;
        self.stats.accepted += counts.accepted;
        desk.answer(job, outcome.map(|finish| (counts.generated, finish)))
    }

    /// After a pass that found no room: the youngest sequence goes back to the queue. What it has computed stays in the
    /// prefix index as long as nobody needs the pages.
    fn make_room(&mut self, desk: &mut Desk<'_>, error: &Error) -> Result<()> {
        if self.running.len() == 1 {
            let what = format!("the text is longer than --cache-size allows: {error}");
            return self.end(desk, 0, Err(Fault::here(what)));
        }
        if let Some(Running {
            mut job, generation, ..
        }) = self.running.pop()
        {
            self.context.publish(generation.sequence())?;
            self.context.close(generation.sequence())?;
            job.begun = Some(generation);
            self.queue.push_front(job);
            self.stats.put_back += 1;
        }
        Ok(())
    }

    /// After a pass in which a number was not finite: which sequence it was of is found by computing each alone, from
    /// its prompt on, for some have chosen tokens in that pass.
    fn one_by_one(&mut self, desk: &mut Desk<'_>, error: &Error) -> Result<()> {
        if self.running.len() == 1 {
            return self.end(desk, 0, Err(Fault::here(error.to_string())));
        }
        self.alone = self.running.len();
        while let Some(Running {
            mut job, generation, ..
        }) = self.running.pop()
        {
            self.context.close(generation.sequence())?;
            // All of it comes again, and is counted then.
            self.stats.prompt_tokens -= job.prompt.len() as u64;
            self.stats.shared -= generation.counts().reused as u64;
            self.stats.generated -= std::mem::take(&mut job.given);
            job.text.clear();
            self.queue.push_front(job);
        }
        Ok(())
    }
}

fn finish(end: End) -> Finish {
    match end {
        End::ModelEnded | End::Stop => Finish::Stop,
        End::Limit | End::ContextFull | End::Interrupted => Finish::Length,
    }
}
