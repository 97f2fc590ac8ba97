//! `bench --preset`: a scenario with a name, its ratio to the plainest way to compute, the limits of named servers on
//! paper, and what each setting is worth.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::json;
use twinfer_engine::context::{Context, ContextOptions};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::Storage;
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::{LoadOptions, Model};

use super::report::{limits_line, table};
use super::switches::{self, Scenario};
use super::{Kind, Measured, Test, Wish, allowed, measure, measure_limits, random_model, sizes, statistics};
use crate::args::{BenchArgs, ReportFormat};
use crate::compute::Compute;
use crate::load::{self, ModelSource};
use crate::output::{self, json_f64};
use crate::progress::Progress;
use crate::rates;
use crate::settings::Settings;
use crate::topology::Machine;
use crate::workers::Workers;
use crate::{interrupt, system};

/// A scenario.
#[derive(Debug)]
pub(super) struct Preset {
    name: &'static str,
    shape: &'static str,
    mix: &'static str,
    n_prompt: usize,
    n_gen: usize,
}

const PRESETS: &[Preset] = &[Preset {
    name: "epyc-3b",
    shape: "llama-3.2-3b",
    mix: "q4_k_m",
    n_prompt: 128,
    n_gen: 128,
}];

/// The plain way is slow: it reads and writes fewer tokens, and speeds are compared per token.
pub(super) const PLAIN_PROMPT: usize = 8;
pub(super) const PLAIN_GEN: usize = 4;

/// The backend of the plain way.
pub(super) const PLAIN: &str = "scalar";

/// A server whose memory bandwidth is known from its data sheet: channels x megatransfers x 8 bytes.
struct Server {
    name: &'static str,
    channels: u32,
    memory: &'static str,
    megatransfers: u32,
}

const SERVERS: &[Server] = &[
    Server {
        name: "EPYC 7763",
        channels: 8,
        memory: "DDR4-3200",
        megatransfers: 3200,
    },
    Server {
        name: "EPYC 9654",
        channels: 12,
        memory: "DDR5-4800",
        megatransfers: 4800,
    },
];

impl Server {
    fn bytes_per_second(&self) -> f64 {
        f64::from(self.channels) * f64::from(self.megatransfers) * 1e6 * 8.0
    }
}

/// The preset of this name.
pub(super) fn find(name: &str) -> Result<&'static Preset> {
    match PRESETS.iter().find(|preset| preset.name == name) {
        Some(preset) => Ok(preset),
        None => {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            bail!("there is no preset `{name}`; there are {}", names.join(", "))
        }
    }
}

pub(super) fn run(
    settings: &Settings,
    workers: &Workers,
    args: &BenchArgs,
    preset: &Preset,
    format: ReportFormat,
) -> Result<()> {
    let made;
    let (name, file, paths) = match &settings.source {
        source @ ModelSource::File(path) => (
            source.to_string(),
            load::open(path)?,
            Some(load::part_paths(path)?),
        ),
        ModelSource::BuiltIn => {
            made = MadeUp::new(settings, workers, preset)?;
            (made.name.clone(), made.open()?, made.paths())
        }
    };
    let _guard = interrupt::Guard::new();
    let scenario = Scenario {
        settings,
        machine: &Machine::read(),
        paths,
        file: &file,
        n_prompt: preset.n_prompt,
        batch_size: args.batch_size,
        repetitions: args.repetitions.min(switches::REPETITIONS),
    };
    let mut progress = Progress::new("measuring", scenario.ticks(), settings.verbosity);
    let switches = scenario.measure(&mut progress)?;
    drop(progress);
    let tests = [
        Test {
            kind: Kind::Prompt(preset.n_prompt),
            depth: 0,
        },
        // The tokens follow the prompt.
        Test {
            kind: Kind::Generation {
                n: preset.n_gen,
                sequences: 1,
            },
            depth: preset.n_prompt,
        },
    ];
    let compute = Compute::start(settings, workers)?;
    let options = sizes(settings, &compute, &tests, args.batch_size)?;
    let model = compute.load(compute.plan(&file)?, &options)?;
    let mut context = compute.context(&model, options)?;
    let rounds = tests.len() * (args.repetitions + 1) + 2 * 2;
    let mut progress = Progress::new(
        "measuring",
        rounds as u64 + 2 * rates::MEASUREMENTS,
        settings.verbosity,
    );
    let mut measured = Vec::new();
    let found = {
        let _pinned = compute.pin_caller();
        let before = measure_limits(&compute, &model, &mut progress)?;
        for test in tests {
            measured.push(measure(&mut context, test, args.repetitions, &mut progress)?);
        }
        before.best(measure_limits(&compute, &model, &mut progress)?)
    };
    drop(context);
    let plain = plain(settings, workers, &file, &mut progress)?;
    drop(progress);

    let allowed = allowed(settings, &model, &file);
    let threads = workers.n;
    let backend = model.backend().name();
    let mean = |m: &Measured| statistics(&m.speeds()).0;
    let (layers, out) = allowed.work;
    let bytes = layers.bytes(1.0) + out.bytes(1.0) + allowed.cache_bytes(preset.n_prompt + preset.n_gen / 2);
    let fractions: Vec<f64> = measured
        .iter()
        .map(|m| mean(m) / m.test.allowed(&allowed, &found))
        .collect();
    let ratios: Vec<f64> = measured
        .iter()
        .zip(&plain)
        .map(|(m, plain)| mean(m) / mean(plain))
        .collect();
    let milliseconds: Vec<f64> = measured
        .iter()
        .map(|m| 1e3 * m.test.tokens() as f64 / mean(m))
        .collect();
    if let ReportFormat::Json = format {
        let results: Vec<_> = (0..measured.len())
            .map(|i| {
                json!({
                    "test": measured[i].test.name(),
                    "ms": json_f64(milliseconds[i]),
                    "avg_ts": json_f64(mean(&measured[i])),
                    "limit_fraction": json_f64(fractions[i]),
                    "plain_test": plain[i].test.name(),
                    "plain_ts": json_f64(mean(&plain[i])),
                    "ratio_to_plain": json_f64(ratios[i]),
                })
            })
            .collect();
        let servers: Vec<_> = SERVERS
            .iter()
            .map(|server| {
                json!({
                    "name": server.name,
                    "memory": format!("{} x {}", server.channels, server.memory),
                    "gb_s": json_f64(server.bytes_per_second() / 1e9),
                    "paper_limit_ts": json_f64(server.bytes_per_second() / bytes),
                })
            })
            .collect();
        return output::json(&json!({
            "preset": preset.name,
            "model": name,
            "backend": backend,
            "n_threads": threads,
            "results": results,
            "bytes_per_token": json_f64(bytes),
            "limits": found.json(),
            "servers": servers,
            "settings": switches.json(),
        }));
    }
    let rows: Vec<Vec<String>> = (0..measured.len())
        .map(|i| {
            vec![
                measured[i].test.name(),
                format!("{:.1}", milliseconds[i]),
                format!("{:.2}", mean(&measured[i])),
                format!("{:.0} %", fractions[i] * 100.0),
                format!("{:.1} x", ratios[i]),
            ]
        })
        .collect();
    let mut text = format!(
        "{}: {name}, prompt of {}, batch 1, {} tokens generated; backend {backend}, {threads} threads\n\n",
        preset.name, preset.n_prompt, preset.n_gen
    );
    text += &table(&["test", "ms", "t/s", "of limit", "to plain"], &[0], &rows);
    text.push('\n');
    text += &limits_line(&found);
    text += &format!(
        "plain: scalar backend, mapped weights, not pinned, {} and {}: {:.2} and {:.2} t/s\n\n",
        plain[0].test.name(),
        plain[1].test.name(),
        mean(&plain[0]),
        mean(&plain[1])
    );
    let rows: Vec<Vec<String>> = SERVERS
        .iter()
        .map(|server| {
            vec![
                server.name.into(),
                format!("{} x {}", server.channels, server.memory),
                format!("{:.0}", server.bytes_per_second() / 1e9),
                format!("{:.1}", server.bytes_per_second() / bytes),
            ]
        })
        .collect();
    text += &table(
        &["server, on paper", "memory", "GB/s", "t/s at most"],
        &[0, 1],
        &rows,
    );
    text.push('\n');
    text += &switches.markdown();
    output::to_stdout(&text)
}

