//! What computes: a team of workers and the memory that it is lent, and with them models and contexts.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use twinfer_engine::cache::Pool;
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::Storage;
use twinfer_engine::memory::{Bytes, Memory};
use twinfer_engine::model::config::Config;
use twinfer_engine::model::loader::Loader;
use twinfer_engine::model::plan::ModelPlan;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

use crate::args::HugePages;
use crate::budget::{self, Budget, Choice, Room};
use crate::memory::Pages;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::topology::write_list;
use crate::workers::{Pinned, Workers};
use crate::{direct_io, mapped, resident, system};

/// The largest context that is made when nobody asked for a size: some models were trained on a million tokens, whose
/// cache no machine should reserve unasked.
const DEFAULT_CTX: usize = 4096;

/// A pool for many sequences has room for so many that are as long as the context.
const DEFAULT_WHOLE: usize = 32;

/// Tokens up to which the memory of a context is computed.
const LARGEST_COUNTED_CTX: usize = u32::MAX as usize;

/// A command's team, started once, and the memory that its weights are packed into.
#[derive(Debug)]
pub(crate) struct Compute<'a> {
    settings: &'a Settings,
    workers: &'a Workers,
    team: Team,
    pages: Arc<Pages>,
    /// Bytes of the contexts made so far. Their pages take no memory before they are used.
    promised: Cell<u64>,
}

impl<'a> Compute<'a> {
    /// Starts the team.
    pub(crate) fn start(settings: &'a Settings, workers: &'a Workers) -> Result<Self> {
        if let (Err(why), Some(true)) = (&workers.pins, settings.workers.pinning) {
            let text = format!("note: the workers are not pinned: {why}");
            settings.verbosity.note(&text);
        }
        let team = workers.start()?;
        let huge = settings.weights.huge_pages != HugePages::Off;
        Ok(Compute {
            settings,
            workers,
            pages: Arc::new(Pages::new(huge, team.nodes())),
            team,
            promised: Cell::new(0),
        })
    }

    pub(crate) fn team(&self) -> &Team {
        &self.team
    }

    /// Where packed weights lie.
    pub(crate) fn memory(&self) -> &dyn Memory {
        &*self.pages
    }

    /// See [`Workers::pin_caller`].
    pub(crate) fn pin_caller(&self) -> Pinned {
        self.workers.pin_caller()
    }

    /// What messages call a model: it may be the one that the settings name, a draft model, or one made for a
    /// measurement.
    fn name_of(&self, file: &ModelFile) -> String {
        let only = match file.parts() {
            [part] => mapped::file_of(part),
            _ => None,
        };
        match (only, self.settings.source.path()) {
            (Some(entry), _) => format!("`{}`", entry.path().display()),
            (None, Some(path)) => format!("`{}`", path.display()),
            (None, None) => "the model".into(),
        }
    }

    fn load_options(&self, storage: Storage, experts: Option<Storage>) -> LoadOptions {
        LoadOptions {
            backend: self.settings.weights.backend.clone(),
            storage,
            experts,
            placement: self.workers.placement(),
            team: Some(self.team.clone()),
            memory: Some(Arc::clone(&self.pages) as _),
        }
    }

