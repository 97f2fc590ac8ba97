"""Writes a trained checkpoint as an F32 GGUF, ready for `twinfer quantize`."""

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "demo"))

from experts import Config, gguf_tensors
from export import add_vocabulary


def add_shape(w, c: Config):
    w.add_context_length(c.n_ctx)
    w.add_embedding_length(c.n_embd)
    w.add_block_count(c.n_layer)
    w.add_feed_forward_length(c.n_ff_exp)
    w.add_head_count(c.n_head)
    w.add_head_count_kv(c.n_kv_head)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_rope_dimension_count(c.n_rot)
    w.add_rope_freq_base(c.rope_theta)
    w.add_layer_norm_rms_eps(c.rms_eps)
    w.add_vocab_size(c.vocab_size)
    w.add_expert_count(c.n_expert)
    w.add_expert_used_count(c.n_expert_used)
    w.add_expert_feed_forward_length(c.n_ff_exp)
    if c.hybrid:
        # Which axis of a picture's position each pair turns with; of a text's all are one.
        pairs = c.n_rot // 2
        w.add_rope_dimension_sections([pairs - 2 * (pairs // 3), pairs // 3, pairs // 3, 0])
        w.add_expert_shared_feed_forward_length(c.n_ff_shared)
        w.add_full_attention_interval(c.full_attention_interval)
        w.add_ssm_conv_kernel(c.conv_kernel)
        w.add_ssm_inner_size(c.n_v_head * c.state_dim)
        w.add_ssm_state_size(c.state_dim)
        w.add_ssm_time_step_rank(c.n_v_head)
        w.add_ssm_group_count(c.n_k_head)


def write(params, c: Config, path):
    w = gguf.GGUFWriter(path, c.family)
    w.add_type("model")
    w.add_name(f"Twinfer Test {c.family}")
    w.add_size_label(f"{sum(t.size for t in params.values()) / 1e6:.1f}M")
    w.add_author("the twinfer developers")
    w.add_license("MIT OR Apache-2.0")
    w.add_description("A toy for testing twinfer, trained on small stories that a script made up.")
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_shape(w, c)
    add_vocabulary(w, c.vocab_size)
    for name, tensor in gguf_tensors(params):
        w.add_tensor(name, tensor)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=["qwen3moe", "qwen35moe"])
    args = parser.parse_args()
    work = HERE / "work"
    write(np.load(work / f"{args.family}.npz"), Config(args.family), work / f"{args.family}-f32.gguf")
