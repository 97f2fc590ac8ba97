//! The machine as Linux describes it in files: packages, dies, nodes, caches, cores and their threads.
//!
//! Sets of CPUs are read as the lists that the kernel itself schedules by, and each list once: 768 CPUs are a few hundred
//! files then, not ten thousand. Kernels and containers that lack the lists have numbers for each CPU instead.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use super::{Cpu, Kind, Node};
use crate::cpu_list::parse_list;
use crate::system;

/// The capacity of the slowest core that is still one of the fast ones, as a part of the fastest one's: efficient cores
/// have about 0.6 of it on Intel's desktops and less on Arm; cores that only clock a little lower are no other kind.
const FAST: f64 = 0.75;

/// The CPUs that are online, ascending, those that are there but offline, and the nodes. No CPUs where the system does not
/// say, or says only half: that would put two workers on one core.
pub(super) fn read(root: &Path) -> (Vec<Cpu>, Vec<usize>, Vec<Node>) {
    let directory = root.join("sys/devices/system/cpu");
    let online = list(directory.join("online")).unwrap_or_default();
    let nodes = nodes(root, &online);
    let cpus = cpus(root, &online, &nodes).unwrap_or_default();
    // What is only possible, such as the CPUs that could be added to a virtual machine, is not there.
    let offline = match list(directory.join("present")) {
        Some(present) => present.into_iter().filter(|cpu| !online.contains(cpu)).collect(),
        None => list(directory.join("offline")).unwrap_or_default(),
    };
    (cpus, offline, nodes)
}

/// CPUs and memory nodes that this process may use by its status, where the system says it.
pub(super) fn allowed_nodes(root: &Path) -> Option<Vec<usize>> {
    let status = read_to_string(root.join("proc/self/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Mems_allowed_list:"))?;
    parse_list(line)
}

fn list(path: PathBuf) -> Option<Vec<usize>> {
    parse_list(&read_to_string(path).ok()?)
}

fn cpus(root: &Path, online: &[usize], nodes: &[Node]) -> Option<Vec<Cpu>> {
    let directory = root.join("sys/devices/system/cpu");
    let topology = |cpu: usize, file: &str| directory.join(format!("cpu{cpu}/topology/{file}"));
    let set = |cpu: usize, names: &[&str]| names.iter().find_map(|name| list(topology(cpu, name)));
    let number = |cpu: usize, name: &str| -> Option<i64> {
        read_to_string(topology(cpu, name)).ok()?.trim().parse().ok()
    };
    let packages = by_list(online, |cpu| {
        set(cpu, &["package_cpus_list", "core_siblings_list"])
    })
    .or_else(|| by_number(online, |cpu| number(cpu, "physical_package_id")))?;
    let dies = by_list(online, |cpu| set(cpu, &["die_cpus_list"])).unwrap_or_else(|| packages.clone());
    let cores = by_list(online, |cpu| {
        set(cpu, &["core_cpus_list", "thread_siblings_list"])
    })
    .or_else(|| {
        by_number(online, |cpu| {
            let package = number(cpu, "physical_package_id")?;
            let die = number(cpu, "die_id").unwrap_or(0);
            Some((package, die, number(cpu, "core_id")?))
        })
    })?;
    // Where no cache says which CPUs share it, the package stands for it.
    let package_of: HashMap<usize, usize> = online.iter().copied().zip(packages.iter().copied()).collect();
    let l3 = by_list(online, |cpu| {
        let shared = l3_cpus(&directory.join(format!("cpu{cpu}/cache")));
        shared.or_else(|| {
            let same = |other: &usize| package_of[other] == package_of[&cpu];
            Some(online.iter().copied().filter(same).collect())
        })
    })?;
    let mut package_ids = HashMap::new();
    for (&cpu, &package) in online.iter().zip(&packages) {
        package_ids
            .entry(package)
            .or_insert_with(|| number(cpu, "physical_package_id").unwrap_or(package as i64));
    }
    let efficient = efficient(root, online);
    let cpu = |(i, &id): (usize, &usize)| Cpu {
        id,
        package: package_ids[&packages[i]],
        die: dies[i],
        node: nodes
            .iter()
            .find(|node| node.cpus.contains(&id))
            .map_or(0, |node| node.id),
        l3: l3[i],
        core: cores[i],
        kind: if efficient.contains(&id) {
            Kind::Efficient
        } else {
            Kind::Fast
        },
    };
    Some(online.iter().enumerate().map(cpu).collect())
}

