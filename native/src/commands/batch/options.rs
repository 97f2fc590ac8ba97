//! The fields of a line that are options of generation, by OpenAI's and llama.cpp's names, each checked by itself, so that
//! what is wrong with it names it.

use serde_json::Value;
use twinfer_engine::sample::parse_samplers;

use super::request::{Fault, expected, texts};
use crate::settings::{GenerationSettings, Kind, Parameter};

/// Sets an option of generation; false where there is none of this name.
pub(super) fn set(generation: &mut GenerationSettings, name: &str, value: &Value) -> Result<bool, Fault> {
    let p = &mut generation.sampling.params;
    // The engine's name of what was set, where it checks it.
    let checked = match name {
        "max_tokens" | "max_completion_tokens" | "n_predict" => {
            generation.predict = match value.as_i64() {
                // llama.cpp's way to say that there is no limit.
                Some(-1) => None,
                Some(n) if n >= 0 => usize::try_from(n).ok(),
                _ => return Err(Fault::new(name, expected("a whole number, 0 or more", value))),
            };
            ""
        }
        "ignore_eos" => {
            generation.sampling.ignore_eos = match value {
                Value::Bool(given) => *given,
                _ => return Err(Fault::new(name, expected("true or false", value))),
            };
            ""
        }
        "dry_sequence_breakers" | "dry_sequence_breaker" => {
            generation.sampling.dry_breakers = texts(name, value.clone())?;
            ""
        }
        _ => {
            let Some(parameter) = Parameter::of_field(name) else {
                return Ok(false);
            };
            match parameter.kind {
                Kind::Float(place, _) => {
                    let number = value.as_f64();
                    *place(p) = number.ok_or_else(|| Fault::new(name, expected("a number", value)))? as f32;
                }
                Kind::Int(place, _) => *place(p) = integer(name, value)?,
                Kind::Count(place, _) => {
                    *place(p) = usize::try_from(integer(name, value)?)
                        .map_err(|_| Fault::new(name, expected("a whole number, 0 or more", value)))?;
                }
                Kind::Samplers => {
                    let names = texts(name, value.clone())?.join(";");
                    p.samplers =
                        parse_samplers(&names).map_err(|error| Fault::new(name, error.to_string()))?;
                }
                Kind::Biases => p.logit_bias = biases(value)?,
            }
            parameter.name
        }
    };
    // What was there before was checked: what fails now is this field.
    p.validate().map_err(|error| {
        let text = error.to_string();
        Fault::new(name, text.strip_prefix(checked).unwrap_or(&text).trim_start())
    })?;
    Ok(true)
}

fn integer(name: &str, value: &Value) -> Result<i32, Fault> {
    let number = value.as_i64().and_then(|n| i32::try_from(n).ok());
    number.ok_or_else(|| Fault::new(name, expected("a whole number", value)))
}

/// OpenAI's object of ids, or llama.cpp's list of pairs, in which false forbids a token.
fn biases(value: &Value) -> Result<Vec<(u32, f32)>, Fault> {
    let wrong = |found: &Value| {
        let forms = "an object such as {\"15043\": 1.5}, or pairs of a token id and a number (or false)";
        Fault::new("logit_bias", expected(forms, found))
    };
    let bias = |bias: &Value| match bias {
        Value::Bool(false) => Ok(f32::NEG_INFINITY),
        _ => bias.as_f64().map(|bias| bias as f32).ok_or_else(|| wrong(bias)),
    };
    match value {
        Value::Object(of) => of
            .iter()
            .map(|(id, value)| Ok((id.parse().map_err(|_| wrong(&id.as_str().into()))?, bias(value)?)))
            .collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([id, value]) => {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    Ok((id.ok_or_else(|| wrong(pair))?, bias(value)?))
                }
                _ => Err(wrong(pair)),
            })
            .collect(),
        other => Err(wrong(other)),
    }
}
