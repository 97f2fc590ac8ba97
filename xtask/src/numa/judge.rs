//! Whether what a machine printed is what it must be.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{DIVIDED, Machine, PLACED, SUBJECTS, Watched, watched};
use crate::guest::EXIT;

const PAGE: u64 = 4096;
/// Pages that a program on one node may have elsewhere: those that it took before it knew that it is to be there. None
/// of them is of the weights or the cache, which are asked about by themselves.
const EARLIER: u64 = 256;

/// What a model is.
pub(super) struct Expected {
    pub(super) digest: String,
    /// Bytes of its matrices that a backend packs.
    pub(super) packed: u64,
}

/// One part of a machine's report.
#[derive(Default)]
struct Part<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Part<'a> {
    /// The words behind `first`, of each line that begins with that word.
    fn words(&self, first: &str) -> Vec<Vec<&'a str>> {
        let words = self.lines.iter().map(|line| line.split_whitespace());
        words
            .filter_map(|mut words| (words.next()? == first).then(|| words.collect()))
            .collect()
    }

    /// The string of a field of JSON that stands on a line of its own.
    fn field(&self, name: &str) -> Option<&'a str> {
        let start = format!("\"{name}\": \"");
        let line = self
            .lines
            .iter()
            .find_map(|line| line.trim().strip_prefix(&start))?;
        Some(line.trim_end_matches(',').trim_end_matches('"'))
    }

    fn json(&self) -> Result<Value> {
        let line = self.lines.first().context("it has printed nothing")?;
        serde_json::from_str(line).context("it has printed no JSON")
    }

    /// The program's own pages on each node.
    fn pages(&self, machine: &Machine) -> Vec<u64> {
        let mut pages = vec![0; machine.nodes];
        for words in self.words("pages") {
            if let [_, node, n] = words[..]
                && let (Ok(node), Ok(n)) = (node.parse::<usize>(), n.parse::<u64>())
                && node < pages.len()
            {
                pages[node] += n;
            }
        }
        pages
    }
}

/// Splits a report into its parts.
fn parts(report: &str) -> BTreeMap<&str, Part<'_>> {
    let mut parts: BTreeMap<&str, Part<'_>> = BTreeMap::new();
    let mut name = "";
    for line in report.lines() {
        match line.strip_prefix("@ ") {
            Some(next) => name = next,
            None => parts.entry(name).or_default().lines.push(line),
        }
    }
    parts
}

/// Judges all parts and prints what was found. `expected`: of each model, in their order.
///
/// # Errors
/// Every fault, by part.
pub(super) fn judge(machine: &Machine, report: &str, expected: &[&Expected]) -> Result<()> {
    let parts = parts(report);
    let mut faults = Vec::new();
    let mut check = |name: &str, judge: &dyn Fn(&Part<'_>) -> Result<String>| {
        let found = match parts.get(name) {
            None => Err(anyhow::anyhow!("there is no such part")),
            Some(part) if !part.lines.contains(&"exit 0") => Err(anyhow::anyhow!("the program has failed")),
            Some(part) => judge(part),
        };
        match found {
            Ok(found) => println!("{name}: {found}"),
            Err(fault) => faults.push(format!("{name}: {fault:#}")),
        }
    };
    check("doctor", &|part| topology(machine, &part.json()?));
    for (subject, expected) in SUBJECTS.iter().zip(expected) {
        let name = subject.name;
        for (mode, share) in PLACED {
            let copies = if mode == "mirror" { machine.nodes as u64 } else { 1 };
            check(&format!("placed {mode}{name}"), &|part| {
                placed(&part.json()?["numa"], share, copies * expected.packed)
            });
        }
        check(&format!("metric{name}"), &|part| {
            placed(&part.json()?["numa"], DIVIDED, expected.packed)
        });
    }
    for Watched {
        name,
        subject,
        mode,
        backend,
    } in watched(machine)
    {
        let Some(expected) = expected.get(subject) else {
            bail!("nothing is known of the model of {name}");
        };
        check(&name, &|part| {
            let (sha256, taken) = (part.field("sha256"), part.field("backend"));
            if sha256 != Some(expected.digest.as_str()) {
                bail!(
                    "the digest is {sha256:?}; one thread has {} natively",
                    expected.digest
                );
            }
            let backend = backend.unwrap_or("avx2");
            if taken != Some(backend) {
                bail!("the backend is {taken:?}, not {backend}");
            }
            let threads = threads(machine, &mode, part)?;
            // The scalar backend computes with the file's pages.
            let own = if backend == "scalar" { 0 } else { expected.packed };
            let memory = memory(machine, &mode, part, own)?;
            Ok(format!("the native digest; {threads}; {memory}"))
        });
    }
    if !report.lines().any(|line| line == format!("{EXIT}0")) {
        faults.push("the machine's script has not ended well".into());
    }
    if !faults.is_empty() {
        bail!("{}:\n  {}", machine.name(), faults.join("\n  "));
    }
    Ok(())
}

