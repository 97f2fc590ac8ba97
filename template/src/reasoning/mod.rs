//! What a model thinks before it answers, told apart from the answer: text in, as it comes, parts out.
//!
//! Families mark their thinking in different ways, and a chat template shows which one is meant: [`Reasoning::of`]
//! finds it, and whether the prompt has begun a thought already. What stands between the marks is [`Part::Thinking`],
//! the rest [`Part::Answer`]; the marks go, and white space beside them. All other text comes out, in order, however
//! the model breaks the rules: a thought that never ends is thinking to the last character, and what has no marks is
//! the answer. How the text was cut on its way changes nothing.

mod harmony;
mod tags;

use harmony::Harmony;
use tags::{Tags, Thoughts};

/// Some text of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Of what it thinks.
    Thinking(&'a str),
    /// Of what it says.
    Answer(&'a str),
}

/// How a model's thinking is marked.
#[derive(Debug, Clone)]
pub struct Reasoning {
    format: Format,
    /// The prompt has begun a thought.
    begun: bool,
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Tags(&'static Tags),
    /// Messages with a header each, of which some are thoughts.
    Harmony,
}

/// What a template has to hold for a format; the first that fits is taken, the last one fits all.
const FORMATS: &[(&[&str], Format)] = &[
    (&["<|start|>", "<|message|>"], Format::Harmony),
    (&["<|channel>"], Format::Tags(&tags::GEMMA4)),
    (&["[THINK]"], Format::Tags(&tags::MISTRAL)),
    (&["<|START_THINKING|>"], Format::Tags(&tags::COMMAND)),
    (&["<seed:think>"], Format::Tags(&tags::SEED)),
    (&["<mm:think>"], Format::Tags(&tags::MINIMAX_M3)),
    (&["<|inner_prefix|>"], Format::Tags(&tags::APERTUS)),
    (&["<|begin|>", "<|think|>"], Format::Tags(&tags::SOLAR)),
    (&["[BEGIN FINAL RESPONSE]"], Format::Tags(&tags::APRIEL)),
    (&["<think>", "<response>"], Format::Tags(&tags::GRANITE)),
    (&[], Format::Tags(&tags::THINK)),
];

impl Reasoning {
    /// How it is marked by models with this chat template. `prompt` is what the template rendered: the answer goes on
    /// after it.
    pub fn of(template: &str, prompt: &str) -> Self {
        let fits = |needed: &[&str]| needed.iter().all(|text| template.contains(text));
        let format = FORMATS
            .iter()
            .find(|(needed, _)| fits(needed))
            .map_or(Format::Tags(&tags::THINK), |(_, format)| *format);
        let begun = match format {
            Format::Tags(tags) => prompt.trim_end().ends_with(tags.open),
            Format::Harmony => false,
        };
        Reasoning { format, begun }
    }

    /// The marks. Where they are special tokens they must be printed for [`Splitter`] to see them.
    pub fn marks(&self) -> Vec<&'static str> {
        match self.format {
            Format::Tags(tags) => tags.marks(),
            Format::Harmony => harmony::MARKS.into(),
        }
    }

    /// For one answer.
    pub fn splitter(&self) -> Splitter {
        Splitter(match self.format {
            Format::Tags(tags) => Machine::Tags(Thoughts::new(tags, self.begun)),
            Format::Harmony => Machine::Harmony(Harmony::default()),
        })
    }
}

/// Takes one answer apart as it comes.
#[derive(Debug)]
pub struct Splitter(Machine);

#[derive(Debug)]
enum Machine {
    Tags(Thoughts),
    Harmony(Harmony),
}

impl Splitter {
    /// Takes some text, and gives what is known of it: what may be the beginning of a mark is held back.
    pub fn push(&mut self, text: &str, on_part: &mut dyn FnMut(Part<'_>)) {
        match &mut self.0 {
            Machine::Tags(thoughts) => thoughts.push(text, on_part),
            Machine::Harmony(harmony) => harmony.push(text, on_part),
        }
    }

    /// The text has ended: gives what was held back.
    pub fn finish(&mut self, on_part: &mut dyn FnMut(Part<'_>)) {
        match &mut self.0 {
            Machine::Tags(thoughts) => thoughts.finish(on_part),
            Machine::Harmony(harmony) => harmony.finish(on_part),
        }
    }
}

/// Gives a part unless it is empty.
fn give(thinking: bool, text: &str, on_part: &mut dyn FnMut(Part<'_>)) {
    match thinking {
        _ if text.is_empty() => {}
        true => on_part(Part::Thinking(text)),
        false => on_part(Part::Answer(text)),
    }
}

/// Where the first of some marks stands, and which it is.
fn find_first<'m>(text: &str, marks: &[&'m str]) -> Option<(usize, &'m str)> {
    let found = marks.iter().filter_map(|mark| Some((text.find(mark)?, *mark)));
    found.min_by_key(|(at, mark)| (*at, std::cmp::Reverse(mark.len())))
}

/// Where the end of `text` begins that may become one of these marks; its length where nothing may.
fn partial_from(text: &str, marks: &[&str]) -> usize {
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    let mut from = text.len().saturating_sub(longest.saturating_sub(1));
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let begins = |at: usize| marks.iter().any(|mark| mark.starts_with(&text[at..]));
    text[from..]
        .char_indices()
        .map(|(i, _)| from + i)
        .find(|&at| begins(at))
        .unwrap_or(text.len())
}

/// Length without the white space at the end.
fn trimmed(text: &str) -> usize {
    text.trim_end().len()
}
