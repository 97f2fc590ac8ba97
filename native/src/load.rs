//! From a path to a model: files mapped, split files found by name, the built-in model, threads, the context.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use twinfer_engine::Error;
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::gguf::{Gguf, ModelFile, split};
use twinfer_engine::memory::{Bytes, Memory};
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::tokenizer::Tokenizer;

use crate::args::{GlobalArgs, HugePages};
use crate::memory::{self, Pages};
use crate::output::note;
use crate::progress::Progress;
use crate::resident;
use crate::system::{self, available_memory};
use crate::topology::{Machine, write_list};

/// The model that runs where none is named: a toy for demonstration, trained by this project.
const BUILT_IN: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/demo/twinfer-demo-q4_k_m.gguf"));

/// What the built-in model is called in reports.
const BUILT_IN_NAME: &str = "built-in toy model";

/// Tensor data in a file begins at multiples of 32 bytes; this keeps it so in memory.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

/// The largest context that is made when nobody asked for a size: some models were trained on a million tokens, whose
/// cache no machine should reserve unasked.
const DEFAULT_CTX: usize = 4096;

/// Tokens up to which the memory of a context is computed.
const LARGEST_COUNTED_CTX: usize = u32::MAX as usize;

/// The model's name for messages: its path, or that it is the built-in one.
pub(crate) fn display_name(global: &GlobalArgs) -> String {
    match &global.model {
        Some(path) => path.display().to_string(),
        None => BUILT_IN_NAME.into(),
    }
}

/// Opens and parses the model's files. Nothing but the headers is read.
pub(crate) fn model_file(global: &GlobalArgs) -> Result<ModelFile> {
    match &global.model {
        Some(path) => open(path),
        None => ModelFile::from_parts(vec![Bytes::from_static(&BUILT_IN.0)]).context(BUILT_IN_NAME),
    }
}

/// As [`model_file`], for a path.
pub(crate) fn open(path: &Path) -> Result<ModelFile> {
    let parts = part_paths(path)?;
    let bytes = parts
        .iter()
        .map(|path| memory::map(path))
        .collect::<Result<Vec<_>>>()?;
    ModelFile::from_parts(bytes).map_err(|error| at_fault(error, path, &parts))
}

/// The error with the file that it was found in.
fn at_fault(error: Error, path: &Path, parts: &[PathBuf]) -> anyhow::Error {
    let (error, path) = match error {
        Error::Part { part, error, .. } => (*error, parts.get(part).map_or(path, PathBuf::as_path)),
        error => (error, path),
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let piece = name.and_then(|name| Some((name, split::raw_piece_of(name)?)));
    let context = match piece {
        Some((name, whole)) => format!(
            "`{}` is by its name a piece of `{whole}`: join all pieces in their order first, as in \
             `cat {name} ... > {whole}`",
            path.display()
        ),
        None if path.extension().is_some_and(|e| e == "safetensors") => format!(
            "`{}` is by its name a safetensors file: convert the model to GGUF first",
            path.display()
        ),
        None => format!("`{}`", path.display()),
    };
    anyhow::Error::new(error).context(context)
}

/// The files of the model that `path` belongs to: itself, or all parts of the split model that it is a part of. A model of
/// one file may have the name of a part.
pub(crate) fn part_paths(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(split) = name.and_then(split::parse_name) else {
        return Ok(vec![path.into()]);
    };
    let parts: Vec<PathBuf> = split.parts().map(|name| path.with_file_name(name)).collect();
    for (i, part) in parts.iter().enumerate() {
        if !part.exists() {
            if is_whole(path) {
                return Ok(vec![path.into()]);
            }
            bail!(
                "part {} of {} is missing: `{}`; put all parts into one directory",
                i + 1,
                parts.len(),
                part.display()
            );
        }
    }
    Ok(parts)
}

/// Whether the file says that it is no part of a split model; false where it cannot be read.
fn is_whole(path: &Path) -> bool {
    let header = memory::map(path).ok().map(|bytes| Gguf::parse(&bytes));
    matches!(header, Some(Ok(header)) if split::split_count(&header).is_ok_and(|count| count == 1))
}

/// The number of workers.
pub(crate) fn threads(global: &GlobalArgs) -> usize {
    global.threads().unwrap_or_else(|| machine().default_threads())
}

/// The machine, read once.
pub(crate) fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(Machine::read)
}

/// The CPU of each worker, or why workers have none of their own.
pub(crate) fn pins(global: &GlobalArgs) -> Result<Vec<usize>, &'static str> {
    machine().pins(threads(global), global.pinning())
}

/// Holds the calling thread, which is a team's worker 0, on that worker's CPU while it computes.
#[derive(Debug)]
pub(crate) struct Pinned(Option<Vec<usize>>);

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Where the mask cannot be put back, the thread stays where it computes.
            let _ = system::set_affinity(before);
        }
    }
}

/// See [`Pinned`].
pub(crate) fn pin_caller(global: &GlobalArgs) -> Pinned {
    let cpu = pins(global).ok().and_then(|pins| pins.first().copied());
    Pinned(cpu.and_then(|cpu| {
        let before = system::affinity()?;
        system::set_affinity(&[cpu]).ok()?;
        Some(before)
    }))
}

/// Sets up rayon, which quantizes and makes random weights, for the same number of threads. Loading and computing use a
/// team instead.
pub(crate) fn init_pool(global: &GlobalArgs) -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.set(()).is_err() {
        return Ok(());
    }
    let n = threads(global);
    rayon::ThreadPoolBuilder::new()
        .num_threads(n)
        .thread_name(|i| format!("twinfer-pool-{i}"))
        .build_global()
        .with_context(|| format!("cannot start {n} threads; try a smaller --threads"))
}

