//! `doctor --machine`: what another machine would do with a model, by its description.

use anyhow::Result;
use serde_json::{Value, json};

use super::{PROMPT, bytes, plural, scaled};
use crate::commands::bench::report::table;
use crate::output::json_f64;
use crate::prediction::{Description, Mode, Pass};
use crate::rates::Allowed;

/// A model on a machine.
pub(super) struct Predicted<'a> {
    pub(super) machine: &'a Description,
    pub(super) model: &'a str,
    /// Parameters, and bytes of the file's tensors.
    pub(super) size: (f64, f64),
    pub(super) allowed: Allowed<'a>,
    pub(super) depth: usize,
}

/// In one mode: a prompt, a token of an empty cache, one of a full cache.
struct Row {
    mode: Mode,
    prompt: Pass,
    token: Pass,
    deep: Pass,
}

impl Row {
    fn prompt_speed(&self) -> f64 {
        PROMPT as f64 / self.prompt.seconds()
    }
}

impl Predicted<'_> {
    fn rows(&self) -> Vec<Row> {
        let row = |mode| Row {
            mode,
            prompt: self.machine.prefill(&self.allowed, PROMPT, mode),
            token: self.machine.decode(&self.allowed, 0, mode),
            deep: self.machine.decode(&self.allowed, self.depth, mode),
        };
        self.machine.modes().into_iter().map(row).collect()
    }

    pub(super) fn text(&self) -> String {
        let m = self.machine;
        let (every, asked) = self.allowed.work;
        let mut out = format!(
            "{}, {}: {} of {} each on {}; a node reads {} GB/s, a core makes {} int8 and {} f32 GMAC/s\n",
            m.name,
            if m.paper { "on paper" } else { "as measured" },
            plural(m.nodes, "NUMA node"),
            plural(m.cores_per_node, "core"),
            plural(m.sockets, "socket"),
            m.read_gb_s,
            m.int8_gmac_s,
            m.f32_gmac_s,
        );
        out += &format!(
            "{}: {} parameters, {}; {} of weights and {} multiplications a token, {} operations a pass\n\n",
            self.model,
            scaled(self.size.0, ["M", "B"]),
            bytes(self.size.1),
            bytes(every.bytes(1.0) + asked.bytes(1.0)),
            scaled(every.multiplications() + asked.multiplications(), ["M", "G"]),
            self.allowed.config.operations(),
        );
        let deep = format!("tg @ d{}", self.depth);
        let prompt = format!("pp{PROMPT}");
        // What makes vectors writes no token: then it is the prompt whose time is split up.
        let writes = self.allowed.config.writes_text();
        let reads = format!("{}: reads ms", if writes { "tg" } else { &prompt });
        let mut head = vec!["machine", "model", "numa", &prompt];
        if writes {
            head.extend(["tg", &deep]);
        }
        head.extend([&reads, "computes ms", "hand-overs ms"]);
        let rows: Vec<Vec<String>> = self
            .rows()
            .iter()
            .map(|row| {
                let mut cells = vec![
                    m.name.clone(),
                    self.model.into(),
                    row.mode.name().into(),
                    format!("{:.0}", row.prompt_speed()),
                ];
                if writes {
                    cells.extend([&row.token, &row.deep].map(|pass| format!("{:.1}", 1.0 / pass.seconds())));
                }
                let pass = if writes { &row.token } else { &row.prompt };
                cells.extend(
                    [pass.read, pass.compute, pass.hand_overs].map(|seconds| format!("{:.2}", seconds * 1e3)),
                );
                cells
            })
            .collect();
        out + &table(&head, &[0, 1, 2], &rows)
    }

    pub(super) fn json(&self) -> Value {
        let pass = |pass: &Pass| {
            json!({
                "seconds": json_f64(pass.seconds()),
                "read_seconds": json_f64(pass.read),
                "compute_seconds": json_f64(pass.compute),
                "hand_over_seconds": json_f64(pass.hand_overs),
            })
        };
        let writes = self.allowed.config.writes_text();
        let written = |pass: &Pass| writes.then(|| json_f64(1.0 / pass.seconds()));
        let token = |of: &Pass| writes.then(|| pass(of));
        let modes: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                json!({
                    "numa": row.mode.name(),
                    "prompt_tokens": PROMPT,
                    "prompt_tokens_per_second": json_f64(row.prompt_speed()),
                    "generated_tokens_per_second": written(&row.token),
                    "depth": self.depth,
                    "generated_tokens_per_second_at_depth": written(&row.deep),
                    "prompt": pass(&row.prompt),
                    "token": token(&row.token),
                    "token_at_depth": token(&row.deep),
                })
            })
            .collect();
        json!({
            "machine": self.machine.name,
            "paper": self.machine.paper,
            "model": self.model,
            "parameters": json_f64(self.size.0),
            "weight_bytes": json_f64(self.size.1),
            "operations": self.allowed.config.operations(),
            "modes": modes,
        })
    }
}

/// What there is to predict with.
pub(super) fn needs_a_model() -> Result<()> {
    let text = "--machine predicts the speed of a model; give one with -m FILE or --shape NAME";
    Err(crate::failure::Usage(text.into()).into())
}
