//! Multi-head latent attention: keys and values of all heads are made of one short vector per position, the latent one.
//!
//! ```text
//!   kv        = Wkv_a x                     latent = [norm(kv, the first of it) | rotated(the rest)]
//!   q         = Wq x, or Wq_b norm(Wq_a x)  per head [plain | rotated]
//!   absorbed  q' = [Wk_b plain | rotated] of each head over the latent vectors, which all heads share: keys are whole
//!             ones, values their first part; what comes of a head is Wv_b times that
//!   expanded  Wkv_b makes of the latent vector each head's key (its rest is shared) and value, and attention is over
//!             those
//! ```
//!
//! Which of the two a file has tensors for is its choice. The cache of the absorbed form is one latent vector per
//! position; it holds the first part twice, as a key's and as a value, though the second is the beginning of the first:
//! in a page keys lie d-major and values position-major, each as the kernels read them, so one memory cannot stand for
//! both.

mod heads;

use std::ops::Range;

use heads::{HEAD_ROWS, HeadBuffers, HeadMatrices};

use super::attend::{Attend, AttendBuffers};
use super::attention::AttentionConfig;
use crate::Result;
use crate::cache::{CacheKind, KvCache, Sizes};
use crate::kernels::MAX_HEAD_DIM;
use crate::memory::Buffers;
use crate::model::config::{Config, Keys, MAX_WIDTH};
use crate::model::norm::{Norm, NormKind};
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{product, product_from};
use crate::model::weights::{Binder, Linear};

/// Rows of a pass whose attention is computed at a time: queries over latent vectors are wide.
const ROWS: usize = 64;

/// One layer's, in numbers.
#[derive(Debug, Clone)]
pub struct MlaConfig {
    /// Attention proper, over what the cache holds.
    pub attention: AttentionConfig,
    /// Width that queries are made of, where that is not the residual stream.
    pub q_rank: Option<usize>,
    /// Width of the latent vector without its rotated part.
    pub kv_rank: usize,
    /// Width of a head's query that is not rotated.
    pub plain: usize,
    /// Width of a head's query that is, and of the rotated part of the latent vector.
    pub rotated: usize,
    /// Width of a head's value.
    pub value: usize,
    /// Whether attention is over the latent vectors.
    pub absorbed: bool,
}

impl MlaConfig {
    /// What reads the input, the query of its latent vector, the two matrices of heads, attention between them, the
    /// output.
    pub(super) const OPERATIONS: usize = 6;

    /// Of scores and of the values that they weigh.
    pub(super) fn multiplications(&self, depth: f64) -> f64 {
        self.attention.multiplications(depth)
    }

    /// Every layer's, for a rotation of so many values; `q_rank` as in the configuration, `score_factor` of scores
    /// beside what the width of a query asks for.
    pub(crate) fn read(
        keys: &Keys<'_>,
        config: &Config,
        rotated: usize,
        q_rank: Option<usize>,
        score_factor: f64,
    ) -> Result<Vec<Self>> {
        const HEADS: &str = "attention.head_count";
        const KV_HEADS: &str = "attention.head_count_kv";
        const KEY: &str = "attention.key_length";
        const VALUE: &str = "attention.value_length";
        const OWN_KEY: &str = "attention.key_length_mla";
        const OWN_VALUE: &str = "attention.value_length_mla";
        let kv_rank = keys.size("attention.kv_lora_rank", MAX_WIDTH)?;
        let absorbed = match (
            keys.opt_size(OWN_KEY, MAX_HEAD_DIM as u32)?,
            keys.opt_size(OWN_VALUE, MAX_HEAD_DIM as u32)?,
        ) {
            (0, 0) => None,
            (0, _) => return Err(keys.missing(OWN_KEY)),
            (_, 0) => return Err(keys.missing(OWN_VALUE)),
            own => Some(own),
        };
        let layer = |mut attention: AttentionConfig| {
            let (cached_k, cached_v) = (attention.head_dim_k, attention.head_dim_v);
            let (kv_heads, (key, value)) = match absorbed {
                Some(own) => (1, own),
                None => (attention.n_heads, (cached_k, cached_v)),
            };
            let key_name = if absorbed.is_some() { OWN_KEY } else { KEY };
            keys.in_range(HEADS, attention.n_heads, MAX_WIDTH as usize / (key + value))?;
            if key <= rotated {
                let expected = format!("more than rope.dimension_count, {rotated}");
                return Err(keys.wrong(key_name, &expected, &key.to_string()));
            }
            let agree = |name, found: usize, expected: usize, what: &str| match found == expected {
                true => Ok(()),
                false => Err(keys.wrong(name, &format!("{expected}, {what}"), &found.to_string())),
            };
            if absorbed.is_some() {
                let what = "kv_lora_rank and rope.dimension_count together";
                agree(KEY, cached_k, kv_rank + rotated, what)?;
                agree(VALUE, cached_v, kv_rank, "kv_lora_rank")?;
                agree(KV_HEADS, attention.n_kv_heads, kv_heads, "one for all heads")?;
            } else {
                agree(KV_HEADS, attention.n_kv_heads, kv_heads, "as many as head_count")?;
            }
            attention.scale = (score_factor / (key as f64).sqrt()) as f32;
            if !attention.scale.is_finite() {
                let found = format!("a factor of scores of {score_factor}");
                return Err(keys.wrong("rope.scaling.factor", "a factor of scores that is finite", &found));
            }
            Ok(MlaConfig {
                attention,
                q_rank,
                kv_rank,
                plain: key - rotated,
                rotated,
                value,
                absorbed: absorbed.is_some(),
            })
        };
        AttentionConfig::read(keys, config)?
            .into_iter()
            .map(layer)
            .collect()
    }

