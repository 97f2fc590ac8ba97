//! Chat templates: found, fed with a conversation, and made into tokens.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::civil::DateTime;
use serde_json::{Value, json};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::tokenizer::Tokenizer;
use twinfer_template::reasoning::Reasoning;
use twinfer_template::{ChatTemplate, CivilTime, Inputs, Templates};

use crate::args::TemplateArgs;
use crate::failure::Usage;
use crate::load::ModelSource;
use crate::output;

/// The template that a conversation is put into, and the time that it is told.
#[derive(Debug)]
pub(crate) struct Template {
    template: ChatTemplate,
    now: Option<CivilTime>,
}

/// The template that a conversation without tools is put into: that of a file, or else the model's own.
pub(crate) fn load(source: &ModelSource, file: &ModelFile, args: &TemplateArgs) -> Result<Template> {
    let template = match &args.template {
        Some(path) => from_file(path)?,
        None => of_model(source, file, args, false)?,
    };
    let now = args.now.as_deref().map(parse_time).transpose()?;
    Ok(Template { template, now })
}

/// The template in a file, by itself.
pub(crate) fn from_file(path: &Path) -> Result<ChatTemplate> {
    let source = output::read_text(path)?;
    if source.trim().is_empty() {
        bail!("`{}` is empty, which is no template", path.display());
    }
    ChatTemplate::new(&source).with_context(|| format!("`{}`", path.display()))
}

/// The model's own template: the one that was asked for, or that fits a conversation with or without tools.
pub(crate) fn of_model(
    source: &ModelSource,
    file: &ModelFile,
    args: &TemplateArgs,
    tools: bool,
) -> Result<ChatTemplate> {
    let name = args.chat_template_name.as_deref();
    let templates = file
        .metadata()
        .chat_templates()
        .with_context(|| format!("`{source}`"))?;
    let chosen = Templates::new(templates)
        .choose(name, tools)
        .with_context(|| match name {
            Some(name) => format!("`{source}`, --chat-template-name {name}"),
            None => format!("`{source}` (--chat-template-name NAME chooses a template)"),
        })?;
    chosen.ok_or_else(|| {
        anyhow!(
            "`{source}` has no chat template; pass one with --template, or continue texts with `twinfer run`"
        )
    })
}

/// What `--now` says, or else the time now, local as templates expect it.
pub(crate) fn now(args: &TemplateArgs) -> Result<CivilTime> {
    args.now.as_deref().map_or_else(|| Ok(local_time()), parse_time)
}

/// The local time now: that of the zone in `TZ`, or else of the system; of UTC where neither is known.
fn local_time() -> CivilTime {
    civil(jiff::Zoned::now().datetime())
}

fn civil(time: DateTime) -> CivilTime {
    // The calendar has years to 9999, and its fields are positive.
    let field = |value: i8| u8::try_from(value).unwrap_or_default();
    CivilTime {
        year: time.year().into(),
        month: field(time.month()),
        day: field(time.day()),
        hour: field(time.hour()),
        minute: field(time.minute()),
        second: field(time.second()),
    }
}

/// `2026-01-02T03:04:05`, with a space in place of the T, or the date alone.
fn parse_time(text: &str) -> Result<CivilTime> {
    let time: DateTime = text.trim_end_matches('Z').parse().map_err(|_| {
        Usage(format!(
            "--now: `{text}` is not a time; write it as 2026-01-02T03:04:05"
        ))
    })?;
    Ok(civil(time))
}

/// A conversation of one question.
pub(crate) fn messages(system: Option<&str>, user: &str) -> Vec<Value> {
    let system = system.map(|text| json!({"role": "system", "content": text}));
    system
        .into_iter()
        .chain([json!({"role": "user", "content": user})])
        .collect()
}

/// What makes the model answer a conversation.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    /// How its thinking is told apart from the answer.
    pub(crate) reasoning: Reasoning,
}

/// The prompt of a conversation.
pub(crate) fn prompt(template: &Template, tokenizer: &Tokenizer, messages: &[Value]) -> Result<Prompt> {
    let now = template.now.unwrap_or_else(local_time);
    let (bos, eos) = tokenizer.special_texts();
    let inputs = Inputs::chat(messages.into(), true, now)
        .with("bos_token", bos)
        .with("eos_token", eos);
    let text = template.template.render_conversation(&inputs)?;
    Ok(Prompt {
        ids: tokenizer.encode_conversation(&text)?,
        reasoning: Reasoning::of(template.template.source(), &text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let time = parse_time("2026-01-02 03:04:05").unwrap();
        assert_eq!((time.year, time.month, time.day), (2026, 1, 2));
        assert_eq!((time.hour, time.minute, time.second), (3, 4, 5));
        assert!(parse_time("2026-01-02T03:04:05Z").is_ok());
        assert!(parse_time("2026-01-02").is_ok());
        for bad in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-30",
            "2026-01-02T25:00:00",
            "2026-01",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
