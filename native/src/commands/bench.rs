//! `bench`: tokens per second, of a model or of a model's shape.

mod shapes;
mod synthetic;

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use twinfer_engine::context::Context;
use twinfer_engine::gguf::{Bytes, ModelFile};
use twinfer_engine::model::Model;

use crate::args::{BenchArgs, BenchOutput, GlobalArgs, ReportFormat};
use crate::failure::Usage;
use crate::output::{self, json_f64, note};
use crate::progress::Progress;
use crate::{interrupt, load};

const N_BATCH: usize = 512;

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Test {
    /// Reading a prompt of this many tokens.
    Prompt(usize),
    /// Writing this many tokens, one by one, from an empty context.
    Generation(usize),
}

impl Test {
    fn tokens(self) -> usize {
        match self {
            Test::Prompt(n) | Test::Generation(n) => n,
        }
    }

    /// llama-bench's names.
    fn name(self) -> String {
        match self {
            Test::Prompt(n) => format!("pp{n}"),
            Test::Generation(n) => format!("tg{n}"),
        }
    }
}

/// A test and the seconds of each repetition.
struct Measured {
    test: Test,
    seconds: Vec<f64>,
}

impl Measured {
    fn speeds(&self) -> Vec<f64> {
        let n = self.test.tokens() as f64;
        self.seconds.iter().map(|s| n / s).collect()
    }
}

/// Mean and standard deviation of a sample; no deviation for a single value.
fn statistics(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().fold(0.0, |sum, x| sum + x) / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares = values.iter().fold(0.0, |sum, x| sum + (x - mean) * (x - mean));
    (mean, (squares / (n - 1.0)).sqrt())
}

pub(super) fn run(global: &GlobalArgs, args: &BenchArgs) -> Result<()> {
    if args.shape.as_deref() == Some("list") {
        return output::to_stdout(&shapes::list());
    }
    let mut format = ReportFormat::Markdown;
    let mut target = None;
    for output in &args.output {
        match output {
            BenchOutput::Report(report) => format = *report,
            BenchOutput::File(path) => target = Some(path.as_path()),
        }
    }
    if target.is_some() && args.shape.is_none() {
        return Err(Usage("-o FILE.gguf makes a model of random weights and needs --shape".into()).into());
    }
    let tests: Vec<Test> = args
        .n_prompt
        .iter()
        .map(|&n| Test::Prompt(n))
        .chain(args.n_gen.iter().map(|&n| Test::Generation(n)))
        .filter(|test| test.tokens() > 0)
        .collect();
    if tests.is_empty() && target.is_none() {
        return Err(Usage("there is nothing to measure; give -p or -n a number above 0".into()).into());
    }

    let (name, file) = match &args.shape {
        None => (load::display_name(global), load::model_file(global)?),
        Some(shape) => {
            let shape = shapes::find(shape)?;
            load::init_pool(global)?;
            // The same weights each time, unless others are asked for: speeds do not depend on them.
            let seed = u32::try_from(global.seed).unwrap_or(0);
            let name = format!("{} {} (random weights)", shape.name, args.mix);
            let model = synthetic::Synthetic::new(shape, &args.mix, seed)?;
            match target {
                Some(path) => {
                    model.write_file(path, global.quiet)?;
                    if !global.quiet {
                        note(&format!(
                            "random weights of {} written to `{}`",
                            shape.name,
                            path.display()
                        ));
                    }
                    (name, load::open(path)?)
                }
                None => {
                    let bytes = model.in_memory(global.quiet)?;
                    (name, ModelFile::from_parts(vec![Bytes::from_vec(bytes)])?)
                }
            }
        }
    };
    if tests.is_empty() {
        return Ok(());
    }
    let model = load::model(global, &file)?;
    let longest = tests.iter().map(|test| test.tokens()).max().unwrap_or(1);
    if global.ctx_size != 0 && global.ctx_size < longest {
        bail!(
            "a test of {longest} tokens does not fit into --ctx-size {}",
            global.ctx_size
        );
    }
    let mut context = load::context(global, &model, longest, N_BATCH)?;

    let _guard = interrupt::Guard::new();
    let mut measured = Vec::new();
    let steps = tests.len() * (args.repetitions + 1);
    let mut progress = Progress::new("measuring", steps as u64, global.quiet);
    for test in tests {
        progress.message(&test.name());
        let mut seconds = Vec::new();
        for repetition in 0..=args.repetitions {
            let time = measure(&mut context, test)?;
            // The first one fills caches and does not count.
            if repetition > 0 {
                seconds.push(time);
            }
            progress.add(1);
        }
        measured.push(Measured { test, seconds });
    }
    drop(progress);
    match format {
        ReportFormat::Markdown => output::to_stdout(&markdown(global, &name, &model, &measured)),
        ReportFormat::Json => output::json(&report(global, &name, &model, &measured)),
    }
}

