"""The demonstration model: a small llama-architecture decoder in JAX.

Shapes follow llama.cpp's GGUF conventions, so export is a plain copy:
every matrix is stored [out, in] and applied as `x @ w.T`, and RoPE turns the
interleaved pairs (2i, 2i+1) of a head, which is what the `llama` architecture
of GGUF means; no permutation of q and k is needed.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Config:
    # Every matrix dimension is a multiple of 256, the super-block of the K-quants.
    vocab_size: int = 2048
    n_embd: int = 256
    n_layer: int = 4
    n_head: int = 8
    n_kv_head: int = 4
    head_dim: int = 64
    n_ff: int = 768
    n_ctx: int = 512
    rope_theta: float = 10000.0
    rms_eps: float = 1e-5


MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def matrix_shapes(c: Config):
    q, kv = c.n_head * c.head_dim, c.n_kv_head * c.head_dim
    return {
        "attn_q": (q, c.n_embd),
        "attn_k": (kv, c.n_embd),
        "attn_v": (kv, c.n_embd),
        "attn_output": (c.n_embd, q),
        "ffn_gate": (c.n_ff, c.n_embd),
        "ffn_up": (c.n_ff, c.n_embd),
        "ffn_down": (c.n_embd, c.n_ff),
    }


def init_params(c: Config, seed: int):
    """A flat dict keyed by GGUF tensor name (without the `.weight` suffix)."""
    rng = np.random.default_rng(seed)

    def normal(shape, std):
        return jnp.asarray(rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    # As large as what the layers add to it. With the usual 0.02 the layers drown which name
    # was read, and the model learned to write stories but not to keep to a name.
    params = {"token_embd": normal((c.vocab_size, c.n_embd), 1.0)}
    for layer in range(c.n_layer):
        for name, (out, inp) in matrix_shapes(c).items():
            std = inp**-0.5
            if name in ("attn_output", "ffn_down"):
                std /= (2 * c.n_layer) ** 0.5
            params[f"blk.{layer}.{name}"] = normal((out, inp), std)
        params[f"blk.{layer}.attn_norm"] = jnp.ones(c.n_embd)
        params[f"blk.{layer}.ffn_norm"] = jnp.ones(c.n_embd)
    params["output_norm"] = jnp.ones(c.n_embd)
    params["output"] = jnp.zeros((c.vocab_size, c.n_embd))
    return params


def rms_norm(x, weight, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rope_tables(c: Config, positions):
    inv = c.rope_theta ** (-jnp.arange(0, c.head_dim, 2) / c.head_dim)
    angle = positions[..., None] * inv
    return jnp.cos(angle), jnp.sin(angle)


def apply_rope(x, cos, sin):
    """x: [batch, time, heads, head_dim]; cos, sin: [batch, time, head_dim / 2]."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    return jnp.stack((a * cos - b * sin, a * sin + b * cos), axis=-1).reshape(x.shape)


def attention(q, k, v, bias, groups, block=64):
    """Causal attention, a block of queries at a time: keys after the block are never
    touched, and the query heads of a group form one matrix against their shared keys.
    On a CPU this takes about half the time of the plain form."""
    batch, time, n_head, dim = q.shape
    n_kv = n_head // groups
    q = q.reshape(batch, time, n_kv, groups, dim).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    out = []
    for start in range(0, time, block):
        end = min(start + block, time)
        rows = q[:, :, :, start:end].reshape(batch, n_kv, -1, dim)
        scores = (rows @ k[:, :, :end].swapaxes(-1, -2)) * dim**-0.5
        scores = scores.reshape(batch, n_kv, groups, end - start, end) + bias[:, :, :, start:end, :end]
        weights = jax.nn.softmax(scores, axis=-1).reshape(batch, n_kv, -1, end)
        out.append((weights @ v[:, :, :end]).reshape(batch, n_kv, groups, end - start, dim))
    return jnp.concatenate(out, axis=3).transpose(0, 3, 1, 2, 4).reshape(batch, time, n_head, dim)


def forward(params, c: Config, tokens, segments, positions):
    """Logits [batch, time, vocab]. A token attends to earlier tokens of its own segment."""
    batch, time = tokens.shape
    groups = c.n_head // c.n_kv_head
    same = segments[:, :, None] == segments[:, None, :]
    bias = jnp.where(same & jnp.tril(jnp.ones((time, time), bool)), 0.0, -1e30)[:, None, None]
    cos, sin = rope_tables(c, positions)

    x = params["token_embd"][tokens]
    for layer in range(c.n_layer):
        p = lambda name: params[f"blk.{layer}.{name}"]
        h = rms_norm(x, p("attn_norm"), c.rms_eps)
        q = (h @ p("attn_q").T).reshape(batch, time, c.n_head, c.head_dim)
        k = (h @ p("attn_k").T).reshape(batch, time, c.n_kv_head, c.head_dim)
        v = (h @ p("attn_v").T).reshape(batch, time, c.n_kv_head, c.head_dim)
        q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        x = x + attention(q, k, v, bias, groups).reshape(batch, time, -1) @ p("attn_output").T
        h = rms_norm(x, p("ffn_norm"), c.rms_eps)
        x = x + (jax.nn.silu(h @ p("ffn_gate").T) * (h @ p("ffn_up").T)) @ p("ffn_down").T
    x = rms_norm(x, params["output_norm"], c.rms_eps)
    return x @ params["output"].T
