//! Whether drafts pay: what passes of so many rows take, and an account of what drafts have gained and lost.

use std::time::Duration;

/// Rows up to which passes are measured one by one. Larger ones are bounded by arithmetic: drafts gain nothing there.
const MAX_ROWS: usize = 64;
/// What a further row is taken to cost before anything is measured, in passes of one row.
const ROW: f64 = 0.3;
/// What may be lost to drafts, as a share of the time spent without them.
const SHARE: f64 = 0.02;
/// What may be lost before that, in passes.
const AT_FIRST: f64 = 1.0;
/// What gains may pay for later, in passes: a text that stops being predictable is noticed soon.
const SAVED: f64 = 4.0;

fn least(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
}

/// Seconds that passes take, by their number of rows: running means that follow what is lower at once.
#[derive(Debug, Clone)]
struct Times {
    /// 0 where nothing is known.
    seconds: [f64; MAX_ROWS + 1],
}

impl Times {
    fn add(&mut self, rows: usize, seconds: f64) {
        let Some(known) = self.seconds.get_mut(rows) else {
            return;
        };
        // What disturbs a pass makes it longer, never shorter.
        *known = if *known == 0.0 {
            seconds
        } else if seconds < *known {
            f64::midpoint(seconds, *known)
        } else {
            *known + 0.1 * (least(seconds, 3.0 * *known) - *known)
        };
    }

    /// A pass of `rows` without drafts was made: what is known of more rows becomes older, and is believed to be less
    /// than it was, so that it is measured again some time.
    fn age(&mut self, rows: usize, plain: f64) {
        for more in 1..=MAX_ROWS.saturating_sub(rows) {
            let hoped = plain * (1.0 + ROW * more as f64 / rows as f64);
            let known = &mut self.seconds[rows + more];
            if *known > hoped {
                *known += 0.03 * (hoped - *known);
            }
        }
    }

    fn known(&self, rows: usize) -> Option<f64> {
        self.seconds.get(rows).copied().filter(|&seconds| seconds > 0.0)
    }

    /// Between what is known, on a line; beyond it, the line goes on.
    fn expected(&self, rows: usize) -> Option<f64> {
        if let Some(seconds) = self.known(rows) {
            return Some(seconds);
        }
        let point = |rows: usize| self.known(rows).map(|seconds| (rows, seconds));
        let below = (1..rows.min(MAX_ROWS + 1)).rev().find_map(point)?;
        let above = (rows + 1..=MAX_ROWS).find_map(point);
        let slope = match above {
            Some(above) => (above.1 - below.1) / (above.0 - below.0) as f64,
            None => match (1..below.0).find_map(point) {
                Some(first) => (below.1 - first.1) / (below.0 - first.0) as f64,
                None => ROW * below.1 / below.0 as f64,
            },
        };
        let slope = if slope > 0.0 { slope } else { 0.0 };
        Some(below.1 + slope * (rows - below.0) as f64)
    }
}

/// The account.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    /// Passes without drafts, or with drafts that cost nothing to make.
    times: Times,
    /// Passes with drafts of a model, the making of them included.
    with_model: Times,
    /// Seconds that may be lost.
    balance: Option<f64>,
}

/// What a pass was made of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Made {
    /// Rows without drafts.
    pub(super) rows: usize,
    pub(super) drafts: usize,
    /// A draft model made some of them.
    pub(super) by_model: bool,
    /// It read prompts as well.
    pub(super) reading: bool,
}

impl Default for Cost {
    fn default() -> Self {
        let times = Times {
            seconds: [0.0; MAX_ROWS + 1],
        };
        Cost {
            with_model: times.clone(),
            times,
            balance: None,
        }
    }
}

impl Cost {
    fn times(&self, by_model: bool) -> &Times {
        if by_model { &self.with_model } else { &self.times }
    }

