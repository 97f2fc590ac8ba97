"""Writes the small random models of `vectors/` whose forward pass is in `families.py`: one per family with parts of its own.
Seeded: the same files every time.

usage: make_families.py [OUT_DIR]      (packages: gguf, numpy)
"""

import math
import pathlib
import sys
import zlib

import gguf
import numpy as np

from make_models import N_VOCAB, vocabulary

N_EMBD = 32


class Maker:
    """Tensors of a model, made in the order in which they are asked for."""

    def __init__(self, name):
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.tensors = {}

    def matrix(self, name, rows, columns, gain=1.0, stack=None, bias=False, spread=0.7):
        shape = (rows, columns) if stack is None else (stack, rows, columns)
        value = (self.rng.standard_normal(shape) * gain / math.sqrt(columns)).astype(np.float32)
        self.tensors[name + ".weight"] = value
        if bias:
            self.vector(name + ".bias", *shape[:-1], low=-spread, high=spread)

    def vector(self, name, *shape, low=0.7, high=1.3):
        self.tensors[name] = self.rng.uniform(low, high, shape).astype(np.float32)

    def norm(self, name, n=N_EMBD, low=0.7, high=1.3):
        self.vector(name + ".weight", n, low=low, high=high)


def attention(m, b, heads, kv, head, *, normed=None, bias=False, gain=1.5, q_rows=1, embd=N_EMBD):
    m.matrix(b + "attn_q", heads * head * q_rows, embd, 1.0 if normed else gain, bias=bias)
    m.matrix(b + "attn_k", kv * head, embd, 1.0 if normed else gain, bias=bias)
    m.matrix(b + "attn_v", kv * head, embd, bias=bias)
    m.matrix(b + "attn_output", embd, heads * head, bias=bias)
    if normed:
        m.norm(b + "attn_q_norm", heads * head if normed == "whole" else head, 1.2, 2.0)
        m.norm(b + "attn_k_norm", kv * head if normed == "whole" else head, 1.2, 2.0)


def gated(m, b, n_ff, suffix=""):
    m.matrix(b + "ffn_gate" + suffix, n_ff, N_EMBD, 1.2)
    m.matrix(b + "ffn_up" + suffix, n_ff, N_EMBD, 1.2)
    m.matrix(b + "ffn_down" + suffix, N_EMBD, n_ff, 1.2)


def experts(m, b, n, n_ff, *, bias=False, fused=False, gate=True, selection=False, gain=1.2):
    m.matrix(b + "ffn_gate_inp", n, N_EMBD, 2.0, bias=bias)
    if fused:
        m.matrix(b + "ffn_gate_up_exps", 2 * n_ff, N_EMBD, gain, stack=n)
    else:
        if gate:
            m.matrix(b + "ffn_gate_exps", n_ff, N_EMBD, gain, stack=n, bias=bias)
        m.matrix(b + "ffn_up_exps", n_ff, N_EMBD, gain, stack=n, bias=bias)
    m.matrix(b + "ffn_down_exps", N_EMBD, n_ff, 1.2, stack=n, bias=bias)
    if selection:
        m.vector(b + "exp_probs_b.bias", n, low=-0.3, high=0.3)


def delta_net(m, b, state, n_k, n_v, head_v, taps, old):
    key, value = n_k * state, n_v * head_v
    if old:
        m.matrix(b + "ssm_in", 2 * key + 2 * value, N_EMBD)
        m.matrix(b + "ssm_ba", 2 * n_v, N_EMBD)
    else:
        m.matrix(b + "attn_qkv", 2 * key + value, N_EMBD)
        m.matrix(b + "attn_gate", value, N_EMBD)
        m.matrix(b + "ssm_alpha", n_v, N_EMBD)
        m.matrix(b + "ssm_beta", n_v, N_EMBD)
    m.vector(b + "ssm_conv1d.weight", 2 * key + value, taps, low=-0.8, high=0.8)
    m.vector(b + "ssm_dt.bias", n_v, low=-1.0, high=1.0)
    m.vector(b + "ssm_a", n_v, low=-0.8, high=-0.05)
    m.norm(b + "ssm_norm", head_v)
    m.matrix(b + "ssm_out", N_EMBD, value)