/// The scenario's model of random weights. It is a file, so that it can be mapped and read as one, but one in memory.
struct MadeUp {
    name: String,
    /// Keeps the file, and has its path.
    file: Option<(File, PathBuf)>,
    /// Where the system has no such files.
    bytes: Option<Bytes>,
}

impl MadeUp {
    fn new(settings: &Settings, workers: &Workers, preset: &Preset) -> Result<Self> {
        let wish = Wish {
            shape: preset.shape,
            layers: None,
            mix: Some(preset.mix),
        };
        let (name, model) = random_model(settings, wish, false)?;
        let pool = workers.pool()?;
        Ok(match system::memory_file() {
            Ok((file, path)) => MadeUp {
                name,
                file: Some((model.write_to(file, &pool, settings)?, path)),
                bytes: None,
            },
            Err(_) => MadeUp {
                name,
                file: None,
                bytes: Some(Bytes::from_vec(model.in_memory(&pool, settings)?)),
            },
        })
    }

    fn open(&self) -> Result<ModelFile> {
        match (&self.file, &self.bytes) {
            (Some((_, path)), _) => load::open(path),
            (None, bytes) => Ok(ModelFile::from_parts(bytes.iter().cloned().collect())?),
        }
    }

    fn paths(&self) -> Option<Vec<PathBuf>> {
        self.file.as_ref().map(|(_, path)| vec![path.clone()])
    }
}

/// The scalar backend on mapped weights with workers left to the scheduler: what there is without this project's pains.
fn plain(
    settings: &Settings,
    workers: &Workers,
    file: &ModelFile,
    progress: &mut Progress,
) -> Result<Vec<Measured>> {
    let team = workers.start_unpinned()?;
    let options = LoadOptions {
        backend: Some(PLAIN.into()),
        storage: Storage::Mapped,
        team: Some(team.clone()),
        ..LoadOptions::default()
    };
    let model = Arc::new(Model::load(file, &options, &mut |_, _| ())?);
    let (cache_type_k, cache_type_v) = settings.context.cache;
    let options = ContextOptions {
        n_ctx: PLAIN_PROMPT + PLAIN_GEN,
        n_batch: PLAIN_PROMPT,
        cache_type_k,
        cache_type_v,
        ..ContextOptions::default()
    };
    let mut context = Context::new(model, team, options)?;
    [
        Kind::Prompt(PLAIN_PROMPT),
        Kind::Generation {
            n: PLAIN_GEN,
            sequences: 1,
        },
    ]
    .into_iter()
    .map(|kind| measure(&mut context, Test { kind, depth: 0 }, 1, progress))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paper_limits_are_those_of_the_data_sheets() {
        let found: Vec<f64> = SERVERS
            .iter()
            .map(|s| (s.bytes_per_second() / 1e9).round())
            .collect();
        assert_eq!(found, [205.0, 461.0]);
        assert_eq!(find("epyc-3b").unwrap().n_prompt, 128);
        assert!(find("epyc-4b").unwrap_err().to_string().contains("epyc-3b"));
    }
}
