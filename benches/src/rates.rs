//! The machine's two limits: how fast memory can be read, and how fast int8 dot products can be made.
//!
//! The program measures them (`twinfer doctor`), so that a table here, `twinfer bench` and `doctor` hold a speed
//! against the same two. They are measured beside every result, in the same minute: a fraction of them says more than a
//! speed does, above all on a machine that others use as well.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::run;

/// The two limits for a number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Memory read, GB/s: the best of several patterns.
    pub read: f64,
    /// int8 multiply-adds, GMAC/s, with the instructions of the best backend here.
    pub dot: f64,
}

impl Rates {
    /// Has the program measure them.
    pub fn measure(twinfer: &Path, threads: usize) -> Result<Self> {
        let report = run::json(
            Command::new(twinfer)
                .args(["doctor", "--json", "--quiet", "--threads"])
                .arg(threads.to_string()),
        )?;
        Self::of(&report).with_context(|| format!("`{} doctor` reports no limits", twinfer.display()))
    }

    fn of(report: &Value) -> Option<Self> {
        let limits = &report["limits"];
        Some(Rates {
            read: limits["memory_read_gb_s"].as_f64()?,
            dot: limits["int8_dot_gmacs"].as_f64()?,
        })
    }

    /// For programs, by the names that `doctor` gives them.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"memory_read_gb_s": self.read, "int8_dot_gmacs": self.dot})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_are_written() {
        let limits = Rates {
            read: 21.5,
            dot: 180.0,
        };
        assert_eq!(Rates::of(&json!({"limits": limits.json()})), Some(limits));
        // `--no-measure`
        assert_eq!(Rates::of(&json!({"limits": null})), None);
    }
}
