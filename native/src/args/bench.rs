//! `bench`.

use std::path::PathBuf;

use clap::Args;

use super::OutputArgs;

const EXAMPLES: &str = "\
Examples:
  twinfer bench -m model.gguf
  twinfer bench -m model.gguf -p 512,2048 -n 128 -t 8 -r 5 -o json
  twinfer bench -m model.gguf -p 0 -n 64 -d 0,8192             how much a long context slows it
  twinfer bench -m model.gguf -p 0 -n 64 --parallel 1,4,16     how much many sequences gain by sharing a pass
  twinfer bench -m model.gguf --long 8000 --populate           does it stay as fast and as small as it began?
  twinfer bench --preset epyc-3b                               the reference scenario
  twinfer bench --shape llama-3.1-8b --type q4_k_m             random weights, in memory
  twinfer bench --shape qwen3-0.6b --type q8_0 -o random.gguf  random weights, in a file
  twinfer bench --shape gpt-oss-120b --layers 4                a part of a model that is too large

pp512 is the speed of reading a prompt of 512 tokens, tg128 that of writing 128 tokens one by one; both in tokens
per second, mean and standard deviation over the repetitions. @ d8192 means that 8192 tokens were in the cache
before, x 4 that four sequences wrote at a time. Beside them the part of the machine's limit that was reached: of
int8 dot products for prompts, of memory reads for generation, both measured before and after in the same run (see
`twinfer doctor`).

Below, for each stage, how long its passes took (the median, what 90 and 99 % of them stayed below, the longest), and
what they met on the average, the slowest hundredth by itself: looks of the caller at workers that were not done, of
the others for work (about 10 ns each), workers put to sleep, threads taken off their CPU, pages that had to come.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Prompt lengths, separated by commas. 0: none. Of an encoder, the lengths of texts that vectors are made of.
    #[arg(
        short = 'p',
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "512"
    )]
    pub(crate) n_prompt: Vec<usize>,

    /// Numbers of tokens to generate, separated by commas. 0: none. An encoder generates none.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "128"
    )]
    pub(crate) n_gen: Vec<usize>,

    /// Numbers of tokens in the cache before a test, separated by commas: each test is done at each depth.
    #[arg(
        short = 'd',
        long = "depth",
        value_name = "N",
        value_delimiter = ',',
        default_value = "0"
    )]
    pub(crate) depth: Vec<usize>,

    /// Numbers of sequences that write together, separated by commas: each generation is measured with each of them, and its
    /// speed counts the tokens of all. Of an encoder, numbers of texts.
    #[arg(
        long = "parallel",
        visible_alias = "npl",
        value_name = "N",
        value_delimiter = ',',
        default_value = "1",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096)
    )]
    pub(crate) parallel: Vec<usize>,

    /// Tokens that are computed together while a prompt is read.
    #[arg(short, long, value_name = "N", default_value_t = 512,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65536))]
    pub(crate) batch_size: usize,

    /// Repetitions of each test, after one that does not count.
    #[arg(short, long, value_name = "N", default_value_t = 5,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(crate) repetitions: usize,

    /// Measure a well-known model's shape, filled with random weights. `--shape list` lists them.
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) shape: Option<String>,

    /// A scenario with a name: its model's shape (or -m), prompt and length; beside the speed its ratio to the scalar
    /// backend on mapped weights, what named servers allow on paper, and what it costs to switch off each of the settings that
    /// make it fast.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["shape", "n_prompt", "n_gen", "depth", "parallel"])]
    pub(crate) preset: Option<String>,

    /// Write a text of N tokens in one go: time per token, what slow ones met, and memory, at eight depths; the text's digest.
    /// With --populate its memory is all there at the beginning.
    #[arg(long, value_name = "N", conflicts_with_all = ["preset", "n_prompt", "n_gen", "depth", "parallel"],
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(16..=1_000_000))]
    pub(crate) long: Option<usize>,

    /// Measure the machine's limits as well. Default: for models whose weights are far larger than caches.
    #[arg(long, overrides_with = "no_limits")]
    pub(crate) limits: bool,

    /// Leave the limits out.
    #[arg(long, overrides_with = "limits")]
    pub(crate) no_limits: bool,

    /// With --shape: only the first N layers, for models that do not fit.
    #[arg(long, value_name = "N", requires = "shape",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub(crate) layers: Option<usize>,

    /// With --shape: the type or mix of the weights. Default: q4_k_m, or what the model's files usually have.
    #[arg(long = "type", value_name = "MIX")]
    pub(crate) mix: Option<String>,

    /// The report's form, md or json; with --shape also the file (.gguf) to make. May be given twice.
    #[arg(short, long, value_name = "md|json|FILE", value_parser = output)]
    pub(crate) output: Vec<BenchOutput>,

    #[command(flatten)]
    pub(crate) out: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportFormat {
    Markdown,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BenchOutput {
    Report(ReportFormat),
    File(PathBuf),
}

fn output(text: &str) -> Result<BenchOutput, String> {
    match text {
        "md" => Ok(BenchOutput::Report(ReportFormat::Markdown)),
        "json" => Ok(BenchOutput::Report(ReportFormat::Json)),
        file if file.ends_with(".gguf") => Ok(BenchOutput::File(file.into())),
        _ => Err("expected md, json, or a file name that ends in .gguf".into()),
    }
}
