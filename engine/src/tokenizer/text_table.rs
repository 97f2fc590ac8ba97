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
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

fn slice<'a>(bytes: &'a [u8], ends: &[u32], number: u32) -> Option<&'a [u8]> {
    let i = number as usize;
    let end = *ends.get(i)? as usize;
    let start = if i == 0 { 0 } else { ends[i - 1] as usize };
    bytes.get(start..end)
}

impl TextTable {
    /// Number of strings.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// String `number`.
    pub(super) fn text(&self, number: u32) -> Option<&[u8]> {
        slice(&self.bytes, &self.ends, number)
    }

    /// The number of `text`; of equal strings, the first one's.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        let same = |&number: &u32| slice(&self.bytes, &self.ends, number) == Some(text);
        self.numbers.find(hash, same).copied()
    }

    /// Adds `text` under the next number. Empty and repeated strings get a number but are not found by content.
    ///
    /// # Errors
    /// `Limit` past 4 GiB of text.
    pub(super) fn push(&mut self, text: &[u8]) -> Result<u32> {
        let number = self.ends.len() as u32;
        let end = self.bytes.len() + text.len();
        let (Ok(end), true) = (u32::try_from(end), self.ends.len() < u32::MAX as usize) else {
            return Err(Error::Limit {
                what: "text of the vocabulary in bytes".into(),
                found: end as u64,
                limit: u32::MAX.into(),
            });
        };
        let known = text.is_empty() || self.find(text).is_some();
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        if !known {
            let hash = self.hasher.hash_one(text);
            let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
            self.numbers.insert_unique(hash, number, |&n| {
                hasher.hash_one(slice(bytes, ends, n).unwrap_or_default())
            });
        }
        Ok(number)
    }

    /// The number of `text`, which is added where it is new.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn intern(&mut self, text: &[u8]) -> Result<u32> {
        match self.find(text) {
            Some(number) => Ok(number),
            None => self.push(text),
        }
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
