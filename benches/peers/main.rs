//! twinfer beside other engines on the same files, in turn: medians, ratios, and fractions of the limits measured in
//! the same minutes. `benches/README.md` says how to use and to read it.

mod browser;
mod check;
mod engines;
mod models;
mod plan;
mod report;
mod setup;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use clap::Parser;
use serde_json::{Value, json};
use twinfer_benches::machine::{self, Machine, root};
use twinfer_benches::program;
use twinfer_benches::rates::Rates;

use engines::{Engine, Peer, Settings, Variant};
use plan::{Cell, Kind, ModelSpec, Test};
use report::{Beside, Measurement, Results};

const EXAMPLES: &str = "\
Examples:
  cargo peers --quick                                      one model, prompt and writing: about 3 minutes
  cargo peers                                              everything the goals speak of
  cargo peers --models 3b:q4_k_m,1b:q6_k --tests pp512,tg64 --rounds 5
  cargo peers --models 3b:q4_k_m --tests pp512,tg32,tg32x4@d4096 --parallel 1,2,4,8,16,32
                                                           many sequences in one pass
  cargo peers --models qwen3-30b-a3b/6:q4_k_m --tests pp512,tg32
                                                           experts, as many layers as fit
  cargo peers --models all-minilm:f16 --tests em64x256 --peers llama.cpp,onnxruntime
                                                           vectors of texts
  cargo peers --peers llama.cpp-avx2 --backend avx2        both without AVX-512
  cargo peers --browser                                    twinfer and wllama in Chromium
  cargo peers --setup                                      only build the peers, below target/tools

Each engine is measured in a process of its own, in turn, round by round. A model is SHAPE:TYPE, where
1b and 3b stand for llama-3.2-1b and llama-3.2-3b; a test is ppN (read a prompt of N tokens), tgN
(write N tokens), tgNxS (S sequences write N tokens each, together), or one of them behind M tokens:
tg64@dM. SHAPE/N:TYPE has the first N layers only. Of encoders a test is emNxS (vectors of S texts of N
tokens).";

/// Compare twinfer with other engines on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo peers", bin_name = "cargo peers", after_help = EXAMPLES)]
struct Args {
    /// One model and two tests, two rounds.
    #[arg(long, conflicts_with_all = ["models", "tests", "parallel"])]
    quick: bool,

    /// Models, separated by commas.
    #[arg(long, value_name = "SHAPE:TYPE", value_delimiter = ',')]
    models: Vec<ModelSpec>,

    /// Tests of each of these models. Default: pp512,tg64.
    #[arg(long, value_name = "TEST", value_delimiter = ',', requires = "models")]
    tests: Vec<Test>,

