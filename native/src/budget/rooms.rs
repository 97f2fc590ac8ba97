//! What memory there is for a command, by who limits it, and whether a budget fits into it. What is read from the
//! system is read from files under a root, so that tests can stand another machine there.

use std::fmt;
use std::fs::read_to_string;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Budget, Need};
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
    /// One node's part of all that is placed.
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

/// What is free on these nodes, in their order. Nothing where there is but one, whose file counts less than all memory
/// on some virtual machines: the system's room is the node's.
pub(crate) fn nodes(root: &Path, ids: &[usize]) -> Vec<Room> {
    let online = read_to_string(root.join("sys/devices/system/node/online")).unwrap_or_default();
    if parse_list(online.trim()).is_none_or(|online| online.len() < 2) {
        return Vec::new();
    }
    let room = |&node: &usize| {
        Some(Room {
            limiter: Limiter::Node(node),
            free: free_on(root, node)?,
        })
    };
    ids.iter().filter_map(room).collect()
}

/// Each of some rooms, with what must be there.
pub(crate) fn with_rooms<'a>(
    budget: &Budget,
    rooms: &'a [Room],
    of_nodes: &'a [Room],
) -> impl Iterator<Item = (&'a Room, Need)> {
    let need = budget.need();
    let all = rooms.iter().map(move |room| (room, need));
    all.chain(with_nodes(budget, of_nodes))
}

fn with_nodes<'a>(budget: &Budget, of_nodes: &'a [Room]) -> impl Iterator<Item = (&'a Room, Need)> {
    let needs: Vec<(usize, Need)> = budget.need_of_nodes().collect();
    of_nodes.iter().filter_map(move |room| {
        let (_, need) = needs.iter().find(|(id, _)| room.limiter == Limiter::Node(*id))?;
        Some((room, *need))
    })
}

/// The room that is too small for a budget, if there is one, and what it would have to hold.
pub(crate) fn too_small<'a>(
    budget: &Budget,
    rooms: &'a [Room],
    of_nodes: &'a [Room],
) -> Option<(&'a Room, Need)> {
    let of_nodes = if budget.spills { &[] } else { of_nodes };
    with_rooms(budget, rooms, of_nodes).find(|(room, need)| need.total() > room.free)
}

/// The first node that is too small for its part, whether that matters or not.
pub(crate) fn too_small_nodes<'a>(budget: &Budget, of_nodes: &'a [Room]) -> Option<(&'a Room, Need)> {
    with_nodes(budget, of_nodes).find(|(room, need)| need.total() > room.free)
}

#[cfg(test)]
mod tests {
    use twinfer_engine::memory::Planned;

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
        // What is divided between nodes must fit each of them, with the cache and what is not planned.
        let node = |node: usize, mib: u64| format!("Node {node} MemFree: {} kB\n", mib << 10);
        let (node_0, node_1) = (node(0, 100), node(1, 500));
        files[3].1 = &node_0;
        files[4].1 = &node_1;
        let root = MachineFiles::new("budget-rooms-nodes", &files);
        let rooms = [Room {
            limiter: Limiter::System,
            free: 800 * MIB,
        }];
        let small = |budget: &Budget| {
            let nodes = nodes(&root.0, &budget.nodes);
            let small = too_small(budget, &rooms, &nodes);
            small.map(|(room, need)| (room.limiter.clone(), need.weights / MIB, need.cache / MIB))
        };
        for (weights, cache, expected) in [
            (&[70, 400][..], 0, None),
            (&[80, 400], 0, Some((Limiter::Node(0), 80, 0))),
            (&[40, 400], 60, None),
            (&[40, 400], 80, Some((Limiter::Node(0), 40, 40))),
            (&[40, 460], 60, Some((Limiter::Node(1), 460, 30))),
            (&[200], 500, None),
            (&[300], 500, Some((Limiter::System, 300, 500))),
            (&[100, 700], 0, Some((Limiter::System, 800, 0))),
        ] {
            let weights: Vec<u64> = weights.iter().map(|mib| mib * MIB).collect();
            let budget = budget(&weights, cache * MIB);
            assert_eq!(small(&budget), expected, "{weights:?} {cache}");
        }
        // The buffers of a pass may be the first node's, or the second one's.
        let mut with_buffers = budget(&[40 * MIB, 40 * MIB], 0);
        with_buffers.context.workspace.push(Planned {
            name: "queries",
            bytes: 40 * MIB,
        });
        assert_eq!(small(&with_buffers), Some((Limiter::Node(0), 40, 0)));
        // The system's numbers are not the plan's.
        let swapped = Budget {
            nodes: vec![1, 0],
            ..budget(&[80 * MIB, MIB], 0)
        };
        assert_eq!(small(&swapped), None);
        // All on one node, of which as much must be free; unless nobody asked for it.
        let on = |node| Budget {
            nodes: vec![node],
            ..budget(&[40 * MIB], 100 * MIB)
        };
        assert_eq!(small(&on(0)), Some((Limiter::Node(0), 40, 100)));
        assert_eq!(small(&on(1)), None);
        let unasked = Budget {
            spills: true,
            ..on(0)
        };
        assert_eq!(small(&unasked), None);
        let nodes_of = nodes(&root.0, &unasked.nodes);
        assert!(too_small_nodes(&unasked, &nodes_of).is_some());
        // The only node is the system.
        files[2].1 = "0\n";
        let root = MachineFiles::new("budget-rooms-one-node", &files);
        assert_eq!(nodes(&root.0, &[0]), []);
    }
}
