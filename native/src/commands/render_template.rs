//! `render-template`: a chat template and its variables in, text out.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Map, Value};
use twinfer_template::Inputs;

use crate::args::RenderTemplateArgs;
use crate::load::ModelSource;
use crate::settings::Verbosity;
use crate::{load, output, template};

pub(super) fn run(source: &ModelSource, verbosity: Verbosity, args: &RenderTemplateArgs) -> Result<()> {
    let now = template::now(&args.template)?;
    let mut variables = variables(&args.input)?;
    let template = match &args.template.template {
        Some(path) => template::from_file(path)?,
        None => {
            let file = source.open()?;
            let tools = variables.get("tools").and_then(Value::as_array);
            let tools = tools.is_some_and(|tools| !tools.is_empty());
            let template = template::of_model(source, &file, &args.template, tools)?;
            // The model knows its special tokens; what the input says goes before.
            let (bos, eos) = load::tokenizer(source, &file, verbosity)?.special_texts();
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
