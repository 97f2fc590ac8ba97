"""One measurement of ONNX Runtime on an encoder of BERT's family, in a process of its own.

There is no ONNX file of a model of random weights: the graph is built here of the GGUF's tensors, in f32, with the fused
operations that ONNX Runtime's own optimizer makes of exported models (Attention, SkipLayerNormalization, BiasGelu).

Prints one JSON object. Tests: "em64 x 256" (vectors of 256 texts of 64 tokens), "vector" (of the token ids given, to a
file). The texts go in batches of 8, of 32 and all at once, each once untimed; the fastest counts.
"""

import argparse
import json
import re
import sys
import time

import numpy as np
import onnxruntime
from gguf import GGUFReader, dequantize
from onnx import TensorProto, checker, helper, numpy_helper

FUSED = "com.microsoft"
BATCHES = (8, 32)


def token(i, n_vocab):
    """The same tokens as `twinfer bench`: spread over the vocabulary."""
    return (((i + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 32) % n_vocab


class Graph:
    """Nodes and the constants that they take."""

    def __init__(self, tensors):
        self.tensors, self.nodes, self.constants, self.made = tensors, [], [], 0

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, name):
        return self.constant(self.tensors[name].astype(np.float32))

    def matrix(self, name):
        """As MatMul wants it: inputs are rows."""
        return self.constant(self.tensors[name].astype(np.float32).T)

    def node(self, kind, *inputs, outputs=1, **attributes):
        names = [f"v{self.made + i}" for i in range(outputs)]
        self.made += outputs
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]


def build(path):
    """The model as an ONNX file's bytes, and the size of its vocabulary."""
    reader = GGUFReader(path)
    arch = str(reader.get_field("general.architecture").contents())
    if arch != "bert":
        sys.exit(f"a graph is built for bert only, not for {arch}")

    def value(key):
        return reader.get_field(f"bert.{key}").contents()

    tensors = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
    heads, epsilon = int(value("attention.head_count")), float(value("attention.layer_norm_epsilon"))
    g = Graph(tensors)
    length = g.node("Shape", "ids", start=1, end=2)
    positions = g.node("Slice", g.weight("position_embd.weight"), g.constant(np.array([0])), length)
    words = g.node("Gather", g.weight("token_embd.weight"), "ids")
    sum_ = g.node("Add", g.node("Add", words, positions), g.constant(tensors["token_types.weight"][0]))
    norm = (g.weight("token_embd_norm.weight"), g.weight("token_embd_norm.bias"))
    x = g.node("LayerNormalization", sum_, *norm, epsilon=epsilon)
    for layer in range(int(value("block_count"))):

        def name(part, layer=layer):
            return f"blk.{layer}.{part}"

        weights = np.concatenate([tensors[name(f"attn_{p}.weight")].T for p in "qkv"], axis=1)
        biases = np.concatenate([tensors[name(f"attn_{p}.bias")] for p in "qkv"])
        inputs = (g.constant(weights.astype(np.float32)), g.constant(biases.astype(np.float32)))
        heard = g.node("Attention", x, *inputs, num_heads=heads, domain=FUSED)

        def added(y, matrix, norm, x=x):
            parts = (f"{norm}.weight", f"{norm}.bias", f"{matrix}.bias")
            y = g.node("MatMul", y, g.matrix(name(f"{matrix}.weight")))
            parts = [g.weight(name(part)) for part in parts]
            return g.node("SkipLayerNormalization", y, x, *parts, epsilon=epsilon, domain=FUSED)

        x = added(heard, "attn_output", "attn_output_norm")
        up = g.node("MatMul", x, g.matrix(name("ffn_up.weight")))
        up = g.node("BiasGelu", up, g.weight(name("ffn_up.bias")), domain=FUSED)
        x = added(up, "ffn_down", "layer_output_norm", x)
    kind = int(value("pooling_type"))
    if kind == 1:
        x = g.node("ReduceMean", x, g.constant(np.array([1])), keepdims=0)
    elif kind == 2:
        x = g.node("Gather", x, g.constant(np.array(0)), axis=1)
    else:
        sys.exit(f"pooling {kind} is not built")
    g.nodes.append(helper.make_node("LpNormalization", [x], ["vectors"], axis=1))
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "tokens"])]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", "width"])]
    graph = helper.make_graph(g.nodes, "encoder", inputs, outputs, g.constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(FUSED, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), len(tensors["token_embd.weight"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--test", required=True, help="'em64 x 256' or vector")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tokens", help="with --test vector: ids, separated by commas")
    parser.add_argument("--output", help="with --test vector: the file to write")
    args = parser.parse_args()

    start = time.perf_counter()
    model, n_vocab = build(args.model)
    checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    report = {
        "engine": "onnxruntime",
        "version": f"onnxruntime {onnxruntime.__version__}",
        "test": args.test,
        "load_seconds": time.perf_counter() - start,
    }

    def vectors(ids):
        return session.run(None, {"ids": ids})[0]

    if args.test == "vector":
        ids = np.array([[int(word) for word in args.tokens.split(",")]])
        vectors(ids)[0].astype("<f4").tofile(args.output)
    else:
        found = re.fullmatch(r"em(\d+)(?: x (\d+))?", args.test)
        if not found:
            parser.error(f"unknown test {args.test}")
        n, texts = int(found[1]), int(found[2] or 1)
        ids = np.array([[token(i, n_vocab) for i in range(n)]] * texts)
        times = {}
        for batch in sorted({min(size, texts) for size in (*BATCHES, texts)}):
            for _ in range(2):
                start = time.perf_counter()
                for at in range(0, texts, batch):
                    vectors(ids[at : at + batch])
                # The second one counts.
                times[batch] = time.perf_counter() - start
        report["seconds_by_batch"] = times
        report["seconds"] = [min(times.values())]
    json.dump(report, sys.stdout)
    print()


main()
