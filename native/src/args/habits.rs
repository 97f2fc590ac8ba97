//! What people type who come from llama.cpp, made into this program's own arguments before they are parsed: options under
//! other names, options that make no difference here, options that get an answer in place of an error, a model without
//! `-m`. [`table`] holds the options. Pure: arguments in, arguments and notes out.
//!
//! clap cannot do it: it takes `-ngl` for `-n gl`, and options that are accepted and left out would stand in every help.
//! What it knows is asked of it (which options a command has, and which take a value), so that the value of an option and
//! what follows `--` are never touched.

mod table;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, Command};
use clap_lex::RawArgs;

use crate::failure::Usage;
use table::{Habit, Meaning, Value};

#[cfg(test)]
pub(crate) use table::sentences;

/// Commands whose model may be named without `-m`.
const MODEL_COMMANDS: [&str; 12] = [
    "run",
    "chat",
    "batch",
    "embed",
    "rerank",
    "tokenize",
    "detokenize",
    "eval",
    "verify",
    "perplexity",
    "bench",
    "doctor",
];

/// Arguments as this program reads them, and what was done to them.
#[derive(Debug)]
pub(crate) struct Canonical {
    pub(crate) args: Vec<OsString>,
    /// The command that they name.
    pub(crate) command: Option<String>,
    /// Sentences for those who ask.
    pub(crate) notes: Vec<String>,
}

/// Rewrites arguments, the program's name first. `cli` is the command line that will parse them.
pub(crate) fn canonical(
    cli: &mut Command,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Canonical, Usage> {
    // Global options are options of every command from here on.
    cli.build();
    let raw = RawArgs::new(args);
    let mut walk = Walk::new(cli);
    walk.all(&raw)?;
    walk.model_without_option();
    walk.threads_of_quantize();
    if walk.subcommand.is_none() && walk.stray {
        return Err(Usage(
            "no command is named; `twinfer run` continues a prompt and `twinfer chat` converses, as in `twinfer run -m \
             model.gguf -p \"Once upon a time\"`; see `twinfer --help`"
                .into(),
        ));
    }
    Ok(Canonical {
        command: walk.subcommand.map(|command| command.get_name().to_string()),
        args: walk.out.into_iter().map(|token| token.text).collect(),
        notes: walk.notes,
    })
}

/// An argument that stays.
#[derive(Debug)]
struct Token {
    text: OsString,
    positional: bool,
}

/// The way through the arguments.
#[derive(Debug)]
struct Walk<'a> {
    cli: &'a Command,
    subcommand: Option<&'a Command>,
    out: Vec<Token>,
    notes: Vec<String>,
    /// Ids of the options that were given.
    given: Vec<String>,
    /// Whether there was an option that nobody knows, or a model where a command's name should be.
    stray: bool,
}

impl<'a> Walk<'a> {
    fn new(cli: &'a Command) -> Self {
        Self {
            cli,
            subcommand: None,
            out: Vec::new(),
            notes: Vec::new(),
            given: Vec::new(),
            stray: false,
        }
    }