    pub(super) fn cache_kind(&self) -> CacheKind {
        self.attention.cache_kind()
    }

    pub(super) fn inner_width(&self) -> usize {
        self.width_values()
            .max(self.q_rank.unwrap_or(0))
            .max(self.kv_rank)
    }

    /// Where its matrices multiply with more rows than the `m` of a pass: how many, and the widest of them.
    pub(super) fn more_rows(&self, m: usize) -> (usize, usize) {
        match self.absorbed {
            true => (self.head_rows(m), self.plain.max(self.kv_rank)),
            false => (0, 0),
        }
    }

    /// Rows that are multiplied with heads' own matrices at a time, of a pass of `m`.
    fn head_rows(&self, m: usize) -> usize {
        (self.attention.n_heads * m.min(ROWS)).min(HEAD_ROWS)
    }

    /// Width of a head's query.
    fn key(&self) -> usize {
        self.plain + self.rotated
    }

    /// Width of the queries of all heads.
    fn width_q(&self) -> usize {
        self.attention.n_heads * self.key()
    }

    /// Width of the latent vector.
    fn latent(&self) -> usize {
        self.kv_rank + self.rotated
    }

    /// Width of what comes of all heads.
    fn width_values(&self) -> usize {
        self.attention.n_heads * self.value
    }

