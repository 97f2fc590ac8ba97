//! A conversation that a chat template rendered, as tokens, with the special tokens that the template does not write
//! itself.

use super::{EncodeOptions, Tokenizer};
use crate::Result;

impl Tokenizer {
    /// The texts of BOS and EOS, which templates print; empty where the model has none.
    pub fn special_texts(&self) -> (String, String) {
        let text = |id: Option<u32>| {
            let bytes = id.and_then(|id| self.token_text(id)).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        (text(self.bos()), text(self.eos()))
    }

    /// The tokens that make a model answer a conversation, of which `text` is what its chat template rendered.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_conversation(&self, text: &str) -> Result<Vec<u32>> {
        let (bos, _) = self.special_texts();
        // A template may write BOS itself; then none is added. EOS after an answer that is to come would end it.
        let writes_bos = !bos.is_empty() && text.starts_with(&bos);
        let mut ids = self.encode(
            text,
            EncodeOptions {
                add_special: !writes_bos,
                parse_special: true,
            },
        )?;
        if self.add_eos() && !writes_bos && ids.last().copied() == self.eos() {
            ids.pop();
        }
        Ok(ids)
    }
}
