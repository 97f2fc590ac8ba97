//! A record as JSON, to and from.

use serde_json::{Map, Value, json};

use super::{Answer, Record, Subject};
use crate::cache::CacheType;
use crate::{Error, Result};

/// What the `format` field of a record says.
const FORMAT: &str = "twinfer digest record 1";

impl Record {
    /// The record as JSON.
    pub fn to_json(&self) -> Value {
        let answers: Vec<Value> = self
            .answers
            .iter()
            .map(|answer| {
                json!({
                    "prompt": answer.prompt,
                    "digest": answer.digest,
                    "tokens": answer.tokens,
                    "sampled": answer.sampled,
                    "positions": answer.positions,
                })
            })
            .collect();
        json!({
            "format": FORMAT,
            "engine_version": self.engine_version,
            "numerics_version": self.numerics_version,
            "backend": self.backend,
            "model": { "name": self.model.name, "sha256": self.model.sha256 },
            "prompt_set": self.prompt_set,
            "cache_type_k": self.cache_type_k.name(),
            "cache_type_v": self.cache_type_v.name(),
            "digest": self.digest,
            "answers": answers,
        })
    }

    /// The same as text: a field or an answer per line.
    pub fn to_text(&self) -> String {
        let json = self.to_json();
        let mut lines = Vec::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            let value = match value.as_array() {
                Some(items) => {
                    let items: Vec<String> = items.iter().map(|item| format!("    {item}")).collect();
                    format!("[\n{}\n  ]", items.join(",\n"))
                }
                None => value.to_string(),
            };
            lines.push(format!("  \"{key}\": {value}"));
        }
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }

    /// A record from its JSON.
    ///
    /// # Errors
    /// Another format, or a field that is missing or of another kind.
    pub fn from_json(value: &Value) -> Result<Self> {
        let field = Fields(value.as_object().ok_or_else(|| wrong("expected a JSON object"))?);
        let format = field.text("format")?;
        if format != FORMAT {
            return Err(wrong(&format!(
                "expected the format `{FORMAT}`, found `{format}`"
            )));
        }
        let cache_type = |key: &str| {
            let name = field.text(key)?;
            let known = CacheType::ALL.into_iter().find(|(_, known)| *known == name);
            known
                .map(|(cache_type, _)| cache_type)
                .ok_or_else(|| wrong(&format!("there is no cache type `{name}`")))
        };
        let model = field.object("model")?;
        let answer = |value: &Value| {
            let field = Fields(
                value
                    .as_object()
                    .ok_or_else(|| wrong("`answers`: expected objects"))?,
            );
            let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
            Ok(Answer {
                prompt: field.text("prompt")?,
                tokens: field.list("tokens", id)?,
                sampled: field.get("sampled", "a number", |value| {
                    usize::try_from(value.as_u64()?).ok()
                })?,
                digest: field.text("digest")?,
                positions: field.list("positions", text)?,
            })
        };
        let answers = field.list("answers", |value| Some(value.clone()))?;
        Ok(Record {
            engine_version: field.text("engine_version")?,
            numerics_version: field.number("numerics_version")?,
            backend: field.text("backend")?,
            model: Subject {
                name: model.text("name")?,
                sha256: model.list("sha256", text)?,
            },
            prompt_set: field.number("prompt_set")?,
            cache_type_k: cache_type("cache_type_k")?,
            cache_type_v: cache_type("cache_type_v")?,
            digest: field.text("digest")?,
            answers: answers.iter().map(answer).collect::<Result<_>>()?,
        })
    }
}

fn wrong(what: &str) -> Error {
    Error::InvalidInput {
        what: format!("this is not a digest record: {what}"),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Typed access to an object's fields.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get<T>(&self, key: &str, kind: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T> {
        let value = self.0.get(key);
        value
            .and_then(read)
            .ok_or_else(|| wrong(&format!("`{key}`: expected {kind}")))
    }

    fn text(&self, key: &str) -> Result<String> {
        self.get(key, "text", text)
    }

    fn number(&self, key: &str) -> Result<u64> {
        self.get(key, "a number", Value::as_u64)
    }

    fn object(&self, key: &str) -> Result<Fields<'a>> {
        self.get(key, "an object", Value::as_object).map(Fields)
    }

    fn list<T>(&self, key: &str, read: impl FnMut(&Value) -> Option<T>) -> Result<Vec<T>> {
        let values = self.get(key, "a list", Value::as_array)?;
        let items: Option<Vec<T>> = values.iter().map(read).collect();
        items.ok_or_else(|| wrong(&format!("`{key}`: a value of another kind")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::record::{Record, tests::record};

    #[test]
    fn a_record_comes_back_from_json() {
        let record = record();
        let mut json = record.to_json();
        assert_eq!(Record::from_json(&json).unwrap(), record);
        let text = record.to_text();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), json);
        assert_eq!(text.lines().count(), 15, "{text}");
        json["answers"][1]["tokens"][0] = (-1).into();
        let error = Record::from_json(&json).unwrap_err().to_string();
        assert!(error.contains("`tokens`"), "{error}");
        json["format"] = "twinfer digest record 0".into();
        let error = Record::from_json(&json).unwrap_err().to_string();
        assert!(error.contains("record 0"), "{error}");
    }
}