    /// Width of all heads' keys, without the part that they share, and values.
    fn width_expanded(&self) -> usize {
        self.attention.n_heads * (self.plain + self.value)
    }
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct Mla {
    config: MlaConfig,
    queries: Queries,
    kv_a: Linear,
    kv_norm: Norm,
    form: Form,
    output: Linear,
}

/// What makes queries.
#[derive(Debug)]
enum Queries {
    Whole(Linear),
    Narrow { a: Linear, norm: Norm, b: Linear },
}

/// What makes use of latent vectors.
#[derive(Debug)]
enum Form {
    Absorbed { k_b: HeadMatrices, v_b: HeadMatrices },
    Expanded { kv_b: Linear },
}

impl Mla {
    pub(super) fn bind(binder: &Binder<'_>, config: &Config, own: &MlaConfig, i: usize) -> Result<Self> {
        let (n_embd, n_heads) = (config.n_embd, own.attention.n_heads);
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let norm = |suffix, n| binder.norm_of(&name(suffix), n, NormKind::Rms, config.norm_eps);
        let queries = match own.q_rank {
            None => Queries::Whole(binder.linear(&name("attn_q"), own.width_q(), n_embd)?),
            Some(rank) => Queries::Narrow {
                a: binder.linear(&name("attn_q_a"), rank, n_embd)?,
                norm: norm("attn_q_a_norm", rank)?,
                b: binder.linear(&name("attn_q_b"), own.width_q(), rank)?,
            },
        };
        let heads = |suffix, n, k| HeadMatrices::bind(binder, &name(suffix), (n_heads, n, k));
        let form = match own.absorbed {
            true => Form::Absorbed {
                k_b: heads("attn_k_b", own.kv_rank, own.plain)?,
                v_b: heads("attn_v_b", own.value, own.kv_rank)?,
            },
            false => Form::Expanded {
                kv_b: binder.linear(&name("attn_kv_b"), own.width_expanded(), own.kv_rank)?,
            },
        };
        Ok(Mla {
            config: own.clone(),
            queries,
            kv_a: binder.linear(&name("attn_kv_a_mqa"), own.latent(), n_embd)?,
            kv_norm: norm("attn_kv_a_norm", own.kv_rank)?,
            form,
            output: binder.linear(&name("attn_output"), n_embd, own.width_values())?,
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        let mut linears = match &self.queries {
            Queries::Whole(q) => vec![q],
            Queries::Narrow { a, b, .. } => vec![a, b],
        };
        linears.push(&self.kv_a);
        match &self.form {
            Form::Absorbed { k_b, v_b } => linears.extend([k_b.whole(), v_b.whole()]),
            Form::Expanded { kv_b } => linears.push(kv_b),
        }
        linears.push(&self.output);
        linears
    }

    /// `out` = what it makes of some rows of the pass; keys and values of all of them go to the cache.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        rows: Range<usize>,
        out: &mut [f32],
        buffers: &mut MlaBuffers,
        cache: &mut KvCache,
    ) -> Result<()> {
        let (config, m) = (&self.config, run.pass.rows.len());
        self.project(run, x, rows.clone(), buffers)?;
        let latent = &buffers.latent[..m * config.latent()];
        let compressed = &mut buffers.compressed[..m * config.kv_rank];
        for (out, latent) in compressed
            .chunks_exact_mut(config.kv_rank)
            .zip(latent.chunks_exact(config.latent()))
        {
            out.copy_from_slice(&latent[..config.kv_rank]);
        }
        let (k, v) = match &self.form {
            Form::Absorbed { .. } => (latent, &*compressed),
            Form::Expanded { kv_b } => {
                let expanded = &mut buffers.expanded[..m * config.width_expanded()];
                run.products("attn_kv_b", compressed, &mut [product(kv_b, &mut *expanded)])?;
                run.look("kv_b", config.width_expanded(), expanded);
                let k = &mut buffers.k[..m * config.width_q()];
                let v = &mut buffers.v[..m * config.width_values()];
                self.spread(run, latent, expanded, (&mut *k, &mut *v))?;
                (&*k, &*v)
            }
        };
        self.attend(run, rows.clone()).store(cache, k, v)?;
        if rows.is_empty() {
            return Ok(());
        }

        let q = &buffers.q[..rows.len() * config.width_q()];
        let values = &mut buffers.values[..rows.len() * config.width_values()];
        let parts = q
            .chunks(ROWS * config.width_q())
            .zip(values.chunks_mut(ROWS * config.width_values()));
        let mut first = rows.start;
        for (q, values) in parts {
            let part = first..first + q.len() / config.width_q();
            first = part.end;
            let Form::Absorbed { k_b, v_b } = &self.form else {
                self.attend(run, part)
                    .attend(cache, q, values, &mut buffers.attend)?;
                continue;
            };
            let (n_heads, key) = (config.attention.n_heads, config.key());
            let wide = &mut buffers.wide[..part.len() * n_heads * config.latent()];
            let attended = &mut buffers.attended[..part.len() * n_heads * config.kv_rank];
            let heads = &mut buffers.heads;
            heads.multiply(run, "attn_k_b", k_b, (q, key), (&mut *wide, config.latent()))?;
            for (wide, q) in wide.chunks_exact_mut(config.latent()).zip(q.chunks_exact(key)) {
                wide[config.kv_rank..].copy_from_slice(&q[config.plain..]);
            }
            self.attend(run, part)
                .attend(cache, wide, attended, &mut buffers.attend)?;
            heads.multiply(
                run,
                "attn_v_b",
                v_b,
                (attended, config.kv_rank),
                (values, config.value),
            )?;
        }
        run.look("attention", config.width_values(), values);
        run.products("attn_output", values, &mut [product(&self.output, &mut *out)])?;
        run.look("attn_output", run.config.n_embd, out);
        Ok(())
    }

    fn attend<'a, P: Probe>(&'a self, run: &'a Run<'_, P>, rows: Range<usize>) -> Attend<'a> {
        Attend {
            ops: &run.ops,
            pass: run.pass,
            rows: &run.pass.rows[rows],
            config: &self.config.attention,
            sinks: None,
        }
    }

