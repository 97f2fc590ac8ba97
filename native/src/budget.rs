//! Memory that a command will take, planned before anything is loaded, and whether there is so much: what the system has
//! left, what the control group allows, what `--memory-limit` says, and what the nodes have that this process may use.
//!
//! The plan's sizes come from the functions that allocate (`ModelPlan`, `ContextPlan`). What is read from the system is
//! read from files under a root, so that tests can stand another machine there.

use std::fmt::{self, Write as _};
use std::fs::read_to_string;
use std::path::Path;

use serde_json::{Value as Json, json};
use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::{ContextOptions, ContextPlan};
use twinfer_engine::kernels::{BLOCK, Storage};
use twinfer_engine::memory::Planned;
use twinfer_engine::model::plan::WeightBytes;

use crate::control_group;
use crate::cpu_list::parse_list;
use crate::system::field;
use crate::topology::write_list;

/// What is not planned: stacks, the heap's own needs, text. A number of bytes, and one part in so many of all the rest
/// for page tables and the ends of huge pages.
const UNPLANNED: u64 = 24 << 20;
const UNPLANNED_PART: u64 = 256;

/// Memory that a command holds at a time, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Of each node; one entry where memory is not divided.
    pub(crate) weights: Vec<WeightBytes>,
    /// The system's numbers of these nodes, where there are several.
    pub(crate) node_ids: Vec<usize>,
    /// Mapped weights take memory that the system cannot take back: they are copied or locked.
    pub(crate) mapped_is_held: bool,
    /// Buffers while the weights are loaded.
    pub(crate) loading: u64,
    pub(crate) context: ContextPlan,
}

impl Budget {
    /// Bytes of weights that the process holds.
    pub(crate) fn held_weights(&self) -> u64 {
        self.of_nodes().fold(0, u64::saturating_add)
    }

    /// The system's number of the node that entry `i` of the weights is on.
    fn node_id(&self, i: usize) -> usize {
        self.node_ids.get(i).copied().unwrap_or(i)
    }

    fn of_nodes(&self) -> impl Iterator<Item = u64> {
        self.weights.iter().map(|node| {
            let mapped = if self.mapped_is_held { node.mapped } else { 0 };
            node.packed.saturating_add(node.vectors).saturating_add(mapped)
        })
    }

    /// Bytes of weights that lie in the system's cache of the file, as far as it has room.
    pub(crate) fn cached_weights(&self) -> u64 {
        let mapped = self.weights.iter().map(|node| node.mapped);
        if self.mapped_is_held {
            0
        } else {
            mapped.fold(0, u64::saturating_add)
        }
    }

    fn planned(&self) -> u64 {
        self.held_weights()
            .saturating_add(self.loading)
            .saturating_add(self.context.cache_bytes())
            .saturating_add(self.context.workspace_bytes())
    }

    /// What is not planned, see [`UNPLANNED`].
    fn unplanned(&self) -> u64 {
        UNPLANNED + self.planned().saturating_add(self.cached_weights()) / UNPLANNED_PART
    }

    /// All that must be there.
    pub(crate) fn needed(&self) -> u64 {
        self.planned().saturating_add(self.unplanned())
    }

    /// The table that `inspect --plan` shows, a line for each buffer.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, bytes: u64| {
            let _ = writeln!(out, "  {name:40} {bytes:>16} {:>10.1} MiB", mib(bytes));
        };
        let of = |i: usize| match self.weights.len() {
            1 => String::new(),
            _ => format!(", node {}", self.node_id(i)),
        };
        for (i, node) in self.weights.iter().enumerate() {
            line(&format!("weights, packed{}", of(i)), node.packed);
            if self.mapped_is_held {
                line(&format!("weights, as in the file{}", of(i)), node.mapped);
            }
            line(&format!("norms and biases{}", of(i)), node.vectors);
        }
        line("buffers while loading", self.loading);
        for Planned { name, bytes } in &self.context.cache {
            line(&format!("cache: {name}"), *bytes);
        }
        line("checkpoints (they hold the cache's pages)", 0);
        for Planned { name, bytes } in &self.context.workspace {
            line(&format!("workspace: {name}"), *bytes);
        }
        line("stacks, page tables, text", self.unplanned());
        line("needed", self.needed());
        if self.cached_weights() > 0 {
            line("weights, mapped (the system's file cache)", self.cached_weights());
        }
        out
    }

    pub(crate) fn json(&self) -> Json {
        let buffers = |planned: &[Planned]| -> Vec<Json> {
            let one = |buffer: &Planned| json!({"name": buffer.name, "bytes": buffer.bytes});
            planned.iter().map(one).collect()
        };
        let weights = self.weights.iter().enumerate().map(|(node, bytes)| {
            json!({
                "node": self.node_id(node), "packed": bytes.packed, "mapped": bytes.mapped, "vectors": bytes.vectors,
            })
        });
        json!({
            "weights": weights.collect::<Vec<_>>(),
            "mapped_is_held": self.mapped_is_held,
            "loading": self.loading,
            "cache": buffers(&self.context.cache),
            "checkpoints": 0,
            "workspace": buffers(&self.context.workspace),
            "unplanned": self.unplanned(),
            "needed": self.needed(),
        })
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

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

/// What a person can choose to need less.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) storage: Storage,
    /// Of experts, where that was said: else they lie as all others do, or stay mapped where that makes the rest fit.
    pub(crate) experts: Option<Storage>,
    /// Whether the model has some.
    pub(crate) has_experts: bool,
    /// Whether layers of it keep a state of each sequence.
    pub(crate) has_states: bool,
    pub(crate) context: ContextOptions,
}

