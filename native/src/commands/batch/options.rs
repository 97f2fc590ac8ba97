//! The fields of a line that are options of generation, by OpenAI's and llama.cpp's names, each checked by itself, so that
//! what is wrong with it names it.

use serde_json::Value;
use twinfer_engine::sample::parse_samplers;

use super::request::{Fault, expected, texts};
use crate::args::Generation;

/// Sets an option of generation; false where there is none of this name.
pub(super) fn set(generation: &mut Generation, name: &str, value: &Value) -> Result<bool, Fault> {
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
        "samplers" => {
            let names = texts(name, value.clone())?.join(";");
            p.samplers = parse_samplers(&names).map_err(|error| Fault::new(name, error.to_string()))?;
            ""
        }
        "min_keep" => {
            p.min_keep = usize::try_from(integer(name, value)?)
                .map_err(|_| Fault::new(name, expected("a whole number, 0 or more", value)))?;
            ""
        }
        "logit_bias" => {
            p.logit_bias = biases(value)?;
            "logit_bias"
        }
        "temperature" | "temp" => float(&mut p.temp, name, value, "temp")?,
        "top_p" => float(&mut p.top_p, name, value, "top_p")?,
        "min_p" => float(&mut p.min_p, name, value, "min_p")?,
        "typical_p" | "typical" | "typ_p" => float(&mut p.typ_p, name, value, "typ_p")?,
        "top_n_sigma" | "top_nsigma" => float(&mut p.top_n_sigma, name, value, "top_n_sigma")?,
        "xtc_probability" => float(&mut p.xtc_probability, name, value, "xtc_probability")?,
        "xtc_threshold" => float(&mut p.xtc_threshold, name, value, "xtc_threshold")?,
        "dynatemp_range" => float(&mut p.dynatemp_range, name, value, "dynatemp_range")?,
        "dynatemp_exponent" | "dynatemp_exp" => {
            float(&mut p.dynatemp_exponent, name, value, "dynatemp_exponent")?
        }
        "repeat_penalty" => float(&mut p.penalty_repeat, name, value, "penalty_repeat")?,
        "frequency_penalty" => float(&mut p.penalty_freq, name, value, "penalty_freq")?,
        "presence_penalty" => float(&mut p.penalty_present, name, value, "penalty_present")?,
        "dry_multiplier" => float(&mut p.dry_multiplier, name, value, "dry_multiplier")?,
        "dry_base" => float(&mut p.dry_base, name, value, "dry_base")?,
        "mirostat_tau" | "mirostat_ent" => float(&mut p.mirostat_tau, name, value, "mirostat_tau")?,
        "mirostat_eta" | "mirostat_lr" => float(&mut p.mirostat_eta, name, value, "mirostat_eta")?,
        "top_k" => int(&mut p.top_k, name, value, "top_k")?,
        "repeat_last_n" => int(&mut p.penalty_last_n, name, value, "penalty_last_n")?,
        "dry_allowed_length" => int(&mut p.dry_allowed_length, name, value, "dry_allowed_length")?,
        "dry_penalty_last_n" => int(&mut p.dry_penalty_last_n, name, value, "dry_penalty_last_n")?,
        "mirostat" => int(&mut p.mirostat, name, value, "mirostat")?,
        _ => return Ok(false),
    };
    // What was there before was checked: what fails now is this field.
    p.validate().map_err(|error| {
        let text = error.to_string();
        Fault::new(name, text.strip_prefix(checked).unwrap_or(&text).trim_start())
    })?;
    Ok(true)
}

fn float(to: &mut f32, name: &str, value: &Value, checked: &'static str) -> Result<&'static str, Fault> {
    let number = value.as_f64();
    *to = number.ok_or_else(|| Fault::new(name, expected("a number", value)))? as f32;
    Ok(checked)
}

fn int(to: &mut i32, name: &str, value: &Value, checked: &'static str) -> Result<&'static str, Fault> {
    *to = integer(name, value)?;
    Ok(checked)
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
