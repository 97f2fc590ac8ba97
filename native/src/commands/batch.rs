//! `batch`: many prompts and conversations, answered together.
//!
//! ```text
//!   IN ─ input ─► request ─► desk ──► jobs ───► schedule ─► passes over many sequences
//!        lines    fields      ▲  ◄── answers ──┘
//!  OUT ◄ journal ◄ answer ────┘
//! ```
//!
//! The output is a function of the input, the model and the options: what shared a pass, what was cached, when a run
//! was interrupted and gone on with changes no byte of it.

mod answer;
mod desk;
mod input;
mod journal;
mod options;
mod request;
mod room;
mod schedule;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::NUMERICS_VERSION;
use twinfer_template::ChatTemplate;

use crate::args::{BatchArgs, TemplateArgs};
use crate::compute::Compute;
use crate::failure::{Interrupted, Usage};
use crate::load::ModelSource;
use crate::progress::Progress;
use crate::settings::{GenerationSettings, Settings, Verbosity};
use crate::workers::Workers;
use crate::{generate, interrupt, load, output_file, template};
use answer::{About, Asked};
use desk::{Counts, Desk, Prompts};
use input::Input;
use journal::{Done, Found, Journal};
use request::Defaults;
use schedule::{Scheduler, Stats};

pub(super) fn run(settings: &Settings, workers: &Workers, args: &BatchArgs) -> Result<()> {
    let (source, verbosity) = (&settings.source, settings.verbosity);
    // Wrong settings are reported before a large model is loaded.
    // The seed here is replaced line by line.
    let generation = GenerationSettings::new(&args.generation, settings.seed.unwrap_or_default())?;
    if output_file::same_file(&args.input, &args.output) && args.input != std::path::Path::new("-") {
        return Err(Usage("the input and the output are the same file".into()).into());
    }
    let now = template::now(&args.template)?;
    let file = source.open()?;
    let tokenizer = load::tokenizer(source, &file, verbosity)?;
    let defaults = Defaults {
        generation: generation.with(&load::recommended(&file, verbosity)),
        stop: args.stop.clone(),
    };
    let template = chat_template(source, &file, &args.template)?;
    let input = Input::open(&args.input)?;
    let all = digest_of_all(settings, &file, &defaults, args)?;
    let about = About {
        model: model_name(source),
        fingerprint: all
            .clone()
            .finalize()
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect(),
        created: input.time(),
    };

    let (mut journal, found) = Journal::open(&args.output)?;
    let shown = journal.shown().to_string();
    let (done, total) = already_done(&input, &all, &found, &defaults, args.unordered)
        .with_context(|| format!("cannot go on with {shown}"))?;
    journal.cut(&found)?;
    let before = found.len() as u64;
    if total == 0 {
        verbosity.note("note: the input has no lines");
        return journal.finish();
    }
    if before > 0 {
        verbosity.note(&format!(
            "note: {before} of {total} lines are answered already in {shown}"
        ));
    }
    if before == total {
        return journal.finish();
    }

    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    planned.must_write_text()?;
    let parallel = room::parallel(args);
    let driver = generate::driver(
        &defaults.generation,
        &compute,
        &tokenizer,
        (planned.config(), verbosity),
        parallel,
    )?;
    let n_ctx = compute.context_size(planned.config());
    let options = room::sizes(&compute, &planned, n_ctx, args)?;
    let model = compute.load(planned, &options)?;
    let context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();
    let mut desk = Desk {
        lines: input.lines(&all)?,
        done,
        defaults,
        seed: settings.seed,
        prompts: Prompts {
            tokenizer,
            template,
            now,
            n_ctx,
        },
        about,
        journal,
        unordered: args.unordered,
        taken: 0,
        held: BTreeMap::new(),
        counts: Counts::default(),
    };
    let _guard = interrupt::Guard::new();
    let start = Instant::now();
    let mut progress = Progress::new("batch", total, verbosity);
    progress.set(before, total);
    let mut scheduler = Scheduler::new(context, driver, parallel);
    let run = scheduler.run(&mut desk, &mut |desk, stats| {
        let done = before + desk.counts.answers + desk.counts.errors;
        progress.message(&moment(done, total, stats, start));
        progress.set(done, total);
    });
    drop(progress);
    let Desk { counts, journal, .. } = desk;
    let can_go_on = journal.can_go_on();
    match run {
        Ok(()) => journal.finish()?,
        Err(error) => {
            let written = before + counts.written;
            let way = if can_go_on {
                format!(
                    "{written} of {total} lines are answered in {shown}; the same command goes on with them"
                )
            } else {
                format!("{written} of {total} lines are answered")
            };
            if error.is::<Interrupted>() {
                verbosity.note(&format!("interrupted: {way}"));
                return Err(error);
            }
            return Err(error.context(way));
        }
    }
    report(verbosity, &counts, &scheduler.stats, start);
    Ok(())
}

