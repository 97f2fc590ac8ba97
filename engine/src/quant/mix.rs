//! Mixes: which type each tensor of a model gets when a file is quantized to `q4_k_m` and the like.
//!
//! The choices are those of llama.cpp's `llama-quantize` without an importance matrix (`src/llama-quant.cpp`), so that
//! a file from here and one from there have the same size and shape: tensors that matter more (values, the second
//! feed-forward matrix, the output) get more bits in some or all layers.

use super::GgmlType;

/// `general.quantization_version` of the files that the quantizers write.
pub const QUANTIZATION_VERSION: u32 = 2;

/// What a model file is quantized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs)]
pub enum Mix {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    /// In a model with experts their matrices as mxfp4 and all others as q8_0 (llama.cpp's MXFP4_MOE); in a model
    /// without, the layers' matrices as mxfp4, embedding and output as q8_0.
    MXFP4,
}

/// What the choice depends on beside the tensor itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixModel {
    /// Layers (`block_count`).
    pub n_layers: usize,
    /// Experts per layer; 0 in a dense model.
    pub n_experts: usize,
    /// Query heads per key/value head (grouped-query attention); 1 where each has its own.
    pub gqa: usize,
    /// Whether the file has no `output.weight`, so that the token embedding serves as the output.
    pub tied_output: bool,
    /// The layers that have a matrix for values, ascending: see [`Self::value_layers`]. Empty: all of them.
    pub value_layers: Vec<usize>,
}

/// The matrices of values, by themselves or with others.
const VALUES: &[&str] = &["attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"];

impl MixModel {
    /// The layers that have a matrix for values among tensors of these names.
    pub fn value_layers<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let of_values = |name: &&str| VALUES.iter().any(|values| name.contains(values));
        let mut layers: Vec<usize> = names.filter(of_values).filter_map(layer_index).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }
}

