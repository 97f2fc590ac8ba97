//! The engine's team made of the page's workers.
//!
//! In a build with shared memory the page starts plain web workers that enter the same module: [`run_worker`] takes the
//! job with its index and stays in it for the life of the module. A build without shared memory has a team of one.

use std::sync::{Mutex, OnceLock, PoisonError};

use twinfer_engine::team::Team;
use wasm_bindgen::prelude::*;

use crate::error::{Result, with_code};

type Job = Box<dyn FnOnce() + Send>;

/// Jobs of the team's workers by index, until a worker takes them.
static JOBS: Mutex<Vec<Option<Job>>> = Mutex::new(Vec::new());

fn jobs() -> std::sync::MutexGuard<'static, Vec<Option<Job>>> {
    JOBS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this build can have more than one thread.
#[wasm_bindgen(js_name = canThread)]
pub fn can_thread() -> bool {
    cfg!(target_feature = "atomics")
}

/// The module's team: workers stay in it, so there is one for all.
static TEAM: OnceLock<Team> = OnceLock::new();

/// Makes the team of `n`, once, before anything is computed; the page then starts `n - 1` workers that call
/// [`run_worker`] with 1 to `n - 1`. One that comes late or not at all delays nobody.
#[wasm_bindgen(js_name = startTeam)]
pub fn start_team(n: usize) {
    let n = if can_thread() { n } else { 1 };
    TEAM.get_or_init(|| {
        Team::new(n, |index, job| {
            let mut jobs = jobs();
            let len = jobs.len().max(index + 1);
            jobs.resize_with(len, || None);
            jobs[index] = Some(job);
        })
    });
}

/// The team; the calling worker alone where none was started.
pub(crate) fn team() -> Team {
    TEAM.get().cloned().unwrap_or_else(Team::single)
}

/// The life of worker `index`. It returns when the team is dropped.
#[wasm_bindgen(js_name = runWorker)]
pub fn run_worker(index: usize) -> Result<()> {
    let job = jobs().get_mut(index).and_then(Option::take);
    match job {
        Some(job) => {
            job();
            Ok(())
        }
        None => Err(with_code(
            "worker",
            &format!("there is no job for worker {index}"),
        )),
    }
}
