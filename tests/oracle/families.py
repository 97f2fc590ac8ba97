"""The forward pass of families with experts, recurrent layers and latent attention in float64, written to be read.

As `ideal.py`: no cache, no batching, no rounding beyond float64, one function per part, each position after the other where
a part has a state. Sources beside those of `ideal.py`: Switch Transformers (arXiv:2101.03961), DeepSeekMoE (2401.06066), DeepSeek-V2
(2405.04434, latent attention), Gated DeltaNet (2412.06464), Mamba 2 (2405.21060), the gpt-oss model card (2508.10925, sinks), the
technical reports of the families, and for the meaning of the files llama.cpp, for whose use they are made.

usage: families.py MODEL.gguf ID,ID,...    prints the top 5 logits of each position
"""

import math
import sys

import gguf
import numpy as np

from ideal import gelu_tanh, silu


def load(path):
    """The metadata below the architecture's name, and the weights, matrices as [outputs, inputs] in float64."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    arch = fields["general.architecture"]
    keys = {name[len(arch) + 1 :]: value for name, value in fields.items() if name.startswith(arch + ".")}
    weights = {}
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        weights[tensor.name] = np.asarray(data, dtype=np.float64).reshape(tuple(int(n) for n in tensor.shape)[::-1])
    return arch, keys, weights


def rms(x, weight=None, eps=1e-5):
    y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return y if weight is None else y * weight


def layer_norm(x, weight, eps):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps) * weight


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0.0, x)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def of_layer(value, i):
    """A key that is one number, or one for each layer."""
    return value[i] if isinstance(value, list) else value


class Layer:
    """The tensors of one layer by their short names, and what is computed with them."""

    def __init__(self, weights, index):
        prefix = f"blk.{index}."
        self.w = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}

    def has(self, name):
        return name in self.w

    def __call__(self, name, x):
        """x times the matrix, plus the bias where there is one."""
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def __getitem__(self, name):
        return self.w[name]


# Attention


def yarn(keys, n_rot, base, positions):
    """Angles [position, pair] and the magnitude of the rotation, scaled where the file says so."""
    pair = np.arange(n_rot // 2)
    fast = positions[:, None] * base ** (-2.0 * pair / n_rot)
    factor = keys.get("rope.scaling.factor", 1.0) or 1.0
    if keys.get("rope.scaling.type") != "yarn":
        return fast / (factor if keys.get("rope.scaling.type") == "linear" else 1.0), 1.0
    original = keys["rope.scaling.original_context_length"]

    def turns(n):
        return n_rot * math.log(original / (n * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(0, math.floor(turns(32))), min(n_rot - 1, math.ceil(turns(1)))
    ramp = 1.0 - np.clip((pair - low) / max(0.001, high - low), 0.0, 1.0)
    return fast * ramp + fast / factor * (1.0 - ramp), 1.0 + 0.1 * math.log(factor)


def rotate(x, angles, magnitude, neighbours):
    """`x` [position, head, values] rotated in its first values, two for each angle."""
    cos, sin = magnitude * np.cos(angles)[:, None, :], magnitude * np.sin(angles)[:, None, :]
    half = angles.shape[1]
    a, b = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if neighbours else (slice(0, half), slice(half, 2 * half))
    y = x.copy()
    y[..., a] = x[..., a] * cos - x[..., b] * sin
    y[..., b] = x[..., a] * sin + x[..., b] * cos
    return y


def attend(q, k, v, scale, visible, sinks=None):
    """`q` [position, head, values] over `k` and `v` with fewer heads; a sink is one more score without a value."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.where(visible[None], np.einsum("qhd,khd->hqk", q, k) * scale, -np.inf)
    if sinks is not None:
        column = np.broadcast_to(sinks[:, None, None], (*scores.shape[:2], 1))
        p = softmax(np.concatenate([scores, column], axis=-1))[..., :-1]
    else:
        p = softmax(scores)
    return np.einsum("hqk,khd->qhd", p, v)


def visible(n, window=0, chunk=0):
    q, k = np.arange(n)[:, None], np.arange(n)[None, :]
    seen = k <= q
    if window:
        seen &= q - k < window
    if chunk:
        seen &= q // chunk == k // chunk
    return seen


# Experts


