//! What a person can choose instead where memory is too small: options with which the rest of what was asked for fits.

use twinfer_engine::cache::{CacheType, Pool};
use twinfer_engine::context::ContextOptions;
use twinfer_engine::kernels::{BLOCK, Storage};

use crate::numa::NumaMode;

/// What a person can choose to need less.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) storage: Storage,
    /// Of experts, where that was said: else they lie as all others do, or stay mapped where that makes the rest fit.
    pub(crate) experts: Option<Storage>,
    /// Whether the model has some.
    pub(crate) has_experts: bool,
    /// Whether layers of it keep a state of each sequence.
    pub(crate) has_states: bool,
    pub(crate) numa: NumaMode,
    pub(crate) context: ContextOptions,
}

impl Choice {
    fn with_q8_0(&self) -> Option<Self> {
        let mut choice = self.clone();
        choice.context.cache_type_k = CacheType::Q8_0;
        choice.context.cache_type_v = CacheType::Q8_0;
        let types = |choice: &Choice| (choice.context.cache_type_k, choice.context.cache_type_v);
        (types(&choice) != types(self)).then_some(choice)
    }

    /// With mapped experts, where they would not be.
    fn with_mapped_experts(&self) -> Option<Self> {
        let mapped = Some(Storage::Mapped);
        let lie = self.experts.unwrap_or(self.storage);
        (self.has_experts && lie != Storage::Mapped).then(|| Choice {
            experts: mapped,
            ..self.clone()
        })
    }

    fn mapped(&self) -> Option<Self> {
        let storage = Storage::Mapped;
        (self.storage != storage).then(|| Choice {
            storage,
            ..self.clone()
        })
    }

    fn with_states(&self, n: usize) -> Self {
        let mut choice = self.clone();
        choice.context.n_states = Some(n);
        choice
    }

    /// The size that decides how large the cache is, in tokens or in bytes.
    fn size(&self) -> u64 {
        match self.context.pool {
            Pool::Bytes(bytes) => bytes,
            Pool::Whole | Pool::WithCheckpoints(_) | Pool::Pages(_) | Pool::UpTo(_) => {
                self.context.n_ctx as u64
            }
        }
    }

    fn with_size(&self, size: u64) -> Self {
        let mut choice = self.clone();
        match &mut choice.context.pool {
            Pool::Bytes(bytes) => *bytes = size,
            Pool::Whole | Pool::WithCheckpoints(_) | Pool::Pages(_) | Pool::UpTo(_) => {
                choice.context.n_ctx = usize::try_from(size).unwrap_or(usize::MAX)
            }
        }
        choice
    }

    /// The unit of sizes: less is not worth telling apart.
    fn unit(&self) -> u64 {
        match self.context.pool {
            Pool::Bytes(_) => 1 << 20,
            Pool::Whole | Pool::WithCheckpoints(_) | Pool::Pages(_) | Pool::UpTo(_) => BLOCK as u64,
        }
    }

    /// What one types for what differs from `asked`.
    fn options(&self, asked: &Choice) -> String {
        let mut options = Vec::new();
        if self.numa != asked.numa {
            options.push(format!("--numa {}", self.numa));
        }
        if self.storage != asked.storage {
            options.push("--weights mapped".into());
        }
        if self.experts != asked.experts {
            options.push("--experts mapped".into());
        }
        for (name, own, other) in [
            ("k", self.context.cache_type_k, asked.context.cache_type_k),
            ("v", self.context.cache_type_v, asked.context.cache_type_v),
        ] {
            if own != other {
                options.push(format!("--cache-type-{name} q8_0"));
            }
        }
        if self.context.states() != asked.context.states() {
            options.push(format!("--cache-states {}", self.context.states()));
        }
        if self.size() != asked.size() {
            options.push(match self.context.pool {
                Pool::Bytes(bytes) => format!("--cache-size {}M", bytes >> 20),
                Pool::Whole | Pool::WithCheckpoints(_) | Pool::Pages(_) | Pool::UpTo(_) => {
                    format!("--ctx-size {}", self.context.n_ctx)
                }
            });
        }
        options.join(" ")
    }
}