/// The set of each CPU, named by its lowest member, from lists of members; `None` where a list is missing.
fn by_list(online: &[usize], list_of: impl Fn(usize) -> Option<Vec<usize>>) -> Option<Vec<usize>> {
    let mut names: HashMap<usize, usize> = HashMap::new();
    for &cpu in online {
        if names.contains_key(&cpu) {
            continue;
        }
        for member in list_of(cpu)?.into_iter().chain([cpu]) {
            names.entry(member).or_insert(cpu);
        }
    }
    Some(online.iter().map(|cpu| names[cpu]).collect())
}

/// The same from something that is equal for members of a set.
fn by_number<T: Eq + std::hash::Hash>(
    online: &[usize],
    number_of: impl Fn(usize) -> Option<T>,
) -> Option<Vec<usize>> {
    let mut names = HashMap::new();
    online
        .iter()
        .map(|&cpu| Some(*names.entry(number_of(cpu)?).or_insert(cpu)))
        .collect()
}

/// The CPUs that share the third-level cache which a CPU's directory of caches describes.
fn l3_cpus(caches: &Path) -> Option<Vec<usize>> {
    // Index 3 nearly always: two for the first level, one for the second.
    [3, 2, 4, 1, 0].into_iter().find_map(|index| {
        let cache = caches.join(format!("index{index}"));
        let level = read_to_string(cache.join("level")).ok()?;
        (level.trim() == "3")
            .then(|| list(cache.join("shared_cpu_list")))
            .flatten()
    })
}

/// Hybrid processors' slow cores: Intel's have a device of their own, others a capacity.
fn efficient(root: &Path, online: &[usize]) -> Vec<usize> {
    let devices = root.join("sys/devices");
    if let (Some(_), Some(atom)) = (
        list(devices.join("cpu_core/cpus")),
        list(devices.join("cpu_atom/cpus")),
    ) {
        return atom;
    }
    let capacity = |cpu: &usize| -> Option<f64> {
        let path = devices.join(format!("system/cpu/cpu{cpu}/cpu_capacity"));
        read_to_string(path).ok()?.trim().parse().ok()
    };
    // Most machines have none: the first CPU tells.
    let Some(capacities) = online.iter().map(capacity).collect::<Option<Vec<f64>>>() else {
        return Vec::new();
    };
    let most = capacities.iter().copied().max_by(f64::total_cmp).unwrap_or(0.0);
    let slow = online
        .iter()
        .zip(capacities)
        .filter(|(_, capacity)| *capacity < FAST * most);
    slow.map(|(cpu, _)| *cpu).collect()
}

/// NUMA nodes, ascending; a machine without them is one node.
fn nodes(root: &Path, online: &[usize]) -> Vec<Node> {
    let directory = root.join("sys/devices/system/node");
    let ids = list(directory.join("online")).unwrap_or_default();
    let nodes: Vec<Node> = ids
        .into_iter()
        .filter_map(|id| {
            let directory = directory.join(format!("node{id}"));
            let cpus = list(directory.join("cpulist"))?;
            let distances = read_to_string(directory.join("distance")).unwrap_or_default();
            Some(Node {
                id,
                cpus: cpus.into_iter().filter(|cpu| online.contains(cpu)).collect(),
                memory: node_memory(&directory, id),
                distances: distances
                    .split_whitespace()
                    .filter_map(|d| d.parse().ok())
                    .collect(),
            })
        })
        .collect();
    if !nodes.is_empty() {
        return nodes;
    }
    let meminfo = read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    vec![Node {
        id: 0,
        cpus: online.to_vec(),
        memory: system::field(&meminfo, "MemAvailable").zip(system::field(&meminfo, "MemTotal")),
        distances: vec![10],
    }]
}

/// Bytes that are free, or become so when they are asked for, and all bytes.
fn node_memory(directory: &Path, id: usize) -> Option<(u64, u64)> {
    let text = read_to_string(directory.join("meminfo")).ok()?;
    let text = text.replace(&format!("Node {id} "), "");
    let field = |name| system::field(&text, name);
    let cached = field("Active(file)").unwrap_or(0) + field("Inactive(file)").unwrap_or(0);
    Some((field("MemFree")? + cached, field("MemTotal")?))
}
