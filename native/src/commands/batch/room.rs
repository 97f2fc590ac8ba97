//! How many sequences, and how much cache for them.

use std::sync::Arc;

use anyhow::{Result, bail};
use twinfer_engine::cache::Pool;
use twinfer_engine::context::{Context, ContextOptions, ContextPlan};
use twinfer_engine::model::Model;

use crate::args::BatchArgs;
use crate::compute::Compute;
use crate::settings::Settings;
use crate::system::available_memory;

/// Rows of a pass.
const N_BATCH: usize = 512;

/// Sequences at a time where nobody says how many.
const DEFAULT_PARALLEL: usize = 256;

/// The default cache has room for so many sequences as long as the context.
const DEFAULT_WHOLE: usize = 32;

/// The context, and how many sequences it has at a time.
pub(super) fn context(
    settings: &Settings,
    compute: &Compute<'_>,
    model: &Arc<Model>,
    n_ctx: usize,
    args: &BatchArgs,
) -> Result<(Context, usize)> {
    let parallel = args.parallel.unwrap_or(DEFAULT_PARALLEL);
    let (cache_type_k, cache_type_v) = settings.context.cache;
    let options = |n_sequences, pool| ContextOptions {
        n_ctx,
        n_batch: N_BATCH.max(parallel),
        n_sequences,
        pool,
        cache_type_k,
        cache_type_v,
    };
    let plan = |n_sequences, pool| ContextPlan::of(model, compute.team(), &options(n_sequences, pool));
    // One more handle than sequences: a prompt is looked up before it is known whether it has room.
    let handles = parallel + 1;
    let free = available_memory();
    let bytes = match args.cache_size {
        Some(bytes) => bytes,
        None => {
            let one = plan(1, Pool::Whole)?;
            let wanted = one
                .cache_bytes()
                .saturating_mul(DEFAULT_WHOLE.min(parallel) as u64);
            let half = free.map_or(u64::MAX, |free| free.saturating_sub(one.workspace_bytes()) / 2);
            // A single sequence of the context's size always has room.
            wanted.min(half).max(one.cache_bytes())
        }
    };
    let pool = Pool::Bytes(bytes);
    let plan = plan(handles, pool)?;
    let needed = plan.cache_bytes().saturating_add(plan.workspace_bytes());
    if let Some(free) = free
        && needed > free
    {
        bail!(
            "a cache of {} MiB and the buffers of a pass need {} MiB, {} MiB of memory are free; choose a smaller \
             --cache-size or --ctx-size",
            plan.cache_bytes() >> 20,
            needed >> 20,
            free >> 20
        );
    }
    settings.verbosity.detail(&format!(
        "up to {parallel} sequences of at most {n_ctx} tokens in {:.1} MiB of cache",
        plan.cache_bytes() as f64 / f64::from(1 << 20)
    ));
    let context = Context::new(Arc::clone(model), compute.team().clone(), options(handles, pool))?;
    Ok((context, parallel))
}
