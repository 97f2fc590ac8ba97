//! What the layers of a shape are made of: for each kind of part the tensors that a file has of it, with the names and
//! dimensions of GGUF (row length first). What a part computes stands in the engine's file of the same part.

use twinfer_engine::quant::GgmlType;

/// What a tensor is filled with: values that keep a model's numbers in the range of a trained model's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Fill {
    /// Normally distributed weights.
    Random,
    Ones,
    Zeros,
    /// Filters of short convolutions.
    Taps,
    /// Rates at which states decay, negative.
    Decay,
    /// Biases of the steps of time: inverses of the softplus of 0.001 to 0.1.
    TimeStep,
    /// Factors of a rotation: 1 for so many pairs, and for the others so much that they stand still.
    Turning(usize),
}

/// A tensor of a shape.
#[derive(Debug, Clone)]
pub(in super::super) struct Tensor {
    pub(in super::super) name: String,
    pub(in super::super) shape: Vec<usize>,
    pub(in super::super) fill: Fill,
    /// What files keep it as where a mix leaves it alone.
    pub(in super::super) kept_as: GgmlType,
}

impl Tensor {
    pub(super) fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            fill: Fill::Random,
            kept_as: GgmlType::F32,
        }
    }

    pub(super) fn filled(self, fill: Fill) -> Self {
        Tensor { fill, ..self }
    }

    pub(super) fn kept_as(self, kept_as: GgmlType) -> Self {
        Tensor { kept_as, ..self }
    }
}

/// A layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) mixer: Mixer,
    pub(super) ffn: Ffn,
    /// Norms over the residual stream, by name.
    pub(super) norms: &'static [&'static str],
    /// They are layer norms, which have a bias.
    pub(super) layer_norms: bool,
    /// Width of the per-layer embedding that is added behind the feed-forward part; 0 where there is none.
    pub(super) per_layer_input: usize,
    /// The layer's output is scaled by a number of its own.
    pub(super) output_scale: bool,
}

impl Layer {
    /// Of two parts with a norm before each.
    pub(super) fn new(mixer: Mixer, ffn: Ffn) -> Self {
        Layer {
            mixer,
            ffn,
            norms: &["attn_norm", "ffn_norm"],
            layer_norms: false,
            per_layer_input: 0,
            output_scale: false,
        }
    }

    pub(super) fn with_norms(self, norms: &'static [&'static str]) -> Self {
        Layer { norms, ..self }
    }

    /// Its tensors, without `blk.N.`.
    pub(super) fn tensors(&self, n_embd: usize) -> Vec<Tensor> {
        let mut out = Vec::new();
        for norm in self.norms {
            out.push(Tensor::new(format!("{norm}.weight"), &[n_embd]).filled(Fill::Ones));
            if self.layer_norms {
                out.push(Tensor::new(format!("{norm}.bias"), &[n_embd]).filled(Fill::Zeros));
            }
        }
        match &self.mixer {
            Mixer::Attention(part) => part.tensors(n_embd, &mut out),
            Mixer::Latent(part) => part.tensors(n_embd, &mut out),
            Mixer::DeltaNet(part) => part.tensors(n_embd, &mut out),
            Mixer::Mamba2(part) => part.tensors(n_embd, &mut out),
            Mixer::ShortConv { l_cache } => out.extend([
                Tensor::new("shortconv.in_proj.weight", &[n_embd, 3 * n_embd]),
                Tensor::new("shortconv.conv.weight", &[*l_cache, n_embd]).filled(Fill::Taps),
                Tensor::new("shortconv.out_proj.weight", &[n_embd, n_embd]),
            ]),
        }
        match &self.ffn {
            Ffn::Gated { n_ff } => gated("", *n_ff, n_embd, &mut out),
            Ffn::GatedInOne { n_ff } => out.extend([
                Tensor::new("ffn_up.weight", &[n_embd, 2 * n_ff]),
                Tensor::new("ffn_down.weight", &[*n_ff, n_embd]),
            ]),
            Ffn::Plain { n_ff } => {
                linear("ffn_up", n_embd, *n_ff, true, &mut out);
                linear("ffn_down", *n_ff, n_embd, true, &mut out);
            }
            Ffn::Experts(part) => part.tensors(n_embd, &mut out),
            Ffn::GatedAndExperts { n_ff, experts } => {
                gated("", *n_ff, n_embd, &mut out);
                experts.tensors(n_embd, &mut out);
                let norms = ["pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"];
                out.extend(
                    norms.map(|name| Tensor::new(format!("{name}.weight"), &[n_embd]).filled(Fill::Ones)),
                );
            }
        }
        if self.per_layer_input > 0 {
            out.extend([
                Tensor::new("inp_gate.weight", &[n_embd, self.per_layer_input]),
                Tensor::new("proj.weight", &[self.per_layer_input, n_embd]),
                Tensor::new("post_norm.weight", &[n_embd]).filled(Fill::Ones),
            ]);
        }
        if self.output_scale {
            out.push(Tensor::new("layer_output_scale.weight", &[1]).filled(Fill::Ones));
        }
        out
    }
}

