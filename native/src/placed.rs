//! Where the memory of a model and of its cache lies, and how much of it on the node that reads it: what the system
//! says of its pages, once they are there.

use serde_json::{Value, json};
use twinfer_engine::context::Context;
use twinfer_engine::kernels::Placement;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::Model;

use crate::mapped;
use crate::numa::Locality;
use crate::output::json_f64;
use crate::workers::Workers;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    /// What is done about nodes, in words.
    how: String,
    nodes: Vec<usize>,
    /// `None` where the system does not say where pages are.
    weights: Option<Locality>,
    cache: Option<Locality>,
    /// Of one node, the pages of the model's file that are read as they are, which the system's cache may have on
    /// another one.
    mapped: Option<Locality>,
}

impl Placed {
    /// Looks at a model that is loaded and at a context of it. `None` where no node is told apart, or workers of
    /// several nodes are anywhere.
    pub(crate) fn look(workers: &Workers, model: &Model, context: &Context) -> Option<Self> {
        workers.numa.nodes.as_ref()?;
        if workers.placement() == Placement::Anywhere && workers.node_ids.len() > 1 {
            return None;
        }
        let id = |node: usize| workers.node_ids.get(node).copied().unwrap_or(0);
        let (weights, mapped) = match workers.placement() {
            // On one node all of them are its own.
            Placement::Anywhere => {
                let all = model.weight_data().into_iter().map(|bytes| (0, bytes));
                all.partition(|(_, bytes)| mapped::file_of(bytes).is_none())
            }
            // Which node's workers read a page of the file is not settled.
            Placement::Distribute | Placement::Mirror => (model.placed_weights(), Vec::new()),
        };
        let of =
            |parts: &[(usize, Bytes)]| Locality::of(parts.iter().map(|(node, bytes)| (id(*node), &**bytes)));
        let cache = context.placed_cache().into_iter();
        Some(Placed {
            how: workers.numa.describe().into_owned(),
            nodes: workers.node_ids.clone(),
            weights: of(&weights),
            cache: Locality::of(cache.map(|(node, bytes)| (id(node), bytes))),
            mapped: if mapped.is_empty() { None } else { of(&mapped) },
        })
    }

    /// One line.
    pub(crate) fn text(&self) -> String {
        let share = |found: Option<Locality>, what: &str, of_what: &str| match found {
            Some(Locality { pages: 0, .. }) => format!("nothing of the {what} is in its own memory"),
            Some(found) => format!("{:.1} % of the {of_what} bytes", 100.0 * found.share()),
            None => format!("an unknown share of the {of_what} bytes"),
        };
        let mut text = format!(
            "{}; on the node that reads them: {}, {}",
            self.how,
            share(self.weights, "weights", "weights'"),
            share(self.cache, "cache", "cache's")
        );
        if let Some(found) = self.mapped.filter(|found| found.pages > 0) {
            text += &format!(
                ", {:.1} % of the bytes that are read from the mapped file",
                100.0 * found.share()
            );
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "mode": self.how,
            "nodes": self.nodes,
            "weights_local": self.weights.map(|found| json_f64(found.share())),
            "weights_pages": self.weights.map(|found| found.pages),
            "cache_local": self.cache.map(|found| json_f64(found.share())),
            "cache_pages": self.cache.map(|found| found.pages),
            "mapped_local": self.mapped.map(|found| json_f64(found.share())),
            "mapped_pages": self.mapped.map(|found| found.pages),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_where() {
        let placed = Placed {
            how: "distributed over nodes 0-1".into(),
            nodes: vec![0, 1],
            weights: Some(Locality {
                pages: 1000,
                local: 975,
            }),
            cache: Some(Locality::default()),
            mapped: None,
        };
        assert_eq!(
            placed.text(),
            "distributed over nodes 0-1; on the node that reads them: 97.5 % of the weights' bytes, nothing of the \
             cache is in its own memory"
        );
        let one_node = Placed {
            mapped: Some(Locality { pages: 8, local: 2 }),
            ..placed.clone()
        };
        assert!(
            one_node
                .text()
                .ends_with(", 25.0 % of the bytes that are read from the mapped file")
        );
        assert_eq!(one_node.json()["mapped_pages"], 8);
        let report = placed.json();
        assert_eq!(report["weights_local"], 0.975);
        assert_eq!(report["weights_pages"], 1000);
        assert_eq!(report["nodes"], json!([0, 1]));
        let unknown = Placed {
            weights: None,
            ..placed
        };
        assert!(unknown.text().contains("an unknown share of the weights'"));
        assert_eq!(unknown.json()["weights_local"], Value::Null);
    }
}
