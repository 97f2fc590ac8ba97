"""Compares twinfer's logits with those of the model in JAX, for a checkpoint, or for random weights before any training.

    python check_experts.py qwen35moe --twinfer twinfer [--random]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "demo"))

import corpus
import tokens
from experts import Config, forward, init_params
from export_experts import write


def random_params(c):
    """Everything that begins as zeros or ones is noise, so that it counts."""
    noise, params = np.random.default_rng(9), init_params(c, 3)
    for name, w in params.items():
        if name.endswith("norm"):
            params[name] = jnp.asarray(noise.uniform(0.5, 1.5, w.shape), jnp.float32)
    params["output"] = jnp.asarray(noise.standard_normal(params["output"].shape) * c.n_embd**-0.5, jnp.float32)
    return params


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=["qwen3moe", "qwen35moe"])
    parser.add_argument("--twinfer", default="twinfer", help="the program")
    parser.add_argument("--random", action="store_true")
    args = parser.parse_args()
    c = Config(args.family)
    if args.random:
        params = random_params(c)
        ids = [tokens.BOS, *np.random.default_rng(1).integers(tokens.END + 1, c.vocab_size, 199).tolist()]
    else:
        params = {name: jnp.asarray(w) for name, w in np.load(HERE / "work" / f"{args.family}.npz").items()}
        story = next(d for d in corpus.documents(77, budget=400) if isinstance(d, str))
        ids = tokens.encode(tokens.load_tokenizer(), story)[0]

    row, one = jnp.asarray([ids]), jnp.ones((1, len(ids)), int)
    own = np.asarray(forward(params, c, row, one, jnp.arange(len(ids))[None])[0])[0]
    with tempfile.TemporaryDirectory() as folder:
        model, logits = f"{folder}/model.gguf", f"{folder}/logits"
        write(params, c, model)
        given = ["eval", "--tokens", ",".join(map(str, ids)), "--logits", logits]
        cache = ["--cache-type-k", "f32", "--cache-type-v", "f32"]
        subprocess.run([args.twinfer, "-m", model, "-q", *cache, *given], check=True, stdout=subprocess.DEVNULL)
        other = np.fromfile(logits, np.float32).reshape(own.shape)
    rms = lambda x: float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
    equal = int(np.sum(own.argmax(-1) == other.argmax(-1)))
    print(f"{len(ids)} positions: logits {rms(own):.3f} RMS, distance {rms(own - other):.2e} RMS, "
          f"{np.abs(own - other).max():.2e} at most; {equal} argmaxes equal")  # fmt: skip


if __name__ == "__main__":
    main()