impl Choice {
    fn with_q8_0(&self) -> Option<Self> {
        let mut choice = self.clone();
        choice.context.cache_type_k = CacheType::Q8_0;
        choice.context.cache_type_v = CacheType::Q8_0;
        let types = |choice: &Choice| (choice.context.cache_type_k, choice.context.cache_type_v);
        (types(&choice) != types(self)).then_some(choice)
    }

    /// With mapped experts, where they would not be.
    fn with_mapped_experts(&self) -> Option<Self> {
        let mapped = Some(Storage::Mapped);
        let lie = self.experts.unwrap_or(self.storage);
        (self.has_experts && lie != Storage::Mapped).then(|| Choice {
            experts: mapped,
            ..self.clone()
        })
    }

    fn mapped(&self) -> Option<Self> {
        let storage = Storage::Mapped;
        (self.storage != storage).then(|| Choice {
            storage,
            ..self.clone()
        })
    }

    fn with_states(&self, n: usize) -> Self {
        let mut choice = self.clone();
        choice.context.n_states = Some(n);
        choice
    }

    /// The size that decides how large the cache is, in tokens or in bytes.
    fn size(&self) -> u64 {
        match self.context.pool {
            Pool::Bytes(bytes) => bytes,
            Pool::Whole | Pool::Pages(_) => self.context.n_ctx as u64,
        }
    }

    fn with_size(&self, size: u64) -> Self {
        let mut choice = self.clone();
        match &mut choice.context.pool {
            Pool::Bytes(bytes) => *bytes = size,
            Pool::Whole | Pool::Pages(_) => {
                choice.context.n_ctx = usize::try_from(size).unwrap_or(usize::MAX)
            }
        }
        choice
    }

    /// A step between two sizes worth telling apart.
    fn step(&self) -> u64 {
        match self.context.pool {
            Pool::Bytes(_) => 1 << 20,
            Pool::Whole | Pool::Pages(_) => BLOCK as u64,
        }
    }

    /// What one types for what differs from `asked`.
    fn options(&self, asked: &Choice) -> String {
        let mut options = Vec::new();
        if self.storage != asked.storage {
            options.push("--weights mapped".into());
        }
        if self.experts != asked.experts {
            options.push("--experts mapped".into());
        }
        for (name, own, other) in [
            ("k", self.context.cache_type_k, asked.context.cache_type_k),
            ("v", self.context.cache_type_v, asked.context.cache_type_v),
        ] {
            if own != other {
                options.push(format!("--cache-type-{name} q8_0"));
            }
        }
        if self.context.states() != asked.context.states() {
            options.push(format!("--cache-states {}", self.context.states()));
        }
        if self.size() != asked.size() {
            options.push(match self.context.pool {
                Pool::Bytes(bytes) => format!("--cache-size {}M", bytes >> 20),
                Pool::Whole | Pool::Pages(_) => format!("--ctx-size {}", self.context.n_ctx),
            });
        }
        options.join(" ")
    }
}