    /// What loading a model will take.
    pub(crate) fn plan<'f>(&self, file: &'f ModelFile) -> Result<PlannedModel<'f>> {
        let weights = &self.settings.weights;
        let experts = weights.experts;
        let model = self.model_plan(file, experts)?;
        let direct = match weights.direct_io.then(|| direct_io::open(file)) {
            Some(Ok(sources)) => Some(sources),
            Some(Err(error)) => {
                let text = format!("note: --direct-io: {error:#}; reading through the system's cache");
                self.settings.verbosity.note(&text);
                None
            }
            None => None,
        };
        Ok(PlannedModel {
            file,
            model,
            experts,
            direct,
        })
    }

    fn model_plan(&self, file: &ModelFile, experts: Option<Storage>) -> Result<ModelPlan> {
        let options = self.load_options(self.settings.weights.storage, experts);
        ModelPlan::of(file, &options).with_context(|| self.name_of(file))
    }

    /// The same, but for experts that stay mapped where all weights do not fit into memory with a context and the
    /// others do, unless it was said where they are to lie.
    pub(crate) fn settle_experts<'f>(
        &self,
        planned: PlannedModel<'f>,
        context: &ContextOptions,
    ) -> Result<PlannedModel<'f>> {
        let open = planned.experts.is_none() && self.settings.weights.storage != Storage::Mapped;
        if !open || !planned.config().has_experts() {
            return Ok(planned);
        }
        let rooms = self.rooms();
        let fits = |model: &ModelPlan| {
            let budget = self.budget_of(&planned, model, context)?;
            let nodes = budget::nodes(Path::new("/"), &budget);
            anyhow::Ok(budget::too_small(&budget, &rooms, &nodes).is_none())
        };
        if fits(&planned.model)? {
            return Ok(planned);
        }
        let experts = Some(Storage::Mapped);
        let model = self.model_plan(planned.file, experts)?;
        if !fits(&model)? {
            return Ok(planned);
        }
        self.settings.verbosity.note(
            "note: there is too little memory to pack all weights: those of experts stay mapped (--experts packed insists)",
        );
        Ok(PlannedModel {
            model,
            experts,
            ..planned
        })
    }

    /// Memory that a model and a context of it will take.
    pub(crate) fn budget(&self, planned: &PlannedModel<'_>, context: &ContextOptions) -> Result<Budget> {
        self.budget_of(planned, &planned.model, context)
    }

    fn budget_of(
        &self,
        planned: &PlannedModel<'_>,
        model: &ModelPlan,
        context: &ContextOptions,
    ) -> Result<Budget> {
        let direct = planned.direct.is_some();
        Ok(Budget {
            weights: model.nodes().to_vec(),
            node_ids: self.workers.node_ids.clone(),
            mapped_is_held: direct || self.settings.weights.mlock,
            loading: if direct {
                direct_io::BUFFERS + Loader::LARGEST_PIECE
            } else {
                0
            },
            context: ContextPlan::of_plan(model, &self.team, &countable(context))?,
        })
    }

    /// Memory that there is, the least first. What was promised to contexts that have not used it yet is not free.
    pub(crate) fn rooms(&self) -> Vec<Room> {
        let mut rooms = budget::rooms(Path::new("/"), self.settings.memory_limit);
        for room in &mut rooms {
            room.free = room.free.saturating_sub(self.promised.get());
        }
        rooms
    }

    /// What fits into the memory that there is in place of what was asked for, as options.
    pub(crate) fn advice(
        &self,
        planned: &PlannedModel<'_>,
        context: &ContextOptions,
        rooms: &[Room],
    ) -> Vec<String> {
        let (storage, experts) = (self.settings.weights.storage, self.settings.weights.experts);
        let has_experts = planned.config().has_experts();
        let mapped = Some(Storage::Mapped);
        // What there is to choose from beside what was asked for. Without experts nobody asks for some of the plans.
        let others: Vec<_> = [
            (storage, mapped),
            (Storage::Mapped, experts),
            (Storage::Mapped, mapped),
        ]
        .into_iter()
        .filter(|lie| *lie != (storage, experts) && (has_experts || lie.1 == experts))
        .filter_map(|lie| {
            let model = ModelPlan::of(planned.file, &self.load_options(lie.0, lie.1)).ok()?;
            Some((lie, model))
        })
        .collect();
        let fits_in = |lie: (Storage, Option<Storage>), context: &ContextOptions| {
            let other = others
                .iter()
                .find(|(other, _)| *other == lie)
                .map(|(_, model)| model);
            let asked = (lie == (storage, experts)).then_some(&planned.model);
            // A cache that a head's width does not go into is no choice.
            let budget = other
                .or(asked)
                .map(|model| self.budget_of(planned, model, context));
            budget.and_then(Result::ok).is_some_and(|budget| {
                budget::too_small(&budget, rooms, &budget::nodes(Path::new("/"), &budget)).is_none()
            })
        };
        let fits = |choice: &Choice| {
            fits_in((choice.storage, choice.experts), &choice.context)
                // As `settle_experts` has it.
                || choice.experts.is_none() && fits_in((choice.storage, mapped), &choice.context)
        };
        let asked = Choice {
            storage,
            experts,
            has_experts,
            has_states: planned.config().has_state(),
            context: context.clone(),
        };
        budget::advice(&asked, &fits)
    }

    /// An error, with what would fit, if there is too little memory for a model and its context.
    fn check(&self, planned: &PlannedModel<'_>, context: &ContextOptions) -> Result<()> {
        let budget = self.budget(planned, context)?;
        let rooms = self.rooms();
        let nodes = budget::nodes(Path::new("/"), &budget);
        if let Some(small) = budget::too_small(&budget, &rooms, &nodes) {
            let advice = self.advice(planned, context, &rooms);
            let what = format!(
                "{} with a context of {} tokens",
                self.name_of(planned.file),
                context.n_ctx
            );
            return Err(anyhow!(budget::refusal(&budget, small, &what, &advice)));
        }
        let in_files = |part: &Bytes| mapped::file_of(part).is_some();
        if let Some(room) = rooms.first()
            && budget.needed().saturating_add(budget.cached_weights()) > room.free
            && planned.file.parts().iter().all(in_files)
        {
            self.settings.verbosity.note(&format!(
                "note: of the file's {} MiB of mapped weights {} MiB stay in memory ({}): the rest is read from the disk \
                 again for every token",
                budget.cached_weights() >> 20,
                room.free.saturating_sub(budget.needed()) >> 20,
                room.limiter,
            ));
        }
        Ok(())
    }

    /// Loads the model, if it fits into memory with the context that is to be made of it.
    pub(crate) fn load(&self, planned: PlannedModel<'_>, context: &ContextOptions) -> Result<Arc<Model>> {
        let Settings {
            source,
            verbosity,
            weights,
            ..
        } = self.settings;
        let planned = self.settle_experts(planned, context)?;
        self.check(&planned, context)?;
        let PlannedModel {
            file,
            experts,
            direct,
            ..
        } = planned;
        let options = self.load_options(weights.storage, experts);
        let start = Instant::now();
        let mut progress = Progress::new("loading", 1, *verbosity);
        let mut on_progress = |done, total| progress.set(done, total);
        let model = match &direct {
            Some(sources) => self.load_direct(file, sources, &options, &mut on_progress),
            None => {
                let _pinned = self.pin_caller();
                Model::load(file, &options, &mut on_progress).map_err(anyhow::Error::new)
            }
        };
        let model = model.with_context(|| self.name_of(file))?;
        drop(progress);
        for part in file.parts() {
            mapped::file_of(part).map_or(Ok(()), mapped::Entry::check_loaded)?;
        }
        for entry in model.weight_data().iter().filter_map(mapped::file_of) {
            entry.set_in_use();
        }
        for text in model.notes() {
            verbosity.note(&format!("note: {text}"));
        }
        resident::settle(weights, *verbosity, self.team(), &model.weight_data())?;
        if verbosity.is_verbose() {
            verbosity.detail(&format!(
                "weights ready after {:.3} s{}",
                start.elapsed().as_secs_f64(),
                match system::peak_memory() {
                    Some(bytes) => format!(", at most {} KiB of memory used so far", bytes >> 10),
                    None => String::new(),
                }
            ));
            let pins = match &self.workers.pins {
                Ok(pins) if self.workers.numa.nodes.is_some() => {
                    format!("on CPUs {}, {}", write_list(pins), self.workers.numa.describe())
                }
                Ok(pins) => format!("on CPUs {}", write_list(pins)),
                Err(why) => format!("not pinned: {why}"),
            };
            verbosity.detail(&format!(
                "{source}: {}, {:.1} M parameters, {:.1} MiB of weights, backend {}, {} threads ({pins})",
                model.config().arch,
                model.parameters() as f64 / 1e6,
                model.weight_bytes() as f64 / f64::from(1 << 20),
                model.backend().name(),
                self.workers.n
            ));
        }
        Ok(Arc::new(model))
    }

    fn load_direct(
        &self,
        file: &ModelFile,
        sources: &[direct_io::Source],
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Model> {
        let mut loader = Loader::new(file.set().clone(), options)?;
        // The threads that read are not on this one's CPU.
        direct_io::load(&mut loader, sources, || self.pin_caller(), progress)?;
        Ok(loader.finish()?)
    }

    /// The context's size: what was asked for, or what the model was trained with up to [`DEFAULT_CTX`].
    pub(crate) fn context_size(&self, config: &Config) -> usize {
        let trained = config.n_ctx_train;
        let Some(size) = self.settings.context.size else {
            return trained.clamp(1, DEFAULT_CTX);
        };
        if size > trained {
            self.settings.verbosity.note(&format!(
                "note: the model was trained with {trained} tokens of context; beyond that its answers get worse"
            ));
        }
        size
    }

    /// One sequence of `n_ctx` positions, in the types that were asked for.
    pub(crate) fn one_sequence(&self, n_ctx: usize, n_batch: usize) -> ContextOptions {
        self.sequences((n_ctx, n_batch), 1, Pool::Whole)
    }

    /// The same for a conversation, which goes back to where it was.
    pub(crate) fn conversation(&self, n_ctx: usize, n_batch: usize) -> ContextOptions {
        // What a window reaches behind the last prompt; the end of the answer before it is not far from there.
        self.sequences((n_ctx, n_batch), 1, Pool::WithCheckpoints(1))
    }

    /// Some sequences of at most `n_ctx` positions, which share a pool of pages.
    pub(crate) fn sequences(
        &self,
        (n_ctx, n_batch): (usize, usize),
        n_sequences: usize,
        pool: Pool,
    ) -> ContextOptions {
        let (cache_type_k, cache_type_v) = self.settings.context.cache;
        ContextOptions {
            n_ctx,
            n_batch,
            n_sequences,
            pool,
            n_states: self.settings.context.states,
            cache_type_k,
            cache_type_v,
        }
    }

    /// A pool for many sequences: of as many as `DEFAULT_WHOLE` that are as long as the context, where so much memory
    /// is free that it is at most one part of `of_free`.
    pub(crate) fn shared_pool(
        &self,
        planned: &PlannedModel<'_>,
        (n_ctx, n_batch): (usize, usize),
        (n_sequences, of_free): (usize, u64),
    ) -> Result<Pool> {
        let one = self.budget(planned, &self.one_sequence(n_ctx, n_batch))?;
        let cache = one.context.cache_bytes();
        let wanted = cache.saturating_mul(DEFAULT_WHOLE.min(n_sequences) as u64);
        let free = self.rooms().first().map_or(u64::MAX, |room| room.free);
        let share = free.saturating_sub(one.needed().saturating_sub(cache)) / of_free;
        // A single sequence of the context's size always has room.
        Ok(Pool::Bytes(wanted.min(share).max(cache)))
    }

    /// As many of these sequences as can be computed together with the states that were asked for: in a pass each has
    /// two.
    pub(crate) fn together(&self, config: &Config, sequences: usize) -> usize {
        match self.settings.context.states {
            Some(states) if config.has_state() => sequences.min(states / 2),
            _ => sequences,
        }
    }

    /// Makes a context of a model that is loaded.
    pub(crate) fn context(&self, model: &Arc<Model>, options: ContextOptions) -> Result<Context> {
        let n_ctx = options.n_ctx;
        let plan = ContextPlan::of(model, &self.team, &countable(&options))?;
        let bytes = plan.cache_bytes().saturating_add(plan.workspace_bytes());
        let rooms = self.rooms();
        if let Some(room) = rooms.first()
            && bytes > room.free
        {
            // Somebody else has taken memory since the model was loaded.
            return Err(anyhow!(
                "a context of {n_ctx} tokens needs {} MiB, {} MiB of memory are free ({}); choose a smaller --ctx-size",
                bytes >> 20,
                room.free >> 20,
                room.limiter
            ));
        }
        self.settings.verbosity.detail(&format!(
            "context of {n_ctx} tokens, {:.1} MiB of cache",
            plan.cache_bytes() as f64 / f64::from(1 << 20)
        ));
        let context = Context::new(Arc::clone(model), self.team.clone(), options)?;
        self.promised.set(self.promised.get().saturating_add(bytes));
        if self.settings.context.populate {
            resident::bring_in_cache(&context, self.settings.verbosity)?;
        }
        Ok(context)
    }
}

