//! `doctor`: what the machine has, what is used of it and why, its measured limits, and what they mean for a model.

mod describe;
mod layout;
mod predicted;

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use predicted::Predicted;
use serde_json::{Value, json};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::Storage;
use twinfer_engine::kernels::select;
use twinfer_engine::model::config::Config;
use twinfer_engine::model::{LoadOptions, Model};

use super::bench;
use crate::args::DoctorArgs;
use crate::compute::Compute;
use crate::numa::NumaMode;
use crate::output::{self, json_f64};
use crate::placed::Placed;
use crate::prediction::Description;
use crate::progress::Progress;
use crate::rates::{self, Allowed, BEYOND_CACHES, Rates, TokenWork};
use crate::settings::Settings;
use crate::topology::{Machine, write_list};
use crate::workers::Workers;
use crate::{interrupt, system};

/// Prompt length of the estimate.
const PROMPT: usize = 512;

/// Rows of a pass of a model that is loaded to be looked at: what matters is the cache.
const PLACED_ROWS: usize = 16;

/// The model that an estimate is of.
struct Subject {
    name: String,
    file: ModelFile,
    config: Config,
    /// Its weights are there to be read.
    with_data: bool,
}

impl Subject {
    fn find(settings: &Settings, args: &DoctorArgs) -> Result<Option<Self>> {
        let source = &settings.source;
        let (name, file, with_data) = match (&args.shape, source.path()) {
            (Some(shape), _) => {
                let (name, file) = bench::shape_of(shape, args.mix.as_deref())?;
                (name, file, false)
            }
            (None, Some(_)) => (source.to_string(), source.open()?, true),
            (None, None) => return Ok(None),
        };
        let config = Config::from_file(&file).with_context(|| format!("`{name}`"))?;
        Ok(Some(Subject {
            name,
            file,
            config,
            with_data,
        }))
    }

    fn allowed(&self, settings: &Settings) -> Allowed<'_> {
        Allowed {
            config: &self.config,
            work: TokenWork::of(&self.file, &self.config),
            cache: settings.context.cache,
        }
    }
}

pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> Result<()> {
    if args.describe {
        return describe::run(settings, args);
    }
    let model = Subject::find(settings, args)?;
    if let Some(path) = &args.machine {
        let Some(model) = &model else {
            return predicted::needs_a_model();
        };
        let predicted = Predicted {
            machine: &Description::read(path)?,
            model: &model.name,
            size: rates::size(&model.file),
            allowed: model.allowed(settings),
            depth: args.depth,
        };
        return if args.json {
            output::json(&predicted.json())
        } else {
            output::to_stdout(&predicted.text())
        };
    }
    let machine = &Machine::read();
    let workers = Workers::for_command(settings, machine)?;
    let backend = select::choose(settings.weights.backend.as_deref())?;
    let found = Found::look(machine, &workers);
    let (mut packed, mut mapped) = (None, None);
    if !args.no_measure {
        let compute = Compute::start(settings, &workers)?;
        let team = compute.team();
        let _pinned = compute.pin_caller();
        let _guard = interrupt::Guard::new();
        let data = model.as_ref().filter(|model| model.with_data);
        let ticks = rates::MEASUREMENTS * if data.is_some() { 2 } else { 1 };
        let mut progress = Progress::new("measuring", ticks, settings.verbosity);
        let memory = rates::buffer(team, compute.memory())?;
        packed = Some(rates::measure(team, backend, &[memory], &mut || progress.add(1))?);
        if let Some(model) = data {
            // Mapped: nothing is copied, and the pages that are read are the file's own.
            let options = LoadOptions {
                backend: settings.weights.backend.clone(),
                storage: Storage::Mapped,
                team: Some(team.clone()),
                ..LoadOptions::default()
            };
            let model = Arc::new(Model::load(&model.file, &options, &mut |_, _| ())?);
            mapped = Some(rates::measure(team, backend, &model.weight_data(), &mut || {
                progress.add(1)
            })?);
        }
    }
    let estimate = model.as_ref().map(|model| Estimate {
        name: &model.name,
        size: rates::size(&model.file),
        allowed: model.allowed(settings),
        depth: args.depth,
        packed,
        mapped,
    });
    let placed = match &model {
        // Loading takes as long as the model is large: only who names a mode asks for it.
        Some(model)
            if model.with_data && settings.workers.numa != NumaMode::Auto && workers.numa.nodes.is_some() =>
        {
            placed(settings, &workers, &model.file)?
        }
        _ => None,
    };
    let report = Report {
        found,
        placed,
        backend: backend.name(),
        forced: settings
            .weights
            .backend
            .as_deref()
            .is_some_and(|name| name != "auto"),
        asks_for_nodes: !matches!(settings.workers.numa, NumaMode::Auto | NumaMode::Off),
        limits: packed,
        estimate,
    };
    if args.json {
        output::json(&report.json())
    } else {
        output::to_stdout(&report.text())
    }
}

