//! `run`: continue a prompt.

use anyhow::{Result, bail};
use twinfer_engine::generation::{Bounds, End};
use twinfer_engine::tokenizer::EncodeOptions;
use twinfer_template::reasoning::Reasoning;

use crate::answer::Answer;
use crate::args::{RunArgs, Source};
use crate::compute::Compute;
use crate::failure::{Interrupted, Usage};
use crate::generate::{self, Session};
use crate::load::ModelSource;
use crate::output;
use crate::settings::{self, GenerationSettings, Settings, Verbosity};
use crate::workers::Workers;
use crate::{load, prompt, template};

/// Rows of a pass while a prompt is read.
const N_BATCH: usize = 512;
/// The built-in model tells everybody the same first story, unless a seed is asked for.
const BUILT_IN_SEED: u32 = 1;

pub(super) fn run(settings: &Settings, workers: &Workers, args: &RunArgs) -> Result<()> {
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let seed = settings.seed.unwrap_or_else(|| match source {
        ModelSource::BuiltIn => BUILT_IN_SEED,
        ModelSource::File(_) => generate::random_seed(),
    });
    // Wrong settings are reported before a large model is loaded.
    if let (false, Some(option)) = (args.chat, args.template.given()) {
        return Err(Usage(format!(
            "{option} needs --chat: `run` gives the prompt to the model as it is"
        ))
        .into());
    }
    let generation = GenerationSettings::new(&args.generation, seed)?;
    let text = text(verbosity, args)?;
    let escaped = |text: &str| read(args, text);
    let stop: Vec<String> = args
        .stop
        .iter()
        .map(|text| escaped(text))
        .collect::<Result<_, _>>()?;
    let system = args.system.as_deref().map(escaped).transpose()?;

    let file = source.open()?;
    let tokenizer = load::tokenizer(source, &file, verbosity)?;
    let generation = generation.with(&load::recommended(&file, verbosity));
    let (ids, reasoning) = if args.chat {
        let template = template::load(source, &file, &args.template)?;
        let messages = template::messages(system.as_deref(), &text);
        let prompt = template::prompt(&template, &tokenizer, &messages)?;
        (prompt.ids, Some(prompt.reasoning))
    } else {
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        (prompt::tokens(verbosity, &tokenizer, &text, options)?, None)
    };
    if ids.is_empty() {
        bail!("the prompt is empty, and this model has no begin token to start from; write a prompt");
    }

    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    planned.must_write_text()?;
    let driver = generate::driver(
        &generation,
        &compute,
        &tokenizer,
        (planned.config(), verbosity),
        1,
    )?;
    let n_ctx = compute.context_size(planned.config());
    if ids.len() >= n_ctx {
        bail!(
            "the prompt has {} tokens and the context has room for {n_ctx}; shorten it or raise --ctx-size",
            ids.len()
        );
    }
    let options = compute.one_sequence(n_ctx, N_BATCH);
    let model = compute.load(planned, &options)?;
    let context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();
    let mut sampler = generation.sampling.sampler(&tokenizer, n_ctx)?;
    verbosity.detail(&format!(
        "prompt of {} tokens; sampler: {}{}",
        ids.len(),
        settings::as_options(&generation.sampling.params),
        match tokenizer.suppressed().len() {
            0 => String::new(),
            n => format!("; never one of {n} tokens that the model's author suppressed"),
        }
    ));

    let marks = reasoning.iter().flat_map(Reasoning::marks).map(String::from);
    let bounds = Bounds {
        max_tokens: generation.predict,
        stop,
        special: args.special,
        shown: marks.collect(),
        at_start: args.chat || text.is_empty(),
    };
    let mut session = Session::new(context, driver, verbosity)?;
    let mut generate = |print: &mut dyn FnMut(&str) -> Result<()>| {
        session.generate(&tokenizer, &mut sampler, &ids, &bounds, print)
    };
    let outcome = match &reasoning {
        Some(reasoning) => {
            let mut answer = Answer::new(reasoning, args.hide_thinking);
            let outcome = generate(&mut |text| answer.push(text))?;
            answer.finish()?;
            outcome
        }
        None => {
            let mut ends_line = true;
            let mut print = |text: &str| {
                if let Some(last) = text.chars().last() {
                    ends_line = last == '\n';
                }
                output::generated(text)
            };
            if !args.no_display_prompt {
                print(&text)?;
            }
            let outcome = generate(&mut print)?;
            if !ends_line {
                output::to_stdout("\n")?;
            }
            outcome
        }
    };
    outcome.tell_speculation(verbosity);
    let seed = if generation.sampling.params.temp > 0.0 {
        format!("; seed {seed}")
    } else {
        String::new()
    };
    verbosity.note(&format!("[{}{seed}]", outcome.summary()));
    if outcome.end == End::Interrupted {
        return Err(Interrupted.into());
    }
    Ok(())
}

/// The prompt. Of a file or stdin the last line end goes: editors and `echo` put it there, and the model would go on
/// after it instead of going on with the line.
fn text(verbosity: Verbosity, args: &RunArgs) -> Result<String> {
    let text = match args.source()? {
        Source::Text(text) => {
            if !args.escape {
                prompt::note_unread_escapes(verbosity, text);
            }
            text.to_string()
        }
        Source::File(path) => {
            let mut text = output::read_text(path)?;
            if text.ends_with('\n') {
                text.pop();
                if text.ends_with('\r') {
                    text.pop();
                }
            }
            text
        }
    };
    Ok(read(args, &text)?)
}

/// The text, with its escape sequences read where that was asked for.
fn read(args: &RunArgs, text: &str) -> Result<String, Usage> {
    if args.escape {
        prompt::unescape(text)
    } else {
        Ok(text.into())
    }
}
