//! Drafts from the text itself: where the last tokens stood before, what followed them there.
//!
//! The index is made token by token: the last place of each three tokens in a row, and for each place the one before
//! it. What it would have drafted is compared with what came whether or not it was evaluated, so how often it is right
//! is known without wasting a row, by the number of tokens that agree: a long quotation goes on more often than a
//! phrase of three.

use hashbrown::HashMap;

/// Tokens in a row that an earlier place must share.
const LEAST: usize = 3;
/// Tokens in a row that are counted at most.
const MOST: usize = 20;
/// Numbers of agreeing tokens that are taken for equally telling, by the least of them, and how often what follows is
/// believed to be the same, between phrases that recur by chance and quotations. What is seen soon counts more.
const CLASSES: [(usize, f64); 6] = [(3, 0.35), (4, 0.5), (5, 0.65), (7, 0.8), (10, 0.88), (15, 0.93)];
/// Earlier places that are looked at, the last ones first.
const PLACES: usize = 16;
/// No earlier place.
const NONE: u32 = u32::MAX;

/// A place whose tokens are those at the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    /// The position that agrees with the last one.
    at: usize,
    /// Tokens that agree, up to there.
    len: usize,
}

/// How often something is right, of late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    tried: f64,
    right: f64,
}

impl Rate {
    /// What is believed before anything is known, as if it had been seen so often.
    pub(super) fn expected(share: f64) -> Self {
        const SEEN: f64 = 4.0;
        Rate {
            tried: SEEN,
            right: SEEN * share,
        }
    }

    pub(super) fn add(&mut self, right: bool) {
        // A window of about fifty.
        const KEPT: f64 = 0.98;
        self.tried = self.tried * KEPT + 1.0;
        self.right = self.right * KEPT + f64::from(u8::from(right));
    }

    pub(super) fn share(&self) -> f64 {
        self.right / self.tried
    }
}

/// The class of so many agreeing tokens.
fn class(len: usize) -> usize {
    CLASSES.iter().rposition(|&(least, _)| least <= len).unwrap_or(0)
}

/// The text so far, to look up in.
#[derive(Debug)]
pub(super) struct History {
    /// The last position of three tokens in a row.
    last: HashMap<[u32; LEAST], u32>,
    /// The position before it of the same three, per position.
    before: Vec<u32>,
    /// By class.
    rates: [Rate; CLASSES.len()],
    found: Option<Match>,
}

impl Default for History {
    fn default() -> Self {
        History {
            last: HashMap::new(),
            before: Vec::new(),
            rates: CLASSES.map(|(_, share)| Rate::expected(share)),
            found: None,
        }
    }
}

impl History {
    /// Takes in the tokens that are new, and looks for the end of them.
    pub(super) fn update(&mut self, tokens: &[u32]) {
        let known = self.before.len();
        if let Some(found) = self.found.take() {
            for (i, token) in tokens.iter().skip(known).enumerate() {
                let right = tokens.get(found.at + 1 + i) == Some(token);
                self.rates[class(found.len + i)].add(right);
                if !right {
                    break;
                }
            }
        }
        for end in known..tokens.len() {
            let before = (end + 1)
                .checked_sub(LEAST)
                .and_then(|first| tokens[first..].first_chunk())
                .and_then(|&three| self.last.insert(three, u32::try_from(end).unwrap_or(NONE)));
            self.before.push(before.unwrap_or(NONE));
        }
        self.found = self.find(tokens);
    }

    /// The place that agrees with the end furthest back, the last of those.
    fn find(&self, tokens: &[u32]) -> Option<Match> {
        let mut best: Option<Match> = None;
        let mut at = *self.before.last()?;
        for _ in 0..PLACES {
            if at == NONE {
                break;
            }
            let place = at as usize;
            let agrees = tokens[..=place].iter().rev().zip(tokens.iter().rev());
            let len = agrees.take(MOST).take_while(|(a, b)| a == b).count();
            if best.is_none_or(|best| best.len < len) {
                best = Some(Match { at: place, len });
            }
            at = self.before[place];
        }
        best
    }

    /// What followed where the end stood before.
    pub(super) fn found(&self) -> Option<Match> {
        self.found
    }

    /// How likely the draft with this index is right if those before it are.
    pub(super) fn chance(&self, found: Match, index: usize) -> f64 {
        self.rates[class(found.len + index)].share()
    }

    /// Appends `n` drafts. A place near the end is gone on with as a repetition.
    pub(super) fn draft(&self, tokens: &[u32], found: Match, n: usize, drafts: &mut Vec<u32>) {
        let first = drafts.len();
        for i in 0..n {
            let at = found.at + 1 + i;
            let token = tokens.get(at).or_else(|| drafts.get(first + at - tokens.len()));
            // `found.at` lies before the last token, so what is read has been written.
            if let Some(&token) = token {
                drafts.push(token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(tokens: &[u32], n: usize) -> Vec<u32> {
        let mut history = History::default();
        // In pieces, as it comes.
        for end in 1..=tokens.len() {
            history.update(&tokens[..end]);
        }
        let mut drafts = Vec::new();
        if let Some(found) = history.found() {
            history.draft(tokens, found, n, &mut drafts);
        }
        drafts
    }

    #[test]
    fn what_followed_before_is_drafted() {
        assert!(drafted(&[1, 2, 3], 4).is_empty());
        assert_eq!(drafted(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2), [4, 5]);
        // Two tokens are not enough.
        assert!(drafted(&[1, 2, 3, 4, 5, 9, 2, 3], 2).is_empty());
        // The longest agreement goes before the last place.
        assert_eq!(drafted(&[8, 1, 2, 3, 4, 0, 1, 2, 3, 5, 0, 8, 1, 2, 3], 1), [4]);
        // Of equal ones the last place.
        assert_eq!(drafted(&[1, 2, 3, 4, 0, 1, 2, 3, 5, 7, 1, 2, 3], 1), [5]);
        // A repetition goes on.
        assert_eq!(drafted(&[1, 2, 1, 2, 1, 2, 1], 5), [2, 1, 2, 1, 2]);
        assert_eq!(drafted(&[7, 7, 7, 7], 3), [7, 7, 7]);
    }

    #[test]
    fn all_at_once_is_the_same_index() {
        let tokens: Vec<u32> = (0..300u32).map(|i| i * i % 11).collect();
        let mut history = History::default();
        history.update(&tokens);
        let mut drafts = Vec::new();
        if let Some(found) = history.found() {
            history.draft(&tokens, found, 8, &mut drafts);
        }
        assert_eq!(drafts, drafted(&tokens, 8));
        assert_eq!(drafts.len(), 8);
    }

    #[test]
    fn how_often_it_is_right_is_known_without_drafting() {
        let mut history = History::default();
        let tokens: Vec<u32> = (0..400u32).map(|i| i % 10).collect();
        for end in 1..=tokens.len() {
            history.update(&tokens[..end]);
        }
        let found = history.found().unwrap();
        assert!(history.chance(found, 0) > 0.97);
        // Three tokens that are followed by something else each time.
        let mut history = History::default();
        let tokens: Vec<u32> = (0..400u32).flat_map(|i| [1, 2, 3, 10 + i]).collect();
        for end in 1..tokens.len() {
            history.update(&tokens[..end]);
        }
        let found = history.found().unwrap();
        assert_eq!(found.len, 3);
        assert!(history.chance(found, 0) < 0.05);
    }
}
