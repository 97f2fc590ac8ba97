"""The forward pass of llama, qwen2, qwen3, gemma3 and phi3 in float64, written to be read.

It reads a GGUF file and computes the logits of every position with no cache, no batching and no rounding beyond
float64, from the published formulas: RMSNorm (arXiv:1910.07467), RoPE (2104.09864), GQA (2305.13245), SwiGLU
(2002.05202), position interpolation (2306.15595), YaRN (2309.00071), LongRoPE (2402.13753), the Gemma 3 report
(2503.19786) and the keys of the GGUF specification. Where a file can be read in two ways, it follows llama.cpp, for
whose use such files are made; those places are marked "as llama.cpp".

usage: ideal.py MODEL.gguf ID,ID,... [N_CTX]    prints the top 5 logits of each position
"""

import dataclasses
import math
import sys

import gguf
import numpy as np


@dataclasses.dataclass
class Config:
    """The hyperparameters of one file; a field is a metadata key unless said otherwise."""

    arch: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    key_length: int
    n_rot: int
    eps: float
    context_length: int
    freq_base: float = 10000.0
    freq_base_swa: float = 10000.0
    scaling_type: str = "linear"
    factor: float = 1.0
    original_context_length: int = 0
    attn_factor: float = 1.0
    window: int = 0  # 0: every layer sees everything before it
    local: tuple = ()  # per layer: True where attention is limited to the window
    attention_scale: float = 0.0
    embedding_scale: float = 1.0
    logit_softcap: float = 0.0
    # Not metadata; switches that only the sensitivity check turns.
    neox: bool = True
    window_edge: int = 0


