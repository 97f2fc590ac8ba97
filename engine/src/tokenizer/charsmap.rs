//! SentencePiece's precompiled character map: what of a text is replaced by what before it is tokenized
//! (`tokenizer.ggml.precompiled_charsmap`; NFKC and the like, made when the vocabulary was trained).
//!
//! ```text
//! file   n: u32 | n bytes of units, u32 each | replacements, each ended by a zero byte
//! unit   bits 0-7 label | 8 has a value | 9 the offset is shifted left by 8 | 10-30 offset | 31 this is a value
//! ```
//! The units are the double array of a trie (github.com/s-yata/darts-clone). From the place `p` of a node the child for
//! byte `b` is unit `p ^ b` if its label is `b`, and the child's own place is its index xor its offset. Where a node
//! has a value, the unit at its place holds it: where its replacement begins. The root is unit 0.
//!
//! All that can be reached is checked when the map is read: a lookup finds a replacement or nothing.

use crate::gguf::{Array, Metadata, Value};
use crate::{Error, Result};

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// Longest text that is looked up, in bytes. The longest one of NFKC has 18; the bound keeps a made-up map from
/// walking over the whole text at each place of it.
const LONGEST_KEY: usize = 256;

/// Longest replacement, in bytes. The longest one of NFKC has 33.
const LONGEST_REPLACEMENT: usize = 1024;

/// Texts and their replacements.
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    /// The map of `m`; `None` where the file has none or an empty one.
    ///
    /// # Errors
    /// `Metadata` where it is no map: no bytes, a length that does not fit, a replacement outside it or without an
    /// end. `Limit` for a replacement that is too long.
    pub(super) fn read(m: &Metadata) -> Result<Option<Self>> {
        let bytes: Vec<u8> = match m.get(CHARSMAP) {
            None => return Ok(None),
            Some(Value::Array(array)) if array.is_empty() => return Ok(None),
            Some(Value::Array(Array::U8(bytes))) => bytes.clone(),
            Some(Value::Array(Array::I8(bytes))) => bytes.iter().map(|&byte| byte as u8).collect(),
            Some(value) => return Err(wrong("an array of bytes", value.describe())),
        };
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(wrong("4 bytes for a length", format!("{} bytes", bytes.len())));
        };
        let length = u32::from_le_bytes(*head) as usize;
        // at least the zero byte of one replacement follows
        if length >= rest.len() || !length.is_multiple_of(4) {
            return Err(wrong(
                &format!(
                    "a multiple of 4 below {}, the bytes that follow, as its first number",
                    rest.len()
                ),
                length.to_string(),
            ));
        }
        let (units, replacements) = rest.split_at(length);
        let (units, _) = units.as_chunks::<4>();
        let map = Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: replacements.to_vec(),
        };
        map.check()?;
        Ok((!map.units.is_empty()).then_some(map))
    }

    /// The longest text that `text` begins with and that is replaced: its length, never 0, and its replacement.
    pub(super) fn longest(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let mut longest = None;
        let mut place = self.root();
        for (i, &byte) in text.iter().enumerate().take(LONGEST_KEY) {
            let Some((index, unit)) = self.child(place, byte) else {
                break;
            };
            place = index ^ offset(unit);
            if has_value(unit) {
                longest = Some((i + 1, place));
            }
        }
        let (length, place) = longest?;
        let rest = self.replacements.get(self.value(place)?..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        Some((length, &rest[..end]))
    }

    fn root(&self) -> u32 {
        self.units.first().map_or(0, |&unit| offset(unit))
    }

    /// The child for `byte` of the node at `place`: its index and unit. Keys hold no zero byte.
    fn child(&self, place: u32, byte: u8) -> Option<(u32, u32)> {
        let index = place ^ u32::from(byte);
        let unit = *self.units.get(index as usize)?;
        (byte != 0 && label(unit) == u32::from(byte)).then_some((index, unit))
    }

    fn value(&self, place: u32) -> Option<usize> {
        let unit = self.units.get(place as usize)?;
        Some((unit & !VALUE) as usize)
    }

    /// Looks at every node that the root leads to, once.
    fn check(&self) -> Result<()> {
        let mut seen = vec![false; self.units.len()];
        let mut places = vec![self.root()];
        while let Some(place) = places.pop() {
            for byte in 1..=255 {
                let Some((index, unit)) = self.child(place, byte) else {
                    continue;
                };
                if std::mem::replace(&mut seen[index as usize], true) {
                    continue;
                }
                let place = index ^ offset(unit);
                if has_value(unit) {
                    self.check_value(place)?;
                }
                places.push(place);
            }
        }
        Ok(())
    }

    fn check_value(&self, place: u32) -> Result<()> {
        let n = self.units.len();
        let start = self
            .value(place)
            .ok_or_else(|| wrong(&format!("a value in one of {n} units"), format!("unit {place}")))?;
        let of = self.replacements.len();
        let rest = self
            .replacements
            .get(start..)
            .filter(|rest| !rest.is_empty())
            .ok_or_else(|| {
                wrong(
                    &format!("a replacement in {of} bytes"),
                    format!("one at byte {start}"),
                )
            })?;
        let longest = rest.len().min(LONGEST_REPLACEMENT + 1);
        if rest[..longest].contains(&0) {
            return Ok(());
        }
        if longest == rest.len() {
            return Err(wrong(
                "a zero byte after each replacement",
                format!("none after the one at byte {start}"),
            ));
        }
        Err(Error::ModelLimit {
            what: format!("length of a replacement in `{CHARSMAP}`"),
            found: longest as u64,
            limit: LONGEST_REPLACEMENT as u64,
        })
    }
}

