//! `bench --long`: one long text. Whether a token takes as long as it did at the same depth, whether memory grows, and
//! whether the text is the same everywhere.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use twinfer_engine::context::Context;
use twinfer_engine::generation::{Bounds, Driver, Event, Generation, Sampling, Speculation};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::sample::{MAX_LAST_N, Sampler, SamplerParams};
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use super::report::table;
use super::stage::{Stage, Times, met_table, times_table};
use super::{Loading, token};
use crate::args::{BenchArgs, ReportFormat};
use crate::compute::Compute;
use crate::output::{self, json_f64};
use crate::placed::Placed;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{interrupt, system};

/// The text goes on from here.
const PROMPT: &str = "Once upon a time";
/// Tokens of the prompt where the model has no vocabulary.
const PROMPT_TOKENS: usize = 4;
/// Depths that are looked at by themselves: at one depth attention costs the same.
const PARTS: usize = 8;

/// The text, and what was measured while it was made.
struct Measured {
    n_prompt: usize,
    seed: u32,
    /// Bytes of the text, or the number of tokens where there is no vocabulary.
    length: usize,
    of_text: bool,
    sha256: String,
    first: Stage,
    parts: Vec<Part>,
    /// After the first token, in bytes.
    resident: Option<u64>,
}

struct Part {
    stage: Stage,
    /// At its end, in bytes.
    resident: Option<u64>,
}

pub(super) fn run(
    settings: &Settings,
    workers: &Workers,
    args: &BenchArgs,
    (name, file, mut loading): (&str, &ModelFile, Loading),
    n: usize,
    format: ReportFormat,
) -> Result<()> {
    let tokenizer = Tokenizer::from_metadata(file.metadata()).ok();
    let options = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    let prompt = tokenizer
        .as_ref()
        .map(|tokenizer| tokenizer.encode(PROMPT, options))
        .transpose()?;
    let n_prompt = prompt.as_ref().map_or(PROMPT_TOKENS, Vec::len);
    let n_ctx = settings.context.size.unwrap_or(n_prompt + n);
    if n_prompt + n > n_ctx {
        bail!("{n} tokens after a prompt of {n_prompt} do not fit into --ctx-size {n_ctx}");
    }
    let compute = Compute::start(settings, workers)?;
    let options = compute.one_sequence(n_ctx, args.batch_size);
    let model = compute.load(compute.plan(file)?, &options)?;
    let load = loading.end("load", compute.team());
    let _pinned = compute.pin_caller();
    let _guard = interrupt::Guard::new();
    let mut context = compute.context(&model, options)?;
    let prompt = prompt.unwrap_or_else(|| {
        let n_vocab = model.config().n_vocab;
        (0..n_prompt).map(|i| token(i, n_vocab)).collect()
    });
    let measured = write(
        &mut context,
        (tokenizer.as_ref(), &prompt, n),
        settings,
        &mut loading,
    )?;
    let report = Report {
        name,
        workers,
        settings,
        context: &context,
        load,
        all: Stage::all("all", measured.parts.iter().map(|part| &part.stage)),
        placed: compute.placed(&context),
        measured,
    };
    match format {
        ReportFormat::Markdown => output::to_stdout(&report.markdown()),
        ReportFormat::Json => output::json(&report.json()),
    }
}

/// The sampler of the text: the usual chain, and no end.
fn sampler(tokenizer: Option<&Tokenizer>, n_vocab: usize, n_ctx: usize, seed: u32) -> Result<Sampler> {
    let params = SamplerParams {
        seed,
        ..SamplerParams::default()
    };
    Ok(match tokenizer {
        Some(tokenizer) => Sampling {
            ignore_eos: true,
            ..Sampling::from(params)
        }
        .sampler(tokenizer, n_ctx)?,
        None => {
            let n_ctx = n_ctx.min(MAX_LAST_N);
            Sampler::new(SamplerParams { n_ctx, ..params }, n_vocab)?
        }
    })
}

/// Writes a text of `n` tokens.
fn write(
    context: &mut Context,
    (tokenizer, prompt, n): (Option<&Tokenizer>, &[u32], usize),
    settings: &Settings,
    loading: &mut Loading,
) -> Result<Measured> {
    // The same text each time, unless another one is asked for.
    let seed = settings.seed.unwrap_or(0);
    let n_ctx = context.options().n_ctx;
    let sampler = sampler(tokenizer, context.model().config().n_vocab, n_ctx, seed)?;
    let bounds = Bounds {
        max_tokens: Some(n),
        ..Bounds::default()
    };
    let id = context.open()?;
    let mut generation = match tokenizer {
        Some(tokenizer) => Generation::new(context, id, prompt, sampler, tokenizer, &bounds)?,
        None => Generation::of_tokens(context, id, prompt, sampler, bounds.max_tokens)?,
    };
    let team = context.team().clone();
    let mut driver = Driver::new(Speculation::OFF, None);
    let mut progress = Progress::new("writing", n as u64, settings.verbosity);
    // The first token comes with the prompt; each pass after it makes one.
    let passes = n - 1;
    let ends: Vec<usize> = (1..=PARTS).map(|i| passes * i / PARTS).collect();
    let mut parts: Vec<Part> = (0..PARTS)
        .map(|i| {
            let begin = if i == 0 { 0 } else { ends[i - 1] };
            Part {
                stage: Stage::new(&format!("{}-{}", begin + 2, ends[i] + 1), &team, ends[i] - begin),
                resident: None,
            }
        })
        .collect();
    let mut digest = Sha256::new();
    let mut length = 0;
    let mut failed = None;
    let mut on_event = |_: usize, event: Event<'_>| match event {
        Event::Token { text, .. } | Event::End { text, .. } if tokenizer.is_some() => {
            digest.update(text);
            length += text.len();
        }
        Event::Token { id, .. } => {
            digest.update(id.to_le_bytes());
            length += 1;
        }
        Event::End { .. } => {}
        Event::Failed(error) => failed = Some(error),
    };
    let (mut first, mut done, mut part) = (None, 0, 0);
    let mut resident = None;
    while !generation.is_over() {
        interrupt::check()?;
        let generations = std::slice::from_mut(&mut generation);
        let reading = generations[0].is_reading();
        let elapsed = if reading {
            let start = Instant::now();
            driver.pass(context, generations)?;
            start.elapsed()
        } else {
            parts[part].stage.pass(&team, || {
                driver.pass(context, generations)?;
                Ok(())
            })?
        };
        driver.finish(context, generations, elapsed, &mut on_event);
        progress.add(1);
        if !reading {
            done += 1;
        } else if !generation.is_reading() {
            first = Some(loading.end("first token", &team));
            // Twice: the first look may itself take memory, which stays.
            system::resident_memory();
            resident = system::resident_memory();
        }
        if done == ends[part] {
            parts[part].resident = system::resident_memory();
            part = (part + 1).min(PARTS - 1);
        }
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(Measured {
        n_prompt: prompt.len(),
        seed,
        length,
        of_text: tokenizer.is_some(),
        sha256: digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        first: first.unwrap_or_else(|| loading.end("first token", &team)),
        parts,
        resident,
    })
}

