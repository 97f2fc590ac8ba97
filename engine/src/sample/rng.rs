//! Random numbers that are the same on every platform: ChaCha with 8 rounds, read as 32-bit words.
//!
//! The key is the seed, little-endian, followed by 28 zero bytes; counter and stream start at 0. Nothing depends on
//! how the `rand` crates expand a seed or draw floats and ranges.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

#[derive(Debug, Clone)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u32) -> Self {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&seed.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// In [0, 1): the upper 24 bits of one word, which f32 holds exactly.
    pub(super) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key stream of ChaCha with 8 rounds for the zero key begins 3e 00 ef 2f, 89 5f 40 d6, 7f 5b b8 e8
    /// (draft-strombergson-chacha-test-vectors, TC1, 256-bit key).
    #[test]
    fn words_are_those_of_the_published_vector() {
        let mut random = Random::new(0);
        for word in [0x2fef_003eu32, 0xd640_5f89, 0xe8b8_5b7f] {
            assert_eq!(random.unit(), (word >> 8) as f32 / 16_777_216.0);
        }
    }
}
