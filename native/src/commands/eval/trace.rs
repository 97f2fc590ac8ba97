//! `eval --trace-…`: the first operation that differs from another run, and the values that it made.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use twinfer_engine::context::Context;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::{Storage, select};
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::Team;
use twinfer_engine::trace::{self, Capture, Comparison, Place, Trace};

use crate::args::EvalArgs;
use crate::failure::Usage;
use crate::interrupt;
use crate::output;
use crate::progress::Progress;
use crate::settings::Verbosity;

/// The name, if it is one of a backend.
pub(super) fn backend(name: &str) -> Option<&str> {
    select::known()
        .iter()
        .any(|known| known.name == name)
        .then_some(name)
}

/// Names the first operation that differs from a trace in a file.
pub(super) fn against_file(trace: &Trace, path: &Path) -> Result<()> {
    let named = || format!("`{}`", path.display());
    let other = Trace::from_text(&output::read_text(path)?).with_context(named)?;
    match trace.first_difference(&other).with_context(named)? {
        None => equal(trace.positions()),
        Some(place) => bail!(
            "differs from {}, first at {place}; its values: the same command on both machines with --trace-values {}:{}:{}",
            named(),
            place.position,
            place.layer,
            place.op
        ),
    }
}

/// Names the first element that differs from what another backend makes of the same tokens.
pub(super) fn against_backend(
    verbosity: Verbosity,
    file: &ModelFile,
    context: &mut Context,
    tokens: &[u32],
    args: &EvalArgs,
    backend: &str,
) -> Result<()> {
    if args.predict > 0 {
        let what =
            "--trace-against a backend compares given tokens: leave out --predict, or name a trace's file";
        return Err(Usage(what.into()).into());
    }
    let options = LoadOptions {
        backend: Some(backend.into()),
        storage: Storage::Mapped,
        ..LoadOptions::default()
    };
    let plain = Arc::new(Model::load(file, &options, &mut |_, _| {})?);
    let mut sizes = context.options().clone();
    sizes.n_batch = 1;
    let mut other = Context::new(plain, Team::single(), sizes)?;
    let mut progress = Progress::new("comparing", 1, verbosity);
    let found = trace::compare(context, &mut other, tokens, &mut |done, total| {
        progress.set(done as u64, total as u64);
        goes_on()
    })?;
    drop(progress);
    match found {
        Comparison::Equal => equal(tokens.len()),
        Comparison::Differs(difference) => {
            let here = context.model().backend().name();
            bail!("{here} differs from {backend}, first at {difference}")
        }
        Comparison::Unsteady(place) => Err(anyhow!(
            "differs from {backend}, first at {place}, and did not when it was run again: it is not the same each time"
        )),
        Comparison::Stopped => interrupt::check(),
    }
}

/// Prints what one operation made of one position.
pub(super) fn values(context: &mut Context, tokens: &[u32], args: &EvalArgs, place: &Place) -> Result<()> {
    if args.predict > 0 {
        let what = "--trace-values is for given tokens: leave out --predict";
        return Err(Usage(what.into()).into());
    }
    let mut capture = Capture::new(place.clone());
    if trace::evaluate(context, tokens, &mut capture, &mut |_| goes_on())?.is_break() {
        return interrupt::check();
    }
    output::to_stdout(&capture.to_text()?)
}

fn goes_on() -> ControlFlow<()> {
    if interrupt::requested() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn equal(positions: usize) -> Result<()> {
    output::to_stdout(&format!("equal: every operation, {positions} positions\n"))
}
