//! What a page may ask of a generation: JSON with llama.cpp's names, every name and type checked.

use serde_json::Value;
use twinfer_engine::generation::Sampling;
use twinfer_engine::sample::parse_samplers;

use crate::error::{Result, with_code};

/// What is continued.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// A conversation, for the model's chat template.
    Messages(Value),
    /// Token ids as they are.
    Tokens(Vec<u32>),
}

/// A generation as asked for.
#[derive(Debug)]
pub struct Request {
    pub prompt: Prompt,
    /// With messages: the tools that the model may call, as templates take them.
    pub tools: Option<Value>,
    /// With messages: which of the model's templates, by name.
    pub chat_template_name: Option<String>,
    /// Tokens at most.
    pub max_tokens: Option<usize>,
    pub stop: Vec<String>,
    pub sampling: Sampling,
}

impl Request {
    /// Reads `{prompt | messages | tokens, tools, chat_template_name, max_tokens, stop, ignore_eos, seed, temp, top_k,
    /// ...}`. What is not said about sampling is as in `sampling`.
    pub fn parse(text: &str, sampling: &Sampling) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| wrong("the request", &error.to_string()))?;
        let Value::Object(fields) = value else {
            return Err(wrong("the request", "it is not an object"));
        };
        let mut prompt = None;
        let mut request = Request {
            prompt: Prompt::Text(String::new()),
            tools: None,
            chat_template_name: None,
            max_tokens: None,
            stop: Vec::new(),
            sampling: sampling.clone(),
        };
        for (name, value) in &fields {
            if value.is_null() {
                continue;
            }
            let found = match name.as_str() {
                "prompt" => Some(Prompt::Text(string(name, value)?)),
                "messages" => Some(Prompt::Messages(value.clone())),
                "tokens" => Some(Prompt::Tokens(ids(name, value)?)),
                _ => None,
            };
            if found.is_some() && prompt.is_some() {
                return Err(wrong(
                    name,
                    "there is another prompt, message list or token list beside it",
                ));
            }
            prompt = prompt.or(found);
            request.field(name, value)?;
        }
        request.prompt =
            prompt.ok_or_else(|| wrong("the request", "it has no prompt, messages or tokens"))?;
        let conversation = matches!(request.prompt, Prompt::Messages(_));
        for (name, given) in [
            ("tools", request.tools.is_some()),
            ("chat_template_name", request.chat_template_name.is_some()),
        ] {
            if given && !conversation {
                return Err(wrong(name, "it is for messages, which are not given"));
            }
        }
        Ok(request)
    }

    fn field(&mut self, name: &str, value: &Value) -> Result<()> {
        let p = &mut self.sampling.params;
        match name {
            "prompt" | "messages" | "tokens" => {}
            "tools" => {
                if !value.is_array() {
                    return Err(wrong(name, "expected a list of tools"));
                }
                self.tools = Some(value.clone());
            }
            "chat_template_name" => self.chat_template_name = Some(string(name, value)?),
            "max_tokens" => self.max_tokens = Some(whole(name, value)?),
            "stop" => self.stop = strings(name, value)?,
            "ignore_eos" => {
                self.sampling.ignore_eos = value
                    .as_bool()
                    .ok_or_else(|| wrong(name, "expected true or false"))?;
            }
            "seed" => p.seed = whole(name, value)?,
            "min_keep" => p.min_keep = whole(name, value)?,
            "top_k" => p.top_k = whole(name, value)?,
            "top_p" => p.top_p = number(name, value)?,
            "min_p" => p.min_p = number(name, value)?,
            "xtc_probability" => p.xtc_probability = number(name, value)?,
            "xtc_threshold" => p.xtc_threshold = number(name, value)?,
            "typ_p" => p.typ_p = number(name, value)?,
            "temp" => p.temp = number(name, value)?,
            "dynatemp_range" => p.dynatemp_range = number(name, value)?,
            "dynatemp_exponent" => p.dynatemp_exponent = number(name, value)?,
            "penalty_last_n" => p.penalty_last_n = whole(name, value)?,
            "penalty_repeat" => p.penalty_repeat = number(name, value)?,
            "penalty_freq" => p.penalty_freq = number(name, value)?,
            "penalty_present" => p.penalty_present = number(name, value)?,
            "dry_multiplier" => p.dry_multiplier = number(name, value)?,
            "dry_base" => p.dry_base = number(name, value)?,
            "dry_allowed_length" => p.dry_allowed_length = whole(name, value)?,
            "dry_penalty_last_n" => p.dry_penalty_last_n = whole(name, value)?,
            "top_n_sigma" => p.top_n_sigma = number(name, value)?,
            "mirostat" => p.mirostat = whole(name, value)?,
            "mirostat_tau" => p.mirostat_tau = number(name, value)?,
            "mirostat_eta" => p.mirostat_eta = number(name, value)?,
            "samplers" => {
                p.samplers = parse_samplers(&string(name, value)?).map_err(crate::error::js)?;
            }
            _ => return Err(wrong(name, "no such option")),
        }
        Ok(())
    }
}

fn wrong(name: &str, what: &str) -> wasm_bindgen::JsValue {
    with_code("input", &format!("{name}: {what}"))
}

fn string(name: &str, value: &Value) -> Result<String> {
    let text = value.as_str().ok_or_else(|| wrong(name, "expected a string"))?;
    Ok(text.into())
}

fn strings(name: &str, value: &Value) -> Result<Vec<String>> {
    let list = value
        .as_array()
        .ok_or_else(|| wrong(name, "expected a list of strings"))?;
    list.iter().map(|item| string(name, item)).collect()
}

fn number(name: &str, value: &Value) -> Result<f32> {
    let number = value.as_f64().ok_or_else(|| wrong(name, "expected a number"))?;
    Ok(number as f32)
}

/// A whole number; JavaScript may write it as 3.0.
fn whole<T: TryFrom<i64>>(name: &str, value: &Value) -> Result<T> {
    let float = value.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < 9e15);
    let whole = value.as_i64().or(float.map(|v| v as i64));
    whole
        .and_then(|v| T::try_from(v).ok())
        .ok_or_else(|| wrong(name, &format!("expected a whole number in range, found {value}")))
}

fn ids(name: &str, value: &Value) -> Result<Vec<u32>> {
    let list = value
        .as_array()
        .ok_or_else(|| wrong(name, "expected a list of token ids"))?;
    list.iter().map(|item| whole(name, item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_llama_cpps() {
        let mut defaults = Sampling::default();
        (defaults.params.top_p, defaults.params.temp) = (0.5, 0.7);
        let request = Request::parse(
            r#"{"prompt": "Once", "max_tokens": 3, "temp": 0, "top_k": 5.0, "stop": ["a"], "seed": 7, "min_p": null}"#,
            &defaults,
        )
        .expect("a request without faults");
        assert_eq!(request.prompt, Prompt::Text("Once".into()));
        assert_eq!(
            (request.max_tokens, request.stop),
            (Some(3), vec!["a".to_string()])
        );
        let sampling = request.sampling.params;
        assert_eq!((sampling.temp, sampling.top_k, sampling.seed), (0.0, 5, 7));
        assert_eq!(
            (sampling.top_p, sampling.min_p),
            (0.5, Sampling::default().params.min_p)
        );
    }
}
