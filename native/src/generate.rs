//! The loop that turns a prompt into text: what `run` and `chat` share.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use twinfer_engine::Error;
use twinfer_engine::cache::SeqId;
use twinfer_engine::context::Context;
use twinfer_engine::generation::{
    Bounds, Checkpoints, Counts, DraftModel, Driver, End, Event, Generation, Speculation,
};
use twinfer_engine::model::config::Config;
use twinfer_engine::sample::Sampler;
use twinfer_engine::tokenizer::Tokenizer;

use crate::compute::Compute;
use crate::interrupt;
use crate::load;
use crate::mapped;
use crate::progress::Progress;
use crate::settings::{GenerationSettings, Verbosity};

/// Rows of a pass of the draft model: it reads prompts beside the model.
const N_BATCH: usize = 512;

/// Checkpoints of a conversation: the beginning and the end of each of its last answers.
const CHECKPOINTS: usize = 4;

/// How a generation ended, and its measures.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) counts: Counts,
}

impl Outcome {
    /// The one-line summary that ends a run.
    pub(crate) fn summary(&self) -> String {
        let speed = |n: usize, time: Duration| n as f64 / time.as_secs_f64().clamp(1e-9, f64::MAX);
        let end = match self.end {
            End::ModelEnded => "",
            End::Stop => "; stopped at a stop string",
            End::Limit => "; stopped at --predict",
            End::ContextFull => "; stopped because the context is full (see --ctx-size)",
            End::Interrupted => "; interrupted",
        };
        let counts = &self.counts;
        let mut summary = format!(
            "prompt: {} tokens, {:.1} tokens/s; generated: {} tokens",
            counts.read,
            speed(counts.read, counts.reading),
            counts.generated,
        );
        if counts.decoded > 0 {
            let speed = speed(counts.decoded, counts.decoding);
            summary.push_str(&format!(", {speed:.1} tokens/s"));
        }
        summary + end
    }

    /// Tells how much of the prompt the cache held already, to who wants to know.
    pub(crate) fn tell_reuse(&self, verbosity: Verbosity) {
        let Counts { reused, read, .. } = self.counts;
        verbosity.detail(&format!("prompt: {reused} tokens reused, {read} read"));
    }

    /// Tells what drafts did, if there were any, to who wants to know. The text's last line has ended.
    pub(crate) fn tell_speculation(&self, verbosity: Verbosity) {
        let Counts {
            passes,
            decoded,
            drafted,
            accepted,
            ..
        } = self.counts;
        if drafted > 0 {
            verbosity.detail(&format!(
                "speculation: {accepted} of {drafted} drafts were right ({:.0} %); {passes} passes gave {decoded} tokens",
                100.0 * accepted as f64 / drafted as f64
            ));
        }
    }
}

/// A context with one sequence, which goes from one text to the next: what they share at the beginning is computed
/// once.
#[derive(Debug)]
pub(crate) struct Session {
    context: Context,
    sequence: SeqId,
    driver: Driver,
    verbosity: Verbosity,
    /// Where the texts are those of a conversation, the places that it may go back to.
    checkpoints: Option<Checkpoints>,
}

impl Session {
    pub(crate) fn new(mut context: Context, driver: Driver, verbosity: Verbosity) -> Result<Self> {
        let sequence = context.open()?;
        Ok(Self {
            context,
            sequence,
            driver,
            verbosity,
            checkpoints: None,
        })
    }

    /// For texts of a conversation, which goes back to earlier places: they are kept as far as there is room.
    pub(crate) fn of_conversation(mut self) -> Self {
        self.checkpoints = Some(Checkpoints::new(CHECKPOINTS));
        self
    }

    /// Positions that the context has.
    pub(crate) fn capacity(&self) -> usize {
        self.context.options().n_ctx
    }

    /// Tokens in the cache.
    pub(crate) fn len(&self) -> usize {
        self.context.seq_len(self.sequence).unwrap_or(0)
    }

