//! `perplexity`: how well a model predicts a text, by llama.cpp's procedure.
//!
//! The text is cut into chunks of the context's size. Each is evaluated by itself, its first token replaced by BOS
//! where the model wants one, and the predictions in its second half are scored, so that every scored token has at
//! least half a context before it. Chunks that are short share a pass.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::Pool;
use twinfer_engine::context::Context;
use twinfer_engine::kernels::BLOCK;
use twinfer_engine::tokenizer::EncodeOptions;

use crate::args::PerplexityArgs;
use crate::compute::Compute;
use crate::output::{self, json_f64};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{interrupt, load, mapped};

const DEFAULT_CTX: usize = 512;
const N_BATCH: usize = 512;
/// Fewer tokens than this say nothing.
const LEAST_TOKENS: usize = 4;

/// A text and what is scored of it.
struct Text {
    name: String,
    tokens: usize,
    /// Each of `n_ctx` tokens.
    chunks: Vec<Vec<u32>>,
    n_ctx: usize,
    score: Score,
}

pub(super) fn run(settings: &Settings, workers: &Workers, args: &PerplexityArgs) -> Result<()> {
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let contents: Vec<String> = args
        .file
        .iter()
        .map(|path| output::read_text(path))
        .collect::<Result<_>>()?;
    let file = source.open()?;
    let tokenizer = load::tokenizer(source, &file, verbosity)?;
    let several = args.file.len() > 1;
    let mut encoded = Vec::new();
    for (path, content) in args.file.iter().zip(&contents) {
        let options = EncodeOptions {
            add_special: true,
            parse_special: false,
        };
        let tokens = tokenizer.encode(content, options)?;
        let which = if several {
            format!(" `{}`", path.display())
        } else {
            String::new()
        };
        if tokens.len() < LEAST_TOKENS {
            bail!(
                "the text{which} has {} tokens; perplexity needs at least {LEAST_TOKENS}",
                tokens.len()
            );
        }
        encoded.push((which, path.display().to_string(), tokens));
    }
    if args.chunks == Some(0) {
        bail!("--chunks 0 leaves nothing to score; leave it out to score the whole text");
    }
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(&file)?;
    planned.must_write_text()?;
    let wanted = if settings.context.size.is_none() {
        DEFAULT_CTX.min(planned.config().n_ctx_train.max(LEAST_TOKENS))
    } else {
        compute.context_size(planned.config()).max(LEAST_TOKENS)
    };
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut texts = Vec::new();
    for (which, name, tokens) in encoded {
        let n_ctx = wanted.min(tokens.len());
        if n_ctx < wanted {
            verbosity.note(&format!(
                "note: the text{which} has only {n_ctx} tokens; it is one chunk"
            ));
        }
        let chunk = |chunk: &[u32]| {
            let mut chunk = chunk.to_vec();
            if let Some(bos) = bos {
                chunk[0] = bos;
            }
            chunk
        };
        let most = args.chunks.unwrap_or(usize::MAX);
        texts.push(Text {
            name,
            tokens: tokens.len(),
            chunks: tokens.chunks_exact(n_ctx).take(most).map(chunk).collect(),
            n_ctx,
            score: Score::default(),
        });
    }
    let longest = texts.iter().map(|text| text.n_ctx).max().unwrap_or(1);
    let n_chunks: usize = texts.iter().map(|text| text.chunks.len()).sum();
    let shortest = texts.iter().map(|text| text.n_ctx).min().unwrap_or(1);
    // No more than fills a pass, or one that is longer. A chunk has a row less than tokens.
    let together = (N_BATCH / (shortest - 1).max(1)).clamp(1, n_chunks.max(1));
    let together = compute.together(planned.config(), together);
    let pages = longest.max(N_BATCH).div_ceil(BLOCK) + together;
    let options = compute.sequences((longest, N_BATCH), together, Pool::UpTo(pages));
    let model = compute.load(planned, &options)?;
    let mut context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();

    let _guard = interrupt::Guard::new();
    let mut progress = Progress::new("perplexity", n_chunks as u64, verbosity);
    let mut all = Score::default();
    let jobs: Vec<(usize, Vec<u32>)> = texts
        .iter_mut()
        .enumerate()
        .flat_map(|(i, text)| {
            std::mem::take(&mut text.chunks)
                .into_iter()
                .map(move |chunk| (i, chunk))
        })
        .collect();
    let counts: Vec<usize> = (0..texts.len())
        .map(|text| jobs.iter().filter(|(of, _)| *of == text).count())
        .collect();
    let mut rest = jobs.as_slice();
    while !rest.is_empty() {
        interrupt::check()?;
        mapped::check_at_times()?;
        let mut rows = 0;
        let fits = rest.iter().take(together).take_while(|(_, chunk)| {
            rows += chunk.len() - 1;
            rows <= N_BATCH
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        score_together(&mut context, now, &mut |text, nll| {
            texts[text].score.add(nll);
            all.add(nll);
        })?;
        progress.add(now.len() as u64);
        progress.message(&format!("perplexity {:.4}", all.perplexity()));
    }
    drop(progress);
    if args.json {
        let report = |text: &Text, chunks: usize| {
            json!({
                "model": source.to_string(),
                "file": text.name,
                "perplexity": json_f64(text.score.perplexity()),
                "standard_error": json_f64(text.score.standard_error()),
                "tokens": text.tokens,
                "scored": text.score.n,
                "chunks": chunks,
                "ctx_size": text.n_ctx,
            })
        };
        let mut reports: Vec<Value> = texts
            .iter()
            .zip(&counts)
            .map(|(text, &n)| report(text, n))
            .collect();
        if !several && let Some(one) = reports.pop() {
            return output::json(&one);
        }
        return output::json(&json!({
            "perplexity": json_f64(all.perplexity()),
            "standard_error": json_f64(all.standard_error()),
            "scored": all.n,
            "texts": reports,
        }));
    }
    let line = |score: &Score, of: &str| {
        format!(
            "perplexity {:.4} +/- {:.5} ({} tokens scored{of})\n",
            score.perplexity(),
            score.standard_error(),
            score.n
        )
    };
    let mut out = String::new();
    for (text, n) in texts.iter().zip(&counts) {
        let of = format!(" in {n} chunks of {}", text.n_ctx);
        if several {
            out += &format!("{}: ", text.name);
        }
        out += &line(&text.score, &of);
    }
    if several {
        out += &format!("all: {}", line(&all, ""));
    }
    output::to_stdout(&out)
}

/// Evaluates some chunks in the same passes, each in a sequence of its own: `add(text, nll)` gets their scored tokens.
fn score_together(
    context: &mut Context,
    chunks: &[(usize, Vec<u32>)],
    add: &mut dyn FnMut(usize, f64),
) -> Result<()> {
    let mut open = Vec::new();
    // Of each row its sequence, token, and where it is scored the text and the token that follows.
    let mut rows = Vec::new();
    for (text, chunk) in chunks {
        let id = context.open()?;
        open.push(id);
        let first = chunk.len() / 2;
        // The last token predicts nothing that is known.
        for (i, pair) in chunk.windows(2).enumerate() {
            let scored = (i >= first).then_some((*text, pair[1]));
            rows.push((id, pair[0], scored));
        }
    }
    let mut batch = Batch::new();
    for rows in rows.chunks(N_BATCH) {
        interrupt::check()?;
        batch.clear();
        for (id, token, scored) in rows {
            let output = if scored.is_some() {
                Output::Logits
            } else {
                Output::None
            };
            batch.push(*id, *token, output);
        }
        context.forward(&mut batch, &mut (), &mut |row, logits| {
            if let Some((text, next)) = rows[row].2 {
                add(text, negative_log_likelihood(logits, next));
            }
        })?;
    }
    for id in open {
        context.close(id)?;
    }
    Ok(())
}

/// Sums over scored tokens.
#[derive(Debug, Default)]
struct Score {
    n: usize,
    sum: f64,
    squares: f64,
}

impl Score {
    fn add(&mut self, nll: f64) {
        self.n += 1;
        self.sum += nll;
        self.squares += nll * nll;
    }

    fn mean(&self) -> f64 {
        self.sum / self.n as f64
    }

    fn perplexity(&self) -> f64 {
        libm::exp(self.mean())
    }

    /// That of the mean, carried over to its exponential.
    fn standard_error(&self) -> f64 {
        if self.n < 2 {
            return 0.0;
        }
        let variance = self.squares / self.n as f64 - self.mean() * self.mean();
        let of_mean = (if variance > 0.0 { variance } else { 0.0 } / (self.n - 1) as f64).sqrt();
        of_mean * self.perplexity()
    }
}

/// Minus the logarithm of the probability that softmax gives to `token`, in f64.
fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let mut max = f32::MIN;
    for &x in logits {
        if max < x {
            max = x;
        }
    }
    let mut sum = 0.0f64;
    for &x in logits {
        sum += libm::exp(f64::from(x) - f64::from(max));
    }
    let own = logits.get(token as usize).copied().unwrap_or(f32::MIN);
    libm::log(sum) - (f64::from(own) - f64::from(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_logits_have_the_vocabulary_as_perplexity() {
        let mut score = Score::default();
        for token in 0..5 {
            score.add(negative_log_likelihood(&[0.7; 5], token));
        }
        assert!((score.perplexity() - 5.0).abs() < 1e-12);
        assert!(score.standard_error() < 1e-6);
    }

    #[test]
    fn by_hand() {
        // Probabilities 3/4 and 1/4: the geometric mean of 4/3 and 4.
        let logits = [libm::logf(3.0), 0.0];
        let mut score = Score::default();
        score.add(negative_log_likelihood(&logits, 0));
        score.add(negative_log_likelihood(&logits, 1));
        assert!((score.perplexity() - (16.0f64 / 3.0).sqrt()).abs() < 1e-6);
    }
}
