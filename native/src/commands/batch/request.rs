//! What a line of the input asks for. A line has one of two forms: the request itself, or OpenAI's batch form around it
//! (`custom_id`, `method`, `url`, `body`). Names of fields are OpenAI's, and llama.cpp's for what OpenAI lacks.
//!
//! What is asked for and cannot be done is a [`Fault`] that names the field: a field that nobody knows, or one that
//! would change the answer and is not supported. Fields that change no answer here are left out without a word.

use serde_json::{Map, Value};

use super::options;
use crate::settings::GenerationSettings;

/// A line that was read.
#[derive(Debug)]
pub(super) struct Line {
    /// As far as they could be read, also where the rest is at fault.
    pub(super) form: Form,
    pub(super) custom_id: Option<String>,
    pub(super) request: Result<Request, Fault>,
}

/// How a line was written, which is how its answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Own,
    OpenAi(Endpoint),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completions,
}

/// What a line asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) prompt: Prompt,
    /// Of the command's options, with what the line says in their place. The seed is the line's, where it has one.
    pub(super) generation: GenerationSettings,
    pub(super) seed: Seed,
    pub(super) stop: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Messages {
        messages: Vec<Value>,
        /// Variables of the template beside the conversation.
        variables: Map<String, Value>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seed {
    /// The command's, or one of the line's own where there is none.
    Unsaid,
    Given(u32),
    /// -1: another one than any other line's.
    Random,
}

/// Why a line has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    /// The field that is at fault.
    pub(super) field: Option<String>,
    /// As a server would answer: 400 where the line is at fault, 500 where it is not.
    pub(super) status: u16,
}

/// Bytes of an id, and of a field's name in a message: an answer stays readable, whatever the line holds.
const MAX_ID: usize = 1024;
const MAX_NAME: usize = 100;
const MAX_MESSAGE: usize = 2000;

impl Fault {
    pub(super) fn new(field: &str, message: impl Into<String>) -> Self {
        let field = beginning(field.into(), MAX_NAME);
        Fault {
            message: beginning(format!("{field}: {}", message.into()), MAX_MESSAGE),
            field: Some(field),
            status: 400,
        }
    }

    pub(super) fn whole(message: impl Into<String>) -> Self {
        Fault {
            message: beginning(message.into(), MAX_MESSAGE),
            field: None,
            status: 400,
        }
    }

    /// The line is well, and there is no answer to it here.
    pub(super) fn here(message: impl Into<String>) -> Self {
        Fault {
            status: 500,
            ..Fault::whole(message)
        }
    }
}

fn beginning(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push_str("...");
    }
    text
}

/// What holds for lines that do not say otherwise.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) generation: GenerationSettings,
    pub(super) stop: Vec<String>,
}

/// Reads a line, without its line end.
pub(super) fn read(bytes: &[u8], defaults: &Defaults) -> Line {
    let mut line = Line {
        form: Form::Own,
        custom_id: None,
        request: Err(Fault::whole("")),
    };
    line.request = object(bytes).and_then(|object| request(&mut line, object, defaults));
    line
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Fault::whole(format!(
            "the line is not UTF-8 text (at byte {})",
            e.valid_up_to()
        ))
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Fault::whole(format!(
            "expected a JSON object with `prompt` or `messages`, found {}",
            kind(&other)
        ))),
        Err(error) => {
            let message = error.to_string();
            // It is always line 1 of what was parsed, which is not the input's line.
            let what = message.split(" at line ").next().unwrap_or_default();
            Err(Fault::whole(format!(
                "the line is not JSON: {what} (at column {})",
                error.column()
            )))
        }
    }
}