def experts(layer, x, *, used, gating, route=None, normalise=False, scale=1.0, groups=(1, 1), activation=None, on_input=False):
    """Each position's best experts, their outputs weighed; `route` is what the router reads where that is not x."""
    activation = activation or (lambda gate, up: silu(gate) * up)
    logits = layer("ffn_gate_inp", x if route is None else route)
    scores = {"softmax": softmax, "sigmoid": sigmoid, "selected": lambda z: z, "raw": lambda z: z}[gating](logits)
    selection = scores + (layer["exp_probs_b.bias"] if layer.has("exp_probs_b.bias") else 0.0)
    out = np.zeros((len(x), layer["ffn_down_exps.weight"].shape[1]))
    for t in range(len(x)):
        chosen = selection[t].copy()
        count, kept = groups
        if count > 1:
            parts = chosen.reshape(count, -1)
            best = np.sort(parts, axis=-1)[:, -2:].sum(axis=-1)
            for group in np.argsort(-best, kind="stable")[kept:]:
                parts[group] = -np.inf
        chosen = np.argsort(-chosen, kind="stable")[:used]
        weights = scores[t][chosen]
        if gating == "selected":
            weights = softmax(weights)
        if gating == "raw":
            weights = sigmoid(weights)
        if normalise:
            weights = weights / max(weights.sum(), 2.0**-14)
        for e, weight in zip(chosen, weights * scale):
            h = x[t] * weight if on_input else x[t]

            def part(name, h, e=e):
                y = layer[f"ffn_{name}_exps.weight"][e] @ h
                bias, factor = f"ffn_{name}_exps.bias", f"ffn_{name}_exps.scale"
                y = y * layer[factor][e] if layer.has(factor) else y
                return y + layer[bias][e] if layer.has(bias) else y

            if layer.has("ffn_gate_up_exps.weight"):
                gate, up = np.split(part("gate_up", h), 2)
            else:
                gate = part("gate", h) if layer.has("ffn_gate_exps.weight") else None
                up = part("up", h)
            out[t] += part("down", activation(gate, up)) * (1.0 if on_input else weight)
    return out


def limited(limit, activation=silu):
    """Silu times what it gates, where there is a limit the one cut above it and the other on both sides."""
    if limit <= 1e-6:
        return lambda gate, up: activation(gate) * up
    return lambda gate, up: np.minimum(activation(gate), limit) * np.clip(up, -limit, limit)


def gated(layer, x, suffix="", activation=silu, limit=0.0):
    return layer("ffn_down" + suffix, limited(limit, activation)(layer("ffn_gate" + suffix, x), layer("ffn_up" + suffix, x)))


# Recurrent layers


def causal_conv(x, weight, bias=0.0):
    """Each channel by itself: `weight` [channel, tap], the last tap for the position itself."""
    taps = weight.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1])), x])
    return sum(padded[j : j + len(x)] * weight[:, j] for j in range(taps)) + bias


def delta_net(keys, layer, x, grouped):
    """Gated delta rule, one position after the other."""
    n = len(x)
    state, n_k = keys["ssm.state_size"], keys["ssm.group_count"]
    n_v = keys["ssm.time_step_rank"]
    head_v = keys["ssm.inner_size"] // n_v
    key_dim, value_dim = n_k * state, n_v * head_v
    per = n_v // n_k
    eps = keys["attention.layer_norm_rms_epsilon"]
    if layer.has("ssm_in.weight"):
        parts = layer("ssm_in", x).reshape(n, n_k, 2 * state + 2 * per * head_v)
        cuts = [state, 2 * state, 2 * state + per * head_v]
        q, k, v, z = (part.reshape(n, -1) for part in np.split(parts, cuts, axis=-1))
        qkv = np.concatenate([q, k, v], axis=-1)
    else:
        qkv, z = layer("attn_qkv", x), layer("attn_gate", x)
    if layer.has("ssm_ba.weight"):
        ba = layer("ssm_ba", x).reshape(n, n_k, 2 * per)
        beta, alpha = (part.reshape(n, n_v) for part in np.split(ba, 2, axis=-1))
    else:
        beta, alpha = layer("ssm_beta", x), layer("ssm_alpha", x)
    beta = sigmoid(beta)
    decay = np.exp(layer["ssm_a"] * softplus(alpha + layer["ssm_dt.bias"]))
    qkv = silu(causal_conv(qkv, layer["ssm_conv1d.weight"]))
    q, k, v = np.split(qkv, [key_dim, 2 * key_dim], axis=-1)
    unit = lambda y: y / np.sqrt((y * y).sum(axis=-1, keepdims=True) + eps)
    q = unit(q.reshape(n, n_k, state)) / math.sqrt(state)
    k = unit(k.reshape(n, n_k, state))
    v = v.reshape(n, n_v, head_v)
    out = np.zeros((n, n_v, head_v))
    for h in range(n_v):
        source = h // per if grouped else h % n_k
        s = np.zeros((state, head_v))
        for t in range(n):
            s = s * decay[t, h]
            s = s + np.outer(k[t, source], (v[t, h] - s.T @ k[t, source]) * beta[t, h])
            out[t, h] = s.T @ q[t, source]
    out = rms(out, layer["ssm_norm.weight"], eps) * silu(z.reshape(n, n_v, head_v))
    return layer("ssm_out", out.reshape(n, value_dim))