/// The template for conversations. One that was asked for must be there; the model's own may be missing where no line
/// has a conversation.
fn chat_template(
    source: &ModelSource,
    file: &ModelFile,
    args: &TemplateArgs,
) -> Result<Result<ChatTemplate, String>> {
    let loaded = match &args.template {
        Some(path) => return Ok(Ok(template::from_file(path)?)),
        None => template::of_model(source, file, args, false),
    };
    match loaded {
        Err(error) if args.chat_template_name.is_none() => Ok(Err(format!("{error:#}"))),
        other => other.map(Ok),
    }
}

/// What the model is called in answers: the same wherever its file lies.
fn model_name(source: &ModelSource) -> String {
    let name = source.path().and_then(|path| path.file_name());
    name.map_or_else(|| source.to_string(), |name| name.to_string_lossy().into_owned())
}

/// Bytes of each end of a model's file that stand for it: a header, and the last of the weights.
const OF_MODEL: usize = 1 << 16;

/// What decides answers beside the line itself.
fn digest_of_all(
    settings: &Settings,
    file: &ModelFile,
    defaults: &Defaults,
    args: &BatchArgs,
) -> Result<Sha256> {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    add(format!("{} {NUMERICS_VERSION}", env!("CARGO_PKG_VERSION")).as_bytes());
    for part in file.parts() {
        let n = part.len().min(OF_MODEL);
        add(&(part.len() as u64).to_le_bytes());
        add(&part[..n]);
        add(&part[part.len() - n..]);
    }
    let options = (settings.seed, settings.context.size, settings.context.cache);
    let Defaults { generation, stop } = defaults;
    add(format!(
        "{options:?} {stop:?} {:?} {:?}",
        generation.predict, generation.sampling
    )
    .as_bytes());
    let TemplateArgs {
        template,
        chat_template_name,
        now,
    } = &args.template;
    add(format!("{chat_template_name:?} {now:?}").as_bytes());
    if let Some(path) = template {
        add(&crate::output::read_bytes(path)?);
    }
    Ok(digest)
}

/// Which lines the output answers already, and how many the input has.
fn already_done(
    input: &Input,
    all: &Sha256,
    found: &Found,
    defaults: &Defaults,
    unordered: bool,
) -> Result<(Done, u64)> {
    let mut check = found.check(unordered)?;
    let mut lines = input.lines(all)?;
    let mut total = 0;
    while let Some(raw) = lines.next()? {
        total += 1;
        let (number, digest) = (raw.number, raw.digest);
        check.line(number, digest, &|| {
            let line = request::read(raw.bytes, defaults);
            let asked = Asked {
                line: number,
                digest,
                form: line.form,
                custom_id: line.custom_id,
            };
            asked.head()
        })?;
    }
    Ok((check.finish()?, total))
}

fn per_second(n: u64, start: Instant) -> f64 {
    let seconds = start.elapsed().as_secs_f64();
    n as f64 / seconds.clamp(1e-3, f64::MAX)
}

fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(0)
}

/// What stands before the bar.
fn moment(done: u64, total: u64, stats: &Stats, start: Instant) -> String {
    format!(
        "{done}/{total} lines, {:.1} tokens/s, {} % of prompts from the cache",
        per_second(stats.generated, start),
        percent(stats.shared, stats.prompt_tokens)
    )
}

/// What was done and how fast.
fn report(verbosity: Verbosity, counts: &Counts, stats: &Stats, start: Instant) {
    let errors = match counts.errors {
        0 => String::new(),
        n => format!(", {n} of them errors"),
    };
    verbosity.note(&format!(
        "[{} lines{errors} in {:.1} s; prompts: {} tokens, {} % from the cache; generated: {} tokens, {:.1} tokens/s; \
         {:.2} lines/s]",
        counts.answers + counts.errors,
        start.elapsed().as_secs_f64(),
        stats.prompt_tokens,
        percent(stats.shared, stats.prompt_tokens),
        stats.generated,
        per_second(stats.generated, start),
        per_second(counts.answers + counts.errors, start),
    ));
    verbosity.detail(&format!(
        "{} passes, at most {} sequences together, {} put back for want of room; {} of {} drafts were right",
        stats.passes, stats.most, stats.put_back, stats.accepted, stats.drafted
    ));
}
