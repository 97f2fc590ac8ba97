"""Computes the reference logits of every model in `vectors/`: by llama.cpp and by `ideal.py`.

For each MODEL.gguf it writes
  MODEL.llama_cpp.f32   (but for those of `IDEAL_ALONE`) logits as llama.cpp computes them: CPU, 1 thread, flash attention off, KV cache F32, no weight
                        repacking, the whole prompt as one batch
  MODEL.ideal.f32       logits of the float64 forward pass, rounded to float32
  MODEL.json            what the model shows, the token ids, n_ctx, and how far the two lie apart
Both .f32 files are rows of n_vocab little-endian float32, one per token, positions 0, 1, 2, ...

It also checks that a vector can fail: each feature is turned off in the float64 pass, and the logits must move by far
more than the bound that an engine is held to (`sensitivity` in the json: the largest absolute difference per switch).

usage: run_llama_cpp.py [MODEL ...]      (packages: gguf, numpy, xllamacpp of the version named below)
"""

import ctypes
import dataclasses
import json
import pathlib
import sys

import numpy as np
import xllamacpp

import families
import ideal
import make_families
import make_models

# The wheel exports llama.cpp's C functions. The two structures below are those of this version's llama.h.
XLLAMACPP_VERSION = "2026.10.11549"


def prompt(n):
    """BOS and n - 1 arbitrary ids that are neither special nor out of the vocabulary."""
    tokens, state = [1], 1
    while len(tokens) < n:
        state = (state * 1103515245 + 12345) % 2**31
        tokens.append(3 + (state >> 16) % (make_models.N_VOCAB - 3))
    return tokens


def gelu_in_f16(x):
    """GELU as llama.cpp's CPU code has it: a table over half-precision arguments, of half-precision values."""
    table = ideal.gelu_tanh(x.astype(np.float16).astype(np.float64)).astype(np.float16).astype(np.float64)
    return np.where(x <= -10.0, 0.0, np.where(x >= 10.0, x, table))


class ModelParams(ctypes.Structure):
    _fields_ = [
        ("devices", ctypes.c_void_p),
        ("tensor_buft_overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32),
        ("load_mode", ctypes.c_int32),
        ("lazy_mode", ctypes.c_int32),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.c_void_p),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("vocab_only", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
        ("use_extra_bufts", ctypes.c_bool),
        ("no_host", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("load_mtp", ctypes.c_bool),
    ]


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("n_outputs_max_per_seq", ctypes.c_uint32),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("ctx_type", ctypes.c_int32),
        ("rope_scaling_type", ctypes.c_int32),
        ("pooling_type", ctypes.c_int32),
        ("attention_type", ctypes.c_int32),
        ("flash_attn_type", ctypes.c_int32),
        ("rope_freq_base", ctypes.c_float),
        ("rope_freq_scale", ctypes.c_float),
        ("yarn_ext_factor", ctypes.c_float),
        ("yarn_attn_factor", ctypes.c_float),
        ("yarn_beta_fast", ctypes.c_float),
        ("yarn_beta_slow", ctypes.c_float),
        ("yarn_orig_ctx", ctypes.c_uint32),
        ("defrag_thold", ctypes.c_float),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("moe_cache_size", ctypes.c_size_t),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("embeddings", ctypes.c_bool),
        ("offload_kqv", ctypes.c_bool),
        ("no_perf", ctypes.c_bool),
        ("op_offload", ctypes.c_bool),
        ("swa_full", ctypes.c_bool),
        ("kv_unified", ctypes.c_bool),
        ("samplers", ctypes.c_void_p),
        ("n_samplers", ctypes.c_size_t),
        ("ctx_other", ctypes.c_void_p),
    ]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@LOG_CALLBACK
def print_errors(level, text, _):
    if level == 4 and text:  # GGML_LOG_LEVEL_ERROR
        sys.stderr.write(text.decode(errors="replace"))


def library():
    if xllamacpp.__version__ != XLLAMACPP_VERSION:
        sys.exit(f"xllamacpp {XLLAMACPP_VERSION} is needed, this is {xllamacpp.__version__}: the structures may differ")
    lib = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    lib.llama_model_default_params.restype = ModelParams
    lib.llama_context_default_params.restype = ContextParams
    lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
    lib.llama_model_load_from_file.restype = ctypes.c_void_p
    lib.llama_init_from_model.argtypes = [ctypes.c_void_p, ContextParams]
    lib.llama_init_from_model.restype = ctypes.c_void_p
    lib.llama_decode.argtypes = [ctypes.c_void_p, Batch]
    lib.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    lib.llama_n_ctx_seq.argtypes = [ctypes.c_void_p]
    lib.llama_free.argtypes = [ctypes.c_void_p]
    lib.llama_model_free.argtypes = [ctypes.c_void_p]
    lib.llama_log_set.argtypes = [LOG_CALLBACK, ctypes.c_void_p]
    lib.llama_log_set(print_errors, None)
    lib.llama_backend_init()
    # A structure that is not laid out as declared shows in its defaults.
    c, m = lib.llama_context_default_params(), lib.llama_model_default_params()
    assert (c.n_ctx, c.n_batch, c.rope_scaling_type, c.yarn_beta_slow, c.defrag_thold) == (512, 2048, -1, -1.0, -1.0)
    assert (c.type_k, c.type_v, c.embeddings, c.offload_kqv, c.op_offload, c.ctx_other) == (1, 1, False, True, True, None)
    assert (m.vocab_only, m.check_tensors, m.use_extra_bufts, m.no_alloc, m.kv_overrides) == (False, False, True, False, None)
    return lib


def llama_cpp_logits(lib, path, tokens, n_ctx):
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = False
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise RuntimeError(f"{path.name}: llama.cpp does not load it")
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = 0  # disabled
    params.type_k = params.type_v = 0  # GGML_TYPE_F32
    params.offload_kqv = params.op_offload = False
    context = lib.llama_init_from_model(model, params)
    if not context:
        raise RuntimeError(f"{path.name}: llama.cpp makes no context")
    assert lib.llama_n_ctx_seq(context) == n_ctx
    n = len(tokens)
    zero = ctypes.c_int32(0)
    batch = Batch(
        n_tokens=n,
        token=(ctypes.c_int32 * n)(*tokens),
        embd=None,
        pos=(ctypes.c_int32 * n)(*range(n)),
        n_seq_id=(ctypes.c_int32 * n)(*[1] * n),
        seq_id=(ctypes.POINTER(ctypes.c_int32) * n)(*[ctypes.pointer(zero)] * n),
        logits=(ctypes.c_int8 * n)(*[1] * n),
    )
    status = lib.llama_decode(context, batch)
    if status != 0:
        raise RuntimeError(f"{path.name}: llama_decode returned {status}")
    rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (make_models.N_VOCAB,)).copy() for i in range(n)]
    lib.llama_free(context)
    lib.llama_model_free(model)
    return np.stack(rows)