/// `doctor` sees the machine that QEMU was told to be, and takes a worker per core of it.
fn topology(machine: &Machine, found: &Value) -> Result<String> {
    let nodes: Vec<Value> = (0..machine.nodes)
        .map(|node| {
            let distances: Vec<u64> = (0..machine.nodes).map(|to| Machine::distance(node, to)).collect();
            json!([node, machine.cpus_of(node).collect::<Vec<_>>(), distances])
        })
        .collect();
    let seen: Vec<Value> = found["topology"]["nodes"]
        .as_array()
        .context("it names no nodes")?
        .iter()
        .map(|node| json!([node["id"], node["cpus"], node["distances"]]))
        .collect();
    let siblings: Vec<Vec<usize>> = (0..machine.cpus())
        .step_by(machine.threads)
        .map(|first| (first..first + machine.threads).collect())
        .collect();
    let workers: Vec<usize> = (0..machine.nodes)
        .flat_map(|node| machine.workers_of(node))
        .collect();
    for (what, seen, want) in [
        ("nodes (id, CPUs, distances)", json!(seen), json!(nodes)),
        ("siblings", found["topology"]["siblings"].clone(), json!(siblings)),
        (
            "number of cores",
            found["cores"].clone(),
            json!(machine.nodes * machine.cores),
        ),
        (
            "number of workers",
            found["threads"].clone(),
            json!(workers.len()),
        ),
        ("workers' CPUs", found["pinned_to"].clone(), json!(workers)),
    ] {
        if seen != want {
            bail!("{what}: {seen}; the machine has {want}");
        }
    }
    Ok(format!("{}, workers on CPUs {workers:?}", machine.name()))
}

/// At least this share of all bytes is on the node that reads them.
fn placed(found: &Value, least: f64, weights: u64) -> Result<String> {
    let of = |what: &str| -> Result<(f64, u64)> {
        let share = found[format!("{what}_local")].as_f64();
        let pages = found[format!("{what}_pages")].as_u64();
        share
            .zip(pages)
            .with_context(|| format!("it does not say where the {what} is: {found}"))
    };
    let (weights_local, weights_pages) = of("weights")?;
    let (cache_local, cache_pages) = of("cache")?;
    if weights_local < least || cache_local < least {
        bail!("of the weights {weights_local}, of the cache {cache_local} are on the node that reads them");
    }
    if weights_pages * PAGE < weights / 10 * 9 || cache_pages == 0 {
        bail!(
            "{weights_pages} pages of weights and {cache_pages} of the cache were looked at, for weights of {weights} bytes"
        );
    }
    // Of what one node reads from the file as it is: that lies where the system has it.
    let mapped = match (found["mapped_local"].as_f64(), found["mapped_pages"].as_u64()) {
        (Some(share), Some(pages)) => format!("; of {pages} pages of the file {:.2} % are", 100.0 * share),
        _ => String::new(),
    };
    let away = (1.0 - weights_local) * weights_pages as f64 + (1.0 - cache_local) * cache_pages as f64;
    Ok(format!(
        "local are {:.2} % of {weights_pages} pages of weights and {:.2} % of {cache_pages} of the cache; \
         a pass that reads all of them reads {:.2} % from other nodes{mapped}",
        100.0 * weights_local,
        100.0 * cache_local,
        100.0 * away / (weights_pages + cache_pages) as f64
    ))
}

