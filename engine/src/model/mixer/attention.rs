//! Softmax attention with grouped key and value heads: queries, keys and values from one norm, heads normed where the
//! family does, rotated, and all that a position sees weighed by the softmax of its scores. Some families gate what
//! comes of it, or have a sink in each head that takes a part of the weights.

use std::ops::{Range, RangeInclusive};

use super::attend::{Attend, AttendBuffers};
use super::temperature::Temperature;
use crate::cache::{CacheKind, KvCache, KvShape, Sizes};
use crate::kernels::{Activation, MAX_HEAD_DIM};
use crate::memory::Buffers;
use crate::model::config::{Config, Keys, MAX_WIDTH};
use crate::model::norm::{Norm, NormKind};
use crate::model::ops::{Ops, Run};
use crate::model::probe::Probe;
use crate::model::product::{product, product_from};
use crate::model::weights::{Binder, Linear};
use crate::{Error, Result};

const HEADS: &str = "attention.head_count";
const KV_HEADS: &str = "attention.head_count_kv";

/// One layer's attention, in numbers.
#[derive(Debug, Clone)]
pub struct AttentionConfig {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a key and query head.
    pub head_dim_k: usize,
    /// Width of a value head.
    pub head_dim_v: usize,
    /// Whether a position sees those before it alone, and not those behind it.
    pub causal: bool,
    /// What a position sees of the others that it may see; `None` for all.
    pub window: Option<Window>,
    /// Index into [`Config::ropes`]; `None` where nothing is rotated.
    pub rope: Option<usize>,
    /// Factor of a score.
    pub scale: f32,
    /// Soft cap of a score.
    pub softcap: Option<f32>,
    /// Per query head what each position of distance takes off a score (ALiBi); empty where distance does nothing.
    pub slopes: Vec<f32>,
    /// How q and k are normed.
    pub qk_norm: QkNorm,
    /// Factor of queries by position.
    pub temperature: Option<Temperature>,
    /// Whether `attn_q` has a gate of each head behind its query: what comes of the head is multiplied with its
    /// sigmoid.
    pub gate: bool,
    /// Whether a number per head, `attn_sinks`, takes part in the softmax as one more score, of a value of zero.
    pub sinks: bool,
    /// Whether `attn_output.bias` counts where the file has it.
    pub output_bias: bool,
    /// Whether each value head is normed by itself, without weights.
    pub value_norm: bool,
    /// Whether values are made by the keys' matrix where the file has no `attn_v`: the keys before they are normed.
    pub keys_as_values: bool,
    /// The layer before it whose keys and values it reads; `None` where it makes its own.
    pub shares: Option<usize>,
}

/// What a position sees of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Itself and the `n - 1` before it.
    Sliding(usize),
    /// Itself and `n / 2` on either side.
    Symmetric(usize),
    /// Itself and those before it in its own block of `n`; blocks begin at multiples of `n`.
    Chunk(usize),
}

impl Window {
    /// Positions that one sees at most, itself included.
    pub fn reach(self) -> usize {
        match self {
            Window::Sliding(n) | Window::Chunk(n) => n,
            Window::Symmetric(n) => n / 2 * 2 + 1,
        }
    }

    /// The first position that one sees.
    pub fn first(self, position: usize) -> usize {
        match self {
            Window::Sliding(n) => (position + 1).saturating_sub(n),
            Window::Symmetric(n) => position.saturating_sub(n / 2),
            Window::Chunk(n) => position / n.max(1) * n.max(1),
        }
    }
}

/// How queries and keys are normed, with `attn_q_norm` and `attn_k_norm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Not at all.
    None,
    /// RMS norm of each head by itself, all with the same weights, before it is rotated.
    Heads,
    /// All heads of a row as one, by a layer norm, before they are rotated.
    LayerOfRow,
    /// Layer norm of each head by itself, each with its own weights and no bias, before it is rotated.
    LayerHeads,
    /// One RMS norm over all heads of q and one over all of k, before they are rotated.
    Whole,
    /// RMS norm of each head by itself, without weights, after it is rotated.
    AfterRotation,
}

impl QkNorm {
    /// Whether all heads of a row are normed as one.
    fn is_of_rows(self) -> bool {
        matches!(self, QkNorm::Whole | QkNorm::LayerOfRow)
    }
}

