//! A batch: what one pass of a model computes. Rows go in, each a token or an embedding of a sequence; values come out of
//! those that want one.

use crate::Result;
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
    /// The hidden state after the last norm.
    Hidden,
}

/// A row's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// n_vocab logits, all finite.
    Logits(&'a [f32]),
    /// n_embd values.
    Hidden(&'a [f32]),
}

/// Which positions a row sees, within its layer's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mask {
    /// Itself and what is before it.
    #[default]
    Causal,
    /// The whole sequence, the rows of this batch included.
    Bidirectional,
    /// The first positions of the sequence, up to this number, and then causally.
    Prefix(usize),
}

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) input: Input,
    /// Index into the sequences given with the batch.
    pub(crate) sequence: usize,
    pub(crate) output: Output,
    /// Given by the context: the sequence's next position.
    pub(crate) position: usize,
    /// Length of the sequence after this batch.
    pub(crate) end: usize,
}

/// Rows for one pass. Rows of one sequence take its next positions in the order in which they are pushed.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) rows: Vec<Row>,
    /// Of the rows that have one, in their order.
    pub(crate) embeddings: Vec<f32>,
    pub(crate) mask: Mask,
}

impl Batch {
    /// An empty causal batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty causal batch with room for `n` rows.
    ///
    /// # Errors
    /// `Memory` if the allocator refuses.
    pub(crate) fn with_room(n: usize, buffers: &mut Buffers<'_>) -> Result<Self> {
        Ok(Batch {
            rows: buffers.room("rows of a batch", n)?,
            ..Batch::default()
        })
    }

    /// Empties it and sets its mask; memory is kept.
    pub fn clear(&mut self, mask: Mask) {
        self.rows.clear();
        self.embeddings.clear();
        self.mask = mask;
    }

    /// Adds a token to the sequence with index `sequence`.
    pub fn push(&mut self, sequence: usize, token: u32, output: Output) {
        self.rows.push(Row {
            input: Input::Token(token),
            sequence,
            output,
            position: 0,
            end: 0,
        });
    }

    /// Adds an input embedding (n_embd values, already scaled) in place of a token.
    pub fn push_embedding(&mut self, sequence: usize, embedding: &[f32], output: Output) {
        let index = self
            .rows
            .iter()
            .filter(|row| matches!(row.input, Input::Embedding(_)))
            .count();
        self.embeddings.extend_from_slice(embedding);
        self.rows.push(Row {
            input: Input::Embedding(index),
            sequence,
            output,
            position: 0,
            end: 0,
        });
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
