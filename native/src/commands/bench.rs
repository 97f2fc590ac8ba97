//! `bench`: tokens per second, of a model or of a model's shape.

mod long;
mod preset;
pub(super) mod report;
mod shapes;
mod stage;
mod switches;
mod synthetic;
mod vocabulary;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use report::Report;
use stage::{Meter, Stage};
use synthetic::Synthetic;
pub(super) use synthetic::Wish;
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::Pool;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::Model;
use twinfer_engine::model::config::Config;
use twinfer_engine::model::pooling::Pooling;
use twinfer_engine::team::Team;

use crate::args::{BenchArgs, BenchOutput, ReportFormat};
use crate::compute::Compute;
use crate::failure::Usage;
use crate::output;
use crate::output_file::OutputFile;
use crate::progress::Progress;
use crate::rates::{self, Allowed, BEYOND_CACHES, Rates, TokenWork};
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{interrupt, load, vectors};

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Test {
    kind: Kind,
    /// Tokens in the cache before.
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Reading a prompt of this many tokens.
    Prompt(usize),
    /// Writing this many tokens, one by one, of each of some sequences.
    Generation { n: usize, sequences: usize },
    /// Making the vectors of some texts of this many tokens each.
    Texts { n: usize, texts: usize },
}

impl Test {
    /// Tokens of one sequence.
    fn tokens(self) -> usize {
        match self.kind {
            Kind::Prompt(n) | Kind::Generation { n, .. } | Kind::Texts { n, .. } => n,
        }
    }

    fn sequences(self) -> usize {
        match self.kind {
            Kind::Prompt(_) => 1,
            Kind::Generation { sequences, .. } => sequences,
            Kind::Texts { texts, .. } => texts,
        }
    }

    /// Sequences that are open at a time.
    fn open(self) -> usize {
        match self.kind {
            Kind::Texts { texts, .. } => texts.min(vectors::TOGETHER),
            Kind::Prompt(_) | Kind::Generation { .. } => self.sequences(),
        }
    }

    /// llama-bench's names, and `em` for vectors of texts; of several sequences their number as well.
    fn name(self) -> String {
        let kind = match self.kind {
            Kind::Prompt(n) => format!("pp{n}"),
            Kind::Generation { n, sequences: 1 } => format!("tg{n}"),
            Kind::Generation { n, sequences } => format!("tg{n} x {sequences}"),
            Kind::Texts { n, texts: 1 } => format!("em{n}"),
            Kind::Texts { n, texts } => format!("em{n} x {texts}"),
        };
        match self.depth {
            0 => kind,
            depth => format!("{kind} @ d{depth}"),
        }
    }

    /// Tokens per second that the limits allow.
    fn allowed(self, allowed: &Allowed<'_>, limits: &Rates) -> f64 {
        match self.kind {
            Kind::Prompt(n) => allowed.prefill(limits, n),
            // Each token meets one position more; the middle one stands for all.
            Kind::Generation { n, sequences } => allowed.decode(limits, self.depth + n / 2, sequences),
            Kind::Texts { n, texts } => allowed.texts(limits, n, texts),
        }
    }
}

/// A test, the seconds of each repetition, and the passes of all of them.
struct Measured {
    test: Test,
    seconds: Vec<f64>,
    stage: Stage,
}

impl Measured {
    fn speeds(&self) -> Vec<f64> {
        let n = (self.test.tokens() * self.test.sequences()) as f64;
        self.seconds.iter().map(|s| n / s).collect()
    }
}

/// Mean and standard deviation of a sample; no deviation for a single value.
fn statistics(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().fold(0.0, |sum, x| sum + x) / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares = values.iter().fold(0.0, |sum, x| sum + (x - mean) * (x - mean));
    (mean, (squares / (n - 1.0)).sqrt())
}

