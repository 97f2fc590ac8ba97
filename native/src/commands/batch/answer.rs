//! The line of the output that answers a line of the input. Nothing in it depends on when or how it was computed, so
//! that the same input gives the same bytes: no clock, no counts of what was cached.
//!
//! ```text
//! own form  {"line":3,"custom_id":"a","request_id":"9c..","text":"..","finish_reason":"stop","usage":{..},"seed":7}
//!           {"line":3,"custom_id":"a","request_id":"9c..","error":{"message":"..","type":"..","param":"top_p",..}}
//! OpenAI's  {"id":"batch_req_3","custom_id":"a","response":{"status_code":200,"request_id":"9c..","body":{..}},..}
//! ```
//!
//! Both begin with the number of the input's line. The id of the request is the line's digest ([`super::input`]).

use serde_json::{Map, Value, json};

use super::request::{Endpoint, Fault, Form};

/// Which line an answer is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) line: u64,
    pub(super) digest: u64,
    pub(super) form: Form,
    pub(super) custom_id: Option<String>,
}

/// A text and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) text: String,
    /// What the model thought before it, where that is not part of the text.
    pub(super) thinking: String,
    pub(super) finish: Finish,
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    /// Where the text depends on it.
    pub(super) seed: Option<u32>,
}

/// Why a text ended, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// The model ended it, or a stop text did.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
}

/// What all answers of a run say of it.
#[derive(Debug)]
pub(super) struct About {
    pub(super) model: String,
    /// Digest of the model and of what holds for all lines.
    pub(super) fingerprint: String,
    pub(super) created: u64,
}

impl Asked {
    fn request_id(&self) -> String {
        format!("{:016x}", self.digest)
    }

    /// What any answer to it begins with.
    pub(super) fn head(&self) -> String {
        let fields = match self.form {
            Form::Own => {
                json!({"line": self.line, "custom_id": self.custom_id, "request_id": self.request_id()})
            }
            Form::OpenAi(_) => json!({"id": self.openai_id(), "custom_id": self.custom_id}),
        };
        let mut text = without_nulls(fields).to_string();
        text.pop();
        text.push(',');
        text
    }

    fn openai_id(&self) -> String {
        format!("{OPENAI_ID}{}", self.line)
    }

    /// The answer as a line with its line end.
    pub(super) fn answer(&self, outcome: &Result<Answer, Fault>, about: &About) -> String {
        let value = match self.form {
            Form::Own => self.own(outcome),
            Form::OpenAi(endpoint) => self.openai(endpoint, outcome, about),
        };
        let mut text = value.to_string();
        text.push('\n');
        text
    }

    fn own(&self, outcome: &Result<Answer, Fault>) -> Value {
        let mut value =
            json!({"line": self.line, "custom_id": self.custom_id, "request_id": self.request_id()});
        match outcome {
            Ok(answer) => {
                value["text"] = answer.text.as_str().into();
                value["finish_reason"] = answer.finish.word().into();
                value["usage"] = answer.usage();
                value["seed"] = answer.seed.into();
            }
            Err(fault) => value["error"] = error(fault),
        }
        without_nulls(value)
    }

    fn openai(&self, endpoint: Endpoint, outcome: &Result<Answer, Fault>, about: &About) -> Value {
        let (status, body) = match outcome {
            Ok(answer) => (200, self.body(endpoint, answer, about)),
            Err(fault) => (fault.status, json!({"error": error(fault)})),
        };
        json!({
            "id": self.openai_id(),
            "custom_id": self.custom_id,
            "response": {"status_code": status, "request_id": self.request_id(), "body": body},
            "error": null,
        })
    }

    fn body(&self, endpoint: Endpoint, answer: &Answer, about: &About) -> Value {
        let finish = answer.finish.word();
        let (id, object, choice) = match endpoint {
            Endpoint::Chat => {
                let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
                if !answer.thinking.is_empty() {
                    message["reasoning_content"] = answer.thinking.as_str().into();
                }
                (
                    "chatcmpl",
                    "chat.completion",
                    json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish}),
                )
            }
            Endpoint::Completions => (
                "cmpl",
                "text_completion",
                json!({"text": answer.text, "index": 0, "logprobs": null, "finish_reason": finish}),
            ),
        };
        let mut body = json!({
            "id": format!("{id}-{}", self.request_id()),
            "object": object,
            "created": about.created,
            "model": about.model,
            "choices": [choice],
            "usage": answer.usage(),
            "system_fingerprint": format!("fp_{}", about.fingerprint),
        });
        if let Some(seed) = answer.seed {
            body["seed"] = seed.into();
        }
        body
    }
}

impl Answer {
    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        })
    }
}

