//! The cells of the matrix and what is computed in one: the digests of a model's logits and of every operation on one
//! backend, with one storage of the weights, number of threads, split of the prompt and type of the cache.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use twinfer_engine::cache::CacheType;
use twinfer_engine::context::{Context, ContextOptions, held_bytes};
use twinfer_engine::digest::Digest;
use twinfer_engine::gguf::ModelFile;
use twinfer_engine::kernels::{Backend, Placement, Storage, select};
use twinfer_engine::memory::Bytes;
use twinfer_engine::model::config::Config;
use twinfer_engine::model::mixer::MixerConfig;
use twinfer_engine::model::{LoadOptions, Model};
use twinfer_engine::team::{Place, Team};
use twinfer_engine::trace::{self, Comparison, Trace};

pub(crate) const THREADS: [usize; 4] = [1, 2, 3, 4];
/// Tokens per pass.
pub(crate) const SPLITS: [usize; 4] = [1, 7, 64, 512];
pub(crate) const STORAGES: [Storage; 2] = [Storage::Mapped, Storage::Packed];

/// Types of keys and of values.
pub(crate) type Cache = (CacheType, CacheType);
const F16: Cache = (CacheType::F16, CacheType::F16);
const F32: Cache = (CacheType::F32, CacheType::F32);
const Q8_0: Cache = (CacheType::Q8_0, CacheType::Q8_0);
/// Keys and values of different types.
const MIXED: [Cache; 2] = [
    (CacheType::Q8_0, CacheType::F16),
    (CacheType::F16, CacheType::Q8_0),
];

/// One way to compute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) backend: &'static dyn Backend,
    pub(crate) storage: Storage,
    pub(crate) threads: usize,
    pub(crate) split: usize,
    pub(crate) cache: Cache,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {:?}, {} threads, {} tokens a pass, cache {}/{}",
            self.backend.name(),
            self.storage,
            self.threads,
            self.split,
            self.cache.0.name(),
            self.cache.1.name()
        )
    }
}

/// The types of caches that a model can have: those of one type, and the mixed ones.
fn caches(config: &Config) -> (Vec<Cache>, &'static [Cache]) {
    let q8_0 = ContextOptions {
        cache_type_k: CacheType::Q8_0,
        cache_type_v: CacheType::Q8_0,
        ..ContextOptions::default()
    };
    if held_bytes(config, &q8_0).is_ok() {
        (vec![F16, F32, Q8_0], &MIXED)
    } else {
        (vec![F16, F32], &[])
    }
}

/// Every combination.
pub(crate) fn product(backend: &'static dyn Backend, config: &Config) -> Vec<Cell> {
    let (caches, mixed) = caches(config);
    let mut cells = Vec::new();
    for &cache in caches.iter().chain(mixed) {
        for threads in THREADS {
            for split in SPLITS {
                cells.extend(STORAGES.map(|storage| Cell {
                    backend,
                    storage,
                    threads,
                    split,
                    cache,
                }));
            }
        }
    }
    cells
}

/// A covering design of 16 cells: every value of each factor meets every value of each other one in some cell (a test
/// below holds it to that). Two cells more for each cache of mixed types.
pub(crate) fn covering(backend: &'static dyn Backend, config: &Config) -> Vec<Cell> {
    let (caches, mixed) = caches(config);
    let mut cells = Vec::new();
    for t in 0..4 {
        for s in 0..4 {
            cells.push(Cell {
                backend,
                storage: STORAGES[(t >> 1 ^ s) & 1],
                threads: THREADS[t],
                split: SPLITS[s],
                cache: caches[(t + s) % 4 % caches.len()],
            });
        }
    }
    for &cache in mixed {
        for (storage, threads, split) in [(Storage::Packed, 3, 7), (Storage::Mapped, 2, 64)] {
            cells.push(Cell {
                backend,
                storage,
                threads,
                split,
                cache,
            });
        }
    }
    cells
}

/// Four cells: every thread count, every split, both storages.
pub(crate) fn transversal(backend: &'static dyn Backend, config: &Config) -> Vec<Cell> {
    let (caches, _) = caches(config);
    (0..4)
        .map(|t| Cell {
            backend,
            storage: STORAGES[t & 1],
            threads: THREADS[t],
            split: SPLITS[(t + 2) % 4],
            cache: caches[t % caches.len()],
        })
        .collect()
}

