//! One file per command: from parsed arguments to output.

mod bench;
mod chat;
mod completions;
mod detokenize;
mod doctor;
mod eval;
mod inspect;
mod perplexity;
mod quantize;
mod render_template;
mod run;
mod serve_demo;
mod tokenize;
mod verify;

use anyhow::Result;

use crate::args::{Cli, Command};

pub(crate) fn dispatch(cli: &Cli) -> Result<()> {
    let global = &cli.global;
    match &cli.command {
        Command::Run(args) => run::run(global, args),
        Command::Chat(args) => chat::run(global, args),
        Command::Inspect(args) => inspect::run(global, args),
        Command::Tokenize(args) => tokenize::run(global, args),
        Command::Detokenize(args) => detokenize::run(global, args),
        Command::RenderTemplate(args) => render_template::run(global, args),
        Command::Quantize(args) => quantize::run(global, args),
        Command::Eval(args) => eval::run(global, args),
        Command::Verify(args) => verify::run(global, args),
        Command::Perplexity(args) => perplexity::run(global, args),
        Command::Bench(args) => bench::run(global, args),
        Command::Doctor(args) => doctor::run(global, args),
        Command::ServeDemo(args) => serve_demo::run(global, args),
        Command::Completions(args) => completions::run(args),
    }
}
