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

    /// Adds a token in place of the oldest one.
    pub(super) fn push(&mut self, token: u32) {
        let capacity = self.data.len();
        if let Some(slot) = self.data.get_mut(self.next) {
            *slot = token;
            self.next = (self.next + 1) % capacity;
            self.len = (self.len + 1).min(capacity);
        }
    }

    /// How many it can hold.
    pub(super) fn capacity(&self) -> usize {
        self.data.len()
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
}

impl Penalties {
    pub(super) fn new(last_n: usize, repeat: f32, freq: f32, present: f32) -> Self {
        Self {
            repeat,
            freq,
            present,
            last: Ring::new(last_n),
        }
    }

    pub(super) fn accept(&mut self, token: u32) {
        self.last.push(token);
    }

    pub(super) fn reset(&mut self) {
        self.last.clear();
    }

    /// `counts` holds a zero per token of the vocabulary, and does so again afterwards. All tokens of the history are
    /// in the vocabulary.
    pub(super) fn apply(&self, candidates: &mut Candidates, counts: &mut [u32]) {
        let n = self.last.len();
        if n == 0 {
            return;
        }
        for i in 0..n {
            counts[self.last.newest(i) as usize] += 1;
        }
        candidates.update(|c| {
            let count = counts[c.id as usize];
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
        for i in 0..n {
            counts[self.last.newest(i) as usize] = 0;
        }
    }
}
