"""Runs the exported F32 GGUF in plain numpy: samples to read, reference outputs to test against.

    python run.py                      the samples the README judges
    python run.py --bits 4             the same with weights rounded to four bits
    python run.py --reference          writes reference.json
    python run.py --prompt "The little fox"
    python run.py --chat "What does a cow say?"

It reads everything from the file, tokenizer apart, and shares no code with the
training model, so an error in the export would show here.
"""

import argparse
import json
from pathlib import Path

import gguf
import jinja2
import numpy as np

import tokens

HERE = Path(__file__).parent
RAW = [
    "Once upon a time", "Once upon a time, there was a", "Once upon a time, a little fox", "Once upon a time, in the forest,",
    "One day", "The little fox", "There was once a", "Lily was a", "By the river, there lived", "Long ago, a small elephant named Oscar",
]
CHATS = [
    ["Tell me a story about a fox."], ["Tell me a story about a red ball."], ["Tell me a story about a girl named Lily and then stop."],
    ["tell me a story about the beach"], ["Tell me a story about a dragon."], ["Tell me a story about a cat and an owl.", "What was the cat called?", "How did the cat feel at the end?"],
    ["Hello!", "Who are you?", "What can you do?"], ["What is 2 + 3?", "What is 7 plus 8?", "Count to six."],
    ["What does a cow say?", "Where does a fish live?", "What colour is the sky?", "What is the opposite of hot?"],
    ["What is the capital of France?", "Write a Python program.", "Thank you!"],
]


def round_groups(w, bits, size):
    g = w.reshape(w.shape[0], -1, size)
    low = np.minimum(g.min(-1, keepdims=True), 0)
    step = (g.max(-1, keepdims=True) - low) / (2**bits - 1) + 1e-12
    return (np.round((g - low) / step) * step + low).reshape(w.shape).astype(np.float32)