/// Loads the model and looks where it lies.
fn placed(settings: &Settings, workers: &Workers, file: &ModelFile) -> Result<Option<Placed>> {
    let compute = Compute::start(settings, workers)?;
    let planned = compute.plan(file)?;
    let options = compute.one_sequence(compute.context_size(planned.config()), PLACED_ROWS);
    let model = compute.load(planned, &options)?;
    let context = compute.context(&model, options)?;
    Ok(compute.placed(&context))
}

/// What there is to see without measuring.
struct Found<'a> {
    cpu: String,
    features: Vec<&'static str>,
    machine: &'a Machine,
    workers: &'a Workers,
    memory: Option<(u64, u64)>,
    huge_pages: Option<String>,
    memlock: Option<u64>,
}

impl<'a> Found<'a> {
    fn look(machine: &'a Machine, workers: &'a Workers) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let meminfo = read("/proc/meminfo");
        Found {
            cpu: model
                .map_or("unknown CPU", |name| name.trim_start_matches([' ', '\t', ':']))
                .into(),
            features: features(),
            machine,
            workers,
            memory: system::available_memory().zip(system::field(&meminfo, "MemTotal")),
            huge_pages: system::huge_page_mode(),
            memlock: system::memlock_limit(),
        }
    }
}

/// CPU features that kernels are or could be made of, as far as this machine has them.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! found {
            ($($name:tt)*) => {
                [$(($name, std::arch::is_x86_feature_detected!($name))),*]
            };
        }
        let all = found!("sse4.2" "avx" "f16c" "fma" "avx2" "avxvnni" "avx512f" "avx512bw" "avx512dq" "avx512vl"
                         "avx512vbmi" "avx512vnni" "avx512bf16" "avx512fp16");
        let all = all.into_iter().chain(tile_features());
        all.filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// Those of AMX, for which the standard library has no test: bits of edx in leaf 7 of CPUID. Whether the system keeps
/// the tiles is said where the backends are.
#[cfg(target_arch = "x86_64")]
fn tile_features() -> [(&'static str, bool); 3] {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let leaf_7 = match __cpuid(0).eax {
        0..7 => 0,
        _ => __cpuid_count(7, 0).edx,
    };
    [("amx-bf16", 22), ("amx-tile", 24), ("amx-int8", 25)].map(|(name, bit)| (name, leaf_7 >> bit & 1 == 1))
}

/// A model and what the limits allow it.
struct Estimate<'a> {
    name: &'a str,
    /// Parameters, and bytes of the file's tensors.
    size: (f64, f64),
    allowed: Allowed<'a>,
    depth: usize,
    packed: Option<Rates>,
    mapped: Option<Rates>,
}

struct Report<'a> {
    found: Found<'a>,
    placed: Option<Placed>,
    backend: &'static str,
    forced: bool,
    /// A mode of `--numa` was named.
    asks_for_nodes: bool,
    limits: Option<Rates>,
    estimate: Option<Estimate<'a>>,
}

/// Lines of a name and text, aligned; a name stands once.
#[derive(Default)]
struct Table(String);