pub(super) fn run(settings: &Settings, workers: &Workers, args: &BenchArgs) -> Result<()> {
    if args.shape.as_deref() == Some("list") {
        return output::to_stdout(&shapes::list()?);
    }
    let mut format = ReportFormat::Markdown;
    let mut target = None;
    for output in &args.output {
        match output {
            BenchOutput::Report(report) => format = *report,
            BenchOutput::File(path) => target = Some(path.as_path()),
        }
    }
    if let Some(name) = &args.preset {
        if target.is_some() {
            return Err(Usage("-o FILE.gguf goes with --shape, not with --preset".into()).into());
        }
        return preset::run(settings, workers, args, preset::find(name)?, format);
    }
    if target.is_some() && args.shape.is_none() {
        return Err(Usage("-o FILE.gguf makes a model of random weights and needs --shape".into()).into());
    }
    let measures = !tests(args, true).is_empty() || args.long.is_some();
    if !measures && target.is_none() {
        return Err(Usage("there is nothing to measure; give -p or -n a number above 0".into()).into());
    }

    let wish = |shape| Wish {
        shape,
        layers: args.layers,
        mix: args.mix.as_deref(),
    };
    if let (Some(shape), true) = (&args.shape, measures) {
        // Before gigabytes are made of it.
        let file = Synthetic::new(wish(shape), 0, false)?.headers()?;
        tests_of(args, &Config::from_file(&file)?)?;
    }
    let made = match args.shape.as_deref() {
        None => None,
        Some(shape) => match target {
            None => Some(made_up(settings, workers, wish(shape))?),
            Some(path) => {
                let name = write_made_up(settings, workers, wish(shape), args, path, measures)?;
                if !measures {
                    return Ok(());
                }
                Some((name, load::open(path)?))
            }
        },
    };
    // Opening a model is part of loading it; making one is not.
    let mut loading = Loading::begin();
    let (name, file) = match made {
        Some(made) => made,
        None => (settings.source.to_string(), settings.source.open()?),
    };
    if let Some(n) = args.long {
        tests_of(args, &Config::from_file(&file)?)?;
        return long::run(settings, workers, args, (&name, &file, loading), n, format);
    }
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    let tests = tests_of(args, planned.config())?;
    let options = sizes(settings, &compute, &tests, args.batch_size)?;
    let model = compute.load(planned, &options)?;
    let load = loading.end("load", compute.team());
    let _pinned = compute.pin_caller();
    let _guard = interrupt::Guard::new();
    let mut context = compute.context(&model, options)?;
    first_token(&mut context)?;
    let first = if model.config().writes_text() {
        "first token"
    } else {
        "first text"
    };
    let first_token = loading.end(first, compute.team());
    let with_limits = (args.limits || model.weight_bytes() >= BEYOND_CACHES) && !args.no_limits;
    let rounds = tests.len() * (args.repetitions + 1);
    let ticks = rounds as u64 + if with_limits { 2 * rates::MEASUREMENTS } else { 0 };
    let mut progress = Progress::new("measuring", ticks, settings.verbosity);
    let mut limits = None;
    if with_limits {
        limits = Some(measure_limits(&compute, &model, &mut progress)?);
    }
    let mut measured = Vec::new();
    for test in tests {
        measured.push(measure(&mut context, test, args.repetitions, &mut progress)?);
    }
    if let Some(before) = limits {
        limits = Some(before.best(measure_limits(&compute, &model, &mut progress)?));
    }
    drop(progress);
    let report = Report {
        name: &name,
        threads: workers.n,
        model: &model,
        allowed: allowed(settings, &model, &file),
        limits,
        load: &load,
        first_token: &first_token,
        measured: &measured,
        placed: compute.placed(&context),
    };
    match format {
        ReportFormat::Markdown => output::to_stdout(&report.markdown()),
        ReportFormat::Json => output::json(&report.json()),
    }
}

