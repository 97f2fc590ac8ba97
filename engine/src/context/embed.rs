//! Vectors of texts: which rows of them count, and how many texts share a pass.

use super::Context;
use crate::batch::Output;
use crate::cache::SeqId;
use crate::kernels::functions::sum16;
use crate::model::pooling::{Pooling, no_scores};
use crate::{Error, Result};

impl Context {
    /// Vectors of texts, as many of them in a pass as there is room for: `sink(text, vector)` gets them in order, with
    /// [`Pooling::None`] one for each token. No vector depends on what shares its pass. `normalize` makes their
    /// length 1.
    ///
    /// # Errors
    /// As [`Context::forward`]; a text without tokens, and one that is longer than a pass, unless only its last token
    /// counts and none sees those behind it; scores where the model is no reranker.
    pub fn embed(
        &mut self,
        texts: &[&[u32]],
        pooling: Pooling,
        normalize: bool,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let mut vector: Vec<f32> = Vec::new();
        let mut sink = |text: usize, values: &[f32]| {
            if !normalize {
                return sink(text, values);
            }
            vector.clear();
            vector.extend_from_slice(values);
            to_length_1(&mut vector);
            sink(text, &vector);
        };
        let mut first = 0;
        while first < texts.len() {
            let mut open = Vec::new();
            let result = self.embed_some(texts, first, pooling, &mut open, &mut sink);
            for id in open {
                self.close(id)?;
            }
            first = result?;
        }
        Ok(())
    }

    /// The vectors of as many texts as one pass takes, from text `first` on; the next text.
    fn embed_some(
        &mut self,
        texts: &[&[u32]],
        first: usize,
        pooling: Pooling,
        open: &mut Vec<SeqId>,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<usize> {
        let config = &self.model.config;
        // Which rows of a text count, and for what.
        let (of, output) = match (pooling, &config.pooling.rank) {
            (Pooling::Rank, Some(rank)) => (rank.of, Output::Scores),
            (Pooling::Rank, None) => return Err(no_scores()),
            (Pooling::None, _) => (pooling, Output::Hidden),
            (Pooling::Mean | Pooling::Cls | Pooling::Last, _) => (pooling, Output::Pooled),
        };
        let counts = |i: usize, n: usize| match of {
            Pooling::Cls => i == 0,
            Pooling::Last => i + 1 == n,
            Pooling::None | Pooling::Mean | Pooling::Rank => true,
        };
        let n_batch = self.options.n_batch;
        let in_pieces = of == Pooling::Last && config.is_causal();
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        // Per text the row after its last one.
        let mut ends = Vec::new();
        let mut next = first;
        let mut filled = Ok(());
        for (i, text) in texts.iter().enumerate().skip(first) {
            let mut text: &[u32] = text;
            let n = text.len();
            if n == 0 {
                filled = Err(Error::InvalidInput {
                    what: format!("text {i} has no tokens"),
                });
                break;
            }
            if n > n_batch && !in_pieces {
                filled = Err(Error::Limit {
                    what: format!("number of tokens of text {i}, which must be whole in a batch,"),
                    found: n as u64,
                    limit: n_batch as u64,
                });
                break;
            }
            if !open.is_empty()
                && (open.len() == self.options.n_sequences || ends.last().copied().unwrap_or(0) + n > n_batch)
            {
                break;
            }
            let id = match self.open() {
                Ok(id) => id,
                Err(Error::TooManySequences { .. }) if !open.is_empty() => break,
                Err(error) => {
                    filled = Err(error);
                    break;
                }
            };
            open.push(id);
            let mut done = 0;
            while filled.is_ok() && text.len() > n_batch {
                let (head, rest) = text.split_at(n_batch);
                batch.clear();
                head.iter().for_each(|token| batch.push(id, *token, Output::None));
                filled = self.forward(&mut batch, &mut (), &mut |_, _| ());
                batch.clear();
                (text, done) = (rest, done + n_batch);
            }
            for (row, token) in text.iter().enumerate() {
                let output = if counts(done + row, n) {
                    output
                } else {
                    Output::None
                };
                batch.push(id, *token, output);
            }
            ends.push(batch.len());
            next = i + 1;
            if done > 0 {
                break;
            }
        }
        let result = filled.and_then(|()| {
            self.forward(&mut batch, &mut (), &mut |row, values| {
                sink(first + ends.partition_point(|end| *end <= row), values);
            })
        });
        self.batch = batch;
        result.map(|()| next)
    }
}

/// Divides a vector by its length; one of zeros stays as it is.
fn to_length_1(vector: &mut [f32]) {
    let length = sum16(vector.len(), |i| vector[i] * vector[i]).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
}
