"""One measurement of llama.cpp, through llama-cpp-python's low-level interface, in a process of its own: what
llama-bench does, and batched-bench for several sequences.

Prints one JSON object. Tests: "ppN" (read a prompt of N tokens), "tgN" (write N tokens one by one), "tgN x S" (S
sequences write N tokens each, a token of every one in a pass), "tgN @ dM" (the same behind M tokens), "emN x S" (an
encoder's vectors of S texts of N tokens, as many in a micro-batch as fit), "logits" (of the token ids given, to a file),
"vector" (of a text's token ids, to a file). Prompts go in batches of 2048 and micro-batches of 512, both programs' defaults; only a
prompt's last token has logits. Each sequence has a cache of its own (kv_unified is off, the default). What a test needs
is touched before it is timed.
"""

import argparse
import array
import ctypes
import json
import os
import re
import sys
import time

import llama_cpp as ll

BATCH, MICRO_BATCH = 2048, 512
CACHE_TYPES = {"f16": 1, "q8_0": 8}


def token(i, n_vocab):
    """The same tokens as `twinfer bench`: spread over the vocabulary."""
    return (((i + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 32) % n_vocab


class Session:
    def __init__(self, args, n_ctx, n_seq, vectors=False):
        """A context of `n_ctx` positions for each of `n_seq` sequences; of an encoder for `vectors`."""
        start = time.perf_counter()
        ll.llama_backend_init()
        model_params = ll.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = ll.llama_model_load_from_file(os.fsencode(args.model), model_params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {args.model}")
        self.n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        params = ll.llama_context_default_params()
        params.n_ctx = n_ctx * n_seq
        params.n_batch = BATCH
        params.n_ubatch = MICRO_BATCH
        params.n_seq_max = n_seq
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = args.threads
        params.flash_attn_type = args.flash_attention
        params.type_k = params.type_v = CACHE_TYPES[args.cache_type]
        params.no_perf = True
        params.embeddings = vectors
        if vectors:
            # A text must be whole in a micro-batch.
            params.n_batch = params.n_ubatch = max(MICRO_BATCH, n_ctx)
        self.ctx = ll.llama_init_from_model(self.model, params)
        if not self.ctx:
            sys.exit("llama.cpp cannot make a context with these settings")
        self.memory = ll.llama_get_memory(self.ctx)
        self.n_seq = n_seq
        # A row of every sequence.
        self.rows = ll.llama_batch_init(max(n_seq, n_seq * n_ctx if vectors else 0), 0, 1)
        self.rows.n_tokens = n_seq
        for j in range(n_seq):
            self.rows.n_seq_id[j], self.rows.seq_id[j][0], self.rows.logits[j] = 1, j, 1
        self.load_seconds = time.perf_counter() - start

    def decode(self, batch):
        status = ll.llama_decode(self.ctx, batch)
        if status != 0:
            sys.exit(f"llama_decode failed ({status})")

    def prompt(self, first, n):
        """Tokens `first..first + n`, as a prompt of the first sequence."""
        for at in range(first, first + n, BATCH):
            count = min(BATCH, first + n - at)
            ids = (ll.llama_token * count)(*(token(i, self.n_vocab) for i in range(at, at + count)))
            self.decode(ll.llama_batch_get_one(ids, count))
        ll.llama_synchronize(self.ctx)

    def write(self, first, n):
        """Tokens `first..first + n` of every sequence, one of each in a pass."""
        for i in range(first, first + n):
            self.row(i, [token(i, self.n_vocab)] * self.n_seq)

    def row(self, position, tokens):
        """One pass: a token of every sequence."""
        for j, value in enumerate(tokens):
            self.rows.token[j], self.rows.pos[j] = value, position
        self.decode(self.rows)
        ll.llama_synchronize(self.ctx)

    def texts(self, n, count):
        """Vectors of `count` texts of the same `n` tokens, `n_seq` of them in a pass."""
        for at in range(0, count, self.n_seq):
            together = min(self.n_seq, count - at)
            self.vectors([[token(i, self.n_vocab) for i in range(n)]] * together)

    def vectors(self, texts):
        """One pass over whole texts."""
        rows = self.rows
        rows.n_tokens = sum(map(len, texts))
        at = 0
        for j, text in enumerate(texts):
            for position, value in enumerate(text):
                rows.token[at], rows.pos[at], rows.logits[at] = value, position, 1
                rows.n_seq_id[at], rows.seq_id[at][0] = 1, j
                at += 1
        if self.memory:
            ll.llama_memory_clear(self.memory, False)
        self.decode(rows)
        ll.llama_synchronize(self.ctx)
        if not ll.llama_get_embeddings_seq(self.ctx, len(texts) - 1):
            sys.exit("llama.cpp made no vectors")

    def cut(self, n):
        """Forgets what lies behind the first `n` positions."""
        if n == 0:
            ll.llama_memory_clear(self.memory, False)
        elif not all(ll.llama_memory_seq_rm(self.memory, j, n, -1) for j in range(self.n_seq)):
            sys.exit("llama.cpp cannot shorten this model's cache")

    def fill(self, depth, states, key):
        """`depth` positions of every sequence, from a file where an earlier process left them."""
        came = self.fill_first(depth, states, key)
        # batched-bench does so too. The next pass carries the copies out.
        for j in range(1, self.n_seq):
            ll.llama_memory_seq_cp(self.memory, 0, j, -1, -1)
        return came

    def fill_first(self, depth, states, key):
        path = os.path.join(states, f"{key}-d{depth}.state") if states else None
        ids = (ll.llama_token * depth)()
        count = ctypes.c_size_t()
        if path and os.path.exists(path):
            if ll.llama_state_seq_load_file(self.ctx, os.fsencode(path), 0, ids, depth, ctypes.byref(count)):
                return "file"
        self.cut(0)
        self.prompt(0, depth)
        if path:
            os.makedirs(states, exist_ok=True)
            ids = (ll.llama_token * depth)(*(token(i, self.n_vocab) for i in range(depth)))
            part = f"{path}.{os.getpid()}"
            if ll.llama_state_seq_save_file(self.ctx, os.fsencode(part), 0, ids, depth):
                os.replace(part, path)
        return "computed"


def logits(session, ids, path):
    """All logits of `ids` as little-endian f32: as a prompt, or of several sequences as the last one's."""
    n = len(ids)
    with open(path, "wb") as out:

        def write(row):
            values = array.array("f", ll.llama_get_logits_ith(session.ctx, row)[: session.n_vocab])
            if sys.byteorder == "big":
                values.byteswap()
            values.tofile(out)

        if session.n_seq > 1:
            last = session.n_seq - 1
            for i in range(n):
                # The others hold the same tokens in another order: a mix-up would show.
                session.row(i, [ids[(i + last - j) % n] for j in range(session.n_seq)])
                write(last)
            return
        batch = ll.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        for i, value in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = value, i, 1, 1
            batch.seq_id[i][0] = 0
        session.decode(batch)
        for i in range(n):
            write(i)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--test", required=True, help="pp512, tg128, 'tg64 @ d4096', 'tg32 x 8', 'em64 x 256', logits, vector")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--flash-attention", type=int, choices=(0, 1), default=1)
    parser.add_argument("--cache-type", choices=CACHE_TYPES, default="f16")
    parser.add_argument("--states", help="directory that keeps filled caches between processes")
    parser.add_argument("--tokens", help="with --test logits: ids, separated by commas")
    parser.add_argument("--sequences", type=int, default=1, help="with --test logits: sequences written together")
    parser.add_argument("--output", help="with --test logits: the file to write")
    args = parser.parse_args()

    messages = []

    @ll.llama_log_callback
    def log(level, text, _):
        messages.append(text.decode("utf-8", "replace"))
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            sys.stderr.write(messages[-1])

    ll.llama_log_set(log, ctypes.c_void_p(0))

    report = {"engine": "llama.cpp", "version": f"llama-cpp-python {ll.__version__}", "test": args.test, "seconds": []}
    if args.test == "logits":
        ids = [int(word) for word in args.tokens.split(",")]
        session = Session(args, len(ids), args.sequences)
        logits(session, ids, args.output)
        report["n_vocab"] = session.n_vocab
    elif args.test == "vector":
        ids = [int(word) for word in args.tokens.split(",")]
        session = Session(args, len(ids), 1, vectors=True)
        session.vectors([ids])
        width = ll.llama_model_n_embd(session.model)
        values = array.array("f", ll.llama_get_embeddings_seq(session.ctx, 0)[:width])
        with open(args.output, "wb") as out:
            values.tofile(out)
    elif found := re.fullmatch(r"em(\d+)(?: x (\d+))?", args.test):
        n, count = int(found[1]), int(found[2] or 1)
        session = Session(args, n, max(1, min(count, MICRO_BATCH // n)), vectors=True)
        session.texts(n, session.n_seq)
        start = time.perf_counter()
        session.texts(n, count)
        report["seconds"].append(time.perf_counter() - start)
    else:
        found = re.fullmatch(r"(pp|tg)(\d+)(?: x (\d+))?(?: @ d(\d+))?", args.test)
        if not found:
            parser.error(f"unknown test {args.test}")
        kind, n, n_seq, depth = found[1], int(found[2]), int(found[3] or 1), int(found[4] or 0)
        session = Session(args, depth + n, n_seq)
        if depth:
            key = f"{os.path.basename(args.model)}-{args.cache_type}-fa{args.flash_attention}"
            report["depth_from"] = session.fill(depth, args.states, key)
        timed = session.prompt if kind == "pp" else session.write
        # Faults pages in, makes the graph, wakes the threads.
        timed(depth, min(n, MICRO_BATCH if kind == "pp" else 4))
        session.cut(depth)
        start = time.perf_counter()
        timed(depth, n)
        report["seconds"].append(time.perf_counter() - start)
    report["load_seconds"] = session.load_seconds
    report["system_info"] = ll.llama_print_system_info().decode()
    # Which buffers the weights went to tells whether they were repacked.
    report["buffers"] = [m.strip() for m in messages if "model buffer size" in m]
    json.dump(report, sys.stdout)
    print()


main()