impl Mix {
    /// Every mix, by bits.
    pub const ALL: &'static [Mix] = &[
        Mix::Q2_K,
        Mix::Q3_K_S,
        Mix::Q3_K_M,
        Mix::Q3_K_L,
        Mix::MXFP4,
        Mix::IQ4_XS,
        Mix::IQ4_NL,
        Mix::Q4_0,
        Mix::Q4_1,
        Mix::Q4_K_S,
        Mix::Q4_K_M,
        Mix::Q5_0,
        Mix::Q5_1,
        Mix::Q5_K_S,
        Mix::Q5_K_M,
        Mix::Q6_K,
        Mix::Q8_0,
        Mix::F16,
        Mix::BF16,
        Mix::F32,
    ];

    /// The name, lower case: `q4_k_m`.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The number in `general.file_type`, llama.cpp's `llama_ftype`.
    pub const fn file_type(self) -> u32 {
        self.facts().1
    }

    /// The type that most matrices get.
    pub const fn base_type(self) -> GgmlType {
        self.facts().2
    }

    const fn facts(self) -> (&'static str, u32, GgmlType) {
        match self {
            Mix::F32 => ("f32", 0, GgmlType::F32),
            Mix::F16 => ("f16", 1, GgmlType::F16),
            Mix::BF16 => ("bf16", 32, GgmlType::BF16),
            Mix::Q4_0 => ("q4_0", 2, GgmlType::Q4_0),
            Mix::Q4_1 => ("q4_1", 3, GgmlType::Q4_1),
            Mix::Q5_0 => ("q5_0", 8, GgmlType::Q5_0),
            Mix::Q5_1 => ("q5_1", 9, GgmlType::Q5_1),
            Mix::Q8_0 => ("q8_0", 7, GgmlType::Q8_0),
            Mix::Q2_K => ("q2_k", 10, GgmlType::Q2_K),
            Mix::Q3_K_S => ("q3_k_s", 11, GgmlType::Q3_K),
            Mix::Q3_K_M => ("q3_k_m", 12, GgmlType::Q3_K),
            Mix::Q3_K_L => ("q3_k_l", 13, GgmlType::Q3_K),
            Mix::Q4_K_S => ("q4_k_s", 14, GgmlType::Q4_K),
            Mix::Q4_K_M => ("q4_k_m", 15, GgmlType::Q4_K),
            Mix::Q5_K_S => ("q5_k_s", 16, GgmlType::Q5_K),
            Mix::Q5_K_M => ("q5_k_m", 17, GgmlType::Q5_K),
            Mix::Q6_K => ("q6_k", 18, GgmlType::Q6_K),
            Mix::IQ4_NL => ("iq4_nl", 25, GgmlType::IQ4_NL),
            Mix::IQ4_XS => ("iq4_xs", 30, GgmlType::IQ4_XS),
            Mix::MXFP4 => ("mxfp4", 38, GgmlType::MXFP4),
        }
    }

    /// The mix of this name, case ignored; `q3_k`, `q4_k` and `q5_k` stand for their medium ones.
    pub fn from_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let full = match lower.as_str() {
            "q3_k" => "q3_k_m",
            "q4_k" => "q4_k_m",
            "q5_k" => "q5_k_m",
            other => other,
        };
        Self::ALL.iter().copied().find(|m| m.name() == full)
    }

    /// The type for the tensor `name` of shape `dims` (row length first, as in the file), or `None` where it stays as
    /// it is: vectors, norms, and what is too small or too delicate to quantize.
    pub fn tensor_type(self, name: &str, dims: &[u64], model: &MixModel) -> Option<GgmlType> {
        let &[row, _, ..] = dims else { return None };
        let experts = dims.get(2).is_some_and(|&n| n > 1);
        // Trailing dimensions of 1 do not make a matrix of a vector.
        if dims[1..].iter().all(|&n| n == 1) || !is_quantizable(name) {
            return None;
        }
        if self.base_type().is_float() {
            return Some(self.base_type());
        }
        Some(fit(self.wanted(name, experts, row, model), row))
    }

    /// The type before the row's length is considered.
    fn wanted(self, name: &str, experts: bool, row: u64, model: &MixModel) -> GgmlType {
        let base = self.base_type();
        let embedding = name == "token_embd.weight" || name == "per_layer_token_embd.weight";
        if name == "output.weight" || (embedding && model.tied_output) {
            let whole_blocks = row.is_multiple_of(base.block_len() as u64);
            return match base {
                GgmlType::Q8_0 | GgmlType::MXFP4 => GgmlType::Q8_0,
                _ if whole_blocks => GgmlType::Q6_K,
                _ => GgmlType::Q8_0,
            };
        }
        if self == Mix::MXFP4 {
            let other = embedding || model.n_experts > 0 && !experts;
            return if other { GgmlType::Q8_0 } else { GgmlType::MXFP4 };
        }
        let layer = Layer {
            index: layer_index(name).unwrap_or(0),
            of: model.n_layers,
        };
        let eight_experts = model.n_experts == 8;
        if VALUES.iter().any(|values| name.contains(values)) {
            // Counted among the layers that have values.
            let index = model.value_layers.iter().position(|&i| i == layer.index);
            let layer = index.map_or(layer, |index| Layer {
                index,
                of: model.value_layers.len(),
            });
            return if eight_experts {
                GgmlType::Q8_0
            } else {
                self.values(layer, model)
            };
        }
        if name.contains("attn_k.weight") && eight_experts {
            return GgmlType::Q8_0;
        }
        if name.contains("ffn_down") {
            return self.ffn_down(layer);
        }
        if name.contains("attn_output.weight") {
            return self.attn_output(eight_experts);
        }
        base
    }

    fn values(self, layer: Layer, model: &MixModel) -> GgmlType {
        let chosen = match self {
            Mix::Q2_K if model.gqa >= 4 => GgmlType::Q4_K,
            Mix::Q2_K => GgmlType::Q3_K,
            Mix::Q3_K_M if layer.index < 2 => GgmlType::Q5_K,
            Mix::Q3_K_M => GgmlType::Q4_K,
            Mix::Q3_K_L => GgmlType::Q5_K,
            Mix::IQ4_NL | Mix::IQ4_XS if model.gqa >= 4 => GgmlType::Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if layer.gets_more_bits() => GgmlType::Q6_K,
            Mix::Q4_K_S if layer.index < 4 => GgmlType::Q5_K,
            _ => self.base_type(),
        };
        // The 70B shape: eight query heads share a value head, so the tensor is small and more bits cost little.
        let large = model.n_layers == 80 && model.gqa > 1;
        match chosen {
            GgmlType::Q3_K | GgmlType::Q4_K if large => GgmlType::Q5_K,
            _ => chosen,
        }
    }

    fn ffn_down(self, layer: Layer) -> GgmlType {
        let first_eighth = layer.index < layer.of / 8;
        match self {
            Mix::Q2_K => GgmlType::Q3_K,
            Mix::Q3_K_M if layer.index < layer.of / 16 => GgmlType::Q5_K,
            Mix::Q3_K_M => GgmlType::Q4_K,
            Mix::Q3_K_L => GgmlType::Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if layer.gets_more_bits() => GgmlType::Q6_K,
            Mix::IQ4_NL | Mix::IQ4_XS | Mix::Q4_K_S if first_eighth => GgmlType::Q5_K,
            _ => self.base_type(),
        }
    }

    fn attn_output(self, eight_experts: bool) -> GgmlType {
        match self {
            Mix::Q2_K | Mix::Q3_K_S | Mix::Q3_K_M | Mix::Q4_K_S | Mix::Q4_K_M | Mix::IQ4_NL | Mix::IQ4_XS
                if eight_experts =>
            {
                GgmlType::Q5_K
            }
            Mix::Q2_K => GgmlType::Q3_K,
            Mix::Q3_K_M => GgmlType::Q4_K,
            Mix::Q3_K_L if !eight_experts => GgmlType::Q5_K,
            _ => self.base_type(),
        }
    }
}