/// Tokens spread over the vocabulary: real prompts are not one token repeated.
fn token(i: usize, n_vocab: usize) -> u32 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed % n_vocab.max(1) as u64) as u32
}

/// Runs a test once; seconds.
fn measure(context: &mut Context, test: Test) -> Result<f64> {
    let n_vocab = context.model().config().n_vocab;
    let tokens: Vec<u32> = (0..test.tokens()).map(|i| token(i, n_vocab)).collect();
    let mut sequence = context.new_sequence();
    let start = Instant::now();
    match test {
        Test::Prompt(_) => {
            for step in tokens.chunks(N_BATCH) {
                interrupt::check()?;
                context.prefill(&mut sequence, step)?;
            }
        }
        Test::Generation(_) => {
            for &token in &tokens {
                interrupt::check()?;
                context.decode(&mut sequence, token)?;
            }
        }
    }
    Ok(start.elapsed().as_secs_f64())
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

fn markdown(global: &GlobalArgs, name: &str, model: &Model, measured: &[Measured]) -> String {
    let head = ["model", "size", "params", "backend", "threads", "test", "t/s"];
    let rows: Vec<[String; 7]> = measured
        .iter()
        .map(|m| {
            let (mean, deviation) = statistics(&m.speeds());
            [
                name.replace('|', "\\|"),
                size(model.weight_bytes()),
                params(model.parameters()),
                model.backend().name().into(),
                load::threads(global).to_string(),
                m.test.name(),
                format!("{mean:.2} ± {deviation:.2}"),
            ]
        })
        .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|i| {
            rows.iter()
                .map(|r| r[i].chars().count())
                .chain([head[i].len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    // Numbers stand to the right, as in llama-bench's table.
    let left = |i: usize| i == 0 || i == 3;
    let line = |cells: Vec<&str>| {
        let cells: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, w))| {
                if left(i) {
                    format!("{cell:<w$}")
                } else {
                    format!("{cell:>w$}")
                }
            })
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut out = line(head.to_vec());
    let rules: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(i, w)| {
            if left(i) {
                "-".repeat(w + 2)
            } else {
                format!("{}:", "-".repeat(w + 1))
            }
        })
        .collect();
    out += &format!("|{}|\n", rules.join("|"));
    for row in &rows {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

fn report(global: &GlobalArgs, name: &str, model: &Model, measured: &[Measured]) -> Value {
    let results: Vec<Value> = measured
        .iter()
        .map(|m| {
            let speeds = m.speeds();
            let (mean, deviation) = statistics(&speeds);
            let (prompt, generated) = match m.test {
                Test::Prompt(n) => (n, 0),
                Test::Generation(n) => (0, n),
            };
            json!({
                "model": name,
                "model_size": model.weight_bytes(),
                "model_n_params": model.parameters(),
                "arch": model.config().arch,
                "backend": model.backend().name(),
                "n_threads": load::threads(global),
                "test": m.test.name(),
                "n_prompt": prompt,
                "n_gen": generated,
                "avg_ts": json_f64(mean),
                "stddev_ts": json_f64(deviation),
                "samples_ts": speeds.iter().map(|&s| json_f64(s)).collect::<Vec<_>>(),
                "samples_s": m.seconds.iter().map(|&s| json_f64(s)).collect::<Vec<_>>(),
            })
        })
        .collect();
    Value::Array(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation() {
        assert_eq!(statistics(&[4.0]), (4.0, 0.0));
        let (mean, deviation) = statistics(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean, 2.5);
        assert!((deviation - 1.290_994_448_7).abs() < 1e-9);
    }

    #[test]
    fn tokens_stay_in_the_vocabulary() {
        for n_vocab in [1, 2, 512, 128_256] {
            assert!((0..1000).all(|i| (token(i, n_vocab) as usize) < n_vocab));
        }
        let distinct: std::collections::BTreeSet<u32> = (0..500).map(|i| token(i, 32_000)).collect();
        assert!(distinct.len() > 450);
    }
}
