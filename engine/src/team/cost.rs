//! What a hand-over costs, counted in the cache lines that move: for machines that are not at hand, from what a line
//! takes. It follows the protocol of `domains` step by step; `docs/machine.md` has the formula and a table of it.

use super::domains::Cut;

/// A team as its hand-over sees it: domains of as many workers each, and the nanoseconds that a line takes from one to
/// another.
#[derive(Debug, Clone, PartialEq)]
pub struct HandOver {
    /// An atomic change of a line that the core has.
    pub alone: f64,
    /// A line that another core of the domain has changed.
    pub within: f64,
    /// Workers of a domain.
    pub workers: usize,
    /// How many other domains the node has, and a line from one of them.
    pub neighbours: (usize, f64),
    /// Domains of other nodes, and a line from there: of each distance.
    pub farther: Vec<(usize, f64)>,
}

impl HandOver {
    /// Nanoseconds of an operation whose workers take so many pieces each. One line is counted after the other where
    /// the caller writes or reads those of all domains, though they overlap: it is the most that this can cost.
    pub fn nanoseconds(&self, pieces: usize) -> f64 {
        let HandOver { alone, within, .. } = *self;
        let (workers, pieces) = (self.workers as f64, pieces as f64);
        let lines = |&(domains, line): &(usize, f64)| domains as f64 * line;
        let neighbours = lines(&self.neighbours);
        let all = within + neighbours + self.farther.iter().map(lines).sum::<f64>();
        // The caller writes each domain's work and opens its gate, and in the end looks whether it is closed.
        let caller = 3.0 * all;
        // All enter at once, take their first piece and leave: one after the other. Other pieces are taken now and then.
        let changes = (3.0 * workers + pieces - 1.0) * (alone + within);
        // All look at the gate when it has been opened, and at the list of work when there is none left.
        let looks = 2.0 * workers * within;
        // The caller waits for the last workers and looks at their gate again and again: while a look is on its way others
        // leave, so looks take no more than the leaving again, and one of them the whole way.
        let there = |&(domains, line): &(usize, f64)| if domains > 0 { line } else { 0.0 };
        let lines = self.farther.iter().chain([&self.neighbours]).map(there);
        let farthest = lines.fold(within, |a, b| if a < b { b } else { a });
        let waiting = workers * within + farthest;
        // Who finds no work looks at the lists of the node's other domains.
        caller + changes + looks + waiting + neighbours
    }

    /// Nanoseconds of an operation with much work, such as a product.
    pub fn of_much_work(&self) -> f64 {
        self.nanoseconds(pieces(self.workers))
    }
}

/// Pieces that each of so many workers takes of work that can be cut as finely as a domain ever cuts.
fn pieces(workers: usize) -> usize {
    let mut left = workers * super::domains::LAST_PIECES;
    let cut = Cut::shrinking(left, 1, workers);
    let mut taken = 0usize;
    while left > 0 {
        left -= cut.piece(left, workers).min(left);
        taken += 1;
    }
    taken.div_ceil(workers.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line alone and between two cores, as measured: `docs/machine.md`.
    const ALONE: f64 = 2.8;
    const WITHIN: f64 = 40.9;

    fn of(domains: usize, factor: f64) -> HandOver {
        HandOver {
            alone: ALONE,
            within: WITHIN,
            workers: 8,
            neighbours: (domains - 1, factor * WITHIN),
            farther: Vec::new(),
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a / b - 1.0).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn the_formula_by_hand() {
        // Two workers and nothing else: three lines of the caller, six changes, four looks, two more and a whole one.
        let two = HandOver {
            workers: 2,
            ..of(1, 1.0)
        };
        close(
            two.nanoseconds(1),
            3.0 * 40.9 + 6.0 * 43.7 + 4.0 * 40.9 + 3.0 * 40.9,
        );
        // A further piece is one more change.
        close(two.nanoseconds(5) - two.nanoseconds(1), 4.0 * 43.7);
        // Eight domains of eight: those beside the caller's are 122.7 ns away.
        let (a, b) = (43.7, 40.9);
        let caller = 3.0 * (b + 7.0 * 122.7);
        let rest = 24.0 * a + 16.0 * b + 8.0 * b + 122.7 + 7.0 * 122.7;
        close(of(8, 3.0).nanoseconds(1), caller + rest);
        // Of another package as many, 245.4 ns away: the caller's lines, and its last look.
        let two_packages = HandOver {
            farther: vec![(8, 245.4)],
            ..of(8, 3.0)
        };
        let more = 3.0 * 8.0 * 245.4 + 245.4 - 122.7;
        close(two_packages.nanoseconds(1), caller + rest + more);
        // Domains that are not there are not waited for.
        close(of(1, 6.0).nanoseconds(1), of(1, 1.0).nanoseconds(1));
    }

    #[test]
    fn pieces_are_those_that_a_domain_hands_out() {
        // Of 512 smallest pieces one of 32, 30, 28 and so on; the last 31 are single ones.
        assert_eq!(pieces(8), 10);
        assert_eq!((pieces(1), pieces(2), pieces(42)), (7, 9, 10));
        close(
            of(8, 3.0).of_much_work(),
            of(8, 3.0).nanoseconds(1) + 9.0 * (ALONE + WITHIN),
        );
    }

    /// The table of larger machines is this count: microseconds of the 164 operations of a pass.
    #[test]
    fn the_documentation_has_what_is_counted() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/machine.md");
        let page = std::fs::read_to_string(path).unwrap();
        for cores in [64, 96, 128, 192] {
            let pass = |factor: f64| 164.0 * of(cores / 8, factor).of_much_work() / 1e3;
            let row = format!(
                "| {cores} | {:.0} | {:.0} | {:.0} |",
                pass(1.0),
                pass(3.0),
                pass(6.0)
            );
            assert!(page.contains(&row), "docs/machine.md lacks the row `{row}`");
        }
        let two = HandOver {
            workers: 2,
            ..of(1, 1.0)
        };
        let text = format!("{:.2} us", two.nanoseconds(1) / 1e3);
        assert!(page.contains(&text), "docs/machine.md lacks `{text}`");
    }
}