impl Table {
    fn line(&mut self, name: &str, text: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{}", format!("{name:<10} {text}").trim_end());
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// A number of `units`, each a thousand of the one before: the largest of which there is a tenth.
fn scaled(n: f64, units: [&str; 2]) -> String {
    if n < 1e8 {
        format!("{:.2} {}", n / 1e6, units[0])
    } else {
        format!("{:.2} {}", n / 1e9, units[1])
    }
}

fn bytes(n: f64) -> String {
    scaled(n, ["MB", "GB"])
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut t = Table::default();
        let found = &self.found;
        t.line("cpu", &found.cpu);
        let machine = found.machine;
        layout::text(machine, &mut t);
        t.line("features", found.features.join(" "));
        let mut name = "backends";
        for known in select::known() {
            let state = if known.name != self.backend {
                match known.lacking.as_slice() {
                    [] => "available".into(),
                    lacking => format!("missing: this machine lacks {}", lacking.join(", ")),
                }
            } else if self.forced {
                "used: --backend asks for it".into()
            } else {
                "used: the fastest one that this CPU can run".into()
            };
            t.line(name, format_args!("{:<8} {state}", known.name));
            name = "";
        }
        let quota = match machine.quota {
            Some(quota) => format!("the control group allows the time of {quota:.2} CPUs"),
            None => "no limit of time by a control group".into(),
        };
        t.line(
            "threads",
            format_args!(
                "{}; this process may use CPUs {}; {quota}",
                found.workers.n,
                match machine.allowed.as_slice() {
                    [] => "unknown".into(),
                    allowed => write_list(allowed),
                }
            ),
        );
        if let Some(cpus) = &machine.cpuset.cpus {
            let nodes = machine.cpuset.nodes.as_deref().unwrap_or(&[]);
            t.line(
                "",
                format_args!(
                    "the control group's cpuset: CPUs {}, memory of nodes {}",
                    write_list(cpus),
                    write_list(nodes)
                ),
            );
        }
        t.line("", layout::pins(found.workers));
        if let Some(placed) = &self.placed {
            t.line("numa", placed.text());
        } else if self.asks_for_nodes && found.workers.numa.nodes.is_none() {
            t.line(
                "numa",
                "there are no two nodes to use: --numa makes no difference here",
            );
        } else if self.asks_for_nodes && found.workers.pins.is_err() && found.workers.node_ids.len() > 1 {
            t.line(
                "numa",
                "workers that are not pinned have no node of their own: --numa places nothing",
            );
        }
        if let Some((free, total)) = found.memory {
            t.line("memory", format_args!("{} free of {}", gib(free), gib(total)));
        }
        t.line(
            if found.memory.is_some() { "" } else { "memory" },
            format_args!(
                "huge pages: {}; may be locked (ulimit -l): {}",
                match found.huge_pages.as_deref() {
                    None => "unknown",
                    Some("never") => "never (packed weights are slower; set `madvise`)",
                    Some(mode) => mode,
                },
                match found.memlock {
                    Some(limit) => format!("{} KiB", limit >> 10),
                    None => "all".into(),
                }
            ),
        );
        if let Some(limits) = &self.limits {
            t.line(
                "limits",
                format_args!(
                    "int8 dot product    {:>8.1} GMAC/s  {} backend, {}",
                    limits.dot / 1e9,
                    self.backend,
                    plural(found.workers.n, "thread")
                ),
            );
            if let Some(rate) = limits.tile_dot {
                t.line("", format_args!("int8 tile product   {:>8.1} GMAC/s", rate / 1e9));
            }
            t.line(
                "",
                format_args!("f32 multiply + add  {:>8.1} GMAC/s", limits.multiply_add / 1e9),
            );
            t.line("", read_line(limits));
        }
        if let Some(estimate) = &self.estimate {
            estimate.text(&mut t, found.memory);
        }
        t.0
    }

    fn json(&self) -> Value {
        let found = &self.found;
        let machine = found.machine;
        let backends: Vec<Value> = select::known()
            .iter()
            .map(|known| {
                json!({
                    "name": known.name,
                    "available": known.backend.is_some(),
                    "lacking": known.lacking,
                    "used": known.name == self.backend,
                })
            })
            .collect();
        json!({
            "cpu": found.cpu,
            "cores": machine.cores(),
            "cpus": machine.cpus.len(),
            "numa_nodes": machine.nodes.len(),
            "topology": layout::json(machine),
            "features": found.features,
            "backends": backends,
            "threads": found.workers.n,
            "allowed_cpus": machine.allowed,
            "allowed_nodes": machine.allowed_nodes,
            "cgroup_cpus": machine.quota.map(json_f64),
            "pinned_to": found.workers.pins.as_ref().ok(),
            "worker_nodes": found.workers.nodes,
            "worker_node_ids": found.workers.node_ids,
            "not_pinned_because": found.workers.pins.as_ref().err(),
            "numa": self.placed.as_ref().map(Placed::json),
            "memory_free": found.memory.map(|m| m.0),
            "memory_total": found.memory.map(|m| m.1),
            "huge_pages": found.huge_pages,
            "memlock_limit": found.memlock,
            "limits": self.limits.as_ref().map(Rates::json),
            "model": self.estimate.as_ref().map(Estimate::json),
        })
    }
}

fn read_line(limits: &Rates) -> String {
    format!(
        "memory read         {:>8.1} GB/s    {} MiB, {}{}",
        limits.read / 1e9,
        limits.bytes >> 20,
        limits.pattern,
        if limits.bytes < BEYOND_CACHES {
            " (little enough to be partly in caches)"
        } else {
            ""
        }
    )
}

impl Estimate<'_> {
    fn text(&self, t: &mut Table, memory: Option<(u64, u64)>) {
        let (layers, output) = self.allowed.work;
        t.line("model", self.name);
        t.line(
            "",
            format_args!(
                "{}, {} parameters, {}; a token reads {} of them for {} multiplications",
                self.allowed.config.arch,
                scaled(self.size.0, ["M", "B"]),
                bytes(self.size.1),
                bytes(layers.bytes(1.0) + output.bytes(1.0)),
                scaled(layers.multiplications() + output.multiplications(), ["M", "G"]),
            ),
        );
        if !self.allowed.config.writes_text() {
            return self.vectors(t, memory);
        }
        t.line(
            "",
            format_args!(
                "keys and values: {:.1} KiB a position, {} at {} tokens{}",
                self.allowed.cache_bytes(1) / 1024.0,
                bytes(self.allowed.cache_bytes(self.depth)),
                self.depth,
                match self.allowed.config.state_bytes() {
                    0 => String::new(),
                    bytes => format!(
                        "; states: {:.1} MiB a sequence",
                        bytes as f64 / f64::from(1 << 20)
                    ),
                }
            ),
        );
        self.too_large(t, memory);
        for (name, limits) in [("packed", &self.packed), ("mapped", &self.mapped)] {
            let Some(limits) = limits else { continue };
            t.line(
                "",
                format_args!(
                    "{name}: at most {:.0} tokens/s of a prompt of {PROMPT}; {:.1} tokens/s written, {:.1} after {} tokens",
                    self.allowed.prefill(limits, PROMPT),
                    self.allowed.decode(limits, 0, 1),
                    self.allowed.decode(limits, self.depth, 1),
                    self.depth
                ),
            );
        }
        if let Some(mapped) = &self.mapped {
            t.line("", format_args!("mapped {}", read_line(mapped)));
        }
    }

