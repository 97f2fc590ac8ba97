//! What is measured: models (a shape and a type), tests, and how they are written on the command line.

use std::str::FromStr;

/// A model of random weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelSpec {
    /// As `twinfer bench --shape` takes it.
    pub(crate) shape: String,
    /// As `--type` takes it, or a type that has no quantizer (see `models.rs`).
    pub(crate) ty: String,
}

impl ModelSpec {
    /// For tables: `llama-3.2-1b q4_k_m`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.shape, self.ty)
    }
}

impl FromStr for ModelSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shape, ty) = text
            .split_once(':')
            .filter(|(shape, ty)| !shape.is_empty() && !ty.is_empty())
            .ok_or("expected SHAPE:TYPE, such as llama-3.2-1b:q4_k_m")?;
        // The usual two have short names.
        let shape = match shape {
            "1b" => "llama-3.2-1b",
            "3b" => "llama-3.2-3b",
            other => other,
        };
        Ok(ModelSpec {
            shape: shape.to_ascii_lowercase(),
            ty: ty.to_ascii_lowercase(),
        })
    }
}

/// One kind of work, named as llama-bench does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Test {
    /// Tokens are read at once (`pp`), else written one by one (`tg`).
    pub(crate) prompt: bool,
    pub(crate) n: usize,
    /// Tokens that stand before.
    pub(crate) depth: usize,
}

/// Tokens are numbered in 32 bits everywhere; this is beyond any context.
const MOST: usize = 1 << 24;

impl FromStr for Test {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (kind, rest) = text.split_at_checked(2)?;
            let (n, depth) = rest.split_once("@d").unwrap_or((rest, "0"));
            let test = Test {
                prompt: match kind {
                    "pp" => true,
                    "tg" => false,
                    _ => return None,
                },
                n: n.parse().ok()?,
                depth: depth.parse().ok()?,
            };
            (test.n > 0 && test.n <= MOST && test.depth <= MOST).then_some(test)
        };
        parse().ok_or_else(|| "expected ppN, tgN, or one of them with a depth, such as tg64@d4096".into())
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.prompt { "pp" } else { "tg" }, self.n)?;
        if self.depth > 0 {
            write!(f, "@d{}", self.depth)?;
        }
        Ok(())
    }
}

/// One line of the table: a test of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) model: ModelSpec,
    pub(crate) test: Test,
}

/// The cells of some models, the same tests for each.
pub(crate) fn cells(models: &[ModelSpec], tests: &[Test]) -> Vec<Cell> {
    let of = |model: &ModelSpec| {
        tests
            .iter()
            .map(|&test| (model.clone(), test))
            .collect::<Vec<_>>()
    };
    models
        .iter()
        .flat_map(of)
        .map(|(model, test)| Cell { model, test })
        .collect()
}

/// Everything that the goals speak of; what is most looked at comes first, so that a run cut short still has it.
const FULL: &[(&str, &str)] = &[
    ("1b:q4_k_m", "pp512 tg128 pp4096 tg64@d4096 tg64@d8192"),
    ("3b:q4_k_m", "pp512 tg128"),
    ("1b:q8_0", "pp512 tg64"),
    ("1b:q6_k", "pp512 tg64"),
    ("1b:iq4_xs", "pp512 tg64"),
    ("1b:q5_k_m", "pp512 tg64"),
    ("1b:q4_0", "pp512 tg64"),
    ("1b:iq2_xs", "pp512 tg64"),
    ("1b:iq3_s", "pp512 tg64"),
    ("1b:tq2_0", "pp512 tg64"),
];

/// What fits into three minutes.
const QUICK: &[(&str, &str)] = &[("1b:q4_k_m", "pp512 tg64")];

/// The cells where nobody names models and tests.
pub(crate) fn preset(quick: bool) -> Vec<Cell> {
    let table = if quick { QUICK } else { FULL };
    table
        .iter()
        .flat_map(|(model, tests)| {
            let model: ModelSpec = model.parse().expect("the tables above are well formed");
            let tests: Vec<Test> = tests
                .split(' ')
                .map(|test| test.parse().expect("the tables above are well formed"))
                .collect();
            cells(&[model], &tests)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_and_written() {
        for text in ["pp512", "tg128", "tg64@d8192", "pp16@d1"] {
            assert_eq!(text.parse::<Test>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "pp",
            "pp0",
            "xx5",
            "tg-1",
            "tg5@",
            "tg5@dx",
            "pp5@4",
            "é512",
            "pp99999999999",
        ] {
            assert!(text.parse::<Test>().is_err(), "{text}");
        }
    }

    #[test]
    fn models_are_read() {
        let model: ModelSpec = "1b:Q4_K_M".parse().unwrap();
        assert_eq!(model.name(), "llama-3.2-1b q4_k_m");
        for text in ["", "1b", ":q4_0", "1b:"] {
            assert!(text.parse::<ModelSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn presets_are_well_formed() {
        assert!(preset(true).len() < preset(false).len());
    }
}
