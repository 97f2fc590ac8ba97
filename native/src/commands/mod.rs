//! One file per command: from parsed arguments to output.

mod batch;
mod bench;
mod chat;
mod completions;
mod detokenize;
mod doctor;
mod embed;
mod eval;
mod inspect;
mod perplexity;
mod quantize;
mod render_template;
mod rerank;
mod run;
mod serve_demo;
mod tokenize;
mod verify;

use anyhow::Result;

use crate::args::Command;
use crate::settings::Settings;
use crate::topology::Machine;
use crate::workers::Workers;

/// Runs the command. Of the settings each is given what it needs; the machine is looked at for those that compute.
pub(crate) fn dispatch(settings: &Settings, command: &Command) -> Result<()> {
    let (source, verbosity) = (&settings.source, settings.verbosity);
    let workers = || Workers::for_command(settings, &Machine::read());
    match command {
        Command::Run(args) => run::run(settings, &workers()?, args),
        Command::Chat(args) => chat::run(settings, &workers()?, args),
        Command::Batch(args) => batch::run(settings, &workers()?, args),
        Command::Embed(args) => embed::run(settings, &workers()?, args),
        Command::Rerank(args) => rerank::run(settings, &workers()?, args),
        Command::Inspect(args) => inspect::run(settings, &workers, args),
        Command::Tokenize(args) => tokenize::run(source, verbosity, args),
        Command::Detokenize(args) => detokenize::run(source, verbosity, args),
        Command::RenderTemplate(args) => render_template::run(source, verbosity, args),
        Command::Quantize(args) => quantize::run(source, verbosity, &workers()?, args),
        Command::Eval(args) => eval::run(settings, &workers()?, args),
        Command::Verify(args) => verify::run(settings, &workers()?, args),
        Command::Perplexity(args) => perplexity::run(settings, &workers()?, args),
        Command::Bench(args) => bench::run(settings, &workers()?, args),
        Command::Doctor(args) => doctor::run(settings, args),
        Command::ServeDemo(args) => serve_demo::run(source, args),
        Command::Completions(args) => completions::run(args),
    }
}
