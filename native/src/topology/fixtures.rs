//! Machines of files, made from a compact description: what Linux shows of packages, nodes, caches and cores.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Machine, write_list};

/// How the threads of cores are numbered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Numbering {
    /// Every core's first thread, then every core's second one: the siblings of n of N cores are n and n + N.
    SiblingsApart,
    /// Core after core: the siblings are 2 i and 2 i + 1.
    SiblingsAdjacent,
    /// As the first, but cores count from package to package: even ones on the first, odd ones on the second.
    PackagesAlternate,
}

/// A machine of equal packages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    pub(super) packages: usize,
    /// Cores of each node of a package. Empty: a machine without NUMA files, all of `cores`.
    pub(super) nodes: &'static [usize],
    pub(super) cores: usize,
    /// Cores that share a third-level cache; 0 where no files tell.
    pub(super) l3: usize,
    pub(super) smt: usize,
    /// Of the last cores of a package: efficient ones without SMT.
    pub(super) efficient: usize,
    pub(super) numbering: Numbering,
    /// Memory of a node.
    pub(super) gib: u64,
    /// Between nodes of a package, and of two packages.
    pub(super) distances: (u32, u32),
}

pub(super) const MACHINE: Described = Described {
    packages: 1,
    nodes: &[],
    cores: 0,
    l3: 0,
    smt: 2,
    efficient: 0,
    numbering: Numbering::SiblingsApart,
    gib: 64,
    distances: (12, 32),
};

/// A machine's files. They stay in memory, for there are ten thousand of a large one, but for those of control groups,
/// which are under a root that is removed at the end.
pub(super) struct Files {
    texts: RefCell<HashMap<String, String>>,
    root: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Files {
    pub(super) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("twinfer-topology-{}-{number}", std::process::id());
        Files {
            texts: RefCell::default(),
            root: std::env::temp_dir().join(name),
        }
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        if path == "proc/self/cgroup" || path.starts_with("sys/fs/cgroup") {
            self.write_below_root(path, text);
        }
        self.texts.borrow_mut().insert(path.into(), text.into());
    }

    fn write_below_root(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The machine, where the affinity mask leaves these CPUs; all for `None`.
    pub(super) fn machine(&self, affinity: Option<Vec<usize>>) -> Machine {
        let texts = self.texts.borrow();
        Machine::of(&|path| texts.get(path).cloned(), &self.root, affinity)
    }

    /// The same from files on the disk, all of them.
    pub(super) fn machine_on_disk(&self) -> Machine {
        for (path, text) in self.texts.borrow().iter() {
            self.write_below_root(path, text);
        }
        Machine::under(&self.root, None)
    }

    /// Writes what Linux would show.
    pub(super) fn of(machine: &Described) -> Self {
        let files = Files::new();
        let threads = machine.threads();
        let n = threads.iter().map(|core| core.cpus.len()).sum::<usize>();
        files.write("sys/devices/system/cpu/online", &format!("0-{}\n", n - 1));
        files.write("sys/devices/system/cpu/present", &format!("0-{}\n", n - 1));
        let set = |same: &dyn Fn(&Core) -> bool| -> String {
            let mut cpus: Vec<usize> = threads
                .iter()
                .filter(|c| same(c))
                .flat_map(|c| c.cpus.clone())
                .collect();
            cpus.sort_unstable();
            write_list(&cpus) + "\n"
        };
        let packages: Vec<String> = (0..machine.packages)
            .map(|package| set(&|other| other.package == package))
            .collect();
        for core in &threads {
            let l3 = set(&|other| (other.package, other.l3) == (core.package, core.l3));
            for cpu in &core.cpus {
                let directory = format!("sys/devices/system/cpu/cpu{cpu}");
                let topology = |file: &str, text: &str| {
                    files.write(&format!("{directory}/topology/{file}"), text);
                };
                topology("physical_package_id", &format!("{}\n", core.package));
                topology("core_id", &format!("{}\n", core.id));
                topology("package_cpus_list", &packages[core.package]);
                topology("core_cpus_list", &(write_list(&core.cpus) + "\n"));
                if machine.l3 > 0 {
                    files.write(&format!("{directory}/cache/index3/level"), "3\n");
                    files.write(&format!("{directory}/cache/index3/shared_cpu_list"), &l3);
                }
            }
        }
        let nodes = machine.packages * machine.nodes.len();
        if nodes > 0 {
            files.write("sys/devices/system/node/online", &format!("0-{}\n", nodes - 1));
        }
        for node in 0..nodes {
            let directory = format!("sys/devices/system/node/node{node}");
            files.write(&format!("{directory}/cpulist"), &set(&|core| core.node == node));
            let distance = |other: usize| {
                let package = |node: usize| node / machine.nodes.len();
                match (other == node, package(other) == package(node)) {
                    (true, _) => 10,
                    (_, true) => machine.distances.0,
                    _ => machine.distances.1,
                }
            };
            let distances: Vec<String> = (0..nodes).map(|other| distance(other).to_string()).collect();
            files.write(&format!("{directory}/distance"), &(distances.join(" ") + "\n"));
            let kib = machine.gib << 20;
            let text = format!(
                "Node {node} MemTotal:       {kib} kB\nNode {node} MemFree:        {} kB\n\
                 Node {node} Active(file):   {} kB\nNode {node} Inactive(file): {} kB\n",
                kib / 2,
                kib / 8,
                kib / 8
            );
            files.write(&format!("{directory}/meminfo"), &text);
        }
        if machine.efficient > 0 {
            let fast = set(&|core| !core.efficient);
            files.write("sys/devices/cpu_core/cpus", &fast);
            files.write("sys/devices/cpu_atom/cpus", &set(&|core| core.efficient));
        }
        files
    }
}

struct Core {
    package: usize,
    node: usize,
    l3: usize,
    /// Its number in the package.
    id: usize,
    efficient: bool,
    cpus: Vec<usize>,
}

impl Described {
    fn threads(&self) -> Vec<Core> {
        let per_package = match self.nodes {
            [] => self.cores,
            nodes => nodes.iter().sum(),
        };
        let total = self.packages * per_package;
        let mut out = Vec::new();
        // Adjacent threads are counted as they come, for efficient cores have one only.
        let mut next = 0;
        for package in 0..self.packages {
            let ends: Vec<usize> = self
                .nodes
                .iter()
                .scan(0, |end, n| {
                    *end += n;
                    Some(*end)
                })
                .collect();
            for id in 0..per_package {
                let efficient = id >= per_package - self.efficient;
                let smt = if efficient { 1 } else { self.smt };
                let core = match self.numbering {
                    Numbering::PackagesAlternate => id * self.packages + package,
                    _ => package * per_package + id,
                };
                let cpus = match self.numbering {
                    Numbering::SiblingsAdjacent => (next..next + smt).collect(),
                    _ => (0..smt).map(|thread| core + thread * total).collect(),
                };
                next += smt;
                let node = ends.iter().position(|&end| id < end).unwrap_or(0);
                out.push(Core {
                    package,
                    node: package * self.nodes.len() + node,
                    l3: id / if self.l3 == 0 { per_package } else { self.l3 },
                    id,
                    efficient,
                    cpus,
                });
            }
        }
        out
    }
}
