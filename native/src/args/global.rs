//! Options that every command takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use twinfer_engine::cache::CacheType;
use twinfer_engine::kernels::Storage;

use super::size;
use crate::cpu_list::parse_list;
use crate::numa::NumaMode;

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Model file (GGUF). Of a split model, any part. Default: the built-in toy model.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,

    /// Kernel backend. All of them give the same numbers. Default: the fastest one here.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) backend: Option<String>,

    /// Where weights lie: packed into the backend's layout once, or mapped as they are in the file. auto packs where
    /// that makes a type faster. No number depends on it.
    #[arg(long, global = true, value_name = "WHERE", default_value = "auto")]
    pub(crate) weights: WeightsArg,

    /// Where the weights of experts lie, of which a token needs a few: packed or mapped as --weights has it. auto does with
    /// them as with all others, and leaves them mapped where the memory is too small for that.
    #[arg(long, global = true, value_name = "WHERE", default_value = "auto")]
    pub(crate) experts: WeightsArg,

    /// Worker threads. Default, and 0 and -1: the physical cores that this process may use.
    #[arg(short, long, global = true, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    threads: Option<Threads>,

    /// Keep each worker on a CPU of its own: one per physical core, SMT siblings only where there are more workers than
    /// cores. Default: where workers take every core that this process may use and no control group limits its time.
    #[arg(long, global = true, overrides_with = "no_pin")]
    pub(crate) pin: bool,

    /// Run the workers on these CPUs, one each, in the kernel's notation: 0-15,64-79. As many workers as CPUs, unless -t
    /// says fewer: then physical cores come first.
    #[arg(long, global = true, value_name = "LIST", value_parser = cpu_list, conflicts_with = "no_pin")]
    pub(crate) cpus: Option<CpuList>,

    /// On a machine of several NUMA nodes: auto; off; isolate (compute on one node, with packed weights, cache and
    /// buffers in its memory; what is read from the mapped file stays where the system's cache has it), node:N (on that
    /// one), distribute (each node has the rows of the weights that its workers multiply with), mirror (each node has
    /// all weights). auto distributes weights over the nodes unless they are small.
    #[arg(long, global = true, value_name = "MODE", default_value = "auto", value_parser = numa)]
    pub(crate) numa: NumaMode,

    /// Leave the workers to the scheduler.
    #[arg(long, global = true, overrides_with = "pin")]
    pub(crate) no_pin: bool,

    /// Bring mapped weights and the cache into memory before the first token rather than as they are used (packed weights
    /// always are). A program that runs long then takes no more memory than at its beginning.
    #[arg(long, global = true)]
    pub(crate) populate: bool,

    /// Lock the weights in memory, so that they are never swapped out or dropped. The system's limit must allow it
    /// (`ulimit -l`); where it does not, say so and go on.
    #[arg(long, global = true)]
    pub(crate) mlock: bool,

    /// Read the weights past the system's cache of files: for files larger than the memory that is free for it, and those
    /// that are read once. Weights lie in this process's memory then, mapped ones too. Where a file system cannot, say so
    /// and read as ever.
    #[arg(long, global = true)]
    pub(crate) direct_io: bool,

    /// The most memory that this process may take, in bytes or with K, M or G: what does not fit is refused before it is
    /// loaded. Without it the system's free memory and the control group's limit count.
    #[arg(long, global = true, value_name = "SIZE", value_parser = size::bytes)]
    pub(crate) memory_limit: Option<u64>,

    /// Huge pages for weights: fewer misses of address translation. auto asks for them for packed weights and for the
    /// buffers of a pass; on asks for them for mapped files as well (few file systems have them) and says what it got;
    /// off leaves them to the system's setting.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", num_args = 0..=1, require_equals = true,
          default_missing_value = "on")]
    pub(crate) huge_pages: HugePages,

    /// Seed of everything random; equal seeds give equal results. -1: a new one each time (but
    /// `run` with the built-in model always tells the same story then).
    #[arg(short, long, global = true, value_name = "N", default_value = "-1", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub(crate) seed: i64,

    /// Context size in tokens. 0: what the model was trained with, at most 4096.
    #[arg(short, long, global = true, value_name = "N", default_value = "0", allow_negative_numbers = true,
          value_parser = ctx_size)]
    pub(crate) ctx_size: usize,

    /// Type of the cached keys.
    #[arg(long, global = true, value_name = "TYPE", default_value = "f16")]
    pub(crate) cache_type_k: CacheTypeArg,

    /// Type of the cached values.
    #[arg(long, global = true, value_name = "TYPE", default_value = "f16")]
    pub(crate) cache_type_v: CacheTypeArg,

    /// States of sequences that the cache holds at a time, of models with layers that keep one (Mamba, delta nets, short
    /// convolutions). A sequence holds one, two during a pass, and those of earlier lengths that it can be taken back to;
    /// with few of them more is computed again. No number depends on it. Default: two for each sequence, and 6.
    #[arg(long, global = true, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=1 << 20))]
    pub(crate) cache_states: Option<usize>,

    /// Only the result and errors: no progress, no timings.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say on stderr what is done: the model, the backend, the sampler's settings.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