def short_conv(layer, x):
    b, c, y = np.split(layer("shortconv.in_proj", x), 3, axis=-1)
    return layer("shortconv.out_proj", c * causal_conv(b * y, layer["shortconv.conv.weight"]))


def mamba2(keys, layer, x, eps):
    n = len(x)
    inner, state, heads, groups = (keys["ssm." + key] for key in ("inner_size", "state_size", "time_step_rank", "group_count"))
    head = inner // heads
    z, xbc, dt = np.split(layer("ssm_in", x), [inner, 2 * inner + 2 * groups * state], axis=-1)
    xbc = silu(causal_conv(xbc, layer["ssm_conv1d.weight"], layer["ssm_conv1d.bias"]))
    y, b, c = np.split(xbc, [inner, inner + groups * state], axis=-1)
    y, b, c = y.reshape(n, heads, head), b.reshape(n, groups, state), c.reshape(n, groups, state)
    dt = softplus(dt + layer["ssm_dt.bias"])
    a, d = layer["ssm_a"].reshape(-1), layer["ssm_d"].reshape(-1)
    out = np.zeros((n, heads, head))
    for h in range(heads):
        group = h // (heads // groups)
        s = np.zeros((head, state))
        for t in range(n):
            s = s * math.exp(dt[t, h] * a[h]) + np.outer(y[t, h] * dt[t, h], b[t, group])
            out[t, h] = s @ c[t, group] + d[h] * y[t, h]
    out = (out.reshape(n, inner) * silu(z)).reshape(n, groups, -1)
    return layer("ssm_out", rms(out, layer["ssm_norm.weight"].reshape(groups, -1), eps).reshape(n, inner))


# Families