/// The tests that the options name, for a model that writes text or for one that makes vectors of texts.
fn tests(args: &BenchArgs, writes_text: bool) -> Vec<Test> {
    let mut tests = Vec::new();
    // One long text is no test like the others.
    let depths: &[usize] = if args.long.is_some() { &[] } else { &args.depth };
    for &depth in depths {
        let prompts = args.n_prompt.iter().copied();
        if writes_text {
            let together = |n| move |&sequences: &usize| Kind::Generation { n, sequences };
            let generations = args
                .n_gen
                .iter()
                .flat_map(|&n| args.parallel.iter().map(together(n)));
            tests.extend(
                prompts
                    .map(Kind::Prompt)
                    .chain(generations)
                    .map(|kind| Test { kind, depth }),
            );
        } else {
            let together = |n| move |&texts: &usize| Kind::Texts { n, texts };
            let texts = prompts.flat_map(|n| args.parallel.iter().map(together(n)));
            tests.extend(texts.map(|kind| Test { kind, depth }));
        }
    }
    tests.retain(|test| test.tokens() > 0);
    tests
}

/// The tests of this model; an error where they are none of its kind.
fn tests_of(args: &BenchArgs, config: &Config) -> Result<Vec<Test>> {
    let writes_text = config.writes_text();
    let tests = tests(args, writes_text);
    if writes_text {
        return Ok(tests);
    }
    let wrong = if args.long.is_some() {
        "--long"
    } else if args.depth.iter().any(|&depth| depth > 0) {
        "-d"
    } else if tests.is_empty() {
        "-p 0"
    } else {
        return Ok(tests);
    };
    let arch = &config.arch;
    bail!(
        "the model (`{arch}`) is an encoder, which makes vectors of texts, and `{wrong}` leaves nothing to measure: -p N takes \
         texts of N tokens, --parallel N so many of them"
    )
}

/// A model of random weights, described, and its name.
fn random_model(settings: &Settings, wish: Wish<'_>, vocabulary: bool) -> Result<(String, Synthetic)> {
    // The same weights each time, unless others are asked for: speeds do not depend on them.
    let seed = settings.seed.unwrap_or(0);
    let model = Synthetic::new(wish, seed, vocabulary)?;
    Ok((format!("{} (random weights)", model.name), model))
}

/// A well-known model's name and what it is, without weights: for estimates.
pub(super) fn shape_of(shape: &str, mix: Option<&str>) -> Result<(String, ModelFile)> {
    let wish = Wish {
        shape,
        layers: None,
        mix,
    };
    let model = Synthetic::new(wish, 0, false)?;
    let file = model.headers()?;
    Ok((model.name, file))
}

/// A model of random weights in memory, and its name.
pub(super) fn made_up(settings: &Settings, workers: &Workers, wish: Wish<'_>) -> Result<(String, ModelFile)> {
    let (name, model) = random_model(settings, wish, false)?;
    let bytes = model.in_memory(&workers.pool()?, settings)?;
    Ok((name, ModelFile::from_parts(vec![Bytes::from_vec(bytes)])?))
}

/// Writes a model of random weights, which is `measured` after that or not, and gives its name.
fn write_made_up(
    settings: &Settings,
    workers: &Workers,
    wish: Wish<'_>,
    args: &BenchArgs,
    path: &Path,
    measured: bool,
) -> Result<String> {
    let (name, model) = random_model(settings, wish, true)?;
    let pool = workers.pool()?;
    let file = OutputFile::create(path, args.out.read_only())?;
    if measured && !file.is_regular() {
        bail!(
            "`{}` is no regular file: it can be written to, but not measured afterwards; leave the tests out with -p 0 -n 0",
            path.display()
        );
    }
    model.write_file(path, file, &pool, settings.verbosity)?;
    settings.verbosity.note(&format!(
        "random weights of {} written to `{}`",
        wish.shape,
        path.display()
    ));
    Ok(name)
}

/// Seconds that a model takes for a prompt and for a token behind nothing, medians, and how many tokens were read and
/// written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) prompt: f64,
    pub(super) token: f64,
    pub(super) sizes: (usize, usize),
}

