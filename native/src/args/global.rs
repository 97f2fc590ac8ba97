//! Options that every command takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use twinfer_engine::kernels::Storage;
use twinfer_engine::model::cache::CacheType;

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

    /// Worker threads. Default: the physical cores that this process may use.
    #[arg(short, long, global = true, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,

    /// Seed of everything random; equal seeds give equal results. -1: a new one each time (but
    /// `run` with the built-in model always tells the same story then).
    #[arg(short, long, global = true, value_name = "N", default_value = "-1", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub(crate) seed: i64,

    /// Context size in tokens. 0: what the model was trained with, at most 4096.
    #[arg(short, long, global = true, value_name = "N", default_value_t = 0)]
    pub(crate) ctx_size: usize,

    /// Type of the cached keys.
    #[arg(long, global = true, value_name = "TYPE", default_value = "f16")]
    pub(crate) cache_type_k: CacheTypeArg,

    /// Type of the cached values.
    #[arg(long, global = true, value_name = "TYPE", default_value = "f16")]
    pub(crate) cache_type_v: CacheTypeArg,

    /// Only the result and errors: no progress, no timings.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say on stderr what is done: the model, the backend, the sampler's settings.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
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

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("expected a number from 1 to 1024".into()),
    }
}
