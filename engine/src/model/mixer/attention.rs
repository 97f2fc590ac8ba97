//! Softmax attention with grouped key and value heads: queries, keys and values from one norm, heads normed where the family
//! does, rotated, and all that a position sees weighed by the softmax of its scores.

use std::ops::Range;

use super::attend::{Attend, AttendBuffers};
use crate::Result;
use crate::cache::{CacheKind, KvCache, KvShape, Sizes};
use crate::kernels::MAX_HEAD_DIM;
use crate::memory::Buffers;
use crate::model::config::{Config, Keys, MAX_WIDTH};
use crate::model::norm::{Norm, NormKind};
use crate::model::ops::Run;
use crate::model::probe::Probe;
use crate::model::product::{product, product_from};
use crate::model::weights::{Binder, Linear};

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
}

/// What a position sees of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Itself and the `n - 1` before it.
    Sliding(usize),
    /// Itself and `n / 2` on either side.
    Symmetric(usize),
}

impl Window {
    /// Positions that one sees at most, itself included.
    pub fn reach(self) -> usize {
        match self {
            Window::Sliding(n) => n,
            Window::Symmetric(n) => n / 2 * 2 + 1,
        }
    }
}

/// How queries and keys are normed, with `attn_q_norm` and `attn_k_norm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Not at all.
    None,
    /// Each head by itself, before it is rotated.
    Heads,
    /// All heads of a row as one, by a layer norm, before they are rotated.
    LayerOfRow,
}