def load(path):
    """The configuration and the weights, matrices as [outputs, inputs] in float64."""
    reader = gguf.GGUFReader(path)

    def raw(key):
        field = reader.get_field(key)
        return None if field is None else field.contents()

    arch = raw("general.architecture")
    n_layer = raw(f"{arch}.block_count")

    def get(key, default=None):
        value = raw(f"{arch}.{key}")
        if value is None:
            value = default
        if isinstance(value, list) and key.startswith("attention.head_count"):
            assert len(value) == n_layer and len(set(value)) == 1
            value = value[0]
        return value

    n_embd = get("embedding_length")
    n_head = get("attention.head_count")
    key_length = get("attention.key_length", n_embd // n_head)
    assert get("attention.value_length", n_embd // n_head) == key_length
    context_length = get("context_length")
    # 0 or absent: not scaled. `rope.scale_linear` is the key's older name.
    factor = get("rope.scaling.factor", get("rope.scale_linear", 0.0)) or 1.0
    config = Config(
        arch=arch,
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=get("attention.head_count_kv", n_head),
        key_length=key_length,
        n_rot=get("rope.dimension_count", key_length),
        eps=get("attention.layer_norm_rms_epsilon"),
        context_length=context_length,
        freq_base=get("rope.freq_base", 10000.0),
        scaling_type=get("rope.scaling.type", "linear"),
        factor=factor,
        original_context_length=get("rope.scaling.original_context_length", context_length),
        attn_factor=get("rope.scaling.attn_factor", 1.0),
        local=(False,) * n_layer,
        attention_scale=1.0 / math.sqrt(key_length),
        # llama pairs neighbouring values (its q and k rows are permuted by the converter), the others halves.
        neox=arch != "llama",
    )
    if arch == "gemma3":
        config.embedding_scale = math.sqrt(n_embd)
        config.logit_softcap = get("final_logit_softcapping", 0.0)
        config.window = get("attention.sliding_window", 0)
        if config.window > 0:
            pattern = get("attention.sliding_window_pattern", 6)
            if isinstance(pattern, list):
                config.local = tuple(bool(x) for x in pattern)
            else:
                # The last layer of each group of `pattern` is global.
                config.local = tuple(pattern == 0 or i % pattern != pattern - 1 for i in range(n_layer))
            config.freq_base_swa = get("rope.freq_base_swa", 10000.0)
        if n_layer == 62:  # as llama.cpp: nothing but its depth tells the 27B model, whose query scale differs
            config.attention_scale = 1.0 / math.sqrt(n_embd // n_head)
    # As llama.cpp: `attention.sliding_window` means nothing in llama, qwen2, qwen3 and phi3 files.

    weights = {}
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        weights[tensor.name] = np.asarray(data, dtype=np.float64).reshape(tuple(int(n) for n in tensor.shape)[::-1])
    return config, weights


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1.0 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def linear(w, name, x):
    """`x` times the matrix `name`.weight, times `name`.scale and plus `name`.bias where the file has them."""
    y = x @ w[name + ".weight"].T
    if name + ".scale" in w:
        y = y * w[name + ".scale"]
    return y + w[name + ".bias"] if name + ".bias" in w else y


def rope_factors(c, w, n_ctx):
    """What divides the frequencies: Llama 3's smoothed factors, or LongRoPE's, chosen by the size of the context."""
    if c.arch == "phi3" or (c.arch == "llama" and c.scaling_type == "longrope"):
        # As llama.cpp: the allocated context decides, not the text's length so far; equal is still short.
        which = "long" if n_ctx > c.original_context_length else "short"
        return w.get(f"rope_factors_{which}.weight", np.ones(c.n_rot // 2))
    return w.get("rope_freqs.weight", np.ones(c.n_rot // 2))


def rope_angles(c, positions, base, factor, divisors):
    """Angles [position, pair] and the magnitude of the rotation."""
    pair = np.arange(c.n_rot // 2)
    extrapolated = positions[:, None] * base ** (-2.0 * pair / c.n_rot) / divisors
    interpolated = extrapolated / factor
    if c.scaling_type != "yarn":
        return interpolated, c.attn_factor

    def correction_dim(rotations):
        """The pair that turns `rotations` times within the original context."""
        return c.n_rot * math.log(c.original_context_length / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(correction_dim(32)))
    high = min(c.n_rot - 1, math.ceil(correction_dim(1)))
    keep = 1.0 - np.clip((pair - low) / max(0.001, high - low), 0.0, 1.0)
    magnitude = c.attn_factor * (1.0 + 0.1 * math.log(factor) if factor > 1 else 1.0)
    return interpolated * (1.0 - keep) + extrapolated * keep, magnitude


def rotate(c, x, angles, magnitude):
    """`x` [position, head, key_length] rotated in its first n_rot values."""
    cos, sin = (magnitude * f(angles)[:, None, :] for f in (np.cos, np.sin))
    half = c.n_rot // 2
    first, second = (slice(0, half), slice(half, c.n_rot)) if c.neox else (slice(0, c.n_rot, 2), slice(1, c.n_rot, 2))
    y = x.copy()
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y


def attention(c, q, k, v, window):
    """Causal attention; `window` positions, the query's own among them, or all where it is 0."""
    n = q.shape[0]
    group = c.n_head // c.n_head_kv
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) * c.attention_scale
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    visible = distance >= 0
    if window > 0:
        visible &= distance < window + c.window_edge
    scores = np.where(visible, scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", p, v).reshape(n, -1)


def forward(c, w, tokens, n_ctx, gelu=gelu_tanh):
    """Logits [position, vocabulary] of `tokens` from position 0 in a context of `n_ctx` positions."""
    n = len(tokens)
    positions = np.arange(n, dtype=np.float64)
    x = w["token_embd.weight"][tokens] * c.embedding_scale
    divisors = rope_factors(c, w, n_ctx)
    factor = 1.0 if c.scaling_type == "none" else c.factor
    q_size, kv_size = c.n_head * c.key_length, c.n_head_kv * c.key_length

    for i in range(c.n_layer):
        b = f"blk.{i}."
        local = c.local[i]

        # Attention. Local layers of gemma3 have their own base and are never scaled.
        h = rms_norm(x, w[b + "attn_norm.weight"], c.eps)
        if b + "attn_qkv.weight" in w:
            q, k, v = np.split(linear(w, b + "attn_qkv", h), [q_size, q_size + kv_size], axis=-1)
        else:
            q, k, v = (linear(w, b + name, h) for name in ("attn_q", "attn_k", "attn_v"))
        q = q.reshape(n, c.n_head, c.key_length)
        k = k.reshape(n, c.n_head_kv, c.key_length)
        v = v.reshape(n, c.n_head_kv, c.key_length)
        if b + "attn_q_norm.weight" in w:
            q = rms_norm(q, w[b + "attn_q_norm.weight"], c.eps)
            k = rms_norm(k, w[b + "attn_k_norm.weight"], c.eps)
        base = c.freq_base_swa if local else c.freq_base
        angles, magnitude = rope_angles(c, positions, base, 1.0 if local else factor, divisors)
        q, k = rotate(c, q, angles, magnitude), rotate(c, k, angles, magnitude)
        h = linear(w, b + "attn_output", attention(c, q, k, v, c.window if local else 0))
        if b + "post_attention_norm.weight" in w:
            h = rms_norm(h, w[b + "post_attention_norm.weight"], c.eps)
        x = x + h

        # Feed-forward.
        h = rms_norm(x, w[b + "ffn_norm.weight"], c.eps)
        if b + "ffn_gate.weight" in w:
            gate, up = linear(w, b + "ffn_gate", h), linear(w, b + "ffn_up", h)
        else:  # phi3: one matrix, the gate's rows first
            gate, up = np.split(linear(w, b + "ffn_up", h), 2, axis=-1)
        activation = gelu if c.arch == "gemma3" else silu
        h = linear(w, b + "ffn_down", activation(gate) * up)
        if b + "post_ffw_norm.weight" in w:
            h = rms_norm(h, w[b + "post_ffw_norm.weight"], c.eps)
        x = x + h

    x = rms_norm(x, w["output_norm.weight"], c.eps)
    logits = linear(w, "output" if "output.weight" in w else "token_embd", x)
    if c.logit_softcap > 0:
        logits = c.logit_softcap * np.tanh(logits / c.logit_softcap)
    return logits


def main():
    tokens = [int(t) for t in sys.argv[2].split(",")]
    config, weights = load(sys.argv[1])
    n_ctx = int(sys.argv[3]) if len(sys.argv) > 3 else 256
    for position, row in enumerate(forward(config, weights, tokens, n_ctx)):
        top = np.argsort(-row, kind="stable")[:5]
        print(position, " ".join(f"{t}:{row[t]:.4f}" for t in top))


if __name__ == "__main__":
    main()
