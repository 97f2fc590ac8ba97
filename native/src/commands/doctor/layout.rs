//! What `doctor` says about packages, nodes, caches, cores and what this process may use of them.

use serde_json::{Value, json};

use super::{Table, gib, plural};
use crate::topology::{Kind, Machine, Node, Nodes, write_list};
use crate::workers::Workers;

/// The lines of the machine's parts.
pub(super) fn text(machine: &Machine, t: &mut Table) {
    if machine.cpus.is_empty() {
        t.line("", "the system does not say which cores there are");
        return;
    }
    let (cpus, cores, l3) = (machine.cpus.len(), machine.cores(), machine.l3_groups());
    let packages = machine.sets(|cpu| cpu.package).len();
    let dies = machine.sets(|cpu| cpu.die).len();
    let mut parts = vec![
        plural(packages, "package"),
        plural(machine.nodes.len(), "NUMA node"),
        plural(l3.len(), "L3 group"),
        plural(cores, "core"),
        plural(cpus, "thread"),
    ];
    if dies != packages {
        parts.insert(1, plural(dies, "die"));
    }
    t.line("", parts.join(", "));
    if let Some(siblings) = siblings(machine) {
        t.line("", siblings);
    }
    let efficient = cpus_of(machine, Kind::Efficient);
    if !efficient.is_empty() && efficient.len() < cpus {
        let list = write_list(&efficient);
        t.line("", format_args!("slower, efficient cores: CPUs {list}"));
    }
    if !machine.offline.is_empty() {
        t.line("", format_args!("offline: CPUs {}", write_list(&machine.offline)));
    }
    for node in &machine.nodes {
        t.line(&format!("node {}", node.id), node_line(machine, node));
        let groups: Vec<String> = l3
            .iter()
            .filter(|group| {
                group
                    .first()
                    .is_some_and(|&cpu| machine.node_of(cpu) == Some(node.id))
            })
            .map(|group| write_list(group))
            .collect();
        if groups.len() > 1 {
            t.line("", format_args!("L3 groups {}", groups.join(" ")));
        }
    }
}

fn cpus_of(machine: &Machine, kind: Kind) -> Vec<usize> {
    let cpus = machine.cpus.iter().filter(|cpu| cpu.kind == kind);
    cpus.map(|cpu| cpu.id).collect()
}

/// How SMT siblings are numbered, where there are some: that a CPU's neighbour is its sibling surprises people.
fn siblings(machine: &Machine) -> Option<String> {
    let cores = machine.sets(|cpu| cpu.core);
    let first = cores.iter().find(|core| core.len() > 1)?;
    let apart = first[1] - first[0];
    let alike = cores
        .iter()
        .all(|core| core.windows(2).all(|pair| pair[1] - pair[0] == apart));
    Some(if alike {
        format!(
            "SMT siblings: CPUs n and n + {apart}, such as {}",
            write_list(first)
        )
    } else {
        format!(
            "SMT siblings: {} and others (--json lists them)",
            write_list(first)
        )
    })
}

fn node_line(machine: &Machine, node: &Node) -> String {
    let mut out = match node.cpus.as_slice() {
        [] => "no CPUs".to_owned(),
        cpus => format!("CPUs {}", write_list(cpus)),
    };
    if let Some((free, total)) = node.memory {
        out += &format!("; {} free of {}", gib(free), gib(total));
    }
    if machine.nodes.len() > 1 {
        let distances: Vec<String> = node.distances.iter().map(u32::to_string).collect();
        out += &format!("; distances {}", distances.join(" "));
    }
    if !machine.allowed_nodes.contains(&node.id) {
        out += "; its memory is not this process's to use";
    } else if machine.nodes.len() > 1 && machine.usable_nodes().contains(&node.id) {
        let n = machine.default_threads(Nodes::These(&[node.id]));
        out += &format!("; alone it takes {}", plural(n, "worker"));
    }
    out
}

/// Where the workers are.
pub(super) fn pins(workers: &Workers) -> String {
    let pins = match &workers.pins {
        Err(why) => return format!("not pinned: {why}"),
        Ok(pins) => pins,
    };
    if workers.node_ids.len() == 1 {
        return format!("pinned to CPUs {}", write_list(pins));
    }
    let of_node = |(index, id): (usize, &usize)| {
        let own = pins
            .iter()
            .zip(&workers.nodes)
            .filter(|(_, node)| **node == index);
        let own: Vec<usize> = own.map(|(cpu, _)| *cpu).collect();
        format!("{} of node {id}", write_list(&own))
    };
    let parts: Vec<String> = workers.node_ids.iter().enumerate().map(of_node).collect();
    format!("pinned to CPUs {}", parts.join(", "))
}

pub(super) fn json(machine: &Machine) -> Value {
    let nodes: Vec<Value> = machine
        .nodes
        .iter()
        .map(|node| {
            json!({
                "id": node.id,
                "cpus": node.cpus,
                "memory_free": node.memory.map(|m| m.0),
                "memory_total": node.memory.map(|m| m.1),
                "distances": node.distances,
                "memory_allowed": machine.allowed_nodes.contains(&node.id),
            })
        })
        .collect();
    json!({
        "packages": machine.sets(|cpu| cpu.package),
        "dies": machine.sets(|cpu| cpu.die),
        "nodes": nodes,
        "l3_groups": machine.l3_groups(),
        "siblings": machine.sets(|cpu| cpu.core),
        "efficient_cpus": cpus_of(machine, Kind::Efficient),
        "offline_cpus": machine.offline,
        "cpuset_cpus": machine.cpuset.cpus,
        "cpuset_nodes": machine.cpuset.nodes,
    })
}
