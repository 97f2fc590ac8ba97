//! A conversation as tokens: the template rendered and encoded, with the special tokens that it does not write itself.

use serde_json::Value as Json;

use super::{ChatTemplate, CivilTime, Inputs};
use crate::Result;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// The texts of BOS and EOS, which templates print; empty where the model has none.
pub fn special_texts(tokenizer: &Tokenizer) -> (String, String) {
    let text = |id: Option<u32>| {
        let bytes = id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    (text(tokenizer.bos()), text(tokenizer.eos()))
}

/// The tokens that make a model answer a conversation: `messages` is an array of objects with `role` and `content`.
///
/// # Errors
/// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
pub fn prompt_ids(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    messages: Json,
    now: CivilTime,
) -> Result<Vec<u32>> {
    let (bos, eos) = special_texts(tokenizer);
    let inputs = Inputs::chat(messages, true, now)
        .with("bos_token", bos.as_str())
        .with("eos_token", eos);
    let text = template.render(&inputs)?;
    // A template may write BOS itself; then none is added. EOS after an answer that is to come would end it.
    let writes_bos = !bos.is_empty() && text.starts_with(&bos);
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
