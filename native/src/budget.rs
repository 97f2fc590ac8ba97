//! Memory that a command will take, planned before anything is loaded, and what is said where there is not so much:
//! what there is, is in `rooms`, and what would fit in `advice`.
//!
//! The plan's sizes come from the functions that allocate (`ModelPlan`, `ContextPlan`).

mod advice;
mod rooms;

pub(crate) use advice::{Choice, advice};
pub(crate) use rooms::{Limiter, Room, nodes, rooms, too_small, too_small_nodes, with_rooms};

use std::fmt::Write as _;

use serde_json::{Value as Json, json};
use twinfer_engine::context::ContextPlan;
use twinfer_engine::memory::Planned;
use twinfer_engine::model::plan::WeightBytes;

/// What is not planned: stacks, the heap's own needs, text. A number of bytes, and one part in so many of all the rest
/// for page tables and the ends of huge pages.
const UNPLANNED: u64 = 24 << 20;
const UNPLANNED_PART: u64 = 256;

/// Memory that a command holds at a time, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Of each node; one entry where memory is not divided.
    pub(crate) weights: Vec<WeightBytes>,
    /// The system's numbers of the nodes that memory is planned on: as many as entries of the weights. None where it
    /// lies wherever the system puts it.
    pub(crate) nodes: Vec<usize>,
    /// Nobody asked for these nodes: where they are too small, pages of others do.
    pub(crate) spills: bool,
    /// Mapped weights take memory that the system cannot take back: they are copied or locked.
    pub(crate) mapped_is_held: bool,
    /// Buffers while the weights are loaded.
    pub(crate) loading: u64,
    pub(crate) context: ContextPlan,
}

/// What must be there, in all or on one node, by what takes it. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) weights: u64,
    pub(crate) cache: u64,
    pub(crate) workspace: u64,
    loading: u64,
    unplanned: u64,
}

impl Need {
    /// Saturates.
    pub(crate) fn total(self) -> u64 {
        self.beside_cache().saturating_add(self.cache)
    }

    /// All but the cache; saturates.
    pub(crate) fn beside_cache(self) -> u64 {
        let Need {
            weights,
            workspace,
            loading,
            unplanned,
            ..
        } = self;
        [workspace, loading, unplanned]
            .into_iter()
            .fold(weights, u64::saturating_add)
    }
}

impl Budget {
    /// Bytes of weights that the process holds.
    pub(crate) fn held_weights(&self) -> u64 {
        (0..self.weights.len()).fold(0, |sum, i| self.held_of(i).saturating_add(sum))
    }

    /// The system's number of the node that entry `i` of the weights is on.
    fn node_id(&self, i: usize) -> usize {
        self.nodes.get(i).copied().unwrap_or(i)
    }

    /// Those of entry `i`.
    fn held_of(&self, i: usize) -> u64 {
        let node = self.weights.get(i).copied().unwrap_or_default();
        let mapped = if self.mapped_is_held { node.mapped } else { 0 };
        node.packed.saturating_add(node.vectors).saturating_add(mapped)
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

    /// With what is not planned, see [`UNPLANNED`]. `cached`: bytes that need no room, but page tables.
    fn need_of(&self, weights: u64, cache: u64, cached: u64) -> Need {
        let need = Need {
            weights,
            cache,
            workspace: self.context.workspace_bytes(),
            loading: self.loading,
            unplanned: 0,
        };
        Need {
            unplanned: UNPLANNED + need.total().saturating_add(cached) / UNPLANNED_PART,
            ..need
        }
    }

    /// All that must be there.
    pub(crate) fn need(&self) -> Need {
        self.need_of(
            self.held_weights(),
            self.context.cache_bytes(),
            self.cached_weights(),
        )
    }

    /// What must be there on each node that memory is planned on, with the system's number of the node. The buffers of
    /// a pass and of loading are counted on each of them: which worker writes to a page first decides where it lies.
    pub(crate) fn need_of_nodes(&self) -> impl Iterator<Item = (usize, Need)> {
        let placed = &self.context.cache_of_nodes;
        let rest = placed.iter().copied().fold(0, u64::saturating_add);
        // Lists of what of the cache is free are the caller's, which is on the first node.
        let rest = self.context.cache_bytes().saturating_sub(rest);
        self.nodes.iter().enumerate().map(move |(i, &id)| {
            let cache = placed.get(i).copied().unwrap_or(0);
            let cache = cache.saturating_add(if i == 0 { rest } else { 0 });
            (id, self.need_of(self.held_of(i), cache, 0))
        })
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
        let need = self.need();
        line("stacks, page tables, text", need.unplanned);
        line("needed", need.total());
        for (id, need) in self.need_of_nodes() {
            if self.nodes.len() > 1 {
                line(&format!("of the cache, node {id}"), need.cache);
            }
            line(&format!("needed, node {id}"), need.total());
        }
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
        let nodes = self.need_of_nodes().map(|(id, need)| {
            json!({
                "node": id, "weights": need.weights, "cache": need.cache, "workspace": need.workspace,
                "needed": need.total(),
            })
        });
        let need = self.need();
        json!({
            "weights": weights.collect::<Vec<_>>(),
            "mapped_is_held": self.mapped_is_held,
            "loading": self.loading,
            "cache": buffers(&self.context.cache),
            "checkpoints": 0,
            "workspace": buffers(&self.context.workspace),
            "unplanned": need.unplanned,
            "needed": need.total(),
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The error's text: what is needed, what there is, what would fit.
pub(crate) fn refusal(budget: &Budget, (room, need): (&Room, Need), what: &str, advice: &[String]) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let where_ = match room.limiter {
        Limiter::Node(node) => format!(" on node {node}"),
        _ => String::new(),
    };
    let mut text = format!(
        "{what} needs {} MiB of memory{where_} and {} MiB are free ({}): weights {} MiB",
        mib(need.total()),
        room.free >> 20,
        room.limiter,
        mib(need.weights),
    );
    if budget.cached_weights() > 0 {
        let _ = write!(text, " (and {} MiB mapped)", mib(budget.cached_weights()));
    }
    let _ = write!(
        text,
        ", cache {} MiB, buffers of a pass {} MiB, other {} MiB; ",
        mib(need.cache),
        mib(need.workspace),
        mib(need.loading.saturating_add(need.unplanned)),
    );
    text + &match advice {
        [] => "no option makes it fit: free some memory, or take a smaller model".into(),
        advice => format!("what would fit: {}", advice.join(", or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const MIB: u64 = 1 << 20;

    pub(super) fn budget(weights: &[u64], cache: u64) -> Budget {
        let of = |&packed: &u64| WeightBytes {
            packed,
            ..WeightBytes::default()
        };
        Budget {
            weights: weights.iter().map(of).collect(),
            nodes: if weights.len() > 1 {
                (0..weights.len()).collect()
            } else {
                Vec::new()
            },
            spills: false,
            mapped_is_held: false,
            loading: 0,
            context: ContextPlan {
                cache: vec![Planned {
                    name: "keys",
                    bytes: cache,
                }],
                workspace: Vec::new(),
                cache_of_nodes: vec![cache / weights.len() as u64; weights.len()],
            },
        }
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
