//! Where the weights and the cache are before the first token: brought in (`--populate`), the weights locked
//! (`--mlock`) and in huge pages (`--huge-pages`). What the system refuses is said, with what to do about it, and the
//! model runs all the same.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use twinfer_engine::context::Context;
use twinfer_engine::memory::Bytes;
use twinfer_engine::team::Team;

use crate::args::HugePages;
use crate::progress::Progress;
use crate::settings::{Verbosity, WeightSettings};
use crate::{interrupt, system};

/// Bytes that are brought in or locked between two looks at the progress bar and at Ctrl-C.
const CHUNK: usize = 64 << 20;
/// Bytes of it that a worker takes at a time.
const PIECE: usize = 1 << 20;

/// Does what the settings ask for with the memory of the weights.
pub(crate) fn settle(
    settings: &WeightSettings,
    verbosity: Verbosity,
    team: &Team,
    weights: &[Bytes],
) -> Result<()> {
    let total: u64 = weights.iter().map(|bytes| bytes.len() as u64).sum();
    if settings.huge_pages == HugePages::On {
        for bytes in weights {
            // Asked before anything is brought in. Few file systems have huge pages: what came of it is reported below.
            let _ = system::use_huge_pages(bytes);
        }
    }
    if settings.populate {
        each_chunk(
            "bringing weights in",
            (weights, total),
            verbosity,
            team,
            &|chunk| {
                if system::populate(chunk).is_err() {
                    touch(chunk);
                }
                true
            },
        )?;
    }
    if settings.mlock {
        let (locked, refused) = (AtomicU64::new(0), Mutex::new(None));
        each_chunk("locking weights", (weights, total), verbosity, team, &|chunk| {
            let result = system::lock(chunk);
            if let Err(error) = result {
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return false;
            }
            locked.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            true
        })?;
        if let Some(error) = refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let locked = locked.into_inner();
            verbosity.note(&why_not_locked(&error, locked, total, system::memlock_limit()));
        }
    }
    if settings.huge_pages == HugePages::On {
        verbosity.note(&huge_pages_found(total));
    }
    Ok(())
}

/// Brings the cache's memory in before the first pass writes to it; the workers share that.
pub(crate) fn bring_in_cache(context: &Context, verbosity: Verbosity) -> Result<()> {
    let _guard = interrupt::Guard::new();
    let chunks: Vec<&[u8]> = context
        .cache_memory()
        .flat_map(|bytes| bytes.chunks(PIECE))
        .collect();
    let mut progress = Progress::new("bringing the cache in", chunks.len() as u64, verbosity);
    let refused = AtomicBool::new(false);
    for some in chunks.chunks(CHUNK / PIECE) {
        interrupt::check()?;
        context.team().ranges(some.len(), 1, |range| {
            for chunk in &some[range] {
                if system::populate_for_writing(chunk).is_err() {
                    refused.store(true, Ordering::Relaxed);
                }
            }
        })?;
        progress.add(some.len() as u64);
    }
    drop(progress);
    if refused.into_inner() {
        verbosity
            .detail("the system does not bring memory in for writing: the cache comes in as it is filled");
    }
    Ok(())
}

/// Runs `f` over the weights in chunks, which the workers share, with a progress bar, until it says false.
fn each_chunk(
    what: &str,
    (weights, total): (&[Bytes], u64),
    verbosity: Verbosity,
    team: &Team,
    f: &(dyn Fn(&[u8]) -> bool + Sync),
) -> Result<()> {
    let _guard = interrupt::Guard::new();
    let mut progress = Progress::new(what, total, verbosity);
    let go_on = AtomicBool::new(true);
    let chunks: Vec<&[u8]> = weights.iter().flat_map(|bytes| bytes.chunks(PIECE)).collect();
    for some in chunks.chunks(CHUNK / PIECE) {
        interrupt::check()?;
        team.ranges(some.len(), 1, |range| {
            for chunk in &some[range] {
                if go_on.load(Ordering::Relaxed) && !f(chunk) {
                    go_on.store(false, Ordering::Relaxed);
                }
            }
        })?;
        if !go_on.load(Ordering::Relaxed) {
            break;
        }
        progress.add(some.iter().map(|chunk| chunk.len() as u64).sum());
    }
    Ok(())
}

/// Reads a byte of each page: what brings memory in where the system has no call for it.
fn touch(bytes: &[u8]) {
    let sum = bytes
        .iter()
        .step_by(4096)
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    std::hint::black_box(sum);
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn why_not_locked(error: &io::Error, locked: u64, total: u64, limit: Option<u64>) -> String {
    let needed = total.div_ceil(1024);
    match limit {
        Some(limit) if limit < total => format!(
            "note: --mlock: {} of {} MiB locked, the limit (RLIMIT_MEMLOCK) is {} KiB; raise it to {needed} KiB or more: \
             `ulimit -l {needed}` in the shell (as far as its hard limit goes), `LimitMEMLOCK=infinity` in a systemd unit, a \
             `memlock` line in /etc/security/limits.conf, `--ulimit memlock=-1` for docker; going on without",
            mib(locked),
            mib(total),
            limit >> 10,
        ),
        _ => format!(
            "note: --mlock: {} of {} MiB locked: {error}; going on without",
            mib(locked),
            mib(total)
        ),
    }
}

fn huge_pages_found(total: u64) -> String {
    let mode = match system::huge_page_mode().as_deref() {
        Some("never") => "; /sys/kernel/mm/transparent_hugepage/enabled is `never`: set it to `madvise`",
        None => "; this system does not tell of transparent huge pages",
        _ => "",
    };
    let found = match system::huge_bytes() {
        Some((anonymous, file)) => format!(
            "{} MiB of this process are in huge pages, {} MiB of mapped files are",
            mib(anonymous),
            mib(file)
        ),
        None => "the system does not say what it gave".into(),
    };
    format!(
        "note: --huge-pages: {found}, of {} MiB of weights{mode}",
        mib(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_lock_says_what_to_do() {
        let error = io::Error::from(io::ErrorKind::OutOfMemory);
        let text = why_not_locked(&error, 8 << 20, 3 << 30, Some(8 << 20));
        for part in [
            "8 of 3072 MiB",
            "8192 KiB",
            "ulimit -l 3145728",
            "LimitMEMLOCK",
            "going on",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(why_not_locked(&error, 0, 1 << 20, None).contains("going on"));
    }
}
