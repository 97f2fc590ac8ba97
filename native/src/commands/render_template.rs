//! `render-template`: a chat template and its variables in, text out.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Map, Value};
use twinfer_engine::chat::{ChatTemplate, CivilTime, Inputs, special_texts};

use crate::args::{GlobalArgs, RenderTemplateArgs};
use crate::failure::Usage;
use crate::{load, output, template};

pub(super) fn run(global: &GlobalArgs, args: &RenderTemplateArgs) -> Result<()> {
    let now = match &args.now {
        Some(text) => parse_time(text).ok_or_else(|| {
            Usage(format!(
                "--now: `{text}` is not a time; write it as 2026-01-02T03:04:05"
            ))
        })?,
        None => template::now(),
    };
    let mut variables = variables(&args.input)?;
    let template = match &args.template {
        Some(path) => template::from_file(path)?,
        None => {
            let file = load::model_file(global)?;
            let name = load::display_name(global);
            let template = ChatTemplate::from_metadata(file.metadata(), None)
                .with_context(|| format!("`{name}`"))?
                .ok_or_else(|| anyhow!("`{name}` has no chat template; pass one with --template"))?;
            // The model knows its special tokens; what the input says goes before.
            let (bos, eos) = special_texts(&load::tokenizer(global, &file)?);
            variables.entry("bos_token").or_insert(Value::String(bos));
            variables.entry("eos_token").or_insert(Value::String(eos));
            template
        }
    };
    output::to_stdout(&template.render(&Inputs { variables, now })?)
}

fn variables(source: &str) -> Result<Map<String, Value>> {
    let trimmed = source.trim_start();
    let (name, text) = if trimmed.starts_with(['{', '[']) {
        ("--input".to_string(), source.to_string())
    } else {
        let name = if source == "-" {
            "stdin".into()
        } else {
            format!("`{source}`")
        };
        (name, output::read_text(Path::new(source))?)
    };
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is not valid JSON"))?;
    match value {
        Value::Object(variables) => Ok(variables),
        Value::Array(_) => {
            let mut variables = Map::new();
            variables.insert("messages".into(), value);
            variables.insert("add_generation_prompt".into(), true.into());
            Ok(variables)
        }
        _ => Err(anyhow!(
            "{name}: expected an object with the template's variables, such as {{\"messages\": [...]}}"
        )),
    }
}

/// `2026-01-02T03:04:05`, with a space in place of the T, or the date alone.
fn parse_time(text: &str) -> Option<CivilTime> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut date = date.splitn(3, '-');
    let mut time = time.trim_end_matches('Z').splitn(3, ':');
    let civil = CivilTime {
        year: date.next()?.parse().ok()?,
        month: date.next()?.parse().ok()?,
        day: date.next()?.parse().ok()?,
        hour: time.next()?.parse().ok()?,
        minute: time.next()?.parse().ok()?,
        second: time.next().map_or(Some(0), |s| s.parse().ok())?,
    };
    let in_range = (1..=12).contains(&civil.month)
        && (1..=31).contains(&civil.day)
        && civil.hour < 24
        && civil.minute < 60
        && civil.second <= 60;
    in_range.then_some(civil)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let time = parse_time("2026-01-02 03:04:05").unwrap();
        assert_eq!((time.year, time.month, time.day), (2026, 1, 2));
        assert_eq!((time.hour, time.minute, time.second), (3, 4, 5));
        assert!(parse_time("2026-01-02T03:04:05Z").is_some());
        assert!(parse_time("2026-01-02").is_some());
        for bad in ["", "yesterday", "2026-13-01", "2026-01-02T25:00:00", "2026-01"] {
            assert!(parse_time(bad).is_none(), "{bad}");
        }
    }
}
