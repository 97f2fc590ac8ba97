//! A batch: what one pass of a model computes. Rows go in, each a token or an embedding of a sequence; logits or
//! vectors come out of those that want them.

use crate::Result;
use crate::handles::SeqId;
use crate::memory::Buffers;

/// What a row puts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A token id.
    Token(u32),
    /// A row of the batch's embeddings.
    Embedding(usize),
}

/// What a row gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Nothing: it only fills the cache.
    None,
    /// Logits over the vocabulary.
    Logits,
    /// Its hidden state after the last layer (and the norm there, where the model has one), and what the model has
    /// behind that.
    Hidden,
    /// Its part in the vector of its text: the mean of the hidden states of all rows that say so, and what the model
    /// has behind that. Rows of a text stand side by side.
    Pooled,
    /// As [`Output::Pooled`], with the head of a reranker behind it: the scores of its text.
    Scores,
}

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) input: Input,
    pub(crate) sequence: SeqId,
    pub(crate) output: Output,
    /// Given by the cache when the pass is prepared: the sequence's slot, and its next position.
    pub(crate) slot: usize,
    pub(crate) position: usize,
}

/// Rows for one pass, of any sequences. Rows of one sequence take its next positions in the order in which they are
/// pushed.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) rows: Vec<Row>,
    /// Of the rows that have one, in their order.
    pub(crate) embeddings: Vec<f32>,
    n_embeddings: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `n` rows.
    ///
    /// # Errors
    /// `Memory` if the allocator refuses.
    pub(crate) fn with_room(n: usize, buffers: &mut Buffers<'_>) -> Result<Self> {
        Ok(Batch {
            rows: buffers.room("rows of a batch", n)?,
            ..Batch::default()
        })
    }

    /// Empties it; memory is kept.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.embeddings.clear();
        self.n_embeddings = 0;
    }

    /// Adds a token to a sequence.
    pub fn push(&mut self, sequence: SeqId, token: u32, output: Output) {
        self.add(Input::Token(token), sequence, output);
    }

    /// Adds an input embedding (n_embd values, already scaled) in place of a token.
    pub fn push_embedding(&mut self, sequence: SeqId, embedding: &[f32], output: Output) {
        self.embeddings.extend_from_slice(embedding);
        self.add(Input::Embedding(self.n_embeddings), sequence, output);
        self.n_embeddings += 1;
    }

    fn add(&mut self, input: Input, sequence: SeqId, output: Output) {
        self.rows.push(Row {
            input,
            sequence,
            output,
            slot: 0,
            position: 0,
        });
    }

    /// Number of rows that have an embedding.
    pub(crate) fn n_embeddings(&self) -> usize {
        self.n_embeddings
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
