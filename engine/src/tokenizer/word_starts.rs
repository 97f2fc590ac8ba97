//! Where a text with U+2581 for spaces may be cut before merging without changing the result.
//!
//! SPM and Gemma 4 merge over whole texts, but hardly any token has U+2581 after another character. A join over
//! such a place would make a token with that pair of characters in it; where no token has it, the text falls
//! apart there, and pieces of a word each are merged much faster than a megabyte.

use hashbrown::HashSet;

use super::byte_text::SPACE_MARK;

/// The characters that stand before U+2581 in some token.
#[derive(Default)]
pub(super) struct WordStarts {
    before_mark: HashSet<char>,
}

impl WordStarts {
    /// Takes note of the pairs in a text that symbols may become. A text that is not UTF-8 takes part in no
    /// join, since the parts of a text are characters.
    pub(super) fn add(&mut self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else {
            return;
        };
        for (at, _) in text.match_indices(SPACE_MARK) {
            self.before_mark.extend(text[..at].chars().next_back());
        }
    }

    /// The pieces of `text`, which no join crosses.
    pub(super) fn split<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let cut = rest
                .match_indices(SPACE_MARK)
                .map(|(at, _)| at)
                .find(|&at| {
                    let before = rest[..at].chars().next_back();
                    before.is_some_and(|c| !SPACE_MARK.starts_with(c) && !self.before_mark.contains(&c))
                })
                .unwrap_or(rest.len());
            let (piece, after) = rest.split_at(cut);
            rest = after;
            Some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_before_marks_that_no_token_joins() {
        let mut starts = WordStarts::default();
        for text in ["▁▁", "▁a", ">▁<"] {
            starts.add(text.as_bytes());
        }
        let pieces = |text| starts.split(text).collect::<Vec<_>>();
        assert_eq!(pieces("▁▁a▁b>▁c▁▁"), ["▁▁a", "▁b>▁c", "▁▁"]);
        assert_eq!(pieces("abc"), ["abc"]);
        assert_eq!(pieces(""), [""; 0]);
    }
}
