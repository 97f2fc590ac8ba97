//! What the options come to, resolved once: commands are given this, or the part of it that they need, never the options.
//!
//! Nothing here looks at the machine: that is [`crate::workers`]' and [`crate::compute`]'s part, for the commands that
//! compute.

mod generation;
mod sampler;

pub(crate) use generation::GenerationSettings;
pub(crate) use sampler::{Kind, Parameter, as_options};

use twinfer_engine::cache::CacheType;
use twinfer_engine::kernels::Storage;

use crate::args::{GlobalArgs, HugePages};
use crate::load::ModelSource;
use crate::numa::NumaMode;
use crate::output;

/// What every command can be told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) source: ModelSource,
    pub(crate) verbosity: Verbosity,
    /// `None`: whatever the command takes where nobody chose.
    pub(crate) seed: Option<u32>,
    pub(crate) context: ContextSettings,
    pub(crate) workers: WorkerSettings,
    pub(crate) weights: WeightSettings,
    /// The most memory that this process may take, in bytes.
    pub(crate) memory_limit: Option<u64>,
}

/// How much is said on stderr beside errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// The size and the types of a context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextSettings {
    /// Tokens; `None`: as the model and the command would have it.
    pub(crate) size: Option<usize>,
    /// Types of the cached keys and of the cached values.
    pub(crate) cache: (CacheType, CacheType),
    /// States of sequences; `None`: as the number of sequences has it.
    pub(crate) states: Option<usize>,
    /// Its memory is brought in when it is made, not as it is filled.
    pub(crate) populate: bool,
}

/// Which workers were asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerSettings {
    /// `None`: as many as suit the machine.
    pub(crate) n: Option<usize>,
    /// The CPUs that workers are to be on, one each.
    pub(crate) cpus: Option<Vec<usize>>,
    /// --pin, --no-pin, or neither.
    pub(crate) pinning: Option<bool>,
    pub(crate) numa: NumaMode,
}

/// How weights are made ready.
#[derive(Debug, Clone)]
pub(crate) struct WeightSettings {
    /// `None`: the fastest one.
    pub(crate) backend: Option<String>,
    pub(crate) storage: Storage,
    /// Of experts; `None`: as all others, or mapped where the memory is too small for that.
    pub(crate) experts: Option<Storage>,
    pub(crate) populate: bool,
    pub(crate) mlock: bool,
    pub(crate) direct_io: bool,
    pub(crate) huge_pages: HugePages,
}

impl Verbosity {
    pub(crate) fn is_quiet(self) -> bool {
        self == Verbosity::Quiet
    }

    pub(crate) fn is_verbose(self) -> bool {
        self == Verbosity::Verbose
    }

    /// A line on stderr, unless only the result and errors are wanted.
    pub(crate) fn note(self, text: &str) {
        if !self.is_quiet() {
            output::note(text);
        }
    }

    /// A line on stderr for who wants to know what is done.
    pub(crate) fn detail(self, text: &str) {
        if self.is_verbose() {
            output::note(text);
        }
    }
}

impl From<GlobalArgs> for Settings {
    fn from(args: GlobalArgs) -> Self {
        let workers = WorkerSettings {
            n: args.threads(),
            pinning: args.pinning(),
            cpus: args.cpus.map(|list| list.0),
            numa: args.numa,
        };
        Settings {
            source: match args.model {
                Some(path) => ModelSource::File(path),
                None => ModelSource::BuiltIn,
            },
            verbosity: match (args.quiet, args.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, true) => Verbosity::Verbose,
                (false, false) => Verbosity::Normal,
            },
            seed: u32::try_from(args.seed).ok(),
            context: ContextSettings {
                size: Some(args.ctx_size).filter(|&size| size > 0),
                cache: (args.cache_type_k.into(), args.cache_type_v.into()),
                states: args.cache_states,
                populate: args.populate,
            },
            workers,
            weights: WeightSettings {
                backend: args.backend,
                storage: args.weights.into(),
                experts: match Storage::from(args.experts) {
                    Storage::Auto => None,
                    storage => Some(storage),
                },
                populate: args.populate,
                mlock: args.mlock,
                direct_io: args.direct_io,
                huge_pages: args.huge_pages,
            },
            memory_limit: args.memory_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Settings {
        let args = ["twinfer", "doctor"].iter().chain(args);
        let (cli, _) = crate::args::parse(args.map(Into::into)).unwrap();
        cli.global.into()
    }

    #[test]
    fn what_stands_for_no_choice_is_none() {
        let asked = settings(&[]);
        assert_eq!(asked.source, ModelSource::BuiltIn);
        assert_eq!((asked.seed, asked.context.size), (None, None));
        assert_eq!((asked.workers.n, asked.workers.pinning), (None, None));
        assert_eq!(asked.verbosity, Verbosity::Normal);
        let asked = settings(&["--seed", "-1", "-c", "0", "-t", "-1"]);
        assert_eq!(
            (asked.seed, asked.context.size, asked.workers.n),
            (None, None, None)
        );
    }

    #[test]
    fn what_was_chosen_is_kept() {
        let asked = settings(&[
            "-m",
            "a.gguf",
            "--seed",
            "0",
            "-c",
            "7",
            "-t",
            "3",
            "--no-pin",
            "-q",
            "--cache-type-v",
            "q8_0",
        ]);
        assert_eq!(asked.source, ModelSource::File("a.gguf".into()));
        assert_eq!((asked.seed, asked.context.size), (Some(0), Some(7)));
        assert_eq!((asked.workers.n, asked.workers.pinning), (Some(3), Some(false)));
        assert_eq!(asked.verbosity, Verbosity::Quiet);
        assert_eq!(asked.context.cache, (CacheType::F16, CacheType::Q8_0));
        assert_eq!(asked.context.states, None);
        assert_eq!(settings(&["--cache-states", "2"]).context.states, Some(2));
        assert!(settings(&["-v"]).verbosity.is_verbose());
        assert_eq!(
            settings(&["--cpus", "0-2,8"]).workers.cpus,
            Some(vec![0, 1, 2, 8])
        );
        // Of two that exclude each other the last one counts.
        assert_eq!(settings(&["--no-pin", "--pin"]).workers.pinning, Some(true));
    }
}