def sensitivity(model, config, weights, tokens, reference):
    """How far the logits move when a feature of this model is left out or read otherwise."""
    n_ctx = model["n_ctx"]
    switches = {"rope pairing": dict(neox=not config.neox)}
    if config.factor != 1.0 and config.scaling_type != "none":
        switches["no frequency scaling"] = dict(scaling_type="none")
    if config.scaling_type == "none":
        switches["frequencies scaled"] = dict(scaling_type="linear")
    if config.scaling_type == "yarn":
        switches["yarn read as linear"] = dict(scaling_type="linear")
    if config.attn_factor != 1.0:
        switches["no attn_factor"] = dict(attn_factor=1.0)
    if any(config.local):
        switches["no window"] = dict(window=0)
        switches["window one wider"] = dict(window_edge=1)
        switches["window one narrower"] = dict(window_edge=-1)
        switches["one rope base"] = dict(freq_base_swa=config.freq_base)
        switches["local and global layers swapped"] = dict(local=tuple(not x for x in config.local))
    elif "attention.sliding_window" in model["keys"]:
        switches["window honoured"] = dict(window=model["keys"]["attention.sliding_window"],
                                           freq_base_swa=config.freq_base, local=(True,) * config.n_layer)
    if config.embedding_scale != 1.0:
        switches["no embedding scale"] = dict(embedding_scale=1.0)
        switches["query scale"] = dict(attention_scale=(config.n_embd / config.n_head) ** -0.5
                                       if config.n_layer != 62 else config.key_length**-0.5)
    if config.logit_softcap:
        switches["no softcap"] = dict(logit_softcap=0.0)
    if config.n_rot < config.key_length:
        switches["all dimensions rotated"] = dict(n_rot=config.key_length)

    def moved(w, changes):
        c = dataclasses.replace(config, **changes)
        if c.n_rot != config.n_rot:
            w = {k: v for k, v in w.items() if "factors" not in k}
        return float(np.abs(ideal.forward(c, w, tokens, n_ctx) - reference).max())

    out = {name: moved(weights, changes) for name, changes in switches.items()}
    groups = {"no q and k norms": "_norm.weight", "no biases": ".bias", "no scales": ".scale",
              "no frequency factors": "rope_f"}
    for name, part in groups.items():
        fits = (lambda k: ("attn_q" in k or "attn_k" in k) and part in k) if "norms" in name else (lambda k: part in k)
        if any(map(fits, weights)):
            out[name] = moved({k: v for k, v in weights.items() if not fits(k)}, {})
    if any("rope_factors" in k for k in weights):
        out["the other frequency factors"] = moved(weights, dict(original_context_length=n_ctx - 1
                                                   if n_ctx <= config.original_context_length else n_ctx))
    return out


