//! `eval`: the logits of every position, and their digest; what each operation made of them ([`trace`]).

mod texts;
mod trace;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use twinfer_engine::context::Context;
use twinfer_engine::digest::Digest;
use twinfer_engine::kernels::NUMERICS_VERSION;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};
use twinfer_engine::trace::Trace;

use crate::args::EvalArgs;
use crate::compute::Compute;
use crate::failure::Usage;
use crate::load::ModelSource;
use crate::output::{self, json_f32};
use crate::output_file::{OutputFile, same_file};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{interrupt, load, prompt};

/// Logits per position in the report.
const TOP: usize = 10;

/// The best logits of one position, best first.
type Best = Vec<(u32, f32)>;

pub(super) fn run(settings: &Settings, workers: &Workers, args: &EvalArgs) -> Result<()> {
    if let (Some(logits), Some(trace)) = (&args.logits, &args.trace_ops)
        && same_file(logits, trace)
    {
        return Err(Usage("--logits and --trace-ops name the same file; give each its own".into()).into());
    }
    if let Some(path) = &args.texts {
        return texts::run(settings, workers, args, path);
    }
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let file = source.open()?;
    // Ids need no vocabulary: a model without one can be evaluated.
    let tokenizer = Tokenizer::from_metadata(file.metadata());
    let mut tokens = match &args.prompt {
        Some(text) => {
            let text = if args.escape {
                prompt::unescape(text)?
            } else {
                prompt::note_unread_escapes(verbosity, text);
                text.clone()
            };
            let options = EncodeOptions {
                add_special: true,
                parse_special: true,
            };
            prompt::tokens(
                verbosity,
                &load::tokenizer(source, &file, verbosity)?,
                &text,
                options,
            )?
        }
        None => args.tokens(),
    };
    if tokens.is_empty() {
        bail!("there are no tokens to evaluate; give --tokens 1,2,3 or a --prompt that is not empty");
    }
    // Before the work: a name that cannot be written to is no reason to compute anything.
    let create = |path: &Option<PathBuf>| {
        path.as_deref()
            .map(|path| OutputFile::create(path, args.out.read_only()))
            .transpose()
    };
    let mut logits_out = create(&args.logits)?;
    let trace_out = create(&args.trace_ops)?;
    let in_place_of_report = [&logits_out, &trace_out]
        .into_iter()
        .flatten()
        .any(OutputFile::is_stdout);
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    planned.must_write_text()?;
    let total = tokens.len().saturating_add(args.predict);
    let n_ctx = compute.context_size(planned.config());
    if total > n_ctx && settings.context.size.is_some() {
        bail!("{total} tokens do not fit into --ctx-size {n_ctx}");
    }
    let options = compute.one_sequence(n_ctx.max(total), args.batch_size);
    let model = compute.load(planned, &options)?;
    let mut context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();
    let _guard = interrupt::Guard::new();
    if let Some(place) = &args.trace_values {
        return trace::values(&mut context, &tokens, args, place);
    }
    if let Some(backend) = args.trace_against.as_deref().and_then(trace::backend) {
        return trace::against_backend(verbosity, &file, &mut context, &tokens, args, backend);
    }
    let mut trace = (args.trace_ops.is_some() || args.trace_against.is_some())
        .then(|| Trace::new(&twinfer_engine::trace::describe(&context, &tokens, args.predict)));
    let sequence = context.open()?;

    let mut digest = Digest::new();
    let mut positions: Vec<Best> = Vec::new();
    let mut written = Ok(());
    let mut progress = Progress::new("evaluating", total as u64, verbosity);
    let mut take = |logits: &[f32]| {
        digest.update(logits);
        positions.push(best(logits));
        progress.add(1);
        if let (Some(out), Ok(())) = (&mut logits_out, &written) {
            let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
            written = out.write_all(&bytes);
        }
        positions
            .last()
            .and_then(|best| best.first())
            .map_or(0, |best| best.0)
    };

    let given = tokens.len();
    let mut next = 0;
    let mut evaluate = |context: &mut Context, tokens: &[u32], next: &mut u32| {
        context.eval_probed(sequence, tokens, &mut trace, &mut |_, logits| {
            *next = take(logits)
        })
    };
    for chunk in tokens.clone().chunks(args.batch_size) {
        evaluate(&mut context, chunk, &mut next)?;
        interrupt::check()?;
    }
    for _ in 0..args.predict {
        tokens.push(next);
        evaluate(&mut context, &[tokens[tokens.len() - 1]], &mut next)?;
        interrupt::check()?;
    }
    written.context("cannot write the logits")?;
    logits_out.map_or(Ok(()), OutputFile::commit)?;
    drop(progress);
    if let Some(trace) = &trace {
        if let Some(path) = &args.trace_against {
            return trace::against_file(trace, Path::new(path));
        }
        if let Some(mut out) = trace_out {
            out.write_all(trace.to_text().as_bytes())
                .context("cannot write the trace")?;
            out.commit()?;
        }
    }
    if in_place_of_report {
        return Ok(());
    }

    let sha256 = digest.finish();
    let tokenizer = tokenizer.ok();
    let text = |id: u32| {
        let bytes = tokenizer.as_ref().and_then(|t| t.token_bytes(id, true));
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    if args.json {
        let rows: Vec<Value> = tokens
            .iter()
            .zip(&positions)
            .enumerate()
            .map(|(position, (&token, best))| {
                let top: Vec<Value> = best
                    .iter()
                    .map(|&(id, logit)| json!({"id": id, "logit": json_f32(logit), "text": text(id)}))
                    .collect();
                json!({
                    "position": position,
                    "token": token,
                    "argmax": best.first().map(|b| b.0),
                    "top": top,
                })
            })
            .collect();
        let mut report = about(source, &context);
        report["n_vocab"] = model.config().n_vocab.into();
        report["generated"] = tokens[given..].into();
        report["tokens"] = tokens.into();
        report["positions"] = rows.into();
        report["sha256"] = sha256.into();
        return output::json(&report);
    }
    let mut report = String::new();
    for (position, (&token, best)) in tokens.iter().zip(&positions).enumerate() {
        let shown = text(token).map_or_else(String::new, |t| format!(" {t:?}"));
        let _ = write!(report, "{position:>5}  {token}{shown} ->");
        for (id, logit) in best {
            let _ = write!(report, "  {id}: {logit:.4}");
        }
        report.push('\n');
    }
    let _ = writeln!(report, "sha256 {sha256}");
    output::to_stdout(&report)
}

/// What computed: how each JSON report begins.
fn about(source: &ModelSource, context: &Context) -> Value {
    json!({
        "model": source.to_string(),
        "backend": context.model().backend().name(),
        "numerics_version": NUMERICS_VERSION,
        "cache_type_k": context.options().cache_type_k.name(),
        "cache_type_v": context.options().cache_type_v.name(),
    })
}

/// The highest logits: descending, of equal ones the lower id first.
fn best(logits: &[f32]) -> Best {
    let mut best: Best = Vec::with_capacity(TOP + 1);
    for (id, &logit) in (0u32..).zip(logits) {
        if best.len() == TOP && best.last().is_some_and(|last| last.1 >= logit) {
            continue;
        }
        let at = best.partition_point(|b| b.1 >= logit);
        best.insert(at, (id, logit));
        best.truncate(TOP);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn best_is_ordered_by_logit_then_id() {
        assert_eq!(
            best(&[1.0, 3.0, 3.0, 2.0]),
            [(1, 3.0), (2, 3.0), (3, 2.0), (0, 1.0)]
        );
        let many: Vec<f32> = (0..100).map(|i| (i % 50) as f32).collect();
        let ids: Vec<u32> = best(&many).iter().map(|b| b.0).collect();
        assert_eq!(ids, [49, 99, 48, 98, 47, 97, 46, 96, 45, 95]);
    }
}
