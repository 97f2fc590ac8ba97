"""Two small decoders with experts in JAX, of the families that GGUF calls `qwen3moe` and `qwen35moe`.

`qwen3moe` has attention in every layer. In `qwen35moe` every fourth layer has attention, whose heads are gated, and the
others a gated delta net; beside the experts there is a shared one. Parameters are keyed by GGUF tensor name without its
suffix and shaped as there, but for `ssm_a`, which is trained as a logarithm: see `gguf_tensors`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from model import attention, rms_norm


@dataclass(frozen=True)
class Config:
    # Every matrix dimension is a multiple of 256, the super-block of the K-quants.
    family: str = "qwen35moe"
    vocab_size: int = 2048
    n_embd: int = 256
    n_layer: int = 4
    n_head: int = 8
    n_kv_head: int = 4
    head_dim: int = 64
    n_expert: int = 8
    n_expert_used: int = 2
    n_ff_exp: int = 256
    n_ff_shared: int = 256
    # The delta net: `n_k_head` heads of queries and keys, and twice as many of values.
    n_k_head: int = 2
    n_v_head: int = 4
    state_dim: int = 64
    conv_kernel: int = 4
    full_attention_interval: int = 4
    n_ctx: int = 512
    rope_theta: float = 10000.0
    rms_eps: float = 1e-6
    # Products of numbers rounded to BF16, for training: processors with AMX make them ten times as fast.
    rounded: bool = False

    @property
    def hybrid(self):
        return self.family == "qwen35moe"

    @property
    def n_rot(self):
        return self.head_dim // 2 if self.hybrid else self.head_dim

    def recurrent(self, layer):
        return self.hybrid and (layer + 1) % self.full_attention_interval != 0


# What Muon trains; matrices of experts are stacked.
MATRICES = (
    "attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate", "ssm_out",
    "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp",
)  # fmt: skip
RESIDUAL = ("attn_output", "ssm_out", "ffn_down_exps", "ffn_down_shexp")


def ffn_norm(c: Config):
    return "post_attention_norm" if c.hybrid else "ffn_norm"


def layer_shapes(c: Config, layer):
    """Shapes of what is initialised as noise."""
    q, kv = c.n_head * c.head_dim, c.n_kv_head * c.head_dim
    key, value = c.n_k_head * c.state_dim, c.n_v_head * c.state_dim
    if c.recurrent(layer):
        yield "attn_qkv", (2 * key + value, c.n_embd)
        yield "attn_gate", (value, c.n_embd)
        yield "ssm_conv1d", (2 * key + value, c.conv_kernel)
        yield "ssm_alpha", (c.n_v_head, c.n_embd)
        yield "ssm_beta", (c.n_v_head, c.n_embd)
        yield "ssm_out", (c.n_embd, value)
    else:
        yield "attn_q", (2 * q if c.hybrid else q, c.n_embd)
        yield "attn_k", (kv, c.n_embd)
        yield "attn_v", (kv, c.n_embd)
        yield "attn_output", (c.n_embd, q)
    yield "ffn_gate_inp", (c.n_expert, c.n_embd)
    yield "ffn_gate_exps", (c.n_expert, c.n_ff_exp, c.n_embd)
    yield "ffn_up_exps", (c.n_expert, c.n_ff_exp, c.n_embd)
    yield "ffn_down_exps", (c.n_expert, c.n_embd, c.n_ff_exp)
    if c.hybrid:
        yield "ffn_gate_inp_shexp", (c.n_embd,)
        yield "ffn_gate_shexp", (c.n_ff_shared, c.n_embd)
        yield "ffn_up_shexp", (c.n_ff_shared, c.n_embd)
        yield "ffn_down_shexp", (c.n_embd, c.n_ff_shared)


def init_params(c: Config, seed: int):
    rng = np.random.default_rng(seed)

    def normal(shape, std):
        return jnp.asarray(rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    # As in the demonstration model: as large as what the layers add to it.
    params = {"token_embd": normal((c.vocab_size, c.n_embd), 1.0)}
    for layer in range(c.n_layer):
        own = {"attn_norm": jnp.ones(c.n_embd), ffn_norm(c): jnp.ones(c.n_embd)}
        for name, shape in layer_shapes(c, layer):
            own[name] = normal(shape, shape[-1] ** -0.5 / ((2 * c.n_layer) ** 0.5 if name in RESIDUAL else 1))
        if c.recurrent(layer):
            # Memories that halve within a few positions to hundreds of them, as Mamba begins.
            step = np.exp(rng.uniform(np.log(0.001), np.log(0.1), c.n_v_head))
            own["ssm_dt"] = jnp.asarray(np.log(np.expm1(step)), jnp.float32)
            own["ssm_a"] = jnp.asarray(np.log(rng.uniform(1, 16, c.n_v_head)), jnp.float32)
            own["ssm_norm"] = jnp.ones(c.state_dim)
        else:
            own |= {"attn_q_norm": jnp.ones(c.head_dim), "attn_k_norm": jnp.ones(c.head_dim)}
        params |= {f"blk.{layer}.{name}": w for name, w in own.items()}
    params["output_norm"] = jnp.ones(c.n_embd)
    params["output"] = jnp.zeros((c.vocab_size, c.n_embd))
    return params


def gguf_tensors(params):
    """Name and values of each tensor as a file has them."""
    for name, w in params.items():
        w = np.asarray(w, np.float32)
        if name.endswith("ssm_a"):
            yield name, -np.exp(w)
        else:
            yield f"{name}.{'bias' if name.endswith('ssm_dt') else 'weight'}", w


def rounded_product(a, b):
    """a @ b of BF16 numbers, summed up in F32."""
    return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


@jax.custom_vjp
def rounded_linear(x, w):
    return rounded_product(x, w.swapaxes(-1, -2))


rounded_linear.defvjp(
    lambda x, w: (rounded_linear(x, w), (x, w)),
    lambda xw, g: (rounded_product(g, xw[1]), rounded_product(g.swapaxes(-1, -2), xw[0])),
)


def linear(c: Config, x, w):
    """x @ w.T, or of each x of a stack with its own w."""
    if w.ndim == 2:
        rows = x.reshape(-1, x.shape[-1])
        y = rounded_linear(rows, w) if c.rounded else rows @ w.T
        return y.reshape(*x.shape[:-1], -1)
    return rounded_linear(x, w) if c.rounded else x @ w.swapaxes(-1, -2)


def rotate(x, c: Config, positions):
    """RoPE over pairs (i, i + n_rot / 2) of the first `n_rot` of each head. x: [batch, time, heads, head_dim]."""
    angle = positions[..., None] * c.rope_theta ** (-jnp.arange(0, c.n_rot, 2) / c.n_rot)
    cos, sin = jnp.cos(angle)[:, :, None], jnp.sin(angle)[:, :, None]
    a, b, rest = jnp.split(x, [c.n_rot // 2, c.n_rot], axis=-1)
    return jnp.concatenate((a * cos - b * sin, a * sin + b * cos, rest), axis=-1)


def full_attention(p, c: Config, x, bias, positions):
    batch, time, _ = x.shape
    heads = lambda name, n: linear(c, x, p(name)).reshape(batch, time, n, -1)
    q, k, v = heads("attn_q", c.n_head), heads("attn_k", c.n_kv_head), heads("attn_v", c.n_kv_head)
    q, gate = q[..., : c.head_dim], q[..., c.head_dim :]
    q = rotate(rms_norm(q, p("attn_q_norm"), c.rms_eps), c, positions)
    k = rotate(rms_norm(k, p("attn_k_norm"), c.rms_eps), c, positions)
    y = attention(q, k, v, bias, c.n_head // c.n_kv_head)
    if c.hybrid:
        y = y * jax.nn.sigmoid(gate)
    return linear(c, y.reshape(batch, time, -1), p("attn_output"))


def convolve(x, weight, positions):
    """Each channel over the last positions of its own document, the newest one's weight last."""
    out, kernel = 0.0, weight.shape[1]
    for back in range(kernel):
        earlier = jnp.pad(x, ((0, 0), (back, 0), (0, 0)))[:, : x.shape[1]]
        out = out + jnp.where(positions[..., None] >= back, earlier, 0.0) * weight[:, kernel - 1 - back]
    return out