/// What mixes positions.
#[derive(Debug, Clone)]
pub(super) enum Mixer {
    Attention(Attention),
    /// Attention over a latent (MLA, absorbed).
    Latent(Latent),
    DeltaNet(DeltaNet),
    Mamba2(Mamba2),
    ShortConv {
        /// Positions that the filter covers.
        l_cache: usize,
    },
}

/// What works on each position by itself.
#[derive(Debug, Clone)]
pub(super) enum Ffn {
    Gated {
        n_ff: usize,
    },
    /// The same with gate and up in one tensor.
    GatedInOne {
        n_ff: usize,
    },
    /// Up and down with biases.
    Plain {
        n_ff: usize,
    },
    Experts(Experts),
    /// A gated part, and experts beside it, each with norms of its own.
    GatedAndExperts {
        n_ff: usize,
        experts: Experts,
    },
}

impl Ffn {
    pub(super) fn experts(&self) -> Option<&Experts> {
        match self {
            Ffn::Experts(experts) | Ffn::GatedAndExperts { experts, .. } => Some(experts),
            Ffn::Gated { .. } | Ffn::GatedInOne { .. } | Ffn::Plain { .. } => None,
        }
    }
}

/// A matrix with its bias, if it has one.
fn linear(name: &str, k: usize, n: usize, bias: bool, out: &mut Vec<Tensor>) {
    out.push(Tensor::new(format!("{name}.weight"), &[k, n]));
    if bias {
        out.push(Tensor::new(format!("{name}.bias"), &[n]));
    }
}

/// Gate, up and down; `suffix` says whose they are.
fn gated(suffix: &str, n_ff: usize, n_embd: usize, out: &mut Vec<Tensor>) {
    linear(&format!("ffn_gate{suffix}"), n_embd, n_ff, false, out);
    linear(&format!("ffn_up{suffix}"), n_embd, n_ff, false, out);
    linear(&format!("ffn_down{suffix}"), n_ff, n_embd, false, out);
}

/// Which tensors queries, keys and values have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qkv {
    Apart,
    Fused,
    /// Values are the keys before their norm.
    NoValues,
    /// Keys and values are another layer's.
    QueriesOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    None,
    Qkv,
    All,
}

/// Attention with grouped heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) qkv: Qkv,
    pub(super) bias: Bias,
    /// Heads of queries and keys are normed.
    pub(super) qk_norm: bool,
    /// The queries' matrix has a gate of each head beside it.
    pub(super) gate: bool,
    /// A sink of each head.
    pub(super) sinks: bool,
}

impl Attention {
    pub(super) const fn new(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        Attention {
            n_heads,
            n_kv_heads,
            head_dim,
            qkv: Qkv::Apart,
            bias: Bias::None,
            qk_norm: false,
            gate: false,
            sinks: false,
        }
    }

