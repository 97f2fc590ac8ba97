"""Writes the small random encoders of `encoders/` and their vectors in float64: models that see a text as a whole.

BERT (arXiv:1810.04805), ALiBi (2108.12409) as jina-bert-v2 has it, ModernBERT (2412.13663), and for the meaning of the files
llama.cpp. `--check FOLDER` holds the same pass to llama.cpp's vectors of models of these families, where such a folder is.

usage: encoders.py [--check FOLDER]      (packages: gguf, numpy)
"""

import json
import math
import pathlib
import sys

import gguf
import numpy as np

import make_models
from families import Layer, load, rotate
from ideal import gelu_tanh
from make_families import N_EMBD, Maker, gated

FOLDER = pathlib.Path(__file__).parent / "encoders"
N_FF, LAYERS, HEADS = 48, 3, 4


def layer_norm(x, weights, name, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    y = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps) * weights[name + ".weight"]
    return y + weights[name + ".bias"] if name + ".bias" in weights else y


def slopes(heads):
    """ALiBi's: powers of 2^(-8 / n) of the largest power of two, n; further heads take every second one of 2^(-4 / n)."""
    n = 1 << (heads.bit_length() - 1)
    return np.array([2.0 ** (-8 * (h + 1) / n) if h < n else 2.0 ** (-4 * (2 * (h - n) + 1) / n) for h in range(heads)])


