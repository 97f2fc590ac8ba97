//! How a command fails: one line on stderr, and an exit code that says which kind of failure it was.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::address_space;
use crate::args::ParseError;

/// How a command ended, where it did not end well: what the exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The reader of stdout closed it: it has what it wanted, and nothing failed.
    ReaderGone,
    /// Anything that has no code of its own: a file, the model, the machine. Which of them it was, the line on stderr says: to scripts
    /// 1 is failure, and more codes would be of this program alone.
    Failed,
    /// The command line is wrong; clap uses the same code.
    Usage,
    /// Stopped by Ctrl-C.
    Interrupted,
}

/// The exit code of what has none of its own.
pub(crate) const FAILED: u8 = 1;

impl Kind {
    fn of(error: &anyhow::Error) -> Self {
        let closed_pipe = |e: &(dyn std::error::Error + 'static)| {
            e.downcast_ref::<io::Error>().is_some_and(error_is_closed_pipe)
        };
        if error.chain().any(closed_pipe) {
            Kind::ReaderGone
        } else if error.is::<Interrupted>() {
            Kind::Interrupted
        } else if error.is::<Usage>() {
            Kind::Usage
        } else {
            Kind::Failed
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Kind::ReaderGone => 0,
            Kind::Failed => FAILED,
            Kind::Usage => 2,
            Kind::Interrupted => 130,
        }
    }
}

/// The person pressed Ctrl-C; what was asked for is not complete.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Arguments that parse but make no sense together.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn error_is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Prints the error and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let kind = Kind::of(error);
    match kind {
        // Whoever stopped it knows, and whoever closed the pipe does not listen.
        Kind::ReaderGone | Kind::Interrupted => {}
        Kind::Failed | Kind::Usage => {
            let mut text = format!("{error:#}");
            if let Some(limit) = address_space::behind(error) {
                text = format!("{text}; {limit}");
            }
            // Nowhere is left to complain where stderr is closed.
            let _ = crate::output::to_stderr(&format!("error: {}", one_line(&text)));
        }
    }
    ExitCode::from(kind.exit_code())
}

/// A file that cannot be opened or read. A name that is no text and that no file has is a damaged argument rather than
/// a missing file; for others that no file has, there may be advice.
pub(crate) fn no_file(path: &Path, verb: &str, error: io::Error) -> anyhow::Error {
    let what = format!("cannot {verb} `{}`", path.display());
    if error.kind() != io::ErrorKind::NotFound {
        return anyhow::Error::new(error).context(what);
    }
    let Some(name) = path.to_str() else {
        return Usage(format!(
            "{what}: its name is not UTF-8 text, and there is no such file"
        ))
        .into();
    };
    let advice = if name == "-" {
        "stdin is not read here; give a file"
    } else if name.starts_with("~/") {
        "the shell did not replace ~, which it does only at the beginning of a word: put a space before it"
    } else if name.contains("://") {
        "nothing is downloaded here; download the file yourself and give its name"
    } else {
        return anyhow::Error::new(error).context(what);
    };
    anyhow::anyhow!("{what}: there is no such file; {advice}")
}

/// Prints help and versions as they are, and what is wrong with a command line as one line.
pub(crate) fn report_usage(error: ParseError) -> ExitCode {
    use clap::error::ErrorKind;
    let (mut error, command) = match error {
        ParseError::Usage(usage) => return report(&usage.into()),
        ParseError::Clap { error, command } => (error, command),
    };
    let help = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || error.kind() == help {
        return match error.print() {
            Err(error) if !error_is_closed_pipe(&error) => report(&error.into()),
            _ => ExitCode::from(if error.use_stderr() {
                Kind::Usage.exit_code()
            } else {
                0
            }),
        };
    }
    remove_far_tips(&mut error);
    let text = error.render().to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        // This advice is right only for text that begins with a dash by chance.
        .filter(|line| !line.is_empty() && !line.starts_with("tip: to pass"));
    let mut line = String::new();
    for part in lines {
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') { " " } else { "; " });
        }
        line.push_str(part);
    }
    let program = match command {
        Some(name) => format!("twinfer {name}"),
        None => "twinfer".into(),
    };
    let _ = crate::output::to_stderr(&format!("{}; see `{program} --help`", one_line(&line)));
    ExitCode::from(Kind::Usage.exit_code())
}

