//! The workers of a command: how many, on which CPUs and nodes, and the threads that they are.

use std::collections::BTreeSet;
use std::sync::mpsc;

use anyhow::{Context as _, Result};
use twinfer_engine::kernels::Placement;
use twinfer_engine::team::{Place, Team};

use crate::failure::Usage;
use crate::numa::Numa;
use crate::settings::{Settings, WorkerSettings};
use crate::system;
use crate::topology::{Machine, Nodes};

/// How many workers there are and where, on one machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Workers {
    pub(crate) n: usize,
    /// The CPU of each worker, or why workers have none of their own.
    pub(crate) pins: Result<Vec<usize>, &'static str>,
    /// The node of each worker, counted from 0: an index into `node_ids`. Workers of a node stand side by side. All are
    /// 0 where workers have no CPUs of their own.
    pub(crate) nodes: Vec<usize>,
    /// The system's numbers of the nodes that workers are on, ascending; those that they may be on where they have no
    /// CPUs of their own.
    pub(crate) node_ids: Vec<usize>,
    /// The third-level cache of each worker; all are 0 where workers have no CPUs of their own.
    caches: Vec<usize>,
    /// What is done about nodes.
    pub(crate) numa: Numa,
}

impl Workers {
    /// Those of a command, on the nodes that `--numa` and the model's size ask for. Of one node it asks for its memory
    /// from now on.
    ///
    /// # Errors
    /// As [`Self::of`] and [`Numa::choose`].
    pub(crate) fn for_command(settings: &Settings, machine: &Machine) -> Result<Self> {
        let numa = Numa::choose(settings.workers.numa, machine, settings.source.bytes())?;
        if let Some(note) = numa.prefer() {
            settings.verbosity.note(&note);
        }
        Self::of(&settings.workers, machine, numa)
    }

    /// On some nodes, unless `--cpus` names CPUs, which then are on whatever nodes they are.
    ///
    /// # Errors
    /// `--cpus` with CPUs that cannot be used, or with fewer than `--threads`.
    pub(crate) fn of(settings: &WorkerSettings, machine: &Machine, numa: Numa) -> Result<Self> {
        let nodes = numa.nodes.as_deref().map_or(Nodes::All, Nodes::These);
        let (n, pins) = match &settings.cpus {
            None => {
                let n = settings.n.unwrap_or_else(|| machine.default_threads(nodes));
                (n, machine.pins(n, nodes, settings.pinning))
            }
            Some(cpus) => {
                let mut cpus = machine.chosen(cpus).map_err(Usage)?;
                let n = settings.n.unwrap_or(cpus.len());
                if n > cpus.len() {
                    let text = format!("--threads {n} are more than the {} CPUs of --cpus", cpus.len());
                    return Err(Usage(text).into());
                }
                cpus.truncate(n);
                // Those of a node side by side: siblings of several nodes stand behind all of their cores.
                cpus.sort_by_key(|&cpu| machine.node_of(cpu));
                (n, Ok(cpus))
            }
        };
        let (nodes, node_ids) = match &pins {
            Ok(pins) => {
                let of: Vec<usize> = pins
                    .iter()
                    .map(|&cpu| machine.node_of(cpu).unwrap_or(0))
                    .collect();
                let ids: BTreeSet<usize> = of.iter().copied().collect();
                let ids: Vec<usize> = ids.into_iter().collect();
                let index = |node: &usize| ids.binary_search(node).unwrap_or(0);
                (of.iter().map(index).collect(), ids)
            }
            Err(_) => {
                let mut ids = machine.usable_nodes();
                if let Nodes::These(these) = nodes {
                    ids.retain(|id| these.contains(id));
                }
                (vec![0; n], ids)
            }
        };
        let caches = match &pins {
            Ok(pins) => pins.iter().map(|&cpu| machine.l3_of(cpu).unwrap_or(0)).collect(),
            Err(_) => vec![0; n],
        };
        Ok(Workers {
            n,
            pins,
            nodes,
            node_ids,
            caches,
            numa,
        })
    }

    /// Where packed weights lie: without several nodes that workers stay on, anywhere.
    pub(crate) fn placement(&self) -> Placement {
        match self.node_ids.len() {
            0 | 1 => Placement::Anywhere,
            _ if self.pins.is_err() => Placement::Anywhere,
            _ => self.numa.placement,
        }
    }

    /// Starts the threads that load and compute.
    pub(crate) fn start(&self) -> Result<Team> {
        start(&self.places(), self.pins.as_deref().unwrap_or(&[]))
    }

    fn places(&self) -> Vec<Place> {
        let together = self.placement() == Placement::Anywhere;
        let place = |(&node, &cache): (&usize, &usize)| Place {
            node: if together { 0 } else { node },
            cache,
        };
        self.nodes.iter().zip(&self.caches).map(place).collect()
    }

    /// Where memory of theirs will lie, with the team that they have started.
    pub(crate) fn layout(&self, team: Team) -> Layout {
        let placement = self.placement();
        Layout {
            placement,
            team,
            nodes: match placement {
                Placement::Anywhere => self.numa.preferred.into_iter().collect(),
                Placement::Distribute | Placement::Mirror => self.node_ids.clone(),
            },
            spills: false,
        }
    }

    /// The same where they are not started: a team of these places without threads, which can divide work for a plan
    /// and never be given any.
    pub(crate) fn planned_layout(&self) -> Layout {
        self.layout(Team::placed(&self.places(), |_, _| {}))
    }

