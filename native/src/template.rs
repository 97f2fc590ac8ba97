//! Chat templates: found, fed with a conversation, and made into tokens.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use twinfer_engine::chat::{ChatTemplate, CivilTime, Inputs};
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::tokenizer::{EncodeOptions, Tokenizer};

use crate::args::GlobalArgs;
use crate::{load, output};

/// A template with the special tokens that it may print.
#[derive(Debug)]
pub(crate) struct Template {
    template: ChatTemplate,
    bos: String,
    eos: String,
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
    let (bos, eos) = special_tokens(&load::tokenizer(global, file)?);
    Ok(Template { template, bos, eos })
}

/// The template in a file, by itself.
pub(crate) fn from_file(path: &Path) -> Result<ChatTemplate> {
    let source = output::read_text(path)?;
    ChatTemplate::new(&source).with_context(|| format!("`{}`", path.display()))
}

/// The texts of BOS and EOS; empty where the model has none.
pub(crate) fn special_tokens(tokenizer: &Tokenizer) -> (String, String) {
    let text = |id: Option<u32>| {
        let bytes = id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    (text(tokenizer.bos()), text(tokenizer.eos()))
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
    let inputs = Inputs::chat(messages.into(), true, now())
        .with("bos_token", template.bos.as_str())
        .with("eos_token", template.eos.as_str());
    let text = template.template.render(&inputs)?;
    // A template may write BOS itself; then none is added. EOS after an answer that is to come would end it.
    let writes_bos = !template.bos.is_empty() && text.starts_with(&template.bos);
    let mut ids = tokenizer.encode(
        &text,
        EncodeOptions {
            add_special: !writes_bos,
            parse_special: true,
        },
    )?;
    if tokenizer.add_eos() && !writes_bos && ids.last().copied() == tokenizer.eos() {
        ids.pop();
    }
    Ok(ids)
}
