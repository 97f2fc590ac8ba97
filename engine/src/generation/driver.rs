//! The driver: passes over any number of generations.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::cost::{Cost, Made};
use super::draft::{DraftModel, MAX_DRAFT, Source, Speculation, Wish};
use super::lookup::Rate;
use super::{Event, Generation};
use crate::batch::Batch;
use crate::context::Context;
use crate::model::Sink;
use crate::sample::Scratch;
use crate::team::Team;
use crate::{Error, Result};

/// Gets the logits of a position: index of the generation, position, logits.
type Tap<'a> = &'a mut dyn FnMut(usize, usize, &[f32]);

/// What passes over generations need beside them: a batch, a sampler's scratch for each worker, and what is known of drafts. One is used for
/// one context, in turns of [`Self::pass`] and [`Self::finish`].
///
/// ```no_run
/// # use twinfer_engine::{Result, context::Context, generation::{Driver, Event, Generation}};
/// # use std::time::Duration;
/// # fn all(context: &mut Context, mut generation: Generation, now: impl Fn() -> Duration) -> Result<String> {
/// let (mut driver, mut text) = (Driver::default(), String::new());
/// let generations = std::slice::from_mut(&mut generation);
/// while !generations[0].is_over() {
///     let start = now();
///     driver.pass(context, generations)?;
///     let mut failed = None;
///     driver.finish(context, generations, now() - start, &mut |_, event| match event {
///         Event::Token { text: piece, .. } | Event::End { text: piece, .. } => text.push_str(piece),
///         Event::Failed(error) => failed = Some(error),
///     });
///     failed.map_or(Ok(()), Err)?;
/// }
/// # Ok(text)
/// # }
/// ```
#[derive(Debug)]
pub struct Driver {
    batch: Batch,
    /// One for each of those that choose at a time.
    scratch: Vec<Mutex<Scratch>>,
    /// Which generation has the rows from which one on, of those that have any.
    order: Vec<(usize, usize)>,
    /// The generation whose turn it is to be first.
    turn: usize,
    speculation: Speculation,
    draft_model: Option<DraftModel>,
    model_rate: Rate,
    cost: Cost,
    made: Made,
}

/// Has each generation choose from its logits.
struct Choosing<'a, 'b, G> {
    generations: &'a mut [G],
    /// As the driver has it.
    order: &'a [(usize, usize)],
    /// Whose rows came last: a place in `order`.
    owner: usize,
    scratch: &'a [Mutex<Scratch>],
    tap: Option<&'a mut Tap<'b>>,
}

impl<G: AsMut<Generation> + Send> Choosing<'_, '_, G> {
    /// The generation that a row belongs to, and which of its rows it is. Rows come in order.
    fn owner(&mut self, row: usize) -> Option<(usize, usize)> {
        while self
            .order
            .get(self.owner + 1)
            .is_some_and(|&(_, first)| first <= row)
        {
            self.owner += 1;
        }
        let &(index, first) = self.order.get(self.owner)?;
        Some((index, row - first))
    }
}

impl<G: AsMut<Generation> + Send> Sink for Choosing<'_, '_, G> {
    fn take(&mut self, row: usize, logits: &[f32]) {
        let Some((index, row)) = self.owner(row) else {
            return;
        };
        let generation = self.generations[index].as_mut();
        if generation.logits(row, logits, &mut free(self.scratch))
            && let Some(tap) = &mut self.tap
        {
            tap(index, generation.computed + row, logits);
        }
    }

