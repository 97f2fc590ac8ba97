//! `doctor --describe`: this machine as a description that `doctor --machine` reads, measured. So what is predicted for
//! a model can be compared with what `bench` measures of it here.
//!
//! Rates are those of `doctor`, a hand-over is that of operations of nothing. The rest comes from models that run: what
//! lies between two operations from the built-in model, which is so small that little else takes time, and the parts
//! of the rates that kernels reach from a model that is far larger than all caches.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::{Backend, Placement};
use twinfer_engine::model::config::Config;
use twinfer_engine::team::Team;

use crate::args::DoctorArgs;
use crate::commands::bench::{self, Pace, Wish};
use crate::compute::Compute;
use crate::load::ModelSource;
use crate::prediction::{Description, Mode, Pass};
use crate::progress::Progress;
use crate::rates::{self, Allowed, Rates, TokenWork};
use crate::settings::{Settings, WorkerSettings};
use crate::topology::Machine;
use crate::workers::Workers;
use crate::{interrupt, output};

/// The model that kernels are measured with: its layers are wide enough for any team, and with as few of them it is
/// still beyond caches.
const SHAPE: &str = "llama-3.2-1b";
const LAYERS: usize = 8;

/// Tokens of a prompt and of what is written behind it, and how often.
const N_PROMPT: usize = 512;
const N_GEN: usize = 32;
const REPETITIONS: usize = 3;
/// Those of the built-in model.
const SMALL_PROMPT: usize = 8;
const SMALL_GEN: usize = 64;

/// Operations of nothing in a run, and runs, of which the median counts.
const HAND_OVERS: usize = 2000;
const RUNS: usize = 9;

/// The least and most of a part that a description may have.
const PARTS: (f64, f64) = (0.01, 1.0);

/// A model and the times that it took.
struct Ran<'a> {
    name: &'a str,
    allowed: Allowed<'a>,
    pace: Pace,
}

/// Measures the machine and writes its description.
pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> Result<()> {
    let machine = Machine::read();
    let workers = Workers::for_command(settings, &machine)?;
    let (name, file) = match settings.source.path() {
        Some(_) => (settings.source.to_string(), settings.source.open()?),
        None => {
            let (shape, layers) = match args.shape.as_deref() {
                Some(shape) => (shape, None),
                None => (SHAPE, Some(LAYERS)),
            };
            let mix = args.mix.as_deref();
            bench::made_up(settings, &workers, Wish { shape, layers, mix })?
        }
    };
    let config = Config::from_file(&file).with_context(|| format!("`{name}`"))?;
    if !config.writes_text() {
        bail!("--describe needs a model that writes text; `{name}` makes vectors");
    }
    let small = ModelSource::BuiltIn.open()?;
    let small_config = Config::from_file(&small)?;
    let _guard = interrupt::Guard::new();
    let rounds = 2 * 2 * (REPETITIONS as u64 + 1);
    let mut progress = Progress::new("measuring", rates::MEASUREMENTS + rounds, settings.verbosity);
    let mut description = of_machine(settings, (&machine, &workers), &mut progress)?;
    let small = Ran {
        name: "the built-in model",
        allowed: allowed(settings, &small, &small_config),
        pace: pace(
            settings,
            &workers,
            &small,
            (SMALL_PROMPT, SMALL_GEN),
            &mut progress,
        )?,
    };
    description.between_us = between(&description, &small);
    let large = Ran {
        name: &name,
        allowed: allowed(settings, &file, &config),
        pace: pace(settings, &workers, &file, (N_PROMPT, N_GEN), &mut progress)?,
    };
    drop(progress);
    let notes = reach(&mut description, &large);
    for note in notes {
        settings.verbosity.note(&note);
    }
    let text = text(&description, &[&small, &large]);
    // It is read as any other: what cannot be is a fault here.
    Description::parse(&text).context("what was measured is no description")?;
    output::to_stdout(&text)
}

fn allowed<'a>(settings: &Settings, file: &ModelFile, config: &'a Config) -> Allowed<'a> {
    Allowed {
        config,
        work: TokenWork::of(file, config),
        cache: settings.context.cache,
    }
}

/// How long a model takes for a prompt and for a token.
fn pace(
    settings: &Settings,
    workers: &Workers,
    file: &ModelFile,
    (n_prompt, n_gen): (usize, usize),
    progress: &mut Progress,
) -> Result<Pace> {
    let compute = Compute::start(settings, workers)?;
    let options = compute.one_sequence(n_prompt.max(n_gen), N_PROMPT);
    let model = compute.load(compute.plan(file)?, &options)?;
    let mut context = compute.context(&model, options)?;
    let _pinned = compute.pin_caller();
    bench::pace(&mut context, (n_prompt, n_gen), REPETITIONS, progress)
}

