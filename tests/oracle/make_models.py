"""Writes the small random models of `vectors/`, one per feature of an architecture. Seeded: the same files every time.

usage: make_models.py [OUT_DIR]      (packages: gguf, numpy)
"""

import math
import pathlib
import sys
import zlib

import gguf
import numpy as np

N_VOCAB = 48
N_EMBD = 32
N_FF = 24


def llama3_factors(n_rot, base, factor, low, high, original):
    """The divisors that Llama 3.1's `rope_type: llama3` amounts to, one per pair."""
    out = []
    for i in range(n_rot // 2):
        wavelength = 2 * math.pi * base ** (2 * i / n_rot)
        smooth = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        out.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)


def growing(n, first, last):
    """LongRoPE divisors: smoothly from `first` to `last`."""
    return np.geomspace(first, last, n).astype(np.float32)


# What every model has unless it says otherwise. `keys` are metadata keys below the architecture's name.
DEFAULTS = dict(n_layer=2, n_embd=N_EMBD, n_ff=N_FF, n_head=4, n_head_kv=2, key_length=None, tied=False, bias=(), scale=(),
                fused_qkv=False, n_rot=None, freq_base=10000.0, context_length=512, tensors={}, keys={}, n_ctx=256, n_tokens=36,
                post_norm=(0.5, 1.1))

LLAMA3 = llama3_factors(16, 10000.0, 8.0, 1.0, 4.0, 64)
WIDE = dict(key_length=16, n_head=2, n_head_kv=1)
# Three heads, so that the query scale 1/sqrt(key_length) differs from 1/sqrt(n_embd / n_head).
GEMMA = dict(arch="gemma3", key_length=16, n_head=3, n_head_kv=1)
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 1024}
# Base 1000 and 1024 positions put YaRN's ramp on pairs 1 to 6 of 8: some of each kind, some in between.
YARN_MODEL = dict(WIDE, freq_base=1000.0, context_length=4096)
LONGROPE = {"rope_factors_long.weight": growing(8, 1.5, 24.0), "rope_factors_short.weight": growing(8, 1.0, 3.0)}
LONGROPE_12 = {"rope_factors_long.weight": growing(6, 1.5, 24.0), "rope_factors_short.weight": growing(6, 1.0, 3.0)}