    fn tensors(&self, n_embd: usize, out: &mut Vec<Tensor>) {
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let gated_q = if self.gate { 2 * q } else { q };
        let bias = self.bias != Bias::None;
        if self.qkv == Qkv::Fused {
            linear("attn_qkv", n_embd, gated_q + 2 * kv, bias, out);
        } else {
            linear("attn_q", n_embd, gated_q, bias, out);
        }
        if matches!(self.qkv, Qkv::Apart | Qkv::NoValues) {
            linear("attn_k", n_embd, kv, bias, out);
        }
        if self.qkv == Qkv::Apart {
            linear("attn_v", n_embd, kv, bias, out);
        }
        let mut norm =
            |name: &str| out.push(Tensor::new(format!("{name}.weight"), &[self.head_dim]).filled(Fill::Ones));
        if self.qk_norm {
            norm("attn_q_norm");
            if self.qkv != Qkv::QueriesOnly {
                norm("attn_k_norm");
            }
        }
        if self.sinks {
            out.push(Tensor::new("attn_sinks.weight", &[self.n_heads]));
        }
        linear("attn_output", q, n_embd, self.bias == Bias::All, out);
    }
}

/// Attention over a latent, with the up projections of keys and values taken into queries and outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latent {
    pub(super) n_heads: usize,
    pub(super) q_rank: usize,
    pub(super) kv_rank: usize,
    /// Width of a query head's part that is not rotated, and of the part that is.
    pub(super) dim_nope: usize,
    pub(super) dim_rope: usize,
    pub(super) dim_v: usize,
}

impl Latent {
    fn tensors(&self, n_embd: usize, out: &mut Vec<Tensor>) {
        let Latent {
            n_heads,
            q_rank,
            kv_rank,
            dim_nope,
            dim_rope,
            dim_v,
        } = *self;
        let norm = |name: &str, n| Tensor::new(name, &[n]).filled(Fill::Ones);
        out.extend([
            Tensor::new("attn_q_a.weight", &[n_embd, q_rank]),
            norm("attn_q_a_norm.weight", q_rank),
            Tensor::new("attn_q_b.weight", &[q_rank, n_heads * (dim_nope + dim_rope)]),
            Tensor::new("attn_kv_a_mqa.weight", &[n_embd, kv_rank + dim_rope]),
            norm("attn_kv_a_norm.weight", kv_rank),
            Tensor::new("attn_k_b.weight", &[dim_nope, kv_rank, n_heads]),
            Tensor::new("attn_v_b.weight", &[kv_rank, dim_v, n_heads]),
            Tensor::new("attn_output.weight", &[n_heads * dim_v, n_embd]),
        ]);
    }
}

/// A gated delta net.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaNet {
    pub(super) n_k_heads: usize,
    pub(super) n_v_heads: usize,
    /// Width of a head, of keys as of values.
    pub(super) head_dim: usize,
    pub(super) kernel: usize,
}

impl DeltaNet {
    pub(super) fn inner(&self) -> usize {
        self.n_v_heads * self.head_dim
    }

    fn tensors(&self, n_embd: usize, out: &mut Vec<Tensor>) {
        let (inner, n_v) = (self.inner(), self.n_v_heads);
        let mixed = 2 * self.n_k_heads * self.head_dim + inner;
        out.extend([
            Tensor::new("attn_qkv.weight", &[n_embd, mixed]),
            Tensor::new("attn_gate.weight", &[n_embd, inner]),
            Tensor::new("ssm_conv1d.weight", &[self.kernel, mixed]).filled(Fill::Taps),
            Tensor::new("ssm_alpha.weight", &[n_embd, n_v]),
            Tensor::new("ssm_beta.weight", &[n_embd, n_v]),
            Tensor::new("ssm_dt.bias", &[n_v]).filled(Fill::TimeStep),
            Tensor::new("ssm_a", &[n_v]).filled(Fill::Decay),
            Tensor::new("ssm_norm.weight", &[self.head_dim]).filled(Fill::Ones),
            Tensor::new("ssm_out.weight", &[inner, n_embd]),
        ]);
    }
}

