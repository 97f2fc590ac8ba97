//! The results: a table of medians and ratios, and every single value for programs.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use twinfer_benches::document::{paragraph, write_block};
use twinfer_benches::rates::Rates;
use twinfer_benches::statistics::median;

use crate::models::ModelOnDisk;
use crate::plan::{Cell, Kind, Test};

/// One measured value.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    pub(crate) cell: usize,
    /// 0 is twinfer, then the peers in order.
    pub(crate) engine: usize,
    pub(crate) round: usize,
    /// Tokens per second, of all sequences.
    pub(crate) rate: f64,
    /// What the engine reported.
    pub(crate) report: Value,
}

/// The limits measured beside a cell in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside {
    pub(crate) cell: usize,
    pub(crate) round: usize,
    pub(crate) limits: Rates,
}

/// Everything that a run found.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Names, twinfer first.
    pub(crate) engines: Vec<String>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) models: Vec<ModelOnDisk>,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) limits: Vec<Beside>,
    /// Paragraphs above the table: machine, settings, versions.
    pub(crate) head: Vec<String>,
    /// Bytes per number in the cache.
    pub(crate) cache_bytes: f64,
    /// What else a program may want to know.
    pub(crate) facts: Value,
}

impl Results {
    fn rates(&self, cell: usize, engine: usize) -> Vec<(usize, f64)> {
        self.measurements
            .iter()
            .filter(|m| m.cell == cell && m.engine == engine)
            .map(|m| (m.round, m.rate))
            .collect()
    }

    fn median_rate(&self, cell: usize, engine: usize) -> Option<f64> {
        let rates: Vec<f64> = self
            .rates(cell, engine)
            .into_iter()
            .map(|(_, rate)| rate)
            .collect();
        median(&rates)
    }

    /// twinfer in a cell over an engine in a cell: the median over the rounds of each round's ratio, so that both sides
    /// of it were measured in the same minutes.
    fn ratio(&self, cell: usize, (to, engine): (usize, usize)) -> Option<f64> {
        let theirs = self.rates(to, engine);
        let ratios: Vec<f64> = self
            .rates(cell, 0)
            .into_iter()
            .filter_map(|(round, ours)| {
                let (_, rate) = theirs.iter().find(|(of, _)| *of == round)?;
                Some(ours / rate)
            })
            .collect();
        median(&ratios)
    }

    /// The cell where one sequence does alone what several do together in this one.
    fn alone(&self, cell: usize) -> Option<usize> {
        let Cell { model, test } = &self.cells[cell];
        let alone = Test {
            sequences: 1,
            ..*test
        };
        let found = self
            .cells
            .iter()
            .position(|c| c.model == *model && c.test == alone);
        found.filter(|_| test.sequences > 1)
    }

    /// The cell where this model reads a prompt, which many sequences that write should come near to.
    fn prompt(&self, cell: usize) -> Option<usize> {
        let Cell { model, test } = &self.cells[cell];
        let found = self
            .cells
            .iter()
            .position(|c| c.model == *model && c.test.kind == Kind::Prompt && c.test.depth == 0);
        found.filter(|_| test.kind == Kind::Writing && test.sequences > 1)
    }

    /// The median over the rounds of the fraction of that round's limit: of int8 dot products for prompts, of memory reads
    /// for writing, of the one that allows less for many sequences.
    fn fraction(&self, cell: usize, engine: usize) -> Option<f64> {
        let Cell { model: spec, test } = &self.cells[cell];
        let (test, model) = (*test, &self.models[cell]);
        // Nobody measured how fast floats are multiplied.
        if spec.is_float() && test.kind != Kind::Writing {
            return None;
        }
        let fractions: Vec<f64> = self
            .rates(cell, engine)
            .into_iter()
            .filter_map(|(round, rate)| {
                let beside = self.limits.iter().find(|b| b.cell == cell && b.round == round)?;
                let compute = model.gmacs(test) / beside.limits.dot;
                let read = model.gigabytes(test, self.cache_bytes) / beside.limits.read;
                let by_compute = test.kind != Kind::Writing || test.sequences > 1 && read < compute;
                Some(rate * if by_compute { compute } else { read })
            })
            .collect();
        median(&fractions)
    }

