//! Finds the special and user-defined tokens that are written out in a text, before anything else is done.
//!
//! llama.cpp's order (`tokenizer_st_partition`): tokens from the longest to the shortest; each takes its
//! occurrences from left to right in what the ones before it left over. Doing that token by token costs
//! tokens x text; here every place of the text is looked up once in a prefix tree, and the occurrences are then
//! taken by length. The result is the same.

use std::ops::Range;

use super::trie::{LONGEST_KEY, Trie};
use super::vocabulary::{Attributes, Vocabulary};

/// A part of the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fragment {
    /// Bytes of the text that are still to be tokenized, never empty.
    Text(Range<usize>),
    /// A token that was written out.
    Token(u32),
}

/// The tokens that are looked for; those over [`LONGEST_KEY`] bytes are not.
pub(super) struct Specials {
    trie: Trie,
    /// Length of the longest one.
    longest: usize,
}

/// An occurrence that may be taken.
#[derive(Clone, Copy)]
struct Occurrence {
    start: usize,
    token: u32,
}

impl Specials {
    /// All control, unknown and user-defined tokens of `vocabulary`, but for those that are no text: they could be
    /// found only within a character, and a text is not cut there.
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut specials = Self {
            trie: Trie::new(),
            longest: 0,
        };
        for id in 0..vocabulary.len() as u32 {
            let attributes = vocabulary.attributes(id);
            let text = vocabulary.text(id).unwrap_or_default();
            let special =
                attributes.any(Attributes::CONTROL | Attributes::UNKNOWN | Attributes::USER_DEFINED);
            if special && std::str::from_utf8(text).is_ok() {
                specials.trie.insert(text, id);
                specials.longest = specials.longest.max(text.len().min(LONGEST_KEY));
            }
        }
        specials
    }

    /// Splits `text`. Control and unknown tokens are looked for only with `parse_special`.
    pub(super) fn split(&self, vocabulary: &Vocabulary, text: &str, parse_special: bool) -> Vec<Fragment> {
        let bytes = text.as_bytes();
        // the longest token at `start` of at most `limit` bytes
        let longest_at = |start: usize, limit: usize| {
            let mut best = None;
            let window = &bytes[start..bytes.len().min(start + limit)];
            self.trie.prefixes(window, |length, token| {
                let needs_flag = Attributes::CONTROL | Attributes::UNKNOWN;
                if parse_special || !vocabulary.attributes(token).any(needs_flag) {
                    best = Some((length, token));
                }
            });
            best
        };

        let mut by_length: Vec<Vec<Occurrence>> = vec![Vec::new(); self.longest + 1];
        for start in (0..bytes.len()).filter(|&i| self.trie.begins(bytes[i])) {
            if let Some((length, token)) = longest_at(start, self.longest) {
                by_length[length].push(Occurrence { start, token });
            }
        }
        if by_length.iter().all(Vec::is_empty) {
            return whole(bytes.len());
        }

        let mut taken = vec![false; bytes.len()];
        let mut chosen: Vec<(Range<usize>, u32)> = Vec::new();
        for length in (1..=self.longest).rev() {
            let mut occurrences = std::mem::take(&mut by_length[length]);
            occurrences.sort_unstable_by_key(|o| (o.token, o.start));
            for Occurrence { start, token } in occurrences {
                if taken[start] {
                    continue;
                }
                // what is taken is at least this long, so it covers an end of this one or none of it
                if taken[start + length - 1] {
                    if let Some((shorter, token)) = longest_at(start, length - 1) {
                        by_length[shorter].push(Occurrence { start, token });
                    }
                    continue;
                }
                let attributes = vocabulary.attributes(token);
                let free_space = |i: usize, taken: &[bool]| !taken[i] && is_c_space(bytes[i]);
                let (mut first, mut end) = (start, start + length);
                if attributes.any(Attributes::LSTRIP) {
                    while first > 0 && free_space(first - 1, &taken) {
                        first -= 1;
                    }
                }
                if attributes.any(Attributes::RSTRIP) {
                    while end < bytes.len() && free_space(end, &taken) {
                        end += 1;
                    }
                }
                taken[first..end].fill(true);
                chosen.push((first..end, token));
            }
        }

        chosen.sort_unstable_by_key(|(range, _)| range.start);
        let mut fragments = Vec::with_capacity(2 * chosen.len() + 1);
        let mut at = 0;
        for (range, token) in chosen {
            if at < range.start {
                fragments.push(Fragment::Text(at..range.start));
            }
            fragments.push(Fragment::Token(token));
            at = range.end;
        }
        if at < bytes.len() {
            fragments.push(Fragment::Text(at..bytes.len()));
        }
        fragments
    }
}

fn whole(len: usize) -> Vec<Fragment> {
    if len == 0 {
        Vec::new()
    } else {
        vec![Fragment::Text(0..len)]
    }
}

/// C's `isspace` in the "C" locale.
fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}
