"""Reads a GGUF model of the llama family, which has the shapes of `transformers` under other names."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base.errors import ArchitectureError, DataError
from operators.published.gguf_metadata import llama_config
from operators.published.gguf_parts import read_parts, values_of
from operators.published.rope_factors import llama3_scaling

OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
EMBEDDING, HEAD, FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
SHOWN = 3  # names in a message; the others are counted


class GgufFile(Mapping[str, Tensor]):
    """The tensors of a GGUF model, under their names in `transformers`.

    Each is dequantized to float32 when it is asked for. The attribute `config` is the metadata as a
    config.json of model_type `llama`.

    path: the file, or the first of its parts.

    Raises DataError for files that cannot be read, and ArchitectureError for a model that is no llama or that
    an architecture cannot express.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts = read_parts(path)
        theirs = {tensor.name: tensor for part in self._parts for tensor in part.tensors}
        embedding = theirs.get(EMBEDDING)
        self.config = llama_config(
            self.field,
            list(self._parts[0]),
            vocabulary=0 if embedding is None or not len(embedding.shape) else int(embedding.shape[-1]),
            tied=HEAD not in theirs,
            where=str(path),
        )
        factors = theirs.pop(FACTORS, None)
        self._tensors = {_published_name(name): tensor for name, tensor in theirs.items()}
        if unknown := [name for name in theirs if not _published_name(name)]:
            raise ArchitectureError(
                f"{path}: weights that a llama does not have here: {', '.join(unknown[:SHOWN])}"
                + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
            )
        if embedding is None:
            raise DataError(f"{path}: missing weights: {EMBEDDING}")
        if factors is not None:
            self._stretch(values_of(path, factors).numpy())

    def field(self, key: str) -> Any:
        """A value of the metadata: a number, a string, a list of such values, or None."""
        return self._parts[0].value(key)

    def _stretch(self, factors: np.ndarray) -> None:
        """Turns the factors of the frequencies into a setting of the configuration."""
        theta, head_dim = self.config.get("rope_theta", 10_000.0), self.config["head_dim"]
        if not factors.size or factors.shape != (head_dim // 2,):
            raise DataError(
                f"{self.path}: {FACTORS}: expected a factor for each pair of a head of {head_dim}, "
                f"got shape {factors.shape}"
            )
        scaling = llama3_scaling(factors, theta)
        if scaling is None:
            raise ArchitectureError(
                f"{self.path}: {FACTORS}: expected the factors of a llama3 scaling, "
                f"got {len(factors)} others from {factors.min():g} to {factors.max():g}"
            )
        if scaling:
            self.config["rope_scaling"] = scaling

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        values = values_of(self.path, tensor).numpy()
        for projection, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if name.endswith(f"self_attn.{projection}.weight"):
                rows = self.config.get(heads, self.config["num_attention_heads"]) * self.config["head_dim"]
                if values.ndim != 2 or len(values) != rows:
                    raise DataError(
                        f"{self.path}: {tensor.name}: expected {rows} rows, got shape {values.shape}"
                    )
                values = _halves_together(values, rows // self.config["head_dim"])
        return torch.from_numpy(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _published_name(name: str) -> str:
    """The name of a tensor in `transformers`; "" for one that has none there."""
    inside = re.fullmatch(r"blk\.(0|[1-9]\d*)\.(\w+)\.weight", name)
    if inside and inside[2] in INSIDE:
        return f"model.layers.{inside[1]}.{INSIDE[inside[2]]}.weight"
    return OUTSIDE.get(name, "")


def _halves_together(matrix: np.ndarray, heads: int) -> np.ndarray:
    """The rows of each head with the first members of all pairs before the second ones.

    llama.cpp rotates neighbouring rows, `transformers` and we the two halves of a head.
    """
    pairs = matrix.reshape(heads, -1, 2, *matrix.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(matrix.shape))
