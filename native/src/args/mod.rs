//! The command line: what may be written, and what it means. Pure parsing; nothing here opens a file or looks at the
//! machine. One file per command.

mod batch;
mod bench;
mod completions;
mod doctor;
mod embed;
mod eval;
mod generation;
mod global;
mod habits;
mod inspect;
mod output;
mod perplexity;
mod quantize;
mod render_template;
mod run;
mod serve_demo;
mod size;
mod template;
mod token_ids;
mod tokenize;
mod verify;

pub(crate) use batch::BatchArgs;
pub(crate) use bench::{BenchArgs, BenchOutput, ReportFormat};
pub(crate) use completions::CompletionsArgs;
pub(crate) use doctor::DoctorArgs;
pub(crate) use embed::{EmbedArgs, RerankArgs, VectorFormat};
pub(crate) use eval::EvalArgs;
pub(crate) use generation::{GenerationArgs, SpecType, SpeculationArgs};
pub(crate) use global::{GlobalArgs, HugePages};
#[cfg(test)]
pub(crate) use habits::sentences as habit_sentences;
pub(crate) use inspect::InspectArgs;
pub(crate) use output::OutputArgs;
pub(crate) use perplexity::PerplexityArgs;
pub(crate) use quantize::QuantizeArgs;
pub(crate) use render_template::RenderTemplateArgs;
pub(crate) use run::{ChatArgs, RunArgs, Source};
pub(crate) use serve_demo::ServeDemoArgs;
pub(crate) use template::TemplateArgs;
pub(crate) use token_ids::TokenIds;
pub(crate) use tokenize::{DetokenizeArgs, TokenizeArgs};
pub(crate) use verify::VerifyArgs;

use std::ffi::OsString;

use crate::failure::Usage;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  twinfer run \"Once upon a time\"               continue a text (no -m: the built-in toy model)
  twinfer chat -m qwen3-4b-q4_k_m.gguf         talk to a model
  twinfer inspect -m model.gguf                what is in a file
  twinfer quantize f16.gguf small.gguf q4_k_m  make a model smaller
  twinfer bench --shape llama-3.2-1b           how fast would this machine be? No download
  twinfer doctor -m model.gguf                 what limits this machine, and this model on it
  twinfer run --help                           every command explains itself

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong command line, 130 Ctrl-C.
Text goes to stdout; progress, timings and errors go to stderr.
Options of llama.cpp are known: those that make no difference here (-ngl, -fa, --jinja, --no-mmap and others) are
left out, and -v says so; others say what to do.";

/// Runs language models from GGUF files on the CPU: the same answer, bit for bit, on every backend.
#[derive(Debug, Parser)]
#[command(name = "twinfer", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(arg_required_else_help = true, subcommand_required = true)]
// A script's options and then a person's: the last one counts. Lists (-r, -l) take all.
#[command(args_override_self = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A command line that could not be read.
#[derive(Debug)]
pub(crate) enum ParseError {
    Clap {
        error: clap::Error,
        /// The command that was named.
        command: Option<String>,
    },
    Usage(Usage),
}

/// Reads the arguments, the program's name first, and gives what was done to them in sentences.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Cli, Vec<String>), ParseError> {
    let mut command = Cli::command();
    let canonical = habits::canonical(&mut command, args).map_err(ParseError::Usage)?;
    let name = canonical.command;
    let clap = |error| ParseError::Clap {
        error,
        command: name.clone(),
    };
    let mut matches = command.try_get_matches_from_mut(canonical.args).map_err(clap)?;
    let cli = Cli::from_arg_matches_mut(&mut matches).map_err(clap)?;
    Ok((cli, canonical.notes))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a prompt; the text streams to stdout.
    Run(RunArgs),
    /// Talk to a model in the terminal.
    Chat(ChatArgs),
    /// Answer many prompts or conversations together, from a file into a file.
    Batch(BatchArgs),
    /// Turn texts into vectors, with an embedding model or any other.
    Embed(EmbedArgs),
    /// Sort documents by how well they answer a query, with a reranker.
    Rerank(RerankArgs),
    /// Show what a model file holds: metadata, tensors, types, sizes.
    Inspect(InspectArgs),
    /// Turn text into token ids.
    Tokenize(TokenizeArgs),
    /// Turn token ids into text.
    Detokenize(DetokenizeArgs),
    /// Render a chat template without running a model.
    RenderTemplate(RenderTemplateArgs),
    /// Write a smaller copy of a model.
    Quantize(QuantizeArgs),
    /// Compute the logits of every position of a token sequence, and their digest.
    Eval(EvalArgs),
    /// Print the digest record of a model, or check one: the same numbers here as where it was made?
    Verify(VerifyArgs),
    /// Measure how well a model predicts a text.
    Perplexity(PerplexityArgs),
    /// Measure tokens per second, of a model or of a model's shape.
    Bench(BenchArgs),
    /// Show what this machine has, how fast it is at most, and what that means for a model.
    Doctor(DoctorArgs),
    /// Serve the page that runs models in the browser, and local models for it.
    ServeDemo(ServeDemoArgs),
    /// Print a shell's completion script.
    Completions(CompletionsArgs),
}
