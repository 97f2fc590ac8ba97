//! What computes: a team of workers and the memory that it is lent, and with them models and contexts.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use twinfer_engine::cache::Pool;
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::{Placement, Storage};
use twinfer_engine::memory::{Bytes, Memory};
use twinfer_engine::model::config::Config;
use twinfer_engine::model::loader::Loader;
use twinfer_engine::model::plan::ModelPlan;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

use crate::args::HugePages;
use crate::budget::{self, Budget, Choice, Need, Room};
use crate::memory::Pages;
use crate::numa::{Numa, NumaMode};
use crate::placed::Placed;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::topology::{Machine, write_list};
use crate::workers::{Layout, Pinned, Workers};
use crate::{address_space, direct_io, mapped, memory, read_ahead, resident, system};

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
    layout: Layout,
    pages: Arc<Pages>,
    /// Bytes of the contexts made so far, in all and on each node of the layout. Their pages take no memory before they
    /// are used.
    promised: Cell<u64>,
    promised_on: RefCell<Vec<u64>>,
    /// Where the machine's files are, and the CPUs that this process might use when the team was started.
    root: PathBuf,
    affinity: Option<Vec<usize>>,
}

/// Where weights lie, and experts if elsewhere, with a mode of `--numa`.
type Lie = (NumaMode, Storage, Option<Storage>);

impl<'a> Compute<'a> {
    /// Starts the team.
    pub(crate) fn start(settings: &'a Settings, workers: &'a Workers) -> Result<Self> {
        Self::on((Path::new("/"), system::affinity()), settings, workers)
    }

    /// On the machine whose files are under a root.
    fn on(
        (root, affinity): (&Path, Option<Vec<usize>>),
        settings: &'a Settings,
        workers: &'a Workers,
    ) -> Result<Self> {
        if let (Err(why), Some(true)) = (&workers.pins, settings.workers.pinning) {
            let text = format!("note: the workers are not pinned: {why}");
            settings.verbosity.note(&text);
        }
        let team = workers.start()?;
        let mut layout = workers.layout(team);
        layout.spills = settings.workers.numa == NumaMode::Auto && layout.nodes.len() == 1;
        let huge = settings.weights.huge_pages != HugePages::Off;
        Ok(Compute {
            settings,
            workers,
            pages: Arc::new(Pages::new(huge, layout.team.nodes())),
            layout,
            promised: Cell::new(0),
            promised_on: RefCell::default(),
            root: root.into(),
            affinity,
        })
    }

