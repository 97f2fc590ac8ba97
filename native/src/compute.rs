//! What computes: a team of workers and the memory that it is lent, and with them models and contexts.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use twinfer_engine::cache::Pool;
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Memory;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;

use crate::args::HugePages;
use crate::memory::Pages;
use crate::progress::Progress;
use crate::resident;
use crate::settings::Settings;
use crate::system::{self, available_memory};
use crate::topology::write_list;
use crate::workers::{Pinned, Workers};

/// The largest context that is made when nobody asked for a size: some models were trained on a million tokens, whose
/// cache no machine should reserve unasked.
const DEFAULT_CTX: usize = 4096;

/// Tokens up to which the memory of a context is computed.
const LARGEST_COUNTED_CTX: usize = u32::MAX as usize;

/// A command's team, started once, and the memory that its weights are packed into.
#[derive(Debug)]
pub(crate) struct Compute<'a> {
    settings: &'a Settings,
    workers: &'a Workers,
    team: Team,
    pages: Arc<Pages>,
}

impl<'a> Compute<'a> {
    /// Starts the team.
    pub(crate) fn start(settings: &'a Settings, workers: &'a Workers) -> Result<Self> {
        if let (Err(why), Some(true)) = (&workers.pins, settings.workers.pinning) {
            let text = format!("note: the workers are not pinned: {why}");
            settings.verbosity.note(&text);
        }
        Ok(Compute {
            settings,
            workers,
            team: workers.start()?,
            pages: Arc::new(Pages::new(settings.weights.huge_pages != HugePages::Off)),
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

    /// Loads the model.
    pub(crate) fn load(&self, file: &ModelFile) -> Result<Arc<Model>> {
        let Settings {
            source,
            verbosity,
            weights,
            ..
        } = self.settings;
        let options = LoadOptions {
            backend: weights.backend.clone(),
            storage: weights.storage,
            team: Some(self.team.clone()),
            memory: Some(Arc::clone(&self.pages) as _),
        };
        let start = Instant::now();
        let pinned = self.pin_caller();
        let mut progress = Progress::new("loading", 1, *verbosity);
        let model = Model::load(file, &options, &mut |done, total| progress.set(done, total))
            .with_context(|| format!("`{source}`"))?;
        drop((progress, pinned));
        for text in model.notes() {
            verbosity.note(&format!("note: {text}"));
        }
        resident::settle(weights, *verbosity, &model.weight_data())?;
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

    /// The context's size: what was asked for, or what the model was trained with up to [`DEFAULT_CTX`].
    pub(crate) fn context_size(&self, model: &Model) -> usize {
        let trained = model.config().n_ctx_train;
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

    /// A context of `n_ctx` positions for one sequence.
    pub(crate) fn context(&self, model: &Arc<Model>, n_ctx: usize, n_batch: usize) -> Result<Context> {
        self.context_of_many(model, (n_ctx, n_batch), 1, Pool::Whole)
    }

    /// A context for some sequences of at most `n_ctx` positions, which share a pool of pages.
    pub(crate) fn context_of_many(
        &self,
        model: &Arc<Model>,
        (n_ctx, n_batch): (usize, usize),
        n_sequences: usize,
        pool: Pool,
    ) -> Result<Context> {
        let (cache_type_k, cache_type_v) = self.settings.context.cache;
        let options = ContextOptions {
            n_ctx,
            n_batch,
            n_sequences,
            pool,
            cache_type_k,
            cache_type_v,
        };
        // What is beyond any memory is beyond what can be counted in pages as well: there the least that it needs is said.
        let counted = ContextOptions {
            n_ctx: n_ctx.min(LARGEST_COUNTED_CTX),
            ..options.clone()
        };
        let plan = ContextPlan::of(model, &self.team, &counted)?;
        let bytes = plan.cache_bytes().saturating_add(plan.workspace_bytes());
        if let Some(free) = available_memory()
            && bytes > free
        {
            let mib = |n: u64| n >> 20;
            return Err(anyhow!(
                "a context of {n_ctx} tokens needs {}{} MiB, {} MiB of memory are free; choose a smaller --ctx-size",
                if counted.n_ctx < n_ctx { "more than " } else { "" },
                mib(bytes),
                mib(free)
            ));
        }
        self.settings.verbosity.detail(&format!(
            "context of {n_ctx} tokens, {:.1} MiB of cache",
            plan.cache_bytes() as f64 / f64::from(1 << 20)
        ));
        let context = Context::new(Arc::clone(model), self.team.clone(), options)?;
        if self.settings.context.populate {
            resident::bring_in_cache(&context, self.settings.verbosity)?;
        }
        Ok(context)
    }
}
