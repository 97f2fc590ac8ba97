//! `run`: continue a prompt.

use std::path::Path;

use anyhow::{Result, bail};
use twinfer_engine::tokenizer::EncodeOptions;

use crate::args::{GlobalArgs, RunArgs};
use crate::failure::Interrupted;
use crate::generate::{self, End, Limits, Session};
use crate::output::{self, note};
use crate::{load, template};

/// Rows of a pass while a prompt is read.
const N_BATCH: usize = 512;
/// The built-in model tells everybody the same first story, unless a seed is asked for.
const BUILT_IN_SEED: u32 = 1;

pub(super) fn run(global: &GlobalArgs, args: &RunArgs) -> Result<()> {
    let seed = match (global.seed, &global.model) {
        (-1, None) => BUILT_IN_SEED,
        _ => generate::seed(global),
    };
    // Wrong settings are reported before a large model is loaded.
    args.generation.sampler_params(seed)?;
    let text = prompt(args)?;

    let file = load::model_file(global)?;
    let tokenizer = load::tokenizer(global, &file)?;
    let ids = if args.chat {
        let template = template::load(global, &file, None)?;
        let messages = template::messages(args.system.as_deref(), &text);
        template::prompt_ids(&template, &tokenizer, &messages)?
    } else {
        tokenizer.encode(
            &text,
            EncodeOptions {
                add_special: true,
                parse_special: true,
            },
        )?
    };
    if ids.is_empty() {
        bail!("the prompt is empty, and this model has no begin token to start from; write a prompt");
    }

    let model = load::model(global, &file)?;
    let n_ctx = load::context_size(global, &model);
    if ids.len() >= n_ctx {
        bail!(
            "the prompt has {} tokens and the context has room for {n_ctx}; shorten it or raise --ctx-size",
            ids.len()
        );
    }
    let context = load::context(global, &model, n_ctx, N_BATCH)?;
    let _pinned = load::pin_caller(global);
    let mut sampler = generate::sampler(&args.generation, seed, &tokenizer, n_ctx)?;
    if global.verbose {
        note(&format!(
            "prompt of {} tokens; {:?}",
            ids.len(),
            args.generation.sampler_params(seed)?
        ));
    }

    let display_prompt = !args.no_display_prompt && !args.chat;
    let mut ends_line = true;
    let mut print = |text: &str| {
        if let Some(last) = text.chars().last() {
            ends_line = last == '\n';
        }
        output::to_stdout(text)
    };
    if display_prompt {
        print(&text)?;
    }
    let limits = Limits {
        predict: args.generation.predict.and_then(|n| usize::try_from(n).ok()),
        stop: &args.stop,
        special: args.special,
        at_start: args.chat || text.is_empty(),
    };
    let mut session = Session::new(context, global.quiet);
    let outcome = session.generate(&tokenizer, &mut sampler, &ids, &limits, &mut print)?;
    if !ends_line {
        output::to_stdout("\n")?;
    }
    if !global.quiet {
        let random = args.generation.sampler_params(seed)?.temp > 0.0;
        let seed = if random {
            format!("; seed {seed}")
        } else {
            String::new()
        };
        note(&format!("[{}{seed}]", outcome.summary()));
    }
    if outcome.end == End::Interrupted {
        return Err(Interrupted.into());
    }
    Ok(())
}

/// The prompt. Of a file or stdin the last line end goes: editors and `echo` put it there, and the model would go on
/// after it instead of going on with the line.
fn prompt(args: &RunArgs) -> Result<String> {
    let read = |path: &Path| {
        let mut text = output::read_text(path)?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    };
    match (&args.prompt, &args.file) {
        (Some(prompt), _) if prompt == "-" => read(Path::new("-")),
        (Some(prompt), _) => Ok(prompt.clone()),
        (None, Some(file)) => read(file),
        (None, None) => Ok(String::new()),
    }
}