/// The mode that this command's workers run in.
fn mode_of(description: &Description) -> Mode {
    if description.nodes > 1 {
        Mode::Distribute
    } else {
        Mode::Isolate
    }
}

/// All but what models show.
fn of_machine(
    settings: &Settings,
    (machine, workers): (&Machine, &Workers),
    progress: &mut Progress,
) -> Result<Description> {
    let (sockets, nodes) = parts(machine, workers);
    let compute = Compute::start(settings, workers)?;
    let backend = twinfer_engine::kernels::select::choose(settings.weights.backend.as_deref())?;
    let rates = {
        let _pinned = compute.pin_caller();
        let memory = rates::buffer(compute.team(), compute.memory())?;
        rates::measure(compute.team(), backend, &[memory], &mut || progress.add(1))?
    };
    let n = workers.n as f64;
    let across = {
        let _pinned = compute.pin_caller();
        hand_over(compute.team())?
    };
    let (within, cross_read) = match nodes {
        1 => (across, None),
        _ => {
            let within = on_cpus(settings, machine, cpus_of_node(workers, 0), |one| {
                let _pinned = one.pin_caller();
                hand_over(one.team())
            })?;
            let cross_read = match sockets {
                1 => None,
                _ => Some(read_across(settings, machine, workers, backend)?),
            };
            (within, cross_read)
        }
    };
    Ok(Description {
        name: name(),
        paper: false,
        sockets,
        nodes,
        cores_per_node: (workers.n / nodes).max(1),
        numa: None,
        read_gb_s: rates.read / nodes as f64 / 1e9,
        cross_read_gb_s: cross_read.map(|rate| rate / 1e9),
        // A prompt takes the unit for tiles where there is one, and a token waits for the memory.
        int8_gmac_s: integer(&rates) / n / 1e9,
        f32_gmac_s: rates.multiply_add / n / 1e9,
        same_node_us: within * 1e6,
        cross_node_us: (nodes > 1).then_some(across * 1e6),
        between_us: 0.0,
        compute_reached: 1.0,
        read_reached: 1.0,
    })
}

fn integer(rates: &Rates) -> f64 {
    rates.tile_dot.unwrap_or(rates.dot)
}

fn name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    model
        .map_or("unknown CPU", |name| name.trim_start_matches([' ', '\t', ':']))
        .into()
}

/// Sockets and nodes that workers are on, where memory is divided between nodes; else one of each.
fn parts(machine: &Machine, workers: &Workers) -> (usize, usize) {
    let nodes = workers.node_ids.len();
    let (Ok(pins), Placement::Distribute | Placement::Mirror) = (&workers.pins, workers.placement()) else {
        return (1, 1);
    };
    let sockets = machine.sets(|cpu| cpu.package);
    let used = sockets
        .iter()
        .filter(|cpus| pins.iter().any(|cpu| cpus.contains(cpu)));
    match used.count() {
        0 => (1, nodes),
        // A description has as many nodes on each socket.
        used if nodes.is_multiple_of(used) => (used, nodes),
        _ => (1, nodes),
    }
}

/// The CPUs of the workers on a node, which its index among the workers' nodes names.
fn cpus_of_node(workers: &Workers, node: usize) -> Vec<usize> {
    let pins = workers.pins.as_deref().unwrap_or(&[]);
    let own = pins.iter().zip(&workers.nodes).filter(|(_, of)| **of == node);
    own.map(|(cpu, _)| *cpu).collect()
}

