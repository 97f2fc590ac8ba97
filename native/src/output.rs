//! stdout for results, stderr for everything else, files for what `-o` names. Writing to a closed pipe is an error that
//! [`crate::failure::report`] understands, never a panic, so nothing here uses `println!`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Writes to stdout and flushes.
pub(crate) fn to_stdout(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to stderr.
pub(crate) fn to_stderr(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{line}")
}

/// Writes a note to stderr. That it cannot be written is no reason to fail.
pub(crate) fn note(line: &str) {
    let _ = to_stderr(line);
}

/// Prints a JSON value, indented, with a line end.
pub(crate) fn json(value: &serde_json::Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    to_stdout(&text)
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

/// A file that appears under its name only when it is complete.
#[derive(Debug)]
pub(crate) struct NewFile {
    out: Option<BufWriter<File>>,
    path: PathBuf,
    partial: PathBuf,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if path.is_dir() {
            bail!("cannot write `{}`: it is a directory", path.display());
        }
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = File::create(&partial).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self {
            out: Some(BufWriter::with_capacity(1 << 20, file)),
            path: path.into(),
            partial,
        })
    }

    /// Gives the file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        let path = self.path.clone();
        let failed = || format!("cannot write `{}`", path.display());
        if let Some(mut out) = self.out.take() {
            out.flush().with_context(failed)?;
        }
        std::fs::rename(&self.partial, &self.path).with_context(failed)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Some(out) => out.write(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Some(out) => out.flush(),
            None => Ok(()),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Taken by `commit`; what is still here was not finished.
        if self.out.take().is_some() {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Where `-o` points: a file, or stdout for `-`.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if path == Path::new("-") {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        return Ok(out.flush()?);
    }
    let mut file = NewFile::create(path)?;
    file.write_all(bytes)
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    file.commit()
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
    std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// As [`read_bytes`], for text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|error| {
        let name = if path == Path::new("-") {
            "stdin".into()
        } else {
            format!("`{}`", path.display())
        };
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8 text (at byte {at}); convert it first, for instance with iconv")
    })
}