    /// Numbers of sequences that write together, separated by commas: each tgN of these tests is measured with each of
    /// them.
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "models",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=plan::MOST_SEQUENCES as u64))]
    parallel: Vec<usize>,

    /// Engines to compare with.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "llama.cpp")]
    peers: Vec<Peer>,

    /// Rounds, of which the median is taken. Default: 3; 2 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// No further round is begun that would end later than this.
    #[arg(long, value_name = "M", default_value_t = 110)]
    minutes: u64,

    /// Threads of every engine. Default: all processors of this process.
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,

    /// twinfer's backend. Default: its choice.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,

    /// Type of the cached keys and values.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = ["f16", "q8_0"])]
    cache_type: String,

    /// Where models are kept.
    #[arg(long, value_name = "DIR", default_value_os_t = root().join("target/peers/models"))]
    models_dir: PathBuf,

    /// twinfer's program. Default: built from these sources.
    #[arg(long, value_name = "FILE")]
    twinfer: Option<PathBuf>,

    /// The table (.md), with every value beside it as .json. Default: benches/results/peers.md for the whole, below
    /// target/peers for a part.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Put the table into README.md as well, between its markers.
    #[arg(long)]
    readme: bool,

    /// Compare in the browser: prompt of 128 and 32 tokens written, of the first model; needs `cargo xtask web` first.
    #[arg(long, conflicts_with_all = ["quick", "tests", "parallel", "peers", "backend", "cache_type", "setup", "readme"])]
    browser: bool,

    /// Version of wllama (npm).
    #[arg(long, value_name = "VERSION", default_value = "3.8.1")]
    wllama: String,

    /// The browser's program.
    #[arg(
        long,
        value_name = "FILE",
        env = "TWINFER_CHROMIUM",
        default_value = "/usr/bin/chromium"
    )]
    chromium: PathBuf,

    /// Node, which drives the browser.
    #[arg(long, value_name = "FILE", env = "TWINFER_NODE", default_value = "node")]
    node: PathBuf,

    /// Only set up the peers.
    #[arg(long)]
    setup: bool,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<()> {
    let twinfer = match &args.twinfer {
        Some(program) => program.clone(),
        None => program::build()?,
    };
    if args.browser {
        return compare_in_browser(args, &twinfer);
    }
    let mut engines = vec![Engine::Twinfer(twinfer.clone())];
    for &peer in &args.peers {
        engines.push(Engine::Peer(peer, setup::peer(peer)?));
    }
    if args.setup {
        return Ok(());
    }
    let cells = if args.models.is_empty() {
        plan::preset(args.quick)
    } else {
        let tests = if args.tests.is_empty() {
            ["pp512", "tg64"]
                .map(|test| test.parse().expect("well formed"))
                .into()
        } else {
            args.tests.clone()
        };
        plan::cells(&args.models, &plan::together(&tests, &args.parallel))
    };
    let scratch = root().join("target/peers");
    let settings = Settings {
        threads: threads(args),
        backend: args.backend.clone(),
        cache_type: args.cache_type.clone(),
        states: scratch.join("states"),
    };
    std::fs::create_dir_all(&scratch)?;
    let output = args.output.clone().unwrap_or_else(|| {
        if args.quick || !args.models.is_empty() {
            scratch.join("part.md")
        } else {
            root().join("benches/results/peers.md")
        }
    });

    let machine = Machine::describe();
    eprintln!("{}", machine.line());
    let mut results = Results {
        engines: engines.iter().map(|e| e.name().to_owned()).collect(),
        cache_bytes: settings.cache_bytes(),
        ..Results::default()
    };
    let mut agreements = Vec::new();
    for cell in &cells {
        let known = results.cells.iter().position(|c| c.model == cell.model);
        let model = match known {
            Some(at) => results.models[at].clone(),
            None => {
                let model = models::find(&cell.model, &args.models_dir, &twinfer)?;
                let of_model = cells.iter().filter(|c| c.model == cell.model);
                let written = of_model.filter(|c| c.test.kind == Kind::Writing);
                let most = written.map(|c| c.test.sequences).max().unwrap_or(1);
                let mut numbers = vec![1, most];
                numbers.dedup();
                for peer in &engines[1..] {
                    for &n in &numbers {
                        agreements.push(agree(&engines[0], peer, cell, &model, n, &scratch, &settings)?);
                    }
                }
                model
            }
        };
        results.cells.push(cell.clone());
        results.models.push(model);
    }
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 3 }) as usize;
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |t| t.as_secs());
    results.facts = json!({
        "machine": machine.json(), "threads": settings.threads, "cache_type": settings.cache_type,
        "backend": settings.backend, "begun_unix": time, "agreement": agreements,
    });

    let mut state = Rounds {
        engines: &engines,
        twinfer: &twinfer,
        settings: &settings,
        results,
        chosen: Vec::new(),
        unable: Vec::new(),
        loads: Vec::new(),
        begun: Instant::now(),
    };
    for round in 0..rounds {
        let begun = state.begun.elapsed();
        if round > 0 && begun + begun / round as u32 > Duration::from_secs(args.minutes * 60) {
            eprintln!(
                "{round} of {rounds} rounds: another one would go beyond {} minutes",
                args.minutes
            );
            break;
        }
        state.round(round, rounds)?;
        state.results.head = head(&machine, &settings, &state, round + 1, &agreements);
        // After every round, so that an interrupted run has left something.
        state.results.write(&output)?;
    }
    print!("{}", state.results.markdown());
    eprintln!("written to {} and .json", output.display());
    if args.readme {
        state.results.write_between_markers(&root().join("README.md"))?;
    }
    Ok(())
}