    /// The table as markdown, with what must be known to read it.
    pub(crate) fn markdown(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "–".into(), significant);
        let times = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.2} x"));
        let percent =
            |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{:.0} %", v * 100.0));
        let mut out: String = self.head.iter().map(|text| paragraph(text)).collect();
        out += "| model | test |";
        for name in &self.engines {
            out += &format!(" {name} |");
        }
        for name in &self.engines[1..] {
            out += &format!(" ratio to {name} |");
        }
        let together = self.cells.iter().any(|cell| cell.test.sequences > 1);
        if together {
            out += " ratio to one sequence | to the prompt's rate |";
        }
        for name in &self.engines {
            out += &format!(" {name}: of the limit |");
        }
        out += "\n|---|---|";
        out += &"---:|".repeat(self.engines.len() * 3 - 1 + 2 * usize::from(together));
        out += "\n";
        for (i, cell) in self.cells.iter().enumerate() {
            if self.rates(i, 0).is_empty() {
                continue;
            }
            out += &format!("| {} | {} |", cell.model.name(), cell.test);
            for engine in 0..self.engines.len() {
                out += &format!(" {} |", number(self.median_rate(i, engine)));
            }
            for peer in 1..self.engines.len() {
                out += &format!(" {} |", times(self.ratio(i, (i, peer))));
            }
            if together {
                let ratio = self.alone(i).and_then(|alone| self.ratio(i, (alone, 0)));
                let share = self.prompt(i).and_then(|prompt| self.ratio(i, (prompt, 0)));
                out += &format!(" {} | {} |", times(ratio), percent(share));
            }
            for engine in 0..self.engines.len() {
                out += &format!(" {} |", percent(self.fraction(i, engine)));
            }
            out += "\n";
        }
        out
    }

    /// Every value, for programs.
    pub(crate) fn json(&self) -> Value {
        let limits = |cell: usize, round: usize| {
            let beside = self.limits.iter().find(|b| b.cell == cell && b.round == round);
            beside.map_or(Value::Null, |b| b.limits.json())
        };
        let values: Vec<Value> = self
            .measurements
            .iter()
            .map(|m| {
                let cell = &self.cells[m.cell];
                json!({
                    "shape": cell.model.shape, "layers": cell.model.layers, "type": cell.model.ty, "test": cell.test.to_string(),
                    "sequences": cell.test.sequences,
                    "engine": self.engines[m.engine], "round": m.round, "tokens_per_second": m.rate,
                    "gmacs_per_token": self.models[m.cell].gmacs(cell.test),
                    "gigabytes_per_token": self.models[m.cell].gigabytes(cell.test, self.cache_bytes),
                    "limits": limits(m.cell, m.round), "report": m.report,
                })
            })
            .collect();
        json!({"facts": self.facts, "measurements": values})
    }

    /// Writes the table to `path` and the values beside it, as `.json`.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        write_files(path, &self.markdown(), &self.json())
    }

    /// Puts the table between the markers `peers` of a document.
    pub(crate) fn write_between_markers(&self, document: &Path) -> Result<()> {
        write_block(document, "peers", &self.markdown())
    }
}

/// Writes a table to `path` and the values beside it, as `.json`.
pub(crate) fn write_files(path: &Path, table: &str, values: &Value) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(failed)?;
    }
    std::fs::write(path, table).with_context(failed)?;
    std::fs::write(
        path.with_extension("json"),
        serde_json::to_string_pretty(values)? + "\n",
    )
    .with_context(failed)
}

/// Three significant digits, none of them invented.
fn significant(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let cells = crate::plan::cells(
            &["1b:q4_k_m".parse().unwrap()],
            &["pp512".parse().unwrap(), "tg64".parse().unwrap()],
        );
        let model = ModelOnDisk::for_test(1e9, 0.0, 1e9, 0.0);
        let mut results = Results {
            engines: vec!["twinfer".into(), "other".into()],
            models: vec![model; cells.len()],
            cells,
            cache_bytes: 2.0,
            ..Results::default()
        };
        // The machine is twice as fast in round 1, for all.
        for (round, speed) in [(0, 1.0), (1, 2.0), (2, 1.0)] {
            for (cell, engine, rate) in [(0, 0, 100.0), (0, 1, 50.0), (1, 0, 20.0)] {
                results.measurements.push(Measurement {
                    cell,
                    engine,
                    round,
                    rate: rate * speed,
                    report: Value::Null,
                });
            }
            for cell in 0..2 {
                let limits = Rates {
                    read: 40.0 * speed,
                    dot: 200.0 * speed,
                };
                results.limits.push(Beside { cell, round, limits });
            }
        }
        results
    }

    #[test]
    fn ratios_and_fractions_are_of_one_round() {
        let results = results();
        assert_eq!(results.median_rate(0, 0), Some(100.0));
        assert_eq!(results.ratio(0, (0, 1)), Some(2.0));
        assert_eq!(results.fraction(0, 0), Some(0.5));
        assert_eq!(results.fraction(1, 0), Some(0.5));
        // The peer did not do the second test.
        assert_eq!(results.ratio(1, (1, 1)), None);
        assert!(
            results
                .markdown()
                .contains("| llama-3.2-1b q4_k_m | tg64 | 20.0 | – | – | 50 % | – |")
        );
        assert_eq!(results.json()["measurements"].as_array().unwrap().len(), 9);
    }

    #[test]
    fn several_sequences_stand_beside_one() {
        let mut results = results();
        results.cells[0].test = "tg64 x 4".parse().unwrap();
        let text = results.markdown();
        // 100 tokens a second where one sequence makes 20; a quarter of a gigabyte for each, and a multiply-add per
        // byte.
        assert!(
            text.contains(" ratio to other | ratio to one sequence | to the prompt's rate |"),
            "{text}"
        );
        assert!(
            text.contains(
                "| llama-3.2-1b q4_k_m | tg64 x 4 | 100 | 50.0 | 2.00 x | 5.00 x | – | 62 % | 31 % |"
            ),
            "{text}"
        );
        assert!(
            text.contains("| tg64 | 20.0 | – | – | – | – | 50 % | – |"),
            "{text}"
        );
        // As many bytes, and more to compute than this machine could.
        results.models[0] = ModelOnDisk::for_test(2e9, 0.0, 1e9, 0.0);
        assert_eq!(results.fraction(0, 0), Some(1.0));
    }

    #[test]
    fn paragraphs_above_the_table_are_wrapped() {
        let mut results = results();
        let features = "AVX-512F, ".repeat(30);
        results.head = vec![format!("Machine: {features}end."), "2 threads.".into()];
        let text = results.markdown();
        assert!(text.contains("end.\n\n2 threads.\n\n| model |"), "{text}");
        let prose = || text.lines().filter(|line| !line.starts_with('|'));
        assert!(prose().all(|line| line.len() <= 120), "{text}");
        // Broken between names, never at a hyphen.
        assert_eq!(prose().filter(|line| line.ends_with("AVX-512F,")).count(), 2);
    }
}
