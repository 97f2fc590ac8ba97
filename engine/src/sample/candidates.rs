//! The candidate list and the samplers that shorten it or reshape it.
//!
//! What makes the result the same everywhere: the list is always in one of two orders, by id (as it comes) or by
//! rank (logit descending, id ascending: no two candidates are equal in it), so neither the result nor any sum
//! depends on how a sort works inside. Sums of probabilities run in rank order, in f32, one term after the other.
//! The formulas are those of llama.cpp's `llama-sampler.cpp`.

/// A token that can still be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub id: u32,
    /// Its logit, as the samplers left it.
    pub logit: f32,
    /// Its probability among the candidates, once the sampler has computed it.
    pub p: f32,
}

/// Ascending keys are rank order. -0 and +0 are one value: logits enter with `+ 0.0`.
fn rank_key(c: &Candidate) -> u64 {
    let bits = c.logit.to_bits();
    // IEEE bits to an unsigned integer of the same order, then inverted: high logits first.
    let ascending = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 0x8000_0000
    };
    u64::from(!ascending) << 32 | u64::from(c.id)
}

/// Keeps a logit finite: penalties and biases can push it over the edge.
pub(super) fn saturate(x: f32) -> f32 {
    x.clamp(f32::MIN, f32::MAX)
}

/// Every candidate. Its memory grows to the vocabulary's size once and is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    /// (score's bits, rank) for typical sampling.
    scratch: Vec<(u32, u32)>,
    /// Whether `list` is in rank order.
    ranked: bool,
}

impl Candidates {
    /// Makes room for so many.
    pub(super) fn reserve(&mut self, n_vocab: usize) {
        self.list.clear();
        self.list.reserve_exact(n_vocab);
        self.scratch.clear();
        self.scratch.reserve_exact(n_vocab);
    }

    /// Takes the logits, by id. They must be finite.
    pub(super) fn fill(&mut self, logits: &[f32]) {
        self.list.clear();
        self.list
            .extend(logits.iter().zip(0u32..).map(|(&logit, id)| Candidate {
                id,
                logit: logit + 0.0,
                p: 0.0,
            }));
        self.ranked = false;
    }

    /// Adds biases, ascending by id, to a list just filled; tokens biased with minus infinity are dropped.
    pub(super) fn bias(&mut self, bias: &[(u32, f32)]) {
        for &(id, b) in bias {
            if let Some(c) = self.list.get_mut(id as usize) {
                // Marked for the next line; every other logit is finite.
                c.logit = if b == f32::NEG_INFINITY {
                    b
                } else {
                    saturate(c.logit + b) + 0.0
                };
            }
        }
        self.list.retain(|c| c.logit > f32::NEG_INFINITY);
    }

