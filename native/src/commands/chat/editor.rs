//! Reading what the person types: line editing, several lines, history. Where stdin is not a terminal, each line of it is
//! a question.

use std::io::{BufRead as _, ErrorKind, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Event, EventContext, EventHandler, Helper, KeyCode, KeyEvent,
    Modifiers, RepeatCount,
};

use crate::{interrupt, output};

const PROMPT: &str = "> ";
const MAX_HISTORY: usize = 1000;
const COMMANDS: [&str; 10] = [
    "/help",
    "/system ",
    "/reset",
    "/regenerate",
    "/edit ",
    "/undo",
    "/show",
    "/save ",
    "/load ",
    "/exit",
];

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Line(String),
    /// Ctrl-C: the line was given up.
    Cancelled,
    /// Ctrl-C where nothing was typed: perhaps to leave.
    CancelledEmpty,
    /// A line that is not text, and what is wrong with it.
    Refused(String),
    /// Ctrl-D, or the end of stdin.
    End,
}

pub(super) struct Editor {
    /// `None` where lines come as they are: stdin is not a terminal, or one that nothing is known of.
    lines: Option<rustyline::Editor<Multiline, FileHistory>>,
    history: Option<PathBuf>,
    /// Whether a person types.
    interactive: bool,
    /// Whether Ctrl-C was pressed on an empty line.
    was_empty: Arc<AtomicBool>,
}

impl Editor {
    pub(super) fn new(keep_history: bool) -> Result<Self> {
        let interactive = std::io::stdin().is_terminal();
        let was_empty = Arc::new(AtomicBool::new(false));
        if !interactive || output::terminal_is_unknown() {
            return Ok(Self {
                lines: None,
                history: None,
                interactive,
                was_empty,
            });
        }
        // From here on signals put the terminal back in order.
        interrupt::install();
        let config = Config::builder()
            .max_history_size(MAX_HISTORY)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .build();
        let mut lines = rustyline::Editor::with_config(config).context("cannot use the terminal")?;
        lines.set_helper(Some(Multiline));
        lines.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
        // Ctrl-J stays Enter: that is what the terminal makes of an Enter typed while an answer is written.
        lines.bind_sequence(
            KeyEvent(KeyCode::Char('C'), Modifiers::CTRL),
            EventHandler::Conditional(Box::new(CtrlC(Arc::clone(&was_empty)))),
        );
        let history = keep_history.then(history_file).flatten();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = lines.load_history(path);
        }
        Ok(Self {
            lines: Some(lines),
            history,
            interactive,
            was_empty,
        })
    }

    /// Whether a person types.
    pub(super) fn interactive(&self) -> bool {
        self.interactive
    }

    pub(super) fn read(&mut self) -> Result<Input> {
        let Some(lines) = &mut self.lines else {
            if self.interactive {
                output::to_stdout(PROMPT)?;
            }
            let mut line = Vec::new();
            let mut stdin = std::io::stdin().lock();
            stdin.read_until(b'\n', &mut line).context("cannot read stdin")?;
            return Ok(match String::from_utf8(line) {
                Ok(line) if line.is_empty() => Input::End,
                Ok(line) => Input::Line(line),
                Err(error) => Input::Refused(format!(
                    "this line is not UTF-8 text (at byte {}) and was left out",
                    error.utf8_error().valid_up_to()
                )),
            });
        };
        let read = {
            #[cfg(target_os = "linux")]
            let _editing = crate::terminal::Editing::new();
            lines.readline(PROMPT)
        };
        match read {
            Ok(line) => {
                // What cannot enter the history is still a question.
                let _ = lines.add_history_entry(line.as_str());
                Ok(Input::Line(line.replace("\\\n", "\n")))
            }
            Err(ReadlineError::Interrupted) if self.was_empty.swap(false, Ordering::Relaxed) => {
                Ok(Input::CancelledEmpty)
            }
            Err(ReadlineError::Interrupted) => Ok(Input::Cancelled),
            Err(ReadlineError::Eof) => Ok(Input::End),
            // The cursor stands where the typing ended.
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => Ok(Input::Refused(
                "\nthis line is not UTF-8 text and was left out; does the terminal send UTF-8?".into(),
            )),
            Err(error) => Err(error).context("cannot read from the terminal"),
        }
    }

    /// Writes the history; a conversation does not fail for it.
    pub(super) fn save(&mut self) {
        let (Some(lines), Some(path)) = (&mut self.lines, &self.history) else {
            return;
        };
        if let Some(directory) = path.parent() {
            let _ = std::fs::create_dir_all(directory);
        }
        let _ = lines.save_history(path);
    }
}

/// `$XDG_STATE_HOME/twinfer/chat-history`, or under `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("twinfer/chat-history"))
}

/// Ctrl-C, and whether the line was empty then.
struct CtrlC(Arc<AtomicBool>);

impl ConditionalEventHandler for CtrlC {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(context.line().is_empty(), Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

/// A backslash at the end continues the line; Tab completes commands.
struct Multiline;

impl Helper for Multiline {}
impl Highlighter for Multiline {}

impl Hinter for Multiline {
    type Hint = String;
}

impl Validator for Multiline {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if context.input().ends_with('\\') {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Completer for Multiline {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..position).unwrap_or(line);
        let matches = COMMANDS
            .iter()
            .filter(|command| !typed.is_empty() && command.starts_with(typed));
        Ok((0, matches.map(|command| command.to_string()).collect()))
    }
}
