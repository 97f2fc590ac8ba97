//! What each setting that makes the program fast is worth: a scenario with all of them on, and with one after the other
//! switched off.
//!
//! Speeds of a shared machine drift. So the model with all settings on stays loaded, and is measured again after each
//! of the others: a ratio is to the mean of the two measurements around it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use twinfer_engine::context::Context;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::memory::Bytes;

use super::preset::{PLAIN, PLAIN_GEN, PLAIN_PROMPT};
use super::report::table;
use super::{Kind, Test, first_token, measure, statistics};
use crate::compute::Compute;
use crate::numa::NumaMode;
use crate::output::json_f64;
use crate::progress::Progress;
use crate::settings::{ContextSettings, Settings, Verbosity, WeightSettings, WorkerSettings};
use crate::topology::Machine;
use crate::workers::Workers;
use crate::{interrupt, load, system};

/// Repetitions of each test at most: there are many tests, and neighbours in time are compared.
pub(super) const REPETITIONS: usize = 2;
/// Tokens that are written in a repetition.
const N_GEN: usize = 32;

/// What is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Off {
    Nothing,
    Mmap,
    Mlock,
    Pinning,
    /// Instead of the physical cores so many workers.
    Cores(usize),
    Populate,
    Cache,
    Kernels,
    Numa,
}

/// A row of the table, to be measured or not.
struct Switch {
    setting: &'static str,
    /// What is done with the setting on, and with it off.
    on: String,
    off: String,
    /// Or why it is not measured.
    what: Result<Off, String>,
}

/// What was measured: seconds, tokens per second, bytes.
#[derive(Debug, Clone, Copy)]
struct Found {
    load: f64,
    first_token: f64,
    speeds: Speeds,
    /// What loading, the context and the first token took of the memory.
    memory: Option<u64>,
    locked: Option<u64>,
}

/// Tokens per second.
#[derive(Debug, Clone, Copy)]
struct Speeds {
    prompt: f64,
    writing: f64,
}

/// A row that was measured: times in those with all settings on.
struct Row {
    switch: Switch,
    ratios: Option<[f64; 4]>,
    memory: Option<u64>,
}

/// The whole table.
pub(super) struct Switches {
    on: Found,
    n_prompt: usize,
    rows: Vec<Row>,
}

/// A model that is loaded, and its context.
struct Running<'a> {
    compute: Compute<'a>,
    context: Context,
}

/// What is measured, and on what.
pub(super) struct Scenario<'a> {
    pub(super) settings: &'a Settings,
    pub(super) machine: &'a Machine,
    /// The model's files, where they have names.
    pub(super) paths: Option<Vec<PathBuf>>,
    pub(super) file: &'a ModelFile,
    pub(super) n_prompt: usize,
    pub(super) batch_size: usize,
    pub(super) repetitions: usize,
}

