//! How many sequences, and how much cache for them.

use std::sync::Arc;

use anyhow::Result;
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::model::Model;

use crate::args::BatchArgs;
use crate::compute::Compute;
use crate::system::available_memory;

/// Rows of a pass.
const N_BATCH: usize = 512;

/// Sequences at a time where nobody says how many.
const DEFAULT_PARALLEL: usize = 256;

/// The default cache has room for so many sequences as long as the context.
const DEFAULT_WHOLE: usize = 32;

/// The context, and how many sequences it has at a time.
pub(super) fn context(
    compute: &Compute<'_>,
    model: &Arc<Model>,
    n_ctx: usize,
    cache: (CacheType, CacheType),
    args: &BatchArgs,
) -> Result<(Context, usize)> {
    let parallel = args.parallel.unwrap_or(DEFAULT_PARALLEL);
    let n_batch = N_BATCH.max(parallel);
    let bytes = match args.cache_size {
        Some(bytes) => bytes,
        None => {
            let one = ContextPlan::of(
                model,
                compute.team(),
                &ContextOptions {
                    n_ctx,
                    n_batch,
                    n_sequences: 1,
                    pool: Pool::Whole,
                    cache_type_k: cache.0,
                    cache_type_v: cache.1,
                },
            )?;
            let wanted = one
                .cache_bytes()
                .saturating_mul(DEFAULT_WHOLE.min(parallel) as u64);
            let free = available_memory().unwrap_or(u64::MAX);
            let half = free.saturating_sub(one.workspace_bytes()) / 2;
            // A single sequence of the context's size always has room.
            wanted.min(half).max(one.cache_bytes())
        }
    };
    // One more handle than sequences: a prompt is looked up before it is known whether it has room.
    let pool = Pool::Bytes(bytes);
    let context = compute.context_of_many(model, (n_ctx, n_batch), parallel + 1, pool)?;
    Ok((context, parallel))
}