fn threads(args: &Args) -> usize {
    args.threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

fn compare_in_browser(args: &Args, twinfer: &Path) -> Result<()> {
    let spec = match args.models.first() {
        Some(spec) => spec.clone(),
        None => "1b:q4_k_m".parse().map_err(anyhow::Error::msg)?,
    };
    let model = models::find(&spec, &args.models_dir, twinfer)?;
    let options = browser::Options {
        model: &model.path,
        name: spec.name(),
        threads: threads(args),
        rounds: args.rounds.unwrap_or(3) as usize,
        wllama: &args.wllama,
        chromium: &args.chromium,
        node: &args.node,
    };
    let (table, values) = browser::compare(&Machine::describe(), &options)?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| root().join("target/peers/browser.md"));
    report::write_files(&output, &table, &values)?;
    print!("{table}");
    eprintln!("written to {} and .json", output.display());
    Ok(())
}

/// Checks that a peer computes the model; what it found, for the report.
fn agree(
    ours: &Engine,
    peer: &Engine,
    cell: &Cell,
    model: &models::ModelOnDisk,
    sequences: usize,
    scratch: &Path,
    settings: &Settings,
) -> Result<Value> {
    let name = cell.model.name();
    let agreement = check::compare(
        ours,
        peer,
        &model.path,
        (cell.test.kind, sequences),
        scratch,
        settings,
    )?;
    let together = match sequences {
        1 => String::new(),
        n => format!(" (one of {n} sequences)"),
    };
    eprintln!(
        "{name}: {} of {}{together} and twinfer correlate by {:.5}, {} of {} argmaxes are the same",
        if cell.test.kind == Kind::Texts {
            "vectors"
        } else {
            "logits"
        },
        peer.name(),
        agreement.correlation,
        agreement.same_argmax,
        agreement.positions
    );
    check_build(peer, &agreement.report)?;
    Ok(json!({
        "model": name, "peer": peer.name(), "logits": agreement.json(), "report": agreement.report,
    }))
}

/// llama.cpp must have been built with what this machine has, or without what was left out.
fn check_build(peer: &Engine, report: &Value) -> Result<()> {
    let info = report["system_info"].as_str().unwrap_or_default();
    let built_with = |feature: &str| info.contains(&format!("{feature} = 1"));
    match peer {
        Engine::Peer(Peer::LlamaCpp, _) => {
            for (name, feature) in [("AVX2", "AVX2"), ("AVX-512 VNNI", "AVX512_VNNI")] {
                if Machine::describe().features.contains(&name) && !built_with(feature) {
                    bail!("llama.cpp was built without {name}, which this machine has: {info}");
                }
            }
        }
        Engine::Peer(Peer::LlamaCppAvx2, _) if built_with("AVX512") => {
            bail!("llama.cpp was built with AVX-512: {info}");
        }
        _ => {}
    }
    Ok(())
}

/// The rounds of measuring.
struct Rounds<'a> {
    engines: &'a [Engine],
    /// Measures the limits.
    twinfer: &'a Path,
    settings: &'a Settings,
    results: Results,
    /// (cell, engine) and the variant that was the fastest in the first round.
    chosen: Vec<(usize, usize, Variant)>,
    /// (cell, engine) that failed: not tried again.
    unable: Vec<(usize, usize)>,
    /// Load averages before each measurement.
    loads: Vec<f64>,
    begun: Instant,
}