    /// Each generation's logits in order, those of several by as many workers.
    fn take_logits(
        &mut self,
        team: &Team,
        rows: &mut dyn Iterator<Item = usize>,
        logits: &[f32],
        n_vocab: usize,
    ) -> Result<()> {
        let all = logits.chunks_exact(n_vocab);
        if self.tap.is_some() || all.len() == 1 || team.workers() == 1 {
            all.zip(rows).for_each(|(logits, row)| self.take(row, logits));
            return Ok(());
        }
        for generation in self.generations.iter_mut() {
            generation.as_mut().pass.logits = 0..0;
        }
        for (at, row) in (0..all.len()).zip(rows) {
            let Some((index, row)) = self.owner(row) else {
                continue;
            };
            let pass = &mut self.generations[index].as_mut().pass;
            if pass.logits.is_empty() {
                (pass.logits, pass.first_row) = (at..at, row);
            }
            pass.logits.end = at + 1;
        }
        let scratch = self.scratch;
        team.each(self.generations, |_, generation| {
            let generation = generation.as_mut();
            let own = generation.pass.logits.clone();
            if own.is_empty() {
                return;
            }
            let first = generation.pass.first_row;
            let mut scratch = free(scratch);
            let own = &logits[own.start * n_vocab..own.end * n_vocab];
            // The rows that want logits are the last ones of a generation, or all.
            for (i, logits) in own.chunks_exact(n_vocab).enumerate() {
                generation.logits(first + i, logits, &mut scratch);
            }
        })
    }
}

/// One that nobody has. There are as many as choose at a time, so the first look finds one, or nearly.
fn free(scratch: &[Mutex<Scratch>]) -> MutexGuard<'_, Scratch> {
    loop {
        for one in scratch {
            match one.try_lock() {
                Ok(own) => return own,
                Err(TryLockError::Poisoned(poisoned)) => {
                    // A panic may have left counts in it.
                    let mut own = poisoned.into_inner();
                    *own = Scratch::default();
                    return own;
                }
                Err(TryLockError::WouldBlock) => {}
            }
        }
        std::hint::spin_loop();
    }
}

impl Default for Driver {
    /// With drafts by lookup, where they pay.
    fn default() -> Self {
        Self::new(Speculation::default(), None)
    }
}

impl Driver {
    /// A driver that speculates as it is told.
    pub fn new(speculation: Speculation, draft_model: Option<DraftModel>) -> Self {
        let draft_max = speculation.draft_max.min(MAX_DRAFT);
        Driver {
            batch: Batch::new(),
            scratch: Vec::new(),
            order: Vec::new(),
            turn: 0,
            speculation: Speculation {
                draft_max,
                ..speculation
            },
            draft_model: draft_model.filter(|_| draft_max > 0),
            model_rate: Rate::expected(0.7),
            cost: Cost::default(),
            made: Made::default(),
        }
    }

    /// One pass over those that are not over: a row of each that makes text, drafts where they pay, then as much of the
    /// prompts as fits, those of the first generations first. Returns the number of rows; [`Self::finish`] gives out
    /// what came of it.
    ///
    /// # Errors
    /// As [`Context::forward`]. Nothing has changed then, so with fewer generations, or after others have ended, the pass can be
    /// made again; but those that had chosen a token before the pass failed (it met values that are not finite) fail with it.
    pub fn pass<G: AsMut<Generation> + Send>(
        &mut self,
        context: &mut Context,
        generations: &mut [G],
    ) -> Result<usize> {
        self.pass_tapped(context, generations, None)
    }

    /// As [`Self::pass`], with a look at the logits: `tap(generation, position, logits)` gets those of each position of
    /// the texts that were computed, and not those of drafts that are not in it.
    ///
    /// # Errors
    /// As [`Self::pass`].
    pub fn pass_with<G: AsMut<Generation> + Send>(
        &mut self,
        context: &mut Context,
        generations: &mut [G],
        tap: Tap<'_>,
    ) -> Result<usize> {
        self.pass_tapped(context, generations, Some(tap))
    }

    fn pass_tapped<G: AsMut<Generation> + Send>(
        &mut self,
        context: &mut Context,
        generations: &mut [G],
        mut tap: Option<Tap<'_>>,
    ) -> Result<usize> {
        // What drafts that are not taken have done to a state could not be undone.
        let most = if context.model().has_state() {
            0
        } else {
            self.speculation.draft_max
        };
        self.draft(generations, context.options().n_batch, most);
        let result = self.forward(context, generations, tap.as_mut());
        if !matches!(result, Err(Error::CacheFull { .. })) {
            return result;
        }
        // The drafts' rows may be what was too much.
        let mut drafts = 0;
        for generation in generations.iter_mut() {
            let made = &mut generation.as_mut().pass.drafts;
            drafts += made.len();
            made.clear();
        }
        if drafts == 0 {
            return result;
        }
        self.forward(context, generations, tap.as_mut())
    }

