//! What a model says in a conversation, printed as it comes: its thinking dimmed or not at all, then the answer.

use std::io::{IsTerminal as _, stdout};

use anyhow::Result;
use twinfer_template::reasoning::{Part, Reasoning, Splitter};

use crate::output;

/// Prints an answer, and keeps it.
#[derive(Debug)]
pub(crate) struct Answer {
    splitter: Splitter,
    shown: Shown,
    /// What it thought.
    pub(crate) thinking: String,
    /// What it said.
    pub(crate) text: String,
    /// What was printed ends a line.
    ends_line: bool,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// All of it as it came, for a file or another program, which can tell by the marks what is what.
    Raw,
    /// Thinking, dimmed, and the answer.
    Both,
    AnswerOnly,
}

impl Answer {
    /// Of a model whose thinking is marked so; `hide`: it is not printed.
    pub(crate) fn new(reasoning: &Reasoning, hide: bool) -> Self {
        let shown = match (hide, stdout().is_terminal()) {
            (true, _) => Shown::AnswerOnly,
            (false, true) => Shown::Both,
            (false, false) => Shown::Raw,
        };
        Self::shown_as(reasoning, shown)
    }

    fn shown_as(reasoning: &Reasoning, shown: Shown) -> Self {
        Answer {
            splitter: reasoning.splitter(),
            shown,
            thinking: String::new(),
            text: String::new(),
            ends_line: true,
        }
    }

    /// Some text came.
    pub(crate) fn push(&mut self, text: &str) -> Result<()> {
        if self.shown == Shown::Raw {
            self.print(text, false)?;
        }
        let mut parts = Vec::new();
        self.splitter.push(text, &mut |part| parts.push(owned(part)));
        self.take(&parts)
    }

    /// No more will come: prints what was held back and ends the line.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let mut parts = Vec::new();
        self.splitter.finish(&mut |part| parts.push(owned(part)));
        self.take(&parts)?;
        if !self.ends_line {
            output::to_stdout("\n")?;
        }
        if self.shown == Shown::AnswerOnly && self.text.is_empty() && !self.thinking.is_empty() {
            output::note(
                "[the model thought and said nothing; without --hide-thinking its thoughts are shown]",
            );
        }
        Ok(())
    }

    fn take(&mut self, parts: &[(bool, String)]) -> Result<()> {
        for (thinking, text) in parts {
            if *thinking {
                self.thinking += text;
                if self.shown == Shown::Both {
                    self.print(text, true)?;
                }
                continue;
            }
            if self.shown == Shown::Both && self.text.is_empty() && !self.thinking.is_empty() {
                self.print(if self.ends_line { "\n" } else { "\n\n" }, false)?;
            }
            self.text += text;
            if self.shown != Shown::Raw {
                self.print(text, false)?;
            }
        }
        Ok(())
    }

    fn print(&mut self, text: &str, dimmed: bool) -> Result<()> {
        if let Some(last) = text.chars().last() {
            self.ends_line = last == '\n';
        }
        if dimmed {
            output::generated_dimmed(text)
        } else {
            output::generated(text)
        }
    }
}

fn owned(part: Part<'_>) -> (bool, String) {
    match part {
        Part::Thinking(text) => (true, text.into()),
        Part::Answer(text) => (false, text.into()),
    }
}