impl AttentionConfig {
    /// Every layer's, as the keys that all families share state it; a family's file then changes what differs.
    pub(crate) fn read(keys: &Keys<'_>, config: &Config) -> Result<Vec<Self>> {
        let heads = keys.per_layer(HEADS)?.ok_or_else(|| keys.missing(HEADS))?;
        let kv_heads = keys.per_layer(KV_HEADS)?.unwrap_or_else(|| heads.clone());
        let layers = Self::of_heads(keys, config, &heads, &kv_heads)?;
        Ok(layers.into_iter().flatten().collect())
    }

    /// As [`Self::read`], where layers that have no key and value heads have something else than attention.
    pub(crate) fn read_some(keys: &Keys<'_>, config: &Config) -> Result<Vec<Option<Self>>> {
        let heads = keys.per_layer_or_none(HEADS)?;
        let heads = heads.ok_or_else(|| keys.missing(HEADS))?;
        let kv_heads = keys.per_layer_or_none(KV_HEADS)?;
        Self::of_heads(keys, config, &heads, &kv_heads.unwrap_or_else(|| heads.clone()))
    }

    /// Those of layers with so many heads of both kinds; none where there are 0 for keys and values.
    fn of_heads(
        keys: &Keys<'_>,
        config: &Config,
        heads: &[usize],
        kv_heads: &[usize],
    ) -> Result<Vec<Option<Self>>> {
        let n_embd = config.n_embd;
        let both = || heads.iter().zip(kv_heads);
        let Some((&first, _)) = both().find(|(_, kv_heads)| **kv_heads > 0) else {
            return Ok(vec![None; heads.len()]);
        };
        keys.in_range(HEADS, first, MAX_WIDTH as usize)?;
        let head_dim = |key| {
            let dim = match keys.opt_u32(key)? {
                Some(dim) => {
                    keys.in_range(key, dim as usize, MAX_HEAD_DIM)?;
                    dim as usize
                }
                None if n_embd.is_multiple_of(first) => n_embd / first,
                None => {
                    let expected = format!("a divisor of embedding_length, {n_embd}");
                    return Err(keys.wrong(HEADS, &expected, &first.to_string()));
                }
            };
            if dim > MAX_HEAD_DIM {
                let expected = format!("enough heads that a head is at most {MAX_HEAD_DIM} wide");
                let found = format!("{first} heads for a width of {n_embd}");
                return Err(keys.wrong(HEADS, &expected, &found));
            }
            Ok(dim)
        };
        let (head_dim_k, head_dim_v) = (
            head_dim("attention.key_length")?,
            head_dim("attention.value_length")?,
        );
        let causal = keys.opt_bool("attention.causal")?.unwrap_or(true);
        let layer = |(i, (&n_heads, &n_kv_heads)): (usize, (&usize, &usize))| {
            if n_kv_heads == 0 {
                return Ok(None);
            }
            keys.in_range(HEADS, n_heads, MAX_WIDTH as usize / head_dim_k)?;
            keys.in_range(KV_HEADS, n_kv_heads, n_heads)?;
            if !n_heads.is_multiple_of(n_kv_heads) {
                let found = format!("{n_kv_heads} of {n_heads} heads in layer {i}");
                return Err(keys.wrong(KV_HEADS, "a divisor of attention.head_count", &found));
            }
            Ok(Some(AttentionConfig {
                n_heads,
                n_kv_heads,
                head_dim_k,
                head_dim_v,
                causal,
                window: None,
                rope: Some(0),
                scale: 1.0 / (head_dim_k as f32).sqrt(),
                softcap: None,
                slopes: Vec::new(),
                qk_norm: QkNorm::None,
                temperature: None,
                gate: false,
                sinks: false,
                output_bias: true,
                value_norm: false,
                keys_as_values: false,
                shares: None,
            }))
        };
        both().enumerate().map(layer).collect()
    }

    /// q, k and v; attention; its output.
    pub(super) const OPERATIONS: usize = 3;

    /// Of scores and of the values that they weigh.
    pub(super) fn multiplications(&self, depth: f64) -> f64 {
        let seen = match self.window {
            Some(window) if (window.reach() as f64) < depth => window.reach() as f64,
            _ => depth,
        };
        (self.n_heads * (self.head_dim_k + self.head_dim_v)) as f64 * seen
    }

