//! Chat templates: Jinja as Hugging Face's `apply_chat_template` renders it.
//!
//! What a template sees is Python: its values, operators, methods and format languages, Jinja's filters, tests and
//! statements with jinja2's results, and `raise_exception`, `strftime_now`, `tojson`, loop controls and the
//! `generation` tag. Blocks are trimmed as Hugging Face configures it (`trim_blocks`, `lstrip_blocks`).
//!
//! # Why not a crate
//! A template is text for Python, and what the well-kept crate for Jinja (minijinja 3.1, with `pycompat` of
//! minijinja-contrib) makes of it is not Python's: it renders 1,958 of the 2,548 small templates in `tests/data` and
//! 972 of 1,414 reference renderings as jinja2 does. Filters, tests, methods and printing can be replaced there; what
//! its grammar and its machine decide cannot: operators (`none < 1` is true, sums of lists are lazy, `-true` and `"%s"
//! % x` are errors), the `generation` tag, escapes in strings, lists that can be appended to, and the work of comparing
//! and printing, which its fuel does not see. With a translator in front of it that can be had, but then there are two
//! grammars for one language. Here is one (`lexer`, `parser`, `ast`), evaluated as it stands (`render`, `eval`). From
//! crates come the ordered map, JSON and the power of floats.
//!
//! A template comes with a model file and is not trusted. Its size, its nesting, the work of a rendering, the size of
//! every value and of the output are bounded; what exceeds a bound is an error.
//!
//! Known to differ from Python: other templates cannot be loaded (`include`, `import`, `extends`); the filter `urlize`
//! is left out, and `striptags` knows few entities by name; integers have 127 bits; filters that are generators there
//! do their work at once; `random` chooses the same in every rendering; a container that another one holds cannot be
//! changed (Hugging Face's sandbox lets none be changed).

mod args;
mod ast;
mod error;
mod eval;
mod filters;
mod format;
mod functions;
mod json;
mod lexer;
mod methods;
mod operators;
mod parser;
mod predicates;
pub mod reasoning;
mod render;
mod repr;
mod strings;
mod text_filters;
mod time;
mod value;
mod variants;

use std::sync::Arc;

use serde_json::{Map, Value as Json};

pub use self::error::{Error, Result};
pub use self::render::MAX_OUTPUT;
pub use self::time::CivilTime;
pub use self::variants::{DEFAULT, Templates};

use self::error::Fail;
use self::render::{Rendering, Scope};

/// Work of any rendering.
const BASE_WORK: u64 = 3_000_000;
/// More work per value of the input, since templates loop over it, often in each message over all messages.
const WORK_PER_VALUE: u64 = 6_000;
const MAX_WORK: u64 = 60_000_000;

/// The ChatML template, for models that come without one, if the caller wants that.
pub const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
    {% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A template, parsed once; render it as often as needed, from any thread.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    block: Arc<ast::Block>,
    source: Arc<str>,
}

/// The variables of one rendering.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// All variables by name: `messages`, `tools`, `add_generation_prompt`, `bos_token`, and whatever else the
    /// template knows, such as `enable_thinking`.
    pub variables: Map<String, Json>,
    /// What `strftime_now` prints.
    pub now: CivilTime,
}

impl Inputs {
    /// A conversation as Hugging Face passes it: `messages` (an array of objects with `role` and `content`), no tools
    /// and no documents, with or without the beginning of an answer.
    pub fn chat(messages: Json, add_generation_prompt: bool, now: CivilTime) -> Self {
        let mut variables = Map::new();
        variables.insert("messages".into(), messages);
        variables.insert("tools".into(), Json::Null);
        variables.insert("documents".into(), Json::Null);
        variables.insert("add_generation_prompt".into(), add_generation_prompt.into());
        Self { variables, now }
    }

    /// Adds or replaces a variable.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }
}

impl ChatTemplate {
    /// Parses a template. Errors are [`Error::Template`] with the line, or [`Error::Limit`] for one that is too
    /// long or nests too deep.
    pub fn new(source: &str) -> Result<Self> {
        Ok(Self {
            block: Arc::new(parser::parse(source)?),
            source: source.into(),
        })
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. Errors: [`Error::Template`] with the line for what Jinja or the template itself
    /// refuses, [`Error::Limit`] for too much work or output.
    pub fn render(&self, inputs: &Inputs) -> Result<String> {
        let values = inputs.variables.values().map(count).fold(0, u64::saturating_add);
        let work = BASE_WORK
            .saturating_add(values.saturating_mul(WORK_PER_VALUE))
            .min(MAX_WORK);
        let rendering = Rendering::new(work.saturating_add(values), inputs.now);
        let rendered = self.render_in(&rendering, inputs);
        match rendered {
            Ok(()) => Ok(rendering.into_output()),
            Err(Fail::Message(what)) => Err(lexer::error(rendering.line.get(), what)),
            Err(Fail::OutOfWork) => Err(Error::Limit {
                what: "the work of rendering the chat template".into(),
                found: work.saturating_add(1),
                limit: work,
            }),
            Err(Fail::OutputTooLong) => Err(Error::Limit {
                what: "the chat template's output in bytes".into(),
                found: MAX_OUTPUT as u64 + 1,
                limit: MAX_OUTPUT as u64,
            }),
        }
    }

    /// As [`Self::render`], for a model to answer: what renders to nothing is an error, for what was said would be lost
    /// without a word.
    pub fn render_conversation(&self, inputs: &Inputs) -> Result<String> {
        let text = self.render(inputs)?;
        if text.trim().is_empty() {
            return Err(Error::Template {
                what: "it renders this conversation to nothing".into(),
            });
        }
        Ok(text)
    }

    fn render_in(&self, rendering: &Rendering, inputs: &Inputs) -> error::Eval<()> {
        let scope = Scope::new(None);
        for (name, value) in &inputs.variables {
            scope.set(name.as_str().into(), json::from_json(value)?);
        }
        rendering.block(&self.block, &scope)?;
        Ok(())
    }
}

/// The number of values in a JSON document, long strings counted by their length.
fn count(json: &Json) -> u64 {
    // A loop, not recursion: a caller may have built any depth.
    let mut total = 0u64;
    let mut pending = vec![json];
    while let Some(json) = pending.pop() {
        total += 1;
        match json {
            Json::String(text) => total += text.len() as u64 / 1024,
            Json::Array(items) => pending.extend(items),
            Json::Object(map) => pending.extend(map.values()),
            _ => {}
        }
    }
    total
}