fn request(line: &mut Line, mut object: Map<String, Value>, defaults: &Defaults) -> Result<Request, Fault> {
    let id = object.shift_remove("custom_id").unwrap_or_default();
    line.custom_id = id.as_str().filter(|id| id.len() <= MAX_ID).map(Into::into);
    if !["body", "url", "method"]
        .iter()
        .any(|key| object.contains_key(*key))
    {
        if line.custom_id.is_none() && !id.is_null() {
            return Err(wrong_id(&id));
        }
        return body(object, None, defaults);
    }
    // An answer of some form is due, whatever else is wrong; the body tells where the address does not.
    let url = object.shift_remove("url").unwrap_or_default();
    let method = object.shift_remove("method").unwrap_or_default();
    let inner = object.shift_remove("body").unwrap_or_default();
    let endpoint = match url.as_str() {
        Some("/v1/chat/completions") => Some(Endpoint::Chat),
        Some("/v1/completions") => Some(Endpoint::Completions),
        _ => None,
    };
    let guessed = if inner.get("prompt").is_some() {
        Endpoint::Completions
    } else {
        Endpoint::Chat
    };
    line.form = Form::OpenAi(endpoint.unwrap_or(guessed));
    if line.custom_id.is_none() {
        return Err(wrong_id(&id));
    }
    if endpoint.is_none() {
        let known = "/v1/chat/completions or /v1/completions";
        return Err(Fault::new("url", expected(known, &url)));
    }
    if method != "POST" {
        return Err(Fault::new("method", expected("POST", &method)));
    }
    if let Some(name) = object.keys().next() {
        return Err(unknown(name));
    }
    match inner {
        Value::Object(inner) => body(inner, endpoint, defaults),
        other => Err(Fault::new("body", expected("a JSON object", &other))),
    }
}

fn wrong_id(id: &Value) -> Fault {
    let what = format!("a text of at most {MAX_ID} bytes");
    Fault::new("custom_id", expected(&what, id))
}

/// Fields that change no answer here.
const WITHOUT_EFFECT: [&str; 14] = [
    "model",
    "user",
    "metadata",
    "store",
    "service_tier",
    "stream_options",
    "parallel_tool_calls",
    "tool_choice",
    "function_call",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_prompt",
    "id_slot",
];

/// Fields that would change the answer and are not supported, but for values that change nothing.
fn is_off(name: &str, value: &Value) -> Option<bool> {
    Some(match name {
        "n" | "best_of" => value == 1,
        "stream" | "echo" | "logprobs" | "return_tokens" | "timings_per_token" => value == false,
        "top_logprobs" | "n_probs" => value == 0,
        "suffix" | "grammar" => value == "",
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "response_format" => value["type"] == "text",
        "modalities" => *value == serde_json::json!(["text"]),
        "json_schema" | "audio" | "prediction" | "lora" => false,
        _ => return None,
    })
}

fn body(
    object: Map<String, Value>,
    endpoint: Option<Endpoint>,
    defaults: &Defaults,
) -> Result<Request, Fault> {
    let mut prompt = None;
    let mut messages = None;
    let mut variables = Map::new();
    let mut seed = Seed::Unsaid;
    let mut stop = None;
    let mut generation = defaults.generation.clone();
    // Null is what clients write for what they leave out.
    for (name, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "prompt" => prompt = Some(read_prompt(value)?),
            "messages" => messages = Some(read_messages(value)?),
            "stop" => stop = Some(texts(&name, value)?),
            "seed" => seed = read_seed(&value)?,
            "chat_template_kwargs" => match value {
                Value::Object(given) => variables.extend(given),
                other => return Err(Fault::new(&name, expected("a JSON object", &other))),
            },
            "reasoning_effort" => {
                variables.insert(name, value);
            }
            _ if options::set(&mut generation, &name, &value)? => {}
            _ if WITHOUT_EFFECT.contains(&name.as_str()) => {}
            _ => match is_off(&name, &value) {
                Some(true) => {}
                Some(false) => return Err(Fault::new(&name, "this is not supported; leave it out")),
                None => return Err(unknown(&name)),
            },
        }
    }
    let prompt = match (prompt, messages, endpoint) {
        (Some(_), Some(_), _) => {
            return Err(Fault::new(
                "prompt",
                "there are `messages` as well; give one of the two",
            ));
        }
        (Some(_), None, Some(Endpoint::Chat)) => {
            return Err(Fault::new("prompt", "/v1/chat/completions takes `messages`"));
        }
        (None, Some(_), Some(Endpoint::Completions)) => {
            return Err(Fault::new("messages", "/v1/completions takes `prompt`"));
        }
        (None, None, Some(Endpoint::Chat)) => return Err(Fault::new("messages", "they are missing")),
        (None, None, Some(Endpoint::Completions)) => return Err(Fault::new("prompt", "it is missing")),
        (None, None, None) => return Err(Fault::whole("there is neither `prompt` nor `messages`")),
        (Some(prompt), None, _) => {
            if let Some(name) = variables.keys().next() {
                return Err(Fault::new(
                    name,
                    "a variable of the chat template, which takes `messages`",
                ));
            }
            prompt
        }
        (None, Some(messages), _) => Prompt::Messages { messages, variables },
    };
    Ok(Request {
        prompt,
        generation,
        seed,
        stop: stop.unwrap_or_else(|| defaults.stop.clone()),
    })
}