def attention(q, k, v, reach=None, alibi=None):
    n, heads, head = q.shape
    distance = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :])
    scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(head)
    if alibi is not None:
        scores = scores - alibi[:, None, None] * distance
    if reach is not None:
        scores = np.where(distance[None] <= reach, scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", p / p.sum(axis=-1, keepdims=True), v).reshape(n, -1)


def hidden(arch, keys, weights, tokens):
    """The last hidden state of each token."""
    n, heads, eps = len(tokens), keys["attention.head_count"], keys["attention.layer_norm_epsilon"]
    x = weights["token_embd.weight"][tokens]
    if "token_types.weight" in weights:
        x = x + weights["token_types.weight"][0]
    if "position_embd.weight" in weights:
        x = x + weights["position_embd.weight"][:n]
    x = layer_norm(x, weights, "token_embd_norm", eps)
    by_head = lambda y: y.reshape(n, heads, -1)
    for i in range(keys["block_count"]):
        layer = Layer(weights, i)
        if arch == "modern-bert":
            h = layer_norm(x, layer.w, "attn_norm", eps) if layer.has("attn_norm.weight") else x
            q, k, v = (by_head(part) for part in np.split(layer("attn_qkv", h), 3, axis=-1))
            local = i % 3 != 0
            base = keys["rope.freq_base_swa" if local else "rope.freq_base"]
            head = q.shape[-1]
            angles = np.arange(n)[:, None] * base ** (-2.0 * np.arange(head // 2) / head)
            q, k = rotate(q, angles, 1.0, False), rotate(k, angles, 1.0, False)
            x = x + layer("attn_output", attention(q, k, v, keys["attention.sliding_window"] // 2 if local else None))
            gate, up = np.split(layer("ffn_up", layer_norm(x, layer.w, "ffn_norm", eps)), 2, axis=-1)
            x = x + layer("ffn_down", gelu_tanh(gate) * up)
            continue
        q, k, v = (by_head(layer("attn_" + name, x)) for name in "qkv")
        alibi = slopes(heads) if arch == "jina-bert-v2" else None
        x = layer_norm(x + layer("attn_output", attention(q, k, v, alibi=alibi)), layer.w, "attn_output_norm", eps)
        up = layer("ffn_up", x)
        h = gelu_tanh(layer("ffn_gate", x)) * up if layer.has("ffn_gate.weight") else gelu_tanh(up)
        x = layer_norm(x + layer("ffn_down", h), layer.w, "layer_output_norm", eps)
    return layer_norm(x, weights, "output_norm", eps) if "output_norm.weight" in weights else x


def pooled(keys, states):
    return states[0] if keys["pooling_type"] == 2 else states.mean(axis=0)


def norm(m, name, bias=True):
    m.norm(name)
    if bias:
        m.vector(name + ".bias", N_EMBD, low=-0.3, high=0.3)


def bert(m, jina=False):
    m.matrix("token_types", 2, N_EMBD)
    if not jina:
        m.matrix("position_embd", 128, N_EMBD)
    norm(m, "token_embd_norm")
    for i in range(LAYERS):
        b = f"blk.{i}."
        for name in "qkv":
            m.matrix(b + "attn_" + name, N_EMBD, N_EMBD, 1.5, bias=True)
        m.matrix(b + "attn_output", N_EMBD, N_EMBD, bias=True)
        norm(m, b + "attn_output_norm")
        if jina:
            gated(m, b, N_FF)
        else:
            m.matrix(b + "ffn_up", N_FF, N_EMBD, 1.2, bias=True)
            m.matrix(b + "ffn_down", N_EMBD, N_FF, 1.2, bias=True)
        norm(m, b + "layer_output_norm")
    return {"pooling_type": 1, "attention.layer_norm_epsilon": 1e-12}


def modern_bert(m):
    norm(m, "token_embd_norm", bias=False)
    norm(m, "output_norm", bias=False)
    for i in range(LAYERS + 1):
        b = f"blk.{i}."
        if i > 0:
            norm(m, b + "attn_norm", bias=False)
        m.matrix(b + "attn_qkv", 3 * N_EMBD, N_EMBD, 1.5)
        m.matrix(b + "attn_output", N_EMBD, N_EMBD)
        norm(m, b + "ffn_norm", bias=False)
        m.matrix(b + "ffn_up", 2 * N_FF, N_EMBD, 1.2)
        m.matrix(b + "ffn_down", N_EMBD, N_FF, 1.2)
    return {"block_count": LAYERS + 1, "pooling_type": 2, "attention.layer_norm_epsilon": 1e-5, "attention.sliding_window": 16,
            "rope.freq_base": 160000.0, "rope.freq_base_swa": 10000.0}


MODELS = {"bert": bert, "jina-bert-v2": lambda m: bert(m, jina=True), "modern-bert": modern_bert}
LENGTHS = (1, 5, 70)


def text(n, seed):
    return [2] + [4 + (seed * 31 + 17 * i + i * i // 5) % (make_models.N_VOCAB - 4) for i in range(n - 1)]


def write(arch):
    m = Maker(arch)
    m.matrix("token_embd", make_models.N_VOCAB, N_EMBD, 4.0)
    keys = {"block_count": LAYERS, "context_length": 128, "embedding_length": N_EMBD, "feed_forward_length": N_FF,
            "attention.head_count": HEADS, "attention.causal": False, **MODELS[arch](m)}
    path = FOLDER / f"{arch}.gguf"
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("random weights")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for key, value in keys.items():
        add = {bool: writer.add_bool, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"{arch}.{key}", value)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + [chr(ord("a") + i) for i in range(26)] + ["\u2581" + chr(ord("a") + i) for i in range(18)]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (len(tokens) - 4))
    writer.add_token_type_count(2)
    for add, token in ((writer.add_bos_token_id, 2), (writer.add_eos_token_id, 3), (writer.add_unk_token_id, 1),
                       (writer.add_sep_token_id, 3), (writer.add_pad_token_id, 0)):
        add(token)
    writer.add_uint32("tokenizer.ggml.cls_token_id", 2)
    for name, value in m.tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = load(path)
    texts = [text(n, seed) for seed, n in enumerate(LENGTHS)]
    vectors = [pooled(loaded[1], hidden(*loaded, tokens)).tolist() for tokens in texts]
    (FOLDER / f"{arch}.json").write_text(json.dumps({"texts": texts, "vectors": vectors}) + "\n")
    print(f"{arch}: {path.stat().st_size} bytes")


def check(folder):
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        about = json.loads(path.read_text())
        if about.get("architecture") in MODELS and about["output"] == "embedding":
            loaded = load(path.with_name(about["model"]))
            for name, prompt in about["prompts"].items():
                theirs = np.fromfile(path.with_name(prompt["file"]), dtype="<f4")
                ours = pooled(loaded[1], hidden(*loaded, prompt["ids"]))
                print(f"{path.stem} {name}: rms {np.sqrt(np.mean((ours - theirs) ** 2)):.1e}")


def main():
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
        return
    FOLDER.mkdir(exist_ok=True)
    for arch in MODELS:
        write(arch)


if __name__ == "__main__":
    main()
