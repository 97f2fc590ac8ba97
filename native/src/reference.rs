//! `docs/cli.md` is the help of every command, written down; this test holds it to the program. After a change of the
//! arguments, write it anew with `TWINFER_BLESS=1 cargo test -p twinfer --bin twinfer reference`.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;

use crate::args::Cli;

const WIDTH: usize = 100;

fn generate() -> String {
    let mut cli = Cli::command().term_width(WIDTH);
    cli.build();
    let mut out = String::from(
        "# The command line\n\nThis is what `twinfer --help` and `twinfer COMMAND --help` say. It is generated \
         (`native/src/reference.rs`).\n",
    );
    let mut section = |title: &str, help: String| {
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(
            out,
            "\n## {title}\n\n```text\n{}\n```\n",
            lines.join("\n").trim_end()
        );
    };
    section("twinfer", cli.render_help().to_string());
    for command in cli
        .get_subcommands_mut()
        .filter(|command| command.get_name() != "help")
    {
        let name = format!("twinfer {}", command.get_name());
        let mut command = command.clone().term_width(WIDTH);
        section(&name, command.render_help().to_string());
    }
    out.push_str(
        "\n## Options of llama.cpp\n\nWhat becomes of options that llama.cpp's tools have and these commands do not. With \
         `-v` a note says\nwhat was left out. Underscores in long options are read as dashes.\n\n",
    );
    for sentence in crate::args::habit_sentences() {
        item(&mut out, &sentence);
    }
    out
}

/// An item of a list, in lines of at most [`WIDTH`] columns.
fn item(out: &mut String, text: &str) {
    let mut column = 1;
    out.push('-');
    for word in text.split(' ') {
        if column + 1 + word.len() > WIDTH {
            out.push_str("\n ");
            column = 1;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push('\n');
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn docs_cli_md_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let expected = generate();
    if std::env::var_os("TWINFER_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/cli.md is out of date: run `TWINFER_BLESS=1 cargo test -p twinfer --bin twinfer reference`"
    );
}