def inverse(a):
    """Of I + a, where a is strictly lower triangular: products alone, whose gradient is products too."""
    n = a.shape[-1]
    if n <= 8:
        # (I + a)^-1 = I - a + a^2 - ..., which ends with a^7.
        one, a2 = jnp.eye(n), a @ a
        return (one - a) @ (one + a2) @ (one + a2 @ a2)
    first, second = inverse(a[..., : n // 2, : n // 2]), inverse(a[..., n // 2 :, n // 2 :])
    corner = -second @ a[..., n // 2 :, : n // 2] @ first
    upper = jnp.concatenate((first, jnp.zeros_like(corner)), axis=-1)
    return jnp.concatenate((upper, jnp.concatenate((corner, second), axis=-1)), axis=-2)


def delta_rule(q, k, v, log_decay, beta, segments, chunk=32):
    """What the memory S answers: at each position, beginning with zeros in each segment,

        S = exp(log_decay) S;  d = beta (v - S^T k);  S = S + k d^T;  y = S^T q

    computed a chunk at a time: within one the d depend on each other by a triangular system, which is solved for what
    comes of the chunk itself and of the memory before it. q, k, v: [batch, time, heads, dim].
    """
    batch, time, heads, dim = q.shape
    n = -(-time // chunk)

    def chunks(x):  # [batch, heads, n, chunk, ...]
        x = jnp.pad(x, ((0, 0), (0, n * chunk - time)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(batch, n, chunk, *x.shape[2:]), 3, 1)

    q, k, v, fade, beta = map(chunks, (q, k, v, log_decay, beta))
    fade, beta = jnp.cumsum(fade, axis=-1), beta[..., None]
    segments = chunks(segments[:, :, None])
    before = jnp.pad(segments[:, :, :-1, -1:], ((0, 0), (0, 0), (1, 0), (0, 0)), constant_values=-1)
    # How much is left at i of what was there before the chunk, and of what was written at j.
    left = jnp.where(segments == before, jnp.exp(fade), 0.0)[..., None]
    seen = jnp.tril(segments[..., :, None] == segments[..., None, :])
    between = jnp.exp(jnp.where(seen, fade[..., :, None] - fade[..., None, :], -1e30))

    system = jnp.tril(beta * between * (k @ k.swapaxes(-1, -2)), -1)
    sides = jnp.concatenate((beta * v, beta * left * k), axis=-1)
    solved = inverse(system) @ sides
    own, of_memory = solved[..., :dim], solved[..., dim:]
    scores = between * (q @ k.swapaxes(-1, -2))
    written = (between[..., -1, :, None] * k).swapaxes(-1, -2)

    def step(memory, chunk):
        q, own, of_memory, scores, written, kept = chunk
        d = own - of_memory @ memory
        return kept * memory + written @ d, q @ memory + scores @ d

    by_chunk = [jnp.moveaxis(x, 2, 0) for x in (left * q, own, of_memory, scores, written, left[..., -1:, :])]
    _, y = jax.lax.scan(step, jnp.zeros((batch, heads, dim, dim)), by_chunk)
    return y.transpose(1, 0, 3, 2, 4).reshape(batch, n * chunk, heads, dim)[:, :time]


def delta_net(p, c: Config, x, segments, positions):
    batch, time, _ = x.shape
    key = c.n_k_head * c.state_dim
    mixed = jax.nn.silu(convolve(linear(c, x, p("attn_qkv")), p("ssm_conv1d"), positions))
    q, k, v = (part.reshape(batch, time, -1, c.state_dim) for part in jnp.split(mixed, [key, 2 * key], axis=-1))
    # Value head h reads key head h mod n_k_head.
    unit = lambda x: x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + c.rms_eps)
    q, k = (jnp.tile(unit(x), (1, 1, c.n_v_head // c.n_k_head, 1)) for x in (q, k))
    log_decay = -jnp.exp(p("ssm_a")) * jax.nn.softplus(x @ p("ssm_alpha").T + p("ssm_dt"))
    beta = jax.nn.sigmoid(x @ p("ssm_beta").T)
    y = delta_rule(q * c.state_dim**-0.5, k, v, log_decay, beta, segments)
    z = linear(c, x, p("attn_gate")).reshape(y.shape)
    y = rms_norm(y, p("ssm_norm"), c.rms_eps) * jax.nn.silu(z)
    return linear(c, y.reshape(batch, time, -1), p("ssm_out"))


@jax.custom_vjp
def take(x, index, inverse):
    """Rows of x, zeros where there is none of that number; `inverse` has the place of each row of x in the result.
    So the gradient is a gather as well: sums into rows are slow on a CPU."""
    return jnp.pad(x, ((0, 1), (0, 0)))[index]


take.defvjp(
    lambda x, index, inverse: (take(x, index, inverse), inverse),
    lambda inverse, g: (jnp.pad(g, ((0, 1), (0, 0)))[inverse], None, None),
)


def feed_forward(p, c: Config, x, kind):
    y = jax.nn.silu(linear(c, x, p(f"ffn_gate_{kind}"))) * linear(c, x, p(f"ffn_up_{kind}"))
    return linear(c, y, p(f"ffn_down_{kind}"))


def experts(p, c: Config, x, capacity):
    """The experts' output for rows x, and how unevenly they are used: 1 is even. An expert takes `capacity` times its
    even share of the rows; more of them go without it."""
    rows, used = x.shape[0], c.n_expert_used
    probabilities = jax.nn.softmax(x @ p("ffn_gate_inp").T)
    weights, chosen = jax.lax.top_k(probabilities, used)
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)

    # Choices sorted by expert; `slots` says which choice each expert's n-th row is, `places` where each choice went.
    chosen, choices = chosen.reshape(-1), rows * used
    size = min(rows, int(capacity * choices / c.n_expert))
    counts = jnp.sum(chosen[:, None] == jnp.arange(c.n_expert), axis=0)
    first = jnp.cumsum(counts) - counts
    order = jnp.argsort(chosen)
    nth = jnp.arange(size)
    slots = order[jnp.minimum(first[:, None] + nth, choices - 1)]
    slots = jnp.where(nth < counts[:, None], slots, choices).reshape(-1)
    nth = jnp.argsort(order) - first[chosen]
    places = jnp.where(nth < size, chosen * size + nth, c.n_expert * size)

    h = take(jnp.repeat(x, used, axis=0), slots, places).reshape(c.n_expert, size, -1)
    y = feed_forward(p, c, h, "exps").reshape(c.n_expert * size, -1)
    y = take(y, places, slots).reshape(rows, used, -1)
    unevenness = c.n_expert * jnp.sum(counts / choices * jnp.mean(probabilities, axis=0))
    return jnp.sum(y * weights[..., None], axis=1), unevenness


@partial(jax.jit, static_argnums=(1, 5))
def forward(params, c: Config, tokens, segments, positions, capacity=None):
    """Logits [batch, time, vocab] and the experts' mean unevenness. Nothing passes from one segment to another. Without
    a capacity every row gets its experts."""
    batch, time = tokens.shape
    same = segments[:, :, None] == segments[:, None, :]
    bias = jnp.where(same & jnp.tril(jnp.ones((time, time), bool)), 0.0, -1e30)[:, None, None]

    x, uneven = params["token_embd"][tokens], 0.0
    for layer in range(c.n_layer):
        p = lambda name: params[f"blk.{layer}.{name}"]
        h = rms_norm(x, p("attn_norm"), c.rms_eps)
        if c.recurrent(layer):
            x = x + delta_net(p, c, h, segments, positions)
        else:
            x = x + full_attention(p, c, h, bias, positions)
        h = rms_norm(x, p(ffn_norm(c)), c.rms_eps)
        y, own = experts(p, c, h.reshape(batch * time, -1), capacity or float(c.n_expert))
        x, uneven = x + y.reshape(x.shape), uneven + own / c.n_layer
        if c.hybrid:
            weight = jax.nn.sigmoid(h @ p("ffn_gate_inp_shexp"))[..., None]
            x = x + feed_forward(p, c, h, "shexp") * weight
    x = rms_norm(x, params["output_norm"], c.rms_eps)
    return linear(c, x, params["output"]), uneven