MODELS = {
    "llama-gqa": dict(arch="llama", about="grouped queries 4/2, untied output; 150 tokens", n_tokens=150),
    "llama-key-length": dict(arch="llama", about="key_length 16 where n_embd / n_head is 8; tied output", tied=True,
                             key_length=16),
    "llama-rope-freqs": dict(arch="llama", about="rope_freqs.weight as in Llama 3", **WIDE,
                             tensors={"rope_freqs.weight": LLAMA3}),
    "llama-linear": dict(arch="llama", about="rope.scaling.type linear, factor 4",
                         keys={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama-scale-linear": dict(arch="llama", about="the older key rope.scale_linear, no type",
                               keys={"rope.scale_linear": 2.5}),
    "llama-scaling-none": dict(arch="llama", about="type none: the factor is ignored, attn_factor is not",
                               keys={"rope.scaling.type": "none", "rope.scaling.factor": 4.0,
                                     "rope.scaling.attn_factor": 1.25}),
    "llama-yarn": dict(arch="llama", about="yarn, factor 4 of 1024; 150 tokens", n_tokens=150, keys=YARN, **YARN_MODEL),
    "llama-yarn-attn-factor": dict(arch="llama", about="yarn with attn_factor and rope_freqs.weight",
                                   keys={**YARN, "rope.scaling.attn_factor": 0.8}, **YARN_MODEL,
                                   tensors={"rope_freqs.weight": LLAMA3}),
    "llama-longrope": dict(arch="llama", about="type longrope in a llama file, long factors", **WIDE,
                           tensors=LONGROPE, keys={"rope.scaling.type": "longrope",
                                                   "rope.scaling.original_context_length": 128,
                                                   "rope.scaling.attn_factor": 1.2}),
    "llama-bias": dict(arch="llama", about="biases on q, k, v, o and the feed-forward matrices",
                       bias=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")),
    "llama-scale": dict(arch="llama", about="a scale beside every matrix, biases on q and o",
                        bias=("attn_q", "attn_output"),
                        scale=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")),
    "llama-arrays": dict(arch="llama", about="head counts and feed_forward_length as arrays", arrays=True, tied=True),
    "llama-fused-qkv": dict(arch="llama", about="attn_qkv instead of attn_q, attn_k, attn_v; with bias", fused_qkv=True,
                            bias=("attn_qkv",)),
    "llama-window": dict(arch="llama", about="attention.sliding_window in a llama file means nothing", tied=True,
                         keys={"attention.sliding_window": 8}),
    "qwen2": dict(arch="qwen2", about="biases on q, k, v; untied output", bias=("attn_q", "attn_k", "attn_v")),
    "qwen2-yarn": dict(arch="qwen2", about="yarn, attn_factor 1.25, tied output", bias=("attn_q", "attn_k", "attn_v"),
                       tied=True, keys={**YARN, "rope.scaling.attn_factor": 1.25},
                       **dict(YARN_MODEL, key_length=None)),
    "qwen3": dict(arch="qwen3", about="q and k norms, key_length 16; tied output", tied=True, key_length=16),
    "qwen3-yarn": dict(arch="qwen3", about="q and k norms, yarn", keys=YARN, **YARN_MODEL),
    "gemma3": dict(GEMMA, about="7 layers (5 local, 1 global, 1 local), window 8, linear scaling of the global layer",
                   n_layer=7, tied=True, freq_base=1000000.0,
                   keys={"attention.sliding_window": 8, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
    "gemma3-pattern": dict(GEMMA, about="pattern 3, freq_base_swa, final softcap, untied output; 150 tokens, window 70",
                           n_layer=4, freq_base=100000.0, n_tokens=150,
                           keys={"attention.sliding_window": 70, "attention.sliding_window_pattern": 3,
                                 "rope.freq_base_swa": 500.0, "final_logit_softcapping": 5.0}),
    "gemma3-pattern-array": dict(GEMMA, about="the pattern as an array: global, local, local, global", n_layer=4,
                                 tied=True, freq_base=100000.0,
                                 keys={"attention.sliding_window": 10,
                                       "attention.sliding_window_pattern": [False, True, True, False]}),
    "gemma3-no-window": dict(GEMMA, about="no window: every layer global", tied=True, freq_base=100000.0),
    "gemma3-yarn": dict(GEMMA, about="yarn: on global layers only, attn_factor on all", n_layer=4, tied=True,
                        freq_base=1000.0, context_length=4096,
                        keys={**YARN, "rope.scaling.attn_factor": 1.2, "attention.sliding_window": 8,
                              "attention.sliding_window_pattern": 2, "rope.freq_base_swa": 300.0}),
    # Small additions to the residual stream: with larger ones 62 random layers would magnify any rounding.
    "gemma3-62-layers": dict(arch="gemma3", about="62 layers: the 27B model's query scale", n_layer=62, n_embd=16, n_ff=8,
                             n_head=2, n_head_kv=1, key_length=4, tied=True, freq_base=100000.0,
                             post_norm=(0.1, 0.22), keys={"attention.sliding_window": 8}),
    "phi3": dict(arch="phi3", about="fused qkv and gate_up; its sliding_window means nothing", fused_qkv=True,
                 keys={"attention.sliding_window": 8}),
    "phi3-long": dict(arch="phi3", about="longrope: context above the original length; 150 tokens", n_tokens=150, fused_qkv=True,
                      **dict(WIDE, key_length=None), tensors=LONGROPE,
                      keys={"rope.scaling.original_context_length": 128, "rope.scaling.attn_factor": 1.19}),
    "phi3-short": dict(arch="phi3", about="longrope: context equal to the original length", fused_qkv=True,
                       **dict(WIDE, key_length=None), tensors=LONGROPE,
                       keys={"rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.19}),
    "phi3-partial": dict(arch="phi3", about="12 of 16 dimensions rotated, longrope with a factor, tied output", tied=True,
                         fused_qkv=True, n_rot=12, **dict(WIDE, key_length=None), tensors=LONGROPE_12,
                         keys={"rope.scaling.type": "longrope", "rope.scaling.factor": 2.0,
                               "rope.scaling.original_context_length": 128, "rope.scaling.attn_factor": 1.19}),
    "phi3-separate": dict(arch="phi3", about="separate q, k, v"),
}


def vocabulary():
    """Tokens, scores and types of an SPM vocabulary; enough of one for a loader that insists on it."""
    kind = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>"]
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL, kind.BYTE]
    tokens += ["\u2581"] + [chr(ord("a") + i) for i in range(26)] + ["\u2581" + chr(ord("a") + i) for i in range(17)]
    types += [kind.NORMAL] * (len(tokens) - len(types))
    scores = [0.0] * 4 + [-float(i) for i in range(len(tokens) - 4)]
    assert len(tokens) == len(types) == N_VOCAB
    return tokens, scores, types


def tensors(m, rng):
    """Names and values. Magnitudes: attention scores of about 2.5, logits within about 10."""
    n_embd, n_ff, head = m["n_embd"], m["n_ff"], m["key_length"] or m["n_embd"] // m["n_head"]
    q_size, kv_size = m["n_head"] * head, m["n_head_kv"] * head
    normed = m["arch"] in ("qwen3", "gemma3")

    def matrix(rows, columns, gain):
        return (rng.standard_normal((rows, columns)) * gain / math.sqrt(columns)).astype(np.float32)

    def vector(n, low, high):
        return rng.uniform(low, high, n).astype(np.float32)

    out = {"token_embd.weight": matrix(N_VOCAB, n_embd, 2.5 if m["tied"] else 4.0)}
    out.update(m["tensors"])
    for i in range(m["n_layer"]):
        layer = {}
        layer["attn_norm.weight"] = vector(n_embd, 0.7, 1.3)
        gain = 1.0 if normed else 1.6
        q, k, v = matrix(q_size, n_embd, gain), matrix(kv_size, n_embd, gain), matrix(kv_size, n_embd, 1.0)
        if m["fused_qkv"]:
            layer["attn_qkv.weight"] = np.concatenate([q, k, v])
        else:
            layer["attn_q.weight"], layer["attn_k.weight"], layer["attn_v.weight"] = q, k, v
        if normed:
            layer["attn_q_norm.weight"], layer["attn_k_norm.weight"] = vector(head, 1.2, 2.0), vector(head, 1.2, 2.0)
        layer["attn_output.weight"] = matrix(n_embd, q_size, 1.0)
        layer["ffn_norm.weight"] = vector(n_embd, 0.7, 1.3)
        gate, up = matrix(n_ff, n_embd, 1.2), matrix(n_ff, n_embd, 1.2)
        if m["arch"] == "phi3":
            layer["ffn_up.weight"] = np.concatenate([gate, up])
        else:
            layer["ffn_gate.weight"], layer["ffn_up.weight"] = gate, up
        layer["ffn_down.weight"] = matrix(n_embd, n_ff, 1.2)
        if m["arch"] == "gemma3":
            layer["post_attention_norm.weight"] = vector(n_embd, *m["post_norm"])
            layer["post_ffw_norm.weight"] = vector(n_embd, *m["post_norm"])
        for name in m["bias"]:
            layer[name + ".bias"] = vector(layer[name + ".weight"].shape[0], -0.7, 0.7)
        for name in m["scale"]:
            layer[name + ".scale"] = vector(1, 0.6, 1.4)
        out.update({f"blk.{i}.{name}": value for name, value in layer.items()})
    out["output_norm.weight"] = vector(n_embd, 0.7, 1.3)
    if not m["tied"]:
        out["output.weight"] = matrix(N_VOCAB, n_embd, 3.0)
    return out


def write(name, m, path):
    m = {**DEFAULTS, **m}
    arch = m["arch"]
    writer = gguf.GGUFWriter(path, arch)
    # Not the model's name: llama.cpp treats the vocabulary of anything named phi3 in a way of its own.
    writer.add_name("random weights")
    writer.add_description(m["about"])
    writer.add_license("MIT OR Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(m["context_length"])
    writer.add_embedding_length(m["n_embd"])
    writer.add_block_count(m["n_layer"])
    arrays = (lambda x: [x] * m["n_layer"]) if m.get("arrays") else (lambda x: x)
    writer.add_feed_forward_length(arrays(m["n_ff"]))
    writer.add_head_count(arrays(m["n_head"]))
    writer.add_head_count_kv(arrays(m["n_head_kv"]))
    if m["key_length"]:
        writer.add_key_length(m["key_length"])
        writer.add_value_length(m["key_length"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(m["n_rot"] or m["key_length"] or m["n_embd"] // m["n_head"])
    writer.add_rope_freq_base(m["freq_base"])
    for key, value in m["keys"].items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32, list: writer.add_array}[type(value)]
        add(f"{arch}.{key}", value)
    tokens, scores, types = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for tensor, value in tensors(m, np.random.default_rng(zlib.crc32(name.encode()))).items():
        writer.add_tensor(tensor, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    default = pathlib.Path(__file__).parent / "vectors"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    out.mkdir(parents=True, exist_ok=True)
    for name, m in MODELS.items():
        write(name, m, out / f"{name}.gguf")
        print(f"{name}: {(out / f'{name}.gguf').stat().st_size} bytes")


if __name__ == "__main__":
    main()
