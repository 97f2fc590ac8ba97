"""Trains the demonstration model on the generated corpus and saves a checkpoint.

Muon for the matrices (it needs far fewer tokens than Adam, which is what
matters on two cores) and Adam for embedding, output and norms. `rebuild.sh`
has the stages. Rounding the weights to four bits while training is there to
try (`--quantize-from`) but was not needed: see `validation_4bit` in the log.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import corpus
import tokens
from model import MATRICES, Config, forward, init_params

WORK = Path(__file__).parent / "work"


def rows(tokenizer, seed, length, shares=None):
    """Documents packed into rows of `length`: ids, learn, segment and position of each token."""
    source = corpus.documents(seed, budget=190 if length < 512 else 400, **(shares or {}))
    pool = []
    while True:
        row, left, segment = np.zeros((4, length), np.int32), length, 0
        while True:
            while len(pool) < 64:
                ids, learn = tokens.encode(tokenizer, next(source))
                if len(ids) <= length:
                    pool.append((ids, learn))
            # The longest document that fits wastes little and keeps the pool moving.
            fits = [i for i, (ids, _) in enumerate(pool) if len(ids) <= left]
            if not fits:
                break
            ids, learn = pool.pop(max(fits, key=lambda i: len(pool[i][0])) if segment else 0)
            segment += 1
            at, n = length - left, len(ids)
            row[:, at : at + n] = ids, learn, [segment] * n, range(n)
            left -= n
        yield row


def batches(tokenizer, seed, length, size, shares=None):
    stream = rows(tokenizer, seed, length, shares)
    while True:
        yield np.stack([next(stream) for _ in range(size)], axis=1)


def round_to(bits, w):
    """Rounds groups of 32 weights of a row to `bits` bits; the gradient passes through."""
    g = w.reshape(w.shape[0], -1, 32)
    low = jnp.minimum(g.min(axis=-1, keepdims=True), 0.0)
    step = (g.max(axis=-1, keepdims=True) - low) / (2**bits - 1) + 1e-12
    rounded = (jnp.round((g - low) / step) * step + low).reshape(w.shape)
    return w + jax.lax.stop_gradient(rounded - w)


def as_quantized(params):
    return {
        name: w if w.ndim == 1 else round_to(6 if name == "output" else 4, w) for name, w in params.items()
    }


def loss_fn(params, config, batch, quantize):
    ids, learn, segments, positions = batch
    if quantize:
        params = as_quantized(params)
    logits = forward(params, config, ids, segments, positions)[:, :-1]
    target, weight = ids[:, 1:], learn[:, 1:].astype(jnp.float32)
    logp = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logp, target[..., None], axis=-1)[..., 0]
    return -jnp.sum(picked * weight) / jnp.sum(weight)


def orthogonalize(g):
    """Newton-Schulz iteration of Muon (Keller Jordan, 2024): pushes the singular values towards 1."""
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def adam(w, g, state, lr, step):
    m, v = state
    m, v = 0.9 * m + 0.1 * g, 0.97 * v + 0.03 * g * g
    update = (m / (1 - 0.9**step)) / (jnp.sqrt(v / (1 - 0.97**step)) + 1e-8)
    return w - lr * update, (m, v)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def train_step(config, quantize, params, state, batch, matrix_lr, other_lr, step):
    loss, grads = jax.value_and_grad(loss_fn)(params, config, batch, quantize)
    new_params, new_state = {}, {}
    for name, w in params.items():
        g = grads[name]
        if name.split(".")[-1] in MATRICES:
            m = 0.95 * state[name] + g
            out, inp = w.shape
            update = orthogonalize(g + 0.95 * m) * max(1.0, out / inp) ** 0.5
            new_params[name], new_state[name] = w * (1 - 0.05 * matrix_lr) - matrix_lr * update, m
        else:
            lr = other_lr * (10.0 if name == "token_embd" else 1.0)
            new_params[name], new_state[name] = adam(w, g, state[name], lr, step)
    return new_params, new_state, loss


eval_loss = jax.jit(loss_fn, static_argnums=(1, 3))


def zero_state(params):
    return {
        name: jnp.zeros_like(w) if name.split(".")[-1] in MATRICES else (jnp.zeros_like(w), jnp.zeros_like(w))
        for name, w in params.items()
    }


def save(path, params):
    np.savez(path, **{name: np.asarray(w) for name, w in params.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="the learning rate has fallen to its end by then")
    parser.add_argument("--steps", type=int, default=1000, help="or after so many steps, if sooner")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quantize-from", type=float, default=1.0, help="fraction of the run after which weights are rounded")
    parser.add_argument("--long-from", type=float, default=0.85, help="fraction of the run after which rows are as long as the context")
    parser.add_argument("--resume", help="checkpoint to start from, with a fresh optimizer")
    parser.add_argument("--matrix-lr", type=float, default=0.015)
    parser.add_argument("--other-lr", type=float, default=0.002, help="of output and norms; the embedding, of far larger weights, gets ten times this")
    parser.add_argument("--names", type=float, default=0.1, help="extra share of chats about names alone, see corpus.py")
    parser.add_argument("--openings", type=float, default=0.0, help="extra share of story requests with only the opening")
    parser.add_argument("--questions", type=float, default=0.0, help="extra share of chats of simple questions")
    parser.add_argument("--decay-from", type=float, default=0.3, help="fraction of the run after which learning rates fall to zero")
    args = parser.parse_args()

    WORK.mkdir(exist_ok=True)
    config = Config()
    tokenizer = tokens.load_tokenizer()
    if args.resume:
        params = {name: jnp.asarray(w) for name, w in np.load(args.resume).items()}
    else:
        params = init_params(config, args.seed)
    state = zero_state(params)
    print("parameters", sum(w.size for w in params.values()), "vocabulary", tokenizer.get_vocab_size(), flush=True)

    shares = {"names": args.names, "openings": args.openings, "questions": args.questions}
    # 320 holds two stories and a few questions; about 2,500 tokens make a batch either way.
    short = batches(tokenizer, 1000 + args.seed, 320, 8, shares)
    long = batches(tokenizer, 2000 + args.seed, config.n_ctx, 5, shares)
    held_out = next(batches(tokenizer, 7, 320, 24))
    start, log, seen, step, done = time.time(), [], 0, 0, 0.0
    while done < 1.0:
        step += 1
        done = max(step / args.steps, (time.time() - start) / (60 * args.minutes))
        scale = min(step / 20, 1.0, max((1 - done) / (1 - args.decay_from + 1e-9), 0.02))
        quantize = done > args.quantize_from
        batch = next(long if done > args.long_from else short)
        seen += int((batch[2] > 0).sum())
        params, state, loss = train_step(
            config, quantize, params, state, batch, args.matrix_lr * scale, args.other_lr * scale, step
        )
        if step % 10 == 0:
            log.append({"step": step, "loss": round(float(loss), 4), "seconds": round(time.time() - start), "tokens": seen})
            print(log[-1], flush=True)
        if step % 50 == 0 or done >= 1.0:
            if log[-1]["step"] != step:
                log.append({"step": step, "seconds": round(time.time() - start), "tokens": seen})
            log[-1]["validation"] = round(float(eval_loss(params, config, held_out, False)), 4)
            log[-1]["validation_4bit"] = round(float(eval_loss(params, config, held_out, True)), 4)
            print(log[-1], flush=True)
            save(WORK / "checkpoint.npz", params)
            (WORK / "log.json").write_text(json.dumps(log, indent=0))


if __name__ == "__main__":
    main()
