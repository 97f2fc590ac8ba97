//! What `bench` prints: llama-bench's table, or JSON.

use serde_json::{Value, json};
use twinfer_engine::model::Model;

use super::stage::{Stage, met_table, times_table};
use super::{Kind, Measured, statistics};
use crate::output::json_f64;
use crate::placed::Placed;
use crate::rates::{Allowed, Rates};

/// All that a report says.
pub(super) struct Report<'a> {
    pub(super) name: &'a str,
    pub(super) threads: usize,
    pub(super) model: &'a Model,
    pub(super) allowed: Allowed<'a>,
    pub(super) limits: Option<Rates>,
    pub(super) load: &'a Stage,
    pub(super) first_token: &'a Stage,
    pub(super) measured: &'a [Measured],
    /// Where the memory lies that was read, on a machine of several nodes.
    pub(super) placed: Option<Placed>,
}

fn size(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 {
        format!("{mib:.2} MiB")
    } else {
        format!("{:.2} GiB", mib / 1024.0)
    }
}

fn params(n: usize) -> String {
    let millions = n as f64 / 1e6;
    if millions < 1000.0 {
        format!("{millions:.2} M")
    } else {
        format!("{:.2} B", millions / 1000.0)
    }
}

/// The limits in one line.
pub(super) fn limits_line(limits: &Rates) -> String {
    let tiles = limits.tile_dot.map_or_else(String::new, |rate| {
        format!("int8 tile product {:.1} GMAC/s, ", rate / 1e9)
    });
    format!(
        "limits in the same run: int8 dot product {:.1} GMAC/s, {tiles}f32 multiply + add {:.1} GMAC/s, memory read {:.1} GB/s ({})\n",
        limits.dot / 1e9,
        limits.multiply_add / 1e9,
        limits.read / 1e9,
        limits.pattern
    )
}

/// A table of markdown; columns that `left` names stand to the left, numbers to the right.
pub(in crate::commands) fn table(head: &[&str], left: &[usize], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|i| {
            rows.iter()
                .map(|row| row[i].chars().count())
                .chain([head[i].chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let cells: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, w))| {
                if left.contains(&i) {
                    format!("{cell:<w$}")
                } else {
                    format!("{cell:>w$}")
                }
            })
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rules: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(i, w)| {
            if left.contains(&i) {
                "-".repeat(w + 2)
            } else {
                format!("{}:", "-".repeat(w + 1))
            }
        })
        .collect();
    let mut out = line(head.to_vec());
    out += &format!("|{}|\n", rules.join("|"));
    for row in rows {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

impl Report<'_> {
    /// Part of the limit that a test reached.
    fn fraction(&self, m: &Measured) -> Option<f64> {
        let limit = m.test.allowed(&self.allowed, self.limits.as_ref()?);
        Some(statistics(&m.speeds()).0 / limit)
    }

    pub(super) fn markdown(&self) -> String {
        let mut head = vec!["model", "size", "params", "backend", "threads", "test", "t/s"];
        if self.limits.is_some() {
            head.push("of limit");
        }
        let rows: Vec<Vec<String>> = self
            .measured
            .iter()
            .map(|m| {
                let (mean, deviation) = statistics(&m.speeds());
                let mut row = vec![
                    self.name.replace('|', "\\|"),
                    size(self.model.weight_bytes()),
                    params(self.model.parameters()),
                    self.model.backend().name().into(),
                    self.threads.to_string(),
                    m.test.name(),
                    format!("{mean:.2} ± {deviation:.2}"),
                ];
                row.extend(self.fraction(m).map(|part| format!("{:.0} %", part * 100.0)));
                row
            })
            .collect();
        let mut out = table(&head, &[0, 3], &rows);
        let tests = self.measured.iter().map(|m| &m.stage);
        let stages: Vec<&Stage> = [self.load, self.first_token].into_iter().chain(tests).collect();
        out.push('\n');
        out += &times_table(&stages);
        out.push('\n');
        out += &met_table(&stages);
        if let Some(limits) = &self.limits {
            out.push('\n');
            out += &limits_line(limits);
        }
        if let Some(placed) = &self.placed {
            out += &format!("\nnuma: {}\n", placed.text());
        }
        out
    }

    pub(super) fn json(&self) -> Value {
        let results = self.measured.iter().map(|m| {
            let speeds = m.speeds();
            let (mean, deviation) = statistics(&speeds);
            let (prompt, generated) = match m.test.kind {
                Kind::Prompt(n) | Kind::Texts { n, .. } => (n, 0),
                Kind::Generation { n, .. } => (0, n),
            };
            let limit = self
                .limits
                .as_ref()
                .map(|limits| m.test.allowed(&self.allowed, limits));
            json!({
                "model": self.name,
                "model_size": self.model.weight_bytes(),
                "model_n_params": self.model.parameters(),
                "arch": self.model.config().arch,
                "backend": self.model.backend().name(),
                "n_threads": self.threads,
                "test": m.test.name(),
                "n_prompt": prompt,
                "n_gen": generated,
                "n_depth": m.test.depth,
                "n_parallel": m.test.sequences(),
                "type_k": self.allowed.cache.0.name(),
                "type_v": self.allowed.cache.1.name(),
                "avg_ts": json_f64(mean),
                "stddev_ts": json_f64(deviation),
                "samples_ts": speeds.iter().map(|&s| json_f64(s)).collect::<Vec<_>>(),
                "samples_s": m.seconds.iter().map(|&s| json_f64(s)).collect::<Vec<_>>(),
                "limit_ts": limit.map(json_f64),
                "limit_fraction": self.fraction(m).map(json_f64),
                "limits": self.limits.as_ref().map(Rates::json),
                "load": self.load.json(),
                "first_token": self.first_token.json(),
                "numa": self.placed.as_ref().map(Placed::json),
                "stage": m.stage.json(),
            })
        });
        Value::Array(results.collect())
    }
}
