//! `eval --texts`: the digests of many texts, which share passes.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{Pool, SeqId};
use twinfer_engine::digest::Digest;
use twinfer_engine::kernels::BLOCK;
use twinfer_engine::tokenizer::EncodeOptions;

use super::about;
use crate::args::EvalArgs;
use crate::compute::Compute;
use crate::output;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{interrupt, load};

/// Texts that share a pass at most.
const TOGETHER: usize = 64;

/// A text whose rows go into the present pass, or went into the last ones.
struct Open {
    id: SeqId,
    text: usize,
    /// Tokens that are in a pass or behind it.
    done: usize,
}

pub(super) fn run(settings: &Settings, workers: &Workers, args: &EvalArgs, path: &Path) -> Result<()> {
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let content = output::read_text(path)?;
    let file = source.open()?;
    let tokenizer = load::tokenizer(source, &file, verbosity)?;
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    let mut texts = Vec::new();
    for (line, text) in content.lines().enumerate() {
        let tokens = tokenizer.encode(text, options)?;
        if tokens.is_empty() {
            bail!("line {} has no tokens to evaluate", line + 1);
        }
        texts.push(tokens);
    }
    let Some(longest) = texts.iter().map(Vec::len).max() else {
        bail!("`{}` has no lines", path.display());
    };
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    planned.must_write_text()?;
    let n_ctx = compute.context_size(planned.config());
    if longest > n_ctx && settings.context.size.is_some() {
        bail!("a text of {longest} tokens does not fit into --ctx-size {n_ctx}");
    }
    let together = compute.together(planned.config(), texts.len().min(TOGETHER));
    // At most one text goes on from the pass before; the others begin in this one.
    let pages = longest.div_ceil(BLOCK) + args.batch_size.div_ceil(BLOCK) + together;
    let sizes = (n_ctx.max(longest), args.batch_size);
    let options = compute.sequences(sizes, together, Pool::UpTo(pages));
    let model = compute.load(planned, &options)?;
    let mut context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();
    let _guard = interrupt::Guard::new();
    let total: usize = texts.iter().map(Vec::len).sum();
    let mut progress = Progress::new("evaluating", total as u64, verbosity);

    let mut digests: Vec<Digest> = texts.iter().map(|_| Digest::new()).collect();
    let (mut open, mut batch, mut of) = (Vec::<Open>::new(), Batch::new(), Vec::new());
    let mut next = 0;
    while next < texts.len() || !open.is_empty() {
        interrupt::check()?;
        batch.clear();
        of.clear();
        for at in 0..together {
            if batch.len() == context.options().n_batch {
                break;
            }
            if at == open.len() {
                if next == texts.len() {
                    break;
                }
                let (id, done) = (context.open()?, 0);
                open.push(Open { id, text: next, done });
                next += 1;
            }
            let Open { id, text, done } = &mut open[at];
            let rest = &texts[*text][*done..];
            let n = rest.len().min(context.options().n_batch - batch.len());
            for token in &rest[..n] {
                batch.push(*id, *token, Output::Logits);
                of.push(*text);
            }
            *done += n;
        }
        context.forward(&mut batch, &mut (), &mut |row, logits| {
            digests[of[row]].update(logits)
        })?;
        progress.add(batch.len() as u64);
        for ended in open.extract_if(.., |open| open.done == texts[open.text].len()) {
            context.close(ended.id)?;
        }
    }
    drop(progress);

    let results = texts
        .iter()
        .zip(digests)
        .map(|(tokens, digest)| (tokens.len(), digest.finish()));
    if args.json {
        let texts: Vec<Value> = results
            .map(|(tokens, sha256)| json!({"tokens": tokens, "sha256": sha256}))
            .collect();
        let mut report = about(source, &context);
        report["texts"] = texts.into();
        return output::json(&report);
    }
    let mut report = String::new();
    for (line, (tokens, sha256)) in results.enumerate() {
        let _ = writeln!(report, "{:>5}  {tokens:>6} tokens  sha256 {sha256}", line + 1);
    }
    output::to_stdout(&report)
}
