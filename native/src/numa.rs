//! `--numa`: which nodes of a machine a command computes on, on which of them its weights lie, and whether they do.
//!
//! Reading from another node's memory costs twice the time and shares a narrow link. So weights are split between the
//! nodes, row by row, and each node's workers multiply with the rows that are theirs (`distribute`); or one node does
//! all (`isolate`), where the model is so small that handing work over between nodes would take longer than they save.

use std::borrow::Cow;
use std::fmt;

use anyhow::{Result, bail};
use twinfer_engine::kernels::Placement;
use twinfer_engine::team::MAX_NODES;

use crate::system;
use crate::topology::{Machine, write_list};

/// Weights below which one node computes by itself: a node reads them in less time than some hundred hand-overs between
/// nodes take, as the formula in docs/machine.md counts them.
const SMALL: u64 = 512 << 20;

/// Pages whose node is asked at a time.
const PAGES_AT_A_TIME: usize = 1 << 14;

/// Pages that are looked at, at most, of all that are asked about: every so many of a large model's.
const MOST_PAGES: usize = 1 << 20;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum NumaMode {
    /// By the machine and the size of the model.
    #[default]
    Auto,
    /// Nothing is placed, and workers are on all nodes.
    Off,
    /// All on one node.
    Isolate,
    /// On this one.
    Node(usize),
    /// Each node has the rows that its workers multiply with.
    Distribute,
    /// Each node has a copy.
    Mirror,
}

impl fmt::Display for NumaMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NumaMode::Auto => f.write_str("auto"),
            NumaMode::Off => f.write_str("off"),
            NumaMode::Isolate => f.write_str("isolate"),
            NumaMode::Node(node) => write!(f, "node:{node}"),
            NumaMode::Distribute => f.write_str("distribute"),
            NumaMode::Mirror => f.write_str("mirror"),
        }
    }
}

impl NumaMode {
    /// Other modes for where a node is too small: groups of which one is enough, the last one for where no other has
    /// one. `now`: what this mode comes to.
    pub(crate) fn others(self, machine: &Machine, now: &Numa) -> Vec<Vec<NumaMode>> {
        let usable = machine.usable_nodes();
        if usable.len() < 2 {
            return Vec::new();
        }
        let room = |node: usize| {
            let found = machine.nodes.iter().find(|found| found.id == node);
            found.and_then(|node| node.memory).map_or(0, |(free, _)| free)
        };
        let roomiest = usable
            .iter()
            .copied()
            .filter(|&node| now.preferred != Some(node))
            .max_by_key(|&node| (room(node), usize::MAX - node));
        let node = roomiest.map(NumaMode::Node);
        let divided = vec![NumaMode::Distribute];
        let one: Vec<NumaMode> = [NumaMode::Isolate].into_iter().chain(node).collect();
        let mut groups = match (now.preferred, now.placement) {
            (Some(_), _) => vec![divided, node.into_iter().collect()],
            (None, Placement::Mirror) => vec![divided, one],
            (None, Placement::Distribute) => vec![one],
            (None, Placement::Anywhere) => return Vec::new(),
        };
        groups.push(vec![NumaMode::Off]);
        groups
    }
}

/// What it comes to on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numa {
    /// The nodes to compute on, by the system's numbers; `None` for all, of which nothing is known.
    pub(crate) nodes: Option<Vec<usize>>,
    pub(crate) placement: Placement,
    /// The node that all memory is taken from as long as it has some.
    pub(crate) preferred: Option<usize>,
}

impl Numa {
    /// No node is different from another.
    pub(crate) const OFF: Numa = Numa {
        nodes: None,
        placement: Placement::Anywhere,
        preferred: None,
    };

