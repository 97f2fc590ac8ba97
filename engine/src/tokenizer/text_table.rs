//! Byte strings numbered in the order they came, and found again by their content: vocabulary entries,
//! merge symbols.
//!
//! All strings lie in one buffer; the hash table holds numbers only. A vocabulary of 262,144 entries costs one
//! allocation for the text, not a quarter of a million.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{Error, Result};

/// Numbered byte strings with lookup by content.
#[derive(Default)]
pub(super) struct TextTable {
    bytes: Vec<u8>,
    /// End of string `i` in `bytes`; it begins where the one before it ends.
    ends: Vec<u32>,
    entries: HashTable<Entry>,
    hasher: DefaultHashBuilder,
}

/// Where a string lies, so that a lookup need not go through `ends`.
struct Entry {
    number: u32,
    start: u32,
    end: u32,
}

impl Entry {
    fn text<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

impl TextTable {
    /// Number of strings.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// String `number`.
    pub(super) fn text(&self, number: u32) -> Option<&[u8]> {
        let i = number as usize;
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.bytes.get(start..end)
    }

    /// An empty table with room for `strings` strings.
    pub(super) fn with_capacity(strings: usize) -> Self {
        Self {
            ends: Vec::with_capacity(strings),
            entries: HashTable::with_capacity(strings),
            ..Self::default()
        }
    }

    /// The number of `text`; of equal strings, the first one's.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.find_hashed(self.hasher.hash_one(text), text)
    }

    fn find_hashed(&self, hash: u64, text: &[u8]) -> Option<u32> {
        self.entries
            .find(hash, |entry| entry.text(&self.bytes) == text)
            .map(|entry| entry.number)
    }

    /// Adds `text` under the next number. Empty and repeated strings get a number but are not found by content.
    ///
    /// # Errors
    /// `Limit` past 4 GiB of text.
    pub(super) fn push(&mut self, text: &[u8]) -> Result<u32> {
        let hash = self.hasher.hash_one(text);
        let listed = !text.is_empty() && self.find_hashed(hash, text).is_none();
        self.add(hash, text, listed)
    }

    /// The number of `text`, which is added where it is new.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn intern(&mut self, text: &[u8]) -> Result<u32> {
        let hash = self.hasher.hash_one(text);
        match self.find_hashed(hash, text) {
            Some(number) => Ok(number),
            None => self.add(hash, text, true),
        }
    }

    fn add(&mut self, hash: u64, text: &[u8], listed: bool) -> Result<u32> {
        let number = self.ends.len() as u32;
        let end = self.bytes.len() + text.len();
        let (Ok(end_u32), true) = (u32::try_from(end), self.ends.len() < u32::MAX as usize) else {
            return Err(Error::ModelLimit {
                what: "text of the vocabulary in bytes".into(),
                found: end as u64,
                limit: u32::MAX.into(),
            });
        };
        if listed {
            let entry = Entry {
                number,
                start: self.bytes.len() as u32,
                end: end_u32,
            };
            let (bytes, hasher) = (&self.bytes, &self.hasher);
            self.entries
                .insert_unique(hash, entry, |entry| hasher.hash_one(entry.text(bytes)));
        }
        self.bytes.extend_from_slice(text);
        self.ends.push(end_u32);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_pushed_and_the_first_of_equals() {
        let mut table = TextTable::default();
        for text in ["a", "", "bc", "a", "\u{2581}x"] {
            table.push(text.as_bytes()).unwrap();
        }
        assert_eq!(table.len(), 5);
        assert_eq!(table.find(b"a"), Some(0));
        assert_eq!(table.find(b""), None);
        assert_eq!(table.find(b"bc"), Some(2));
        assert_eq!(table.text(3), Some(&b"a"[..]));
        assert_eq!(table.text(5), None);
        assert_eq!(table.intern(b"bc").unwrap(), 2);
        assert_eq!(table.intern(b"new").unwrap(), 5);
    }
}