def mamba2(m, b, inner, state, heads, groups, taps):
    wide = inner + 2 * groups * state
    m.matrix(b + "ssm_in", inner + wide + heads, N_EMBD)
    m.vector(b + "ssm_conv1d.weight", wide, taps, low=-0.8, high=0.8)
    m.vector(b + "ssm_conv1d.bias", wide, low=-0.3, high=0.3)
    m.vector(b + "ssm_dt.bias", heads, low=-1.0, high=1.0)
    m.vector(b + "ssm_a", heads, 1, low=-0.8, high=-0.05)
    m.vector(b + "ssm_d", heads, 1, low=0.5, high=1.5)
    m.vector(b + "ssm_norm.weight", groups, inner // groups)
    m.matrix(b + "ssm_out", N_EMBD, inner)


def qwen3moe(m):
    for i in range(2):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        attention(m, b, 4, 2, 16, normed="heads")
        m.norm(b + "ffn_norm")
        experts(m, b, 8, 24)
    return {"block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
            "attention.value_length": 16, "feed_forward_length": 72, "expert_feed_forward_length": 24, "expert_count": 8,
            "expert_used_count": 3, "rope.freq_base": 10000.0, "rope.dimension_count": 16}


def qwen35moe(m, old=False):
    interval = 2 if old else 3
    for i in range(interval):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        if i + 1 == interval:
            attention(m, b, 2, 1, 16, normed="heads", q_rows=2)
        else:
            delta_net(m, b, 16, 2, 4, 16, 4, old)
        m.norm(b + "post_attention_norm")
        experts(m, b, 6, 16, fused=not old)
        gated(m, b, 24, "_shexp")
        m.vector(b + "ffn_gate_inp_shexp.weight", N_EMBD, low=-0.4, high=0.4)
    keys = {"block_count": interval, "attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 16,
            "attention.value_length": 16, "feed_forward_length": 32, "expert_feed_forward_length": 16,
            "expert_shared_feed_forward_length": 24, "expert_count": 6, "expert_used_count": 2, "full_attention_interval": interval,
            "ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 16, "ssm.time_step_rank": 4, "ssm.group_count": 2,
            "rope.freq_base": 10000.0, "rope.dimension_count": 8}
    return keys if old else {**keys, "rope.dimension_sections": [2, 1, 1, 0]}


def gpt_oss(m):
    for i in range(2):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        attention(m, b, 4, 2, 16, bias=True)
        m.vector(b + "attn_sinks.weight", 4, low=-1.0, high=2.0)
        m.norm(b + "post_attention_norm")
        experts(m, b, 6, 24, bias=True, gain=4.0)
    return {"block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
            "attention.value_length": 16, "feed_forward_length": 24, "expert_feed_forward_length": 24, "expert_count": 6,
            "expert_used_count": 2, "attention.sliding_window": 20, "rope.freq_base": 1000.0, "rope.dimension_count": 16,
            "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256}


def gemma4(m):
    layers, width, pattern, kv = 5, 8, [True, True, False, True, False], [2, 2, 1, 2, 1]
    m.matrix("per_layer_token_embd", N_VOCAB, width * layers)
    m.matrix("per_layer_model_proj", width * layers, N_EMBD)
    m.norm("per_layer_proj_norm", width)
    m.tensors["rope_freqs.weight"] = np.array([1.0] * 8 + [1e30] * 8, dtype=np.float32)
    for i in range(layers):
        b, head = f"blk.{i}.", 16 if pattern[i] else 32
        m.norm(b + "attn_norm")
        m.matrix(b + "attn_q", 4 * head, N_EMBD)
        m.norm(b + "attn_q_norm", head, 0.3, 0.6)
        if i < 3:
            m.matrix(b + "attn_k", kv[i] * head, N_EMBD)
            m.norm(b + "attn_k_norm", head, 0.3, 0.6)
            if pattern[i]:
                m.matrix(b + "attn_v", kv[i] * head, N_EMBD)
        m.matrix(b + "attn_output", N_EMBD, 4 * head)
        m.norm(b + "post_attention_norm", low=0.5, high=1.1)
        m.norm(b + "ffn_norm")
        gated(m, b, 24 if i < 3 else 48)
        if i in (1, 4):
            experts(m, b, 4, 16, fused=True)
            m.vector(b + "ffn_gate_inp.scale", N_EMBD)
            m.vector(b + "ffn_down_exps.scale", 4)
            for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                m.norm(b + name)
        m.norm(b + "post_ffw_norm", low=0.5, high=1.1)
        m.matrix(b + "inp_gate", width, N_EMBD)
        m.matrix(b + "proj", N_EMBD, width)
        m.norm(b + "post_norm", low=0.5, high=1.1)
        m.vector(b + "layer_output_scale.weight", 1)
    return {"block_count": layers, "attention.head_count": 4, "attention.head_count_kv": kv, "attention.key_length": 32,
            "attention.value_length": 32, "attention.key_length_swa": 16, "attention.value_length_swa": 16,
            "attention.sliding_window": 12, "attention.sliding_window_pattern": pattern, "attention.shared_kv_layers": 2,
            "embedding_length_per_layer_input": width, "feed_forward_length": [24, 24, 24, 48, 48], "expert_feed_forward_length": 16,
            "expert_count": 4, "expert_used_count": 2, "rope.freq_base": 100000.0, "rope.freq_base_swa": 10000.0,
            "rope.dimension_count": 32, "rope.dimension_count_swa": 16, "final_logit_softcapping": 30.0}


def lfm2moe(m):
    kv = [0, 2, 0, 2]
    for i in range(4):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        if kv[i]:
            attention(m, b, 4, 2, 8, normed="heads")
        else:
            m.matrix(b + "shortconv.in_proj", 3 * N_EMBD, N_EMBD)
            m.vector(b + "shortconv.conv.weight", N_EMBD, 3, low=-0.8, high=0.8)
            m.matrix(b + "shortconv.out_proj", N_EMBD, N_EMBD)
        m.norm(b + "ffn_norm")
        if i == 0:
            gated(m, b, 24)
        else:
            experts(m, b, 6, 16, selection=True)
    m.tensors["token_embd_norm.weight"] = m.rng.uniform(0.7, 1.3, N_EMBD).astype(np.float32)
    return {"block_count": 4, "attention.head_count": 4, "attention.head_count_kv": kv, "feed_forward_length": 24,
            "expert_feed_forward_length": 16, "expert_count": 6, "expert_used_count": 2, "expert_gating_func": 2,
            "leading_dense_block_count": 1, "shortconv.l_cache": 3, "rope.freq_base": 10000.0}


def granitehybrid(m):
    kv = [0, 2, 0]
    for i in range(3):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        if kv[i]:
            attention(m, b, 4, 2, 8)
        else:
            mamba2(m, b, 64, 16, 4, 2, 4)
        m.norm(b + "ffn_norm")
        experts(m, b, 6, 16)
        gated(m, b, 24, "_shexp")
    return {"block_count": 3, "attention.head_count": 4, "attention.head_count_kv": kv, "feed_forward_length": 16,
            "expert_shared_feed_forward_length": 24, "expert_count": 6, "expert_used_count": 2, "ssm.conv_kernel": 4,
            "ssm.inner_size": 64, "ssm.state_size": 16, "ssm.time_step_rank": 4, "ssm.group_count": 2, "embedding_scale": 1.5,
            "residual_scale": 0.6, "logit_scale": 2.0, "attention.scale": 0.25, "rope.scaling.finetuned": False,
            "rope.dimension_count": 8}


def nemotron_h_moe(m):
    kv, ff = [0, 0, 2, 0], [0, 16, 0, 0]
    for i in range(4):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        if ff[i]:
            experts(m, b, 6, 16, gate=False, selection=True)
            m.matrix(b + "ffn_up_shexp", 24, N_EMBD, 1.2)
            m.matrix(b + "ffn_down_shexp", N_EMBD, 24, 1.2)
        elif kv[i]:
            attention(m, b, 4, 2, 8)
        else:
            mamba2(m, b, 48, 8, 6, 2, 4)
    return {"block_count": 4, "attention.head_count": 4, "attention.head_count_kv": kv, "feed_forward_length": ff,
            "expert_feed_forward_length": 16, "expert_shared_feed_forward_length": 24, "expert_shared_count": 1, "expert_count": 6,
            "expert_used_count": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5, "ssm.conv_kernel": 4,
            "ssm.inner_size": 48, "ssm.state_size": 8, "ssm.time_step_rank": 6, "ssm.group_count": 2,
            "attention.layer_norm_epsilon": 1e-5}


def deepseek2(m):
    heads, lora, q_lora, nope, rope, value = 4, 16, 24, 8, 8, 8
    for i in range(2):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        m.matrix(b + "attn_q_a", q_lora, N_EMBD)
        m.norm(b + "attn_q_a_norm", q_lora)
        m.matrix(b + "attn_q_b", heads * (nope + rope), q_lora, 1.5)
        m.matrix(b + "attn_kv_a_mqa", lora + rope, N_EMBD, 1.5)
        m.norm(b + "attn_kv_a_norm", lora)
        m.matrix(b + "attn_k_b", lora, nope, 1.0, stack=heads)
        m.matrix(b + "attn_v_b", value, lora, 1.0, stack=heads)
        m.matrix(b + "attn_output", N_EMBD, heads * value)
        m.norm(b + "ffn_norm")
        if i == 0:
            gated(m, b, 24)
        else:
            experts(m, b, 8, 16, selection=True)
            gated(m, b, 16, "_shexp")
    return {"block_count": 2, "attention.head_count": heads, "attention.head_count_kv": 1, "attention.q_lora_rank": q_lora,
            "attention.kv_lora_rank": lora, "attention.key_length": lora + rope, "attention.value_length": lora,
            "attention.key_length_mla": nope + rope, "attention.value_length_mla": value, "rope.dimension_count": rope,
            "rope.freq_base": 10000.0, "feed_forward_length": 24, "expert_feed_forward_length": 16, "expert_count": 8,
            "expert_used_count": 3, "expert_shared_count": 1, "expert_group_count": 4, "expert_group_used_count": 2,
            "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5, "leading_dense_block_count": 1,
            "vocab_size": N_VOCAB}


def llama4(m):
    for i in range(4):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        attention(m, b, 4, 2, 8)
        m.norm(b + "ffn_norm")
        if i % 2 == 1:
            experts(m, b, 4, 16)
            gated(m, b, 16, "_shexp")
        else:
            gated(m, b, 24)
    return {"block_count": 4, "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 8,
            "attention.value_length": 8, "feed_forward_length": 24, "expert_feed_forward_length": 16, "expert_count": 4,
            "expert_used_count": 1, "interleave_moe_layer_step": 2, "attention.sliding_window": 8192, "rope.freq_base": 10000.0,
            "rope.dimension_count": 8}


def minimax_m2(m):
    for i in range(2):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        attention(m, b, 4, 2, 16, normed="whole")
        m.norm(b + "ffn_norm")
        experts(m, b, 6, 16, selection=True)
    return {"block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
            "attention.value_length": 16, "feed_forward_length": 16, "expert_feed_forward_length": 16, "expert_count": 6,
            "expert_used_count": 2, "expert_gating_func": 2, "rope.freq_base": 10000.0, "rope.dimension_count": 8}


def cohere2(m):
    for i in range(4):
        b = f"blk.{i}."
        m.norm(b + "attn_norm")
        attention(m, b, 4, 2, 8)
        gated(m, b, 24)
    return {"block_count": 4, "attention.head_count": 4, "attention.head_count_kv": 2, "feed_forward_length": 24,
            "attention.sliding_window": 12, "logit_scale": 0.25, "rope.freq_base": 10000.0, "rope.dimension_count": 8,
            "attention.layer_norm_epsilon": 1e-5, "attention.key_length": 8, "attention.value_length": 8}


def limits(m):
    return {**qwen35moe(m, True), "swiglu_clamp_exp": [0.25, 0.0], "swiglu_clamp_shexp": [0.0, 0.5]}


# What each shows, what makes it, whether the output matrix is the embedding.
MODELS = {
    "qwen3moe": ("qwen3moe", "8 experts, 3 used", qwen3moe, False),
    "qwen35moe": ("qwen35moe", "two delta-net layers, gated attention, shared expert, fused gate and up", qwen35moe, False),
    "qwen3next": ("qwen3next", "the older fused ssm_in and ssm_ba, heads in groups", lambda m: qwen35moe(m, True), False),
    "gpt-oss": ("gpt-oss", "sinks, window on even layers, all biases, yarn, clamped gates", gpt_oss, False),
    "gemma4": ("gemma4", "two head sizes, shared keys and values, per-layer embeddings, experts beside the dense part", gemma4, True),
    "lfm2moe": ("lfm2moe", "short convolutions, sigmoid router with a bias", lfm2moe, True),
    "granitehybrid": ("granitehybrid", "two Mamba2 layers, attention without rope, four scales, shared expert", granitehybrid, True),
    "nemotron-h-moe": ("nemotron_h_moe", "one part a layer, experts without a gate", nemotron_h_moe, False),
    "deepseek2": ("deepseek2", "latent attention, absorbed; groups of experts, shared expert", deepseek2, False),
    "llama4": ("llama4", "the router's weight on the input, layer 3 without rope", llama4, False),
    "minimax-m2": ("minimax-m2", "q and k normed over all heads, half of a head rotated", minimax_m2, False),
    "cohere2": ("cohere2", "parallel parts, layer norms, window 12, layer 3 global without rope", cohere2, True),
    "limits": ("qwen3next", "gates of experts limited in one layer, those of the shared expert in the other", limits, False),
}

# Keys that llama.cpp reads for families that are not here alone, and passes over for these: it is no reference for them.
IDEAL_ALONE = ["limits"]

N_TOKENS = 70
N_CTX = 256


def write(name, path):
    arch, about, make, tied = MODELS[name]
    m = Maker(name)
    m.matrix("token_embd", N_VOCAB, N_EMBD, 2.5 if tied else 4.0)
    keys = make(m)
    if arch != "lfm2moe":
        m.norm("output_norm")
    if not tied:
        m.matrix("output", N_VOCAB, N_EMBD, 3.0)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("random weights")
    writer.add_description(about)
    writer.add_license("MIT OR Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(512)
    writer.add_embedding_length(N_EMBD)
    if "attention.layer_norm_epsilon" not in keys:
        writer.add_layer_norm_rms_eps(1e-5)
    for key, value in keys.items():
        add = {bool: writer.add_bool, str: writer.add_string, float: writer.add_float32, int: writer.add_uint32,
               list: writer.add_array}[type(value)]
        add(f"{arch}.{key}", value)
    tokens, scores, types = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for tensor, value in m.tensors.items():
        writer.add_tensor(tensor, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    default = pathlib.Path(__file__).parent / "vectors"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    out.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        write(name, out / f"{name}.gguf")
        print(f"{name}: {(out / f'{name}.gguf').stat().st_size} bytes")


if __name__ == "__main__":
    main()