    /// Queries of some rows, rotated, and latent vectors of all rows, normed and rotated.
    fn project<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        rows: Range<usize>,
        buffers: &mut MlaBuffers,
    ) -> Result<()> {
        let (config, m) = (&self.config, run.pass.rows.len());
        let (width_q, width) = (config.width_q(), config.latent());
        let q = &mut buffers.q[..rows.len() * width_q];
        let kv = &mut buffers.kv[..m * width];
        let narrow = &mut buffers.narrow[..rows.len() * config.q_rank.unwrap_or(0)];
        let (first, made) = match &self.queries {
            Queries::Whole(whole) => (whole, &mut *q),
            Queries::Narrow { a, .. } => (a, &mut *narrow),
        };
        let products = &mut [
            product(&self.kv_a, &mut *kv),
            product_from(first, rows.start, made),
        ];
        let asked = 1 + usize::from(!rows.is_empty());
        run.products("attn_q_kv_a", x, &mut products[..asked])?;
        run.look("kv_a", width, kv);
        if let (Queries::Narrow { norm, b, .. }, false) = (&self.queries, rows.is_empty()) {
            let normed = &mut buffers.narrow_normed[..narrow.len()];
            run.norm("q_a_norm", narrow, norm, normed)?;
            run.products("attn_q_b", normed, &mut [product(b, &mut *q)])?;
        }
        run.look("q", width_q, q);

        let (ops, pass) = (&run.ops, run.pass);
        let rope = config
            .attention
            .rope
            .map(|rope| (&run.config.ropes[rope], &run.angles[rope]));
        let rotate = |part: &mut [f32], row: usize| {
            if let Some((rope, (cos, sin))) = rope {
                let half = rope.n_rot() / 2;
                let angles = row * half..(row + 1) * half;
                ops.backend
                    .rotate(rope.kind(), part, &cos[angles.clone()], &sin[angles]);
            }
        };
        let kv = &*kv;
        let latent = &mut buffers.latent[..m * width];
        ops.team.rows(latent, width, ops.grain(width), |range, latent| {
            for (row, latent) in range.zip(latent.chunks_exact_mut(width)) {
                let (kv, kv_rotated) = kv[row * width..(row + 1) * width].split_at(config.kv_rank);
                let (compressed, rotated) = latent.split_at_mut(config.kv_rank);
                self.kv_norm.rows(ops, kv, compressed);
                rotated.copy_from_slice(kv_rotated);
                rotate(rotated, row);
            }
        })?;
        ops.team.rows(q, width_q, ops.grain(width_q), |range, q| {
            for (row, q) in range.zip(q.chunks_exact_mut(width_q)) {
                let row = rows.start + row;
                for head in q.chunks_exact_mut(config.key()) {
                    rotate(&mut head[config.plain..], row);
                }
                if let Some(temperature) = config.attention.temperature {
                    let factor = temperature.factor(pass.rows[row].position);
                    q.iter_mut().for_each(|q| *q *= factor);
                }
            }
        })?;
        run.look("latent", width, latent);
        run.look("q_rope", width_q, q);
        Ok(())
    }

    /// Keys and values of all heads, from what a product made of the latent vectors and from their rotated part.
    fn spread<P: Probe>(
        &self,
        run: &Run<'_, P>,
        latent: &[f32],
        expanded: &[f32],
        (k, v): (&mut [f32], &mut [f32]),
    ) -> Result<()> {
        let (ops, config) = (&run.ops, &self.config);
        let (n_heads, key, value) = (config.attention.n_heads, config.key(), config.value);
        let made = |head: usize| {
            let width = config.plain + value;
            expanded[head * width..(head + 1) * width].split_at(config.plain)
        };
        ops.team.rows(k, key, ops.grain(key), |heads, k| {
            for (head, k) in heads.zip(k.chunks_exact_mut(key)) {
                let end = (head / n_heads + 1) * config.latent();
                let (plain, rotated) = k.split_at_mut(config.plain);
                plain.copy_from_slice(made(head).0);
                rotated.copy_from_slice(&latent[end - config.rotated..end]);
            }
        })?;
        ops.team.rows(v, value, ops.grain(value), |heads, v| {
            for (head, v) in heads.zip(v.chunks_exact_mut(value)) {
                v.copy_from_slice(made(head).1);
            }
        })
    }
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct MlaBuffers {
    /// What queries are made of where that is a narrower row, and the same normed.
    narrow: Vec<f32>,
    narrow_normed: Vec<f32>,
    q: Vec<f32>,
    /// Latent vectors as the product makes them, and the same normed and rotated.
    kv: Vec<f32>,
    latent: Vec<f32>,
    /// Latent vectors without their rotated part.
    compressed: Vec<f32>,
    /// Heads' keys and values as the product makes them, and the same apart.
    expanded: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Queries over latent vectors, and what comes of them.
    wide: Vec<f32>,
    attended: Vec<f32>,
    heads: HeadBuffers,
    /// What comes of the heads, side by side.
    values: Vec<f32>,
    attend: AttendBuffers,
}