/// Takes those tips out that are farther from what was typed than a slip of the fingers.
fn remove_far_tips(error: &mut clap::Error) {
    use clap::error::{ContextKind as Kind, ContextValue as Context};
    for (typed, suggested) in [
        (Kind::InvalidArg, Kind::SuggestedArg),
        (Kind::InvalidSubcommand, Kind::SuggestedSubcommand),
        (Kind::InvalidValue, Kind::SuggestedValue),
        // An option of a command that follows, as in "'run --prompt' exists".
        (Kind::InvalidArg, Kind::Suggested),
    ] {
        let Some(Context::String(typed)) = error.get(typed).cloned() else {
            continue;
        };
        let near = |tip: &String| is_slip(&typed, tip);
        let kept = match error.remove(suggested) {
            Some(Context::String(tip)) if near(&tip) => Context::String(tip),
            Some(Context::Strings(tips)) if tips.iter().any(near) => {
                Context::Strings(tips.into_iter().filter(near).collect())
            }
            Some(Context::StyledStrs(mut tips)) => {
                tips.retain(|tip| {
                    let tip = tip.to_string();
                    tip.split('\'')
                        .filter_map(|quoted| quoted.rsplit(' ').next())
                        .filter(|word| word.starts_with("--"))
                        .all(|word| is_slip(&typed, word))
                });
                Context::StyledStrs(tips)
            }
            _ => continue,
        };
        error.insert(suggested, kept);
    }
}

/// Whether two names are at most two letters apart: wrong, missing, too many, or in each other's place.
fn is_slip(typed: &str, tip: &str) -> bool {
    let name = |text: &str| -> String {
        let name = text.trim_start_matches('-');
        // What is the option's value, in what was typed and in a tip such as `--stop <TEXT>`.
        name.split(['=', ' ']).next().unwrap_or_default().to_string()
    };
    strsim::damerau_levenshtein(&name(typed), &name(tip)) <= 2
}

/// Text of the command line or a file with nothing in it that ends a line or that a terminal would obey.
fn one_line(text: &str) -> String {
    crate::output::printable(&text.replace(['\n', '\r', '\t'], " "))
}

/// Ends the process with an error, from a place that cannot return.
#[cfg(target_os = "linux")]
pub(crate) fn exit_failed(error: &anyhow::Error) -> ! {
    crate::terminal::restore();
    let _ = report(error);
    let _held = crate::output_file::remove_unfinished();
    std::process::exit(FAILED.into())
}

/// Ends the process as after Ctrl-C, from a place that cannot return.
pub(crate) fn exit_interrupted() -> ! {
    let _held = crate::output_file::remove_unfinished();
    std::process::exit(i32::from(Kind::Interrupted.exit_code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn what_was_added_to_an_error_hides_no_kind() {
        let of = |error: anyhow::Error| {
            let error = Err::<(), _>(error).context("while it ran").unwrap_err();
            Kind::of(&error)
        };
        assert_eq!(of(Usage("no such option".into()).into()), Kind::Usage);
        assert_eq!(of(Interrupted.into()), Kind::Interrupted);
        assert_eq!(
            of(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            Kind::ReaderGone
        );
        assert_eq!(
            of(io::Error::from(io::ErrorKind::StorageFull).into()),
            Kind::Failed
        );
        // A text that reads like a kind is none.
        assert_eq!(of(anyhow::anyhow!("interrupted")), Kind::Failed);
    }

    #[test]
    fn tips_are_slips() {
        for (typed, tip) in [
            ("--tem", "--temp"),
            ("--sede=5", "--seed"),
            ("rnu", "run"),
            ("--stpo", "--stop <TEXT>"),
        ] {
            assert!(is_slip(typed, tip), "{typed} {tip}");
        }
        for (typed, tip) in [
            ("--prompt", "--populate"),
            ("--chat-template", "--temp"),
            ("--no-mmap", "--top-nsigma"),
        ] {
            assert!(!is_slip(typed, tip), "{typed} {tip}");
        }
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        assert_eq!(one_line("a\nb\x1b[31m\u{9b}c"), "a b\u{fffd}[31m\u{fffd}c");
    }
}