def plain_attention(keys, layer, x, *, neighbours, window=0, chunk=0, rope=True, base=None, whole=False, gate=False, after=None,
                    sinks=None, scale=None, n_heads=None, n_kv=None):
    """Grouped heads from separate matrices, with what the keywords say."""
    n = len(x)
    heads = n_heads or keys["attention.head_count"]
    kv = n_kv or keys["attention.head_count_kv"]
    head = keys.get("attention.key_length", x.shape[1] // heads)
    eps = keys.get("attention.layer_norm_rms_epsilon", keys.get("attention.layer_norm_epsilon"))
    q, k, v = layer("attn_q", x), layer("attn_k", x), layer("attn_v", x)
    if gate:
        q, gate = np.split(q.reshape(n, heads, 2 * head), 2, axis=-1)
    if whole:
        q, k = rms(q, layer["attn_q_norm.weight"], eps), rms(k, layer["attn_k_norm.weight"], eps)
    q, k, v = q.reshape(n, heads, head), k.reshape(n, kv, head), v.reshape(n, kv, head)
    if layer.has("attn_q_norm.weight") and not whole:
        q, k = rms(q, layer["attn_q_norm.weight"], eps), rms(k, layer["attn_k_norm.weight"], eps)
    if rope:
        n_rot = keys.get("rope.dimension_count", head)
        angles, magnitude = yarn(keys, n_rot, base or keys.get("rope.freq_base", 10000.0), np.arange(n, dtype=np.float64))
        q, k = rotate(q, angles, magnitude, neighbours), rotate(k, angles, magnitude, neighbours)
    if after is not None:
        q, k = after(q, k)
    out = attend(q, k, v, scale or 1.0 / math.sqrt(head), visible(n, window, chunk), sinks)
    if gate is not False:
        out = out * sigmoid(gate)
    return layer("attn_output", out.reshape(n, -1))


def latent_attention(keys, layer, x, eps):
    """MLA, absorbed: queries are brought into the space of what is cached."""
    n, heads = len(x), keys["attention.head_count"]
    lora, n_rot = keys["attention.kv_lora_rank"], keys["rope.dimension_count"]
    nope = keys["attention.key_length_mla"] - n_rot
    q = layer("attn_q_b", rms(layer("attn_q_a", x), layer["attn_q_a_norm.weight"], eps)).reshape(n, heads, nope + n_rot)
    kv = layer("attn_kv_a_mqa", x)
    latent = rms(kv[:, :lora], layer["attn_kv_a_norm.weight"], eps)[:, None, :]
    angles, magnitude = yarn(keys, n_rot, keys.get("rope.freq_base", 10000.0), np.arange(n, dtype=np.float64))
    q_rot = rotate(q[..., nope:], angles, magnitude, True)
    k_rot = rotate(kv[:, None, lora:], angles, magnitude, True)
    q = np.concatenate([np.einsum("qhn,hln->qhl", q[..., :nope], layer["attn_k_b.weight"]), q_rot], axis=-1)
    scale = 1.0 / math.sqrt(nope + n_rot)
    out = attend(q, np.concatenate([latent, k_rot], axis=-1), latent, scale, visible(n))
    return layer("attn_output", np.einsum("qhl,hvl->qhv", out, layer["attn_v_b.weight"]).reshape(n, -1))


def gpt_oss_gate(gate, up):
    gate, up = np.minimum(gate, 7.0), np.clip(up, -7.0, 7.0)
    return gate * sigmoid(1.702 * gate) * (up + 1.0)


def gemma4_layer(keys, weights, layer, i, x, pl, cache, gelu):
    n, eps = len(x), keys["attention.layer_norm_rms_epsilon"]
    local = keys["attention.sliding_window_pattern"][i]
    heads, kv = keys["attention.head_count"], of_layer(keys["attention.head_count_kv"], i)
    head = keys["attention.key_length_swa" if local else "attention.key_length"]
    first_shared = keys["block_count"] - keys.get("attention.shared_kv_layers", 0)
    positions = np.arange(n, dtype=np.float64)
    pair = np.arange(head // 2)
    base = keys.get("rope.freq_base_swa" if local else "rope.freq_base", 10000.0)
    angles = positions[:, None] * base ** (-2.0 * pair / head)
    if not local and "rope_freqs.weight" in weights:
        angles = angles / weights["rope_freqs.weight"]
    h = rms(x, layer["attn_norm.weight"], eps)
    q = rms(layer("attn_q", h).reshape(n, heads, head), layer["attn_q_norm.weight"], eps)
    q = rotate(q, angles, 1.0, False)
    if i < first_shared:
        k = layer("attn_k", h).reshape(n, kv, head)
        v = layer("attn_v", h).reshape(n, kv, head) if layer.has("attn_v.weight") else k
        k = rotate(rms(k, layer["attn_k_norm.weight"], eps), angles, 1.0, False)
        cache[i] = (k, rms(v, None, eps))
    k, v = cache[i] if i < first_shared else cache[first_shared - (2 if local else 1)]
    h = attend(q, k, v, 1.0, visible(n, keys["attention.sliding_window"] if local else 0))
    x = x + rms(layer("attn_output", h.reshape(n, -1)), layer["post_attention_norm.weight"], eps)
    dense = gated(layer, rms(x, layer["ffn_norm.weight"], eps), activation=gelu)
    if layer.has("ffn_gate_inp.weight"):
        dense = rms(dense, layer["post_ffw_norm_1.weight"], eps)
        route = rms(x, None, eps) / math.sqrt(x.shape[1]) * layer["ffn_gate_inp.scale"]
        mixed = experts(layer, rms(x, layer["pre_ffw_norm_2.weight"], eps), used=keys["expert_used_count"], gating="softmax",
                        route=route, normalise=True, activation=lambda gate, up: gelu(gate) * up)
        dense = dense + rms(mixed, layer["post_ffw_norm_2.weight"], eps)
    x = x + rms(dense, layer["post_ffw_norm.weight"], eps)
    if pl is not None:
        y = layer("proj", gelu(layer("inp_gate", x)) * pl[:, i])
        x = x + rms(y, layer["post_norm.weight"], eps)
    return x * layer["layer_output_scale.weight"] if layer.has("layer_output_scale.weight") else x


def per_layer_rows(keys, weights, tokens, x):
    """gemma4's second embedding: [position, layer, values]."""
    width, layers = keys.get("embedding_length_per_layer_input", 0), keys["block_count"]
    if not width:
        return None
    rows = weights["per_layer_token_embd.weight"][tokens].reshape(len(tokens), layers, width) * math.sqrt(width)
    projected = (x @ weights["per_layer_model_proj.weight"].T / math.sqrt(x.shape[1])).reshape(rows.shape)
    projected = rms(projected, weights["per_layer_proj_norm.weight"], keys["attention.layer_norm_rms_epsilon"])
    return (projected + rows) / math.sqrt(2.0)


def forward(arch, keys, weights, tokens, gelu=gelu_tanh):
    """Logits [position, vocabulary] of `tokens` from position 0."""
    eps = keys.get("attention.layer_norm_rms_epsilon", keys.get("attention.layer_norm_epsilon"))
    x = weights["token_embd.weight"][tokens]
    if arch == "gemma4":
        x = x * math.sqrt(x.shape[1])
    x = x * (keys.get("embedding_scale", 0.0) or 1.0)
    pl = per_layer_rows(keys, weights, tokens, x)
    branch = keys.get("residual_scale", 0.0) or 1.0
    cache, used = {}, keys.get("expert_used_count", 0)
    for i in range(keys["block_count"]):
        layer = Layer(weights, i)
        normed = lambda name, x=x, layer=layer: rms(x, layer[name + ".weight"], eps)
        if arch == "gemma4":
            x = gemma4_layer(keys, weights, layer, i, x, pl, cache, gelu)
        elif arch == "qwen3moe":
            x = x + plain_attention(keys, layer, normed("attn_norm"), neighbours=False)
            x = x + experts(layer, rms(x, layer["ffn_norm.weight"], eps), used=used, gating="softmax", normalise=True)
        elif arch in ("qwen35moe", "qwen3next"):
            recurrent = (i + 1) % keys.get("full_attention_interval", 4) != 0
            h = normed("attn_norm")
            if recurrent:
                x = x + delta_net(keys, layer, h, arch == "qwen3next")
            else:
                x = x + plain_attention(keys, layer, h, neighbours=False, gate=True)
            h = rms(x, layer["post_attention_norm.weight"], eps)
            limit, shared_limit = (of_layer(keys.get("swiglu_clamp_" + which, 0.0), i) for which in ("exp", "shexp"))
            shared = gated(layer, h, "_shexp", limit=shared_limit)
            shared = shared * sigmoid(h @ layer["ffn_gate_inp_shexp.weight"].reshape(-1))[:, None]
            x = x + experts(layer, h, used=used, gating="softmax", normalise=True, activation=limited(limit)) + shared
        elif arch == "gpt-oss":
            local = keys["attention.sliding_window"] if i % 2 == 0 else 0
            x = x + plain_attention(keys, layer, normed("attn_norm"), neighbours=False, window=local, sinks=layer["attn_sinks.weight"])
            h = rms(x, layer["post_attention_norm.weight"], eps)
            x = x + experts(layer, h, used=used, gating="selected", activation=gpt_oss_gate)
        elif arch == "lfm2moe":
            h = normed("attn_norm")
            if of_layer(keys["attention.head_count_kv"], i) == 0:
                x = x + short_conv(layer, h)
            else:
                x = x + plain_attention(keys, layer, h, neighbours=False, n_kv=of_layer(keys["attention.head_count_kv"], i))
            h = rms(x, layer["ffn_norm.weight"], eps)
            dense = i < keys["leading_dense_block_count"]
            x = x + (gated(layer, h) if dense else experts(layer, h, used=used, gating="sigmoid", normalise=True))
        elif arch == "granitehybrid":
            h = normed("attn_norm")
            if of_layer(keys["attention.head_count_kv"], i) == 0:
                h = mamba2(keys, layer, h, eps)
            else:
                h = plain_attention(keys, layer, h, neighbours=True, rope=keys.get("rope.scaling.finetuned", True),
                                    scale=keys["attention.scale"], n_kv=of_layer(keys["attention.head_count_kv"], i))
            x = x + branch * h
            h = rms(x, layer["ffn_norm.weight"], eps)
            x = x + branch * (experts(layer, h, used=used, gating="softmax", normalise=True) + gated(layer, h, "_shexp"))
        elif arch == "nemotron_h_moe":
            h = normed("attn_norm")
            if of_layer(keys["feed_forward_length"], i):
                square = lambda gate, up: np.maximum(up, 0.0) ** 2
                shared = layer("ffn_down_shexp", square(None, layer("ffn_up_shexp", h)))
                x = x + shared + experts(layer, h, used=used, gating="sigmoid", normalise=keys.get("expert_weights_norm", False),
                                         scale=keys.get("expert_weights_scale", 0.0) or 1.0, activation=square)
            elif of_layer(keys["attention.head_count_kv"], i):
                x = x + plain_attention(keys, layer, h, neighbours=True, rope=False, n_kv=of_layer(keys["attention.head_count_kv"], i))
            else:
                x = x + mamba2(keys, layer, h, eps)
        elif arch == "deepseek2":
            x = x + latent_attention(keys, layer, normed("attn_norm"), eps)
            h = rms(x, layer["ffn_norm.weight"], eps)
            if i < keys["leading_dense_block_count"]:
                x = x + gated(layer, h)
            else:
                mixed = experts(layer, h, used=used, gating="sigmoid", normalise=True, scale=keys["expert_weights_scale"],
                                groups=(keys["expert_group_count"], keys["expert_group_used_count"]))
                x = x + mixed + gated(layer, h, "_shexp")
        elif arch == "llama4":
            full = i % 4 == 3
            n = len(x)
            steps = np.log(np.floor((np.arange(n) + 1) / 8192) + 1) * 0.1 + 1
            after = (lambda q, k, s=steps: (q * s[:, None, None], k)) if full else (lambda q, k: (rms(q, None, eps), rms(k, None, eps)))
            x = x + plain_attention(keys, layer, normed("attn_norm"), neighbours=True, rope=not full, after=after, chunk=0 if full else 8192)
            h = rms(x, layer["ffn_norm.weight"], eps)
            if (i + 1) % keys["interleave_moe_layer_step"] == 0:
                x = x + experts(layer, h, used=used, gating="raw", on_input=True) + gated(layer, h, "_shexp")
            else:
                x = x + gated(layer, h)
        elif arch == "minimax-m2":
            x = x + plain_attention(keys, layer, normed("attn_norm"), neighbours=False, whole=True)
            x = x + experts(layer, rms(x, layer["ffn_norm.weight"], eps), used=used, gating="sigmoid", normalise=True)
        elif arch == "cohere2":
            h = layer_norm(x, layer["attn_norm.weight"], eps)
            local = i % 4 < 3
            window = keys["attention.sliding_window"] if local else 0
            x = x + plain_attention(keys, layer, h, neighbours=True, window=window, rope=local) + gated(layer, h)
        else:
            raise ValueError(arch)
    name = "token_embd_norm.weight" if arch == "lfm2moe" else "output_norm.weight"
    x = layer_norm(x, weights[name], eps) if arch == "cohere2" else rms(x, weights[name], eps)
    logits = x @ weights.get("output.weight", weights["token_embd.weight"]).T
    if arch == "cohere2":
        logits = logits * keys["logit_scale"]
    elif keys.get("logit_scale"):
        logits = logits / keys["logit_scale"]
    cap = keys.get("final_logit_softcapping", 30.0) if arch == "gemma4" else 0.0
    return cap * np.tanh(logits / cap) if cap else logits


def main():
    tokens = [int(t) for t in sys.argv[2].split(",")]
    for position, row in enumerate(forward(*load(sys.argv[1]), tokens)):
        top = np.argsort(-row, kind="stable")[:5]
        print(position, " ".join(f"{t}:{row[t]:.4f}" for t in top))


if __name__ == "__main__":
    main()
