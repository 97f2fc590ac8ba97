//! Prefix tree over byte strings: which keys begin at a place of a text.
//!
//! Keys over [`LONGEST_KEY`] bytes are left out: the walk at each place of a text is then bounded whatever the
//! vocabulary, and no known special token or word piece is half as long.

use hashbrown::HashMap;

/// The longest key, in bytes.
pub(super) const LONGEST_KEY: usize = 256;

/// Prefix tree; each key has a value below `u32::MAX`.
pub(super) struct Trie {
    /// The root is 0.
    nodes: Vec<Node>,
    /// (node << 8 | byte) -> node, for the children of a node after its first: most nodes have one or none.
    more: HashMap<u64, u32>,
    /// Whether a key begins with the byte: spares most places of a text the lookup.
    first: [bool; 256],
}

#[derive(Clone, Copy)]
struct Node {
    /// Value of the key that ends here, else [`NO_VALUE`].
    value: u32,
    /// The first child, else 0, which is no child.
    child: u32,
    byte: u8,
    /// Whether there are other children.
    more: bool,
}

const NO_VALUE: u32 = u32::MAX;

const NEW: Node = Node {
    value: NO_VALUE,
    child: 0,
    byte: 0,
    more: false,
};

impl Trie {
    /// An empty tree.
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![NEW],
            more: HashMap::new(),
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
            node = match self.child(node, byte) {
                Some(child) => child,
                None => self.add_child(node, byte),
            };
        }
        let slot = &mut self.nodes[node as usize].value;
        if *slot == NO_VALUE {
            *slot = value;
        }
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let found = self.nodes[node as usize];
        if found.child != 0 && found.byte == byte {
            return Some(found.child);
        }
        if !found.more {
            return None;
        }
        self.more.get(&edge(node, byte)).copied()
    }

    fn add_child(&mut self, node: u32, byte: u8) -> u32 {
        let child = self.nodes.len() as u32;
        self.nodes.push(NEW);
        let parent = &mut self.nodes[node as usize];
        if parent.child == 0 {
            (parent.child, parent.byte) = (child, byte);
        } else {
            parent.more = true;
            self.more.insert(edge(node, byte), child);
        }
        child
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
            match self.child(node, byte) {
                Some(next) => node = next,
                None => return,
            }
            let value = self.nodes[node as usize].value;
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
        for (value, key) in ["ab", "abcd", "b", "ab", "", "ac", "acd", "abx"]
            .iter()
            .enumerate()
        {
            trie.insert(key.as_bytes(), value as u32);
        }
        let mut found = Vec::new();
        trie.prefixes(b"abcde", |length, value| found.push((length, value)));
        assert_eq!(found, [(2, 0), (4, 1)]);
        assert_eq!(trie.longest_prefix(b"abcx"), Some((2, 0)));
        assert_eq!(trie.longest_prefix(b"abxx"), Some((3, 7)));
        assert_eq!(trie.longest_prefix(b"acde"), Some((3, 6)));
        assert_eq!(trie.longest_prefix(b"ad"), None);
        assert_eq!(trie.longest_prefix(b"ca"), None);
        assert_eq!(trie.longest_prefix(b""), None);
    }
}
