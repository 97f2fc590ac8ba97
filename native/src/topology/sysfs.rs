//! The machine as Linux describes it in files: packages, dies, nodes, caches, cores and their threads.
//!
//! Sets of CPUs are read as the lists that the kernel itself schedules by, and each list once: 768 CPUs are some
//! hundreds of files then, not ten thousand. Where the lists are missing, each CPU's numbers of package and core do.

use std::collections::HashMap;

use super::{Cpu, Kind, Node};
use crate::cpu_list::parse_list;
use crate::system;

const CPUS: &str = "sys/devices/system/cpu";
const NODES: &str = "sys/devices/system/node";

/// The text of a file, by its path below the root.
pub(super) type Files<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The capacity of the slowest core that is still one of the fast ones, as a part of the fastest one's: efficient cores
/// have about 0.6 of it on Intel's desktops and less on Arm; cores that only clock a little lower are no other kind.
const FAST: f64 = 0.75;

/// The CPUs that are online, ascending, those that are there but offline, and the nodes. No CPUs where the system does
/// not say, or says only half: that would put two workers on one core.
pub(super) fn read(files: Files<'_>) -> (Vec<Cpu>, Vec<usize>, Vec<Node>) {
    let online = list(files, &format!("{CPUS}/online")).unwrap_or_default();
    let nodes = nodes(files, &online);
    let cpus = cpus(files, &online, &nodes).unwrap_or_default();
    // What is only possible, such as the CPUs that could be added to a virtual machine, is not there.
    let offline = match list(files, &format!("{CPUS}/present")) {
        Some(present) => present.into_iter().filter(|cpu| !online.contains(cpu)).collect(),
        None => list(files, &format!("{CPUS}/offline")).unwrap_or_default(),
    };
    (cpus, offline, nodes)
}

/// Nodes whose memory this process may use by its status, where the system says it.
pub(super) fn allowed_nodes(files: Files<'_>) -> Option<Vec<usize>> {
    let status = files("proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Mems_allowed_list:"))?;
    parse_list(line)
}

fn list(files: Files<'_>, path: &str) -> Option<Vec<usize>> {
    parse_list(&files(path)?)
}

fn cpus(files: Files<'_>, online: &[usize], nodes: &[Node]) -> Option<Vec<Cpu>> {
    let topology = |cpu: usize, file: &str| format!("{CPUS}/cpu{cpu}/topology/{file}");
    let set = |cpu: usize, names: &[&str]| names.iter().find_map(|name| list(files, &topology(cpu, name)));
    let number = |cpu: usize, name: &str| -> Option<i64> { files(&topology(cpu, name))?.trim().parse().ok() };
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
        let shared = l3_cpus(files, cpu);
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
    let efficient = efficient(files, online);
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

/// The CPUs that share the third-level cache of a CPU.
fn l3_cpus(files: Files<'_>, cpu: usize) -> Option<Vec<usize>> {
    // Index 3 nearly always: two are of the first level, one of the second.
    [3, 2, 4, 1, 0].into_iter().find_map(|index| {
        let cache = format!("{CPUS}/cpu{cpu}/cache/index{index}");
        let third = files(&format!("{cache}/level"))?.trim() == "3";
        third
            .then(|| list(files, &format!("{cache}/shared_cpu_list")))
            .flatten()
    })
}

/// Hybrid processors' slow cores: Intel's have a device of their own, others a capacity.
fn efficient(files: Files<'_>, online: &[usize]) -> Vec<usize> {
    if let (Some(_), Some(atom)) = (
        list(files, "sys/devices/cpu_core/cpus"),
        list(files, "sys/devices/cpu_atom/cpus"),
    ) {
        return atom;
    }
    let capacity = |cpu: &usize| -> Option<f64> {
        let text = files(&format!("{CPUS}/cpu{cpu}/cpu_capacity"))?;
        text.trim().parse().ok()
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
fn nodes(files: Files<'_>, online: &[usize]) -> Vec<Node> {
    let ids = list(files, &format!("{NODES}/online")).unwrap_or_default();
    let mut nodes: Vec<Node> = ids
        .into_iter()
        .filter_map(|id| {
            let cpus = list(files, &format!("{NODES}/node{id}/cpulist"))?;
            let distances = files(&format!("{NODES}/node{id}/distance")).unwrap_or_default();
            Some(Node {
                id,
                cpus: cpus.into_iter().filter(|cpu| online.contains(cpu)).collect(),
                memory: node_memory(files, id),
                distances: distances
                    .split_whitespace()
                    .filter_map(|d| d.parse().ok())
                    .collect(),
            })
        })
        .collect();
    let meminfo = files("proc/meminfo").unwrap_or_default();
    let memory = system::field(&meminfo, "MemAvailable").zip(system::field(&meminfo, "MemTotal"));
    if nodes.is_empty() {
        return vec![Node {
            id: 0,
            cpus: online.to_vec(),
            memory,
            distances: vec![10],
        }];
    }
    // A virtual machine that was given memory later may count half of it in its only node's file.
    if nodes.len() == 1 {
        nodes[0].memory = memory.or(nodes[0].memory);
    }
    nodes
}

/// Bytes that are free, or become so when they are asked for, and all bytes.
fn node_memory(files: Files<'_>, id: usize) -> Option<(u64, u64)> {
    let text = files(&format!("{NODES}/node{id}/meminfo"))?;
    let text = text.replace(&format!("Node {id} "), "");
    let field = |name| system::field(&text, name);
    let cached = field("Active(file)").unwrap_or(0) + field("Inactive(file)").unwrap_or(0);
    Some((field("MemFree")? + cached, field("MemTotal")?))
}