/// What would fit in place of what was asked for, as options. `fits` says it of a choice.
pub(crate) fn advice(asked: &Choice, fits: &dyn Fn(&Choice) -> bool) -> Vec<String> {
    let smaller = |choice: &Choice| largest(choice, fits);
    let whole = |choice: Option<Choice>| choice.filter(fits);
    let mut found: Vec<Choice> = [
        smaller(asked),
        whole(asked.with_q8_0()),
        fewer_states(asked, fits),
        whole(asked.with_mapped_experts()),
        whole(asked.mapped()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if found.is_empty() {
        // No single option is enough. Mapped experts first: what every token needs stays as fast as it can be.
        let experts = asked.with_mapped_experts();
        let mapped = asked.mapped().unwrap_or_else(|| asked.clone());
        let all = mapped.with_mapped_experts().unwrap_or(mapped);
        found = experts
            .into_iter()
            .chain([all])
            .filter_map(|choice| {
                let both = choice.with_q8_0();
                let least = both.clone().unwrap_or_else(|| choice.clone());
                whole(Some(choice.clone()))
                    .or_else(|| whole(both))
                    .or_else(|| smaller(&choice))
                    .or_else(|| smaller(&least))
            })
            .collect();
    }
    let mut options: Vec<String> = found.iter().map(|choice| choice.options(asked)).collect();
    options.dedup();
    options
}

/// The largest size below the one that was asked for that fits; sizes are multiples of a step.
fn largest(choice: &Choice, fits: &dyn Fn(&Choice) -> bool) -> Option<Choice> {
    let step = choice.step();
    let of = |steps: u64| choice.with_size(steps * step);
    let most = most(1, choice.size().div_ceil(step), &|steps| fits(&of(steps)))?;
    Some(of(most))
}

/// As many states as fit, where there are some, and fewer than were asked for.
fn fewer_states(choice: &Choice, fits: &dyn Fn(&Choice) -> bool) -> Option<Choice> {
    const LEAST: u64 = 2;
    let of = |n: u64| choice.with_states(usize::try_from(n).unwrap_or(usize::MAX));
    let end = if choice.has_states {
        choice.context.states() as u64
    } else {
        0
    };
    let most = most(LEAST, end, &|n| fits(&of(n)))?;
    Some(of(most))
}

/// The largest number from `least` on and below `end` that fits, where those that do come first.
fn most(least: u64, end: u64, fits: &dyn Fn(u64) -> bool) -> Option<u64> {
    // Those below `low` fit; `high` and what is above do not.
    let (mut low, mut high) = (least, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle + 1
        } else {
            high = middle
        }
    }
    (low > least).then(|| low - 1)
}

/// The error's text: what is needed, what there is, what would fit.
pub(crate) fn refusal(
    budget: &Budget,
    (room, needed): (&Room, u64),
    what: &str,
    advice: &[String],
) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let mut text = format!(
        "{what} needs {} MiB of memory and {} MiB are free ({}): weights {} MiB",
        mib(needed),
        room.free >> 20,
        room.limiter,
        mib(budget.held_weights()),
    );
    if budget.cached_weights() > 0 {
        let _ = write!(text, " (and {} MiB mapped)", mib(budget.cached_weights()));
    }
    let rest = budget.loading.saturating_add(budget.unplanned());
    let _ = write!(
        text,
        ", cache {} MiB, buffers of a pass {} MiB, other {} MiB; ",
        mib(budget.context.cache_bytes()),
        mib(budget.context.workspace_bytes()),
        mib(rest),
    );
    text + &match advice {
        [] => "no option makes it fit: free some memory, or take a smaller model".into(),
        advice => format!("what would fit: {}", advice.join(", or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine_files::MachineFiles;

    const MIB: u64 = 1 << 20;

    fn budget(weights: &[u64], cache: u64) -> Budget {
        let of = |&packed: &u64| WeightBytes {
            packed,
            ..WeightBytes::default()
        };
        Budget {
            weights: weights.iter().map(of).collect(),
            node_ids: Vec::new(),
            mapped_is_held: false,
            loading: 0,
            context: ContextPlan {
                cache: vec![Planned {
                    name: "keys",
                    bytes: cache,
                }],
                workspace: Vec::new(),
            },
        }
    }

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

    #[test]
    fn advice_fits_and_is_as_large_as_fits() {
        // Packed weights of 100 MiB; a cache of 1 MiB for 64 tokens in f16, of half of it in q8_0.
        let cache = |choice: &Choice| {
            let half = u64::from(choice.context.cache_type_k == CacheType::Q8_0);
            (choice.context.n_ctx as u64 * MIB / 64) >> half
        };
        let needed = |choice: &Choice| {
            let weights = if choice.storage == Storage::Mapped {
                0
            } else {
                100 * MIB
            };
            weights + cache(choice)
        };
        let asked = Choice {
            storage: Storage::Auto,
            experts: None,
            has_experts: false,
            has_states: false,
            context: ContextOptions {
                n_ctx: 6400,
                ..ContextOptions::default()
            },
        };
        let q8 = "--cache-type-k q8_0 --cache-type-v q8_0";
        for (free, expected) in [
            (
                180,
                vec![
                    "--ctx-size 5120".to_string(),
                    q8.into(),
                    "--weights mapped".into(),
                ],
            ),
            (120, vec!["--ctx-size 1280".into(), "--weights mapped".into()]),
            (101, vec!["--ctx-size 64".into(), "--weights mapped".into()]),
            (99, vec![format!("--weights mapped {q8}")]),
            (40, vec!["--weights mapped --ctx-size 2560".into()]),
            (0, vec![]),
        ] {
            let found = advice(&asked, &|choice| needed(choice) <= free * MIB);
            assert_eq!(found, expected, "{free} MiB");
        }
        // Of those weights 80 MiB are experts'.
        let with_experts = |choice: &Choice| {
            let packed = |storage| u64::from(storage != Storage::Mapped);
            let experts = choice.experts.unwrap_or(choice.storage);
            cache(choice) + 20 * MIB * packed(choice.storage) + 80 * MIB * packed(experts)
        };
        let insisting = Choice {
            experts: Some(Storage::Packed),
            has_experts: true,
            ..asked.clone()
        };
        for (free, expected) in [
            (
                180,
                vec![
                    "--ctx-size 5120".to_string(),
                    q8.into(),
                    "--experts mapped".into(),
                    "--weights mapped".into(),
                ],
            ),
            (130, vec!["--ctx-size 1920".into(), "--experts mapped".into()]),
            (
                90,
                vec![
                    format!("--experts mapped {q8}"),
                    format!("--weights mapped --experts mapped {q8}"),
                ],
            ),
            (
                40,
                vec![
                    "--experts mapped --ctx-size 1280".into(),
                    "--weights mapped --experts mapped --ctx-size 2560".into(),
                ],
            ),
            (
                10,
                vec!["--weights mapped --experts mapped --ctx-size 640".into()],
            ),
        ] {
            let found = advice(&insisting, &|choice| with_experts(choice) <= free * MIB);
            assert_eq!(found, expected, "{free} MiB");
        }
        // Where nobody said where they lie they are mapped if that is enough: the size is that of such a context.
        let open = Choice {
            experts: None,
            ..insisting
        };
        let settled = |choice: &Choice| {
            let mapped = choice.with_mapped_experts();
            let least = mapped.filter(|_| choice.experts.is_none());
            with_experts(least.as_ref().unwrap_or(choice)) <= 90 * MIB
        };
        assert_eq!(advice(&open, &settled), ["--ctx-size 4480", q8]);
        // States of 1 MiB each, 8 of them unless other options say so.
        let recurrent = Choice {
            has_states: true,
            ..asked.clone()
        };
        let with_states = |choice: &Choice| needed(choice) + choice.context.states() as u64 * MIB;
        let of = |free: u64| advice(&recurrent, &|choice| with_states(choice) <= free * MIB);
        assert_eq!(of(207)[0], "--ctx-size 6336");
        assert!(of(207).contains(&"--cache-states 7".into()), "{:?}", of(207));
        assert!(of(202).contains(&"--cache-states 2".into()), "{:?}", of(202));
        assert!(!of(201).concat().contains("states"), "{:?}", of(201));
        // A cache whose size is given in bytes.
        let mut asked = asked;
        asked.context.pool = Pool::Bytes(500 * MIB);
        let fits = |choice: &Choice| choice.size() <= 30 * MIB && choice.storage == Storage::Auto;
        assert_eq!(advice(&asked, &fits), ["--cache-size 30M"]);
    }

    #[test]
    fn a_refusal_has_the_numbers() {
        let budget = budget(&[300 * MIB], 200 * MIB);
        let room = Room {
            limiter: Limiter::ControlGroup,
            free: 400 * MIB,
        };
        let rooms = [room];
        let small = too_small(&budget, &rooms, &[]).unwrap();
        let text = refusal(
            &budget,
            small,
            "`m.gguf` with a context of 8 tokens",
            &["--ctx-size 4".into()],
        );
        for part in [
            "526 MiB",
            "400 MiB are free (the control group)",
            "weights 300 MiB",
            "cache 200 MiB",
            "--ctx-size 4",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let nothing = refusal(&budget, small, "it", &[]);
        assert!(nothing.contains("smaller model"), "{nothing}");
        assert!(
            budget
                .table()
                .lines()
                .any(|line| line.contains("needed") && line.contains("526.0")),
            "{}",
            budget.table()
        );
        assert_eq!(budget.json()["weights"][0]["packed"], 300 * MIB);
    }
}