    /// Of a model that makes vectors: it writes no token, and keeps nothing of a text for another one.
    fn vectors(&self, t: &mut Table, memory: Option<(u64, u64)>) {
        self.too_large(t, memory);
        for (name, limits) in [("packed", &self.packed), ("mapped", &self.mapped)] {
            let Some(limits) = limits else { continue };
            let speed = self.allowed.prefill(limits, self.prompt());
            t.line(
                "",
                format_args!(
                    "{name}: at most {speed:.0} tokens/s of texts of {} tokens",
                    self.prompt()
                ),
            );
        }
        if let Some(mapped) = &self.mapped {
            t.line("", format_args!("mapped {}", read_line(mapped)));
        }
    }

    fn too_large(&self, t: &mut Table, memory: Option<(u64, u64)>) {
        if let Some((_, memory)) = memory.filter(|(_, memory)| self.size.1 > *memory as f64) {
            t.line(
                "",
                format_args!("it is larger than this machine's memory of {}", gib(memory)),
            );
        }
    }

    /// Tokens of the prompt, or of a text of which a vector is made: of those, a model takes no more than it was
    /// trained with.
    fn prompt(&self) -> usize {
        let config = self.allowed.config;
        if config.writes_text() {
            PROMPT
        } else {
            PROMPT.min(config.n_ctx_train.max(1))
        }
    }

    fn json(&self) -> Value {
        let (layers, output) = self.allowed.work;
        let allowed = |limits: &Rates| {
            let written = |depth| {
                let config = self.allowed.config;
                config
                    .writes_text()
                    .then(|| json_f64(self.allowed.decode(limits, depth, 1)))
            };
            json!({
                "limits": limits.json(),
                "prompt_tokens": self.prompt(),
                "prompt_tokens_per_second": json_f64(self.allowed.prefill(limits, self.prompt())),
                "generated_tokens_per_second": written(0),
                "generated_tokens_per_second_at_depth": written(self.depth),
            })
        };
        json!({
            "name": self.name,
            "arch": self.allowed.config.arch,
            "parameters": json_f64(self.size.0),
            "weight_bytes": json_f64(self.size.1),
            "weight_bytes_per_token": json_f64(layers.bytes(1.0) + output.bytes(1.0)),
            "multiplications_per_token": json_f64(layers.multiplications() + output.multiplications()),
            "state_bytes_per_sequence": self.allowed.config.state_bytes(),
            "cache_bytes_per_position": json_f64(self.allowed.cache_bytes(1)),
            "depth": self.depth,
            "cache_bytes_at_depth": json_f64(self.allowed.cache_bytes(self.depth)),
            "packed": self.packed.as_ref().map(allowed),
            "mapped": self.mapped.as_ref().map(allowed),
        })
    }
}
