//! What a machine that is not at hand would do with a model, by a description of it. The formula is explained in
//! `docs/machine.md`; descriptions of some servers stand in `docs/machines`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use twinfer_engine::model::config::{Config, LayerConfig};

use crate::rates::Allowed;

/// Rows of a pass while a prompt is read: `bench`'s default.
const BATCH: usize = 512;

/// A machine in figures, as its file has them.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    pub(crate) name: String,
    /// The rates are from data sheets and not measured.
    pub(crate) paper: bool,
    pub(crate) sockets: usize,
    /// Of all sockets.
    pub(crate) nodes: usize,
    pub(crate) cores_per_node: usize,
    /// The only mode to predict; all that differ where it is left out.
    pub(crate) numa: Option<Mode>,
    /// What the cores of a node read of its own memory, GB/s.
    pub(crate) read_gb_s: f64,
    /// What the cores of a socket read of the other sockets' memory, GB/s.
    pub(crate) cross_read_gb_s: Option<f64>,
    /// 8-bit multiplications and additions of a core, all cores at work, G/s.
    pub(crate) int8_gmac_s: f64,
    /// The same of f32 numbers, rounded one by one.
    pub(crate) f32_gmac_s: f64,
    /// What an operation costs a team beside its work where all workers are on one node, microseconds; see
    /// [`twinfer_engine::team::HandOver`].
    pub(crate) same_node_us: f64,
    /// The same where they are on several.
    pub(crate) cross_node_us: Option<f64>,
    /// What the caller does alone between two operations, microseconds.
    pub(crate) between_us: f64,
    /// The part of the arithmetic's rates that this program reaches.
    pub(crate) compute_reached: f64,
    /// The part of the memory's rate that this program reaches.
    pub(crate) read_reached: f64,
}

/// Where weights and cache lie on a machine of several nodes.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Anywhere: spread over the nodes, and read from all of them.
    Off,
    /// On one node, whose cores alone work.
    Isolate,
    /// Each node has the part that its workers read.
    Distribute,
    /// Each node has all of it, and its workers read a part.
    Mirror,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Isolate => "isolate",
            Mode::Distribute => "distribute",
            Mode::Mirror => "mirror",
        }
    }
}

/// Seconds that a pass takes, by what takes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pass {
    /// Weights and cache from memory, while the arithmetic goes on: the longer of the two counts.
    pub(crate) read: f64,
    pub(crate) compute: f64,
    /// Between the operations.
    pub(crate) hand_overs: f64,
}

impl Pass {
    pub(crate) fn seconds(&self) -> f64 {
        let work = if self.read < self.compute {
            self.compute
        } else {
            self.read
        };
        work + self.hand_overs
    }
}

/// Multiplications of f32 numbers beside those of matrices, in some layers, for a token that sees `depth` positions.
fn beside_matrices(layers: &[LayerConfig], depth: f64) -> f64 {
    layers
        .iter()
        .map(|layer| layer.mixer.multiplications(depth))
        .sum()
}

