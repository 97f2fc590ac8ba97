//! `doctor -m MODEL --numa MODE`: where the memory of a model and of its cache lies, and how much of it on the node
//! that reads it. The model is loaded for this.

use anyhow::Result;
use serde_json::{Value, json};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::Placement;

use crate::compute::Compute;
use crate::numa::Locality;
use crate::output::json_f64;
use crate::settings::Settings;
use crate::workers::Workers;

/// Rows of a pass: what matters here is the cache.
const ROWS: usize = 16;

/// What was found.
pub(super) struct Placed {
    /// What is done about nodes, in words.
    how: String,
    nodes: Vec<usize>,
    /// `None` where the system does not say where pages are.
    weights: Option<Locality>,
    cache: Option<Locality>,
}

impl Placed {
    /// Loads the model and looks.
    pub(super) fn look(settings: &Settings, workers: &Workers, file: &ModelFile) -> Result<Self> {
        let compute = Compute::start(settings, workers)?;
        let planned = compute.plan(file)?;
        let options = compute.one_sequence(compute.context_size(planned.config()), ROWS);
        let model = compute.load(planned, &options)?;
        let context = compute.context(&model, options)?;
        let id = |node: usize| workers.node_ids.get(node).copied().unwrap_or(0);
        let weights = match workers.placement() {
            // On one node all of them are its own.
            Placement::Anywhere => model.weight_data().into_iter().map(|bytes| (0, bytes)).collect(),
            Placement::Distribute | Placement::Mirror => model.placed_weights(),
        };
        Ok(Placed {
            how: workers.numa.describe().into_owned(),
            nodes: workers.node_ids.clone(),
            weights: Locality::of(weights.iter().map(|(node, bytes)| (id(*node), &**bytes))),
            cache: Locality::of(
                context
                    .placed_cache()
                    .into_iter()
                    .map(|(node, bytes)| (id(node), bytes)),
            ),
        })
    }

    pub(super) fn text(&self) -> String {
        let share = |found: Option<Locality>| match found {
            Some(found) => format!("{:.1} %", 100.0 * found.share()),
            None => "an unknown share".into(),
        };
        format!(
            "{}; on the node that reads them: {} of the weights' bytes, {} of the cache's",
            self.how,
            share(self.weights),
            share(self.cache)
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "mode": self.how,
            "nodes": self.nodes,
            "weights_local": self.weights.map(|found| json_f64(found.share())),
            "weights_pages": self.weights.map(|found| found.pages),
            "cache_local": self.cache.map(|found| json_f64(found.share())),
            "cache_pages": self.cache.map(|found| found.pages),
        })
    }
}