/// What would fit in place of what was asked for, as options. `modes`: other modes of `--numa` in groups of which one
/// is enough, the last group for where no other has one; `fits` says it of a choice.
pub(crate) fn advice(asked: &Choice, modes: &[Vec<NumaMode>], fits: &dyn Fn(&Choice) -> bool) -> Vec<String> {
    let smaller = |choice: &Choice| largest(choice, fits);
    let whole = |choice: Option<Choice>| choice.filter(fits);
    let placed = |numa: NumaMode| Choice {
        numa,
        ..asked.clone()
    };
    let mut found: Vec<Choice> = [
        smaller(asked),
        whole(asked.with_q8_0()),
        fewer_states(asked, fits),
        whole(asked.with_mapped_experts()),
        whole(asked.mapped()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (last, better) = match modes.split_last() {
        Some((last, better)) => (last.as_slice(), better),
        None => (&[][..], &[][..]),
    };
    let first_of = |group: &[NumaMode]| group.iter().map(|&numa| placed(numa)).find(fits);
    let elsewhere: Vec<Choice> = better.iter().filter_map(|group| first_of(group)).collect();
    match elsewhere.is_empty() {
        true => found.extend(first_of(last)),
        false => found.extend(elsewhere),
    }
    if found.is_empty() {
        // No single option is enough. Mapped experts first: what every token needs stays as fast as it can be.
        let experts = asked.with_mapped_experts();
        let mapped = asked.mapped().unwrap_or_else(|| asked.clone());
        let all = mapped.with_mapped_experts().unwrap_or(mapped);
        let elsewhere = better.iter().filter_map(|group| group.first());
        found = experts
            .into_iter()
            .chain([all])
            .chain(elsewhere.map(|&numa| placed(numa)))
            .filter_map(|choice| {
                let both = choice.with_q8_0();
                let least = both.clone().unwrap_or_else(|| choice.clone());
                whole(Some(choice.clone()))
                    .or_else(|| whole(both))
                    .or_else(|| smaller(&choice))
                    .or_else(|| smaller(&least))
            })
            .collect();
    }
    let mut options: Vec<String> = found.iter().map(|choice| choice.options(asked)).collect();
    options.dedup();
    options
}

/// The largest size below the one that was asked for that fits; sizes are multiples of the unit.
fn largest(choice: &Choice, fits: &dyn Fn(&Choice) -> bool) -> Option<Choice> {
    let unit = choice.unit();
    let of = |units: u64| choice.with_size(units * unit);
    let most = most(1, choice.size().div_ceil(unit), &|units| fits(&of(units)))?;
    Some(of(most))
}

/// As many states as fit, where there are some, and fewer than were asked for.
fn fewer_states(choice: &Choice, fits: &dyn Fn(&Choice) -> bool) -> Option<Choice> {
    const LEAST: u64 = 2;
    let of = |n: u64| choice.with_states(usize::try_from(n).unwrap_or(usize::MAX));
    let end = if choice.has_states {
        choice.context.states() as u64
    } else {
        0
    };
    let most = most(LEAST, end, &|n| fits(&of(n)))?;
    Some(of(most))
}

/// The largest number from `least` on and below `end` that fits, where those that do come first.
fn most(least: u64, end: u64, fits: &dyn Fn(u64) -> bool) -> Option<u64> {
    // Those below `low` fit; `high` and what is above do not.
    let (mut low, mut high) = (least, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle + 1
        } else {
            high = middle
        }
    }
    (low > least).then(|| low - 1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::MIB;
    use super::*;

    #[test]
    fn advice_fits_and_is_as_large_as_fits() {
        // Packed weights of 100 MiB; a cache of 1 MiB for 64 tokens in f16, of half of it in q8_0.
        let cache = |choice: &Choice| {
            let half = u64::from(choice.context.cache_type_k == CacheType::Q8_0);
            (choice.context.n_ctx as u64 * MIB / 64) >> half
        };
        let needed = |choice: &Choice| {
            let weights = if choice.storage == Storage::Mapped {
                0
            } else {
                100 * MIB
            };
            weights + cache(choice)
        };
        let asked = Choice {
            storage: Storage::Auto,
            experts: None,
            has_experts: false,
            has_states: false,
            numa: NumaMode::Auto,
            context: ContextOptions {
                n_ctx: 6400,
                ..ContextOptions::default()
            },
        };
        let q8 = "--cache-type-k q8_0 --cache-type-v q8_0";
        for (free, expected) in [
            (
                180,
                vec![
                    "--ctx-size 5120".to_string(),
                    q8.into(),
                    "--weights mapped".into(),
                ],
            ),
            (120, vec!["--ctx-size 1280".into(), "--weights mapped".into()]),
            (101, vec!["--ctx-size 64".into(), "--weights mapped".into()]),
            (99, vec![format!("--weights mapped {q8}")]),
            (40, vec!["--weights mapped --ctx-size 2560".into()]),
            (0, vec![]),
        ] {
            let found = advice(&asked, &[], &|choice| needed(choice) <= free * MIB);
            assert_eq!(found, expected, "{free} MiB");
        }
        // Of those weights 80 MiB are experts'.
        let with_experts = |choice: &Choice| {
            let packed = |storage| u64::from(storage != Storage::Mapped);
            let experts = choice.experts.unwrap_or(choice.storage);
            cache(choice) + 20 * MIB * packed(choice.storage) + 80 * MIB * packed(experts)
        };
        let insisting = Choice {
            experts: Some(Storage::Packed),
            has_experts: true,
            ..asked.clone()
        };
        for (free, expected) in [
            (
                180,
                vec![
                    "--ctx-size 5120".to_string(),
                    q8.into(),
                    "--experts mapped".into(),
                    "--weights mapped".into(),
                ],
            ),
            (130, vec!["--ctx-size 1920".into(), "--experts mapped".into()]),
            (
                90,
                vec![
                    format!("--experts mapped {q8}"),
                    format!("--weights mapped --experts mapped {q8}"),
                ],
            ),
            (
                40,
                vec![
                    "--experts mapped --ctx-size 1280".into(),
                    "--weights mapped --experts mapped --ctx-size 2560".into(),
                ],
            ),
            (
                10,
                vec!["--weights mapped --experts mapped --ctx-size 640".into()],
            ),
        ] {
            let found = advice(&insisting, &[], &|choice| with_experts(choice) <= free * MIB);
            assert_eq!(found, expected, "{free} MiB");
        }
        // Where nobody said where they lie they are mapped if that is enough: the size is that of such a context.
        let open = Choice {
            experts: None,
            ..insisting
        };
        let settled = |choice: &Choice| {
            let mapped = choice.with_mapped_experts();
            let least = mapped.filter(|_| choice.experts.is_none());
            with_experts(least.as_ref().unwrap_or(choice)) <= 90 * MIB
        };
        assert_eq!(advice(&open, &[], &settled), ["--ctx-size 4480", q8]);
        // States of 1 MiB each, 8 of them unless other options say so.
        let recurrent = Choice {
            has_states: true,
            ..asked.clone()
        };
        let with_states = |choice: &Choice| needed(choice) + choice.context.states() as u64 * MIB;
        let of = |free: u64| advice(&recurrent, &[], &|choice| with_states(choice) <= free * MIB);
        assert_eq!(of(207)[0], "--ctx-size 6336");
        assert!(of(207).contains(&"--cache-states 7".into()), "{:?}", of(207));
        assert!(of(202).contains(&"--cache-states 2".into()), "{:?}", of(202));
        assert!(!of(201).concat().contains("states"), "{:?}", of(201));
        // A cache whose size is given in bytes.
        let mut asked = asked;
        asked.context.pool = Pool::Bytes(500 * MIB);
        let fits = |choice: &Choice| choice.size() <= 30 * MIB && choice.storage == Storage::Auto;
        assert_eq!(advice(&asked, &[], &fits), ["--cache-size 30M"]);
    }

    #[test]
    fn another_node_mode_is_among_what_would_fit() {
        use NumaMode::{Distribute, Isolate, Mirror, Node, Off};

        // 100 MiB of weights and as much of a cache of 6400 tokens; nodes with 120, 220 and 120 MiB.
        let cache = |choice: &Choice| choice.context.n_ctx as u64 * MIB / 64;
        let fits = |choice: &Choice| {
            let weights = if choice.storage == Storage::Mapped {
                0
            } else {
                100 * MIB
            };
            match choice.numa {
                Node(1) => weights + cache(choice) <= 220 * MIB,
                Distribute => (weights + cache(choice)) / 3 <= 120 * MIB,
                Mirror => weights + cache(choice) / 3 <= 120 * MIB,
                Off => weights + cache(choice) <= 460 * MIB,
                _ => weights + cache(choice) <= 120 * MIB,
            }
        };
        let asked = |numa| Choice {
            storage: Storage::Auto,
            experts: None,
            has_experts: false,
            has_states: false,
            numa,
            context: ContextOptions {
                n_ctx: 6400,
                ..ContextOptions::default()
            },
        };
        let of_one_node = [vec![Distribute], vec![Node(1)], vec![Off]];
        let found = advice(&asked(Node(0)), &of_one_node, &fits);
        let mapped = "--weights mapped".to_string();
        assert_eq!(
            found,
            [
                "--ctx-size 1280".into(),
                mapped.clone(),
                "--numa distribute".into(),
                "--numa node:1".into()
            ]
        );
        // Of a group the first that fits.
        let of_all_nodes = [vec![Distribute], vec![Isolate, Node(1)], vec![Off]];
        let found = advice(&asked(Mirror), &of_all_nodes, &fits);
        assert_eq!(found[2..], ["--numa distribute", "--numa node:1"]);
        // Where nothing else does, nodes that are not told apart.
        let found = advice(&asked(Node(0)), &[vec![Isolate], vec![Off]], &fits);
        assert_eq!(found[2..], ["--numa off"]);
        // A mode that is not enough by itself.
        let large = Choice {
            storage: Storage::Packed,
            ..asked(Node(0))
        };
        let never_mapped = |choice: &Choice| {
            let small = choice.numa == Distribute && choice.context.n_ctx <= 640;
            small && choice.storage != Storage::Mapped
        };
        let found = advice(&large, &of_one_node, &never_mapped);
        assert_eq!(found, ["--numa distribute --ctx-size 640"]);
    }
}