impl Description {
    /// Reads a file.
    ///
    /// # Errors
    /// What is not TOML, or says too little, too much, or what cannot be; with the line.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|error| crate::failure::no_file(path, "read", error))?;
        Self::parse(&text).with_context(|| format!("`{}` is no description of a machine", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let found: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or("", |span| &text[..span.start]);
            let line = 1 + before.matches('\n').count();
            anyhow::anyhow!("line {line}: {}", error.message())
        })?;
        found.check()?;
        Ok(found)
    }

    fn check(&self) -> Result<()> {
        for (name, n) in [
            ("sockets", self.sockets),
            ("nodes", self.nodes),
            ("cores_per_node", self.cores_per_node),
        ] {
            if !(1..=4096).contains(&n) {
                bail!("{name}: expected 1 to 4096, found {n}");
            }
        }
        if !self.nodes.is_multiple_of(self.sockets) {
            let (nodes, sockets) = (self.nodes, self.sockets);
            bail!("nodes: expected as many on each of {sockets} sockets, found {nodes}");
        }
        if self.sockets > 1 && self.cross_read_gb_s.is_none() {
            bail!("cross_read_gb_s is missing: there are {} sockets", self.sockets);
        }
        if self.nodes > 1 && self.cross_node_us.is_none() {
            bail!("cross_node_us is missing: there are {} nodes", self.nodes);
        }
        for (name, rate) in [
            ("read_gb_s", Some(self.read_gb_s)),
            ("cross_read_gb_s", self.cross_read_gb_s),
            ("int8_gmac_s", Some(self.int8_gmac_s)),
            ("f32_gmac_s", Some(self.f32_gmac_s)),
        ] {
            if let Some(rate) = rate.filter(|rate| !(1e-3..1e6).contains(rate)) {
                bail!("{name}: expected 0.001 to 1000000, found {rate}");
            }
        }
        for (name, time) in [
            ("same_node_us", Some(self.same_node_us)),
            ("cross_node_us", self.cross_node_us),
            ("between_us", Some(self.between_us)),
        ] {
            if let Some(time) = time.filter(|time| !(0.0..1e6).contains(time)) {
                bail!("{name}: expected 0 to 1000000, found {time}");
            }
        }
        for (name, part) in [
            ("compute_reached", self.compute_reached),
            ("read_reached", self.read_reached),
        ] {
            if !(0.01..=1.0).contains(&part) {
                bail!("{name}: expected a part, 0.01 to 1, found {part}");
            }
        }
        Ok(())
    }

    /// The modes to predict: `mirror` takes as long as `distribute`, and on one node nothing differs.
    pub(crate) fn modes(&self) -> Vec<Mode> {
        match (self.numa, self.nodes) {
            (Some(mode), _) => vec![mode],
            (None, 1) => vec![Mode::Isolate],
            (None, _) => vec![Mode::Off, Mode::Isolate, Mode::Distribute],
        }
    }

    /// Nodes whose cores work.
    fn working(&self, mode: Mode) -> usize {
        match mode {
            Mode::Isolate => 1,
            Mode::Off | Mode::Distribute | Mode::Mirror => self.nodes,
        }
    }

    /// Seconds in which the workers read `bytes` together.
    fn reading(&self, bytes: f64, mode: Mode) -> f64 {
        let own = bytes / self.working(mode) as f64 / (self.read_gb_s * 1e9);
        let seconds = match (mode, self.cross_read_gb_s) {
            // Of what a socket reads, the others' share comes from them.
            (Mode::Off, Some(rate)) => {
                let sockets = self.sockets as f64;
                let crossing = bytes / sockets * (sockets - 1.0) / sockets / (rate * 1e9);
                if own < crossing { crossing } else { own }
            }
            _ => own,
        };
        seconds / self.read_reached
    }

    /// Seconds in which they multiply: `integer` by quantized weights, `float` by others.
    fn computing(&self, integer: f64, float: f64, mode: Mode) -> f64 {
        let cores = (self.working(mode) * self.cores_per_node) as f64;
        let seconds = integer / (self.int8_gmac_s * 1e9) + float / (self.f32_gmac_s * 1e9);
        seconds / cores / self.compute_reached
    }

    /// Seconds between the operations of a pass.
    fn handing_over(&self, config: &Config, mode: Mode) -> f64 {
        let hand_over = match self.cross_node_us {
            Some(us) if self.working(mode) > 1 => us,
            _ => self.same_node_us,
        };
        config.operations() as f64 * (hand_over + self.between_us) / 1e6
    }

    /// The pass that makes a token with `depth` positions in the cache.
    pub(crate) fn decode(&self, allowed: &Allowed<'_>, depth: usize, mode: Mode) -> Pass {
        let (every, asked) = allowed.work;
        let kept = allowed.cache_bytes(depth) + allowed.state_traffic();
        let bytes = every.bytes(1.0) + asked.bytes(1.0) + kept;
        let float = every.float + asked.float + beside_matrices(&allowed.config.layers, depth as f64);
        Pass {
            read: self.reading(bytes, mode),
            compute: self.computing(every.integer + asked.integer, float, mode),
            hand_overs: self.handing_over(allowed.config, mode),
        }
    }

    /// All passes that read a prompt of `n`. Of its last layer, and of the output matrix, only the last token meets
    /// more than keys and values.
    pub(crate) fn prefill(&self, allowed: &Allowed<'_>, n: usize, mode: Mode) -> Pass {
        let (every, asked) = allowed.work;
        let passes = n.div_ceil(BATCH) as f64;
        let tokens = n as f64;
        // A token sees half of the prompt on average.
        let seen = match allowed.config.layers.split_last() {
            Some((_, others)) => beside_matrices(others, tokens / 2.0),
            None => 0.0,
        };
        let float = tokens * (every.float + seen) + asked.float;
        Pass {
            read: self.reading(passes * every.bytes(tokens / passes) + asked.bytes(1.0), mode),
            compute: self.computing(tokens * every.integer + asked.integer, float, mode),
            hand_overs: passes * self.handing_over(allowed.config, mode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::TokenWork;
    use twinfer_engine::cache::CacheType;
    use twinfer_engine::team::HandOver;

    const TWO: &str = "\
        name = 'two'\npaper = true\nsockets = 2\nnodes = 4\ncores_per_node = 8\nread_gb_s = 50\n\
        cross_read_gb_s = 40\nint8_gmac_s = 100\nf32_gmac_s = 10\nsame_node_us = 1\ncross_node_us = 3\n\
        between_us = 2\ncompute_reached = 0.5\nread_reached = 0.8\n";

    /// The toy model's configuration with weights of our own.
    fn on(run: impl FnOnce(&Allowed<'_>)) {
        let file = crate::load::ModelSource::BuiltIn.open().unwrap();
        let config = Config::from_file(&file).unwrap();
        let work = |dense, integer| TokenWork {
            dense,
            integer,
            ..TokenWork::default()
        };
        run(&Allowed {
            config: &config,
            work: (work(7e9, 15e9), work(1e9, 1e9)),
            cache: (CacheType::F16, CacheType::F16),
        });
    }

    #[test]
    fn the_formula_by_hand() {
        on(|allowed| {
            let machine = Description::parse(TWO).unwrap();
            assert_eq!(machine.modes(), [Mode::Off, Mode::Isolate, Mode::Distribute]);
            let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
            let operations = (5 * allowed.config.layers.len() + 4) as f64;
            assert_eq!(allowed.config.operations() as f64, operations);
            // One node: 8 GB at 50 GB/s, of which 0.8 are reached.
            let one = machine.decode(allowed, 0, Mode::Isolate);
            close(one.read, 0.2);
            close(one.compute, 16e9 / 100e9 / 8.0 / 0.5);
            close(one.hand_overs, operations * 3e-6);
            close(one.seconds(), one.read + one.hand_overs);
            // Four nodes: a quarter of it, and dearer hand-overs.
            let all = machine.decode(allowed, 0, Mode::Distribute);
            close(all.read, 0.05);
            close(all.hand_overs, operations * 5e-6);
            assert_eq!(all, machine.decode(allowed, 0, Mode::Mirror));
            // Anywhere: each socket reads 4 GB, half of them from the other at 40 GB/s.
            close(machine.decode(allowed, 0, Mode::Off).read, 2e9 / 40e9 / 0.8);
            // The cache comes to the weights.
            let deep = machine.decode(allowed, 64, Mode::Isolate);
            close(deep.read, (8e9 + allowed.cache_bytes(64)) / 50e9 / 0.8);
            // A prompt of two passes: 15 G multiplications a token, the output matrix once, attention in f32.
            let prompt = machine.prefill(allowed, 600, Mode::Distribute);
            let integer = (600.0 * 15e9 + 1e9) / 100e9;
            let (_, others) = allowed.config.layers.split_last().unwrap();
            let float = 600.0 * beside_matrices(others, 300.0) / 10e9;
            close(prompt.compute, (integer + float) / 32.0 / 0.5);
            close(prompt.read, 15e9 / 200e9 / 0.8);
            close(prompt.hand_overs, 2.0 * operations * 5e-6);
        });
    }

    /// What hand-overs of the described servers cost is counted from what a cache line takes, as the benchmark counts.
    #[test]
    fn hand_overs_of_described_servers_are_counted() {
        // As in docs/machine.md: measured on Zen 3; its factors between domains and between packages.
        let (alone, zen) = (2.8, 40.9);
        // Three nodes a socket, whose cores are three domains each: as docs/machines says.
        let xeon = 80.0;
        for (name, within, workers, neighbours, farther) in [
            ("epyc-7763-x2", zen, 8, (7, 3.0 * zen), vec![(8, 6.0 * zen)]),
            ("epyc-9654-x2", zen, 8, (11, 3.0 * zen), vec![(12, 6.0 * zen)]),
            ("xeon-6980p-x2", xeon, 14, (2, xeon), vec![(6, 140.0), (9, 452.0)]),
        ] {
            let path = format!("{}/../docs/machines/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let machine = Description::read(Path::new(&path)).unwrap();
            assert_eq!(machine.cores_per_node, workers * (1 + neighbours.0), "{name}");
            let others: usize = farther.iter().map(|(domains, _)| domains).sum();
            assert_eq!(others, (1 + neighbours.0) * (machine.nodes - 1), "{name}");
            let one_node = HandOver {
                alone,
                within,
                workers,
                neighbours,
                farther: Vec::new(),
            };
            let all = HandOver {
                farther,
                ..one_node.clone()
            };
            let us = |of: HandOver| (of.of_much_work() / 100.0).round() / 10.0;
            let found = (machine.same_node_us, machine.cross_node_us);
            assert_eq!(found, (us(one_node), Some(us(all))), "{name}");
        }
    }

    /// A token reads two of eight experts; many tokens read nearly all, once.
    #[test]
    fn experts_are_read_as_far_as_they_are_used() {
        on(|allowed| {
            let machine = Description::parse(TWO).unwrap();
            let every = TokenWork {
                dense: 1e9,
                experts: 8e9,
                used: 2e9,
                integer: 3e9,
                float: 0.0,
            };
            let asked = TokenWork::default();
            let allowed = Allowed {
                work: (every, asked),
                ..*allowed
            };
            let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
            close(machine.decode(&allowed, 0, Mode::Isolate).read, 3e9 / 50e9 / 0.8);
            close(every.bytes(2.0), 1e9 + 8e9 * (1.0 - 0.75 * 0.75));
            close(every.bytes(512.0), 9e9);
            let prompt = machine.prefill(&allowed, 512, Mode::Isolate);
            close(prompt.read, 9e9 / 50e9 / 0.8);
        });
    }

    #[test]
    fn a_wrong_description_says_where_it_is_wrong() {
        let wrong = |from: &str, to: &str| {
            let text = TWO.replace(from, to);
            assert_ne!(text, TWO);
            format!("{:#}", Description::parse(&text).unwrap_err())
        };
        assert!(wrong("sockets = 2", "sockets = 0").contains("sockets: expected 1"));
        assert!(wrong("nodes = 4", "nodes = 3").contains("each of 2 sockets"));
        assert!(wrong("read_gb_s = 50", "read_gb_s = -1").contains("read_gb_s"));
        assert!(wrong("f32_gmac_s = 10", "f32_gmac_s = nan").contains("f32_gmac_s"));
        assert!(wrong("cross_node_us = 3\n", "").contains("cross_node_us is missing"));
        assert!(wrong("cross_read_gb_s = 40\n", "").contains("cross_read_gb_s is missing"));
        assert!(wrong("read_reached = 0.8", "read_reached = 1.2").contains("a part"));
        let typo = wrong("same_node_us", "same_nodes_us");
        assert!(
            typo.contains("line 10") && typo.contains("same_nodes_us"),
            "{typo}"
        );
        assert!(wrong("paper = true", "paper = true\nnuma = 'everywhere'").contains("line 3"));
        assert!(wrong("name = 'two'", "name = ").contains("line 1"));
        let one = TWO.replace("nodes = 4", "nodes = 2\nnuma = 'mirror'");
        assert_eq!(Description::parse(&one).unwrap().modes(), [Mode::Mirror]);
    }
}