    pub(super) fn cache_kind(&self) -> CacheKind {
        if let Some(layer) = self.shares {
            return CacheKind::SharedWith(layer);
        }
        let shape = KvShape {
            n_heads: self.n_kv_heads,
            dim_k: self.head_dim_k,
            dim_v: self.head_dim_v,
            window: self.window.filter(|_| self.causal).map(Window::reach),
        };
        if self.causal {
            CacheKind::Kv(shape)
        } else {
            CacheKind::Pass(shape)
        }
    }

    pub(super) fn inner_width(&self) -> usize {
        self.n_heads * self.head_dim_v
    }

    /// Query heads of a key and value head.
    pub(super) fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Query heads that attention takes together: those of a kv head. Where there is but one for many, which would
    /// leave all work to one worker, some of them.
    pub(super) fn together(&self) -> usize {
        const FEW: RangeInclusive<usize> = 4..=8;
        let group = self.group();
        let few = FEW.rev().find(|n| group.is_multiple_of(*n));
        match self.n_kv_heads {
            1 if group > *FEW.end() => few.unwrap_or(group),
            _ => group,
        }
    }

    /// Into how many sets [`Self::together`] divides the query heads.
    pub(super) fn sets(&self) -> usize {
        self.n_heads / self.together()
    }

    /// Widths of q, k and v.
    fn widths(&self) -> [usize; 3] {
        [
            self.n_heads * self.head_dim_k,
            self.n_kv_heads * self.head_dim_k,
            self.n_kv_heads * self.head_dim_v,
        ]
    }

    /// Width of the gates of all heads.
    fn width_gates(&self) -> usize {
        if self.gate { self.inner_width() } else { 0 }
    }