impl MlaBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a MlaConfig> + Clone,
        sizes: &Sizes,
        workers: usize,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let m = sizes.n_batch;
        let widest = |f: &dyn Fn(&MlaConfig) -> usize| layers.clone().map(f).max().unwrap_or(0);
        let of = |absorbed: bool, f: &dyn Fn(&MlaConfig) -> usize| {
            let layers = layers.clone().filter(|layer| layer.absorbed == absorbed);
            layers.map(f).max().unwrap_or(0)
        };
        let n_heads = |layer: &MlaConfig| layer.attention.n_heads;
        let narrow = widest(&|layer| layer.q_rank.unwrap_or(0));
        let latent = widest(&|layer| layer.latent());
        let few = m.min(ROWS);
        // Without a layer there is nothing to attend to, and no room for it.
        let attended = Sizes {
            n_batch: if latent == 0 { 0 } else { few },
            ..*sizes
        };
        let attention = layers.clone().map(|layer| &layer.attention);
        Ok(MlaBuffers {
            narrow: buffers.outputs("narrow rows for queries", m, narrow)?,
            narrow_normed: buffers.outputs("narrow rows for queries", m, narrow)?,
            q: buffers.outputs("queries", m, widest(&|layer| layer.width_q()))?,
            kv: buffers.outputs("latent vectors", m, latent)?,
            latent: buffers.outputs("latent vectors", m, latent)?,
            compressed: buffers.outputs("latent vectors", m, widest(&|layer| layer.kv_rank))?,
            expanded: buffers.outputs(
                "keys and values of latent vectors",
                m,
                of(false, &|layer| layer.width_expanded()),
            )?,
            k: buffers.outputs("keys of a pass", m, of(false, &|layer| layer.width_q()))?,
            v: buffers.outputs("values of a pass", m, of(false, &|layer| layer.width_values()))?,
            wide: buffers.outputs(
                "queries over latent vectors",
                few,
                of(true, &|layer| n_heads(layer) * layer.latent()),
            )?,
            attended: buffers.outputs(
                "attention over latent vectors",
                few,
                of(true, &|layer| n_heads(layer) * layer.kv_rank),
            )?,
            heads: HeadBuffers::make(
                of(true, &n_heads),
                (
                    of(true, &|layer| layer.head_rows(m) * layer.plain.max(layer.kv_rank)),
                    of(true, &|layer| layer.head_rows(m) * layer.value.max(layer.kv_rank)),
                ),
                buffers,
            )?,
            values: buffers.outputs("attention's output", m, widest(&|layer| layer.width_values()))?,
            attend: AttendBuffers::make(attention, &attended, workers, buffers)?,
        })
    }
}