def disturbed(arch, keys, weights, tokens, reference):
    """How far the logits move when a kind of tensors is off by about a third."""
    out = {}
    for kind in sorted({name.split(".", 2)[2] if name.startswith("blk.") else name for name in weights}):
        rng = np.random.default_rng(7)
        w = dict(weights)
        for name in weights:
            if name == kind or (name.startswith("blk.") and name.split(".", 2)[2] == kind):
                w[name] = weights[name] * (1.0 + 0.3 * rng.standard_normal(weights[name].shape))
        out[kind] = float(np.abs(families.forward(arch, keys, w, tokens) - reference).max())
    return out


def compute(lib, path, name):
    """Of a model: what it is, llama.cpp's logits, the ideal ones, those with llama.cpp's GELU, and what moves them."""
    if name in make_families.MODELS:
        arch, about, _, _ = make_families.MODELS[name]
        n_ctx, tokens = make_families.N_CTX, prompt(make_families.N_TOKENS)
        loaded = families.load(path)
        exact = families.forward(*loaded, tokens)
        with_gelu = families.forward(*loaded, tokens, gelu_in_f16)
        moves = disturbed(*loaded, tokens, exact)
        keys = loaded[1]
        for key in ("swiglu_clamp_exp", "swiglu_clamp_shexp"):
            if key in keys:
                without = families.forward(arch, {**keys, key: 0.0}, loaded[2], tokens)
                moves["no " + key] = float(np.abs(without - exact).max())
    else:
        model = {**make_models.DEFAULTS, **make_models.MODELS[name]}
        n_ctx, tokens, about = model["n_ctx"], prompt(model["n_tokens"]), model["about"]
        config, weights = ideal.load(path)
        arch = config.arch
        exact = ideal.forward(config, weights, tokens, n_ctx)
        with_gelu = ideal.forward(config, weights, tokens, n_ctx, gelu_in_f16)
        moves = sensitivity(model, config, weights, tokens, exact)
    theirs = None if name in make_families.IDEAL_ALONE else llama_cpp_logits(lib, path, tokens, n_ctx)
    return arch, about, n_ctx, tokens, theirs, exact, with_gelu, moves


def main():
    folder = pathlib.Path(__file__).parent / "vectors"
    lib = library()
    print("| model | rms logit | rms llama.cpp to ideal | max | the same, GELU in F16 | least sensitive switch |")
    print("|---|---|---|---|---|---|")
    for name in sys.argv[1:] or [*make_models.MODELS, *make_families.MODELS]:
        path = folder / f"{name}.gguf"
        arch, about, n_ctx, tokens, theirs, exact, with_gelu, moves = compute(lib, path, name)
        exact.astype("<f4").tofile(folder / f"{name}.ideal.f32")
        record = {"model": f"{name}.gguf", "arch": arch, "about": about}
        if theirs is not None:
            record["engine"] = f"llama.cpp of xllamacpp {XLLAMACPP_VERSION}: CPU, 1 thread, flash attention off, KV cache F32"
        record |= {
            "n_ctx": n_ctx,
            "n_vocab": make_models.N_VOCAB,
            "tokens": tokens,
            "rms_logit": float(np.sqrt(np.mean(exact**2))),
        }
        if theirs is not None:
            difference = theirs.astype(np.float64) - exact
            as_theirs = theirs - with_gelu
            theirs.astype("<f4").tofile(folder / f"{name}.llama_cpp.f32")
            record |= {
                "rms_llama_cpp_to_ideal": float(np.sqrt(np.mean(difference**2))),
                "max_llama_cpp_to_ideal": float(np.abs(difference).max()),
                "rms_llama_cpp_to_ideal_with_f16_gelu": float(np.sqrt(np.mean(as_theirs**2))),
            }
        record["sensitivity"] = {key: float(f"{value:.3g}") for key, value in moves.items()}
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
        (folder / f"{name}.json").write_text("{\n" + lines + "\n}\n")
        weakest = min(moves, key=moves.get)
        if theirs is None:
            print(f"| {name} | {record['rms_logit']:.2f} | | | | {weakest}: {moves[weakest]:.2g} |", flush=True)
            continue
        print(f"| {name} | {record['rms_logit']:.2f} | {record['rms_llama_cpp_to_ideal']:.1e} |"
              f" {record['max_llama_cpp_to_ideal']:.1e} |"
              f" {record['rms_llama_cpp_to_ideal_with_f16_gelu']:.1e} | {weakest}: {moves[weakest]:.2g} |", flush=True)


if __name__ == "__main__":
    main()
