//! What is measured: models (a shape and a type), tests, and how they are written on the command line.

use std::str::FromStr;

/// A model of random weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelSpec {
    /// As `twinfer bench --shape` takes it.
    pub(crate) shape: String,
    /// The first layers only, of models that do not fit: `--layers`.
    pub(crate) layers: Option<usize>,
    /// As `--type` takes it, or a type that has no quantizer (see `models.rs`).
    pub(crate) ty: String,
}

impl ModelSpec {
    /// For tables: `llama-3.2-1b q4_k_m`.
    pub(crate) fn name(&self) -> String {
        match self.layers {
            None => format!("{} {}", self.shape, self.ty),
            Some(1) => format!("{} (1 layer) {}", self.shape, self.ty),
            Some(n) => format!("{} ({n} layers) {}", self.shape, self.ty),
        }
    }

    /// Whether its weights are floats, which no product of integers multiplies.
    pub(crate) fn is_float(&self) -> bool {
        matches!(&*self.ty, "f32" | "f16" | "bf16")
    }
}

impl FromStr for ModelSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shape, ty) = text
            .split_once(':')
            .filter(|(shape, ty)| !shape.is_empty() && !ty.is_empty())
            .ok_or("expected SHAPE:TYPE, such as llama-3.2-1b:q4_k_m")?;
        let (shape, layers) = match shape.split_once('/') {
            None => (shape, None),
            Some((shape, layers)) => match layers.parse() {
                Ok(n) if n > 0 => (shape, Some(n)),
                _ => return Err("expected SHAPE/LAYERS:TYPE, such as qwen3-30b-a3b/6:q4_k_m".into()),
            },
        };
        // The usual two have short names.
        let shape = match shape {
            "1b" => "llama-3.2-1b",
            "3b" => "llama-3.2-3b",
            other => other,
        };
        Ok(ModelSpec {
            shape: shape.to_ascii_lowercase(),
            layers,
            ty: ty.to_ascii_lowercase(),
        })
    }
}

/// What is done with tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `pp`: they are read at once.
    Prompt,
    /// `tg`: they are written one by one.
    Writing,
    /// `em`: they are texts, and an encoder makes a vector of each.
    Texts,
}

/// One kind of work, named as `twinfer bench` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) kind: Kind,
    /// Tokens of each sequence or text.
    pub(crate) n: usize,
    /// Sequences that write together, or texts; a prompt is read by one.
    pub(crate) sequences: usize,
    /// Tokens that stand before, in each sequence.
    pub(crate) depth: usize,
}

/// Tokens are numbered in 32 bits everywhere; this is beyond any context.
const MOST: usize = 1 << 24;

/// llama.cpp's limit.
pub(crate) const MOST_SEQUENCES: usize = 256;
/// As `twinfer bench --parallel` takes them.
const MOST_TEXTS: usize = 4096;

impl FromStr for Test {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As it is printed, or without the blanks.
        let text = text.replace(' ', "");
        let parse = || {
            let (kind, rest) = text.split_at_checked(2)?;
            let (rest, depth) = rest.split_once("@d").unwrap_or((rest, "0"));
            let (n, sequences) = rest.split_once('x').unwrap_or((rest, "1"));
            let test = Test {
                kind: match kind {
                    "pp" => Kind::Prompt,
                    "tg" => Kind::Writing,
                    "em" => Kind::Texts,
                    _ => return None,
                },
                n: n.parse().ok()?,
                sequences: sequences.parse().ok()?,
                depth: depth.parse().ok()?,
            };
            let (most, deepest) = match test.kind {
                Kind::Prompt => (1, MOST),
                Kind::Writing => (MOST_SEQUENCES, MOST),
                Kind::Texts => (MOST_TEXTS, 0),
            };
            let in_range =
                test.n > 0 && test.n <= MOST && test.depth <= deepest && (1..=most).contains(&test.sequences);
            in_range.then_some(test)
        };
        parse().ok_or_else(|| {
            format!(
                "expected ppN, tgN, or tgNxS of S sequences (at most {MOST_SEQUENCES}), maybe with a depth: tg64@d4096; \
                 or emNxS, S texts of an encoder (at most {MOST_TEXTS})"
            )
        })
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Prompt => "pp",
            Kind::Writing => "tg",
            Kind::Texts => "em",
        };
        write!(f, "{kind}{}", self.n)?;
        if self.sequences > 1 {
            write!(f, " x {}", self.sequences)?;
        }
        if self.depth > 0 {
            write!(f, " @ d{}", self.depth)?;
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

/// The tests, where each writing one that names no number of sequences is done with each of these numbers.
pub(crate) fn together(tests: &[Test], numbers: &[usize]) -> Vec<Test> {
    let with = |&test: &Test| {
        if test.kind != Kind::Writing || test.sequences > 1 || numbers.is_empty() {
            return vec![test];
        }
        let of = |&sequences: &usize| Test { sequences, ..test };
        numbers.iter().map(of).collect()
    };
    tests.iter().flat_map(with).collect()
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
    ("1b:q4_k_m", TOGETHER),
    ("3b:q4_k_m", TOGETHER),
];

/// Many sequences, and one of them alone, of which they are multiples.
const TOGETHER: &str = "tg32 tg32x2 tg32x4 tg32x8 tg32x16 tg32x32 tg32@d4096 tg32x4@d4096";

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
        for text in [
            "pp512",
            "tg128",
            "tg64 @ d8192",
            "pp16 @ d1",
            "tg32 x 8",
            "tg32 x 4 @ d4096",
            "em64 x 256",
        ] {
            let test: Test = text.parse().unwrap();
            assert_eq!(test.to_string(), text);
            assert_eq!(text.replace(' ', "").parse(), Ok(test));
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
            "pp5x2",
            "tg5x",
            "tg5x0",
            "tg5x257",
            "tg5@d4x2",
            "em5@d4",
            "em5x4097",
            "é512",
            "pp99999999999",
        ] {
            assert!(text.parse::<Test>().is_err(), "{text}");
        }
    }

    #[test]
    fn writing_tests_are_done_with_each_number() {
        let tests: Vec<Test> = ["pp8", "tg4@d16", "tg2x3"].map(|t| t.parse().unwrap()).into();
        let names: Vec<String> = together(&tests, &[1, 4]).iter().map(Test::to_string).collect();
        assert_eq!(names, ["pp8", "tg4 @ d16", "tg4 x 4 @ d16", "tg2 x 3"]);
        assert_eq!(together(&tests, &[]), tests);
    }

    #[test]
    fn models_are_read() {
        let model: ModelSpec = "1b:Q4_K_M".parse().unwrap();
        assert_eq!(model.name(), "llama-3.2-1b q4_k_m");
        let model: ModelSpec = "qwen3-30b-a3b/6:q4_0".parse().unwrap();
        assert_eq!(model.name(), "qwen3-30b-a3b (6 layers) q4_0");
        for text in ["", "1b", ":q4_0", "1b:", "1b/:q4_0", "1b/0:q4_0", "1b/x:q4_0"] {
            assert!(text.parse::<ModelSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn presets_are_well_formed() {
        assert!(preset(true).len() < preset(false).len());
    }
}