    fn all(&mut self, raw: &RawArgs) -> Result<(), Usage> {
        let mut cursor = raw.cursor();
        if let Some(program) = raw.next_os(&mut cursor) {
            self.keep(program);
        }
        while let Some(arg) = raw.next(&mut cursor) {
            let text = arg.to_value_os();
            if arg.is_escape() {
                self.keep(text);
                for rest in raw.remaining(&mut cursor) {
                    self.keep(rest);
                }
                return Ok(());
            }
            let takes_next = if let Some((name, value)) = arg.to_long() {
                self.long(text, name.ok(), value, raw.peek_os(&cursor))?
            } else if arg.is_short() && !arg.is_negative_number() {
                self.short(text, raw.peek_os(&cursor))?
            } else {
                self.positional(text)?;
                Next::Argument
            };
            match takes_next {
                Next::Argument => {}
                Next::Value => {
                    if let Some(value) = raw.next_os(&mut cursor) {
                        self.keep_value(value);
                    }
                }
                Next::Dropped => {
                    raw.next_os(&mut cursor);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, text: &OsStr) {
        self.out.push(Token {
            text: text.into(),
            positional: false,
        });
    }

    /// Keeps the value of the option before it. clap knows negative numbers by their digits, and these have none.
    fn keep_value(&mut self, value: &OsStr) {
        const NO_DIGITS: [&str; 3] = ["-inf", "-infinity", "-nan"];
        let is = |name: &&str| value.eq_ignore_ascii_case(name);
        if NO_DIGITS.iter().any(is)
            && let Some(option) = self.out.last_mut()
        {
            option.text.push("=");
            option.text.push(value);
            return;
        }
        self.keep(value);
    }

    fn positional(&mut self, text: &OsStr) -> Result<(), Usage> {
        self.refuse_other_dashes(text)?;
        if self.subcommand.is_none() {
            self.subcommand = text.to_str().and_then(|name| self.cli.find_subcommand(name));
            if self.subcommand.is_none()
                && let Some(what) = text.to_str().and_then(table::command_elsewhere)
            {
                return Err(Usage(format!("there is no command `{}`: {what}", text.display())));
            }
            self.stray |= self.subcommand.is_none() && is_model(text);
            self.keep(text);
            return Ok(());
        }
        self.out.push(Token {
            text: text.into(),
            positional: true,
        });
        Ok(())
    }

    /// Word processors and web pages make dashes longer: `–n` looks like an option and is none.
    fn refuse_other_dashes(&self, text: &OsStr) -> Result<(), Usage> {
        const DASHES: [char; 5] = ['\u{2010}', '\u{2011}', '\u{2013}', '\u{2014}', '\u{2212}'];
        let Some(typed) = text.to_str().filter(|typed| typed.starts_with(DASHES)) else {
            return Ok(());
        };
        let name = typed.trim_start_matches(|c| c == '-' || DASHES.contains(&c));
        let mut letters = name.chars();
        let first = letters.next();
        let one = first.filter(|_| letters.next().is_none());
        let (short, long) = (format!("-{name}"), format!("--{name}"));
        let meant = if one.is_some_and(|letter| self.own_short(letter).is_some())
            || table::find(self.command(), &short).is_some()
        {
            short
        } else if self.own_long(name).is_some() || table::find(self.command(), &long).is_some() {
            long
        } else if first
            .and_then(|letter| self.own_short(letter))
            .is_some_and(|arg| arg.get_action().takes_values())
            && name.chars().skip(1).all(|c| c.is_ascii_digit())
        {
            // With its number, as in `–n5`.
            short
        } else {
            return Ok(());
        };
        Err(Usage(format!(
            "{typed}: this begins with a dash that is no hyphen, perhaps from a web page; type {meant}"
        )))
    }

    /// The name of the command, `""` before it was given.
    fn command(&self) -> &'a str {
        self.subcommand.map_or("", Command::get_name)
    }

    fn own(&self, is: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
        self.subcommand
            .unwrap_or(self.cli)
            .get_arguments()
            .find(|arg| is(arg))
    }

    fn own_long(&self, name: &str) -> Option<&'a Arg> {
        self.own(|arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|names| names.contains(&name))
        })
    }

    fn own_short(&self, letter: char) -> Option<&'a Arg> {
        self.own(|arg| {
            arg.get_short() == Some(letter)
                || arg
                    .get_all_short_aliases()
                    .is_some_and(|letters| letters.contains(&letter))
        })
    }

    fn long(
        &mut self,
        text: &OsStr,
        name: Option<&str>,
        value: Option<&OsStr>,
        next: Option<&OsStr>,
    ) -> Result<Next, Usage> {
        let Some(name) = name else {
            self.stray = true;
            self.keep(text);
            return Ok(Next::Argument);
        };
        let dashed = name.replace('_', "-");
        if let Some(arg) = self.own_long(&dashed) {
            return Ok(self.take(arg, &dashed, value));
        }
        if let Some(habit) = table::find(self.command(), &format!("--{dashed}")) {
            return self.follow(habit, &format!("--{name}"), value, next);
        }
        self.stray = true;
        self.keep(text);
        Ok(Next::Argument)
    }

    /// Keeps an option of this program under its own name.
    fn take(&mut self, arg: &Arg, name: &str, value: Option<&OsStr>) -> Next {
        self.given.push(arg.get_id().to_string());
        let mut text = OsString::from(format!("--{name}"));
        if let Some(value) = value {
            text.push("=");
            text.push(value);
        }
        self.keep(&text);
        if value.is_none() && takes_next(arg) {
            Next::Value
        } else {
            Next::Argument
        }
    }

    fn short(&mut self, text: &OsStr, next: Option<&OsStr>) -> Result<Next, Usage> {
        if let Some(typed) = text.to_str() {
            let (typed, value) = match typed.split_once('=') {
                Some((name, value)) => (name, Some(OsStr::new(value))),
                None => (typed, None),
            };
            let several = typed.chars().count() > 2;
            let own = typed.chars().nth(1).and_then(|letter| self.own_short(letter));
            // Of one letter, an option of this program goes before, unless it is one of all commands and the habit is of this
            // one; of several, no one means `-n gl` by `-ngl`.
            if let Some(habit) = table::find(self.command(), typed)
                && (several || own.is_none_or(|arg| arg.is_global_set() && !habit.commands.is_empty()))
            {
                return self.follow(habit, typed, value, next);
            }
            // Nor `-t emp` by `-temp`.
            let name = typed.trim_start_matches('-').replace('_', "-");
            if several && let Some(arg) = self.own_long(&name) {
                self.notes.push(format!("{typed} is --{name} here"));
                return Ok(self.take(arg, &name, value));
            }
        }
        self.keep(text);
        // As clap reads it: flags, until one takes the rest, or the next argument, as its value.
        let shown = text.to_string_lossy();
        let mut letters = shown.chars().skip(1);
        while let Some(letter) = letters.next() {
            let Some(arg) = self.own_short(letter) else {
                self.stray = true;
                break;
            };
            self.given.push(arg.get_id().to_string());
            if arg.get_action().takes_values() {
                return Ok(if letters.next().is_none() && takes_next(arg) {
                    Next::Value
                } else {
                    Next::Argument
                });
            }
        }
        Ok(Next::Argument)
    }

    /// Does what the table says of an option.
    fn follow(
        &mut self,
        habit: &Habit,
        typed: &str,
        value: Option<&OsStr>,
        next: Option<&OsStr>,
    ) -> Result<Next, Usage> {
        match habit.meaning {
            Meaning::Refused(what) => Err(Usage(format!("{typed}: {what}"))),
            Meaning::Is(name) => {
                self.notes.push(format!("{typed} is {name} here"));
                let name = name.trim_start_matches('-');
                let own = self.own_long(name);
                let Some(arg) = own else {
                    return Err(Usage(format!(
                        "{typed}: this is --{name} here, which `twinfer {}` does not have",
                        self.command()
                    )));
                };
                Ok(self.take(arg, name, value))
            }
            Meaning::Ignored(why) => {
                let dropped = value.is_none() && next.is_some_and(|next| habit.value.is_one(next));
                let shown = match (value, next) {
                    (Some(value), _) => format!("{typed}={}", value.display()),
                    (None, Some(next)) if dropped => format!("{typed} {}", next.display()),
                    _ => typed.into(),
                };
                self.notes
                    .push(format!("{shown} makes no difference here: {why}"));
                Ok(if dropped { Next::Dropped } else { Next::Argument })
            }
        }
    }

    /// `run model.gguf "text"` means `run -m model.gguf "text"`.
    fn model_without_option(&mut self) {
        if !MODEL_COMMANDS.contains(&self.command()) || self.given.iter().any(|id| id == "model") {
            return;
        }
        let mut positionals = (0..self.out.len()).filter(|&i| self.out[i].positional);
        let Some(first) = positionals.next() else { return };
        let alone = positionals.next().is_none();
        let text = &self.out[first].text;
        // Words alone that end so are a text about a model.
        let words = text.to_string_lossy().contains(char::is_whitespace);
        if !is_model(text) || (alone && words) {
            return;
        }
        self.notes
            .push(format!("`{}` is taken for the model, as with -m", text.display()));
        self.out[first].positional = false;
        self.out.insert(
            first,
            Token {
                text: "--model".into(),
                positional: false,
            },
        );
    }

    /// `quantize in.gguf out.gguf q4_k_m 8` means 8 threads.
    fn threads_of_quantize(&mut self) {
        let positionals: Vec<usize> = (0..self.out.len()).filter(|&i| self.out[i].positional).collect();
        let (true, &[_, _, _, last]) = (self.command() == "quantize", positionals.as_slice()) else {
            return;
        };
        let number = self.out[last].text.to_str().filter(|n| n.parse::<u32>().is_ok());
        let Some(number) = number.filter(|_| !self.given.iter().any(|id| id == "threads")) else {
            return;
        };
        self.notes.push(format!(
            "`{number}` is taken for the number of threads, as with -t"
        ));
        self.out.insert(
            last,
            Token {
                text: "--threads".into(),
                positional: false,
            },
        );
    }
}

