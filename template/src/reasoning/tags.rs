//! Thoughts between an opening and a closing mark.

use super::{Part, find_first, give, partial_from, trimmed};

/// The marks of a family.
#[derive(Debug)]
pub(super) struct Tags {
    pub(super) open: &'static str,
    close: &'static str,
    /// A thought may begin anywhere, since the mark is a token of its own; else only at the beginning, for an answer
    /// may well be about the mark.
    anywhere: bool,
    /// Texts that may stand before an answer, and are no part of it.
    before: &'static [&'static str],
    /// Texts that may stand behind one.
    behind: &'static [&'static str],
}

const fn plain(open: &'static str, close: &'static str) -> Tags {
    Tags {
        open,
        close,
        anywhere: false,
        before: &[],
        behind: &[],
    }
}

const fn tokens(open: &'static str, close: &'static str) -> Tags {
    Tags {
        anywhere: true,
        ..plain(open, close)
    }
}

/// Qwen 3, DeepSeek, GLM, MiniMax M2, Nemotron, LFM2.5, Kimi, SmolLM 3 and most others.
pub(super) const THINK: Tags = plain("<think>", "</think>");

pub(super) const SEED: Tags = plain("<seed:think>", "</seed:think>");

pub(super) const MINIMAX_M3: Tags = plain("<mm:think>", "</mm:think>");

/// Granite 3.2 and 3.3 mark the answer as well.
pub(super) const GRANITE: Tags = Tags {
    before: &["<response>"],
    behind: &["</response>"],
    ..THINK
};

pub(super) const MISTRAL: Tags = tokens("[THINK]", "[/THINK]");

pub(super) const GEMMA4: Tags = tokens("<|channel>thought", "<channel|>");

pub(super) const APERTUS: Tags = tokens("<|inner_prefix|>", "<|inner_suffix|>");

pub(super) const COMMAND: Tags = Tags {
    before: &["<|START_RESPONSE|>", "<|START_TEXT|>"],
    behind: &["<|END_RESPONSE|>", "<|END_TEXT|>"],
    ..tokens("<|START_THINKING|>", "<|END_THINKING|>")
};

/// Thought and answer are messages.
pub(super) const SOLAR: Tags = Tags {
    before: &["<|begin|>assistant<|content|>", "<|content|>"],
    ..tokens("<|think|>", "<|end|>")
};

/// The template begins every answer with the thought.
pub(super) const APRIEL: Tags = plain("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]");

impl Tags {
    pub(super) fn marks(&self) -> Vec<&'static str> {
        let mut marks = vec![self.open, self.close];
        marks.extend(self.before);
        marks.extend(self.behind);
        // A mark of several tokens is printed if each of them is.
        for (whole, tokens) in [
            (GEMMA4.open, &["<|channel>"][..]),
            (SOLAR.before[0], &["<|begin|>"]),
        ] {
            if marks.contains(&whole) {
                marks.extend(tokens);
            }
        }
        marks
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space yet.
    Start,
    /// At the beginning of a thought.
    Opened,
    Thinking,
    /// Behind a thought, at the beginning of what is said.
    Closed,
    Answer,
}

/// Takes a text apart.
#[derive(Debug)]
pub(super) struct Thoughts {
    tags: &'static Tags,
    state: State,
    /// What is not given yet.
    held: String,
}

impl Thoughts {
    pub(super) fn new(tags: &'static Tags, begun: bool) -> Self {
        Thoughts {
            tags,
            state: if begun { State::Opened } else { State::Start },
            held: String::new(),
        }
    }

