//! The output as what a run can go on with after any end, that by `kill -9` as well.
//!
//! Lines are written whole, one write each, at the end of the file. So what a killed run leaves is whole lines and at
//! most one torn line after them. Going on means: read what is there, hold every line against the input, cut the torn
//! one off, write the rest. Nothing is written or cut before all of it was found to be answers to this input; the file
//! says by itself of what it is ([`super::answer`]), so that there is no second file to lose.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use super::answer;
use crate::output_file::{Growing, GrowingFile, OutputFile};

/// Bytes of a line that are read: no answer is so long, and what is no answer may be anything.
const LONGEST: u64 = 64 << 20;

/// What an output held when the run began.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Line of the input, and its digest, of each whole line in the file.
    answers: Vec<(u64, u64)>,
    /// Bytes of the whole lines.
    whole: u64,
    /// What stands after the last line end.
    torn: Vec<u8>,
}

/// Which lines of the input are answered.
#[derive(Debug)]
pub(super) enum Done {
    /// The first ones, so many.
    First(usize),
    /// Those of these numbers, wherever they stand in the file.
    Some(HashMap<u64, u64>),
}

impl Found {
    /// Reads all of a file.
    fn read(file: &File) -> Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 18, file);
        reader.seek(SeekFrom::Start(0))?;
        let mut found = Found::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(LONGEST).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') && (read as u64) < LONGEST {
                found.torn = line;
                return Ok(found);
            }
            let Some(answer) = answer::read(&line) else {
                bail!(
                    "its line {} is no answer of `twinfer batch`; remove the file or write to another name",
                    found.answers.len() + 1
                );
            };
            found.answers.push(answer);
            found.whole += read as u64;
        }
    }

    /// How many lines of the input are answered, if all is well.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Begins to hold it against the input, of which every line is to be shown to [`Check::line`].
    pub(super) fn check(&self, unordered: bool) -> Result<Check<'_>> {
        let mut by_line = HashMap::new();
        if unordered {
            for (at, &(line, digest)) in self.answers.iter().enumerate() {
                if by_line.insert(line, digest).is_some() {
                    bail!(
                        "its line {} answers line {line} of the input a second time",
                        at + 1
                    );
                }
            }
        }
        Ok(Check {
            found: self,
            seen: 0,
            unordered,
            by_line,
            torn: self.torn.is_empty(),
        })
    }
}

/// An output that is held against its input.
#[derive(Debug)]
pub(super) struct Check<'a> {
    found: &'a Found,
    /// Answers that were held against a line.
    seen: usize,
    unordered: bool,
    by_line: HashMap<u64, u64>,
    /// Whether what follows the last whole line can be the beginning of an answer.
    torn: bool,
}

const OTHER: &str = "of another input, or made by another model, other options or another version of twinfer; \
                     remove the file or write to another name";

impl Check<'_> {
    /// The input's next line; `head` is what any answer to it begins with. True where it is answered.
    pub(super) fn line(&mut self, number: u64, digest: u64, head: &dyn Fn() -> String) -> Result<bool> {
        let answered = if self.unordered {
            self.by_line.get(&number).map(|&found| (number, found))
        } else {
            self.found.answers.get(self.seen).copied()
        };
        let Some(found) = answered else {
            // In order, the torn line is the next one.
            if !self.torn && (self.unordered || self.seen == self.found.answers.len()) {
                self.torn = begins_alike(head().as_bytes(), &self.found.torn);
                if !self.torn && !self.unordered {
                    bail!("what follows its last line end is {OTHER}");
                }
            }
            return Ok(false);
        };
        if found.0 != number {
            bail!(
                "its line {} answers line {} of the input, where line {number} was expected; --unordered goes on with a \
                 file whose lines are not in the input's order",
                self.seen + 1,
                found.0
            );
        }
        if found.1 != digest {
            bail!("its answer to line {number} of the input is {OTHER}");
        }
        self.seen += 1;
        Ok(true)
    }

    /// After the input's last line.
    pub(super) fn finish(self) -> Result<Done> {
        if self.seen < self.found.answers.len() {
            bail!(
                "it has {} answers and only {} of them are to lines of this input; it is {OTHER}",
                self.found.answers.len(),
                self.seen
            );
        }
        if !self.torn {
            bail!("what follows its last line end is {OTHER}");
        }
        Ok(if self.unordered {
            Done::Some(self.by_line)
        } else {
            Done::First(self.seen)
        })
    }
}

