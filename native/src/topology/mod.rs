//! Which CPUs and nodes there are, which this process may use, and where workers go: one per physical core, for SMT
//! siblings share the units that kernels keep busy.
//!
//! All is read from files under a root ([`sysfs`]), where tests can stand another machine. Packages, dies, third-level
//! caches and cores are sets of CPUs; each but the package is named by its lowest CPU.

#[cfg(test)]
mod fixtures;
mod sysfs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) use crate::cpu_list::write_list;

use crate::control_group::{self, CpuSet};
use crate::system;

/// The machine as this process sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// CPUs that are online, ascending; empty where the system does not say.
    pub(crate) cpus: Vec<Cpu>,
    /// CPUs that are there but not online.
    pub(crate) offline: Vec<usize>,
    /// NUMA nodes, ascending; one where the machine has none. Some have memory only.
    pub(crate) nodes: Vec<Node>,
    /// The CPUs that the affinity mask and the control group leave this process.
    pub(crate) allowed: Vec<usize>,
    /// Nodes whose memory this process may use.
    pub(crate) allowed_nodes: Vec<usize>,
    /// What the control group says about both, where it does.
    pub(crate) cpuset: CpuSet,
    /// CPUs' worth of time that the control group may use, where it is limited.
    pub(crate) quota: Option<f64>,
}

/// A logical CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) id: usize,
    /// The system's number of the package.
    pub(crate) package: i64,
    pub(crate) die: usize,
    pub(crate) node: usize,
    /// CPUs that share a third-level cache; the package where nothing is known of one.
    pub(crate) l3: usize,
    /// The same for SMT siblings.
    pub(crate) core: usize,
    pub(crate) kind: Kind,
}

/// Hybrid processors have cores of two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Fast,
    Efficient,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: usize,
    /// Its CPUs that are online.
    pub(crate) cpus: Vec<usize>,
    /// Bytes that are free or filled with nothing but cached files, and all; where the system says it.
    pub(crate) memory: Option<(u64, u64)>,
    /// To each node, in the order of [`Machine::nodes`]; 10 is the node's own, 20 means twice as far.
    pub(crate) distances: Vec<u32>,
}

/// The nodes that workers may be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes<'a> {
    All,
    /// By the system's numbers.
    These(&'a [usize]),
}

impl Nodes<'_> {
    fn contain(self, node: usize) -> bool {
        match self {
            Nodes::All => true,
            Nodes::These(nodes) => nodes.contains(&node),
        }
    }
}

/// Where workers can be.
#[derive(Debug, Default, PartialEq)]
struct Places {
    /// A CPU of each core that computes at full speed: one worker each where nobody said.
    cores: Vec<usize>,
    /// A CPU of each efficient core beside them.
    efficient: Vec<usize>,
    /// The other CPUs of all these cores.
    siblings: Vec<usize>,
}

impl Places {
    fn all(self) -> Vec<usize> {
        [self.cores, self.efficient, self.siblings].concat()
    }
}

impl Machine {
    /// This machine.
    pub(crate) fn read() -> Self {
        Self::under(Path::new("/"), system::affinity())
    }

    /// The machine under a root; `affinity` is the mask, `None` for all CPUs.
    pub(crate) fn under(root: &Path, affinity: Option<Vec<usize>>) -> Self {
        Self::of(
            &|path| std::fs::read_to_string(root.join(path)).ok(),
            root,
            affinity,
        )
    }

    /// The machine that some files show; those of control groups are under `root`.
    fn of(files: sysfs::Files<'_>, root: &Path, affinity: Option<Vec<usize>>) -> Self {
        let (cpus, offline, nodes) = sysfs::read(files);
        let cpuset = control_group::cpu_set(root);
        let affinity = affinity.unwrap_or_else(|| cpus.iter().map(|cpu| cpu.id).collect());
        let ids = nodes.iter().map(|node| node.id).collect();
        let by_status = both(ids, sysfs::allowed_nodes(files).as_deref());
        Machine {
            allowed: both(affinity, cpuset.cpus.as_deref()),
            allowed_nodes: both(by_status, cpuset.nodes.as_deref()),
            cpus,
            offline,
            nodes,
            cpuset,
            quota: control_group::cpu_quota(root),
        }
    }

    fn cpu(&self, id: usize) -> Option<&Cpu> {
        let at = self.cpus.binary_search_by_key(&id, |cpu| cpu.id).ok()?;
        Some(&self.cpus[at])
    }

    /// Where workers can be among some CPUs: in the order of nodes, then third-level caches, then cores. Workers with
    /// neighbouring numbers share what can be shared.
    fn places(&self, among: impl Fn(&Cpu) -> bool) -> Places {
        let mut cpus: Vec<&Cpu> = self.cpus.iter().filter(|cpu| among(cpu)).collect();
        cpus.sort_by_key(|cpu| (cpu.node, cpu.l3, cpu.core, cpu.id));
        let hybrid = cpus.iter().any(|cpu| cpu.kind == Kind::Fast);
        let mut seen = BTreeSet::new();
        let mut places = Places::default();
        for cpu in cpus {
            if !seen.insert(cpu.core) {
                places.siblings.push(cpu.id);
            } else if hybrid && cpu.kind == Kind::Efficient {
                places.efficient.push(cpu.id);
            } else {
                places.cores.push(cpu.id);
            }
        }
        places
    }

    fn usable(&self, nodes: Nodes<'_>) -> Places {
        // Lists are short but for machines with hundreds of CPUs, where looking through them each time adds up.
        let allowed: BTreeSet<usize> = self.allowed.iter().copied().collect();
        self.places(|cpu| allowed.contains(&cpu.id) && nodes.contain(cpu.node))
    }