/// What the argument after an option is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// An argument by itself.
    Argument,
    /// The option's value.
    Value,
    /// The value of an option that was left out.
    Dropped,
}

fn takes_next(arg: &Arg) -> bool {
    let least = arg.get_num_args().map_or(0, |range| range.min_values());
    arg.get_action().takes_values() && least > 0 && !arg.is_require_equals_set()
}

fn is_model(text: &OsStr) -> bool {
    Path::new(text)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

impl Value {
    /// Whether an argument can be this value of an option that is left out.
    fn is_one(self, text: &OsStr) -> bool {
        let Some(text) = text.to_str() else {
            return self == Value::Any;
        };
        let number = |text: &str| text.parse::<f64>().is_ok() || matches!(text, "auto" | "all");
        match self {
            Value::None => false,
            Value::Number => text.split(',').all(number),
            Value::Switch => matches!(text, "on" | "off" | "auto" | "0" | "1" | "true" | "false"),
            Value::Any => !text.starts_with('-') || number(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn made_of(line: &[&str]) -> Result<Canonical, Usage> {
        let args = ["twinfer"].iter().chain(line).map(OsString::from);
        canonical(&mut Cli::command(), args)
    }

    #[track_caller]
    fn assert_becomes(line: &[&str], expected: &[&str], notes: usize) {
        let canonical = made_of(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert_eq!(canonical.args[1..], *expected, "{line:?}");
        assert_eq!(canonical.notes.len(), notes, "{line:?}: {:?}", canonical.notes);
    }

    #[track_caller]
    fn assert_refused(line: &[&str], says: &str) {
        let error = made_of(line).expect_err(&format!("{line:?}")).to_string();
        assert!(error.contains(says), "{line:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn options_of_this_program_stay() {
        for line in [
            &["run", "-n", "10", "Once"][..],
            &["run", "-n10", "-t4", "-qv", "--stop=x", "Once"],
            &["-t", "2", "run", "--seed", "-1", "-5"],
            &["run", "--huge-pages", "Once"],
            &["bench", "-p", "16,32", "-n", "4", "-r", "2", "-d", "0"],
            &["eval", "-p", "x", "-b", "4"],
            &["run", "-n=5", "-pOnce", "-rpc."],
            &["run", "\u{2014}Hola, dijo."],
            &["frobnicate"],
            &["run", "--tem", "1", "x"],
            &[],
        ] {
            assert_becomes(line, line, 0);
        }
    }

    #[test]
    fn values_and_what_follows_two_dashes_are_not_touched() {
        for line in [
            &["run", "--stop", "-ngl", "x"][..],
            &["run", "-r", "--jinja", "x"],
            &["run", "-p", "-ngl"],
            &["run", "-p", "--top_k"],
            &["run", "-m", "m.gguf", "x.gguf"],
            &["run", "--stop=--top_k", "x"],
            &["run", "--", "-ngl", "--jinja", "m.gguf", "x"],
            &["tokenize", "-f", "m.gguf"],
        ] {
            assert_becomes(line, line, 0);
        }
    }

    #[test]
    fn what_makes_no_difference_is_left_out() {
        assert_becomes(
            &["run", "-n", "10", "-ngl", "0", "x"],
            &["run", "-n", "10", "x"],
            1,
        );
        assert_becomes(&["run", "-ngl", "99", "x"], &["run", "x"], 1);
        assert_becomes(&["run", "-ngl", "all", "x"], &["run", "x"], 1);
        assert_becomes(&["run", "-ngl", "x"], &["run", "x"], 1);
        assert_becomes(&["run", "-ngl=99", "x"], &["run", "x"], 1);
        assert_becomes(&["run", "--n_gpu_layers=9", "x"], &["run", "x"], 1);
        assert_becomes(&["run", "-fa", "on", "x"], &["run", "x"], 1);
        assert_becomes(&["run", "-fa", "x"], &["run", "x"], 1);
        assert_becomes(
            &["run", "--no-mmap", "--jinja", "--color", "-no-cnv", "x"],
            &["run", "x"],
            4,
        );
        assert_becomes(&["-ngl", "99", "run", "x"], &["run", "x"], 1);
        assert_becomes(&["bench", "-ngl", "0,99", "-fa", "1", "-mmp", "0"], &["bench"], 3);
        assert_becomes(
            &["quantize", "--allow-requantize", "a", "b", "q8_0"],
            &["quantize", "a", "b", "q8_0"],
            1,
        );
        let notes = made_of(&["run", "-ngl", "99", "x"]).unwrap().notes;
        assert!(
            notes[0].starts_with("-ngl 99 makes no difference here"),
            "{notes:?}"
        );
    }

    #[test]
    fn other_names_become_own_ones() {
        assert_becomes(
            &["run", "--n_predict", "5", "--top_k=40", "--ctx_size", "8", "x"],
            &["run", "--predict", "5", "--top-k=40", "--ctx-size", "8", "x"],
            1,
        );
        assert_becomes(
            &["run", "-ctk", "q8_0", "-ctv", "-x", "y"],
            &["run", "--cache-type-k", "q8_0", "--cache-type-v", "-x", "y"],
            2,
        );
        assert_becomes(
            &["run", "-temp", "0", "-top_k=1", "-prompt", "x"],
            &["run", "--temp", "0", "--top-k=1", "--prompt", "x"],
            3,
        );
        assert_becomes(&["chat", "-sys", "-ngl"], &["chat", "--system", "-ngl"], 1);
        assert_becomes(
            &["tokenize", "--ids", "--no-bos", "x"],
            &["tokenize", "--json", "--no-add-special", "x"],
            2,
        );
    }

    #[test]
    fn a_model_needs_no_option() {
        assert_becomes(&["run", "m.gguf", "x"], &["run", "--model", "m.gguf", "x"], 1);
        assert_becomes(&["run", "M.GGUF"], &["run", "--model", "M.GGUF"], 1);
        assert_becomes(&["chat", "-v", "a b.gguf"], &["chat", "-v", "a b.gguf"], 0);
        assert_becomes(
            &["run", "my dir/m.gguf", "x"],
            &["run", "--model", "my dir/m.gguf", "x"],
            1,
        );
        assert_becomes(&["inspect", "m.gguf"], &["inspect", "m.gguf"], 0);
        assert_becomes(
            &["quantize", "a.gguf", "b.gguf", "q8_0", "8"],
            &["quantize", "a.gguf", "b.gguf", "q8_0", "--threads", "8"],
            1,
        );
        assert_becomes(
            &["quantize", "-t", "2", "a.gguf", "b.gguf", "q8_0", "8"],
            &["quantize", "-t", "2", "a.gguf", "b.gguf", "q8_0", "8"],
            0,
        );
    }

    #[test]
    fn what_is_not_done_here_gets_an_answer() {
        for (line, says) in [
            (&["run", "-hf", "org/repo", "-p", "hi"][..], "-m FILE"),
            (&["-hf", "org/repo"], "-m FILE"),
            (&["run", "-cnv"], "twinfer chat"),
            (&["chat", "-no-cnv"], "twinfer run"),
            (&["run", "-st", "-p", "x"], "--chat"),
            (&["run", "-tb", "2", "x"], "-t N"),
            (&["run", "-lv", "3", "x"], "-v"),
            (&["bench", "-pg", "16,4"], "-p 16 -n 4"),
            (&["bench", "-sys", "x"], "does not have"),
            (&["quantize", "--pure", "a", "b", "q4_0"], "mix"),
            (&["quantize", "--imatrix", "f", "a", "b", "q4_0"], "importance"),
            (&["chat", "-p", "x"], "run --chat"),
            (&["-m", "m.gguf", "-p", "x"], "no command"),
            (&["m.gguf"], "no command"),
            (&["server", "-m", "m.gguf"], "serve-demo"),
            (&["pull", "llama3"], "-m FILE"),
            (&["run", "\u{2013}n", "5", "x"], "type -n"),
            (&["run", "\u{2013}n5", "x"], "type -n5"),
            (&["run", "\u{2013}ngl", "5", "x"], "type -ngl"),
            (&["run", "\u{2014}temp", "5", "x"], "type --temp"),
        ] {
            assert_refused(line, says);
        }
    }

    #[test]
    fn the_table_agrees_with_the_commands() {
        let mut cli = Cli::command();
        cli.build();
        let commands: Vec<&str> = cli.get_subcommands().map(Command::get_name).collect();
        for habit in table::all() {
            for name in habit.names {
                assert!(name.starts_with('-') && !name.contains('_'), "{name}");
                let found = table::find(habit.commands.first().unwrap_or(&""), name);
                assert!(
                    found.is_some_and(|found| std::ptr::eq(found, habit)),
                    "{name} is listed twice"
                );
            }
            for command in habit.commands {
                assert!(
                    commands.contains(command),
                    "{:?}: there is no {command}",
                    habit.names
                );
                let subcommand = cli.find_subcommand(command).unwrap();
                let has = |long: &str| {
                    subcommand
                        .get_arguments()
                        .any(|arg| arg.get_long().map(|name| format!("--{name}")) == Some(long.into()))
                };
                for name in habit.names {
                    assert!(!has(name), "{command} has {name} itself");
                }
                if let Meaning::Is(own) = habit.meaning {
                    assert!(has(own), "{command} has no {own}");
                }
            }
        }
    }
}
