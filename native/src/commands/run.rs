//! `run`: continue a prompt.

use anyhow::{Result, bail};
use twinfer_engine::tokenizer::EncodeOptions;

use crate::args::{GlobalArgs, RunArgs, Source};
use crate::failure::{Interrupted, Usage};
use crate::generate::{self, End, Limits, Session};
use crate::output::{self, note};
use crate::{load, prompt, template};

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
    if let (false, Some(option)) = (args.chat, args.template.given()) {
        return Err(Usage(format!(
            "{option} needs --chat: `run` gives the prompt to the model as it is"
        ))
        .into());
    }
    args.generation.sampler_params(seed)?;
    let text = text(global, args)?;
    let escaped = |text: &str| read(args, text);
    let stop: Vec<String> = args
        .stop
        .iter()
        .map(|text| escaped(text))
        .collect::<Result<_, _>>()?;
    let system = args.system.as_deref().map(escaped).transpose()?;

    let file = load::model_file(global)?;
    let tokenizer = load::tokenizer(global, &file)?;
    let ids = if args.chat {
        let template = template::load(global, &file, &args.template)?;
        let messages = template::messages(system.as_deref(), &text);
        template::prompt_ids(&template, &tokenizer, &messages)?
    } else {
        let options = EncodeOptions {
            add_special: true,
            parse_special: true,
        };
        prompt::tokens(global, &tokenizer, &text, options)?
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
        predict: args.generation.predict(),
        stop: &stop,
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
fn text(global: &GlobalArgs, args: &RunArgs) -> Result<String> {
    let text = match args.source()? {
        Source::Text(text) => {
            if !args.escape {
                prompt::note_unread_escapes(global, text);
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
