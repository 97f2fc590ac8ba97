//! Chat templates: Jinja as Hugging Face's `apply_chat_template` renders it, through minijinja.
//!
//! What a template sees is Python: its containers (`value`), their methods (`methods`, `strings`), Jinja's filters and
//! tests with jinja2's results (`filters`, `predicates`), and `raise_exception`, `strftime_now`, `tojson`, loop controls
//! and the `generation` tag. `rewrite` bridges what minijinja cannot be taught. Blocks are trimmed as Hugging Face
//! configures it (`trim_blocks`, `lstrip_blocks`).
//!
//! A template comes with a model file and is not trusted. Its size, its nesting, the work of a rendering, the size of
//! every value and of the output are bounded; what exceeds a bound is an error.
//!
//! Known to differ from Python: other templates cannot be loaded (`include`, `import`, `extends`); the conversions `%r`,
//! `!r`, `*` and nested fields of the two format languages are errors, as are the filters `wordwrap`, `urlize` and
//! `striptags`; `random` chooses the same in every rendering; `%` formats where its left side is a string literal; a container that another one holds
//! cannot be changed (Hugging Face's sandbox lets none be changed).

mod args;
mod arithmetic;
mod budget;
mod comparison;
mod expression;
mod filters;
mod functions;
mod json;
mod lexer;
mod methods;
mod predicates;
mod prompt;
mod repr;
mod rewrite;
mod scalar_filters;
mod strings;
mod time;
mod value;
mod variants;

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, State, Value as JinjaValue};
use serde_json::{Map, Value as Json};

use self::budget::Budget;
pub use self::prompt::{prompt_ids, special_texts};
use self::repr::write_str;
pub use self::time::CivilTime;
pub use self::variants::Templates;
use crate::{Error, Result};

/// The most a template may print.
pub const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// Fuel of any rendering: about one unit per instruction or 64 bytes that are made.
const BASE_FUEL: u64 = 1_000_000;
/// More fuel per value of the input, since templates loop over it, often in each message over all messages.
const FUEL_PER_VALUE: u64 = 2_000;
const MAX_FUEL: u64 = 20_000_000;

/// Work on containers that fuel does not see, in visited elements per unit of fuel.
const BUDGET_PER_FUEL: u64 = 3;

/// The name that errors and the engine know the template by.
const NAME: &str = "chat";

/// The ChatML template, for models that come without one, if the caller wants that.
pub const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
    {% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A template, parsed once; render it as often as needed, from any thread.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    env: Environment<'static>,
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
        let source = rewrite::rewrite(source)?;
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        env.set_syntax(syntax.map_err(|error| template_error(&error))?);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_unknown_method_callback(methods::call_other);
        env.set_formatter(print);
        // Macros count four; the stack of a browser's worker is 1 MiB.
        env.set_recursion_limit(300);
        filters::register(&mut env);
        predicates::register(&mut env);
        functions::register(&mut env);
        env.add_template_owned(NAME, source)
            .map_err(|error| template_error(&error))?;
        Ok(Self { env })
    }

    /// Renders a conversation. Errors: [`Error::Template`] with the line for what Jinja or the template itself
    /// refuses, [`Error::Limit`] for too much work or output.
    pub fn render(&self, inputs: &Inputs) -> Result<String> {
        let mut values = 0u64;
        for value in inputs.variables.values() {
            values = values.saturating_add(count(value));
        }
        let fuel = BASE_FUEL
            .saturating_add(values.saturating_mul(FUEL_PER_VALUE))
            .min(MAX_FUEL);
        let budget = Budget::new(fuel.saturating_mul(BUDGET_PER_FUEL).saturating_add(values));
        let mut variables = Vec::with_capacity(inputs.variables.len() + 2);
        for (name, json) in &inputs.variables {
            if name.starts_with(rewrite::RESERVED) {
                return Err(Error::InvalidInput {
                    what: format!(
                        "variable `{name}`: names that begin with `{}` are reserved",
                        rewrite::RESERVED
                    ),
                });
            }
            let value = json::from_json(&budget, json).map_err(|error| template_error(&error))?;
            variables.push((JinjaValue::from(name.as_str()), value));
        }
        variables.push((
            functions::NOW_NAME.into(),
            JinjaValue::from_object(functions::Now(inputs.now)),
        ));
        variables.push((
            budget::BUDGET_NAME.into(),
            JinjaValue::from_dyn_object(budget.clone()),
        ));

        // The clone shares the compiled template; only the fuel is its own.
        let mut env = self.env.clone();
        env.set_fuel(Some(fuel));
        let template = env.get_template(NAME).map_err(|error| template_error(&error))?;
        let mut output = Output {
            bytes: Vec::new(),
            full: false,
        };
        let outcome = template
            .render_captured_to(JinjaValue::from_pairs(variables), &mut output)
            .map(|_| ());
        let out_of_work = || Error::Limit {
            what: "the work of rendering the chat template".into(),
            found: fuel.saturating_add(1),
            limit: fuel,
        };
        if output.full {
            return Err(Error::Limit {
                what: "the chat template's output in bytes".into(),
                found: MAX_OUTPUT as u64 + 1,
                limit: MAX_OUTPUT as u64,
            });
        }
        match outcome {
            Err(error) if root_kind(&error) == ErrorKind::OutOfFuel => return Err(out_of_work()),
            Err(error) => return Err(template_error(&error)),
            Ok(()) => {}
        }
        budget.check().map_err(|_| out_of_work())?;
        String::from_utf8(output.bytes).map_err(|_| Error::Template {
            what: "the output is not UTF-8".into(),
        })
    }
}

/// Prints what `{{ … }}` evaluates to, as Python's `str()` does.
fn print(
    out: &mut minijinja::Output<'_>,
    state: &mut State<'_, '_>,
    value: &JinjaValue,
) -> Result<(), minijinja::Error> {
    if let Some(text) = value.as_str() {
        return Ok(out.write_str(text)?);
    }
    let budget = Budget::of(state)?;
    write_str(out, value, &budget)?;
    budget.check()
}

/// Takes output up to [`MAX_OUTPUT`].
struct Output {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
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

/// The kind of the innermost error: macros and includes wrap what happened in them.
fn root_kind(error: &minijinja::Error) -> ErrorKind {
    let mut kind = error.kind();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<minijinja::Error>() {
            kind = inner.kind();
        }
        source = inner.source();
    }
    kind
}

fn template_error(error: &minijinja::Error) -> Error {
    let what = match (error.detail(), error.kind()) {
        // What the template or this module says stands for itself.
        (Some(detail), ErrorKind::InvalidOperation) => detail.to_owned(),
        (Some(detail), kind) => format!("{kind}: {detail}"),
        (None, kind) => kind.to_string(),
    };
    let what = match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    };
    Error::Template { what }
}
