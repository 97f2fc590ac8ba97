//! The browser comparison: twinfer's package and wllama in the same Chromium, on the same model. The pages and their
//! driver are in `browser/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use twinfer_benches::document::paragraph;
use twinfer_benches::machine::{Machine, root};
use twinfer_benches::run;
use twinfer_benches::statistics::median;

use crate::setup;

/// What to measure.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// Model file.
    pub(crate) model: &'a Path,
    /// Its name in the table.
    pub(crate) name: String,
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    /// Version of wllama.
    pub(crate) wllama: &'a str,
    /// Chromium's program.
    pub(crate) chromium: &'a Path,
    /// Node's program.
    pub(crate) node: &'a Path,
}

/// Sets up what is missing, measures, and returns the table and all values.
pub(crate) fn compare(machine: &Machine, options: &Options<'_>) -> Result<(String, Value)> {
    let package = root().join("web/dist");
    if !package.join("index.js").exists() {
        bail!("{} is not built: run `cargo xtask web` first", package.display());
    }
    let wllama = wllama(options.wllama)?;
    let mut command = Command::new(options.node);
    command
        .arg(root().join("benches/peers/browser/compare.mjs"))
        .arg("--model")
        .arg(options.model)
        .arg("--wllama")
        .arg(&wllama)
        .arg("--twinfer")
        .arg(&package)
        .arg("--chromium")
        .arg(options.chromium)
        .args(["--threads", &options.threads.to_string()])
        .args(["--rounds", &options.rounds.to_string()])
        .stdin(Stdio::null())
        // Its progress is ours.
        .stderr(Stdio::inherit());
    let output = command
        .output()
        .with_context(|| format!("`{}` could not be started", options.node.display()))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", run::line(&command), output.status);
    }
    let report: Value =
        serde_json::from_slice(&output.stdout).context("the browser's driver printed no JSON")?;
    let table = markdown(machine, options, &report)?;
    Ok((
        table,
        json!({"machine": machine.json(), "model": options.name, "report": report}),
    ))
}

/// The directory of wllama's package, below `target/tools`.
fn wllama(version: &str) -> Result<PathBuf> {
    let directory = setup::tools()?.join(format!("wllama-{version}"));
    let package = directory.join("node_modules/@wllama/wllama");
    // Written last: an interrupted installation is begun anew.
    let ready = directory.join("ready");
    if ready.exists() {
        return Ok(package);
    }
    eprintln!("installing wllama {version} into {}", directory.display());
    std::fs::create_dir_all(&directory)?;
    run::quietly(
        Command::new("npm")
            .args([
                "install",
                "--no-save",
                "--no-package-lock",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
            ])
            .arg("--prefix")
            .arg(&directory)
            .arg(format!("@wllama/wllama@{version}")),
    )
    .context("npm is needed (Debian: npm)")?;
    std::fs::write(ready, "")?;
    Ok(package)
}

/// Values of one engine by round.
fn values(report: &Value, engine: &str, what: &str) -> Vec<f64> {
    let samples = report["samples"].as_array().map_or(&[][..], Vec::as_slice);
    samples
        .iter()
        .filter(|s| s["engine"] == engine)
        .filter_map(|s| s[what].as_f64())
        .collect()
}

fn markdown(machine: &Machine, options: &Options<'_>, report: &Value) -> Result<String> {
    let build = report["samples"]
        .as_array()
        .and_then(|samples| samples.iter().find(|s| s["engine"] == "twinfer"))
        .and_then(|s| s["build"].as_str())
        .context("nothing was measured")?;
    let mut out = paragraph(&format!("Machine: {}.", machine.line()));
    out += &paragraph(&format!(
        "{}, {} threads, {} rounds in turn; twinfer: {build}; wllama {}. tok/s are medians; a ratio is the median of the rounds' \
         ratios.",
        report["browser"].as_str().unwrap_or("browser"),
        options.threads,
        options.rounds,
        report["wllama"].as_str().unwrap_or(options.wllama),
    ));
    out += &format!(
        "| {} | twinfer | wllama | ratio |\n|---|---:|---:|---:|\n",
        options.name
    );
    let tokens = |what| median(&values(report, "twinfer", what)).unwrap_or(0.0);
    for (what, name, count) in [
        ("prefill", "prompt of", "promptTokens"),
        ("decode", "writing", "tokens"),
    ] {
        // Engines alternate, so that the values of a round stand at the same place.
        let (ours, theirs) = (values(report, "twinfer", what), values(report, "wllama", what));
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        let (Some(a), Some(b), Some(ratio)) = (median(&ours), median(&theirs), median(&ratios)) else {
            bail!("one of the engines gave no {what}");
        };
        out += &format!("| {name} {} | {a:.1} | {b:.1} | {ratio:.2} x |\n", tokens(count));
    }
    let first = |engine| median(&values(report, engine, "firstTokenMs"));
    if let (Some(a), Some(b)) = (first("twinfer"), first("wllama")) {
        out += &format!(
            "| last byte to first token, ms | {a:.0} | {b:.0} | {:.2} x |\n",
            b / a
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_medians_and_ratios() {
        let sample = |engine: &str, round: usize, speed: f64| {
            json!({
                "engine": engine, "round": round, "build": "b", "prefill": 10.0 * speed, "decode": speed,
                "promptTokens": 128, "tokens": 32,
            })
        };
        let report = json!({"browser": "Chromium 1", "wllama": "3", "samples": [
            sample("twinfer", 0, 8.0), sample("wllama", 0, 2.0), sample("wllama", 1, 1.0), sample("twinfer", 1, 4.0),
        ]});
        let options = Options {
            model: Path::new("m.gguf"),
            name: "m".into(),
            threads: 2,
            rounds: 2,
            wllama: "3",
            chromium: Path::new("chromium"),
            node: Path::new("node"),
        };
        let table = markdown(&Machine::describe(), &options, &report).unwrap();
        assert!(
            table.contains("| prompt of 128 | 60.0 | 15.0 | 4.00 x |"),
            "{table}"
        );
        assert!(table.contains("| writing 32 | 6.0 | 1.5 | 4.00 x |"), "{table}");
        assert!(markdown(&Machine::describe(), &options, &json!({"samples": []})).is_err());
    }
}