impl AttentionConfig {
    /// Every layer's, as the keys that all families share state it; a family's file then changes what differs.
    pub(crate) fn read(keys: &Keys<'_>, config: &Config) -> Result<Vec<Self>> {
        const HEADS: &str = "attention.head_count";
        const KV_HEADS: &str = "attention.head_count_kv";
        let n_embd = config.n_embd;
        let heads = keys.per_layer(HEADS)?.ok_or_else(|| keys.missing(HEADS))?;
        let kv_heads = keys.per_layer(KV_HEADS)?.unwrap_or_else(|| heads.clone());
        let head_dim = |key| {
            let dim = match keys.opt_u32(key)? {
                Some(dim) => {
                    keys.in_range(key, dim as usize, MAX_HEAD_DIM)?;
                    dim as usize
                }
                None if n_embd.is_multiple_of(heads[0]) => n_embd / heads[0],
                None => {
                    let expected = format!("a divisor of embedding_length, {n_embd}");
                    return Err(keys.wrong(HEADS, &expected, &heads[0].to_string()));
                }
            };
            if dim > MAX_HEAD_DIM {
                let expected = format!("enough heads that a head is at most {MAX_HEAD_DIM} wide");
                let found = format!("{} heads for a width of {n_embd}", heads[0]);
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
            keys.in_range(HEADS, n_heads, MAX_WIDTH as usize / head_dim_k)?;
            keys.in_range(KV_HEADS, n_kv_heads, n_heads)?;
            if !n_heads.is_multiple_of(n_kv_heads) {
                let found = format!("{n_kv_heads} of {n_heads} heads in layer {i}");
                return Err(keys.wrong(KV_HEADS, "a divisor of attention.head_count", &found));
            }
            Ok(AttentionConfig {
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
            })
        };
        heads.iter().zip(&kv_heads).enumerate().map(layer).collect()
    }

    pub(super) fn cache_kind(&self) -> CacheKind {
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

    /// Widths of q, k and v.
    fn widths(&self) -> [usize; 3] {
        [
            self.n_heads * self.head_dim_k,
            self.n_kv_heads * self.head_dim_k,
            self.n_kv_heads * self.head_dim_v,
        ]
    }
}

/// Its weights.
#[derive(Debug)]
pub(crate) struct Attention {
    config: AttentionConfig,
    q: Linear,
    k: Linear,
    v: Linear,
    qk_norm: Option<[Vec<f32>; 2]>,
    /// Of all heads of a row.
    row_norm: Option<[Norm; 2]>,
    output: Linear,
}

impl Attention {
    /// q, k and v are tensors of their own, or one.
    pub(super) fn bind(
        binder: &Binder<'_>,
        config: &Config,
        own: &AttentionConfig,
        i: usize,
    ) -> Result<Self> {
        let n_embd = config.n_embd;
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let widths = own.widths();
        const PARTS: [&str; 3] = ["attn_q", "attn_k", "attn_v"];
        let [q, k, v] = if binder.has(&name("attn_qkv.weight")) {
            let mut parts = binder.fused(&name("attn_qkv"), widths, n_embd)?;
            // The biases may be fused as well, or stand by themselves.
            for (part, suffix) in parts.iter_mut().zip(PARTS) {
                if let Some(bias) = binder.bias(&name(suffix), part.weight.n())? {
                    part.bias = Some(bias);
                }
            }
            parts
        } else if !binder.has(&name("attn_q.weight")) {
            return Err(binder.neither(&name("attn_q.weight"), &name("attn_qkv.weight")));
        } else {
            let [q, k, v] = widths;
            [
                binder.linear(&name("attn_q"), q, n_embd)?,
                binder.linear(&name("attn_k"), k, n_embd)?,
                binder.linear(&name("attn_v"), v, n_embd)?,
            ]
        };
        let norm = |suffix: &str| binder.vector(&name(suffix), own.head_dim_k);
        let qk_norm = match own.qk_norm {
            QkNorm::None | QkNorm::LayerOfRow => None,
            QkNorm::Heads => Some([norm("attn_q_norm.weight")?, norm("attn_k_norm.weight")?]),
        };
        let row_norm =
            |suffix: &str, width| binder.norm_of(&name(suffix), width, NormKind::Layer, config.norm_eps);
        let row_norm = match own.qk_norm {
            QkNorm::LayerOfRow => Some([
                row_norm("attn_q_norm", widths[0])?,
                row_norm("attn_k_norm", widths[1])?,
            ]),
            QkNorm::None | QkNorm::Heads => None,
        };
        Ok(Attention {
            config: own.clone(),
            q,
            k,
            v,
            qk_norm,
            row_norm,
            output: binder.linear(&name("attn_output"), n_embd, own.inner_width())?,
        })
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        vec![&self.q, &self.k, &self.v, &self.output]
    }

    /// `out` = Wo attention(x) of some rows of the pass; keys and values of all of them go to the cache.
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
        let q = &mut buffers.q[..rows.len() * width_q];
        let k = &mut buffers.k[..m * width_k];
        let v = &mut buffers.v[..m * width_v];
        let products = &mut [
            product_from(&self.q, rows.start, &mut *q),
            product(&self.k, &mut *k),
            product(&self.v, &mut *v),
        ];
        run.products("attn_qkv", x, &mut products[usize::from(rows.is_empty())..])?;
        run.look("q", width_q, q);
        run.look("k", width_k, k);
        run.look("v", width_v, v);
        if let Some([q_norm, k_norm]) = &self.row_norm {
            q_norm.apply_in_place(&run.ops, q, &mut buffers.normed)?;
            k_norm.apply_in_place(&run.ops, k, &mut buffers.normed)?;
        }
        let (q_norm, k_norm) = match &self.qk_norm {
            Some([q, k]) => (Some(&**q), Some(&**k)),
            None => (None, None),
        };
        self.place(run, q, (config.n_heads, rows.start), q_norm)?;
        self.place(run, k, (config.n_kv_heads, 0), k_norm)?;
        run.look("q_rope", width_q, q);
        run.look("k_rope", width_k, k);

        let attend = Attend {
            ops: &run.ops,
            pass: run.pass,
            rows: &run.pass.rows[rows.clone()],
            config,
        };
        attend.store(cache, k, v)?;
        if rows.is_empty() {
            return Ok(());
        }
        let attended = &mut buffers.attended[..rows.len() * config.inner_width()];
        attend.attend(cache, q, attended, &mut buffers.attend)?;
        run.look("attention", config.inner_width(), attended);
        run.products("attn_output", attended, &mut [product(&self.output, &mut *out)])?;
        run.look("attn_output", run.config.n_embd, out);
        Ok(())
    }

    /// Norms heads where there is a weight for it, and rotates them to their positions: `n_heads` of each row, from row `first`.
    fn place<P: Probe>(
        &self,
        run: &Run<'_, P>,
        heads: &mut [f32],
        (n_heads, first): (usize, usize),
        norm: Option<&[f32]>,
    ) -> Result<()> {
        let (ops, dim) = (&run.ops, self.config.head_dim_k);
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
            let mut normed = [0.0f32; MAX_HEAD_DIM];
            for (index, head) in range.zip(part.chunks_exact_mut(dim)) {
                if let Some(weight) = norm {
                    ops.backend
                        .rms_norm(head, weight, run.config.norm_eps, &mut normed[..dim]);
                    head.copy_from_slice(&normed[..dim]);
                }
                if let Some((kind, half, cos, sin)) = rotation {
                    let row = first + index / n_heads;
                    let angles = row * half..(row + 1) * half;
                    ops.backend.rotate(kind, head, &cos[angles.clone()], &sin[angles]);
                }
            }
        })
    }
}

/// What it computes in.
#[derive(Debug)]
pub(super) struct AttentionBuffers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Rows of heads that are normed as one.
    normed: Vec<f32>,
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
            normed: buffers.outputs(
                "normed heads",
                m,
                widest(&|layer| match layer.qk_norm {
                    QkNorm::LayerOfRow => layer.widths()[0],
                    QkNorm::None | QkNorm::Heads => 0,
                }),
            )?,
            attended: buffers.outputs("attention's output", m, widest(&|layer| layer.inner_width()))?,
            attend: AttendBuffers::make(layers, sizes, workers, buffers)?,
        })
    }
}