/// Where the workers of a team are: of one and of two, on one node; of three and of four, on two, with two caches on
/// one.
fn places(threads: usize) -> Vec<Place> {
    let place = |node, cache| Place { node, cache };
    let places = [place(0, 0), place(1, 0), place(1, 1), place(0, 0)];
    match threads {
        1 | 2 => vec![Place::default(); threads],
        n => places[..n].into(),
    }
}

/// What becomes of weights that are packed: the team of three has its rows on its nodes, that of four all rows on each.
fn placement(threads: usize) -> Placement {
    match threads {
        3 => Placement::Distribute,
        4 => Placement::Mirror,
        _ => Placement::Anywhere,
    }
}

/// Teams of 1 to 4.
pub(crate) fn teams() -> [Team; 4] {
    THREADS.map(|n| {
        Team::placed(&places(n), |_, work| {
            std::thread::spawn(work);
        })
    })
}

/// A model and what is asked of it.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) file: ModelFile,
    pub(crate) config: Config,
    pub(crate) tokens: Vec<u32>,
}

impl Subject {
    pub(crate) fn open(path: &Path, n_tokens: usize) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let file = ModelFile::from_parts(vec![Bytes::from_vec(bytes)]).unwrap();
        let config = Config::from_file(&file).unwrap();
        let n_vocab = config.n_vocab;
        Subject {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            file,
            config,
            tokens: (0..n_tokens)
                .map(|i| ((i * 37 + i / 5 + 11) % n_vocab) as u32)
                .collect(),
        }
    }

    pub(crate) fn context(&self, cell: &Cell, teams: &[Team; 4]) -> Context {
        let options = ContextOptions {
            n_ctx: self.tokens.len() + 64,
            n_batch: cell.split,
            ..ContextOptions::default()
        };
        self.context_of(cell, teams, options)
    }

    /// A context of these sizes, with the cell's types of the cache.
    pub(crate) fn context_of(&self, cell: &Cell, teams: &[Team; 4], options: ContextOptions) -> Context {
        let team = &teams[cell.threads - 1];
        let load = LoadOptions {
            storage: cell.storage,
            placement: placement(cell.threads),
            team: Some(team.clone()),
            ..LoadOptions::default()
        };
        let model = Model::load_for(cell.backend, &self.file, &load, &mut |_, _| {}).unwrap();
        let options = ContextOptions {
            cache_type_k: cell.cache.0,
            cache_type_v: cell.cache.1,
            ..options
        };
        Context::new(Arc::new(model), team.clone(), options).unwrap()
    }

    /// The cell whose numbers all others must have: the scalar backend, its weights as they are in the file, one
    /// thread, one token at a time.
    pub(crate) fn reference(cache: Cache) -> Cell {
        Cell {
            backend: select::choose(Some("scalar")).unwrap(),
            storage: Storage::Mapped,
            threads: 1,
            split: 1,
            cache,
        }
    }

    /// The digest of all logits, and the trace of every operation: a wrong last bit may vanish where a row is rounded
    /// to int8, and is wrong all the same.
    fn run(&self, context: &mut Context) -> (String, Trace) {
        let (mut digest, mut trace) = (Digest::new(), Trace::new(&self.name));
        let sequence = context.open().unwrap();
        context
            .eval_probed(sequence, &self.tokens, &mut trace, &mut |_, logits| {
                digest.update(logits)
            })
            .unwrap();
        context.close(sequence).unwrap();
        (digest.finish(), trace)
    }

    /// Computes the cells and compares them with the reference.
    pub(crate) fn compare(&self, cells: &[Cell], teams: &[Team; 4]) -> Outcome {
        let mut wants: Vec<(Cache, Trace)> = Vec::new();
        let mut outcome = Outcome {
            cells: Vec::new(),
            failures: Vec::new(),
        };
        for cell in cells {
            let known = wants.iter().position(|(cache, _)| *cache == cell.cache);
            let index = known.unwrap_or_else(|| {
                let mut context = self.context(&Self::reference(cell.cache), teams);
                wants.push((cell.cache, self.run(&mut context).1));
                wants.len() - 1
            });
            let mut context = self.context(cell, teams);
            let (digest, trace) = self.run(&mut context);
            if trace.first_difference(&wants[index].1).unwrap().is_some() {
                let mut plain = self.context(&Self::reference(cell.cache), teams);
                let goes_on = &mut |_, _| ControlFlow::Continue(());
                let found = trace::compare(&mut context, &mut plain, &self.tokens, goes_on).unwrap();
                outcome.failures.push((*cell, found));
            }
            outcome.cells.push((*cell, digest));
        }
        outcome
    }
}