/// The mark of a unit that is a value.
const VALUE: u32 = 1 << 31;

/// The label of a unit; no byte for a value.
fn label(unit: u32) -> u32 {
    unit & (VALUE | 0xff)
}

fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}

fn wrong(expected: &str, found: String) -> Error {
    Error::Metadata {
        key: CHARSMAP.into(),
        expected: expected.into(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of single bytes and of pairs of them, which all lie in the first units.
    fn map(units: &[(usize, u32)], replacements: &[u8]) -> Result<Option<Charsmap>> {
        let mut all = vec![0u32; 1024];
        for &(index, unit) in units {
            all[index] = unit;
        }
        let mut bytes = 4096u32.to_le_bytes().to_vec();
        bytes.extend(all.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(replacements);
        read(bytes)
    }

    fn read(bytes: Vec<u8>) -> Result<Option<Charsmap>> {
        let mut m = Metadata::new();
        m.insert(CHARSMAP, Value::Array(Array::U8(bytes)));
        Charsmap::read(&m)
    }

    fn unit(label: u8, has_value: bool, offset: usize) -> u32 {
        u32::from(label) | u32::from(has_value) << 8 | (offset as u32) << 10
    }

    /// `a` -> `xy`, `ab` -> nothing: the root at 256, `a` at 512, `ab` at 768.
    fn units() -> [(usize, u32); 5] {
        let (a, ab) = (256 ^ 0x61, 512 ^ 0x62);
        [
            (0, unit(0, false, 256)),
            (a, unit(b'a', true, a ^ 512)),
            (512, VALUE),
            (ab, unit(b'b', true, ab ^ 768)),
            (768, VALUE | 3),
        ]
    }

    #[test]
    fn finds_the_longest() {
        let map = map(&units(), b"xy\0\0").unwrap().unwrap();
        assert_eq!(map.longest(b"abc"), Some((2, &b""[..])));
        assert_eq!(map.longest(b"ac"), Some((1, &b"xy"[..])));
        assert_eq!(map.longest(b"a"), Some((1, &b"xy"[..])));
        assert_eq!(map.longest(b"b"), None);
        assert_eq!(map.longest(b"\0a"), None);
        assert_eq!(map.longest(b""), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let refused = |result: Result<Option<Charsmap>>, part: &str| {
            let message = result.err().expect(part).to_string();
            assert!(message.contains(CHARSMAP) && message.contains(part), "{message}");
        };
        refused(read(vec![1, 2]), "found 2 bytes");
        refused(read(vec![0; 4]), "found 0");
        refused(read(vec![255; 400]), "found 4294967295");
        refused(read([&[3, 0, 0, 0][..], &[0; 20]].concat()), "found 3");
        refused(map(&units(), b"xy\0"), "found one at byte 3");
        refused(map(&units(), b"xy\0z"), "none after the one at byte 3");
        refused(
            map(&units(), &[&[b'x'; 2000][..], b"\0"].concat()),
            "over the limit",
        );
        let mut far = units();
        far[1].1 = unit(b'a', true, (1 << 21) - 1);
        refused(map(&far, b"xy\0\0"), "a value in one of 1024 units");
        let mut m = Metadata::new();
        m.insert(CHARSMAP, Value::String("x".into()));
        refused(Charsmap::read(&m), "an array of bytes");
        assert!(read(Vec::new()).unwrap().is_none());
        // a ring of nodes: every byte leads to itself
        let mut ring = units();
        ring[1].1 = unit(b'a', false, 0x61);
        ring[3] = (0x61 ^ 256, unit(b'a', false, 0x61));
        let map = map(&ring, b"\0").unwrap().unwrap();
        assert_eq!(map.longest(&[b'a'; 1000]), None);
    }
}
