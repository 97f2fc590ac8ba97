//! Text of a token stream as it comes: complete characters only, however tokens cut them.

use std::sync::Arc;

use super::{Tokenizer, vocabulary::Vocabulary};

/// Bytes that there is room for from the beginning: more than all but the longest tokens have.
const ROOM: usize = 64;

/// Turns tokens into text one by one. What it gives, put together, is `String::from_utf8_lossy` of the bytes of
/// all tokens: a character whose bytes are spread over tokens comes with the last of them, bytes that can
/// never become a character come as U+FFFD.
pub struct StreamDecoder {
    vocabulary: Arc<Vocabulary>,
    special: bool,
    /// Special tokens that are printed all the same.
    shown: Vec<u32>,
    /// Whether the tokenizer puts a space before a text.
    space_prefix: bool,
    /// Whether that space is still to be taken away.
    trim_space: bool,
    /// Bytes of a character that is not complete.
    pending: Vec<u8>,
    text: String,
}

impl StreamDecoder {
    pub(super) fn new(tokenizer: &Tokenizer, special: bool) -> Self {
        Self {
            vocabulary: Arc::clone(&tokenizer.vocabulary),
            special,
            shown: Vec::new(),
            space_prefix: tokenizer.puts_space_first(),
            trim_space: false,
            pending: Vec::with_capacity(ROOM),
            text: String::with_capacity(ROOM),
        }
    }

    /// The stream begins a text, it does not continue one: a space that the tokenizer puts before every text is
    /// left out, as [`Tokenizer::decode`] does.
    #[must_use]
    pub fn at_start(mut self) -> Self {
        self.trim_space = self.space_prefix;
        self
    }

    /// Special tokens that are printed even where special tokens are not.
    #[must_use]
    pub fn showing(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.shown.extend(tokens);
        self
    }

    /// Takes a token and gives the text that is complete now; empty while a character is not. A token outside
    /// the vocabulary prints nothing.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        let special = self.special || self.shown.contains(&id);
        let bytes = self.vocabulary.printed_trimmed(id, special, &mut self.trim_space);
        self.pending.extend_from_slice(bytes.unwrap_or_default());
        let mut done = 0;
        loop {
            let rest = &self.pending[done..];
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    done = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    self.text.push_str(&String::from_utf8_lossy(&rest[..valid]));
                    done += valid;
                    match error.error_len() {
                        Some(length) => {
                            self.text.push(char::REPLACEMENT_CHARACTER);
                            done += length;
                        }
                        None => break,
                    }
                }
            }
        }
        self.pending.drain(..done);
        &self.text
    }

    /// Ends the stream: what is left of an incomplete character, as U+FFFD. The decoder may be used again.
    pub fn flush(&mut self) -> &str {
        self.text.clear();
        self.text.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        &self.text
    }
}
