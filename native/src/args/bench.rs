//! `bench`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  twinfer bench -m model.gguf
  twinfer bench -m model.gguf -p 512,2048 -n 128 -t 8 -r 5 -o json
  twinfer bench --shape llama-3.1-8b --type q4_k_m             random weights, in memory
  twinfer bench --shape qwen3-0.6b --type q8_0 -o random.gguf  random weights, in a file

pp512 is the speed of reading a prompt of 512 tokens, tg128 that of writing 128 tokens one by one;
both in tokens per second, mean and standard deviation over the repetitions.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Prompt lengths, separated by commas. 0: none.
    #[arg(
        short = 'p',
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "512"
    )]
    pub(crate) n_prompt: Vec<usize>,

    /// Numbers of tokens to generate, separated by commas. 0: none.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "128"
    )]
    pub(crate) n_gen: Vec<usize>,

    /// Repetitions of each test, after one that does not count.
    #[arg(short, long, value_name = "N", default_value_t = 5,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(crate) repetitions: usize,

    /// Measure a well-known model's shape, filled with random weights. `--shape list` lists them.
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) shape: Option<String>,

    /// With --shape: the type or mix of the weights.
    #[arg(long = "type", value_name = "MIX", default_value = "q4_k_m")]
    pub(crate) mix: String,

    /// The report's form, md or json; with --shape also the file (.gguf) to make. May be given twice.
    #[arg(short, long, value_name = "md|json|FILE", value_parser = output)]
    pub(crate) output: Vec<BenchOutput>,
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