    /// Sets of CPUs, in the order of their names, by what names them.
    pub(crate) fn sets<T: Ord>(&self, name: impl Fn(&Cpu) -> T) -> Vec<Vec<usize>> {
        let mut sets: BTreeMap<T, Vec<usize>> = BTreeMap::new();
        for cpu in &self.cpus {
            sets.entry(name(cpu)).or_default().push(cpu.id);
        }
        sets.into_values().collect()
    }

    /// Physical cores of the whole machine.
    pub(crate) fn cores(&self) -> usize {
        self.sets(|cpu| cpu.core).len()
    }

    /// Groups of CPUs that share a third-level cache; a cache that nodes share is a group in each of them.
    pub(crate) fn l3_groups(&self) -> Vec<Vec<usize>> {
        self.sets(|cpu| (cpu.node, cpu.l3))
    }

    /// Nodes, by the system's numbers, that have both cores and memory which this process may use.
    pub(crate) fn usable_nodes(&self) -> Vec<usize> {
        let of_use = |node: &&Node| {
            self.allowed_nodes.contains(&node.id) && node.cpus.iter().any(|cpu| self.allowed.contains(cpu))
        };
        self.nodes.iter().filter(of_use).map(|node| node.id).collect()
    }

    /// The number of workers when nobody said: the physical cores that this process may use on these nodes (of hybrid
    /// processors the fast ones), as far as the control group's time goes; at least 1.
    pub(crate) fn default_threads(&self, nodes: Nodes<'_>) -> usize {
        let cores = match self.usable(nodes).cores.len() {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            cores => cores,
        };
        let quota = self.quota.map_or(usize::MAX, |quota| quota as usize);
        cores.min(quota).clamp(1, 1024)
    }

    /// The CPU of each of `n` workers on these nodes, or why they are left to the scheduler. `asked`: --pin, --no-pin.
    ///
    /// Unasked, workers are pinned where they take every core that this process may use there. With fewer, two
    /// programs that pin would sit on the same cores; with a limited share of time, others use the cores meanwhile.
    /// Whoever names nodes says with it that the workers belong there.
    pub(crate) fn pins(
        &self,
        n: usize,
        nodes: Nodes<'_>,
        asked: Option<bool>,
    ) -> Result<Vec<usize>, &'static str> {
        let places = self.usable(nodes);
        if asked == Some(false) {
            return Err("--no-pin");
        }
        if places.cores.is_empty() {
            return Err("the system does not say which cores there are");
        }
        if asked.is_none() {
            let (fast, all) = (places.cores.len(), places.cores.len() + places.efficient.len());
            if n < all && n != fast {
                return Err("there are more cores than workers; --pin does it all the same");
            }
            if self.quota.is_some_and(|quota| quota < n as f64) {
                return Err("the control group's time is limited; --pin does it all the same");
            }
            if n > all {
                return Err("there are more workers than cores");
            }
        }
        let mut cpus = places.all();
        if n > cpus.len() {
            return Err("there are more workers than CPUs");
        }
        cpus.truncate(n);
        Ok(cpus)
    }

    /// The CPUs of `--cpus`, in the order in which workers take them.
    ///
    /// # Errors
    /// CPUs that do not exist, that are offline, or that this process may not use, each by its number.
    pub(crate) fn chosen(&self, cpus: &[usize]) -> Result<Vec<usize>, String> {
        if self.cpus.is_empty() {
            return Err("--cpus: the system does not say which CPUs there are".into());
        }
        let wanted: BTreeSet<usize> = cpus.iter().copied().collect();
        let (mut missing, mut offline, mut forbidden) = (Vec::new(), Vec::new(), Vec::new());
        for &cpu in &wanted {
            if self.offline.contains(&cpu) {
                offline.push(cpu);
            } else if self.cpu(cpu).is_none() {
                missing.push(cpu);
            } else if !self.allowed.contains(&cpu) {
                forbidden.push(cpu);
            }
        }
        let online: Vec<usize> = self.cpus.iter().map(|cpu| cpu.id).collect();
        let mut wrong = Vec::new();
        if !missing.is_empty() {
            let (missing, online) = (write_list(&missing), write_list(&online));
            wrong.push(format!(
                "this machine has no CPUs {missing}; those that are online are {online}"
            ));
        }
        if !offline.is_empty() {
            wrong.push(format!("CPUs {} are offline", write_list(&offline)));
        }
        if !forbidden.is_empty() {
            let (forbidden, allowed) = (write_list(&forbidden), write_list(&self.allowed));
            wrong.push(format!(
                "this process may not use CPUs {forbidden}; its affinity mask and control group leave it {allowed}"
            ));
        }
        if !wrong.is_empty() {
            return Err(format!("--cpus: {}", wrong.join("; ")));
        }
        Ok(self.places(|cpu| wanted.contains(&cpu.id)).all())
    }

    /// Physical cores that this process may use on a node.
    pub(crate) fn usable_cores_of(&self, node: usize) -> usize {
        self.usable(Nodes::These(&[node])).cores.len()
    }

    /// The node of a CPU, by the system's number.
    pub(crate) fn node_of(&self, cpu: usize) -> Option<usize> {
        Some(self.cpu(cpu)?.node)
    }

    /// The third-level cache of a CPU, by its lowest CPU.
    pub(crate) fn l3_of(&self, cpu: usize) -> Option<usize> {
        Some(self.cpu(cpu)?.l3)
    }
}

/// What is in both lists. A second list that has nothing of the first describes something else, such as the group of
/// another container: then the first one counts.
fn both(first: Vec<usize>, second: Option<&[usize]>) -> Vec<usize> {
    let Some(second) = second else {
        return first;
    };
    let kept: Vec<usize> = first.iter().copied().filter(|x| second.contains(x)).collect();
    if kept.is_empty() { first } else { kept }
}