    pub(super) fn push(&mut self, text: &str, on_part: &mut dyn FnMut(Part<'_>)) {
        self.held.push_str(text);
        while self.step(on_part) {}
    }

    /// Goes on to another state, or gives what can be given; whether it went on.
    fn step(&mut self, on_part: &mut dyn FnMut(Part<'_>)) -> bool {
        let tags = self.tags;
        match self.state {
            State::Start => match self.begins(&[tags.open, tags.close]) {
                Begin::Open => false,
                Begin::With(mark) if mark == tags.open => self.go(State::Opened),
                Begin::With(_) => self.go(State::Closed),
                Begin::Other => match self.begins(tags.before) {
                    Begin::Open => false,
                    Begin::With(_) => self.go(State::Closed),
                    Begin::Other => self.go(State::Answer),
                },
            },
            // Where the prompt has begun the thought, the model may do so once more.
            State::Opened => match self.begins(&[tags.open]) {
                Begin::Open => false,
                Begin::With(_) => true,
                Begin::Other => {
                    self.drop_space();
                    self.go(State::Thinking)
                }
            },
            State::Thinking => match find_first(&self.held, &[tags.close]) {
                Some((at, mark)) => {
                    let thought = &self.held[..at];
                    give(true, &thought[..trimmed(thought)], on_part);
                    self.held.drain(..at + mark.len());
                    self.go(State::Closed)
                }
                None => {
                    let known = trimmed(&self.held[..partial_from(&self.held, &[tags.close])]);
                    self.give(true, known, on_part)
                }
            },
            State::Closed => {
                let again = tags.anywhere.then_some(tags.open);
                let marks: Vec<&str> = tags.before.iter().copied().chain(again).collect();
                match self.begins(&marks) {
                    Begin::Open => false,
                    Begin::With(mark) if Some(mark) == again => self.go(State::Opened),
                    Begin::With(_) => true,
                    Begin::Other => {
                        self.drop_space();
                        self.go(State::Answer)
                    }
                }
            }
            State::Answer => {
                let within: &[&str] = match tags.anywhere {
                    true => &[tags.open, tags.close],
                    false => &[],
                };
                match find_first(&self.held, within) {
                    Some((at, mark)) => {
                        give(false, &self.held[..at], on_part);
                        self.held.drain(..at + mark.len());
                        self.go(match mark == tags.open {
                            true => State::Opened,
                            false => State::Closed,
                        })
                    }
                    None => {
                        // What stands behind an answer is known at the end alone.
                        let marks: Vec<&str> = within.iter().chain(tags.behind).copied().collect();
                        let whole = tags.behind.iter().find_map(|mark| {
                            let at = trimmed(&self.held).checked_sub(mark.len())?;
                            self.held[..trimmed(&self.held)].ends_with(mark).then_some(at)
                        });
                        let known = whole.unwrap_or_else(|| partial_from(&self.held, &marks));
                        let known = match tags.behind {
                            [] => known,
                            _ => trimmed(&self.held[..known]),
                        };
                        self.give(false, known, on_part)
                    }
                }
            }
        }
    }

    pub(super) fn finish(&mut self, on_part: &mut dyn FnMut(Part<'_>)) {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Start => give(false, &rest, on_part),
            State::Opened => give(true, rest.trim(), on_part),
            State::Thinking => give(true, &rest[..trimmed(&rest)], on_part),
            State::Closed => give(false, rest.trim(), on_part),
            State::Answer => {
                let text = rest.trim_end();
                let behind = self.tags.behind.iter().find_map(|mark| text.strip_suffix(mark));
                give(false, behind.map_or(&*rest, str::trim_end), on_part);
            }
        }
        self.state = State::Answer;
    }

    fn go(&mut self, state: State) -> bool {
        self.state = state;
        true
    }

    /// Gives the first `n` bytes of what is held.
    fn give(&mut self, thinking: bool, n: usize, on_part: &mut dyn FnMut(Part<'_>)) -> bool {
        give(thinking, &self.held[..n], on_part);
        self.held.drain(..n);
        false
    }

    fn drop_space(&mut self) {
        let space = self.held.len() - self.held.trim_start().len();
        self.held.drain(..space);
    }

    /// Whether what is held begins with one of these, white space aside; the mark goes then.
    fn begins(&mut self, marks: &[&'static str]) -> Begin {
        let text = self.held.trim_start();
        let space = self.held.len() - text.len();
        if let Some(mark) = marks.iter().find(|mark| text.starts_with(**mark)) {
            self.held.drain(..space + mark.len());
            return Begin::With(mark);
        }
        if text.is_empty() || marks.iter().any(|mark| mark.starts_with(text)) {
            return Begin::Open;
        }
        Begin::Other
    }
}

/// How a text begins.
enum Begin {
    With(&'static str),
    /// More of it is needed to know.
    Open,
    Other,
}
