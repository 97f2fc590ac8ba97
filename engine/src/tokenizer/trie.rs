//! Prefix tree over byte strings: which keys begin at a place of a text.
//!
//! Keys over [`LONGEST_KEY`] bytes are left out: the walk at each place of a text is then bounded whatever the
//! vocabulary, and no known special token or word piece is half as long.

use hashbrown::HashMap;

/// The longest key, in bytes.
pub(super) const LONGEST_KEY: usize = 256;

/// Prefix tree; each key has a value below `u32::MAX`.
pub(super) struct Trie {
    /// (node << 8 | byte) -> node; the root is 0.
    edges: HashMap<u64, u32>,
    /// Value of the key that ends at a node, else [`NO_VALUE`].
    values: Vec<u32>,
    /// Whether a key begins with the byte: spares most places of a text the lookup.
    first: [bool; 256],
}

const NO_VALUE: u32 = u32::MAX;

impl Trie {
    /// An empty tree.
    pub(super) fn new() -> Self {
        Self {
            edges: HashMap::new(),
            values: vec![NO_VALUE],
            first: [false; 256],
        }
    }

    /// Adds `key`; of equal keys the first one's value stays. Empty and too long keys are left out.
    pub(super) fn insert(&mut self, key: &[u8], value: u32) {
        let Some(&first) = key.first() else { return };
        if key.len() > LONGEST_KEY {
            return;
        }
        self.first[usize::from(first)] = true;
        let mut node = 0;
        for &byte in key {
            let next = self.values.len() as u32;
            node = *self.edges.entry(edge(node, byte)).or_insert(next);
            if node == next {
                self.values.push(NO_VALUE);
            }
        }
        let slot = &mut self.values[node as usize];
        if *slot == NO_VALUE {
            *slot = value;
        }
    }

    /// Whether a key can begin with `byte`.
    pub(super) fn begins(&self, byte: u8) -> bool {
        self.first[usize::from(byte)]
    }

    /// Calls `found(length, value)` for every key that is a prefix of `text`, shortest first.
    pub(super) fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        if !text.first().is_some_and(|&byte| self.begins(byte)) {
            return;
        }
        let mut node = 0;
        for (i, &byte) in text.iter().enumerate() {
            match self.edges.get(&edge(node, byte)) {
                Some(&next) => node = next,
                None => return,
            }
            let value = self.values[node as usize];
            if value != NO_VALUE {
                found(i + 1, value);
            }
        }
    }

    /// The longest key that is a prefix of `text`: its length and value.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut longest = None;
        self.prefixes(text, |length, value| longest = Some((length, value)));
        longest
    }
}

fn edge(node: u32, byte: u8) -> u64 {
    u64::from(node) << 8 | u64::from(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_prefixes() {
        let mut trie = Trie::new();
        for (value, key) in ["ab", "abcd", "b", "ab", ""].iter().enumerate() {
            trie.insert(key.as_bytes(), value as u32);
        }
        let mut found = Vec::new();
        trie.prefixes(b"abcde", |length, value| found.push((length, value)));
        assert_eq!(found, [(2, 0), (4, 1)]);
        assert_eq!(trie.longest_prefix(b"abcx"), Some((2, 0)));
        assert_eq!(trie.longest_prefix(b"ca"), None);
        assert_eq!(trie.longest_prefix(b""), None);
    }
}