fn read_prompt(value: Value) -> Result<Prompt, Fault> {
    let wrong = |found: &Value| Fault::new("prompt", expected("a text or a list of token ids", found));
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(mut items) if items.first().is_some_and(Value::is_string) => match items.len() {
            1 => read_prompt(items.remove(0)),
            n => Err(Fault::new(
                "prompt",
                format!("there are {n} texts; give each a line of its own"),
            )),
        },
        Value::Array(items) => {
            let id = |item: &Value| {
                let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| wrong(item))
            };
            Ok(Prompt::Tokens(items.iter().map(id).collect::<Result<_, _>>()?))
        }
        other => Err(wrong(&other)),
    }
}

/// A conversation as templates take it. Content in parts becomes one text: few templates know parts.
fn read_messages(value: Value) -> Result<Vec<Value>, Fault> {
    let Value::Array(mut messages) = value else {
        return Err(Fault::new("messages", expected("a list of messages", &value)));
    };
    if messages.is_empty() {
        return Err(Fault::new("messages", "the list is empty"));
    }
    for (i, message) in messages.iter_mut().enumerate() {
        let at = format!("messages[{i}]");
        let Value::Object(message) = message else {
            return Err(Fault::new(
                &at,
                expected("an object with role and content", message),
            ));
        };
        match message.get("role") {
            Some(Value::String(_)) => {}
            role => {
                let found = role.unwrap_or(&Value::Null);
                return Err(Fault::new(&format!("{at}.role"), expected("a text", found)));
            }
        }
        match message.get_mut("content") {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(content) => *content = Value::String(text_of_parts(&at, content)?),
        }
    }
    Ok(messages)
}

fn text_of_parts(at: &str, content: &Value) -> Result<String, Fault> {
    let Value::Array(parts) = content else {
        return Err(Fault::new(
            &format!("{at}.content"),
            expected("a text, or a list of parts", content),
        ));
    };
    let mut texts = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(text)) => texts.push(text),
            _ => {
                return Err(Fault::new(
                    &format!("{at}.content[{i}]"),
                    format!(
                        "only parts of type `text` are read, found {}",
                        kind(&part["type"])
                    ),
                ));
            }
        }
    }
    Ok(texts.join("\n"))
}

fn read_seed(value: &Value) -> Result<Seed, Fault> {
    match value.as_i64() {
        Some(-1) => Ok(Seed::Random),
        Some(n) if u32::try_from(n).is_ok() => Ok(Seed::Given(n as u32)),
        _ => Err(Fault::new(
            "seed",
            expected("a whole number from 0 to 4294967295, or -1", value),
        )),
    }
}

/// A text, or a list of them.
pub(super) fn texts(name: &str, value: Value) -> Result<Vec<String>, Fault> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        other => Err(Fault::new(name, expected("a text or a list of texts", &other))),
    };
    match value {
        Value::Array(values) => values.into_iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}

fn unknown(name: &str) -> Fault {
    Fault::new(name, "there is no such field; docs/batch.md lists all")
}

pub(super) fn expected(what: &str, found: &Value) -> String {
    format!("expected {what}, found {}", kind(found))
}

