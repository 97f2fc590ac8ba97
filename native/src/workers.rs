//! The workers of a command: how many, on which CPUs, and the threads that they are.

use std::sync::mpsc;

use anyhow::{Context as _, Result};
use twinfer_engine::team::Team;

use crate::settings::WorkerSettings;
use crate::system;
use crate::topology::Machine;

/// How many workers there are and where, on one machine.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    pub(crate) n: usize,
    /// The CPU of each worker, or why workers have none of their own.
    pub(crate) pins: Result<Vec<usize>, &'static str>,
}

impl Workers {
    pub(crate) fn of(settings: WorkerSettings, machine: &Machine) -> Self {
        let n = settings.n.unwrap_or_else(|| machine.default_threads());
        Workers {
            n,
            pins: machine.pins(n, settings.pinning),
        }
    }

    /// Starts the threads that load and compute.
    pub(crate) fn start(&self) -> Result<Team> {
        start(self.n, self.pins.as_deref().unwrap_or(&[]))
    }

    /// As many threads, left to the scheduler.
    pub(crate) fn start_unpinned(&self) -> Result<Team> {
        start(self.n, &[])
    }

    /// Rayon's threads, which quantize and make random weights.
    pub(crate) fn pool(&self) -> Result<rayon::ThreadPool> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.n)
            .thread_name(|i| format!("twinfer-pool-{i}"))
            .build()
            .with_context(|| refused(self.n))
    }

    /// Holds the calling thread, which is a team's worker 0, on that worker's CPU while the value lives.
    pub(crate) fn pin_caller(&self) -> Pinned {
        let cpu = self.pins.as_ref().ok().and_then(|pins| pins.first().copied());
        Pinned(cpu.and_then(|cpu| {
            let before = system::affinity()?;
            system::set_affinity(&[cpu]).ok()?;
            Some(before)
        }))
    }
}

/// See [`Workers::pin_caller`].
#[derive(Debug)]
pub(crate) struct Pinned(Option<Vec<usize>>);

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Where the mask cannot be put back, the thread stays where it computes.
            let _ = system::set_affinity(before);
        }
    }
}

fn refused(n: usize) -> String {
    format!("cannot start {n} threads; try a smaller --threads")
}

/// Starts a team, its workers on a CPU each where `pins` names them. They are threads of their own, for they stay with the
/// team.
fn start(n: usize, pins: &[usize]) -> Result<Team> {
    type Job = Box<dyn FnOnce() + Send>;
    let mut workers = Vec::new();
    for i in 1..n {
        let (send, receive) = mpsc::channel::<Job>();
        let cpu = pins.get(i).copied();
        std::thread::Builder::new()
            .name(format!("twinfer-{i}"))
            .spawn(move || {
                if let Some(cpu) = cpu {
                    // A CPU that is gone meanwhile: the worker goes where the scheduler puts it.
                    let _ = system::set_affinity(&[cpu]);
                }
                if let Ok(job) = receive.recv() {
                    job();
                }
            })
            .with_context(|| refused(n))?;
        workers.push(send);
    }
    Ok(Team::new(n, |i, job| {
        // Every thread waits for its job, so the receiver is there.
        let _ = workers[i - 1].send(job);
    }))
}