/// Mamba 2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mamba2 {
    pub(super) inner: usize,
    pub(super) state: usize,
    pub(super) n_heads: usize,
    pub(super) n_groups: usize,
    pub(super) kernel: usize,
}

impl Mamba2 {
    fn tensors(&self, n_embd: usize, out: &mut Vec<Tensor>) {
        let Mamba2 {
            inner,
            state,
            n_heads,
            n_groups,
            kernel,
        } = *self;
        let mixed = inner + 2 * n_groups * state;
        out.extend([
            Tensor::new("ssm_in.weight", &[n_embd, inner + mixed + n_heads]),
            Tensor::new("ssm_conv1d.weight", &[kernel, mixed]).filled(Fill::Taps),
            Tensor::new("ssm_conv1d.bias", &[mixed]),
            Tensor::new("ssm_dt.bias", &[n_heads]).filled(Fill::TimeStep),
            Tensor::new("ssm_a", &[1, n_heads]).filled(Fill::Decay),
            Tensor::new("ssm_d", &[1, n_heads]).filled(Fill::Ones),
            Tensor::new("ssm_norm.weight", &[inner / n_groups, n_groups]).filled(Fill::Ones),
            Tensor::new("ssm_out.weight", &[inner, n_embd]),
        ]);
    }
}

/// Experts of which a token meets some.
#[derive(Debug, Clone, Copy)]
pub(super) struct Experts {
    pub(super) n: usize,
    pub(super) n_used: usize,
    /// Width of one.
    pub(super) n_ff: usize,
    /// Width of the expert that every token meets; 0 where there is none.
    pub(super) n_ff_shared: usize,
    /// That expert is scaled by a number that the token decides.
    pub(super) shared_gate: bool,
    /// Router and experts have biases.
    pub(super) bias: bool,
    /// A bias that only the selection sees.
    pub(super) selection_bias: bool,
    /// gemma4's: gate and up in one tensor, a scale of each expert and of the router's input.
    pub(super) scaled: bool,
}

impl Experts {
    pub(super) const fn new(n: usize, n_used: usize, n_ff: usize) -> Self {
        Experts {
            n,
            n_used,
            n_ff,
            n_ff_shared: 0,
            shared_gate: false,
            bias: false,
            selection_bias: false,
            scaled: false,
        }
    }

    fn tensors(&self, n_embd: usize, out: &mut Vec<Tensor>) {
        let (n, n_ff) = (self.n, self.n_ff);
        linear("ffn_gate_inp", n_embd, n, self.bias, out);
        let mut experts = |name: &str, k: usize, rows: usize| {
            out.push(Tensor::new(format!("{name}.weight"), &[k, rows, n]));
            if self.bias {
                out.push(Tensor::new(format!("{name}.bias"), &[rows, n]));
            }
        };
        if self.scaled {
            experts("ffn_gate_up_exps", n_embd, 2 * n_ff);
        } else {
            experts("ffn_gate_exps", n_embd, n_ff);
            experts("ffn_up_exps", n_embd, n_ff);
        }
        experts("ffn_down_exps", n_ff, n_embd);
        if self.scaled {
            out.push(Tensor::new("ffn_gate_inp.scale", &[n_embd]).filled(Fill::Ones));
            out.push(Tensor::new("ffn_down_exps.scale", &[n]).filled(Fill::Ones));
        }
        if self.selection_bias {
            out.push(Tensor::new("exp_probs_b.bias", &[n]));
        }
        if self.n_ff_shared > 0 {
            gated("_shexp", self.n_ff_shared, n_embd, out);
            if self.shared_gate {
                out.push(Tensor::new("ffn_gate_inp_shexp.weight", &[n_embd]));
            }
        }
    }
}