/// A value as messages show it: whole where it is short.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) => format!("`{}`", beginning(text.clone(), 40)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use serde_json::json;
    use twinfer_engine::sample::SamplerKind;

    use crate::args::{Cli, Command};

    fn defaults(args: &[&str]) -> Defaults {
        let args = ["twinfer", "batch", "in", "-o", "out"].iter().chain(args);
        let Command::Batch(args) = Cli::parse_from(args).command else {
            panic!("another command");
        };
        Defaults {
            generation: GenerationSettings::new(&args.generation, 0).unwrap(),
            stop: args.stop,
        }
    }

    fn line(text: &str) -> Line {
        read(text.as_bytes(), &defaults(&[]))
    }

    #[track_caller]
    fn ok(value: &Value) -> Request {
        line(&value.to_string()).request.unwrap()
    }

    #[track_caller]
    fn fault(value: &Value) -> (String, String) {
        let fault = line(&value.to_string()).request.unwrap_err();
        (fault.field.unwrap_or_default(), fault.message)
    }

    #[test]
    fn prompts() {
        assert_eq!(ok(&json!({"prompt": "a"})).prompt, Prompt::Text("a".into()));
        assert_eq!(ok(&json!({"prompt": ["a"]})).prompt, Prompt::Text("a".into()));
        assert_eq!(ok(&json!({"prompt": [1, 2]})).prompt, Prompt::Tokens(vec![1, 2]));
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let messages = json!([{"role": "system", "content": parts}, {"role": "user", "content": "c"}]);
        let found = ok(&json!({"messages": messages, "chat_template_kwargs": {"enable_thinking": false}}));
        let Prompt::Messages { messages, variables } = found.prompt else {
            panic!("{found:?}");
        };
        assert_eq!(messages[0], json!({"role": "system", "content": "a\nb"}));
        assert_eq!(Value::from(variables), json!({"enable_thinking": false}));
    }

    #[test]
    fn every_fault_names_its_field() {
        let user = json!([{"role": "user", "content": "a"}]);
        let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]);
        for (value, field, says) in [
            (json!({}), "", "neither"),
            (json!({"prompt": 1}), "prompt", "found 1"),
            (json!({"prompt": ["a", "b"]}), "prompt", "2 texts"),
            (json!({"prompt": [1, -1]}), "prompt", "found -1"),
            (
                json!({"prompt": "a", "messages": user}),
                "prompt",
                "one of the two",
            ),
            (json!({"messages": []}), "messages", "empty"),
            (json!({"messages": "a"}), "messages", "found `a`"),
            (json!({"messages": ["a"]}), "messages[0]", "found `a`"),
            (
                json!({"messages": [{"content": "a"}]}),
                "messages[0].role",
                "found nothing",
            ),
            (
                json!({"messages": [{"role": "user", "content": 5}]}),
                "messages[0].content",
                "found 5",
            ),
            (json!({"messages": image}), "messages[0].content[0]", "image_url"),
            (
                json!({"prompt": "a", "temperature": -1}),
                "temperature",
                "it is -1",
            ),
            (
                json!({"prompt": "a", "temperature": "hot"}),
                "temperature",
                "a number",
            ),
            (json!({"prompt": "a", "top_p": 1.5}), "top_p", "between 0 and 1"),
            (json!({"prompt": "a", "min_p": -0.5}), "min_p", "between 0 and 1"),
            (json!({"prompt": "a", "top_k": 1.5}), "top_k", "a whole number"),
            (
                json!({"prompt": "a", "repeat_penalty": 0}),
                "repeat_penalty",
                "it is 0",
            ),
            (
                json!({"prompt": "a", "repeat_last_n": -2}),
                "repeat_last_n",
                "it is -2",
            ),
            (json!({"prompt": "a", "mirostat": 1}), "mirostat", "it is 1"),
            (
                json!({"prompt": "a", "samplers": ["top_k", "luck"]}),
                "samplers",
                "`luck`",
            ),
            (
                json!({"prompt": "a", "seed": 4294967296i64}),
                "seed",
                "4294967296",
            ),
            (json!({"prompt": "a", "max_tokens": -5}), "max_tokens", "-5"),
            (json!({"prompt": "a", "max_tokens": 1.5}), "max_tokens", "1.5"),
            (json!({"prompt": "a", "stop": [1]}), "stop", "found 1"),
            (
                json!({"prompt": "a", "logit_bias": {"x": 1}}),
                "logit_bias",
                "`x`",
            ),
            (json!({"prompt": "a", "logit_bias": [[1]]}), "logit_bias", "pairs"),
            (json!({"prompt": "a", "custom_id": 5}), "custom_id", "found 5"),
            (
                json!({"prompt": "a", "temprature": 1}),
                "temprature",
                "no such field",
            ),
            (json!({"prompt": "a", "n": 2}), "n", "not supported"),
            (json!({"prompt": "a", "tools": [{}]}), "tools", "not supported"),
            (
                json!({"prompt": "a", "response_format": {"type": "json_object"}}),
                "response_format",
                "not",
            ),
            (
                json!({"prompt": "a", "chat_template_kwargs": {"x": 1}}),
                "x",
                "takes `messages`",
            ),
        ] {
            let (found, message) = fault(&value);
            assert_eq!(found, field, "{value}: {message}");
            assert!(
                message.contains(says) && message.starts_with(field),
                "{value}: {message}"
            );
        }
    }

    #[test]
    fn what_is_no_object() {
        for (bytes, says) in [
            (&b"[1]"[..], "found a list"),
            (b"5", "found 5"),
            (b"null", "found nothing"),
            (
                b"{\"prompt\": \"a\"",
                "not JSON: EOF while parsing an object (at column 14)",
            ),
            (b"{\"prompt\": \"a\"} {}", "trailing characters"),
            (b"{\"prompt\": \"\xff\"}", "not UTF-8 text (at byte 12)"),
            (b"prompt", "not JSON"),
        ] {
            let line = read(bytes, &defaults(&[]));
            let fault = line.request.unwrap_err();
            assert!(fault.message.contains(says), "{}", fault.message);
            assert_eq!((line.form, line.custom_id, fault.field), (Form::Own, None, None));
        }
        let deep = "[".repeat(100_000);
        assert!(
            line(&deep)
                .request
                .unwrap_err()
                .message
                .contains("recursion limit")
        );
    }

    #[test]
    fn a_line_goes_before_the_options() {
        let defaults = defaults(&["--temp", "0.5", "-n", "7", "--top-k", "3", "-r", "END"]);
        let read = |text: &str| read(text.as_bytes(), &defaults).request.unwrap();
        let plain = read(r#"{"prompt": "a", "temperature": null, "stop": null}"#);
        assert_eq!(
            (plain.generation.sampling.params.temp, plain.generation.predict),
            (0.5, Some(7))
        );
        assert_eq!((plain.stop, plain.seed), (vec!["END".to_string()], Seed::Unsaid));
        let own = read(
            r#"{"prompt": "a", "temperature": 0, "max_tokens": -1, "seed": 5, "stop": "x", "model": "any",
                "samplers": ["temperature", "top_p"], "logit_bias": [[3, false], [4, 1.5]], "n": 1, "stream": false}"#,
        );
        let params = &own.generation.sampling.params;
        assert_eq!(
            (params.temp, params.top_k, own.generation.predict),
            (0.0, 3, None)
        );
        assert_eq!(params.samplers, [SamplerKind::Temperature, SamplerKind::TopP]);
        assert_eq!(params.logit_bias, [(3, f32::NEG_INFINITY), (4, 1.5)]);
        assert_eq!((own.stop, own.seed), (vec!["x".to_string()], Seed::Given(5)));
        assert_eq!(read(r#"{"prompt": "a", "seed": -1}"#).seed, Seed::Random);
        let biased = read(r#"{"prompt": "a", "logit_bias": {"7": -2}}"#);
        assert_eq!(biased.generation.sampling.params.logit_bias, [(7, -2.0)]);
    }

    #[test]
    fn the_form_of_openai() {
        let chat = |change: &dyn Fn(&mut Value)| {
            let mut value = json!({
                "custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
            });
            change(&mut value);
            line(&value.to_string())
        };
        let whole = chat(&|_| {});
        assert_eq!(
            (whole.form, whole.custom_id),
            (Form::OpenAi(Endpoint::Chat), Some("a".into()))
        );
        assert_eq!(whole.request.unwrap().generation.predict, Some(5));
        let completion = line(
            r#"{"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once"}}"#,
        );
        assert_eq!(completion.form, Form::OpenAi(Endpoint::Completions));
        assert!(completion.request.is_ok());

        type Change<'a> = &'a dyn Fn(&mut Value);
        let changes: [(Change<'_>, &str); 9] = [
            (&|v| v["custom_id"] = Value::Null, "custom_id"),
            (&|v| v["method"] = "GET".into(), "method"),
            (&|v| v["url"] = "/v1/embeddings".into(), "url"),
            (&|v| v["url"] = "/v1/completions".into(), "messages"),
            (&|v| v["body"] = "x".into(), "body"),
            (&|v| v["body"] = json!({}), "messages"),
            (&|v| v["priority"] = 5.into(), "priority"),
            (&|v| v["body"]["top_p"] = 7.into(), "top_p"),
            (&|v| v["body"]["prompt"] = "x".into(), "prompt"),
        ];
        for (change, field) in changes {
            let line = chat(change);
            assert!(matches!(line.form, Form::OpenAi(_)), "{field}");
            let fault = line.request.unwrap_err();
            assert_eq!(fault.field.as_deref(), Some(field), "{}", fault.message);
        }
    }
}