/// The only node that a mode computes on, if it is one; which one, `isolate` may choose.
fn only_node(machine: &Machine, mode: &str, part: &Part<'_>) -> Result<Option<usize>> {
    if let Some(node) = mode.strip_prefix("node:") {
        return Ok(Some(node.parse()?));
    }
    if mode != "isolate" {
        return Ok(None);
    }
    let threads = part.words("thread");
    let first = threads.iter().find(|words| words.first() == Some(&"twinfer"));
    let cpu: usize = first
        .and_then(|words| words.get(1)?.parse().ok())
        .context("worker 0 was not seen")?;
    Ok((0..machine.nodes).find(|node| machine.cpus_of(*node).contains(&cpu)))
}

/// Each worker has computed on the CPU that is its own, and may run nowhere else.
fn threads(machine: &Machine, mode: &str, part: &Part<'_>) -> Result<String> {
    let mut seen = Vec::new();
    for words in part.words("thread") {
        let [name, cpu, allowed, ticks] = words[..] else {
            bail!("a thread of {} fields", words.len());
        };
        // The thread that does the command's work is worker 0.
        let number = name.strip_prefix("twinfer-").map(str::parse::<usize>);
        if name != "twinfer" && !matches!(number, Some(Ok(_))) {
            continue;
        }
        if cpu != allowed {
            bail!("{name} runs on CPU {cpu} and may run on {allowed}");
        }
        if ticks == "0" {
            bail!("{name} has done nothing");
        }
        seen.push(cpu.parse::<usize>()?);
    }
    seen.sort_unstable();
    let nodes = match only_node(machine, mode, part)? {
        Some(node) => node..node + 1,
        None => 0..machine.nodes,
    };
    let want: Vec<usize> = nodes.flat_map(|node| machine.workers_of(node)).collect();
    if seen != want {
        bail!("workers are on CPUs {seen:?}, not on {want:?}");
    }
    Ok(format!("workers on CPUs {seen:?}"))
}

