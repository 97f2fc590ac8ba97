//! Vectors of texts: what `embed` and `rerank` share.

use std::path::Path;

use anyhow::{Result, bail};
use twinfer_engine::cache::Pool;
use twinfer_engine::kernels::BLOCK;
use twinfer_engine::model::pooling::Pooling;

use crate::compute::{Compute, PlannedModel};
use crate::progress::Progress;
use crate::settings::Verbosity;
use crate::{interrupt, output};

/// Texts that share a pass at most.
pub(crate) const TOGETHER: usize = 64;

/// What is made of texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    pub(crate) batch_size: usize,
}

/// The lines of a file.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>> {
    let content = output::read_text(path)?;
    Ok(content.lines().map(Into::into).collect())
}

/// The vectors of each text's tokens: one, or one for each token. `what` names a text in messages.
pub(crate) fn make(
    (compute, verbosity): (&Compute<'_>, Verbosity),
    planned: PlannedModel<'_>,
    texts: &[Vec<u32>],
    making: Making,
    what: &str,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let Some(longest) = texts.iter().map(Vec::len).max() else {
        bail!("there is no {what}");
    };
    let config = planned.config();
    let n_ctx = compute.context_size(config);
    let most = config.max_positions(n_ctx);
    for (i, text) in texts.iter().enumerate() {
        if text.is_empty() {
            bail!("{what} {} has no tokens", i + 1);
        }
        if text.len() > most {
            let advice = match config.max_positions(usize::MAX) {
                all if all <= most => "the model has no more positions",
                _ => "raise --ctx-size",
            };
            bail!(
                "{what} {} has {} tokens, and {most} fit: {advice}",
                i + 1,
                text.len()
            );
        }
    }
    let whole = !config.is_causal() || making.pooling != Pooling::Last;
    let n_batch = match whole {
        true => making.batch_size.max(longest),
        false => making.batch_size,
    };
    let together = texts.len().min(TOGETHER);
    let pages = longest.div_ceil(BLOCK) + n_batch.div_ceil(BLOCK) + together;
    let options = compute.sequences((longest, n_batch), together, Pool::UpTo(pages));
    let model = compute.load(planned, &options)?;
    let mut context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();
    let _guard = interrupt::Guard::new();
    let total: usize = texts.iter().map(Vec::len).sum();
    let mut progress = Progress::new("computing vectors", total as u64, verbosity);
    let mut all = Vec::with_capacity(texts.len());
    for texts in texts.chunks(TOGETHER) {
        let tokens: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let first = all.len();
        all.resize(first + texts.len(), Vec::new());
        context.embed(&tokens, making.pooling, making.normalize, &mut |text, vector| {
            all[first + text].push(vector.to_vec());
        })?;
        interrupt::check()?;
        progress.add(tokens.iter().map(|text| text.len() as u64).sum());
    }
    Ok(all)
}
