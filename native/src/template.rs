//! Chat templates: found, fed with a conversation, and made into tokens.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use twinfer_engine::chat::{self, ChatTemplate, CivilTime};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::tokenizer::Tokenizer;

use crate::args::GlobalArgs;
use crate::{load, output};

/// The template that a conversation is put into.
#[derive(Debug)]
pub(crate) struct Template {
    template: ChatTemplate,
}

/// The template in `path`, or else the model's own.
pub(crate) fn load(global: &GlobalArgs, file: &ModelFile, path: Option<&Path>) -> Result<Template> {
    let template = match path {
        Some(path) => from_file(path)?,
        None => ChatTemplate::from_metadata(file.metadata(), None)
            .with_context(|| format!("`{}`", load::display_name(global)))?
            .ok_or_else(|| {
                anyhow!(
                    "`{}` has no chat template; pass one with --template, or continue texts with `twinfer run`",
                    load::display_name(global)
                )
            })?,
    };
    Ok(Template { template })
}

/// The template in a file, by itself.
pub(crate) fn from_file(path: &Path) -> Result<ChatTemplate> {
    let source = output::read_text(path)?;
    ChatTemplate::new(&source).with_context(|| format!("`{}`", path.display()))
}

/// The time now, in UTC.
pub(crate) fn now() -> CivilTime {
    let seconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    };
    CivilTime::from_unix_seconds(seconds)
}

/// A conversation of one question.
pub(crate) fn messages(system: Option<&str>, user: &str) -> Vec<Value> {
    let system = system.map(|text| json!({"role": "system", "content": text}));
    system
        .into_iter()
        .chain([json!({"role": "user", "content": user})])
        .collect()
}

/// The tokens that make the model answer a conversation.
pub(crate) fn prompt_ids(template: &Template, tokenizer: &Tokenizer, messages: &[Value]) -> Result<Vec<u32>> {
    let ids = chat::prompt_ids(&template.template, tokenizer, messages.into(), now())?;
    Ok(ids)
}
