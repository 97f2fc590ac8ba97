//! What samplers work in: as large as the vocabulary, and nobody's state.

use super::Sampler;
use super::candidates::{Candidate, Candidates};
use super::dry::DryScratch;

/// Memory that a sampler needs while it chooses. Nothing in it outlives a [`Sampler::sample`] but the candidates, to be
/// looked at, so samplers of any kind and number take turns with one; it grows to what the largest of them needs.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    pub(super) candidates: Candidates,
    /// A zero per token; samplers that count something per token leave it as they found it.
    pub(super) per_token: Vec<u32>,
    pub(super) dry: DryScratch,
}

impl Scratch {
    /// With room for this sampler already, where nothing is to be allocated later.
    pub fn fitting(sampler: &Sampler) -> Self {
        let mut scratch = Self::default();
        scratch.fit(sampler.n_vocab, sampler.dry_history());
        scratch
    }

    /// The candidates among which the last [`Sampler::sample`] chose, most likely first, with their probabilities.
    pub fn candidates(&self) -> &[Candidate] {
        self.candidates.as_slice()
    }

    /// Makes room for a vocabulary, and for DRY's history where there is one.
    pub(crate) fn fit(&mut self, n_vocab: usize, history: usize) {
        if self.per_token.len() < n_vocab {
            self.per_token.resize(n_vocab, 0);
            self.candidates.reserve(n_vocab);
        }
        self.dry.reserve(history);
    }
}
