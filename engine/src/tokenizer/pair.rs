//! Two texts as one sequence: what a reranker of the BERT kind reads.

use super::{EncodeOptions, Model, Tokenizer};
use crate::Result;

impl Tokenizer {
    /// The tokens of a query with a document. For `bert`: CLS query SEP document SEP. Else as llama.cpp joins them:
    /// BOS, the query, EOS, SEP, the document, EOS, of which those are there that the file asks for; SEP stands for an
    /// EOS that there is none of. Special tokens that are written out in either text are text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair(&self, query: &str, document: &str) -> Result<Vec<u32>> {
        let (query, document) = (
            self.encode(query, EncodeOptions::default())?,
            self.encode(document, EncodeOptions::default())?,
        );
        let special = &self.vocabulary.special;
        if matches!(*self.model, Model::Wpm(_)) {
            let parts = [special.bos.or(special.cls)].into_iter().flatten().chain(query);
            let parts = parts.chain(special.sep).chain(document);
            return Ok(parts.chain(special.sep).collect());
        }
        let bos = special.bos.filter(|_| self.add_bos);
        let eos = special.eos.or(special.sep).filter(|_| self.asks_for_eos);
        let sep = special.sep.filter(|_| self.add_sep);
        let first = bos.into_iter().chain(query).chain(eos).chain(sep);
        Ok(first.chain(document).chain(eos).collect())
    }
}
