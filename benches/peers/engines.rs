//! Running one measurement: each in a process of its own, so that no engine inherits another's memory or threads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;
use twinfer_benches::run;

use crate::plan::{Kind, Test};
use crate::setup;

/// An engine to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// llama.cpp, built for this machine.
    LlamaCpp,
    /// llama.cpp with AVX2 and FMA at most.
    LlamaCppAvx2,
    /// ONNX Runtime, for BERT's encoders: in f32, whatever the file's type is.
    OnnxRuntime,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::LlamaCpp => "llama.cpp",
            Peer::LlamaCppAvx2 => "llama.cpp-avx2",
            Peer::OnnxRuntime => "onnxruntime",
        }
    }
}

impl ValueEnum for Peer {
    fn value_variants<'a>() -> &'a [Self] {
        &[Peer::LlamaCpp, Peer::LlamaCppAvx2, Peer::OnnxRuntime]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

/// What holds for every measurement of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) threads: usize,
    /// twinfer's `--backend`.
    pub(crate) backend: Option<String>,
    /// `f16` or `q8_0`, keys and values.
    pub(crate) cache_type: String,
    /// Where llama.cpp's filled caches are kept between processes.
    pub(crate) states: PathBuf,
}

impl Settings {
    /// Bytes per number in the cache.
    pub(crate) fn cache_bytes(&self) -> f64 {
        match self.cache_type.as_str() {
            "q8_0" => 34.0 / 32.0,
            _ => 2.0,
        }
    }
}

/// An engine that can be started.
#[derive(Debug, Clone)]
pub(crate) enum Engine {
    Twinfer(PathBuf),
    /// The peer and the Python that has it.
    Peer(Peer, PathBuf),
}

/// Settings that only some engines have: each is measured at its best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Plain,
    FlashAttention(bool),
}

/// A finished measurement.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Tokens per second, of all sequences.
    pub(crate) rate: f64,
    /// The program's whole report.
    pub(crate) report: Value,
}

impl Engine {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Engine::Twinfer(_) => "twinfer",
            Engine::Peer(peer, _) => peer.name(),
        }
    }

    /// The variants to try; the best one counts.
    pub(crate) fn variants(&self, settings: &Settings) -> &'static [Variant] {
        match self {
            Engine::Twinfer(_) | Engine::Peer(Peer::OnnxRuntime, _) => &[Variant::Plain],
            // A quantized cache of values wants flash attention.
            Engine::Peer(..) if settings.cache_type == "q8_0" => &[Variant::FlashAttention(true)],
            Engine::Peer(..) => &[Variant::FlashAttention(true), Variant::FlashAttention(false)],
        }
    }

    /// Runs a test once.
    pub(crate) fn measure(
        &self,
        model: &Path,
        test: Test,
        variant: Variant,
        settings: &Settings,
    ) -> Result<Sample> {
        let report = match self {
            Engine::Twinfer(program) => {
                let (prompt, generate) = match test.kind {
                    Kind::Prompt | Kind::Texts => (test.n, 0),
                    Kind::Writing => (0, test.n),
                };
                let mut command = twinfer(program, model, settings);
                command
                    .args(["bench", "-o", "json", "-r", "1", "--no-limits"])
                    .args(["-p", &prompt.to_string(), "-n", &generate.to_string()])
                    .args(["-d", &test.depth.to_string()]);
                // Older programs, which `--twinfer` may name, know one only.
                if test.sequences > 1 {
                    command.args(["--parallel", &test.sequences.to_string()]);
                }
                run::json(&mut command)?
            }
            Engine::Peer(Peer::OnnxRuntime, python) => {
                run::json(onnxruntime(python, model, settings).args(["--test", &test.to_string()]))?
            }
            Engine::Peer(_, python) => run::json(
                llama_cpp(python, model, variant, settings)
                    .args(["--test", &test.to_string(), "--states"])
                    .arg(&settings.states),
            )?,
        };
        let seconds = match self {
            Engine::Twinfer(_) => &report[0]["samples_s"][0],
            Engine::Peer(..) => &report["seconds"][0],
        };
        let seconds = seconds
            .as_f64()
            .filter(|&s| s > 0.0)
            .with_context(|| format!("{} reported no time", self.name()))?;
        Ok(Sample {
            rate: (test.n * test.sequences) as f64 / seconds,
            report,
        })
    }

    /// The logits of some tokens, a row per position, or their vector where they are an encoder's text; and the engine's report. A peer computes them in one of so many
    /// sequences that are written together, the others of other tokens. twinfer computes them alone: no number of its
    /// depends on what shares a pass, which its own tests prove.
    pub(crate) fn logits(
        &self,
        model: &Path,
        tokens: &[u32],
        (kind, sequences): (Kind, usize),
        output: &Path,
        settings: &Settings,
    ) -> Result<(Vec<f32>, Value)> {
        let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
        let tokens = tokens.join(",");
        let report = match self {
            Engine::Twinfer(program) if kind == Kind::Texts => {
                let vector = twinfer(program, model, settings)
                    .args(["embed", "-o", "f32", "--tokens", &tokens])
                    .stderr(std::process::Stdio::inherit())
                    .output()?;
                if !vector.status.success() {
                    bail!("twinfer embed failed ({})", vector.status);
                }
                std::fs::write(output, vector.stdout)?;
                Value::Null
            }
            Engine::Twinfer(program) => run::json(
                twinfer(program, model, settings)
                    .args(["eval", "--json", "--tokens", &tokens, "--logits"])
                    .arg(output),
            )?,
            Engine::Peer(Peer::OnnxRuntime, python) => run::json(
                onnxruntime(python, model, settings)
                    .args(["--test", "vector", "--tokens", &tokens, "--output"])
                    .arg(output),
            )?,
            Engine::Peer(_, python) => run::json(
                llama_cpp(python, model, self.variants(settings)[0], settings)
                    .args(["--test", if kind == Kind::Texts { "vector" } else { "logits" }])
                    .args(["--tokens", &tokens])
                    .args(["--sequences", &sequences.to_string(), "--output"])
                    .arg(output),
            )?,
        };
        let bytes = std::fs::read(output)?;
        if bytes.is_empty() || bytes.len() % 4 != 0 {
            bail!("{} wrote no logits", self.name());
        }
        let (values, _) = bytes.as_chunks::<4>();
        Ok((values.iter().map(|&b| f32::from_le_bytes(b)).collect(), report))
    }
}

fn twinfer(program: &Path, model: &Path, settings: &Settings) -> Command {
    let mut command = Command::new(program);
    command.arg("-m").arg(model).arg("-q");
    command.args(["-t", &settings.threads.to_string()]);
    command.args(["--cache-type-k", &settings.cache_type]);
    command.args(["--cache-type-v", &settings.cache_type]);
    if let Some(backend) = &settings.backend {
        command.args(["--backend", backend]);
    }
    command
}

fn onnxruntime(python: &Path, model: &Path, settings: &Settings) -> Command {
    let mut command = Command::new(python);
    command.arg(setup::script("onnxruntime_runner.py")).arg(model);
    command.args(["--threads", &settings.threads.to_string()]);
    command
}

fn llama_cpp(python: &Path, model: &Path, variant: Variant, settings: &Settings) -> Command {
    let mut command = Command::new(python);
    command.arg(setup::script("llama_cpp_runner.py")).arg(model);
    command.args(["--threads", &settings.threads.to_string()]);
    command.args(["--cache-type", &settings.cache_type]);
    let flash = if variant == Variant::FlashAttention(false) {
        "0"
    } else {
        "1"
    };
    command.args(["--flash-attention", flash]);
    command
}