    fn forward<G: AsMut<Generation> + Send>(
        &mut self,
        context: &mut Context,
        generations: &mut [G],
        tap: Option<&mut Tap<'_>>,
    ) -> Result<usize> {
        self.fill(generations, context.options().n_batch);
        // As many as can choose at a time.
        let at_a_time = context.team().workers().min(self.order.len()).max(1);
        if self.scratch.len() < at_a_time {
            self.scratch.resize_with(at_a_time, Mutex::default);
        }
        let (mut n_vocab, mut history) = (0, 0);
        for &(index, _) in &self.order {
            let sampler = &generations[index].as_mut().sampler;
            (n_vocab, history) = (n_vocab.max(sampler.n_vocab()), history.max(sampler.dry_history()));
        }
        for scratch in &mut self.scratch[..at_a_time] {
            let scratch = scratch.get_mut().unwrap_or_else(PoisonError::into_inner);
            scratch.fit(n_vocab, history);
        }
        let mut sampling = Choosing {
            generations: &mut *generations,
            order: &self.order,
            owner: 0,
            scratch: &self.scratch[..at_a_time],
            tap,
        };
        let result = context.forward_into(&mut self.batch, &mut (), &mut sampling);
        if let Err(error) = result {
            for generation in generations.iter_mut() {
                generation.as_mut().pass_failed(&error);
            }
            self.made = Made::default();
            return Err(error);
        }
        if !context.model().has_state() {
            self.follow(generations);
        }
        Ok(self.batch.len())
    }

    /// Fills the batch.
    fn fill<G: AsMut<Generation>>(&mut self, generations: &mut [G], n_batch: usize) {
        self.batch.clear();
        self.order.clear();
        self.made = Made::default();
        let n = generations.len();
        let mut waiting = 0;
        for generation in generations.iter_mut() {
            let generation = generation.as_mut();
            generation.pass.rows = 0;
            waiting += usize::from(generation.pending() == 1);
        }
        let turn = if waiting > n_batch { self.turn } else { 0 };
        for index in (0..n).map(|i| (i + turn) % n) {
            let generation = generations[index].as_mut();
            if generation.pending() != 1 || self.batch.len() == n_batch {
                continue;
            }
            // A row is kept for each that comes after.
            waiting -= 1;
            let room = (n_batch - self.batch.len()).saturating_sub(waiting).max(1);
            self.order.push((index, self.batch.len()));
            let rows = generation.rows(&mut self.batch, room);
            self.made.rows += 1;
            self.made.drafts += rows - 1;
            self.made.by_model |= rows > 1 && generation.pass.drafts.source == Source::Model;
            self.turn = index + 1;
        }
        for (index, generation) in generations.iter_mut().enumerate() {
            let generation = generation.as_mut();
            if generation.pending() > 1 && self.batch.len() < n_batch {
                self.order.push((index, self.batch.len()));
                let room = n_batch - self.batch.len();
                generation.rows(&mut self.batch, room);
                self.made.reading = true;
            }
        }
    }

