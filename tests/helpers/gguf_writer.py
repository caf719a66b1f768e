"""Writes a published model as a GGUF file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")


def neighbours(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Puts the rows in llama.cpp's order: the two members of a rotated pair one after the other."""
    order = [
        head * size + half + pair
        for size in [len(matrix) // heads]
        for head in range(heads)
        for pair in range(size // 2)
        for half in (0, size // 2)
    ]
    return matrix[order]


def write_gguf(
    path: Path,
    theirs: Any,
    *,
    family: str = "llama",
    quantize: Any = None,
    also: Callable[[Any], Any] = lambda writer: None,
    keep: Callable[[str], bool] = lambda name: True,
    endian: Any = gguf.GGUFEndian.LITTLE,
) -> None:
    """Writes a Llama as llama.cpp's converter does.

    path: the file.
    theirs: the model of transformers.
    family: the name of the architecture in the file.
    quantize: type of the matrices; None for float32.
    also: writes what else goes into the file.
    keep: whether a tensor goes into the file, by its name there.
    endian: byte order of the file.
    """
    config = theirs.config
    writer = gguf.GGUFWriter(path, family, endianess=endian)
    writer.add_context_length(2048)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    also(writer)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inside = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attn_output",
    }
    inside |= {f"self_attn.{letter}_proj": f"attn_{letter}" for letter in "qkv"} | {
        f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")
    }
    names |= {
        f"model.layers.{n}.{old}": f"blk.{n}.{new}"
        for n in range(config.num_hidden_layers)
        for old, new in inside.items()
    }
    for name, tensor in theirs.named_parameters():
        values = tensor.detach().numpy()
        if "q_proj" in name or "k_proj" in name:
            values = neighbours(
                values, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            )
        kind = quantize if quantize is not None and values.ndim == 2 else gguf.GGMLQuantizationType.F32
        if keep(stored := f"{names[name.removesuffix('.weight')]}.weight"):
            writer.add_tensor(stored, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