impl Rounds<'_> {
    fn round(&mut self, round: usize, rounds: usize) -> Result<()> {
        let cells = self.results.cells.len();
        for cell in 0..cells {
            let limits = Rates::measure(self.twinfer, self.settings.threads)?;
            self.results.limits.push(Beside { cell, round, limits });
            let mut order: Vec<usize> = (0..self.engines.len()).collect();
            // Nobody is always the first after a pause.
            if (round + cell) % 2 == 1 {
                order.reverse();
            }
            for engine in order {
                if self.unable.contains(&(cell, engine)) {
                    continue;
                }
                let name = self.engines[engine].name();
                let what = format!(
                    "{} {}",
                    self.results.cells[cell].model.name(),
                    self.results.cells[cell].test
                );
                match self.measure(cell, engine, round) {
                    Ok(rate) => {
                        let done = (round * cells + cell + 1) as f64 / (rounds * cells) as f64;
                        let left = self.begun.elapsed().as_secs_f64() * (1.0 / done - 1.0) / 60.0;
                        eprintln!(
                            "[round {} of {rounds}, {} of {cells}] {what}, {name}: {rate:.2} tok/s (about {left:.0} min left)",
                            round + 1,
                            cell + 1
                        );
                    }
                    Err(error) if engine > 0 => {
                        eprintln!("{what}, {name}: {error:#}");
                        self.unable.push((cell, engine));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// One engine's best in one cell.
    fn measure(&mut self, cell: usize, engine: usize, round: usize) -> Result<f64> {
        let chosen = self
            .chosen
            .iter()
            .find(|c| (c.0, c.1) == (cell, engine))
            .map(|c| c.2);
        let variants = match &chosen {
            Some(variant) => std::slice::from_ref(variant),
            None => self.engines[engine].variants(self.settings),
        };
        let mut best: Option<(Variant, engines::Sample)> = None;
        for &variant in variants {
            self.loads.extend(machine::load());
            let path = &self.results.models[cell].path;
            let sample =
                self.engines[engine].measure(path, self.results.cells[cell].test, variant, self.settings)?;
            if best.as_ref().is_none_or(|(_, b)| sample.rate > b.rate) {
                best = Some((variant, sample));
            }
        }
        let Some((variant, sample)) = best else {
            bail!("an engine has no variant");
        };
        if chosen.is_none() {
            self.chosen.push((cell, engine, variant));
        }
        self.results.measurements.push(Measurement {
            cell,
            engine,
            round,
            rate: sample.rate,
            report: sample.report,
        });
        Ok(sample.rate)
    }
}

/// The paragraphs above the table.
fn head(
    machine: &Machine,
    settings: &Settings,
    state: &Rounds<'_>,
    rounds: usize,
    agreements: &[Value],
) -> Vec<String> {
    let range = |values: Vec<f64>, digits: usize| {
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        match (sorted.first(), sorted.last()) {
            (Some(low), Some(high)) => format!("{low:.digits$} to {high:.digits$}"),
            _ => "not measured".into(),
        }
    };
    let limits = &state.results.limits;
    let mut paragraphs = vec![
        format!("Machine: {}.", machine.line()),
        format!(
            "{} threads, cache {}, {rounds} rounds in turn, load average {}. tok/s are medians; a ratio is the median of the \
             rounds' ratios.",
            settings.threads,
            settings.cache_type,
            range(state.loads.clone(), 1)
        ),
        format!(
            "Limits in the same minutes: memory read {} GB/s, int8 dot product {} GMAC/s. pp is held against the second, tg \
             against the first (weights and cache), of several sequences against the one that allows less.",
            range(limits.iter().map(|b| b.limits.read).collect(), 1),
            range(limits.iter().map(|b| b.limits.dot).collect(), 0)
        ),
    ];
    for engine in &state.engines[1..] {
        let report = agreements
            .iter()
            .find(|a| a["peer"] == engine.name())
            .map_or(&Value::Null, |a| &a["report"]);
        let least = agreements
            .iter()
            .filter(|a| a["peer"] == engine.name())
            .filter_map(|a| a["logits"]["least_correlation"].as_f64())
            .fold(1.0, |least, c| if c < least { c } else { least });
        let version = report["version"].as_str().unwrap_or("unknown version");
        let features = features_of(report["system_info"].as_str().unwrap_or_default());
        paragraphs.push(format!(
            "{}: {version}; its logits and twinfer's correlate by at least {least:.4}. Built with {features}.",
            engine.name()
        ));
    }
    paragraphs
}

/// The names that llama.cpp's system information says it was built with: `CPU : SSE3 = 1 | AVX = 1 |` gives `SSE3,
/// AVX`.
fn features_of(system_info: &str) -> String {
    let names: Vec<&str> = system_info
        .split(['|', ':'])
        .filter_map(|part| part.trim().strip_suffix("= 1"))
        .map(str::trim_end)
        .collect();
    if names.is_empty() {
        return "no feature that it names".into();
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_names_that_are_switched_on() {
        let info = "CPU : SSE3 = 1 | AVX = 0 | AVX512_VNNI = 1 | REPACK = 1 | ";
        assert_eq!(features_of(info), "SSE3, AVX512_VNNI, REPACK");
        assert_eq!(features_of(""), "no feature that it names");
    }
}
