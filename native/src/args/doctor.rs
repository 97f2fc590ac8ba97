//! `doctor`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer doctor                     what this machine has, and how fast it is at most
  twinfer doctor -m model.gguf       and how fast it could run this model
  twinfer doctor -t 1                the limits of a single core
  twinfer doctor --no-measure        only look, measure nothing
  twinfer doctor --json > doctor.json
  twinfer doctor --machine docs/machines/epyc-9654-x2.toml --shape llama-3.1-8b
                                     what a machine that is not at hand would do with a model
  twinfer doctor --describe > here.toml
                                     this one's description, to predict with and to compare with bench

The limits: int8 dot products bound the reading of a prompt, memory reads bound the writing of tokens, for each token reads
every weight once. `twinfer bench` says which part of them this program reaches. Numbers are only worth something on a
machine that does nothing else meanwhile.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Leave the measurements out; what remains takes no time.
    #[arg(long)]
    pub(crate) no_measure: bool,

    /// Tokens in the cache for the second estimate of a model's speed.
    #[arg(short, long, value_name = "N", default_value_t = 8192)]
    pub(crate) depth: usize,

    /// Instead of -m: a well-known model's shape. `twinfer bench --shape list` lists them.
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) shape: Option<String>,

    /// With --shape: the type or mix of the weights. Default: q4_k_m, or what the model's files usually have.
    #[arg(long = "type", value_name = "MIX")]
    pub(crate) mix: Option<String>,

    /// Predict the speed of the model on another machine, which this file describes; docs/machine.md explains how.
    /// Nothing is measured.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) machine: Option<PathBuf>,

    /// Measure this machine and write the description of it that --machine reads: what is predicted with it can be
    /// compared with what `bench` measures here. Kernels are measured with a model of random weights, or with the one
    /// that -m or --shape name.
    #[arg(long, conflicts_with_all = ["machine", "no_measure", "json"])]
    pub(crate) describe: bool,

    /// All of it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