    /// Chooses for a model whose weights have so many bytes, where that is known.
    ///
    /// # Errors
    /// A node that is not there or that this process may not use; a machine with more nodes than a team can know of.
    pub(crate) fn choose(mode: NumaMode, machine: &Machine, weights: Option<u64>) -> Result<Numa> {
        let usable = machine.usable_nodes();
        let one = |node: usize| Numa {
            nodes: Some(vec![node]),
            placement: Placement::Anywhere,
            preferred: Some(node),
        };
        let all = |placement| {
            if usable.len() > MAX_NODES {
                bail!(
                    "--numa: {} nodes are more than the {MAX_NODES} that work can be split between; use off, or node:N",
                    usable.len()
                );
            }
            Ok(Numa {
                nodes: Some(usable.clone()),
                placement,
                preferred: None,
            })
        };
        if let NumaMode::Node(node) = mode {
            if usable.contains(&node) {
                return Ok(one(node));
            }
            let known = match usable.is_empty() {
                true => "the system does not say which nodes there are".into(),
                false => format!("this process may use {}", write_list(&usable)),
            };
            bail!("--numa node:{node}: there is no such node to use; {known}");
        }
        if usable.len() < 2 {
            return Ok(Numa::OFF);
        }
        // The node with most cores; of equals the one with most memory, then the first.
        let room = |node: usize| {
            let found = machine.nodes.iter().find(|found| found.id == node);
            found.and_then(|node| node.memory).map_or(0, |(free, _)| free)
        };
        let cores = |node: usize| machine.usable_cores_of(node);
        let best = usable
            .iter()
            .copied()
            .max_by_key(|&node| (cores(node), room(node), usize::MAX - node));
        match (mode, best, weights) {
            (NumaMode::Off, _, _) => Ok(Numa::OFF),
            (NumaMode::Isolate, Some(node), _) => Ok(one(node)),
            (NumaMode::Mirror, _, _) => all(Placement::Mirror),
            (NumaMode::Auto, Some(node), Some(bytes)) if bytes < SMALL && 2 * bytes < room(node) => {
                Ok(one(node))
            }
            _ if mode == NumaMode::Auto && usable.len() > MAX_NODES => Ok(Numa::OFF),
            _ => all(Placement::Distribute),
        }
    }

    /// For `isolate`, before anything is read: takes memory from the one node from now on, in this thread and those
    /// that it starts. What it has no room for comes from elsewhere and is slower; bound to the node, the process would
    /// be killed instead. A note where the system refuses, as containers do: who writes to a page first still places
    /// it.
    pub(crate) fn prefer(&self) -> Option<String> {
        let node = self.preferred?;
        let error = system::prefer_memory_of(node).err()?;
        Some(format!(
            "note: --numa: the system does not let this process ask for memory of node {node}: {error}; its pages come from \
             there as long as no other program has filled it"
        ))
    }

    /// For reports.
    pub(crate) fn describe(&self) -> Cow<'static, str> {
        match (&self.nodes, self.placement) {
            (None, _) => "off".into(),
            (Some(nodes), Placement::Anywhere) => format!("node {}", write_list(nodes)).into(),
            (Some(nodes), Placement::Distribute) => {
                format!("distributed over nodes {}", write_list(nodes)).into()
            }
            (Some(nodes), Placement::Mirror) => format!("mirrored on nodes {}", write_list(nodes)).into(),
        }
    }
}

/// How much of some memory lies on the node that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Locality {
    /// Pages that were looked at and are there.
    pub(crate) pages: u64,
    /// Of those, how many are on the right node.
    pub(crate) local: u64,
}

