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

/// How many sequences are computed at a time.
pub(super) fn parallel(args: &BatchArgs) -> usize {
    args.parallel.unwrap_or(DEFAULT_PARALLEL)
}

/// The context's sizes.
pub(super) fn sizes(
    compute: &Compute<'_>,
    planned: &PlannedModel<'_>,
    n_ctx: usize,
    args: &BatchArgs,
) -> Result<ContextOptions> {
    let parallel = parallel(args);
    let n_batch = N_BATCH.max(parallel);
    let pool = match args.cache_size {
        Some(bytes) => Pool::Bytes(bytes),
        None => compute.shared_pool(planned, (n_ctx, n_batch), (parallel, 2))?,
    };
    // One more handle than sequences: a prompt is looked up before it is known whether it has room.
    Ok(compute.sequences((n_ctx, n_batch), parallel + 1, pool))
}