/// Does something with workers on these CPUs alone.
fn on_cpus<T>(
    settings: &Settings,
    machine: &Machine,
    cpus: Vec<usize>,
    run: impl FnOnce(&Compute<'_>) -> Result<T>,
) -> Result<T> {
    let settings = Settings {
        workers: WorkerSettings {
            n: Some(cpus.len()),
            cpus: Some(cpus),
            ..settings.workers.clone()
        },
        ..settings.clone()
    };
    let workers = Workers::of(&settings.workers, machine, crate::numa::Numa::OFF)?;
    run(&Compute::start(&settings, &workers)?)
}

/// Bytes per second that the first node's socket reads of memory that workers of another socket have written.
fn read_across(
    settings: &Settings,
    machine: &Machine,
    workers: &Workers,
    backend: &dyn Backend,
) -> Result<f64> {
    let pins = workers.pins.as_deref().unwrap_or(&[]);
    let sockets = machine.sets(|cpu| cpu.package);
    let of = |socket: &Vec<usize>| -> Vec<usize> {
        pins.iter().copied().filter(|cpu| socket.contains(cpu)).collect()
    };
    let mut used = sockets.iter().map(of).filter(|cpus| !cpus.is_empty());
    let (Some(readers), Some(writers)) = (used.next(), used.next()) else {
        bail!("workers are on one socket");
    };
    read_of(settings, machine, (readers, writers), backend)
}

/// Bytes per second that workers on some CPUs read of memory that workers on others have written to first.
fn read_of(
    settings: &Settings,
    machine: &Machine,
    (readers, writers): (Vec<usize>, Vec<usize>),
    backend: &dyn Backend,
) -> Result<f64> {
    let memory = on_cpus(settings, machine, writers, |far| {
        let _pinned = far.pin_caller();
        rates::buffer(far.team(), far.memory())
    })?;
    on_cpus(settings, machine, readers, |near| {
        let _pinned = near.pin_caller();
        rates::reads(near.team(), backend, &[memory], &mut || ())
    })
    .map(|(rate, _, _)| rate)
}

/// Seconds of an operation in which there is nothing to do but to take a piece for each worker.
fn hand_over(team: &Team) -> Result<f64> {
    let workers = team.workers();
    let mut seconds = Vec::with_capacity(RUNS);
    // The first run wakes the workers.
    for run in 0..=RUNS {
        interrupt::check()?;
        let start = Instant::now();
        for _ in 0..HAND_OVERS {
            team.ranges(workers, 1, |range| {
                std::hint::black_box(range);
            })?;
        }
        if run > 0 {
            seconds.push(start.elapsed().as_secs_f64() / HAND_OVERS as f64);
        }
    }
    Ok(rates::median(&mut seconds))
}

/// Microseconds between two operations: what of a small model's token is neither arithmetic nor a hand-over. Its
/// weights are in caches.
fn between(description: &Description, small: &Ran<'_>) -> f64 {
    let pass = description.decode(&small.allowed, SMALL_GEN / 2, mode_of(description));
    let operations = small.allowed.config.operations() as f64;
    let left = small.pace.token - pass.compute - pass.hand_overs;
    (left / operations * 1e6).clamp(0.0, 1e5)
}

/// Finds the parts of the rates that kernels reach; says where one is not what it was found to be.
fn reach(description: &mut Description, large: &Ran<'_>) -> Vec<String> {
    let mode = mode_of(description);
    let mut notes = Vec::new();
    let mut part = |name: &str, seconds: f64, measured: f64, pass: Pass| {
        let found = seconds / (measured - pass.hand_overs).clamp(1e-9, f64::MAX);
        if !(PARTS.0..=PARTS.1).contains(&found) {
            notes.push(format!(
                "note: {name} would be {found:.2}: other programs were at work, or the model is too small to measure \
                 it with"
            ));
        }
        found.clamp(PARTS.0, PARTS.1)
    };
    let prompt = description.prefill(&large.allowed, N_PROMPT, mode);
    description.compute_reached = part("compute_reached", prompt.compute, large.pace.prompt, prompt);
    let token = description.decode(&large.allowed, N_GEN / 2, mode);
    description.read_reached = part("read_reached", token.read, large.pace.token, token);
    notes
}

/// The description as a file.
fn text(m: &Description, ran: &[&Ran<'_>]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = format!(
        "# Measured by `twinfer doctor --describe`; docs/machine.md says what each figure is.\n\n\
         name = {}\npaper = false\nsockets = {}\nnodes = {}\ncores_per_node = {}\n\n\
         read_gb_s = {:.3}\n",
        quoted(&m.name),
        m.sockets,
        m.nodes,
        m.cores_per_node,
        m.read_gb_s
    );
    if let Some(rate) = m.cross_read_gb_s {
        out += &format!("cross_read_gb_s = {rate:.3}\n");
    }
    out += &format!(
        "int8_gmac_s = {:.3}\nf32_gmac_s = {:.3}\nsame_node_us = {:.4}\n",
        m.int8_gmac_s, m.f32_gmac_s, m.same_node_us
    );
    if let Some(time) = m.cross_node_us {
        out += &format!("cross_node_us = {time:.4}\n");
    }
    out += &format!(
        "between_us = {:.4}\n\ncompute_reached = {:.4}\nread_reached = {:.4}\n",
        m.between_us, m.compute_reached, m.read_reached
    );
    for ran in ran {
        let Pace { prompt, token, sizes } = ran.pace;
        out += &format!(
            "# {}: pp{} {:.2} t/s, tg{} {:.2} t/s\n",
            ran.name.replace(char::is_control, " "),
            sizes.0,
            sizes.0 as f64 / prompt,
            sizes.1,
            1.0 / token
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinfer_engine::cache::CacheType;

    fn machine(nodes: usize) -> Description {
        Description {
            name: "a \"CPU\" \\ 1".into(),
            paper: false,
            sockets: nodes,
            nodes,
            cores_per_node: 8,
            numa: None,
            read_gb_s: 50.0,
            cross_read_gb_s: (nodes > 1).then_some(40.0),
            int8_gmac_s: 100.0,
            f32_gmac_s: 10.0,
            same_node_us: 1.5,
            cross_node_us: (nodes > 1).then_some(3.25),
            between_us: 2.125,
            compute_reached: 0.625,
            read_reached: 0.875,
        }
    }

    /// What models take on a described machine gives that machine again, and its text as well.
    #[test]
    fn a_description_is_found_from_what_it_predicts() {
        let file = ModelSource::BuiltIn.open().unwrap();
        let config = Config::from_file(&file).unwrap();
        let of = |bytes: f64, integer: f64| Allowed {
            config: &config,
            work: (
                TokenWork {
                    dense: bytes,
                    integer,
                    ..TokenWork::default()
                },
                TokenWork::default(),
            ),
            cache: (CacheType::F16, CacheType::F16),
        };
        for nodes in [1, 2] {
            let real = machine(nodes);
            let mode = mode_of(&real);
            let mut found = Description {
                between_us: 0.0,
                compute_reached: 1.0,
                read_reached: 1.0,
                ..real.clone()
            };
            // Of the small model nothing but what lies between operations takes time.
            let allowed = of(0.0, 0.0);
            let small = Ran {
                name: "small",
                allowed,
                pace: Pace {
                    prompt: 1.0,
                    token: {
                        let pass = found.decode(&allowed, SMALL_GEN / 2, mode);
                        let between = config.operations() as f64 * real.between_us / 1e6;
                        pass.compute + pass.hand_overs + between
                    },
                    sizes: (SMALL_PROMPT, SMALL_GEN),
                },
            };
            found.between_us = between(&found, &small);
            assert!((found.between_us - real.between_us).abs() < 1e-9, "{found:?}");
            let allowed = of(8e9, 15e9);
            let large = Ran {
                name: "large",
                allowed,
                pace: Pace {
                    prompt: real.prefill(&allowed, N_PROMPT, mode).seconds(),
                    token: real.decode(&allowed, N_GEN / 2, mode).seconds(),
                    sizes: (N_PROMPT, N_GEN),
                },
            };
            assert_eq!(reach(&mut found, &large), Vec::<String>::new());
            let text = text(&found, &[&small, &large]);
            assert_eq!(Description::parse(&text).unwrap(), real, "{text}");
            // Faster than the limits: said, and still a description.
            let faster = Ran {
                pace: Pace {
                    token: large.pace.token / 2.0,
                    ..large.pace
                },
                ..large
            };
            let mut found = Description {
                read_reached: 1.0,
                compute_reached: 1.0,
                ..real.clone()
            };
            let notes = reach(&mut found, &faster);
            assert!(notes.len() == 1 && notes[0].contains("read_reached"), "{notes:?}");
            assert_eq!(found.read_reached, 1.0);
        }
    }

    #[test]
    fn memory_that_others_have_written_is_read() {
        let args = ["twinfer", "doctor", "-q"];
        let (cli, _) = crate::args::parse(args.iter().map(Into::into)).unwrap();
        let settings = Settings::from(cli.global);
        let machine = Machine::read();
        let cpus = &machine.allowed;
        let (Some(&first), Some(&last)) = (cpus.first(), cpus.last()) else {
            println!("left out: the system does not say which CPUs there are");
            return;
        };
        let backend = twinfer_engine::kernels::select::available()[0];
        let rate = read_of(&settings, &machine, (vec![first], vec![last]), backend).unwrap();
        assert!((1e7..1e13).contains(&rate), "{rate}");
        let team = Team::single();
        let one = hand_over(&team).unwrap();
        assert!((1e-10..1e-3).contains(&one), "{one}");
    }
}