    pub(super) fn as_slice(&self) -> &[Candidate] {
        &self.list
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Changes logits in place. The order becomes stale, so the list returns to by-id until it is ranked anew.
    pub(super) fn update(&mut self, mut f: impl FnMut(&mut Candidate)) {
        for c in &mut self.list {
            f(c);
            c.logit = saturate(c.logit) + 0.0;
        }
        if self.ranked {
            self.list.sort_unstable_by_key(|c| c.id);
            self.ranked = false;
        }
    }

    pub(super) fn rank(&mut self) {
        if !self.ranked {
            self.list.sort_unstable_by_key(rank_key);
            self.ranked = true;
        }
    }

    fn truncate(&mut self, n: usize) {
        self.list.truncate(n);
    }

    fn max_logit(&self) -> f32 {
        let mut max = f32::NEG_INFINITY;
        for c in &self.list {
            if max < c.logit {
                max = c.logit;
            }
        }
        max
    }

    /// Ranks, and sets every `p`; they add up to 1.
    pub(super) fn softmax(&mut self) {
        self.rank();
        let Some(first) = self.list.first() else { return };
        let max = first.logit;
        let mut sum = 0.0f32;
        for c in &mut self.list {
            c.p = libm::expf(c.logit - max);
            sum += c.p;
        }
        for c in &mut self.list {
            c.p /= sum;
        }
    }

    /// Leaves only the first in rank order.
    pub(super) fn keep_best(&mut self) {
        let Some(&first) = self.list.first() else { return };
        let mut best = first;
        for c in &self.list {
            if rank_key(c) < rank_key(&best) {
                best = *c;
            }
        }
        best.p = 1.0;
        self.list.clear();
        self.list.push(best);
        self.ranked = true;
    }

    pub(super) fn top_k(&mut self, k: i32) {
        let Some(k) = usize::try_from(k).ok().filter(|&k| k > 0) else {
            return;
        };
        if !self.ranked && k < self.list.len() {
            self.list.select_nth_unstable_by_key(k, rank_key);
            self.truncate(k);
        }
        self.rank();
        self.truncate(k);
    }

    pub(super) fn top_p(&mut self, p: f32, min_keep: usize) {
        if p >= 1.0 {
            return;
        }
        self.softmax();
        let mut sum = 0.0f32;
        for i in 0..self.list.len() {
            sum += self.list[i].p;
            if sum >= p && i + 1 >= min_keep {
                self.truncate(i + 1);
                return;
            }
        }
    }

    pub(super) fn min_p(&mut self, p: f32, min_keep: usize) {
        if p <= 0.0 || self.list.is_empty() {
            return;
        }
        let least = self.max_logit() + libm::logf(p);
        let kept = self.list.iter().filter(|c| c.logit >= least).count();
        if kept >= min_keep && kept > 0 {
            self.list.retain(|c| c.logit >= least);
        } else {
            self.rank();
            self.truncate(min_keep);
        }
    }

    /// "Locally Typical Sampling", Meister et al. 2022.
    pub(super) fn typical(&mut self, p: f32, min_keep: usize) {
        if p >= 1.0 {
            return;
        }
        self.softmax();
        let mut entropy = 0.0f32;
        for c in self.list.iter().filter(|c| c.p > 0.0) {
            entropy -= c.p * libm::logf(c.p);
        }
        self.scratch.clear();
        self.scratch.extend(self.list.iter().zip(0u32..).map(|(c, rank)| {
            // Not negative, so its bits order as it does. Impossible tokens are infinitely untypical.
            let score = (-libm::logf(c.p) - entropy).abs();
            (score.to_bits(), rank)
        }));
        self.scratch.sort_unstable();
        let mut sum = 0.0f32;
        let mut kept = self.scratch.len();
        for (i, &(_, rank)) in self.scratch.iter().enumerate() {
            sum += self.list[rank as usize].p;
            if sum > p && i + 1 >= min_keep {
                kept = i + 1;
                break;
            }
        }
        self.scratch.truncate(kept);
        self.scratch.sort_unstable_by_key(|&(_, rank)| rank);
        for (to, &(_, from)) in self.scratch.iter().enumerate() {
            // `from` ascends and is at least `to`: nothing is overwritten before it is read.
            self.list[to] = self.list[from as usize];
        }
        self.truncate(kept);
    }

    /// "Top-nσ: Not All Logits Are You Need", Tang et al. 2024. Sums in f64, in the order of the list.
    pub(super) fn top_n_sigma(&mut self, n: f32) {
        if n <= 0.0 || self.list.len() <= 1 {
            return;
        }
        let count = self.list.len() as f64;
        let mut sum = 0.0f64;
        for c in &self.list {
            sum += f64::from(c.logit);
        }
        let mean = sum / count;
        let mut squares = 0.0f64;
        for c in &self.list {
            let d = f64::from(c.logit) - mean;
            squares += d * d;
        }
        let sigma = (squares / count).sqrt();
        let least = f64::from(self.max_logit()) - f64::from(n) * sigma;
        self.list.retain(|c| f64::from(c.logit) >= least);
    }

    /// Exclude top choices: `chance` is a random number in [0, 1).
    pub(super) fn xtc(&mut self, chance: f32, probability: f32, threshold: f32, min_keep: usize) {
        if chance > probability {
            return;
        }
        self.softmax();
        let over = self.list.iter().take_while(|c| c.p >= threshold).count();
        // The least likely of those over the threshold stays.
        let dropped = over.saturating_sub(1);
        if dropped > 0 && self.list.len() - dropped >= min_keep {
            self.list.copy_within(dropped.., 0);
            let left = self.list.len() - dropped;
            self.truncate(left);
        }
    }

    /// Divides by the temperature; 0 leaves only the best.
    pub(super) fn temperature(&mut self, temp: f32) {
        if temp <= 0.0 {
            self.keep_best();
            return;
        }
        if self.list.iter().all(|c| (c.logit / temp).is_finite()) {
            for c in &mut self.list {
                c.logit = c.logit / temp + 0.0;
            }
        } else {
            // A temperature near 0 overflows the quotient: differences to the maximum keep the order and the
            // distribution, and what lies too far below it is as good as impossible.
            let max = self.max_logit();
            for c in &mut self.list {
                c.logit = saturate((c.logit - max) / temp) + 0.0;
            }
        }
        // Division can make two logits equal; then ids decide.
        self.ranked = false;
        self.rank();
    }

    /// Entropy-driven temperature: `temp` > 0, `range` > 0.
    pub(super) fn dynamic_temperature(&mut self, temp: f32, range: f32, exponent: f32) {
        if self.list.len() <= 1 {
            return;
        }
        let low = if temp > range { temp - range } else { 0.0 };
        let high = saturate(temp + range);
        self.softmax();
        let mut entropy = 0.0f32;
        for c in self.list.iter().filter(|c| c.p > 0.0) {
            entropy -= c.p * libm::logf(c.p);
        }
        let normalized = (entropy / libm::logf(self.list.len() as f32)).clamp(0.0, 1.0);
        self.temperature(low + (high - low) * libm::powf(normalized, exponent));
    }

    /// Mirostat's cut: drops tokens whose surprise is over `mu` bits, but never the best. Needs `softmax`.
    pub(super) fn drop_surprising(&mut self, mu: f32) {
        let kept = self.list.iter().take_while(|c| -libm::log2f(c.p) <= mu).count();
        self.truncate(if kept == 0 { 1 } else { kept });
    }

    /// The candidate at which the sum of probabilities passes `r`, in [0, 1), of their total. Needs `softmax`.
    pub(super) fn pick(&self, r: f32) -> Option<Candidate> {
        let mut total = 0.0f32;
        for c in &self.list {
            total += c.p;
        }
        let target = r * total;
        let mut sum = 0.0f32;
        for c in &self.list {
            sum += c.p;
            if sum > target {
                return Some(*c);
            }
        }
        // Rounding of `target` up to the total itself: the last one that is possible.
        self.list.iter().rev().find(|c| c.p > 0.0).copied()
    }
}