    /// As many threads, left to the scheduler.
    pub(crate) fn start_unpinned(&self) -> Result<Team> {
        start(&vec![Place::default(); self.n], &[])
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

/// Where memory lies, for plans.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Of packed weights.
    pub(crate) placement: Placement,
    /// Divides rows, and heads of the cache, between nodes.
    pub(crate) team: Team,
    /// The system's numbers of the nodes that memory is planned on; none where it lies wherever the system puts it.
    pub(crate) nodes: Vec<usize>,
    /// Nobody asked for the one node: what it has no room for may lie on others.
    pub(crate) spills: bool,
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

/// Starts a team of workers at these places, on a CPU each where `pins` names them. They are threads of their own, for
/// they stay with the team.
fn start(places: &[Place], pins: &[usize]) -> Result<Team> {
    type Job = Box<dyn FnOnce() + Send>;
    let n = places.len();
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
    Ok(Team::placed(places, |i, job| {
        // Every thread waits for its job, so the receiver is there.
        let _ = workers[i - 1].send(job);
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_group::CpuSet;
    use crate::numa::NumaMode;
    use crate::topology::{Cpu, Kind, Node};

    /// Two nodes, numbered 0 and 2, of two cores of two threads: CPUs 0, 1, 4, 5 and 2, 3, 6, 7.
    fn machine() -> Machine {
        let node_of = |cpu: usize| if cpu % 4 < 2 { 0 } else { 2 };
        let cpus: Vec<Cpu> = (0..8)
            .map(|id| Cpu {
                id,
                package: 0,
                die: 0,
                node: node_of(id),
                l3: node_of(id),
                core: id % 4,
                kind: Kind::Fast,
            })
            .collect();
        let nodes = [0, 2].map(|id| Node {
            id,
            cpus: (0..8).filter(|&cpu| node_of(cpu) == id).collect(),
            memory: None,
            distances: Vec::new(),
        });
        Machine {
            cpus,
            offline: vec![8],
            nodes: nodes.into(),
            allowed: (0..7).collect(),
            allowed_nodes: vec![0, 2],
            cpuset: CpuSet::default(),
            quota: None,
        }
    }

    fn settings(n: Option<usize>, cpus: Option<&[usize]>, pinning: Option<bool>) -> WorkerSettings {
        WorkerSettings {
            n,
            cpus: cpus.map(Into::into),
            pinning,
            numa: NumaMode::Auto,
        }
    }

    fn on(nodes: &[usize]) -> Numa {
        Numa {
            nodes: Some(nodes.into()),
            ..Numa::OFF
        }
    }

    #[test]
    fn workers_know_their_nodes() {
        let of = |settings, numa: Numa| {
            let workers = Workers::of(&settings, &machine(), numa).unwrap();
            assert_eq!(workers.nodes.len(), workers.n);
            (workers.pins.ok(), workers.nodes, workers.node_ids)
        };
        let all = of(settings(None, None, None), Numa::OFF);
        assert_eq!(all, (Some(vec![0, 1, 2, 3]), vec![0, 0, 1, 1], vec![0, 2]));
        // Alone, a node is the first one.
        let one = of(settings(None, None, None), on(&[2]));
        assert_eq!(one, (Some(vec![2, 3]), vec![0, 0], vec![2]));
        let free = of(settings(None, None, Some(false)), on(&[2]));
        assert_eq!(free, (None, vec![0, 0], vec![2]));
        let few = of(settings(Some(3), None, None), Numa::OFF);
        assert_eq!(few, (None, vec![0, 0, 0], vec![0, 2]));
    }

    #[test]
    fn weights_are_placed_where_workers_stay_on_several_nodes() {
        let of = |settings: &WorkerSettings, mode| {
            let numa = Numa::choose(mode, &machine(), Some(1 << 30)).unwrap();
            Workers::of(settings, &machine(), numa).unwrap()
        };
        let all = settings(None, None, None);
        assert_eq!(of(&all, NumaMode::Auto).placement(), Placement::Distribute);
        assert_eq!(of(&all, NumaMode::Mirror).placement(), Placement::Mirror);
        assert_eq!(of(&all, NumaMode::Off).placement(), Placement::Anywhere);
        let one = of(&all, NumaMode::Isolate);
        assert_eq!((one.placement(), one.node_ids), (Placement::Anywhere, vec![0]));
        assert_eq!(of(&all, NumaMode::Node(2)).node_ids, [2]);
        let loose = settings(None, None, Some(false));
        assert_eq!(of(&loose, NumaMode::Distribute).placement(), Placement::Anywhere);
        // Of the two nodes one has a CPU that was named.
        let named = settings(None, Some(&[2, 3]), None);
        assert_eq!(of(&named, NumaMode::Distribute).placement(), Placement::Anywhere);
    }

    #[test]
    fn named_cpus_are_the_workers() {
        let of = |n, cpus: &[usize]| Workers::of(&settings(n, Some(cpus), None), &machine(), Numa::OFF);
        let workers = of(None, &[6, 2, 0, 4]).unwrap();
        assert_eq!(workers.pins, Ok(vec![0, 4, 2, 6]));
        assert_eq!(
            (workers.n, workers.nodes, workers.node_ids),
            (4, vec![0, 0, 1, 1], vec![0, 2])
        );
        // Fewer: cores first.
        assert_eq!(of(Some(2), &[6, 2, 0, 4]).unwrap().pins, Ok(vec![0, 2]));
        let error = |n, cpus: &[usize]| {
            let error = of(n, cpus).unwrap_err();
            assert!(error.is::<Usage>());
            error.to_string()
        };
        assert!(error(Some(3), &[0, 1]).contains("more than the 2 CPUs"));
        assert!(error(None, &[0, 8]).contains("CPUs 8 are offline"));
        assert!(error(None, &[7]).contains("may not use CPUs 7"));
        assert!(error(None, &[9, 10]).contains("no CPUs 9-10"));
    }
}
