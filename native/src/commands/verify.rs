//! `verify`: the digest record of a model, printed or checked.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::record::{self, Mismatch, Record, Subject};

use crate::args::VerifyArgs;
use crate::compute::Compute;
use crate::interrupt;
use crate::load::ModelSource;
use crate::output;
use crate::progress::Progress;
use crate::settings::{Settings, Verbosity};
use crate::workers::Workers;

/// Bytes that are hashed between two looks at the clock.
const CHUNK: usize = 1 << 22;

pub(super) fn run(settings: &Settings, workers: &Workers, args: &VerifyArgs) -> Result<()> {
    let recorded = args.against.as_deref().map(read).transpose()?;
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let file = source.open()?;
    let _guard = interrupt::Guard::new();
    let subject = Subject {
        name: match source {
            ModelSource::File(path) => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            ModelSource::BuiltIn => source.to_string(),
        },
        sha256: hashes(source, &file, verbosity)?,
    };
    if let Some(recorded) = &recorded {
        // Before the model is loaded: most of what goes wrong is another file.
        recorded.applies_to(&subject.sha256)?;
    }
    let (cache_type_k, cache_type_v) = match &recorded {
        Some(recorded) => (recorded.cache_type_k, recorded.cache_type_v),
        None => settings.context.cache,
    };
    let compute = Compute::start(settings, workers)?;
    let options = record::context_options(cache_type_k, cache_type_v);
    let model = compute.load(compute.plan(&file)?.writing_text()?, &options)?;
    let mut context = compute.context(&model, options)?;
    let pinned = compute.pin_caller();
    let mut progress = Progress::new("evaluating", record::total_tokens() as u64, verbosity);
    let made = Record::make(&mut context, subject, &mut |done, total| {
        progress.set(done as u64, total as u64);
        if interrupt::requested() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    drop((progress, pinned));
    let Some(made) = made else {
        return interrupt::check();
    };
    let Some(recorded) = recorded else {
        return output::to_stdout(&made.to_text());
    };
    if let Err(mismatch) = recorded.check(&made) {
        return Err(anyhow!(
            "{mismatch}{}",
            advice(source, &recorded, &made, &mismatch)
        ));
    }
    let positions: usize = made.answers.iter().map(|answer| answer.positions.len()).sum();
    output::to_stdout(&format!(
        "equal: all logits of {positions} positions and the text sampled from them, digest {}\n\
         recorded by twinfer {} on {}, found by twinfer {} on {}\n",
        made.digest, recorded.engine_version, recorded.backend, made.engine_version, made.backend
    ))
}

fn read(path: &Path) -> Result<Record> {
    let text = output::read_text(path)?;
    let named = || format!("`{}`", path.display());
    let json = serde_json::from_str(&text)
        .map_err(|error| anyhow!("this is not a digest record: {error}"))
        .with_context(named)?;
    Record::from_json(&json).with_context(named)
}

/// SHA-256 of each of the model's files.
fn hashes(source: &ModelSource, file: &ModelFile, verbosity: Verbosity) -> Result<Vec<String>> {
    let parts = file.parts();
    if parts.is_empty() {
        bail!("`{source}` has no files to hash");
    }
    let total = parts.iter().map(|part| part.len() as u64).sum();
    let mut progress = Progress::new("hashing the file", total, verbosity);
    let mut hashes = Vec::new();
    for part in parts {
        let mut hash = Sha256::new();
        for chunk in part.chunks(CHUNK) {
            hash.update(chunk);
            progress.add(chunk.len() as u64);
            interrupt::check()?;
        }
        hashes.push(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
    }
    Ok(hashes)
}

/// What to do about logits that differ: the command that finds the operation.
fn advice(source: &ModelSource, recorded: &Record, made: &Record, mismatch: &Mismatch) -> String {
    use std::fmt::Write as _;
    let Mismatch::Logits { prompt, position } = mismatch else {
        return String::new();
    };
    let Some(answer) = made.answers.iter().find(|answer| answer.prompt == *prompt) else {
        return String::new();
    };
    let tokens: Vec<String> = answer.tokens[..=*position].iter().map(u32::to_string).collect();
    let mut command = String::from("twinfer eval");
    if let Some(model) = source.path() {
        let _ = write!(command, " -m {}", model.display());
    }
    let _ = write!(
        command,
        " -c {} --cache-type-k {} --cache-type-v {} --tokens {}",
        record::N_CTX,
        recorded.cache_type_k.name(),
        recorded.cache_type_v.name(),
        tokens.join(",")
    );
    format!(
        "; find the operation with `{command} --trace-against scalar`, or with --trace-ops on one machine and --trace-against \
         on the other"
    )
}