    /// How many drafts make tokens come fastest beside `rows` others: `chance(i)` is how likely the draft `i` is right
    /// if those before it are. 0 while drafts have lost more than they may.
    pub(super) fn choose(
        &self,
        rows: usize,
        by_model: bool,
        most: usize,
        chance: &dyn Fn(usize) -> f64,
    ) -> usize {
        let Some(plain) = self.times.known(rows).filter(|_| self.balance > Some(0.0)) else {
            return 0;
        };
        // At most twice as many drafts as a time is known of: a row may cost more than is believed.
        let known = (1..=MAX_ROWS.saturating_sub(rows)).rev();
        let known = known
            .into_iter()
            .find(|n| self.times(by_model).known(rows + n).is_some());
        let most = most.min(2 * known.unwrap_or(1));
        // Seconds a token.
        let (mut best, mut best_rate) = (0, plain / rows as f64);
        let (mut right, mut tokens) = (1.0, 0.0);
        for n in 1..=most {
            right *= chance(n - 1);
            tokens += right;
            let Some(seconds) = self.times(by_model).expected(rows + n).or_else(|| {
                // Nothing is known of the draft model: that it costs as much again.
                self.times.expected(rows + 2 * n)
            }) else {
                break;
            };
            let rate = seconds / (rows as f64 + tokens);
            if rate < best_rate {
                (best, best_rate) = (n, rate);
            }
        }
        best
    }

    /// A pass took so long, and so many of its drafts were right.
    pub(super) fn add(&mut self, made: Made, elapsed: Duration, accepted: usize) {
        if made.rows == 0 || made.reading {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        if made.drafts == 0 {
            self.times.add(made.rows, seconds);
            if let Some(plain) = self.times.known(made.rows) {
                self.times.age(made.rows, plain);
                self.with_model.age(made.rows, plain);
            }
            let balance = self.balance.get_or_insert(AT_FIRST * seconds);
            *balance = least(*balance + SHARE * seconds, SAVED * seconds);
            return;
        }
        let plain = self.times.known(made.rows);
        let times = if made.by_model {
            &mut self.with_model
        } else {
            &mut self.times
        };
        let rows = made.rows + made.drafts;
        // A pause of the machine is not the drafts' fault.
        let seconds = least(seconds, 3.0 * times.expected(rows).unwrap_or(seconds));
        times.add(rows, seconds);
        if let (Some(plain), Some(balance)) = (plain, &mut self.balance) {
            let gain = accepted as f64 * plain / made.rows as f64 - (seconds - plain);
            *balance = least(*balance + gain, SAVED * plain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a loop in which `right(i)` tells whether the draft of token `i` is right, to those without drafts.
    fn ratio(row: f64, chance: f64, tokens: usize, right: impl Fn(usize) -> bool) -> f64 {
        let mut cost = Cost::default();
        let (mut done, mut seconds) = (0, 0.0);
        while done < tokens {
            let drafts = cost.choose(1, false, 8, &|_| chance);
            let accepted = (0..drafts).take_while(|i| right(done + i)).count();
            let took = 1.0 + row * drafts as f64;
            let made = Made {
                rows: 1,
                drafts,
                ..Made::default()
            };
            cost.add(made, Duration::from_secs_f64(took), accepted);
            seconds += took;
            done += 1 + accepted;
        }
        seconds / done as f64
    }

    #[test]
    fn right_drafts_are_used() {
        assert!(ratio(0.1, 0.9, 400, |_| true) < 0.25);
        // Nine of ten.
        let cost = ratio(0.2, 0.9, 400, |i| i % 10 != 9);
        assert!(cost < 0.55, "{cost}");
    }

    #[test]
    fn wrong_drafts_cost_little() {
        // They are believed in each time, and never right.
        for row in [0.05, 0.3, 1.0, 2.0] {
            let cost = ratio(row, 0.9, 200, |_| false);
            assert!(cost < 1.05 + row / 100.0, "{row}: {cost}");
        }
    }

    #[test]
    fn rows_that_cost_as_much_as_passes_are_not_drafted() {
        let cost = ratio(1.0, 0.9, 400, |i| i % 10 != 9);
        assert!(cost < 1.03, "{cost}");
    }

    #[test]
    fn text_that_stops_being_predictable_is_noticed() {
        let cost = ratio(0.3, 0.9, 800, |i| i < 200);
        assert!(cost < 1.0, "{cost}");
    }
}
