//! What memory there is for a command, by who limits it, and whether a budget fits into it. What is read from the
//! system is read from files under a root, so that tests can stand another machine there.

use std::fmt;
use std::fs::read_to_string;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::Budget;
use crate::control_group;
use crate::cpu_list::parse_list;
use crate::system::field;
use crate::topology::write_list;

/// Whose memory it is that a budget must fit into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Limiter {
    MemoryLimit,
    System,
    ControlGroup,
    /// This process may use the memory of these nodes alone.
    Nodes(Vec<usize>),
    /// One node's part of the weights.
    Node(usize),
}

impl fmt::Display for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limiter::MemoryLimit => f.write_str("--memory-limit"),
            Limiter::System => f.write_str("the system"),
            Limiter::ControlGroup => f.write_str("the control group"),
            Limiter::Nodes(nodes) => write!(f, "nodes {}", write_list(nodes)),
            Limiter::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// What one of them leaves, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) limiter: Limiter,
    pub(crate) free: u64,
}

impl Room {
    pub(crate) fn json(&self) -> Json {
        json!({"of": self.limiter.to_string(), "free": self.free})
    }
}

/// What there is, the least first. `limit`: the most that this process may have.
pub(crate) fn rooms(root: &Path, limit: Option<u64>) -> Vec<Room> {
    let read = |path: &str| read_to_string(root.join(path)).unwrap_or_default();
    let status = read("proc/self/status");
    let mut rooms = Vec::new();
    let mut add = |limiter, free: Option<u64>| rooms.extend(free.map(|free| Room { limiter, free }));
    let own = field(&status, "RssAnon").unwrap_or(0);
    add(Limiter::MemoryLimit, limit.map(|limit| limit.saturating_sub(own)));
    add(Limiter::System, field(&read("proc/meminfo"), "MemAvailable"));
    add(Limiter::ControlGroup, control_group::free_memory(root));
    let allowed = status
        .lines()
        .find_map(|line| parse_list(line.strip_prefix("Mems_allowed_list:")?.trim()))
        .unwrap_or_default();
    let online = parse_list(read("sys/devices/system/node/online").trim()).unwrap_or_default();
    if !allowed.is_empty() && allowed.len() < online.len() {
        let free = allowed
            .iter()
            .map(|&node| free_on(root, node))
            .sum::<Option<u64>>();
        add(Limiter::Nodes(allowed), free);
    }
    rooms.sort_by_key(|room| room.free);
    rooms
}

/// Memory of a node that is free, or would be if it were asked for: the pages of files that it holds.
fn free_on(root: &Path, node: usize) -> Option<u64> {
    let path = format!("sys/devices/system/node/node{node}/meminfo");
    // Each line begins with the node: "Node 0 MemFree:  123 kB".
    let text = read_to_string(root.join(path)).ok()?;
    let prefix = format!("Node {node} ");
    let text: String = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(&prefix))
        .flat_map(|line| [line, "\n"])
        .collect();
    let of = |name: &str| field(&text, name);
    let files = ["Inactive(file)", "Active(file)"].into_iter().filter_map(of);
    Some(of("MemFree")? + files.sum::<u64>())
}

/// The rooms of the nodes that a budget divides its weights between.
pub(crate) fn nodes(root: &Path, budget: &Budget) -> Vec<Room> {
    let found = |node| Some((Limiter::Node(node), free_on(root, node)?));
    let several = (0..budget.weights.len()).filter(|_| budget.weights.len() > 1);
    several
        .map(|i| budget.node_id(i))
        .filter_map(found)
        .map(|(limiter, free)| Room { limiter, free })
        .collect()
}

/// The room that is too small for a budget, if there is one, and what it would have to hold.
pub(crate) fn too_small<'a>(
    budget: &Budget,
    rooms: &'a [Room],
    of_nodes: &'a [Room],
) -> Option<(&'a Room, u64)> {
    let needed = budget.needed();
    let all = rooms.iter().map(|room| (room, needed));
    let nodes = of_nodes.iter().filter_map(|room| match room.limiter {
        Limiter::Node(id) => {
            let mut of_nodes = budget.of_nodes().enumerate();
            let (_, needed) = of_nodes.find(|(i, _)| budget.node_id(*i) == id)?;
            Some((room, needed))
        }
        _ => None,
    });
    all.chain(nodes).find(|(room, needed)| *needed > room.free)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MIB, budget};
    use super::*;
    use crate::machine_files::MachineFiles;

    #[test]
    fn the_least_room_counts() {
        let node = |node: usize, free: u64, files: u64| {
            format!(
                "Node {node} MemTotal: 9 kB\nNode {node} MemFree: {free} kB\nNode {node} Active(file): {files} kB\n"
            )
        };
        let (node_0, node_1) = (node(0, 1000, 24), node(1, 5000, 0));
        let mut files = vec![
            ("proc/meminfo", "MemTotal: 9999 kB\nMemAvailable:    8000 kB\n"),
            ("proc/self/status", "RssAnon:\t 100 kB\nMems_allowed_list:\t0-1\n"),
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/meminfo", node_0.as_str()),
            ("sys/devices/system/node/node1/meminfo", node_1.as_str()),
        ];
        let root = MachineFiles::new("budget-rooms", &files);
        let found = |root: &MachineFiles, limit| -> Vec<(String, u64)> {
            let rooms = rooms(&root.0, limit).into_iter();
            rooms
                .map(|room| (room.limiter.to_string(), room.free >> 10))
                .collect()
        };
        assert_eq!(found(&root, None), [("the system".into(), 8000)]);
        let limited = [("--memory-limit".into(), 400), ("the system".into(), 8000)];
        assert_eq!(found(&root, Some(500 << 10)), limited);
        // A control group, and a process that may use the first node alone.
        files[1].1 = "RssAnon:\t 100 kB\nMems_allowed_list:\t0\n";
        files.extend([
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "4096000\n"),
            ("sys/fs/cgroup/a/memory.current", "1024000\n"),
        ]);
        let root = MachineFiles::new("budget-rooms-bound", &files);
        let bound = [
            ("nodes 0".into(), 1024),
            ("the control group".into(), 3000),
            ("the system".into(), 8000),
        ];
        assert_eq!(found(&root, None), bound);
        // Weights that are divided between nodes must fit each of them.
        let rooms = [Room {
            limiter: Limiter::System,
            free: 100 * MIB,
        }];
        for (weights, expected) in [
            (&[1 << 19, 4 << 20][..], None),
            (&[1 << 19, 6 << 20], Some(Limiter::Node(1))),
            (&[2 << 20, 1 << 20], Some(Limiter::Node(0))),
            (&[2 << 20], None),
            (&[200 << 20], Some(Limiter::System)),
        ] {
            let budget = budget(weights, 0);
            let nodes = nodes(&root.0, &budget);
            let found = too_small(&budget, &rooms, &nodes).map(|(room, _)| room.limiter.clone());
            assert_eq!(found, expected, "{weights:?}");
        }
        // The system's numbers are not the plan's.
        let swapped = Budget {
            node_ids: vec![1, 0],
            ..budget(&[6 << 20, 1 << 19], 0)
        };
        let nodes = nodes(&root.0, &swapped);
        let found = too_small(&swapped, &rooms, &nodes).map(|(room, _)| room.limiter.clone());
        assert_eq!(found, Some(Limiter::Node(1)));
    }
}