/// Measures it, with so many repetitions of both.
pub(super) fn pace(
    context: &mut Context,
    (n_prompt, n_gen): (usize, usize),
    repetitions: usize,
    progress: &mut Progress,
) -> Result<Pace> {
    let mut median = |kind| -> Result<f64> {
        let test = Test { kind, depth: 0 };
        let mut measured = measure(context, test, repetitions, progress)?;
        Ok(rates::median(&mut measured.seconds))
    };
    let prompt = median(Kind::Prompt(n_prompt))?;
    let sequences = 1;
    let written = median(Kind::Generation { n: n_gen, sequences })?;
    Ok(Pace {
        prompt,
        token: written / n_gen as f64,
        sizes: (n_prompt, n_gen),
    })
}

/// The sizes of a context that all tests fit into.
fn sizes(
    settings: &Settings,
    compute: &Compute<'_>,
    tests: &[Test],
    batch_size: usize,
) -> Result<ContextOptions> {
    let longest = tests
        .iter()
        .map(|test| test.depth.saturating_add(test.tokens()))
        .max()
        .unwrap_or(1);
    let most = tests.iter().map(|test| test.open()).max().unwrap_or(1);
    // A text that is made a vector of is whole in a pass.
    let whole = tests.iter().map(|test| match test.kind {
        Kind::Texts { n, .. } => n,
        Kind::Prompt(_) | Kind::Generation { .. } => 1,
    });
    let batch_size = whole.fold(batch_size, usize::max);
    if let Some(size) = settings.context.size
        && size < longest
    {
        bail!("a test of {longest} tokens does not fit into --ctx-size {size}");
    }
    Ok(compute.sequences((longest, batch_size), most, Pool::Whole))
}

/// The machine's limits on the memory of the weights, or on a buffer where they would fit into caches.
fn measure_limits(compute: &Compute<'_>, model: &Model, progress: &mut Progress) -> Result<Rates> {
    progress.message("limits");
    let memory = if model.weight_bytes() >= BEYOND_CACHES {
        model.weight_data()
    } else {
        vec![rates::buffer(compute.team(), compute.memory())?]
    };
    rates::measure(compute.team(), model.backend(), &memory, &mut || progress.add(1))
}

fn allowed<'a>(settings: &Settings, model: &'a Model, file: &ModelFile) -> Allowed<'a> {
    Allowed {
        config: model.config(),
        work: TokenWork::of(file, model.config()),
        cache: settings.context.cache,
    }
}

/// Tokens spread over the vocabulary: real prompts are not one token repeated.
fn token(i: usize, n_vocab: usize) -> u32 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed % n_vocab.max(1) as u64) as u32
}

/// How the model makes a vector of a text, if its file says so.
fn pooling(config: &Config) -> Pooling {
    config.pooling.kind.unwrap_or(Pooling::Mean)
}

/// The first token that the model computes: what has not been in memory until then comes now.
fn first_token(context: &mut Context) -> Result<()> {
    let config = context.model().config();
    if !config.writes_text() {
        let (pooling, token) = (pooling(config), token(0, config.n_vocab));
        return Ok(context.embed(&[&[token]], pooling, false, &mut |_, _| ())?);
    }
    let id = context.open()?;
    context.decode(id, token(0, context.model().config().n_vocab))?;
    Ok(context.close(id)?)
}

/// What comes before the first pass that is measured, stage by stage.
struct Loading {
    meter: Meter,
    begin: Instant,
}

impl Loading {
    fn begin() -> Self {
        Loading {
            meter: Meter::start(),
            begin: Instant::now(),
        }
    }

    /// A stage ends here, and the next one begins.
    fn end(&mut self, name: &str, team: &Team) -> Stage {
        let now = Instant::now();
        let mut stage = Stage::new(name, team, 1);
        stage.add(&mut self.meter, team, now - self.begin);
        self.begin = now;
        stage
    }
}

