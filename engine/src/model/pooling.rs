//! One vector of a text: some of its rows' hidden states, averaged, and what a model has behind that: dense layers of
//! an embedding, or the head of a reranker.

use super::config::{Config, Keys, MAX_WIDTH};
use super::forward::Pass;
use super::norm::{Norm, NormKind};
use super::ops::Run;
use super::probe::Probe;
use super::product::product;
use super::weights::{Binder, Linear};
use crate::batch::{Output, Row};
use crate::cache::Sizes;
use crate::gguf::ModelFile;
use crate::kernels::Activation;
use crate::kernels::functions::{exp, tanh};
use crate::memory::Buffers;
use crate::{Error, Result};

/// What of a text's hidden states becomes its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Nothing: each token keeps its own.
    None,
    /// The mean of all.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// One or more scores of it, by the head of a reranker.
    Rank,
}

impl Pooling {
    /// All, with the names by which they are known.
    pub const ALL: [(Pooling, &'static str); 5] = [
        (Pooling::None, "none"),
        (Pooling::Mean, "mean"),
        (Pooling::Cls, "cls"),
        (Pooling::Last, "last"),
        (Pooling::Rank, "rank"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The one that a key states by its number.
    fn read(keys: &Keys<'_>, key: &str) -> Result<Option<Self>> {
        let Some(number) = keys.opt_u32(key)? else {
            return Ok(None);
        };
        match Self::ALL.get(number as usize) {
            Some((pooling, _)) => Ok(Some(*pooling)),
            // What llama.cpp writes where nothing is said: -1.
            None if number == u32::MAX => Ok(None),
            None => Err(keys.wrong(key, "0 (none) to 4 (rank)", &number.to_string())),
        }
    }
}

/// What makes vectors of hidden states, in numbers.
#[derive(Debug, Clone, Default)]
pub struct PoolingConfig {
    /// What the file asks for.
    pub kind: Option<Pooling>,
    /// Widths of the dense layers behind a text's or token's vector, `dense_2` and on.
    pub dense: Vec<usize>,
    /// The head of a reranker, where the file asks for one.
    pub rank: Option<RankConfig>,
}

/// The head of a reranker, in numbers.
#[derive(Debug, Clone)]
pub struct RankConfig {
    /// What it is given: one of mean, cls and last.
    pub of: Pooling,
    /// Outputs of its first matrix `cls`, which a file may lack.
    pub inner: usize,
    /// Whether what those go through is GELU; else it is tanh.
    pub gelu: bool,
    /// Whether they are normed then.
    pub norm: bool,
    /// Scores.
    pub labels: usize,
    /// Whether scores are made shares of one.
    pub softmax: bool,
}

impl PoolingConfig {
    /// What the keys that all families share state. A reranker's head is the plain one on the first token; a family's
    /// file changes what differs.
    pub(crate) fn read(keys: &Keys<'_>, n_embd: usize) -> Result<Self> {
        let kind = Pooling::read(keys, "pooling_type")?;
        let labels = match keys.opt_len("classifier.output_labels")? {
            Some(labels) => {
                keys.in_range("classifier.output_labels", labels, MAX_WIDTH as usize)?;
                labels
            }
            None => 1,
        };
        Ok(PoolingConfig {
            kind,
            dense: Vec::new(),
            rank: (kind == Some(Pooling::Rank)).then_some(RankConfig {
                of: Pooling::Cls,
                inner: n_embd,
                gelu: false,
                norm: false,
                labels,
                softmax: false,
            }),
        })
    }

    /// The pooling that a reranker's head is given, from a key that only some families have.
    pub(crate) fn classifier(keys: &Keys<'_>, default: Pooling) -> Result<Pooling> {
        const KEY: &str = "classifier.pooling_type";
        match Pooling::read(keys, KEY)?.unwrap_or(default) {
            of @ (Pooling::Mean | Pooling::Cls | Pooling::Last) => Ok(of),
            other => Err(keys.wrong(KEY, "1 (mean), 2 (cls) or 3 (last)", other.name())),
        }
    }

    /// Dense layers, those that the file has: `dense_2`, then `dense_3`.
    pub(crate) fn read_dense(keys: &Keys<'_>, file: &ModelFile, n_embd: usize) -> Result<Vec<usize>> {
        let width = |key: &str| match keys.opt_u32(key)? {
            Some(_) => keys.size(key, MAX_WIDTH),
            None => Ok(n_embd),
        };
        let mut dense = Vec::new();
        for (tensor, key) in [
            ("dense_2.weight", "dense_2_feat_out"),
            ("dense_3.weight", "dense_3_feat_out"),
        ] {
            if file.tensor(tensor).is_some() {
                dense.push(width(key)?);
            }
        }
        Ok(dense)
    }

    /// The widest rows of the heads.
    pub(super) fn widest(&self) -> usize {
        let rank = self.rank.as_ref();
        let rank = rank.map_or(0, |rank| rank.inner.max(rank.labels));
        self.dense.iter().copied().fold(rank, usize::max)
    }
}

impl Config {
    /// Values of what a pooling gives: of a text, or with [`Pooling::None`] of a token.
    pub fn vector_len(&self, pooling: Pooling) -> usize {
        match (pooling, &self.pooling.rank) {
            (Pooling::Rank, Some(rank)) => rank.labels,
            _ => self.pooling.dense.last().copied().unwrap_or(self.n_embd),
        }
    }
}

/// The heads' weights.
#[derive(Debug)]
pub(crate) struct Heads {
    dense: Vec<Linear>,
    rank: Option<Rank>,
}

#[derive(Debug)]
struct Rank {
    inner: Option<Linear>,
    norm: Option<Norm>,
    output: Option<Linear>,
}

impl Heads {
    pub(super) fn bind(binder: &Binder<'_>, config: &Config) -> Result<Self> {
        let (own, n_embd) = (&config.pooling, config.n_embd);
        // Files that have only one of the two have the later name for it, or the earlier.
        let mut names = ["dense_2", "dense_3"]
            .into_iter()
            .filter(|name| binder.has(&format!("{name}.weight")));
        let (mut dense, mut width) = (Vec::new(), n_embd);
        for n in &own.dense {
            dense.push(binder.linear(names.next().unwrap_or("dense_2"), *n, width)?);
            width = *n;
        }
        let optional = |name: &str, n: usize, k: usize| {
            binder
                .has(&format!("{name}.weight"))
                .then(|| binder.linear(name, n, k))
                .transpose()
        };
        let rank = |rank: &RankConfig| {
            let inner = optional("cls", rank.inner, n_embd)?;
            let width = if inner.is_some() { rank.inner } else { n_embd };
            let norm = (rank.norm && inner.is_some() && binder.has("cls.norm.weight"))
                .then(|| binder.norm_of("cls.norm", width, NormKind::Layer, config.norm_eps))
                .transpose()?;
            let output = optional("cls.output", rank.labels, width)?;
            if output.is_none() && (inner.is_none() || width != rank.labels) {
                return Err(binder.neither("cls.output.weight", "a `cls.weight` that gives the scores"));
            }
            Ok(Rank { inner, norm, output })
        };
        Ok(Heads {
            dense,
            rank: own.rank.as_ref().map(rank).transpose()?,
        })
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let rank = self.rank.iter();
        let rank = rank.flat_map(|rank| rank.inner.iter().chain(&rank.output));
        self.dense.iter().chain(rank)
    }
}

/// What the heads compute in: a row of each for every text; for every token where each may go through dense layers.
#[derive(Debug)]
pub(super) struct HeadBuffers {
    x: Vec<f32>,
    y: Vec<f32>,
}

impl HeadBuffers {
    pub(super) fn make(config: &Config, sizes: &Sizes, buffers: &mut Buffers<'_>) -> Result<Self> {
        let width = config.pooling.widest();
        let texts = match config.pooling.dense.is_empty() {
            true => sizes.n_sequences.min(sizes.n_batch),
            false => sizes.n_batch,
        };
        Ok(HeadBuffers {
            x: buffers.rows("heads behind pooled vectors", texts, width)?,
            y: buffers.rows("heads behind pooled vectors", texts, width)?,
        })
    }
}

/// What all rows of a pass that want something want.
pub(crate) fn wanted(rows: &[Row]) -> Result<Output> {
    let mut wanted = rows.iter().map(|row| row.output).filter(|o| *o != Output::None);
    let first = wanted.next().unwrap_or(Output::None);
    if wanted.all(|output| output == first) {
        return Ok(first);
    }
    Err(Error::InvalidInput {
        what: "rows of one batch want different things: logits, hidden states, vectors or scores".into(),
    })
}

/// Gives out what the rows of a pass want, `output`, of which `h` are the hidden states, one row for each that wants
/// it.
pub(super) fn give<P: Probe>(
    run: &mut Run<'_, P>,
    heads: &Heads,
    (output, h): (Output, &mut [f32]),
    buffers: &mut HeadBuffers,
    sink: &mut dyn FnMut(usize, &[f32]),
) -> Result<()> {
    let (pass, n_embd): (&Pass<'_>, usize) = (run.pass, run.config.n_embd);
    run.look("hidden", n_embd, h);
    run.ops
        .check(h.iter().all(|value| value.is_finite()), "output_norm")?;
    let wanting = || {
        let rows = pass.rows.iter().enumerate();
        rows.filter(|(_, row)| row.output != Output::None)
    };
    if output == Output::Hidden {
        let (x, width) = dense(run, heads, h, (&mut buffers.x, &mut buffers.y))?;
        run.ops.check(x.iter().all(|value| value.is_finite()), "dense")?;
        for (x, (row, _)) in x.chunks_exact(width).zip(wanting()) {
            sink(row, x);
        }
        return Ok(());
    }

    // The mean of each text's rows, in the place of the first rows.
    let (mut texts, mut n, mut slot) = (0, 0, None);
    for (i, (_, row)) in wanting().enumerate() {
        let (done, x) = h.split_at_mut(i * n_embd);
        if slot != Some(row.slot) {
            divide(done, (texts, n), n_embd);
            (texts, n, slot) = (texts + 1, 1, Some(row.slot));
            h.copy_within(i * n_embd..(i + 1) * n_embd, (texts - 1) * n_embd);
        } else {
            n += 1;
            run.ops
                .backend
                .add(&mut done[(texts - 1) * n_embd..texts * n_embd], &x[..n_embd]);
        }
    }
    divide(h, (texts, n), n_embd);
    let pooled = &h[..texts * n_embd];
    run.look("pooled", n_embd, pooled);

    let (x, width) = match (output, &heads.rank, &run.config.pooling.rank) {
        (Output::Scores, Some(rank), Some(config)) => {
            scores(run, (rank, config), pooled, (&mut buffers.x, &mut buffers.y))?
        }
        (Output::Scores, ..) => return Err(no_scores()),
        _ => dense(run, heads, pooled, (&mut buffers.x, &mut buffers.y))?,
    };
    run.ops.check(x.iter().all(|value| value.is_finite()), "pooled")?;
    run.look("vectors", width, x);
    let mut slot = None;
    let firsts = wanting().filter(|(_, row)| slot.replace(row.slot) != Some(row.slot));
    for (x, (row, _)) in x.chunks_exact(width).zip(firsts) {
        sink(row, x);
    }
    Ok(())
}

/// The error where a model has no head that gives scores.
pub(crate) fn no_scores() -> Error {
    Error::InvalidInput {
        what: "the model gives no scores: it is no reranker (its `pooling_type` is not 4, rank)".into(),
    }
}

/// The sum of `n` rows, which is the last of `texts` vectors, becomes their mean.
fn divide(vectors: &mut [f32], (texts, n): (usize, usize), width: usize) {
    if n > 1 {
        let sum = &mut vectors[(texts - 1) * width..texts * width];
        sum.iter_mut().for_each(|x| *x /= n as f32);
    }
}

/// Vectors through the dense layers, and their width.
fn dense<'a, P: Probe>(
    run: &mut Run<'_, P>,
    heads: &Heads,
    pooled: &'a [f32],
    (mut free, mut other): (&'a mut Vec<f32>, &'a mut Vec<f32>),
) -> Result<(&'a [f32], usize)> {
    let texts = pooled.len() / run.config.n_embd;
    let mut width = run.config.n_embd;
    let mut taken = false;
    for linear in &heads.dense {
        width = linear.weight.n();
        let out = &mut free[..texts * width];
        let x = if taken {
            &other[..texts * linear.weight.k()]
        } else {
            pooled
        };
        run.products("dense", x, &mut [product(linear, out)])?;
        (free, other) = (other, free);
        taken = true;
    }
    Ok((if taken { &other[..texts * width] } else { pooled }, width))
}

/// Vectors through the head of a reranker, and how many scores each has.
fn scores<'a, P: Probe>(
    run: &mut Run<'_, P>,
    (rank, config): (&Rank, &RankConfig),
    pooled: &'a [f32],
    (inner, out): (&'a mut Vec<f32>, &'a mut Vec<f32>),
) -> Result<(&'a [f32], usize)> {
    let texts = pooled.len() / run.config.n_embd;
    let mut x = pooled;
    if let Some(linear) = &rank.inner {
        let inner = &mut inner[..texts * config.inner];
        run.products("cls", pooled, &mut [product(linear, &mut *inner)])?;
        if config.gelu {
            run.ops.backend.activate(Activation::Gelu, inner);
        } else {
            inner.iter_mut().for_each(|x| *x = tanh(*x));
        }
        if let Some(norm) = &rank.norm {
            let room = &mut out[..inner.len()];
            norm.apply_in_place(&run.ops, inner, room)?;
        }
        x = inner;
    }
    let scores = &mut out[..texts * config.labels];
    match &rank.output {
        Some(linear) => run.products("cls.output", x, &mut [product(linear, &mut *scores)])?,
        None => scores.copy_from_slice(x),
    }
    if config.softmax {
        scores.chunks_exact_mut(config.labels).for_each(softmax);
    }
    Ok((scores, config.labels))
}

/// `exp(x - max) / sum`, the sum sequential.
fn softmax(x: &mut [f32]) {
    let max = x
        .iter()
        .fold(f32::NEG_INFINITY, |m, x| if m < *x { *x } else { m });
    x.iter_mut().for_each(|x| *x = exp(*x - max));
    let sum: f32 = x.iter().fold(0.0, |sum, x| sum + x);
    x.iter_mut().for_each(|x| *x /= sum);
}