/// All that is reported.
struct Report<'a> {
    name: &'a str,
    workers: &'a Workers,
    settings: &'a Settings,
    context: &'a Context,
    load: Stage,
    all: Stage,
    /// Where the memory lies that was read, on a machine of several nodes.
    placed: Option<Placed>,
    measured: Measured,
}

impl Report<'_> {
    /// The 99th percentile in medians.
    fn tail(times: Times) -> f64 {
        times.p99 / times.p50
    }

    fn cache_bytes(&self) -> usize {
        self.context.cache_memory().map(<[u8]>::len).sum()
    }

    fn markdown(&self) -> String {
        let Measured {
            n_prompt,
            seed,
            length,
            of_text,
            sha256,
            first,
            parts,
            resident,
        } = &self.measured;
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let (model, options) = (self.context.model(), self.context.options());
        let mut text = format!(
            "{}: {} tokens after a prompt of {n_prompt}, seed {seed}; context {}, cache {} and {}, backend {}, {} threads\n\n",
            self.name,
            self.all.passes() + 1,
            options.n_ctx,
            options.cache_type_k.name(),
            options.cache_type_v.name(),
            model.backend().name(),
            self.workers.n
        );
        text += &times_table(&[&self.load, first, &self.all]);
        text.push('\n');
        let head = [
            "tokens",
            "P50 ms",
            "P90 ms",
            "P99 ms",
            "max ms",
            "P99 / P50",
            "resident MiB",
        ];
        let rows: Vec<Vec<String>> = parts
            .iter()
            .filter_map(|part| {
                let times = part.stage.times()?;
                let mut row = vec![part.stage.name.clone()];
                row.extend(times.cells());
                row.push(format!("{:.2}", Self::tail(times)));
                row.push(part.resident.map(mib).unwrap_or_default());
                Some(row)
            })
            .collect();
        text += &table(&head, &[0], &rows);
        text.push('\n');
        text += &met_table(&[&self.load, first, &self.all]);
        text.push('\n');
        if let (Some(before), Some(after)) = (resident, parts.last().and_then(|part| part.resident)) {
            text += &format!(
                "resident memory: {} MiB after the first token, {} MiB at the end, {:+} KiB; the cache's {} MiB {}\n",
                mib(*before),
                mib(after),
                (i128::from(after) - i128::from(*before)) / 1024,
                mib(self.cache_bytes() as u64),
                if self.settings.context.populate {
                    "were brought in before"
                } else {
                    "come in as it is filled (--populate brings them in before)"
                }
            );
        }
        if let Some(placed) = &self.placed {
            text += &format!("numa: {}\n", placed.text());
        }
        let what = if *of_text { "bytes" } else { "ids" };
        text + &format!("text: {length} {what}, SHA-256 {sha256}\n")
    }

    fn json(&self) -> Value {
        let measured = &self.measured;
        let (model, options) = (self.context.model(), self.context.options());
        let parts = measured.parts.iter().map(|part| {
            json!({
                "tokens": part.stage.name,
                "stage": part.stage.json(),
                "p99_to_p50": part.stage.times().map(|times| json_f64(Self::tail(times))),
                "resident_bytes": part.resident,
            })
        });
        json!({
            "model": self.name,
            "backend": model.backend().name(),
            "n_threads": self.workers.n,
            "n_ctx": options.n_ctx,
            "type_k": options.cache_type_k.name(),
            "type_v": options.cache_type_v.name(),
            "n_prompt": measured.n_prompt,
            "n_gen": self.all.passes() + 1,
            "seed": measured.seed,
            "load": self.load.json(),
            "first_token": measured.first.json(),
            "decode": self.all.json(),
            "numa": self.placed.as_ref().map(Placed::json),
            "parts": parts.collect::<Vec<_>>(),
            "cache_bytes": self.cache_bytes(),
            "cache_brought_in": self.settings.context.populate,
            "resident_bytes_at_first_token": measured.resident,
            "resident_bytes_at_end": measured.parts.last().and_then(|part| part.resident),
            "sha256_of": if measured.of_text { "text" } else { "ids" },
            "length": measured.length,
            "sha256": measured.sha256,
        })
    }
}