/// Runs a test some times, after once that does not count: the first fills caches.
fn measure(
    context: &mut Context,
    test: Test,
    repetitions: usize,
    progress: &mut Progress,
) -> Result<Measured> {
    progress.message(&test.name());
    let n_vocab = context.model().config().n_vocab;
    let n_batch = context.options().n_batch;
    let tokens: Vec<u32> = (0..test.depth + test.tokens())
        .map(|i| token(i, n_vocab))
        .collect();
    let (before, tokens) = tokens.split_at(test.depth);
    let mut seconds = Vec::new();
    let team = context.team().clone();
    // Texts of a pass.
    let together = (n_batch / test.tokens()).clamp(1, context.options().n_sequences);
    let passes = match test.kind {
        Kind::Prompt(n) => n.div_ceil(n_batch),
        Kind::Generation { n, .. } => n,
        Kind::Texts { texts, .. } => texts.div_ceil(together),
    };
    let mut first = Stage::new(&test.name(), &team, passes);
    let mut counted = Stage::new(&test.name(), &team, passes * repetitions);
    let mut sequences = Vec::new();
    let mut texts = Vec::new();
    match test.kind {
        Kind::Texts { texts: n, .. } => texts.resize(n, tokens),
        Kind::Prompt(_) | Kind::Generation { .. } => {
            for _ in 0..test.sequences() {
                sequences.push(context.open()?);
            }
        }
    }
    let mut rows = Batch::new();
    for repetition in 0..=repetitions {
        for id in &sequences {
            // What is in the cache before stays there, unless a sliding window has moved past it.
            if context.reuse(*id, before)? < test.depth {
                context.truncate(*id, 0)?;
                for batch in before.chunks(n_batch) {
                    interrupt::check()?;
                    context.prefill(*id, batch)?;
                }
            }
        }
        let stage = if repetition == 0 { &mut first } else { &mut counted };
        let mut elapsed = Duration::ZERO;
        match test.kind {
            Kind::Prompt(_) => {
                for batch in tokens.chunks(n_batch) {
                    interrupt::check()?;
                    elapsed += stage.pass(&team, || {
                        context.prefill(sequences[0], batch)?;
                        Ok(())
                    })?;
                }
            }
            Kind::Generation { .. } => {
                for &token in tokens {
                    interrupt::check()?;
                    // A token of every sequence; more sequences than a pass has rows take several.
                    elapsed += stage.pass(&team, || {
                        for part in sequences.chunks(n_batch) {
                            rows.clear();
                            part.iter().for_each(|id| rows.push(*id, token, Output::Logits));
                            context.forward(&mut rows, &mut (), &mut |_, _| ())?;
                        }
                        Ok(())
                    })?;
                }
            }
            Kind::Texts { .. } => {
                let pooling = pooling(context.model().config());
                for part in texts.chunks(together) {
                    interrupt::check()?;
                    elapsed += stage.pass(&team, || {
                        context.embed(part, pooling, true, &mut |_, _| ())?;
                        Ok(())
                    })?;
                }
            }
        }
        if repetition > 0 {
            seconds.push(elapsed.as_secs_f64());
        }
        progress.add(1);
    }
    for id in sequences {
        context.close(id)?;
    }
    Ok(Measured {
        test,
        seconds,
        stage: counted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation() {
        assert_eq!(statistics(&[4.0]), (4.0, 0.0));
        let (mean, deviation) = statistics(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean, 2.5);
        assert!((deviation - 1.290_994_448_7).abs() < 1e-9);
    }

    #[test]
    fn tokens_stay_in_the_vocabulary() {
        for n_vocab in [1, 2, 512, 128_256] {
            assert!((0..1000).all(|i| (token(i, n_vocab) as usize) < n_vocab));
        }
        let distinct: std::collections::BTreeSet<u32> = (0..500).map(|i| token(i, 32_000)).collect();
        assert!(distinct.len() > 450);
    }
}