/// A layer's place in the model.
#[derive(Clone, Copy)]
struct Layer {
    index: usize,
    of: usize,
}

impl Layer {
    /// The first and the last eighth of the layers, and every third between.
    fn gets_more_bits(self) -> bool {
        let eighth = self.of / 8;
        self.index < eighth || self.index >= self.of.saturating_mul(7) / 8 || (self.index - eighth) % 3 == 2
    }
}

/// The layer that a tensor's name gives: `blk.12.…` is 12.
fn layer_index(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether a matrix of this name is quantized at all.
fn is_quantizable(name: &str) -> bool {
    /// Norms, routers, position tables, and the small matrices of recurrent and multimodal parts.
    const KEPT: &[&str] = &[
        "_norm.weight",
        "ffn_gate_inp.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
        "attn_rel_b.weight",
        ".position_embd",
        ".patch_embd",
        ".patch_merger",
        ".rel_pos",
    ];
    name.ends_with("weight")
        && name != "position_embd.weight"
        && name != "token_types.weight"
        && !KEPT.iter().any(|kept| name.contains(kept))
}

/// The wanted type, or the nearest one whose blocks divide the row; f16 where not even 32 does.
fn fit(wanted: GgmlType, row: u64) -> GgmlType {
    let divides = |ty: GgmlType| row.is_multiple_of(ty.block_len() as u64);
    if divides(wanted) {
        return wanted;
    }
    let smaller = match wanted {
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        _ => GgmlType::F16,
    };
    if divides(smaller) { smaller } else { GgmlType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_8B: MixModel = MixModel {
        n_layers: 32,
        n_experts: 0,
        gqa: 4,
        tied_output: false,
        value_layers: Vec::new(),
    };

    fn count(mix: Mix, tensor: &str, ty: GgmlType) -> usize {
        let chosen =
            |i| mix.tensor_type(&format!("blk.{i}.{tensor}.weight"), &[4096, 1024], &LLAMA_8B) == Some(ty);
        (0..32).filter(|&i| chosen(i)).count()
    }

    #[test]
    fn names_lead_back() {
        for &mix in Mix::ALL {
            assert_eq!(Mix::from_name(mix.name()), Some(mix));
            assert_eq!(Mix::from_name(&mix.name().to_uppercase()), Some(mix));
        }
        assert_eq!(Mix::from_name("Q4_K"), Some(Mix::Q4_K_M));
        assert_eq!(Mix::from_name("q4_k_x"), None);
    }

    /// Counts known from published files of Llama 3.1 8B: half of attn_v and ffn_down is q6_k in q4_k_m.
    #[test]
    fn llama_8b_is_as_known() {
        assert_eq!(count(Mix::Q4_K_M, "attn_v", GgmlType::Q6_K), 16);
        assert_eq!(count(Mix::Q4_K_M, "ffn_down", GgmlType::Q6_K), 16);
        assert_eq!(count(Mix::Q4_K_M, "attn_q", GgmlType::Q4_K), 32);
        assert_eq!(count(Mix::Q4_K_S, "attn_v", GgmlType::Q5_K), 4);
        assert_eq!(count(Mix::Q4_K_S, "ffn_down", GgmlType::Q5_K), 4);
        assert_eq!(count(Mix::Q5_K_M, "ffn_down", GgmlType::Q6_K), 16);
        assert_eq!(count(Mix::Q2_K, "attn_v", GgmlType::Q4_K), 32);
        assert_eq!(count(Mix::Q3_K_M, "ffn_down", GgmlType::Q5_K), 2);
        let output = |mix: Mix| mix.tensor_type("output.weight", &[4096, 128256], &LLAMA_8B);
        assert_eq!(output(Mix::Q4_0), Some(GgmlType::Q6_K));
        assert_eq!(output(Mix::Q8_0), Some(GgmlType::Q8_0));
        assert_eq!(output(Mix::F16), Some(GgmlType::F16));
        let embedding = |model| Mix::Q4_K_M.tensor_type("token_embd.weight", &[4096, 128256], &model);
        assert_eq!(embedding(LLAMA_8B), Some(GgmlType::Q4_K));
        let tied = MixModel {
            tied_output: true,
            ..LLAMA_8B
        };
        assert_eq!(embedding(tied), Some(GgmlType::Q6_K));
    }

    /// In models of mixed layers those with values are counted by themselves, fused matrices as well.
    #[test]
    fn values_are_counted_where_they_are() {
        let names = [
            "blk.0.attn_qkv.weight",
            "blk.5.attn_v.weight",
            "blk.3.attn_v.weight",
            "blk.4.ffn_up.weight",
        ];
        let model = MixModel {
            value_layers: MixModel::value_layers(names.into_iter()),
            ..LLAMA_8B
        };
        assert_eq!(model.value_layers, [0, 3, 5]);
        let ty = |name| Mix::Q4_K_M.tensor_type(name, &[4096, 1024], &model);
        assert_eq!(ty(names[0]), Some(GgmlType::Q4_K));
        assert_eq!(ty(names[2]), Some(GgmlType::Q4_K));
        assert_eq!(ty(names[1]), Some(GgmlType::Q6_K));
    }

    #[test]
    fn small_tensors_stay() {
        for (name, dims) in [
            ("blk.0.attn_norm.weight", &[4096][..]),
            ("blk.0.attn_q.bias", &[4096, 1]),
            ("blk.0.attn_q.weight", &[4096, 1]),
            ("blk.0.ffn_gate_inp.weight", &[4096, 8]),
            ("rope_freqs.weight", &[64]),
            ("scalar", &[]),
        ] {
            assert_eq!(Mix::Q4_K_M.tensor_type(name, dims, &LLAMA_8B), None, "{name}");
        }
    }

    #[test]
    fn experts_of_mxfp4() {
        let dense = LLAMA_8B;
        let moe = MixModel {
            n_experts: 32,
            ..LLAMA_8B
        };
        let ty = |name, dims: &[u64], model| Mix::MXFP4.tensor_type(name, dims, model);
        assert_eq!(
            ty("blk.0.ffn_up_exps.weight", &[2880, 2880, 32], &moe),
            Some(GgmlType::MXFP4)
        );
        assert_eq!(
            ty("blk.0.attn_q.weight", &[2880, 4096], &moe),
            Some(GgmlType::Q8_0)
        );
        assert_eq!(
            ty("blk.0.attn_q.weight", &[2880, 4096], &dense),
            Some(GgmlType::MXFP4)
        );
        assert_eq!(
            ty("token_embd.weight", &[2880, 4096], &dense),
            Some(GgmlType::Q8_0)
        );
    }

    #[test]
    fn rows_that_do_not_fit() {
        assert_eq!(fit(GgmlType::Q4_K, 4096), GgmlType::Q4_K);
        assert_eq!(fit(GgmlType::Q4_K, 96), GgmlType::Q5_0);
        assert_eq!(fit(GgmlType::IQ4_XS, 96), GgmlType::IQ4_NL);
        assert_eq!(fit(GgmlType::Q6_K, 172), GgmlType::F16);
        assert_eq!(fit(GgmlType::Q4_0, 172), GgmlType::F16);
    }
}
