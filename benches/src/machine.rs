//! Which machine, which state of the sources: stands above every table of results.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Where and of what something was measured.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Its vector extensions, of those that engines care for.
    pub features: Vec<&'static str>,
    /// Logical processors that this process may use.
    pub processors: usize,
    /// Memory in GiB.
    pub memory: Option<f64>,
    /// The commit, marked where files differ from it.
    pub commit: String,
}

/// The workspace's root: this package lies directly below it.
#[must_use]
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

fn git(args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.args(args).current_dir(root()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The value of the first line `key ... : value`.
fn field(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Extensions as `/proc/cpuinfo` names them, and as people do.
const FEATURES: &[(&str, &str)] = &[
    ("avx2", "AVX2"),
    ("fma", "FMA"),
    ("f16c", "F16C"),
    ("avx_vnni", "AVX-VNNI"),
    ("avx512f", "AVX-512F"),
    ("avx512bw", "AVX-512BW"),
    ("avx512_vnni", "AVX-512 VNNI"),
    ("avx512_bf16", "AVX-512 BF16"),
    ("amx_int8", "AMX int8"),
];

impl Machine {
    /// Looks.
    #[must_use]
    pub fn describe() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        let has = |name: &str| flags.split(' ').any(|flag| flag == name);
        let memory = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| field(&text, "MemTotal"))
            .and_then(|kib| kib.split(' ').next()?.parse::<f64>().ok())
            .map(|kib| kib / f64::from(1 << 20));
        let mut commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".into());
        if git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty())
        {
            commit += " with changes";
        }
        let model = field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
        let number = |key| field(&cpuinfo, key).unwrap_or_else(|| "unknown".into());
        Machine {
            // Virtual machines often hide the name; family and model still tell the core.
            cpu: format!(
                "{model} (family {}, model {})",
                number("cpu family"),
                number("model\t")
            ),
            features: FEATURES
                .iter()
                .filter_map(|&(flag, name)| has(flag).then_some(name))
                .collect(),
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory,
            commit,
        }
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let memory = self
            .memory
            .map_or_else(String::new, |gib| format!(", {gib:.0} GiB"));
        format!(
            "{}, {} processors{memory}; {}; commit {}",
            self.cpu,
            self.processors,
            self.features.join(", "),
            self.commit
        )
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu, "features": self.features, "processors": self.processors,
            "memory_gib": self.memory, "commit": self.commit,
        })
    }
}

/// How much the machine does beside this, now: the load average of the last minute.
#[must_use]
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files() {
        let text = "cpu family\t: 25\nmodel\t\t: 97\nmodel name\t: AMD EPYC 9R14\n";
        assert_eq!(field(text, "model name").as_deref(), Some("AMD EPYC 9R14"));
        assert_eq!(field(text, "model\t").as_deref(), Some("97"));
        assert_eq!(field(text, "flags"), None);
    }
}
