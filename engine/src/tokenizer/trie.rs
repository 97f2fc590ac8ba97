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
    /// (node << 8 | byte) -> node, for the children of a node that has many: most have one or none.
    more: HashMap<u64, u32>,
    /// Whether a key begins with the byte: spares most places of a text the lookup.
    first: [bool; 256],
}

#[derive(Clone, Copy)]
struct Node {
    /// Value of the key that ends here, else [`NO_VALUE`].
    value: u32,
    /// The child that was added last to the list, else 0, which is no child.
    child: u32,
    /// The next one in the list of the parent's children, else 0.
    sibling: u32,
    /// What leads here.
    byte: u8,
    /// Whether there are children that are not in the list.
    more: bool,
}

/// Children of a node that are in its list.
const LISTED: usize = 8;

const NO_VALUE: u32 = u32::MAX;

const NEW: Node = Node {
    value: NO_VALUE,
    child: 0,
    sibling: 0,
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
        let parent = &self.nodes[node as usize];
        let mut at = parent.child;
        while at != 0 {
            let child = &self.nodes[at as usize];
            if child.byte == byte {
                return Some(at);
            }
            at = child.sibling;
        }
        if parent.more {
            self.more.get(&edge(node, byte)).copied()
        } else {
            None
        }
    }

    fn add_child(&mut self, node: u32, byte: u8) -> u32 {
        let child = self.nodes.len() as u32;
        let first = self.nodes[node as usize].child;
        let listed = std::iter::successors(Some(first), |&at| Some(self.nodes[at as usize].sibling))
            .take_while(|&at| at != 0)
            .count();
        let parent = &mut self.nodes[node as usize];
        let sibling = if listed < LISTED {
            std::mem::replace(&mut parent.child, child)
        } else {
            parent.more = true;
            self.more.insert(edge(node, byte), child);
            0
        };
        self.nodes.push(Node { sibling, byte, ..NEW });
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
        for byte in 0..=255 {
            trie.insert(&[b'a', byte, b'!'], 1000 + u32::from(byte));
        }
        for byte in 0..=255 {
            let expected = Some((3, 1000 + u32::from(byte)));
            assert_eq!(trie.longest_prefix(&[b'a', byte, b'!', b'?']), expected);
        }
        assert_eq!(trie.longest_prefix(b""), None);
    }
}