/// The kernel's view of the program's own memory: on one node alone, or enough of it on each.
fn memory(machine: &Machine, mode: &str, part: &Part<'_>, weights: u64) -> Result<String> {
    let pages = part.pages(machine);
    if let Some(only) = only_node(machine, mode, part)? {
        let elsewhere: u64 = (0..machine.nodes)
            .filter(|node| *node != only)
            .map(|node| pages[node])
            .sum();
        if elsewhere > EARLIER {
            bail!("it computes on node {only}, and has pages on nodes: {pages:?}");
        }
    }
    let each = match mode {
        "mirror" => weights,
        "distribute" => weights / machine.nodes as u64,
        // Anywhere: all nodes together must have them.
        _ => 0,
    };
    if pages.iter().any(|pages| pages * PAGE < each / 10 * 9)
        || pages.iter().sum::<u64>() * PAGE < weights / 10 * 9
    {
        bail!("pages on nodes: {pages:?}, for weights of {weights} bytes");
    }
    Ok(format!("pages on nodes {pages:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numa::Subject;
    use crate::numa::machine::MACHINES;

    fn expected() -> [Expected; 2] {
        let of = |digest: &str| Expected {
            digest: digest.into(),
            packed: 800 * PAGE,
        };
        [of("abc"), of("def")]
    }

    fn judged(report: &str) -> Result<()> {
        judge(&MACHINES[0], report, &expected().each_ref())
    }

    /// What the machine of two nodes prints when all is well.
    fn good() -> String {
        let mut report = String::from(
            "model name : QEMU\n@ doctor\n{\"cores\": 4, \"threads\": 4, \"pinned_to\": [0, 2, 4, 6], \"topology\": {\
             \"siblings\": [[0, 1], [2, 3], [4, 5], [6, 7]], \"nodes\": [\
             {\"id\": 0, \"cpus\": [0, 1, 2, 3], \"distances\": [10, 21]}, \
             {\"id\": 1, \"cpus\": [4, 5, 6, 7], \"distances\": [21, 10]}]}}\nexit 0\n",
        );
        let numa = |local: &str, pages: u64| {
            format!(
                "{{\"numa\": {{\"weights_local\": {local}, \"weights_pages\": {pages}, \"cache_local\": 1.0, \
                 \"cache_pages\": 64}}}}"
            )
        };
        for Subject { name, .. } in &SUBJECTS {
            for (mode, local, pages) in [
                ("isolate", "1.0", 800),
                ("distribute", "0.97", 800),
                ("mirror", "0.97", 1600),
            ] {
                report += &format!("@ placed {mode}{name}\n{}\nexit 0\n", numa(local, pages));
            }
            report += &format!("@ metric{name}\n{}\nexit 0\n", numa("0.96", 800));
        }
        for Watched {
            name,
            subject,
            mode,
            backend,
        } in watched(&MACHINES[0])
        {
            let (cpus, pages): (&[usize], _) = match &*mode {
                "isolate" => (&[0, 2], [900, 0]),
                "node:1" => (&[4, 6], [0, 900]),
                "mirror" => (&[0, 2, 4, 6], [950, 850]),
                _ => (&[0, 2, 4, 6], [450, 460]),
            };
            report += &format!("@ {name}\nthread twinfer-signals 1 0-7 0\n");
            for (worker, cpu) in cpus.iter().enumerate() {
                let name = if worker == 0 {
                    "twinfer".into()
                } else {
                    format!("twinfer-{worker}")
                };
                report += &format!("thread {name} {cpu} {cpu} 9\n");
            }
            for (node, pages) in pages.iter().enumerate().filter(|(_, pages)| **pages > 0) {
                report += &format!("pages other {node} {pages}\n");
            }
            let backend = backend.unwrap_or("avx2");
            let digest = &expected()[subject].digest;
            report += &format!("  \"backend\": \"{backend}\",\n  \"sha256\": \"{digest}\"\nexit 0\n");
        }
        report + EXIT + "0\n"
    }

    #[test]
    fn every_fault_is_found() {
        judged(&good()).unwrap();
        for (part, from, to) in [
            ("doctor", "\"threads\": 4", "\"threads\": 8"),
            ("doctor", "[0, 2, 4, 6]", "[0, 1, 2, 3]"),
            ("doctor", "[0, 1], [2, 3]", "[0, 2], [1, 3]"),
            ("doctor", "[10, 21]", "[10, 20]"),
            (
                "placed isolate",
                "\"weights_local\": 1.0",
                "\"weights_local\": 0.99",
            ),
            ("placed distribute", "0.97", "0.94"),
            ("placed distribute", "0.97", "null"),
            ("placed mirror", "\"cache_local\": 1.0", "\"cache_local\": 0.5"),
            ("placed mirror", "1600", "800"),
            ("placed distribute experts", "0.97", "0.94"),
            ("metric", "0.96", "0.94"),
            ("metric experts", "0.96", "0.94"),
            ("metric", "\"numa\"", "\"none\""),
            ("watch distribute experts", "\"def\"", "\"abc\""),
            (
                "watch distribute experts",
                "pages other 1 460",
                "pages other 1 300",
            ),
            ("watch off", "\"abc\"", "\"abd\""),
            ("watch off", "exit 0", "exit 1"),
            ("watch distribute scalar", "\"scalar\"", "\"avx2\""),
            ("watch distribute", "twinfer-3 6 6 9", "twinfer-3 6 6 0"),
            ("watch distribute", "twinfer-3 6 6 9", "twinfer-3 7 6 9"),
            ("watch distribute", "twinfer-3 6 6 9", "twinfer-3 7 7 9"),
            ("watch distribute", "twinfer-3 6 6 9", "twinfer-3 6 0-7 9"),
            ("watch distribute", "thread twinfer-3 6 6 9\n", ""),
            ("watch distribute", "pages other 1 460", "pages other 1 300"),
            ("watch mirror", "pages other 1 850", "pages other 1 450"),
            (
                "watch isolate",
                "pages other 0 900",
                "pages other 0 900\npages heap 1 300",
            ),
            ("watch isolate", "pages other 0 900", "pages other 0 90"),
            ("watch node:1", "pages other 1 900", "pages other 0 900"),
            ("watch node:1", "twinfer 4 4", "twinfer 0 0"),
        ] {
            let good = good();
            let (before, rest) = good.split_once(&format!("@ {part}\n")).unwrap();
            assert!(rest.contains(from), "{part}: {from}");
            let bad = format!("{before}@ {part}\n{}", rest.replacen(from, to, 1));
            let faults = judged(&bad).unwrap_err().to_string();
            assert!(
                faults.contains(&format!("\n  {part}: ")),
                "{part}: {from} -> {to}: {faults}"
            );
        }
        for bad in [
            good().replace("code 0", "code 1"),
            good().replace("@ watch mirror\n", ""),
        ] {
            assert!(judged(&bad).is_err());
        }
    }
}
