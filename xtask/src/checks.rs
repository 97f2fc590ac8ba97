//! Checks that are timed, counted and shown in a table at the end.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::line;

/// How a check ended.
enum Outcome {
    Passed,
    Failed(String),
    LeftOut(String),
}

/// The checks done so far.
#[derive(Default)]
pub(crate) struct Checks {
    done: Vec<(&'static str, Duration, Outcome)>,
    counts: Counts,
}

/// Sums over every summary that the tests printed.
#[derive(Default, Debug, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds one line of cargo test's or Node's output, if it is a summary.
    fn read(&mut self, line: &str) {
        if let Some((what, count)) = line.strip_prefix("ℹ ").and_then(|line| line.split_once(' ')) {
            let count = count.parse().unwrap_or(0);
            match what {
                "pass" => self.passed += count,
                "fail" | "cancelled" => self.failed += count,
                "skipped" => self.ignored += count,
                _ => {}
            }
            return;
        }
        let Some((_, summary)) = line.split_once("test result: ") else {
            return;
        };
        // "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s"
        for part in summary.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next().and_then(|n| n.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl Checks {
    /// Does a check; its failure is kept for the end.
    pub(crate) fn check<T>(
        &mut self,
        name: &'static str,
        body: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Option<T> {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = body(self);
        let time = start.elapsed();
        let (outcome, value) = match result {
            Ok(value) => {
                println!("=== {name}: passed in {:.1} s", time.as_secs_f64());
                (Outcome::Passed, Some(value))
            }
            Err(error) => {
                println!("=== {name}: FAILED after {:.1} s: {error:#}", time.as_secs_f64());
                (Outcome::Failed(format!("{error:#}")), None)
            }
        };
        self.done.push((name, time, outcome));
        value
    }

    /// Notes a check that was not done, and why.
    pub(crate) fn leave_out(&mut self, name: &'static str, why: &str) {
        println!("\n=== {name}: left out: {why}");
        self.done
            .push((name, Duration::ZERO, Outcome::LeftOut(why.into())));
    }

    /// Runs a command that prints test results: shows its output and counts the tests.
    pub(crate) fn run_tests(&mut self, command: &mut Command) -> Result<()> {
        println!("$ {}", line(command));
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{}` could not be started", line(command)))?;
        let output = child.stdout.take().expect("standard output was piped above");
        for bytes in BufReader::new(output).split(b'\n') {
            let text = String::from_utf8_lossy(&bytes?).into_owned();
            println!("{text}");
            self.counts.read(&text);
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`{}` failed ({status})", line(command));
        }
        Ok(())
    }

    /// Runs a command, its output shown.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<()> {
        println!("$ {}", line(command));
        std::io::stdout().flush()?;
        crate::command::run(command)
    }

    /// Prints the table and the counts; the exit code of the whole.
    pub(crate) fn finish(self) -> ExitCode {
        let mut table = String::new();
        let mut failed = 0;
        for (name, time, outcome) in &self.done {
            let outcome = match outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed(why) => {
                    failed += 1;
                    format!("FAILED: {why}")
                }
                Outcome::LeftOut(why) => format!("left out: {why}"),
            };
            let seconds = time.as_secs_f64();
            writeln!(table, "  {name:<16} {seconds:>7.1} s  {outcome}")
                .expect("writing to a String does not fail");
        }
        let total: Duration = self.done.iter().map(|(_, time, _)| *time).sum();
        println!(
            "\n=== summary\n{table}  {:<16} {:>7.1} s",
            "total",
            total.as_secs_f64()
        );
        let Counts {
            passed,
            failed: broken,
            ignored,
        } = self.counts;
        println!("\ntests: {passed} passed, {broken} failed, {ignored} skipped");
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn counts_are_summed_over_summaries_and_nothing_else() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.50s",
            "running 9 tests",
            "test x ... ok",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "ℹ tests 8",
            "ℹ pass 5",
            "ℹ fail 1",
            "ℹ skipped 2",
        ] {
            counts.read(line);
        }
        assert_eq!(
            counts,
            Counts {
                passed: 19,
                failed: 5,
                ignored: 3
            }
        );
    }
}
