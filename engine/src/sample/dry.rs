//! DRY ("don't repeat yourself"): tokens that would extend a sequence that already occurred are penalized, the more
//! the longer it is. Design: <https://github.com/oobabooga/text-generation-webui/pull/5677>; linear-time form and
//! treatment of sequence breakers: llama.cpp's `llama_sampler_dry`.

use std::collections::HashMap;

use super::candidates::{Candidates, saturate};
use super::history::Ring;
use super::params::SamplerParams;

/// Longest breaker, in bytes; longer ones are cut.
const MAX_BREAKER_BYTES: usize = 40;
/// Longest tail of a breaker, in tokens; longer ones are cut.
const MAX_TAIL: usize = 20;

/// Every way in which the vocabulary can spell the strings: token sequences for
/// [`SamplerParams::dry_sequence_breakers`]. A token whose text contains a string is a breaker by itself; a token
/// whose text ends in the beginning of one is the head of a breaker, followed by the tokens of the rest.
///
/// `piece` gives a token's bytes; `tokenize` the tokens of a text, without special tokens added or parsed.
pub fn dry_breakers<S: AsRef<str>>(
    strings: &[S],
    n_vocab: usize,
    piece: &dyn Fn(u32) -> Vec<u8>,
    tokenize: &dyn Fn(&str) -> Vec<u32>,
) -> Vec<Vec<u32>> {
    let mut found = Vec::new();
    for id in 0..u32::try_from(n_vocab).unwrap_or(u32::MAX) {
        let word = piece(id);
        let first = found.len();
        for string in strings {
            let text = string.as_ref();
            let mut end = text.len();
            if end > MAX_BREAKER_BYTES {
                end = MAX_BREAKER_BYTES;
            }
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let text = &text[..end];
            if text.is_empty() {
                continue;
            }
            if word.windows(text.len()).any(|w| w == text.as_bytes()) {
                found.push(vec![id]);
                continue;
            }
            let longest = if word.len() < text.len() {
                word.len()
            } else {
                text.len()
            };
            for overlap in 1..=longest {
                // A tail that starts inside a character is no text that could be tokenized.
                if !word.ends_with(&text.as_bytes()[..overlap]) || !text.is_char_boundary(overlap) {
                    continue;
                }
                let mut sequence = vec![id];
                sequence.extend(tokenize(&text[overlap..]).into_iter().take(MAX_TAIL));
                if !found[first..].contains(&sequence) {
                    found.push(sequence);
                }
            }
        }
    }
    found
}

#[derive(Debug, Clone)]
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed_length: usize,
    last: Ring,
    /// Head token -> what must follow it. An empty tail makes the head a breaker by itself.
    breakers: HashMap<u32, Vec<Vec<u32>>>,
}

/// What DRY works in.
#[derive(Debug, Clone, Default)]
pub(super) struct DryScratch {
    /// `overlap[k]`: how many of the newest tokens also stand `k` tokens earlier.
    overlap: Vec<u32>,
    touched: Vec<u32>,
}

impl DryScratch {
    /// Makes room for a history of so many tokens.
    pub(super) fn reserve(&mut self, history: usize) {
        if self.overlap.len() < history {
            self.overlap.resize(history, 0);
            self.touched.reserve_exact(history);
        }
    }
}

impl Dry {
    pub(super) fn new(params: &SamplerParams) -> Self {
        let last_n = params.resolve_last_n(params.dry_penalty_last_n);
        let mut breakers: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        for sequence in &params.dry_sequence_breakers {
            if let Some((&head, tail)) = sequence.split_first() {
                breakers.entry(head).or_default().push(tail.to_vec());
            }
        }
        Self {
            multiplier: params.dry_multiplier,
            base: params.dry_base,
            allowed_length: usize::try_from(params.dry_allowed_length).unwrap_or(0),
            last: Ring::new(last_n),
            breakers,
        }
    }

    pub(super) fn accept(&mut self, token: u32) {
        self.last.push(token);
    }

    pub(super) fn reset(&mut self) {
        self.last.clear();
    }

    /// Tokens that it looks back on at most.
    pub(super) fn history(&self) -> usize {
        self.last.capacity()
    }

    /// `longest` holds a zero per token of the vocabulary, and does so again afterwards: while this runs, it holds the
    /// longest sequence that the token would extend, plus one. `scratch` has room for [`Self::history`].
    pub(super) fn apply(&self, candidates: &mut Candidates, longest: &mut [u32], scratch: &mut DryScratch) {
        let n = self.last.len();
        if n <= self.allowed_length {
            return;
        }
        let limit = self.limit();
        if limit < self.allowed_length {
            return;
        }
        let DryScratch { overlap, touched } = scratch;
        self.find_overlaps(overlap);

        for (k, &length) in overlap.iter().enumerate().take(n).skip(1) {
            let length = length.min(u32::try_from(limit).unwrap_or(u32::MAX));
            if (length as usize) < self.allowed_length {
                continue;
            }
            // The token that followed the earlier occurrence.
            let token = self.last.newest(k - 1);
            let longest = &mut longest[token as usize];
            if *longest == 0 {
                touched.push(token);
            }
            *longest = (*longest).max(length.saturating_add(1));
        }

        // base ^ exponent must stay below f32's largest number, whose logarithm this is.
        let max_exponent = if self.base > 1.000_001 {
            (88.722_84 / libm::log(f64::from(self.base))) as usize
        } else {
            usize::MAX
        };
        candidates.update(|c| {
            let longest = longest[c.id as usize] as usize;
            if longest == 0 || self.is_single_breaker(c.id) {
                return;
            }
            let exponent = (longest - 1 - self.allowed_length).min(max_exponent);
            let power = libm::pow(f64::from(self.base), exponent as f64);
            c.logit -= saturate((f64::from(self.multiplier) * power) as f32);
        });
        for token in touched.drain(..) {
            longest[token as usize] = 0;
        }
    }

    fn is_single_breaker(&self, token: u32) -> bool {
        self.breakers
            .get(&token)
            .is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// How far back a repetition may reach: to the newest breaker.
    fn limit(&self) -> usize {
        let n = self.last.len();
        for i in 0..n {
            let Some(tails) = self.breakers.get(&self.last.newest(i)) else {
                continue;
            };
            let longest = tails
                .iter()
                .filter(|tail| tail.len() <= i)
                .filter(|tail| (0..tail.len()).all(|t| tail[t] == self.last.newest(i - t - 1)))
                .map(Vec::len)
                .max();
            if let Some(longest) = longest {
                return i - longest;
            }
        }
        n
    }

    /// The Z function of the history, newest first: linear in its length.
    fn find_overlaps(&self, overlap: &mut [u32]) {
        let n = self.last.len();
        // [left, right) is the match that reaches furthest.
        let (mut left, mut right) = (0, 0);
        for k in 1..n {
            let mut length = 0;
            if k < right {
                length = (overlap[k - left] as usize).min(right - k);
            }
            while k + length < n && self.last.newest(length) == self.last.newest(k + length) {
                length += 1;
            }
            // The ring is bounded by MAX_LAST_N, so this fits.
            overlap[k] = length as u32;
            if k + length > right {
                (left, right) = (k, k + length);
            }
        }
    }
}
