//! The tokens accepted so far, newest first, and the penalties on those that occurred.

use super::candidates::Candidates;

/// A ring of the last `capacity` tokens.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    data: Vec<u32>,
    /// Where the next token goes.
    next: usize,
    len: usize,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            data: vec![0; capacity],
            next: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a token; returns the one that had to leave.
    pub(super) fn push(&mut self, token: u32) -> Option<u32> {
        let capacity = self.data.len();
        let slot = self.data.get_mut(self.next)?;
        let old = std::mem::replace(slot, token);
        self.next = (self.next + 1) % capacity;
        if self.len == capacity {
            return Some(old);
        }
        self.len += 1;
        None
    }

    /// The `i`-th newest token: 0 is the last one pushed. `i` must be below `len`.
    pub(super) fn newest(&self, i: usize) -> u32 {
        let capacity = self.data.len();
        self.data[(self.next + capacity - 1 - i) % capacity]
    }

    pub(super) fn clear(&mut self) {
        self.next = 0;
        self.len = 0;
    }
}

/// Repetition, frequency and presence penalties over the last tokens.
#[derive(Debug, Clone)]
pub(super) struct Penalties {
    repeat: f32,
    freq: f32,
    present: f32,
    last: Ring,
    /// Occurrences of each token in `last`.
    counts: Vec<u32>,
}

impl Penalties {
    pub(super) fn new(n_vocab: usize, last_n: usize, repeat: f32, freq: f32, present: f32) -> Self {
        Self {
            repeat,
            freq,
            present,
            last: Ring::new(last_n),
            counts: vec![0; n_vocab],
        }
    }

    /// `token` must be in the vocabulary.
    pub(super) fn accept(&mut self, token: u32) {
        if let Some(old) = self.last.push(token) {
            self.counts[old as usize] -= 1;
        }
        self.counts[token as usize] += 1;
    }

    pub(super) fn reset(&mut self) {
        self.last.clear();
        self.counts.fill(0);
    }

    pub(super) fn apply(&self, candidates: &mut Candidates) {
        if self.last.len() == 0 {
            return;
        }
        candidates.update(|c| {
            let count = self.counts[c.id as usize];
            if count == 0 {
                return;
            }
            // The paper (CTRL, Keskar et al. 2019) only divides, which would favour tokens of negative logit.
            if c.logit <= 0.0 {
                c.logit *= self.repeat;
            } else {
                c.logit /= self.repeat;
            }
            c.logit = super::candidates::saturate(c.logit);
            c.logit -= super::candidates::saturate(count as f32 * self.freq + self.present);
        });
    }
}