    pub(crate) fn team(&self) -> &Team {
        &self.layout.team
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

    fn load_options(&self, layout: &Layout, storage: Storage, experts: Option<Storage>) -> LoadOptions {
        LoadOptions {
            backend: self.settings.weights.backend.clone(),
            storage,
            experts,
            placement: layout.placement,
            team: Some(layout.team.clone()),
            memory: Some(Arc::clone(&self.pages) as _),
        }
    }

    /// What loading a model will take.
    pub(crate) fn plan<'f>(&self, file: &'f ModelFile) -> Result<PlannedModel<'f>> {
        let weights = &self.settings.weights;
        let experts = weights.experts;
        read_ahead::small_tensors(file);
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
        let options = self.load_options(&self.layout, self.settings.weights.storage, experts);
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
            let budget = self.budget_of(&planned, model, &self.layout, context)?;
            let nodes = self.node_rooms(&self.layout);
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
        self.budget_of(planned, &planned.model, &self.layout, context)
    }

    fn budget_of(
        &self,
        planned: &PlannedModel<'_>,
        model: &ModelPlan,
        layout: &Layout,
        context: &ContextOptions,
    ) -> Result<Budget> {
        let direct = planned.direct.is_some();
        Ok(Budget {
            weights: model.nodes().to_vec(),
            nodes: layout.nodes.clone(),
            spills: layout.spills,
            mapped_is_held: direct || self.settings.weights.mlock,
            loading: if direct {
                direct_io::BUFFERS + Loader::LARGEST_PIECE
            } else {
                0
            },
            context: ContextPlan::of_plan(model, &layout.team, &countable(context))?,
        })
    }

    /// Memory that there is, the least first. What was promised to contexts that have not used it yet is not free.
    pub(crate) fn rooms(&self) -> Vec<Room> {
        let mut rooms = budget::rooms(&self.root, self.settings.memory_limit);
        for room in &mut rooms {
            room.free = room.free.saturating_sub(self.promised.get());
        }
        rooms
    }

    /// The same of each node that memory is planned on.
    pub(crate) fn rooms_of_nodes(&self) -> Vec<Room> {
        self.node_rooms(&self.layout)
    }

    fn node_rooms(&self, layout: &Layout) -> Vec<Room> {
        let promised = self.promised_on.borrow();
        let mut rooms = budget::nodes(&self.root, &layout.nodes);
        for room in &mut rooms {
            let mut own = self.layout.nodes.iter().zip(&*promised);
            let own = own.find(|(id, _)| room.limiter == budget::Limiter::Node(**id));
            room.free = room.free.saturating_sub(own.map_or(0, |(_, bytes)| *bytes));
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
        let weights = &self.settings.weights;
        let asked = Choice {
            storage: weights.storage,
            experts: weights.experts,
            has_experts: planned.config().has_experts(),
            has_states: planned.config().has_state(),
            numa: self.settings.workers.numa,
            context: context.clone(),
        };
        let (modes, others) = self.other_modes();
        let own = (asked.numa, self.layout.clone(), self.rooms_of_nodes());
        let others: Vec<(NumaMode, Layout, Vec<Room>)> = others
            .into_iter()
            .map(|(mode, layout)| {
                let rooms = self.node_rooms(&layout);
                (mode, layout, rooms)
            })
            .chain([own])
            .collect();
        // What there is to choose from beside what was asked for: each is planned when it is thought of.
        let plans: RefCell<Vec<(Lie, Option<Rc<ModelPlan>>)>> = RefCell::default();
        let plan_of = |lie: Lie, layout: &Layout| {
            if let Some((_, known)) = plans.borrow().iter().find(|(other, _)| *other == lie) {
                return known.clone();
            }
            let options = self.load_options(layout, lie.1, lie.2);
            let plan = ModelPlan::of(planned.file, &options).ok().map(Rc::new);
            plans.borrow_mut().push((lie, plan.clone()));
            plan
        };
        let fits_in = |lie: Lie, context: &ContextOptions| {
            let Some((_, layout, of_nodes)) = others.iter().find(|(mode, ..)| *mode == lie.0) else {
                return false;
            };
            // A cache that a head's width does not go into is no choice.
            let budget =
                plan_of(lie, layout).and_then(|model| self.budget_of(planned, &model, layout, context).ok());
            budget.is_some_and(|budget| budget::too_small(&budget, rooms, of_nodes).is_none())
        };
        let fits = |choice: &Choice| {
            fits_in((choice.numa, choice.storage, choice.experts), &choice.context)
                // As `settle_experts` has it.
                || choice.experts.is_none()
                    && choice.has_experts
                    && fits_in((choice.numa, choice.storage, Some(Storage::Mapped)), &choice.context)
        };
        budget::advice(&asked, &modes, &fits)
    }

    /// Other modes of `--numa`, in the groups that [`NumaMode::others`] has, and what each comes to. None where
    /// another model's memory already lies as this mode has it.
    fn other_modes(&self) -> (Vec<Vec<NumaMode>>, Vec<(NumaMode, Layout)>) {
        if self.promised.get() > 0 {
            return Default::default();
        }
        let machine = Machine::under(&self.root, self.affinity.clone());
        let workers = &self.settings.workers;
        let mut layouts = Vec::new();
        let mut planned = |mode: NumaMode| {
            let numa = Numa::choose(mode, &machine, self.settings.source.bytes()).ok()?;
            let on_one = numa.preferred.map(|node| vec![node]);
            let others = Workers::of(workers, &machine, numa).ok()?;
            let layout = others.planned_layout();
            // Workers that `--cpus` or `--no-pin` put elsewhere make another mode no better.
            let is_so = match mode {
                NumaMode::Off => true,
                NumaMode::Distribute | NumaMode::Mirror => layout.placement != Placement::Anywhere,
                _ => on_one.is_some_and(|node| node == others.node_ids),
            };
            is_so.then(|| layouts.push((mode, layout)))
        };
        let mut groups = workers.numa.others(&machine, &self.workers.numa);
        for group in &mut groups {
            group.retain(|mode| planned(*mode).is_some());
        }
        (groups, layouts)
    }

    /// Bytes that are free beside what a model and its context will take; an error, with what would fit, if that is too
    /// much.
    fn check(&self, planned: &PlannedModel<'_>, context: &ContextOptions) -> Result<u64> {
        let budget = self.budget(planned, context)?;
        let (rooms, nodes) = (self.rooms(), self.rooms_of_nodes());
        let what = format!(
            "{} with a context of {} tokens",
            self.name_of(planned.file),
            context.n_ctx
        );
        if let Some(small) = budget::too_small(&budget, &rooms, &nodes) {
            let advice = self.advice(planned, context, &rooms);
            return Err(anyhow!(budget::refusal(&budget, small, &what, &advice)));
        }
        // Packed weights lie in reservations, of which they may leave most unused.
        let of_nodes = |bytes: fn(u64) -> u64| {
            let packed = budget.weights.iter().map(|node| bytes(node.packed));
            packed.fold(0, u64::saturating_add)
        };
        let beside = budget.need().total().saturating_sub(of_nodes(|packed| packed));
        let space = beside.saturating_add(of_nodes(memory::reserved));
        if let Some(limit) = address_space::too_small(space) {
            bail!(
                "not enough memory for {} with a context of {} tokens: {limit}",
                self.name_of(planned.file),
                context.n_ctx
            );
        }
        if budget.spills
            && let Some((room, need)) = budget::too_small_nodes(&budget, &nodes)
        {
            self.settings.verbosity.note(&format!(
                "note: {what} needs {} MiB, and {} MiB are free on {}, which --numa auto has taken for so small a \
                 model: the rest lies on other nodes and is read more slowly (--numa distribute divides all of it)",
                need.total().div_ceil(1 << 20),
                room.free >> 20,
                room.limiter,
            ));
        }
        let in_files = |part: &Bytes| mapped::file_of(part).is_some();
        if let Some(room) = rooms.first()
            && budget.need().total().saturating_add(budget.cached_weights()) > room.free
            && planned.file.parts().iter().all(in_files)
        {
            self.settings.verbosity.note(&format!(
                "note: of the file's {} MiB of mapped weights {} MiB stay in memory ({}): the rest is read from the disk \
                 again for every token",
                budget.cached_weights() >> 20,
                room.free.saturating_sub(budget.need().total()) >> 20,
                room.limiter,
            ));
        }
        let free = rooms.first().map_or(u64::MAX, |room| room.free);
        Ok(free.saturating_sub(budget.need().total()))
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
        let spare = self.check(&planned, context)?;
        let PlannedModel {
            file,
            experts,
            direct,
            model: plan,
        } = planned;
        let options = self.load_options(&self.layout, weights.storage, experts);
        let start = Instant::now();
        let mut progress = Progress::new("loading", 1, *verbosity);
        let mut on_progress = |done, total| progress.set(done, total);
        let model = match &direct {
            Some(sources) => self.load_direct(file, sources, &options, &mut on_progress),
            None => {
                let copies = match self.workers.placement() {
                    Placement::Mirror => self.layout.team.nodes(),
                    Placement::Anywhere | Placement::Distribute => 1,
                };
                // Its thread is not on this one's CPU, and ends when the weights are packed.
                let _ahead = read_ahead::of_packing(file, plan.matrices(), &self.layout.team, copies, spare);
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
        if direct.is_none() {
            let all = weights.populate || weights.mlock;
            // Locked weights are among what the model was found to have room for.
            let spare = if weights.mlock { u64::MAX } else { spare };
            if let Some(ahead) =
                read_ahead::of_mapped(file, plan.matrices(), all, &self.workers.node_ids, spare)
            {
                ahead.detach();
            }
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
        let note = match config.max_positions(size) {
            most if most < size => {
                format!("note: the model has {most} positions, and a text can have no more tokens")
            }
            _ if size > trained => format!(
                "note: the model was trained with {trained} tokens of context; beyond that its answers get worse"
            ),
            _ => return size,
        };
        self.settings.verbosity.note(&note);
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
        let (rooms, nodes) = (self.rooms(), self.rooms_of_nodes());
        let nodes = if one.spills { &[][..] } else { &nodes };
        // All of the cache that a room allows of which it would hold this part.
        let share = |(room, need): (&Room, Need)| {
            let own = room.free.saturating_sub(need.beside_cache()) / of_free;
            match need.cache {
                0 => u64::MAX,
                part => {
                    let all = u128::from(own) * u128::from(cache) / u128::from(part);
                    u64::try_from(all).unwrap_or(u64::MAX)
                }
            }
        };
        let shares = budget::with_rooms(&one, &rooms, nodes).map(share);
        let share = shares.min().unwrap_or(u64::MAX);
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
        let plan = ContextPlan::of(model, self.team(), &countable(&options))?;
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
        let context = Context::new(Arc::clone(model), self.team().clone(), options)?;
        self.promise(&plan);
        if self.settings.context.populate {
            resident::bring_in_cache(&context, self.settings.verbosity)?;
        }
        if self.settings.verbosity.is_verbose()
            && let Some(placed) = self.placed(&context)
        {
            self.settings.verbosity.detail(&placed.text());
        }
        Ok(context)
    }

    /// Where the memory of a context and of its model lies, on a machine of several nodes.
    pub(crate) fn placed(&self, context: &Context) -> Option<Placed> {
        Placed::look(self.workers, context.model(), context)
    }

    /// Counts the memory of a context, which comes in as it is used.
    fn promise(&self, plan: &ContextPlan) {
        let all = plan.cache_bytes().saturating_add(plan.workspace_bytes());
        self.promised.set(self.promised.get().saturating_add(all));
        let mut nodes = self.promised_on.borrow_mut();
        nodes.resize(plan.cache_of_nodes.len(), 0);
        for (node, cache) in nodes.iter_mut().zip(&plan.cache_of_nodes) {
            let own = cache.saturating_add(plan.workspace_bytes());
            *node = node.saturating_add(own);
        }
    }
}

#[cfg(test)]
mod tests;

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
