//! Messages with headers, as gpt-oss writes them (OpenAI's Harmony format), and Muse Glimmer:
//! `HEADER<|message|>TEXT<|end|>`, `<|start|>` and the next header. The header says what the message is:
//! `<|channel|>analysis` or `to=self` a thought, `<|channel|>final` or `<|channel|>commentary` something said. Messages
//! with other headers, calls of tools above all, stay as they are in the answer, header and all.

use super::{Part, find_first, give, partial_from, trimmed};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const CONSTRAIN: &str = "<|constrain|>";
const TO: &str = " to=";
const ROLE: &str = "assistant";
/// What ends a message.
const ENDS: [&str; 5] = ["<|end|>", "<|return|>", "<|call|>", "<|eom|>", START];

pub(super) const MARKS: &[&str] = &[
    START, CHANNEL, MESSAGE, CONSTRAIN, "<|end|>", "<|call|>", "<|eom|>",
];

/// A header is no longer than this; what is longer is text.
const LONGEST_HEADER: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a header, of which the part behind `<|start|>` is held.
    Header,
    /// In a message; at its beginning white space goes.
    Opened(Kind),
    Message(Kind),
    /// Behind a message.
    Between,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thought,
    Said,
    /// A call, or what nobody knows.
    Call,
}

/// Takes a text apart; the prompt ends in a header.
#[derive(Debug)]
pub(super) struct Harmony {
    state: State,
    held: String,
    /// Something was given, as a thought or not: another one of its kind is told apart from it.
    given: [bool; 2],
}

impl Default for Harmony {
    fn default() -> Self {
        Harmony {
            state: State::Header,
            held: String::new(),
            given: [false; 2],
        }
    }
}

impl Harmony {
    pub(super) fn push(&mut self, text: &str, on_part: &mut dyn FnMut(Part<'_>)) {
        self.held.push_str(text);
        while self.step(on_part) {}
    }

    fn step(&mut self, on_part: &mut dyn FnMut(Part<'_>)) -> bool {
        match self.state {
            State::Header => {
                let whole = |at: &usize| at + MESSAGE.len() <= LONGEST_HEADER;
                if let Some(at) = self.held.find(MESSAGE).filter(whole) {
                    if may_be_header(&self.held[..at + MESSAGE.len()]) {
                        let header = &self.held[..at];
                        let header = header.strip_prefix(START).unwrap_or(header);
                        let header = header.strip_prefix(ROLE).unwrap_or(header).to_owned();
                        let kind = kind(&header);
                        self.held.drain(..at + MESSAGE.len());
                        self.state = State::Opened(kind);
                        if kind == Kind::Call {
                            self.begin(false, on_part);
                            give(false, &format!("{header}{MESSAGE}"), on_part);
                        }
                        return true;
                    }
                } else if self.held.len() < LONGEST_HEADER && may_be_header(&self.held) {
                    return false;
                }
                // No header: what the model says without one.
                self.state = State::Opened(Kind::Said);
                true
            }
            State::Opened(kind) => {
                if kind != Kind::Call {
                    let space = self.held.len() - self.held.trim_start().len();
                    self.held.drain(..space);
                }
                // An empty message leaves no trace.
                if self.held.is_empty() || partial_from(&self.held, &ENDS) == 0 {
                    return self.end_of_message(on_part, kind);
                }
                if find_first(&self.held, &ENDS).is_some_and(|(at, _)| at == 0) {
                    return self.end_of_message(on_part, kind);
                }
                if kind != Kind::Call {
                    self.begin(kind == Kind::Thought, on_part);
                }
                self.state = State::Message(kind);
                true
            }
            State::Message(kind) => self.end_of_message(on_part, kind),
            State::Between => {
                let text = self.held.trim_start();
                if text.is_empty() || START.starts_with(text) {
                    return false;
                }
                if let Some(rest) = text.strip_prefix(START) {
                    self.held = rest.to_owned();
                }
                self.state = State::Header;
                true
            }
        }
    }

    /// Gives what is known of a message, and goes on behind its end where that is there.
    fn end_of_message(&mut self, on_part: &mut dyn FnMut(Part<'_>), kind: Kind) -> bool {
        let thinking = kind == Kind::Thought;
        match find_first(&self.held, &ENDS) {
            Some((at, mark)) => {
                let text = &self.held[..at];
                let known = if kind == Kind::Call { at } else { trimmed(text) };
                give(thinking, &text[..known], on_part);
                if kind == Kind::Call && mark != START {
                    give(false, mark, on_part);
                }
                self.held.drain(..at + mark.len());
                self.state = if mark == START {
                    State::Header
                } else {
                    State::Between
                };
                true
            }
            None => {
                let known = partial_from(&self.held, &ENDS);
                let known = match kind {
                    Kind::Call => known,
                    _ => trimmed(&self.held[..known]),
                };
                give(thinking, &self.held[..known], on_part);
                self.held.drain(..known);
                false
            }
        }
    }

    /// A message begins: a line between it and one of its kind before it.
    fn begin(&mut self, thinking: bool, on_part: &mut dyn FnMut(Part<'_>)) {
        if std::mem::replace(&mut self.given[usize::from(thinking)], true) {
            give(thinking, "\n\n", on_part);
        }
    }

    pub(super) fn finish(&mut self, on_part: &mut dyn FnMut(Part<'_>)) {
        let rest = std::mem::take(&mut self.held);
        let text = &rest[..trimmed(&rest)];
        match self.state {
            // A header that nothing followed, or text without one.
            State::Header | State::Between | State::Opened(Kind::Said) if !text.is_empty() => {
                self.begin(false, on_part);
                give(false, text.trim_start(), on_part);
            }
            State::Opened(kind) if !text.is_empty() => {
                if kind == Kind::Thought {
                    self.begin(true, on_part);
                }
                give(kind == Kind::Thought, text, on_part);
            }
            State::Message(kind) => give(kind == Kind::Thought, text, on_part),
            State::Header | State::Between | State::Opened(_) => {}
        }
        self.state = State::Between;
    }
}

/// Whether a text may be a header, or the beginning of one: a role, a recipient, a channel, the type of the content.
fn may_be_header(text: &str) -> bool {
    let text = text.strip_prefix(START).unwrap_or(text);
    if find_first(text, &ENDS).is_some() {
        return false;
    }
    let begins = |mark: &str| text.starts_with(mark) || mark.starts_with(text);
    if [START, CHANNEL, MESSAGE, CONSTRAIN, TO].into_iter().any(begins) {
        return true;
    }
    // The role may be followed by nothing but a recipient and marks.
    let words = match text.find("<|") {
        Some(at) => &text[..at],
        None => text.strip_suffix('<').unwrap_or(text),
    };
    match words.strip_prefix(ROLE) {
        Some(rest) => rest.trim_end().is_empty() || rest.starts_with(TO) || TO.starts_with(rest),
        None => words.len() == text.len() && ROLE.starts_with(words),
    }
}

/// What a message of this header is, without role. What is not known stays as it is.
fn kind(header: &str) -> Kind {
    let (before, channel) = header.split_once(CHANNEL).unwrap_or((header, ""));
    match (before.trim(), channel.trim()) {
        ("", "analysis") | ("to=self", "") => Kind::Thought,
        ("", "" | "final" | "commentary") => Kind::Said,
        _ => Kind::Call,
    }
}