class Model:
    """One sequence with its key and value cache."""

    def __init__(self, path, bits=None):
        reader = gguf.GGUFReader(path)
        field = lambda name: reader.fields[name].contents()
        self.w = {t.name.removesuffix(".weight"): np.array(t.data, np.float32) for t in reader.tensors}
        if bits:
            for name, w in self.w.items():
                if w.ndim == 2:
                    self.w[name] = round_groups(w, 6 if name == "output" else bits, 32)
        self.layers = field("llama.block_count")
        self.heads, self.kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
        self.dim, self.eps = field("llama.attention.key_length"), field("llama.attention.layer_norm_rms_epsilon")
        self.inv = field("llama.rope.freq_base") ** (-np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)
        self.template = jinja2.Environment().from_string(field("tokenizer.chat_template"))
        self.vocabulary = field("tokenizer.ggml.tokens")
        self.stops = (field("tokenizer.ggml.eos_token_id"), field("tokenizer.ggml.eot_token_id"))
        self.bos = field("tokenizer.ggml.bos_token_id")
        self.reset()

    def reset(self):
        self.cache = [([], []) for _ in range(self.layers)]
        self.position = 0

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x) + np.float32(self.eps)) * self.w[name]

    def rope(self, x):
        angle = self.position * self.inv
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        a, b = x[:, 0::2], x[:, 1::2]
        out = np.empty_like(x)
        out[:, 0::2], out[:, 1::2] = a * cos - b * sin, a * sin + b * cos
        return out

    def step(self, token):
        """Logits after `token`."""
        x = self.w["token_embd"][token]
        for layer, (keys, values) in enumerate(self.cache):
            w = lambda name: self.w[f"blk.{layer}.{name}"]
            h = self.norm(x, f"blk.{layer}.attn_norm")
            q = self.rope((w("attn_q") @ h).reshape(self.heads, self.dim))
            keys.append(self.rope((w("attn_k") @ h).reshape(self.kv_heads, self.dim)))
            values.append((w("attn_v") @ h).reshape(self.kv_heads, self.dim))
            k = np.repeat(np.stack(keys, 1), self.heads // self.kv_heads, axis=0)
            v = np.repeat(np.stack(values, 1), self.heads // self.kv_heads, axis=0)
            scores = np.einsum("hd,htd->ht", q, k) / np.float32(self.dim**0.5)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            x = x + w("attn_output") @ np.einsum("ht,htd->hd", weights, v).reshape(-1)
            h = self.norm(x, f"blk.{layer}.ffn_norm")
            gate = w("ffn_gate") @ h
            x = x + w("ffn_down") @ (gate / (1 + np.exp(-gate)) * (w("ffn_up") @ h))
        self.position += 1
        return self.w["output"] @ self.norm(x, "output_norm")

    def render(self, messages):
        return self.template.render(messages=messages, add_generation_prompt=True, bos_token=self.vocabulary[self.bos])

    def generate(self, prompt, limit=256, temperature=0.0, rng=None):
        """Generated ids, the stop token included, and the logits each was drawn from."""
        self.reset()
        for token in prompt:
            logits = self.step(token)
        out, seen = [], []
        while len(out) < limit:
            if temperature:
                p = np.exp((logits - logits.max()) / temperature)
                token = int(rng.choice(len(p), p=p / p.sum()))
            else:
                token = int(np.argmax(logits))
            out.append(token)
            seen.append(logits)
            if token in self.stops:
                break
            logits = self.step(token)
        return out, seen


def samples(model, tokenizer, temperature):
    rng = np.random.default_rng(0)
    print(f"=== temperature {temperature}")
    for prompt in RAW:
        out, _ = model.generate([tokens.BOS, *tokenizer.encode(prompt).ids], 256, temperature, rng)
        print(f"--- [{prompt}]{tokenizer.decode(out)}" + ("" if out[-1] in model.stops else " ..."))
    for questions in CHATS:
        print("---")
        talk(model, tokenizer, questions, temperature, rng)


def talk(model, tokenizer, questions, temperature, rng):
    messages = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        out, _ = model.generate(tokenizer.encode(model.render(messages)).ids, 256, temperature, rng)
        answer = tokenizer.decode(out)
        messages.append({"role": "assistant", "content": answer})
        print(f"[user] {question}\n[assistant] {answer}" + ("" if out[-1] in model.stops else " ..."))


def reference(model, tokenizer):
    """Greedy continuations with f32 weights, and how far ahead the chosen token was."""
    system = {"role": "system", "content": "You tell short stories for children."}
    user = lambda text: {"role": "user", "content": text}
    cases = [
        {"prompt": "Once upon a time"},
        {"prompt": "The little fox"},
        {"messages": [user("Tell me a story about a fox.")]},
        {"messages": [system, user("Hello!"), {"role": "assistant", "content": "Hello! Shall I tell you a story?"}, user("Tell me a story about a red ball.")]},
        {"messages": [user("What is 2 + 3?")]},
    ]
    for case in cases:
        text = case.get("prompt")
        if text is None:
            text = case["rendered"] = model.render(case["messages"])
            ids = tokenizer.encode(text).ids
        else:
            ids = [tokens.BOS, *tokenizer.encode(text).ids]
        out, seen = model.generate(ids, 64)
        top = [np.sort(logits)[-2:] for logits in seen]
        case["prompt_ids"], case["continuation_ids"] = ids, out
        case["continuation"] = tokenizer.decode(out)
        best = np.argsort(-seen[0])[:5]
        case["first_logits"] = {str(int(i)): round(float(seen[0][i]), 4) for i in best}
        case["smallest_margin"] = round(float(min(b - a for a, b in top)), 4)
    note = "f32 weights, numpy, greedy; a continuation ends after 64 tokens or with its stop token. first_logits: the five highest after the prompt. smallest_margin: of the chosen token's logit over the next best."
    (HERE / "reference.json").write_text(json.dumps({"note": note, "cases": cases}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=HERE / "work" / "twinfer-demo-f32.gguf")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--temperature", type=float, action="append")
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--prompt")
    parser.add_argument("--chat", action="append")
    args = parser.parse_args()
    model, tokenizer = Model(args.model, args.bits), tokens.load_tokenizer()
    temperatures = args.temperature or [0.0, 0.8]
    if args.reference:
        reference(model, tokenizer)
    elif args.prompt:
        out, _ = model.generate([tokens.BOS, *tokenizer.encode(args.prompt).ids], 256, temperatures[0], np.random.default_rng())
        print(args.prompt + tokenizer.decode(out))
    elif args.chat:
        talk(model, tokenizer, args.chat, temperatures[0], np.random.default_rng())
    else:
        for temperature in temperatures:
            samples(model, tokenizer, temperature)


if __name__ == "__main__":
    main()