/// The sizes with a context that can be counted in pages: one beyond that is beyond any memory as well, and of it the
/// least that it needs is said.
fn countable(options: &ContextOptions) -> ContextOptions {
    ContextOptions {
        n_ctx: options.n_ctx.min(LARGEST_COUNTED_CTX),
        ..options.clone()
    }
}

/// A model that is to be loaded, and what that will take.
#[derive(Debug)]
pub(crate) struct PlannedModel<'f> {
    file: &'f ModelFile,
    model: ModelPlan,
    /// Where experts are to lie, where that is not as for all other weights.
    experts: Option<Storage>,
    /// The files, where they are read past the system's cache.
    direct: Option<Vec<direct_io::Source>>,
}

impl PlannedModel<'_> {
    /// What the model is.
    pub(crate) fn config(&self) -> &Config {
        self.model.config()
    }

    /// As it is, if it writes text.
    pub(crate) fn writing_text(self) -> Result<Self> {
        self.must_write_text().map(|()| self)
    }

    /// An error where the model is one that writes no text.
    pub(crate) fn must_write_text(&self) -> Result<()> {
        if self.config().writes_text() {
            return Ok(());
        }
        bail!(
            "the model (`{}`) is an encoder, which makes vectors of texts and writes none: `twinfer embed` runs it{}",
            self.config().arch,
            match self.config().pooling.rank {
                Some(_) => ", `twinfer rerank` sorts documents with it",
                None => "",
            }
        )
    }
}