/// What came of some cells.
pub(crate) struct Outcome {
    pub(crate) cells: Vec<(Cell, String)>,
    /// The cells that differ from the reference, and where they begin to.
    pub(crate) failures: Vec<(Cell, Comparison)>,
}

impl Outcome {
    /// A row per backend and cache, a column per number of threads and split; in it the storages (m, p) and the digest.
    pub(crate) fn table(&self) -> String {
        use fmt::Write as _;
        let mut rows: Vec<(&str, Cache)> = Vec::new();
        for (cell, _) in &self.cells {
            let row = (cell.backend.name(), cell.cache);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        let mut table = String::new();
        for (backend, cache) in rows {
            let _ = write!(
                table,
                "  {:<16}",
                format!("{backend} {}/{}", cache.0.name(), cache.1.name())
            );
            for threads in THREADS {
                for split in SPLITS {
                    let here = self.cells.iter().filter(|(cell, _)| {
                        (cell.backend.name(), cell.cache, cell.threads, cell.split)
                            == (backend, cache, threads, split)
                    });
                    let (mut shown, mut digests) = (String::new(), Vec::new());
                    for (cell, digest) in here {
                        shown.push(if cell.storage == Storage::Mapped { 'm' } else { 'p' });
                        digests.push(&digest[..6]);
                    }
                    digests.dedup();
                    let _ = write!(table, " {:>8}", shown + &digests.join("!"));
                }
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        table
    }

    /// One line per cell that differs.
    pub(crate) fn complaints(&self, name: &str) -> Vec<String> {
        self.failures
            .iter()
            .map(|(cell, found)| match found {
                Comparison::Differs(difference) => format!("{name}: {cell}: first at {difference}"),
                other => format!("{name}: {cell}: {other:?}"),
            })
            .collect()
    }
}

/// The heads of the table's columns.
pub(crate) fn columns() -> String {
    let mut head = format!("{:<18}", "threads x pass");
    for threads in THREADS {
        head.extend(SPLITS.map(|split| format!(" {:>8}", format!("{threads}x{split}"))));
    }
    head
}

#[test]
fn the_design_covers_every_pair() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/vectors/llama-gqa.gguf");
    let mut config = Subject::open(&path, 1).config;
    for dim in [16, 32] {
        for layer in &mut config.layers {
            if let MixerConfig::Attention(attention) = &mut layer.mixer {
                (attention.head_dim_k, attention.head_dim_v) = (dim, dim);
            }
        }
        let scalar = Subject::reference(F16).backend;
        let factors = |cell: &Cell| {
            [
                format!("{:?}", cell.storage),
                format!("{} threads", cell.threads),
                format!("{} a pass", cell.split),
                format!("{:?}", cell.cache),
            ]
        };
        let all = product(scalar, &config);
        let mixed = |cell: &&Cell| cell.cache.0 == cell.cache.1;
        for wanted in all.iter().filter(mixed).map(factors) {
            for (i, j) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                assert!(
                    covering(scalar, &config)
                        .iter()
                        .map(factors)
                        .any(|cell| cell[i] == wanted[i] && cell[j] == wanted[j]),
                    "{} never meets {}",
                    wanted[i],
                    wanted[j]
                );
            }
        }
        let four = transversal(scalar, &config);
        for (i, n) in [(0, 2), (1, 4), (2, 4)] {
            let values: std::collections::BTreeSet<String> =
                four.iter().map(|cell| factors(cell)[i].clone()).collect();
            assert_eq!(values.len(), n);
        }
    }
}