    /// Width of what is computed beside q and k: queries with their gates, or what a norm over all heads is given.
    fn width_raw(&self) -> usize {
        let [q, k, _] = self.widths();
        match (self.gate, self.qk_norm) {
            (true, _) => q + self.width_gates(),
            (false, QkNorm::Whole | QkNorm::LayerOfRow) => q.max(k),
            (false, _) => 0,
        }
    }
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct Attention {
    config: AttentionConfig,
    q: Linear,
    /// `None` where it reads another layer's keys and values.
    k: Option<Linear>,
    /// `None` there as well, and where the keys' matrix makes values too.
    v: Option<Linear>,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    v_norm: Option<Norm>,
    sinks: Option<Vec<f32>>,
    output: Linear,
}

impl Attention {
    /// q, k and v are tensors of their own, or one. Of a layer that reads another one's keys and values the file may
    /// have what would make them, which nobody computes with.
    pub(super) fn bind(
        binder: &Binder<'_>,
        config: &Config,
        own: &AttentionConfig,
        i: usize,
    ) -> Result<Self> {
        let n_embd = config.n_embd;
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let [q, k, v] = own.widths();
        let widths = [q + own.width_gates(), k, v];
        const PARTS: [&str; 3] = ["attn_q", "attn_k", "attn_v"];
        let shares = own.shares.is_some();
        let (q, k, v) = if shares {
            for tensor in ["attn_k.weight", "attn_v.weight", "attn_k_norm.weight"] {
                binder.pass_over(&name(tensor));
            }
            (binder.linear(&name("attn_q"), widths[0], n_embd)?, None, None)
        } else if binder.has(&name("attn_qkv.weight")) {
            let mut parts = binder.fused(&name("attn_qkv"), widths, n_embd)?;
            // The biases may be fused as well, or all three stand by themselves.
            let apart = |suffix| binder.has(&name(&format!("{suffix}.bias")));
            if !binder.has(&name("attn_qkv.bias")) && PARTS.into_iter().all(apart) {
                for (part, suffix) in parts.iter_mut().zip(PARTS) {
                    part.bias = binder.bias(&name(suffix), part.weight.n())?;
                }
            }
            let [q, k, v] = parts;
            (q, Some(k), Some(v))
        } else if !binder.has(&name("attn_q.weight")) {
            return Err(binder.neither(&name("attn_q.weight"), &name("attn_qkv.weight")));
        } else {
            let [q, k, v] = widths;
            let by_keys = own.keys_as_values && k == v && !binder.has(&name("attn_v.weight"));
            (
                binder.linear(&name("attn_q"), q, n_embd)?,
                Some(binder.linear(&name("attn_k"), k, n_embd)?),
                match by_keys {
                    true => None,
                    false => Some(binder.linear(&name("attn_v"), v, n_embd)?),
                },
            )
        };
        let norm = |suffix: &str, n_heads| qk_norm(binder, config, own, &name(suffix), n_heads);
        let output = name("attn_output");
        Ok(Attention {
            config: own.clone(),
            q,
            k,
            v,
            q_norm: norm("attn_q_norm", own.n_heads)?,
            k_norm: match shares {
                true => None,
                false => norm("attn_k_norm", own.n_kv_heads)?,
            },
            v_norm: own.value_norm.then(|| ones(own.head_dim_v, config.norm_eps)),
            sinks: own
                .sinks
                .then(|| sinks(binder, &name("attn_sinks.weight"), own.n_heads))
                .transpose()?,
            output: match own.output_bias {
                true => binder.linear(&output, n_embd, own.inner_width())?,
                false => binder.linear_without_bias(&output, n_embd, own.inner_width())?,
            },
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        let own = [&self.k, &self.v].into_iter().flatten();
        let all = std::iter::once(&self.q).chain(own);
        all.chain([&self.output]).collect()
    }

    /// `out` = Wo attention(x) of some rows of the pass; keys and values of all of them go to the cache. Where that is
    /// another layer's, `x` is these rows alone.
    pub(super) fn forward<P: Probe>(
        &self,
        run: &mut Run<'_, P>,
        x: &[f32],
        rows: Range<usize>,
        out: &mut [f32],
        buffers: &mut AttentionBuffers,
        cache: &mut KvCache,
    ) -> Result<()> {
        let (config, m) = (&self.config, run.pass.rows.len());
        let [width_q, width_k, width_v] = config.widths();
        let (inner, gated) = (config.inner_width(), width_q + config.width_gates());
        let q = &mut buffers.q[..rows.len() * width_q];
        // Rows that it makes keys and values of, and the first row of `x` that it makes queries of.
        let (m, first) = match self.config.shares {
            None => (m, rows.start),
            Some(_) => (0, 0),
        };
        let k = &mut buffers.k[..m * width_k];
        let v = &mut buffers.v[..m * width_v];
        let gates = &mut buffers.gates[..rows.len() * config.width_gates()];
        let raw = &mut buffers.raw[..];
        let made = match config.gate {
            true => &mut raw[..rows.len() * gated],
            false => &mut *q,
        };
        let (to_q, left_out) = (product_from(&self.q, first, made), usize::from(rows.is_empty()));
        match (&self.k, &self.v) {
            (Some(to_k), Some(to_v)) => {
                let products = &mut [to_q, product(to_k, &mut *k), product(to_v, &mut *v)];
                run.products("attn_qkv", x, &mut products[left_out..])?;
            }
            (Some(to_k), None) => {
                let products = &mut [to_q, product(to_k, &mut *k)];
                run.products("attn_qkv", x, &mut products[left_out..])?;
                v.copy_from_slice(k);
            }
            (None, _) => run.products("attn_qkv", x, &mut [to_q][left_out..])?,
        }
        if config.gate {
            let raw = &raw[..rows.len() * gated];
            self.pick(&run.ops, raw, (0, config.head_dim_k), q)?;
            self.pick(&run.ops, raw, (config.head_dim_k, config.head_dim_v), gates)?;
            run.look("attn_gate", inner, gates);
        }
        run.look("q", width_q, q);
        run.look("k", width_k, k);
        run.look("v", width_v, v);
        if config.qk_norm.is_of_rows() {
            for (norm, heads) in [(&self.q_norm, &mut *q), (&self.k_norm, &mut *k)] {
                if let Some(norm) = norm {
                    let raw = &mut raw[..heads.len()];
                    raw.copy_from_slice(heads);
                    norm.apply(&run.ops, raw, heads)?;
                }
            }
        }
        self.place(run, q, (config.n_heads, rows.start), self.q_norm.as_ref())?;
        self.place(run, k, (config.n_kv_heads, 0), self.k_norm.as_ref())?;
        if let Some(norm) = &self.v_norm {
            let (ops, dim) = (&run.ops, config.head_dim_v);
            ops.team.rows(v, dim, ops.grain(dim), |_, heads| {
                let mut scratch = [0.0f32; MAX_HEAD_DIM];
                heads
                    .chunks_exact_mut(dim)
                    .for_each(|head| norm_head(ops, norm, 0, head, &mut scratch[..dim]));
            })?;
            run.look("v_norm", width_v, v);
        }
        if let Some(temperature) = config.temperature {
            for (row, q) in run.pass.rows[rows.clone()]
                .iter()
                .zip(q.chunks_exact_mut(width_q))
            {
                let factor = temperature.factor(row.position);
                q.iter_mut().for_each(|q| *q *= factor);
            }
        }
        run.look("q_rope", width_q, q);
        run.look("k_rope", width_k, k);

        let attend = Attend {
            ops: &run.ops,
            pass: run.pass,
            rows: &run.pass.rows[rows.clone()],
            config,
            sinks: self.sinks.as_deref(),
        };
        if config.shares.is_none() {
            attend.store(cache, k, v)?;
        }
        if rows.is_empty() {
            return Ok(());
        }
        let attended = &mut buffers.attended[..rows.len() * inner];
        attend.attend(cache, q, attended, &mut buffers.attend)?;
        run.look("attention", inner, attended);
        let mut made = &*attended;
        if config.gate {
            let ops = &run.ops;
            ops.team.rows(gates, inner, ops.grain(inner), |rows, gates| {
                let attended = &made[rows.start * inner..rows.end * inner];
                ops.backend.gate(Activation::Sigmoid, gates, attended);
            })?;
            made = gates;
            run.look("gated_attention", inner, made);
        }
        run.products("attn_output", made, &mut [product(&self.output, &mut *out)])?;
        run.look("attn_output", run.config.n_embd, out);
        Ok(())
    }

    /// `out` = a part of each head of some rows of queries with their gates: so many numbers from one on.
    fn pick(&self, ops: &Ops<'_>, raw: &[f32], (first, len): (usize, usize), out: &mut [f32]) -> Result<()> {
        let (n_heads, head) = (
            self.config.n_heads,
            self.config.head_dim_k + self.config.head_dim_v,
        );
        let width = n_heads * len;
        ops.team.rows(out, width, ops.grain(width), |rows, out| {
            let raw = &raw[rows.start * n_heads * head..rows.end * n_heads * head];
            for (out, raw) in out.chunks_exact_mut(len).zip(raw.chunks_exact(head)) {
                out.copy_from_slice(&raw[first..first + len]);
            }
        })
    }

    /// Norms heads where that is done head by head, and rotates them to their positions: `n_heads` of each row, from
    /// row `first`.
    fn place<P: Probe>(
        &self,
        run: &Run<'_, P>,
        heads: &mut [f32],
        (n_heads, first): (usize, usize),
        norm: Option<&Norm>,
    ) -> Result<()> {
        let (ops, dim, kind) = (&run.ops, self.config.head_dim_k, self.config.qk_norm);
        let norm = norm.filter(|_| !kind.is_of_rows());
        let rotation = self.config.rope.map(|rope| {
            let (cos, sin) = &run.angles[rope];
            let rope = &run.config.ropes[rope];
            (rope.kind(), rope.n_rot() / 2, cos, sin)
        });
        if norm.is_none() && rotation.is_none() {
            return Ok(());
        }
        let grain = ops.grain(dim).next_multiple_of(n_heads);
        ops.team.rows(heads, dim, grain, |range, part| {
            let mut scratch = [0.0f32; MAX_HEAD_DIM];
            for (index, head) in range.zip(part.chunks_exact_mut(dim)) {
                let mut normed = |head: &mut [f32]| {
                    if let Some(norm) = norm {
                        norm_head(ops, norm, index % n_heads, head, &mut scratch[..dim]);
                    }
                };
                if kind != QkNorm::AfterRotation {
                    normed(head);
                }
                if let Some((kind, half, cos, sin)) = rotation {
                    let row = first + index / n_heads;
                    let angles = row * half..(row + 1) * half;
                    ops.backend.rotate(kind, head, &cos[angles.clone()], &sin[angles]);
                }
                if kind == QkNorm::AfterRotation {
                    normed(head);
                }
            }
        })
    }
}

/// The norm of q or of k, of so many heads.
fn qk_norm(
    binder: &Binder<'_>,
    config: &Config,
    own: &AttentionConfig,
    name: &str,
    n_heads: usize,
) -> Result<Option<Norm>> {
    let (dim, eps) = (own.head_dim_k, config.norm_eps);
    Ok(Some(match own.qk_norm {
        QkNorm::None => return Ok(None),
        QkNorm::Heads => binder.norm_of(name, dim, NormKind::Rms, eps)?,
        QkNorm::Whole => binder.norm_of(name, n_heads * dim, NormKind::Rms, eps)?,
        QkNorm::LayerOfRow => binder.norm_of(name, n_heads * dim, NormKind::Layer, eps)?,
        QkNorm::LayerHeads => Norm {
            kind: NormKind::Layer,
            weight: binder.vectors(&format!("{name}.weight"), n_heads, dim)?,
            bias: None,
            eps,
        },
        QkNorm::AfterRotation => ones(dim, eps),
    }))
}

/// A norm without weights of its own.
fn ones(dim: usize, eps: f32) -> Norm {
    Norm {
        kind: NormKind::Rms,
        weight: vec![1.0; dim],
        bias: None,
        eps,
    }
}

/// A head normed in place, by way of `normed`; the weights are those of any head, or of all heads side by side.
fn norm_head(ops: &Ops<'_>, norm: &Norm, index: usize, head: &mut [f32], normed: &mut [f32]) {
    let start = index * head.len() % norm.weight.len();
    let weight = &norm.weight[start..start + head.len()];
    match norm.kind {
        NormKind::Rms => ops.backend.rms_norm(head, weight, norm.eps, normed),
        NormKind::Layer => ops.backend.layer_norm(head, (weight, None), norm.eps, normed),
    }
    head.copy_from_slice(normed);
}

/// The sinks of all heads; zeros are +0.0, as the maximum of scores is.
fn sinks(binder: &Binder<'_>, name: &str, n_heads: usize) -> Result<Vec<f32>> {
    let mut sinks = binder.vector(name, n_heads)?;
    if let Some(sink) = sinks.iter().find(|sink| !sink.is_finite()) {
        return Err(Error::Tensor {
            tensor: name.into(),
            what: format!("expected finite numbers, found {sink}"),
        });
    }
    sinks.iter_mut().for_each(|sink| *sink += 0.0);
    Ok(sinks)
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct AttentionBuffers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Queries with their gates as the product makes them, or what a norm over all heads is given.
    raw: Vec<f32>,
    /// Gates of the heads, side by side.
    gates: Vec<f32>,
    /// Heads side by side.
    attended: Vec<f32>,
    attend: AttendBuffers,
}

impl AttentionBuffers {
    /// For any of these layers.
    pub(super) fn make<'a>(
        layers: impl Iterator<Item = &'a AttentionConfig> + Clone,
        sizes: &Sizes,
        workers: usize,
        buffers: &mut Buffers<'_>,
    ) -> Result<Self> {
        let m = sizes.n_batch;
        let widest = |f: &dyn Fn(&AttentionConfig) -> usize| layers.clone().map(f).max().unwrap_or(0);
        Ok(AttentionBuffers {
            q: buffers.outputs("queries", m, widest(&|layer| layer.widths()[0]))?,
            k: buffers.outputs("keys of a pass", m, widest(&|layer| layer.widths()[1]))?,
            v: buffers.outputs("values of a pass", m, widest(&|layer| layer.widths()[2]))?,
            raw: buffers.outputs(
                "queries before norm or gate",
                m,
                widest(&|layer| layer.width_raw()),
            )?,
            gates: buffers.rows("gates of attention", m, widest(&|layer| layer.width_gates()))?,
            attended: buffers.outputs("attention's output", m, widest(&|layer| layer.inner_width()))?,
            attend: AttendBuffers::make(layers, sizes, workers, buffers)?,
        })
    }
}
