"""Trains one of the two models on the demonstration model's corpus, with its optimizer, in one stage."""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "demo"))

import tokens
from experts import MATRICES, Config, forward, init_params, rounded_product
from train import adam, batches, save

# What an expert takes of its even share of a batch, and how much being uneven costs.
CAPACITY, EVEN = 1.5, 0.01


def loss_fn(params, config, batch, capacity=None):
    """Loss per learned token, and what is minimised."""
    ids, learn, segments, positions = batch
    logits, uneven = forward(params, config, ids, segments, positions, capacity)
    target, weight = ids[:, 1:], learn[:, 1:].astype(jnp.float32)
    logp = jax.nn.log_softmax(logits[:, :-1])
    picked = jnp.take_along_axis(logp, target[..., None], axis=-1)[..., 0]
    loss = -jnp.sum(picked * weight) / jnp.sum(weight)
    return loss + EVEN * uneven, (loss, uneven)


def orthogonalize(g):
    """As the demonstration model's, of one matrix or of a stack, its products rounded."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.swapaxes(-1, -2) if tall else g
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        a = rounded_product(x, x.swapaxes(-1, -2))
        x = 3.4445 * x + rounded_product(-4.7750 * a + 2.0315 * rounded_product(a, a), x)
    return x.swapaxes(-1, -2) if tall else x


def is_matrix(name):
    return name.split(".")[-1] in MATRICES


@partial(jax.jit, static_argnums=(0,), donate_argnums=(1, 2))
def train_step(config, params, state, batch, matrix_lr, other_lr, step):
    grads, seen = jax.grad(loss_fn, has_aux=True)(params, replace(config, rounded=True), batch, CAPACITY)
    new_params, new_state = {}, {}
    for name, w in params.items():
        g = grads[name]
        if is_matrix(name):
            m = 0.95 * state[name] + g
            out, inp = w.shape[-2:]
            update = orthogonalize(g + 0.95 * m) * max(1.0, out / inp) ** 0.5
            new_params[name], new_state[name] = w * (1 - 0.05 * matrix_lr) - matrix_lr * update, m
        else:
            lr = other_lr * (10.0 if name == "token_embd" else 1.0)
            new_params[name], new_state[name] = adam(w, g, state[name], lr, step)
    return new_params, new_state, seen


validate = jax.jit(loss_fn, static_argnums=(1,))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=["qwen3moe", "qwen35moe"])
    parser.add_argument("--minutes", type=float, default=30, help="of processor time; learning rates have fallen to zero by then")
    parser.add_argument("--steps", type=int, default=1000, help="or after so many steps, if sooner")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, with a fresh optimizer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--matrix-lr", type=float, default=0.015)
    parser.add_argument("--other-lr", type=float, default=0.002)
    parser.add_argument("--decay-from", type=float, default=0.3)
    parser.add_argument("--long-from", type=float, default=0.85)
    args = parser.parse_args()

    work = HERE / "work"
    work.mkdir(exist_ok=True)
    config, tokenizer = Config(args.family), tokens.load_tokenizer()
    checkpoint = work / f"{args.family}.npz"
    if args.resume:
        params = {name: jnp.asarray(w) for name, w in np.load(checkpoint).items()}
    else:
        params = init_params(config, args.seed)
    state = {
        name: jnp.zeros_like(w) if is_matrix(name) else (jnp.zeros_like(w), jnp.zeros_like(w))
        for name, w in params.items()
    }
    print("parameters", sum(w.size for w in params.values()), flush=True)

    # Chats about names teach to say again what was read; the rest of the mixture is the demonstration model's last.
    shares = {"names": 0.2, "openings": 0.15, "questions": 0.1}
    short = batches(tokenizer, 1000 + args.seed, 320, 8, shares)
    long = batches(tokenizer, 2000 + args.seed, config.n_ctx, 5, shares)
    held_out = next(batches(tokenizer, 7, 320, 24))
    log, seen, step, done, start, start_cpu = [], 0, 0, 0.0, time.time(), time.process_time()
    while done < 1.0:
        step += 1
        done = max(step / args.steps, (time.process_time() - start_cpu) / (60 * args.minutes))
        scale = min(step / 20, 1.0, max((1 - done) / (1 - args.decay_from + 1e-9), 0.02))
        batch = next(long if done > args.long_from else short)
        seen += int((batch[2] > 0).sum())
        params, state, (loss, uneven) = train_step(
            config, params, state, batch, args.matrix_lr * scale, args.other_lr * scale, step
        )
        if step % 10 == 0 or done >= 1.0:
            entry = {"step": step, "loss": round(float(loss), 4), "uneven": round(float(uneven), 3)}
            entry |= {"seconds": round(time.time() - start), "cpu_seconds": round(time.process_time() - start_cpu)}
            log.append(entry | {"tokens": seen})
            if done >= 1.0:
                log[-1]["validation"] = round(float(validate(params, config, held_out)[1][0]), 4)
            if step % 20 == 0 or done >= 1.0:
                save(checkpoint, params)
            print(log[-1], flush=True)


if __name__ == "__main__":
    main()
