//! stdout for results, stderr for everything else, and what is read from files or stdin. Writing to a closed pipe is an
//! error that [`crate::failure::report`] understands, never a panic, so nothing here uses `println!`.

use std::io::{self, IsTerminal as _, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Writes to stdout and flushes.
pub(crate) fn to_stdout(text: &str) -> Result<()> {
    bytes_to_stdout(text.as_bytes())
}

/// Writes text that a model made. A terminal must not obey it: there its control characters are shown, but for line
/// ends and tabs. Anywhere else it is written as it is.
pub(crate) fn generated(text: &str) -> Result<()> {
    if io::stdout().is_terminal() {
        to_stdout(&visible(text))
    } else {
        to_stdout(text)
    }
}

/// As [`generated`], for what is less important. A terminal that knows how shows it dimmed.
pub(crate) fn generated_dimmed(text: &str) -> Result<()> {
    if io::stdout().is_terminal() && !terminal_is_unknown() {
        // Each piece by itself: whatever ends the program, nothing stays dimmed.
        to_stdout(&format!("\x1b[2m{}\x1b[22m", visible(text)))
    } else {
        generated(text)
    }
}

/// Control characters as the pictures that Unicode has of them: ESC is `␛`. Those of 128 and over have none.
fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' | '\t' => c,
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(picture).collect()
}

/// As [`to_stdout`], for bytes that need not be text.
pub(crate) fn bytes_to_stdout(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// Whether the system does not say what the terminal understands: then it gets no escape sequences. On Windows it never
/// says so, and all understand the same.
pub(crate) fn terminal_is_unknown() -> bool {
    cfg!(unix) && std::env::var_os("TERM").is_none_or(|name| name.is_empty())
}

/// Writes a line to stderr.
pub(crate) fn to_stderr(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{line}")
}

/// Writes a note to stderr. That it cannot be written is no reason to fail.
pub(crate) fn note(text: &str) {
    let _ = to_stderr(&printable(text));
}

/// Text with nothing in it that a terminal would obey, but for line ends: names of files and tensors can hold anything.
pub(crate) fn printable(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && c != '\n';
    text.replace(obeyed, "\u{fffd}")
}

/// Text that takes one line whatever is in it: line ends, tabs and other control characters are spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Prints a JSON value, indented, with a line end.
pub(crate) fn json(value: &serde_json::Value) -> Result<()> {
    to_stdout(&json_text(value)?)
}

/// A JSON value, indented, with a line end.
pub(crate) fn json_text(value: &serde_json::Value) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// A float with the fewest digits that give it back. JSON has no NaN and no infinity: those are text.
pub(crate) fn json_f32(value: f32) -> serde_json::Value {
    json_f64(value.to_string().parse().unwrap_or(f64::from(value)))
}

/// As [`json_f32`].
pub(crate) fn json_f64(value: f64) -> serde_json::Value {
    if value.is_finite() {
        serde_json::json!(value)
    } else {
        serde_json::json!(value.to_string())
    }
}

/// All bytes of a file, or of stdin for `-`.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read stdin")?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(|error| crate::failure::no_file(path, "read", error))
}

/// As [`read_bytes`], for text. A byte order mark at its start goes: editors of Windows write it, and it is no part of
/// the text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    text_of(path, read_bytes(path)?)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    const BOM: char = '\u{feff}';
    let utf_16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let name = if path == Path::new("-") {
            "stdin".into()
        } else {
            format!("`{}`", path.display())
        };
        if utf_16 {
            return anyhow::anyhow!(
                "{name} is UTF-16 text, and UTF-8 is read here; convert it: iconv -f UTF-16 -t UTF-8"
            );
        }
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8 text (at byte {at}); convert it first, for instance with iconv")
    })?;
    if text.starts_with(BOM) {
        text.drain(..BOM.len_utf8());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_control_characters() {
        assert_eq!(
            visible("a\t\x1b[31m\x07\x7f\u{9b}\r\n\0\u{e9}"),
            "a\t\u{241b}[31m\u{2407}\u{2421}\u{fffd}\u{240d}\n\u{2400}\u{e9}"
        );
    }

    #[test]
    fn text_begins_after_its_byte_order_mark() {
        let text = |bytes: &[u8]| text_of(Path::new("t.txt"), bytes.to_vec());
        assert_eq!(text(b"\xef\xbb\xbfOnce").unwrap(), "Once");
        assert_eq!(text(b"Once\xef\xbb\xbf").unwrap(), "Once\u{feff}");
        assert_eq!(text(b"").unwrap(), "");
        assert!(text(b"\xff\xfeO\0").unwrap_err().to_string().contains("UTF-16"));
        assert!(text(b"On\xe9").unwrap_err().to_string().contains("at byte 2"));
    }
}
