//! How many sequences, and how much cache for them.

use anyhow::Result;
use twinfer_engine::cache::Pool;
use twinfer_engine::context::ContextOptions;

use crate::args::BatchArgs;
use crate::compute::{Compute, PlannedModel};

/// Rows of a pass.
const N_BATCH: usize = 512;

/// Sequences at a time where nobody says how many.
const DEFAULT_PARALLEL: usize = 256;

/// The default cache has room for so many sequences as long as the context.
const DEFAULT_WHOLE: usize = 32;

/// The context's sizes, and how many sequences it computes at a time.
pub(super) fn sizes(
    compute: &Compute<'_>,
    planned: &PlannedModel<'_>,
    n_ctx: usize,
    args: &BatchArgs,
) -> Result<(ContextOptions, usize)> {
    let parallel = args.parallel.unwrap_or(DEFAULT_PARALLEL);
    let n_batch = N_BATCH.max(parallel);
    let bytes = match args.cache_size {
        Some(bytes) => bytes,
        None => {
            let one = compute.budget(planned, &compute.one_sequence(n_ctx, n_batch))?;
            let cache = one.context.cache_bytes();
            let wanted = cache.saturating_mul(DEFAULT_WHOLE.min(parallel) as u64);
            let free = compute.rooms().first().map_or(u64::MAX, |room| room.free);
            let half = free.saturating_sub(one.needed().saturating_sub(cache)) / 2;
            // A single sequence of the context's size always has room.
            wanted.min(half).max(cache)
        }
    };
    // One more handle than sequences: a prompt is looked up before it is known whether it has room.
    let options = compute.sequences((n_ctx, n_batch), parallel + 1, Pool::Bytes(bytes));
    Ok((options, parallel))
}