fn begins_alike(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// An output that is written to.
#[derive(Debug)]
pub(super) struct Journal {
    out: Growing,
    shown: String,
}

impl Journal {
    /// Opens the output, and reads what is there.
    pub(super) fn open(path: &Path) -> Result<(Self, Found)> {
        let out = Growing::open(path)?;
        let shown = format!("`{}`", path.display());
        let found = match &out {
            Growing::File(GrowingFile { file, .. }) => {
                Found::read(file).with_context(|| format!("cannot go on with {shown}"))?
            }
            Growing::Stream(_) => Found::default(),
        };
        Ok((Journal { out, shown }, found))
    }

    /// The file's name, for messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether a later run can go on with it.
    pub(super) fn can_go_on(&self) -> bool {
        matches!(self.out, Growing::File(_))
    }

    /// Cuts off what is no whole line: the next line comes in its place.
    pub(super) fn cut(&mut self, found: &Found) -> Result<()> {
        match &self.out {
            Growing::File(GrowingFile { file, .. }) if !found.torn.is_empty() => {
                file.set_len(found.whole).map_err(|error| self.failed(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes a line, with its line end.
    pub(super) fn write(&mut self, line: &str) -> Result<()> {
        let written = match &mut self.out {
            Growing::File(out) => out.file.write_all(line.as_bytes()),
            Growing::Stream(out) => write_through(out, line),
        };
        written.map_err(|error| self.failed(error))
    }

    /// All of it is on the disk.
    pub(super) fn finish(self) -> Result<()> {
        match self.out {
            Growing::File(out) => {
                let done = out.file.sync_all();
                done.with_context(|| format!("cannot write {}", self.shown))
            }
            Growing::Stream(out) => out.commit(),
        }
    }

    fn failed(&self, error: std::io::Error) -> anyhow::Error {
        anyhow!(error).context(format!("cannot write {}", self.shown))
    }
}

fn write_through(out: &mut OutputFile, line: &str) -> std::io::Result<()> {
    out.write_all(line.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::super::answer::{About, Answer, Asked, Finish};
    use super::super::request::{Endpoint, Form};
    use super::*;

    /// Five lines of an input: 1, 2, 4, 5, 7.
    fn asked() -> Vec<Asked> {
        [1u64, 2, 4, 5, 7]
            .iter()
            .map(|&line| Asked {
                line,
                digest: line * 1000,
                form: if line == 4 {
                    Form::OpenAi(Endpoint::Chat)
                } else {
                    Form::Own
                },
                custom_id: (line % 2 == 0).then(|| format!("id {line}")),
            })
            .collect()
    }

    fn line(asked: &Asked) -> String {
        let about = About {
            model: "m".into(),
            fingerprint: "f".into(),
            created: 1,
        };
        let answer = Answer {
            text: format!("text of {}\n", asked.line),
            thinking: String::new(),
            finish: Finish::Length,
            prompt_tokens: 1,
            completion_tokens: 2,
            seed: None,
        };
        asked.answer(&Ok(answer), &about)
    }

    struct TestFile(std::path::PathBuf);

    impl TestFile {
        fn new(name: &str, content: &[u8]) -> Self {
            let name = format!("twinfer-journal-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, content).unwrap();
            TestFile(path)
        }

        /// A new file of this name: one that is cut to nothing and written again is flushed to the disk by some
        /// systems.
        fn replace(&self, content: &[u8]) {
            std::fs::remove_file(&self.0).unwrap();
            std::fs::write(&self.0, content).unwrap();
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Goes on with a file, to the end of the input.
    fn go_on(path: &Path, asked: &[Asked], unordered: bool) -> Result<usize> {
        let (mut journal, found) = Journal::open(path)?;
        let mut check = found.check(unordered)?;
        let mut rest = Vec::new();
        for one in asked {
            if !check.line(one.line, one.digest, &|| one.head())? {
                rest.push(one);
            }
        }
        check.finish()?;
        journal.cut(&found)?;
        for one in &rest {
            journal.write(&line(one))?;
        }
        // Not `finish`: a disk is slow, and there are many files.
        Ok(rest.len())
    }

    #[test]
    fn a_file_that_ends_anywhere_is_gone_on_with() {
        let asked = asked();
        let whole: String = asked.iter().map(line).collect();
        let file = TestFile::new("anywhere", b"");
        for end in 0..=whole.len() {
            file.replace(&whole.as_bytes()[..end]);
            let lines = whole.as_bytes()[..end].iter().filter(|&&b| b == b'\n').count();
            assert_eq!(go_on(&file.0, &asked, false).unwrap(), asked.len() - lines);
            assert_eq!(std::fs::read_to_string(&file.0).unwrap(), whole, "{end}");
        }
        // In any order: no line is lost, none comes twice.
        let order = [3, 0, 4, 2, 1];
        let mixed: String = order.iter().map(|&i| line(&asked[i])).collect();
        for end in 0..=mixed.len() {
            file.replace(&mixed.as_bytes()[..end]);
            go_on(&file.0, &asked, true).unwrap();
            let found = std::fs::read_to_string(&file.0).unwrap();
            let mut lines: Vec<&str> = found.split_inclusive('\n').collect();
            lines.sort_unstable();
            let mut expected: Vec<String> = asked.iter().map(line).collect();
            expected.sort_unstable();
            assert_eq!(lines, expected, "{end}");
        }
    }

    #[test]
    fn what_is_not_of_this_input_stays_as_it_is() {
        let asked = asked();
        let whole: String = asked.iter().map(line).collect();
        let two: String = asked[..2].iter().map(line).collect();
        let other = |change: &dyn Fn(&mut Vec<Asked>)| {
            let mut asked = self::asked();
            change(&mut asked);
            asked
        };
        let swapped = [&asked[1], &asked[0]].map(line).concat();
        let twice = [&asked[1], &asked[1]].map(line).concat();
        let far = line(&Asked {
            line: 9,
            ..asked[0].clone()
        });
        let cases: [(&str, String, Vec<Asked>, bool, &str); 11] = [
            (
                "text",
                "notes\nmore\n".into(),
                self::asked(),
                false,
                "line 1 is no answer",
            ),
            (
                "no line end",
                "notes".into(),
                self::asked(),
                false,
                "follows its last line end",
            ),
            (
                "any order",
                "notes".into(),
                self::asked(),
                true,
                "follows its last line end",
            ),
            (
                "zeros",
                format!("{two}\0\0\0"),
                self::asked(),
                false,
                "follows its last line end",
            ),
            (
                "damaged",
                format!("{two}{{}}\n"),
                self::asked(),
                false,
                "line 3 is no answer",
            ),
            (
                "changed",
                whole.clone(),
                other(&|a| a[3].digest += 1),
                false,
                "line 5 of the input is of",
            ),
            (
                "shorter",
                whole.clone(),
                other(&|a| a.truncate(3)),
                false,
                "only 3 of them",
            ),
            ("swapped", swapped, self::asked(), false, "line 1 was expected"),
            ("twice", twice.clone(), self::asked(), true, "a second time"),
            ("in order", twice, self::asked(), false, "line 1 was expected"),
            ("far", far, self::asked(), true, "only 0 of them"),
        ];
        for (name, content, asked, unordered, says) in cases {
            let file = TestFile::new("other", content.as_bytes());
            let error = go_on(&file.0, &asked, unordered).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{name}: {error:#}");
            assert_eq!(std::fs::read_to_string(&file.0).unwrap(), content, "{name}");
        }
    }

    #[test]
    fn one_process_at_a_time_and_no_empty_file() {
        let file = TestFile::new("lock", b"");
        let held = Journal::open(&file.0).unwrap();
        let error = Journal::open(&file.0).unwrap_err();
        assert!(format!("{error:#}").contains("another process"), "{error:#}");
        drop(held);
        assert!(file.0.exists());
        std::fs::remove_file(&file.0).unwrap();
        let (mut journal, _) = Journal::open(&file.0).unwrap();
        journal.write("a\n").unwrap();
        drop(journal);
        assert_eq!(std::fs::read(&file.0).unwrap(), b"a\n");
        std::fs::remove_file(&file.0).unwrap();
        drop(Journal::open(&file.0).unwrap());
        assert!(!file.0.exists());
    }
}
