//! Digest of logits: SHA-256 of the little-endian f32 values, positions in order. What `eval`, `verify` and the browser
//! compare.

use sha2::{Digest as _, Sha256};

/// A digest under way.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    hash: Sha256,
}

impl Digest {
    /// Of no logits yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the logits of one position.
    pub fn update(&mut self, logits: &[f32]) {
        for value in logits {
            self.hash.update(value.to_le_bytes());
        }
    }

    /// The digest as 64 hexadecimal digits.
    pub fn finish(self) -> String {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in self.hash.finalize() {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_sha256_of_little_endian_floats() {
        let mut digest = super::Digest::new();
        digest.update(&[1.0, -0.0]);
        // SHA-256 of the bytes 00 00 80 3f 00 00 00 80.
        assert_eq!(
            digest.clone().finish(),
            "0cd40d287b3669a987311a242f957a55c86c626a988a6f0136e0b627684c9fdb"
        );
        assert_ne!(digest.finish(), super::Digest::new().finish());
    }
}
