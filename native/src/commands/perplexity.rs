//! `perplexity`: how well a model predicts a text, by llama.cpp's procedure.
//!
//! The text is cut into chunks of the context's size. Each is evaluated by itself, its first token replaced by BOS
//! where the model wants one, and the predictions in its second half are scored, so that every scored token has at
//! least half a context before it. Chunks share passes where they are shorter than a pass; no number depends on it.

use anyhow::{Result, bail};
use serde_json::json;
use twinfer_engine::batch::{Batch, Output};
use twinfer_engine::cache::{Pool, SeqId};
use twinfer_engine::context::Context;
use twinfer_engine::tokenizer::EncodeOptions;

use crate::args::PerplexityArgs;
use crate::compute::Compute;
use crate::output::{self, json_f64};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{interrupt, load};

const DEFAULT_CTX: usize = 512;
const N_BATCH: usize = 512;
/// Fewer tokens than this say nothing.
const LEAST_TOKENS: usize = 4;

pub(super) fn run(settings: &Settings, workers: &Workers, args: &PerplexityArgs) -> Result<()> {
    let text = output::read_text(&args.file)?;
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let file = source.open()?;
    let tokenizer = load::tokenizer(source, &file, verbosity)?;
    let tokens = tokenizer.encode(
        &text,
        EncodeOptions {
            add_special: true,
            parse_special: false,
        },
    )?;
    if tokens.len() < LEAST_TOKENS {
        bail!(
            "the text has {} tokens; perplexity needs at least {LEAST_TOKENS}",
            tokens.len()
        );
    }
    let compute = Compute::start(settings, workers)?;
    let model = compute.load(&file)?;
    let wanted = if settings.context.size.is_none() {
        DEFAULT_CTX.min(model.config().n_ctx_train.max(LEAST_TOKENS))
    } else {
        compute.context_size(&model).max(LEAST_TOKENS)
    };
    let n_ctx = wanted.min(tokens.len());
    if n_ctx < wanted {
        verbosity.note(&format!(
            "note: the text has only {n_ctx} tokens; it is one chunk"
        ));
    }
    let n_chunks = (tokens.len() / n_ctx).min(args.chunks.unwrap_or(usize::MAX));
    if n_chunks == 0 {
        bail!("--chunks 0 leaves nothing to score; leave it out to score the whole text");
    }
    // A chunk has a row less than tokens: as many as begin in a pass, and one that goes on in it.
    let together = (N_BATCH.div_ceil(n_ctx - 1) + 1).min(n_chunks);
    let mut context = compute.context_of_many(&model, (n_ctx, N_BATCH), together, Pool::Whole)?;
    let _pinned = compute.pin_caller();

    let _guard = interrupt::Guard::new();
    let mut progress = Progress::new("perplexity", n_chunks as u64, verbosity);
    let mut score = Score::default();
    let first = n_ctx / 2;
    let mut pass = Scored::default();
    for chunk in tokens.chunks_exact(n_ctx).take(n_chunks) {
        let id = context.open()?;
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
        // The last token predicts nothing that is known.
        for (i, pair) in chunk.windows(2).enumerate() {
            let token = bos.filter(|_| i == 0).unwrap_or(pair[0]);
            let next = (i >= first).then_some(pair[1]);
            pass.push(id, token, next);
            if i + 2 == n_ctx {
                pass.ends.push(id);
            }
            if pass.batch.len() == context.options().n_batch {
                interrupt::check()?;
                pass.compute(&mut context, &mut score, &mut progress)?;
            }
        }
    }
    pass.compute(&mut context, &mut score, &mut progress)?;
    drop(progress);
    if args.json {
        return output::json(&json!({
            "model": source.to_string(),
            "perplexity": json_f64(score.perplexity()),
            "standard_error": json_f64(score.standard_error()),
            "tokens": tokens.len(),
            "scored": score.n,
            "chunks": n_chunks,
            "ctx_size": n_ctx,
        }));
    }
    output::to_stdout(&format!(
        "perplexity {:.4} +/- {:.5} ({} tokens scored in {n_chunks} chunks of {n_ctx})\n",
        score.perplexity(),
        score.standard_error(),
        score.n
    ))
}

/// A pass over chunks, several of which may share it.
#[derive(Debug, Default)]
struct Scored {
    batch: Batch,
    /// The tokens that the rows with logits should predict.
    next: Vec<u32>,
    /// Sequences of the chunks that end in it.
    ends: Vec<SeqId>,
}

impl Scored {
    fn push(&mut self, id: SeqId, token: u32, next: Option<u32>) {
        let output = if next.is_some() {
            Output::Logits
        } else {
            Output::None
        };
        self.batch.push(id, token, output);
        self.next.extend(next);
    }

    /// Scores its rows, in their order.
    fn compute(&mut self, context: &mut Context, score: &mut Score, progress: &mut Progress) -> Result<()> {
        let mut next = self.next.iter();
        context.forward(&mut self.batch, &mut (), &mut |_, logits| {
            if let Some(&token) = next.next() {
                score.add(negative_log_likelihood(logits, token));
            }
        })?;
        self.batch.clear();
        self.next.clear();
        progress.add(self.ends.len() as u64);
        for id in self.ends.drain(..) {
            context.close(id)?;
        }
        if score.n > 0 {
            progress.message(&format!("perplexity {:.4}", score.perplexity()));
        }
        Ok(())
    }
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