impl Finish {
    fn word(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

fn error(fault: &Fault) -> Value {
    json!({
        "message": fault.message,
        "type": if fault.status < 500 { "invalid_request_error" } else { "server_error" },
        "param": fault.field,
        "code": null,
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.collect::<Map<_, _>>())
        }
        other => other,
    }
}

const OPENAI_ID: &str = "batch_req_";

/// Which line an answer says it is of: its number and digest; `None` for what is no answer.
pub(super) fn read(line: &[u8]) -> Option<(u64, u64)> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let (number, id) = match value["id"].as_str() {
        Some(id) => (
            id.strip_prefix(OPENAI_ID)?.parse().ok()?,
            &value["response"]["request_id"],
        ),
        None => (value["line"].as_u64()?, &value["request_id"]),
    };
    let id = id.as_str().filter(|id| id.len() == 16)?;
    Some((number, u64::from_str_radix(id, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            model: "m.gguf".into(),
            fingerprint: "00ff".into(),
            created: 5,
        }
    }

    fn asked(form: Form, custom_id: Option<&str>) -> Asked {
        Asked {
            line: 12,
            digest: 0xab,
            form,
            custom_id: custom_id.map(Into::into),
        }
    }

    fn answer(seed: Option<u32>) -> Answer {
        Answer {
            text: "one\n\"two\"\u{2028}".into(),
            thinking: String::new(),
            finish: Finish::Stop,
            prompt_tokens: 3,
            completion_tokens: 4,
            seed,
        }
    }

    #[test]
    fn the_own_form() {
        let asked = asked(Form::Own, Some("a\nb"));
        let head = r#"{"line":12,"custom_id":"a\nb","request_id":"00000000000000ab","#;
        assert_eq!(
            asked.answer(&Ok(answer(Some(7))), &about()),
            format!(
                "{head}{}\u{2028}{}",
                r#""text":"one\n\"two\""#,
                concat!(
                    r#"","finish_reason":"stop","#,
                    r#""usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7},"seed":7}"#,
                    "\n"
                )
            )
        );
        assert_eq!(
            asked.answer(&Err(Fault::new("top_p", "no")), &about()),
            format!(
                "{head}{}\n",
                r#""error":{"message":"top_p: no","type":"invalid_request_error","param":"top_p","code":null}}"#
            )
        );
    }

    #[test]
    fn the_form_of_openai() {
        let chat = asked(Form::OpenAi(Endpoint::Chat), Some("a"));
        let value: Value = serde_json::from_str(&chat.answer(&Ok(answer(None)), &about())).unwrap();
        assert_eq!(
            (&value["id"], &value["error"]),
            (&json!("batch_req_12"), &Value::Null)
        );
        let response = &value["response"];
        assert_eq!(response["status_code"], 200);
        assert_eq!(response["body"]["choices"][0]["message"]["role"], "assistant");
        assert_eq!(response["body"]["id"], "chatcmpl-00000000000000ab");
        assert_eq!(
            response["body"]["choices"][0]["message"].get("reasoning_content"),
            None
        );
        let thought = Answer {
            thinking: "hm".into(),
            ..answer(None)
        };
        let value: Value = serde_json::from_str(&chat.answer(&Ok(thought), &about())).unwrap();
        let message = &value["response"]["body"]["choices"][0]["message"];
        assert_eq!(
            (&message["reasoning_content"], &message["content"]),
            (&json!("hm"), &json!(answer(None).text))
        );
        let fault: Value = serde_json::from_str(&chat.answer(&Err(Fault::whole("no")), &about())).unwrap();
        assert_eq!(fault["response"]["status_code"], 400);
        assert_eq!(fault["response"]["body"]["error"]["message"], "no");
        let completion = asked(Form::OpenAi(Endpoint::Completions), Some("a"));
        let value: Value = serde_json::from_str(&completion.answer(&Ok(answer(None)), &about())).unwrap();
        assert_eq!(value["response"]["body"]["object"], "text_completion");
        assert_eq!(value["response"]["body"]["choices"][0]["text"], answer(None).text);
    }

    #[test]
    fn an_answer_says_which_line_it_is_of() {
        let forms = [
            Form::Own,
            Form::OpenAi(Endpoint::Chat),
            Form::OpenAi(Endpoint::Completions),
        ];
        for form in forms {
            for custom_id in [None, Some("a\u{e9}\"\n")] {
                let asked = asked(form, custom_id);
                if form != Form::Own && custom_id.is_none() {
                    continue;
                }
                for outcome in [Ok(answer(None)), Err(Fault::whole("no"))] {
                    let line = asked.answer(&outcome, &about());
                    assert_eq!(read(line.as_bytes()), Some((12, 0xab)), "{line}");
                    assert!(line.starts_with(&asked.head()), "{line} {}", asked.head());
                }
            }
        }
        for other in [
            "",
            "{}",
            "[1]",
            "{\"prompt\": \"a\"}",
            "{\"line\": 3}",
            "{\"line\":3,\"request_id\":\"5\"}",
        ] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