impl GlobalArgs {
    /// The number of workers that was asked for.
    pub(crate) fn threads(&self) -> Option<usize> {
        match self.threads {
            Some(Threads::These(n)) => Some(n),
            Some(Threads::Automatic) | None => None,
        }
    }

    /// --pin, --no-pin, or neither.
    pub(crate) fn pinning(&self) -> Option<bool> {
        match (self.pin, self.no_pin) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HugePages {
    Auto,
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheTypeArg {
    F16,
    F32,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<CacheTypeArg> for CacheType {
    fn from(arg: CacheTypeArg) -> Self {
        match arg {
            CacheTypeArg::F16 => CacheType::F16,
            CacheTypeArg::F32 => CacheType::F32,
            CacheTypeArg::Q8_0 => CacheType::Q8_0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsArg {
    Auto,
    Packed,
    Mapped,
}

impl From<WeightsArg> for Storage {
    fn from(arg: WeightsArg) -> Self {
        match arg {
            WeightsArg::Auto => Storage::Auto,
            WeightsArg::Packed => Storage::Packed,
            WeightsArg::Mapped => Storage::Mapped,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threads {
    Automatic,
    These(usize),
}

fn threads(text: &str) -> Result<Threads, String> {
    match text.parse() {
        Ok(0 | -1) => Ok(Threads::Automatic),
        Ok(n @ 1..=1024i64) => Ok(Threads::These(n as usize)),
        _ if text.contains(',') => Err("expected one number from 1 to 1024: run it once for each".into()),
        _ => Err("expected a number from 1 to 1024, or 0 for all cores".into()),
    }
}

/// CPUs by the system's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

fn cpu_list(text: &str) -> Result<CpuList, String> {
    match parse_list(text) {
        Some(cpus) if !cpus.is_empty() => Ok(CpuList(cpus)),
        _ => Err("expected CPUs as the kernel lists them, such as 0-15,64-79".into()),
    }
}

fn numa(text: &str) -> Result<NumaMode, String> {
    let node = |text: &str| text.strip_prefix("node:")?.parse().ok();
    Ok(match text {
        "auto" => NumaMode::Auto,
        // llama.cpp's word for leaving it to the affinity mask.
        "off" | "numactl" => NumaMode::Off,
        "isolate" => NumaMode::Isolate,
        "distribute" => NumaMode::Distribute,
        "mirror" => NumaMode::Mirror,
        _ => match node(text) {
            Some(node) => NumaMode::Node(node),
            None => return Err("expected auto, off, isolate, distribute, mirror, or node:N".into()),
        },
    })
}

fn ctx_size(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "expected a number of tokens, 0 for the model's own".into())
}