impl Locality {
    /// Asks the system for the node of pages, each part with the system's number of the node that reads it; of much
    /// memory every so many of them. `None` where the system does not say.
    pub(crate) fn of<'a>(parts: impl Iterator<Item = (usize, &'a [u8])> + Clone) -> Option<Self> {
        const PAGE: usize = 4096;
        let all: usize = parts.clone().map(|(_, bytes)| bytes.len() / PAGE).sum();
        let stride = (all / MOST_PAGES + 1) * PAGE;
        let mut found = Locality::default();
        for (node, bytes) in parts {
            let pages: Vec<&u8> = bytes.iter().step_by(stride).collect();
            for pages in pages.chunks(PAGES_AT_A_TIME) {
                for at in system::nodes_of(pages).ok()?.into_iter().flatten() {
                    found.pages += 1;
                    found.local += u64::from(at == node);
                }
            }
        }
        Some(found)
    }

    /// The share that is local, 0 to 1; 1 of nothing.
    pub(crate) fn share(self) -> f64 {
        match self.pages {
            0 => 1.0,
            pages => self.local as f64 / pages as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_group::CpuSet;
    use crate::topology::{Cpu, Kind, Node};

    fn machine(nodes: &[(usize, usize, u64)]) -> Machine {
        let mut cpus = Vec::new();
        for &(node, cores, _) in nodes {
            cpus.extend((0..cores).map(|core| Cpu {
                id: 100 * node + core,
                package: 0,
                die: 0,
                node,
                l3: 100 * node,
                core: 100 * node + core,
                kind: Kind::Fast,
            }));
        }
        let node = |&(id, _, memory): &(usize, usize, u64)| Node {
            id,
            cpus: cpus
                .iter()
                .filter(|cpu| cpu.node == id)
                .map(|cpu| cpu.id)
                .collect(),
            memory: Some((memory << 30, memory << 30)),
            distances: Vec::new(),
        };
        Machine {
            offline: Vec::new(),
            nodes: nodes.iter().map(node).collect(),
            allowed: cpus.iter().map(|cpu| cpu.id).collect(),
            allowed_nodes: nodes.iter().map(|node| node.0).collect(),
            cpuset: CpuSet::default(),
            quota: None,
            cpus,
        }
    }

    #[test]
    fn modes_are_chosen_by_machine_and_model() {
        let two = machine(&[(0, 8, 64), (1, 16, 64)]);
        let choose = |mode, bytes| Numa::choose(mode, &two, bytes).unwrap();
        let large = Some(20 << 30);
        let auto = choose(NumaMode::Auto, large);
        assert_eq!(
            (auto.nodes, auto.placement),
            (Some(vec![0, 1]), Placement::Distribute)
        );
        // Random weights: nobody knows yet how large.
        assert_eq!(choose(NumaMode::Auto, None).placement, Placement::Distribute);
        // A small model runs on the node with more cores.
        let small = choose(NumaMode::Auto, Some(100 << 20));
        assert_eq!((small.nodes, small.preferred), (Some(vec![1]), Some(1)));
        assert_eq!(choose(NumaMode::Isolate, large).nodes, Some(vec![1]));
        assert_eq!(choose(NumaMode::Node(0), large).nodes, Some(vec![0]));
        assert_eq!(choose(NumaMode::Mirror, large).placement, Placement::Mirror);
        assert_eq!(choose(NumaMode::Off, large), Numa::OFF);
        let error = Numa::choose(NumaMode::Node(7), &two, large).unwrap_err();
        assert!(error.to_string().contains("this process may use 0-1"), "{error}");

        // A small model that a node has no room for.
        let narrow = machine(&[(0, 8, 0), (1, 8, 0)]);
        let auto = Numa::choose(NumaMode::Auto, &narrow, Some(100 << 20)).unwrap();
        assert_eq!(auto.placement, Placement::Distribute);
        // Memory without cores is no node to compute on.
        let one = machine(&[(0, 8, 64), (1, 0, 256)]);
        assert_eq!(
            Numa::choose(NumaMode::Distribute, &one, large).unwrap(),
            Numa::OFF
        );
        assert!(Numa::choose(NumaMode::Node(1), &one, large).is_err());
        // More than a team can know of.
        let nodes: Vec<(usize, usize, u64)> = (0..MAX_NODES + 1).map(|node| (node, 1, 1)).collect();
        let many = machine(&nodes);
        assert_eq!(Numa::choose(NumaMode::Auto, &many, large).unwrap(), Numa::OFF);
        assert!(Numa::choose(NumaMode::Distribute, &many, large).is_err());
    }

    #[test]
    fn memory_of_this_process_is_somewhere() {
        let memory = vec![1u8; 1 << 20];
        let Some(found) = Locality::of([(0, &*memory)].into_iter()) else {
            eprintln!("the system does not say where pages are: not compared");
            return;
        };
        assert!(found.pages >= 255, "{found:?}");
        let elsewhere = Locality::of([(63, &*memory)].into_iter()).unwrap();
        assert_eq!((elsewhere.local, elsewhere.share()), (0, 0.0));
        assert_eq!(Locality::default().share(), 1.0);
    }
}