impl Scenario<'_> {
    /// The settings, and how many workers, with one thing switched off.
    fn with(&self, off: Off) -> Result<(Settings, Workers)> {
        let given = self.settings;
        let workers = WorkerSettings {
            n: match off {
                Off::Cores(n) => Some(n),
                _ => given.workers.n,
            },
            pinning: Some(off != Off::Pinning),
            numa: match off {
                Off::Numa => NumaMode::Off,
                _ => given.workers.numa,
            },
            ..given.workers.clone()
        };
        let settings = Settings {
            // The table says what the notes would.
            verbosity: Verbosity::Quiet,
            context: ContextSettings {
                populate: off != Off::Cache,
                ..given.context
            },
            workers,
            weights: WeightSettings {
                backend: match off {
                    Off::Kernels => Some(PLAIN.into()),
                    _ => given.weights.backend.clone(),
                },
                populate: off != Off::Populate,
                mlock: off != Off::Mlock,
                ..given.weights.clone()
            },
            ..given.clone()
        };
        let workers = Workers::for_command(&settings, self.machine)?;
        Ok((settings, workers))
    }

    /// The model's file, mapped anew or read.
    fn open(&self, mapped: bool) -> Result<Option<ModelFile>> {
        let Some(paths) = &self.paths else {
            return Ok(None);
        };
        if mapped {
            return load::open(&paths[0]).map(Some);
        }
        let size: u64 = paths
            .iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|metadata| metadata.len())
            .sum();
        if let Some(free) = system::available_memory()
            && size > free
        {
            bail!(
                "{} MiB to read the file into, {} MiB of memory are free",
                size >> 20,
                free >> 20
            );
        }
        let read = |path: &PathBuf| -> Result<Bytes> {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            Ok(Bytes::from_vec(bytes))
        };
        let parts = paths.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Some(ModelFile::from_parts(parts)?))
    }

    /// Loads the model and computes a first token.
    fn start<'a>(
        &self,
        off: Off,
        (settings, workers): &'a (Settings, Workers),
    ) -> Result<(Running<'a>, Found)> {
        interrupt::check()?;
        let before = system::resident_memory();
        let locked_before = system::locked_memory();
        let begin = Instant::now();
        let opened = self.open(off != Off::Mmap)?;
        let file = opened.as_ref().unwrap_or(self.file);
        let compute = Compute::start(settings, workers)?;
        let options = compute.one_sequence(self.n_prompt + N_GEN, self.batch_size);
        let model = compute.load(compute.plan(file)?, &options)?;
        let load = begin.elapsed().as_secs_f64();
        let pinned = compute.pin_caller();
        let begin = Instant::now();
        let mut context = compute.context(&model, options)?;
        first_token(&mut context)?;
        let first_token = begin.elapsed().as_secs_f64();
        drop(pinned);
        let more = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        let found = Found {
            load,
            first_token,
            speeds: Speeds {
                prompt: 0.0,
                writing: 0.0,
            },
            memory: more(system::resident_memory(), before),
            locked: more(system::locked_memory(), locked_before),
        };
        Ok((Running { compute, context }, found))
    }

    fn speeds(&self, running: &mut Running<'_>, few: bool, progress: &mut Progress) -> Result<Speeds> {
        let _pinned = running.compute.pin_caller();
        let (n_prompt, n_gen) = if few {
            (PLAIN_PROMPT, PLAIN_GEN)
        } else {
            (self.n_prompt, N_GEN)
        };
        let prompt = Test {
            kind: Kind::Prompt(n_prompt),
            depth: 0,
        };
        let writing = Test {
            kind: Kind::Generation {
                n: n_gen,
                sequences: 1,
            },
            depth: n_prompt,
        };
        let repetitions = if few { 1 } else { self.repetitions };
        let mut speed = |test| -> Result<f64> {
            let measured = measure(&mut running.context, test, repetitions, progress)?;
            Ok(statistics(&measured.speeds()).0)
        };
        Ok(Speeds {
            prompt: speed(prompt)?,
            writing: speed(writing)?,
        })
    }

    /// All rows, with what is known of them before anything is measured.
    fn switches(&self, workers: &Workers, backend: &str) -> Vec<Switch> {
        let switch = |setting, on: &str, off: &str, what| Switch {
            setting,
            on: on.into(),
            off: off.into(),
            what,
        };
        let (cores, logical) = (workers.n, self.machine.allowed.len());
        let all_logical = if logical > cores {
            Ok(Off::Cores(logical))
        } else {
            Err("as many workers already".into())
        };
        let one = if cores > 1 {
            Ok(Off::Cores(1))
        } else {
            Err("one worker already".into())
        };
        let mmap = match &self.paths {
            Some(_) => Ok(Off::Mmap),
            None => Err("the model is no file here".into()),
        };
        let kernels = if backend == PLAIN {
            Err("there is no other backend here".into())
        } else {
            Ok(Off::Kernels)
        };
        let workers = format!("{cores} workers");
        let numa = if self.machine.usable_nodes().len() > 1 {
            Ok(Off::Numa)
        } else {
            Err("one node: all memory is near".into())
        };
        vec![
            switch("mmap", "file mapped", "file read into memory", mmap),
            switch("mlock", "weights locked", "not locked", Ok(Off::Mlock)),
            switch(
                "pinning",
                "a CPU for each worker",
                "left to the scheduler",
                Ok(Off::Pinning),
            ),
            switch("threads", &workers, "all logical CPUs", all_logical),
            switch("threads", &workers, "1 worker", one),
            switch(
                "populate",
                "mapped weights brought in",
                "as they are read",
                Ok(Off::Populate),
            ),
            switch("cache", "brought in before", "as it is filled", Ok(Off::Cache)),
            switch("kernels", backend, PLAIN, kernels),
            switch("NUMA", "placed on nodes", "wherever the system puts it", numa),
        ]
    }

    /// Measures all of it.
    pub(super) fn measure(&self, progress: &mut Progress) -> Result<Switches> {
        let on = self.with(Off::Nothing)?;
        progress.message("all settings on");
        // The first time memory is taken it costs more than later.
        drop(self.start(Off::Nothing, &on)?);
        let (mut running, mut found) = self.start(Off::Nothing, &on)?;
        progress.add(2);
        let mut before = self.speeds(&mut running, false, progress)?;
        found.speeds = before;
        let total: u64 = running
            .context
            .model()
            .weight_data()
            .iter()
            .map(|bytes| bytes.len() as u64)
            .sum();
        let backend = running.context.model().backend().name();
        let mut rows = Vec::new();
        for mut switch in self.switches(&on.1, backend) {
            if switch.what == Ok(Off::Mlock) && found.locked.is_some_and(|locked| locked < total) {
                switch.what = Err(match system::memlock_limit() {
                    Some(limit) => format!("refused: RLIMIT_MEMLOCK is {} KiB", limit >> 10),
                    None => "refused by the system".into(),
                });
            }
            let (mut ratios, mut memory) = (None, None);
            if let Ok(off) = switch.what {
                progress.message(&format!("{} off", switch.setting));
                let settings = self.with(off)?;
                let started = self.start(off, &settings);
                progress.add(1);
                match started {
                    Ok((mut other, result)) => {
                        let speeds = self.speeds(&mut other, off == Off::Kernels, progress)?;
                        drop(other);
                        let after = self.speeds(&mut running, false, progress)?;
                        let mean = |a: f64, b: f64| (a + b) / 2.0;
                        ratios = Some([
                            result.load / found.load,
                            result.first_token / found.first_token,
                            mean(before.prompt, after.prompt) / speeds.prompt,
                            mean(before.writing, after.writing) / speeds.writing,
                        ]);
                        memory = result.memory;
                        before = after;
                    }
                    Err(error) if error.is::<crate::failure::Interrupted>() => return Err(error),
                    Err(error) => switch.what = Err(format!("{error:#}")),
                }
            }
            rows.push(Row {
                switch,
                ratios,
                memory,
            });
        }
        Ok(Switches {
            on: found,
            n_prompt: self.n_prompt,
            rows,
        })
    }

    /// How often [`Self::measure`] reports progress at most.
    pub(super) fn ticks(&self) -> u64 {
        const ROWS: u64 = 8;
        let tests = 2 * (self.repetitions as u64 + 1);
        2 + tests + ROWS * (1 + 2 * tests)
    }
}