    /// Evaluates the prompt (what of it is not cached) and generates. `on_text` gets each piece of text that is
    /// complete. The sampler goes on from text to text; where this one fails, it is as it was.
    pub(crate) fn generate(
        &mut self,
        tokenizer: &Tokenizer,
        sampler: &mut Sampler,
        prompt: &[u32],
        bounds: &Bounds,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Outcome> {
        let _guard = interrupt::Guard::new();
        let (context, driver, sequence) = (&mut self.context, &mut self.driver, self.sequence);
        let mut checkpoints = self.checkpoints.as_mut();
        if let Some(checkpoints) = &mut checkpoints {
            checkpoints.go_back(context, sequence, prompt)?;
        }
        let mut generation = Generation::new(context, sequence, prompt, sampler.clone(), tokenizer, bounds)?;
        // A state cannot be cut by that one token, which the next answer to this prompt reads again.
        let has_state = context.model().has_state();
        if has_state && checkpoints.is_some() {
            generation = generation.with_last_alone();
        }
        let (prompt_end, mut kept) = (prompt.len() - usize::from(has_state), false);
        let total = generation.pending() as u64;
        let mut progress = Some(Progress::new("reading the prompt", total, self.verbosity));
        while !generation.is_over() {
            if let Some(checkpoints) = &mut checkpoints
                && !kept
                && context.seq_len(sequence)? >= prompt_end
            {
                checkpoints.keep(context, sequence)?;
                kept = true;
            }
            let start = Instant::now();
            // Before the pass: after it the token that it chose is pending as well.
            let pending = generation.pending();
            let generations = std::slice::from_mut(&mut generation);
            let rows = loop {
                let made = driver.pass(context, generations);
                let is_full = matches!(made, Err(Error::CacheFull { .. } | Error::StatesFull { .. }));
                // What the conversation may go back to gives way to where it is.
                let checkpoints = checkpoints.as_mut().filter(|_| is_full);
                if !checkpoints.is_some_and(|checkpoints| checkpoints.drop_oldest(context)) {
                    break made?;
                }
            };
            let elapsed = start.elapsed();
            mapped::check_at_times()?;
            // The prompt is read: what is printed from now on shall not meet the bar.
            if rows >= pending {
                progress = None;
            }
            if let Some(bar) = &mut progress {
                bar.add(rows as u64);
            }
            let mut printed = Ok(());
            let mut on_event = |_: usize, event: Event<'_>| {
                if printed.is_err() {
                    return;
                }
                printed = match event {
                    Event::Token { text, .. } | Event::End { text, .. } if text.is_empty() => Ok(()),
                    Event::Token { text, .. } | Event::End { text, .. } => on_text(text),
                    Event::Failed(error) => Err(error.into()),
                };
            };
            let generations = std::slice::from_mut(&mut generation);
            driver.finish(context, generations, elapsed, &mut on_event);
            if interrupt::requested() {
                generation.interrupt(&mut |event| on_event(0, event));
            }
            printed?;
        }
        mapped::check()?;
        if let Some(checkpoints) = checkpoints {
            checkpoints.keep(context, sequence)?;
        }
        let outcome = Outcome {
            end: generation.end().unwrap_or(End::Interrupted),
            counts: *generation.counts(),
        };
        *sampler = generation.into_sampler();
        Ok(outcome)
    }
}

/// The draft model's cache takes at most one of so many parts of the memory that is free where it is for many sequences.
const DRAFT_SHARE: u64 = 8;

/// What makes passes of a model that is planned, of so many sequences together, with the draft model if there is one;
/// before the model itself is loaded, which may take long.
pub(crate) fn driver(
    settings: &GenerationSettings,
    compute: &Compute<'_>,
    tokenizer: &Tokenizer,
    (config, verbosity): (&Config, Verbosity),
    n_sequences: usize,
) -> Result<Driver> {
    if config.has_state() {
        if settings.draft_model.is_some() {
            verbosity.note("note: the draft model is left out: layers of the model keep a state, which cannot take drafts back");
        }
        return Ok(Driver::new(Speculation::OFF, None));
    }
    let load = |path: &Path| -> Result<DraftModel> {
        let file = load::open(path)?;
        let own = Tokenizer::from_metadata(file.metadata())?;
        DraftModel::check(&own, tokenizer)?;
        let planned = compute.plan(&file)?;
        let sizes = (compute.context_size(planned.config()), N_BATCH.max(n_sequences));
        let options = match n_sequences {
            1 => compute.one_sequence(sizes.0, sizes.1),
            n => {
                let pool = compute.shared_pool(&planned, sizes, (n, DRAFT_SHARE))?;
                compute.sequences(sizes, n, pool)
            }
        };
        let model = compute.load(planned, &options)?;
        Ok(DraftModel::new(
            compute.context(&model, options)?,
            &own,
            tokenizer,
        )?)
    };
    let draft_model = settings
        .draft_model
        .as_deref()
        .map(|path| load(path).with_context(|| format!("the draft model `{}`", path.display())));
    Ok(Driver::new(settings.speculation, draft_model.transpose()?))
}

/// A seed that differs each time.
pub(crate) fn random_seed() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library seeds each hasher from the system's entropy.
    let random = std::hash::RandomState::new().build_hasher().finish();
    (random >> 32) as u32
}
