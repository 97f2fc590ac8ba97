//! A conversation as tokens: the template rendered and encoded, with the special tokens that it does not write itself.

use super::{ChatTemplate, Inputs};
use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::{Error, Result};

/// The texts of BOS and EOS, which templates print; empty where the model has none.
pub fn special_texts(tokenizer: &Tokenizer) -> (String, String) {
    let text = |id: Option<u32>| {
        let bytes = id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    (text(tokenizer.bos()), text(tokenizer.eos()))
}

/// The tokens that make a model answer a conversation.
///
/// # Errors
/// As [`ChatTemplate::render`] and [`Tokenizer::encode`], and [`Error::Template`] where the conversation renders to
/// nothing: what was said would be lost without a word.
pub fn prompt_ids(template: &ChatTemplate, tokenizer: &Tokenizer, inputs: Inputs) -> Result<Vec<u32>> {
    let (bos, eos) = special_texts(tokenizer);
    let inputs = inputs.with("bos_token", bos.as_str()).with("eos_token", eos);
    let text = template.render(&inputs)?;
    if text.trim().is_empty() {
        return Err(Error::Template {
            what: "it renders this conversation to nothing".into(),
        });
    }
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