impl Switches {
    pub(super) fn markdown(&self) -> String {
        let mib = |bytes: Option<u64>| bytes.map(|bytes| (bytes >> 20).to_string()).unwrap_or_default();
        let head = [
            "switched off",
            "on",
            "off",
            "load",
            "first token",
            "prompt",
            "writing",
            "memory MiB",
        ];
        let Found {
            load,
            first_token,
            speeds,
            memory,
            ..
        } = self.on;
        let mut rows = vec![vec![
            "nothing".into(),
            String::new(),
            String::new(),
            format!("{load:.2} s"),
            format!("{:.1} ms", first_token * 1e3),
            format!("{:.2} t/s", speeds.prompt),
            format!("{:.2} t/s", speeds.writing),
            mib(memory),
        ]];
        for row in &self.rows {
            let Switch {
                setting,
                on,
                off,
                what,
            } = &row.switch;
            let mut cells = vec![setting.to_string(), on.clone(), off.clone()];
            if let Err(why) = what {
                cells[2] = why.clone();
            }
            match row.ratios {
                Some(ratios) => cells.extend(ratios.map(|ratio| format!("{ratio:.2} x"))),
                None => cells.extend(std::iter::repeat_n(String::new(), 4)),
            }
            cells.push(mib(row.memory));
            rows.push(cells);
        }
        format!(
            "settings: time with one switched off, in times of all on (prompt of {}, {N_GEN} tokens written)\n\n{}",
            self.n_prompt,
            table(&head, &[0, 1, 2], &rows)
        )
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let ratio = |i: usize| row.ratios.map(|ratios| json_f64(ratios[i]));
            json!({
                "setting": row.switch.setting,
                "on": row.switch.on,
                "off": row.switch.off,
                "not_measured": row.switch.what.as_ref().err(),
                "load_ratio": ratio(0),
                "first_token_ratio": ratio(1),
                "prompt_ratio": ratio(2),
                "writing_ratio": ratio(3),
                "memory_bytes": row.memory,
            })
        });
        json!({
            "load_s": json_f64(self.on.load),
            "first_token_s": json_f64(self.on.first_token),
            "prompt_ts": json_f64(self.on.speeds.prompt),
            "writing_ts": json_f64(self.on.speeds.writing),
            "memory_bytes": self.on.memory,
            "off": rows.collect::<Vec<_>>(),
        })
    }
}