/// The team that loads and computes: started once, so that the workers that place weights are those that read them.
pub(crate) fn team(global: &GlobalArgs) -> Result<Team> {
    static TEAM: OnceLock<Team> = OnceLock::new();
    if let Some(team) = TEAM.get() {
        return Ok(team.clone());
    }
    let pins = pins(global);
    if let (Err(why), Some(true)) = (&pins, global.pinning())
        && !global.quiet
    {
        note(&format!("note: the workers are not pinned: {why}"));
    }
    let team = start_team(threads(global), pins.as_deref().unwrap_or(&[]))?;
    Ok(TEAM.get_or_init(|| team).clone())
}

/// Where packed weights lie.
pub(crate) fn memory(global: &GlobalArgs) -> Arc<dyn Memory> {
    static PAGES: OnceLock<Arc<Pages>> = OnceLock::new();
    let pages = || Arc::new(Pages::new(global.huge_pages != HugePages::Off));
    Arc::clone(PAGES.get_or_init(pages)) as _
}

/// Starts the workers of a team, on a CPU each where `pins` names them. They are threads of their own, for they stay with
/// the team.
pub(crate) fn start_team(n: usize, pins: &[usize]) -> Result<Team> {
    type Job = Box<dyn FnOnce() + Send>;
    let mut workers = Vec::new();
    for i in 1..n {
        let (send, receive) = mpsc::channel::<Job>();
        let cpu = pins.get(i).copied();
        std::thread::Builder::new()
            .name(format!("twinfer-{i}"))
            .spawn(move || {
                if let Some(cpu) = cpu {
                    // A CPU that is gone meanwhile: the worker goes where the scheduler puts it.
                    let _ = system::set_affinity(&[cpu]);
                }
                if let Ok(job) = receive.recv() {
                    job();
                }
            })
            .with_context(|| format!("cannot start {n} threads; try a smaller --threads"))?;
        workers.push(send);
    }
    Ok(Team::new(n, |i, job| {
        // Every thread waits for its job, so the receiver is there.
        let _ = workers[i - 1].send(job);
    }))
}

/// Loads a model for computing.
pub(crate) fn model(global: &GlobalArgs, file: &ModelFile) -> Result<Arc<Model>> {
    let options = LoadOptions {
        backend: global.backend.clone(),
        storage: global.weights.into(),
        team: Some(team(global)?),
        memory: Some(memory(global)),
    };
    let start = Instant::now();
    let pinned = pin_caller(global);
    let mut progress = Progress::new("loading", 1, global.quiet);
    let model = Model::load(file, &options, &mut |done, total| progress.set(done, total))
        .with_context(|| format!("`{}`", display_name(global)))?;
    drop((progress, pinned));
    notes(global, model.notes());
    resident::settle(global, &model.weight_data())?;
    if global.verbose {
        note(&format!(
            "weights ready after {:.3} s{}",
            start.elapsed().as_secs_f64(),
            match system::peak_memory() {
                Some(bytes) => format!(", at most {} KiB of memory used so far", bytes >> 10),
                None => String::new(),
            }
        ));
        let pins = match pins(global) {
            Ok(pins) => format!("on CPUs {}", write_list(&pins)),
            Err(why) => format!("not pinned: {why}"),
        };
        note(&format!(
            "{}: {}, {:.1} M parameters, {:.1} MiB of weights, backend {}, {} threads ({pins})",
            display_name(global),
            model.config().arch,
            model.parameters() as f64 / 1e6,
            model.weight_bytes() as f64 / f64::from(1 << 20),
            model.backend().name(),
            threads(global)
        ));
    }
    Ok(Arc::new(model))
}

/// The tokenizer of a file.
pub(crate) fn tokenizer(global: &GlobalArgs, file: &ModelFile) -> Result<Tokenizer> {
    let tokenizer =
        Tokenizer::from_metadata(file.metadata()).with_context(|| format!("`{}`", display_name(global)))?;
    notes(global, tokenizer.notes());
    Ok(tokenizer)
}

/// What a file holds that was left out of account.
fn notes(global: &GlobalArgs, notes: &[String]) {
    for text in notes.iter().filter(|_| !global.quiet) {
        note(&format!("note: {text}"));
    }
}

/// The context's size: what was asked for, or what the model was trained with up to [`DEFAULT_CTX`].
pub(crate) fn context_size(global: &GlobalArgs, model: &Model) -> usize {
    let trained = model.config().n_ctx_train;
    if global.ctx_size == 0 {
        return trained.clamp(1, DEFAULT_CTX);
    }
    if global.ctx_size > trained && !global.quiet {
        note(&format!(
            "note: the model was trained with {trained} tokens of context; beyond that its answers get worse"
        ));
    }
    global.ctx_size
}

/// A context of `n_ctx` positions for one sequence.
pub(crate) fn context(
    global: &GlobalArgs,
    model: &Arc<Model>,
    n_ctx: usize,
    n_batch: usize,
) -> Result<Context> {
    let options = ContextOptions {
        n_ctx,
        n_batch,
        n_sequences: 1,
        cache_type_k: global.cache_type_k.into(),
        cache_type_v: global.cache_type_v.into(),
    };
    // What is beyond any memory is beyond what can be counted in pages as well: there the least that it needs is said.
    let counted = ContextOptions {
        n_ctx: n_ctx.min(LARGEST_COUNTED_CTX),
        ..options.clone()
    };
    let team = team(global)?;
    let plan = ContextPlan::of(model, &team, &counted)?;
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
    if global.verbose {
        note(&format!(
            "context of {n_ctx} tokens, {:.1} MiB of cache",
            plan.cache_bytes() as f64 / f64::from(1 << 20)
        ));
    }
    Ok(Context::new(Arc::clone(model), team, options)?)
}