    /// Makes drafts for the next pass, at most so many of each.
    fn draft<G: AsMut<Generation>>(&mut self, generations: &mut [G], n_batch: usize, draft_max: usize) {
        let Speculation {
            lookup,
            always,
            draft_min,
            p_min,
            ..
        } = self.speculation;
        let (mut decoding, mut reading) = (0, false);
        for generation in generations.iter_mut() {
            let generation = generation.as_mut();
            generation.pass.drafts.clear();
            generation.pass.wanted = 0;
            decoding += usize::from(generation.pending() == 1);
            reading |= generation.pending() > 1;
        }
        if draft_max == 0 || !lookup && self.draft_model.is_none() {
            return;
        }
        let mut rows = decoding;
        for generation in generations.iter_mut() {
            let generation = generation.as_mut();
            if generation.pending() != 1 {
                continue;
            }
            if lookup {
                generation.history.update(&generation.tokens);
            }
            let most = generation
                .most_drafts()
                .min(draft_max)
                .min(n_batch.saturating_sub(rows));
            if most < draft_min.max(1) || reading && !always {
                continue;
            }
            let drafts = &mut generation.pass.drafts;
            if let Some(found) = generation.history.found() {
                let n = if always {
                    most
                } else {
                    let chance = |i| generation.history.chance(found, i);
                    self.cost.choose(rows, false, most, &chance)
                };
                drafts.source = Source::Lookup;
                generation
                    .history
                    .draft(&generation.tokens, found, n, &mut drafts.list);
            }
            if self.draft_model.is_some() && drafts.list.is_empty() {
                drafts.source = Source::Model;
                generation.pass.wanted = if always {
                    most
                } else {
                    let rate = self.model_rate.share();
                    self.cost.choose(rows, true, most, &|_| rate)
                };
            }
            rows += drafts.len() + generation.pass.wanted;
        }
        if let Some(model) = &mut self.draft_model {
            let generations = generations.iter_mut().map(AsMut::as_mut);
            let wanted = generations.filter(|generation| generation.pass.wanted > 0);
            let mut wishes: Vec<Wish<'_>> = wanted.map(Generation::wish).collect();
            if !wishes.is_empty() {
                model.draft(&mut wishes, p_min);
            }
        }
        for generation in generations.iter_mut() {
            let generation = generation.as_mut();
            let drafts = &mut generation.pass.drafts;
            let known = u32::try_from(generation.sampler.n_vocab()).unwrap_or(u32::MAX);
            let end = drafts.list.iter().position(|&token| token >= known);
            drafts.truncate(end.unwrap_or(drafts.len()));
            if drafts.len() < draft_min {
                drafts.clear();
            }
        }
    }

    /// The draft model reads the prompts that were read.
    fn follow<G: AsMut<Generation>>(&mut self, generations: &mut [G]) {
        let Some(model) = &mut self.draft_model else {
            return;
        };
        let generations = generations.iter_mut().map(AsMut::as_mut);
        let read = generations.filter(|generation| generation.pass.reading && generation.pass.rows > 0);
        let mut wishes: Vec<Wish<'_>> = read
            .map(|generation| {
                let read = generation.computed + generation.pass.rows;
                let wish = generation.wish();
                Wish {
                    // A pass that chose a token has pushed it already.
                    tokens: &wish.tokens[..read],
                    n: 0,
                    ..wish
                }
            })
            .collect();
        if !wishes.is_empty() {
            model.draft(&mut wishes, 0.0);
        }
    }

    /// The pass is over and took so long: `on_event(generation, event)` gets what came of it, text by text. Called as
    /// well where a pass failed, it gives out what failed with it.
    pub fn finish<G: AsMut<Generation>>(
        &mut self,
        context: &mut Context,
        generations: &mut [G],
        elapsed: Duration,
        on_event: &mut dyn FnMut(usize, Event<'_>),
    ) {
        let mut accepted = 0;
        for (index, generation) in generations.iter_mut().enumerate() {
            let generation = generation.as_mut();
            let before = generation.counts;
            let by_model = generation.pass.drafts.source == Source::Model;
            generation.finish_pass(context, elapsed, &mut |event| on_event(index, event));
            let right = generation.counts.accepted - before.accepted;
            let drafted = generation.counts.drafted - before.drafted;
            accepted += right;
            if by_model {
                for i in 0..drafted.min(right + 1) {
                    self.model_rate.add(i < right);
                }
            }
            if let (Some(model), true) = (&mut self.draft_model, generation.over) {
                model.give_back(&mut generation.draft_sequence);
            }
        }
        self.cost.add(std::mem::take(&mut self.made), elapsed, accepted);
    }
}
