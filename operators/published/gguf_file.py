"""A GGUF file of the llama family, as llama.cpp writes it: the same names, shapes and order of rows as in `transformers`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.errors import ArchitectureError, DataError

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
SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "rope.dimension_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
}


class GgufFile(Mapping[str, Tensor]):
    """The tensors of a GGUF file under their names in `transformers`; each is dequantized to float32 when it is asked for.

    config: its metadata as a config.json of model_type `llama`. Raises DataError for a file that cannot be read,
    ArchitectureError for another family.
    """

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ImportError as error:
            raise DataError(
                f"{path}: reading GGUF needs the package gguf (`pip install gguf`): {error}"
            ) from None
        self.path = path
        try:
            reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise DataError(f"{path}: not a GGUF file: {error}") from None
        self._fields = reader.fields
        self._tensors = {_published_name(tensor.name): tensor for tensor in reader.tensors}
        self._dequantize = gguf.dequantize
        self.config = self._config()

    def field(self, key: str) -> Any:
        """A value of the metadata: a number, a string, a list of those, or None."""
        return self._fields[key].contents() if key in self._fields else None

    def _config(self) -> dict[str, Any]:
        family = self.field("general.architecture")
        if family != "llama":
            raise ArchitectureError(
                f"{self.path}: general.architecture: expected 'llama' in a GGUF file, got {family!r}"
            )
        config: dict[str, Any] = {key: _short(self.field(f"llama.{theirs}")) for key, theirs in SIZES.items()}
        scaling = self.field("llama.rope.scaling.type")
        if scaling not in (None, "none"):
            config["rope_scaling"] = {"rope_type": scaling}
        if self.field("llama.expert_count"):
            raise ArchitectureError(f"{self.path}: llama.expert_count: expected a model without experts")
        embedding = self._tensors.get("model.embed_tokens.weight")
        vocabulary = int(embedding.shape[-1]) if embedding is not None else self.field("llama.vocab_size")
        return {
            **{key: value for key, value in config.items() if value is not None},
            "model_type": "llama",
            "vocab_size": vocabulary,
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
        }

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        try:
            values = self._dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise DataError(
                f"{self.path}: {tensor.name}: quantized as {tensor.tensor_type.name}, which cannot be read"
            ) from None
        for projection, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if name.endswith(f"self_attn.{projection}.weight"):
                values = _halves_together(
                    values, self.config.get(heads) or self.config["num_attention_heads"]
                )
        return torch.from_numpy(np.array(values, dtype=np.float32))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _published_name(name: str) -> str:
    """The name in `transformers`; a tensor that has none there keeps its own."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in INSIDE and parts[3] == "weight":
        return f"model.layers.{parts[1]}.{INSIDE[parts[2]]}.weight"
    return name


def _halves_together(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of every head from pair by pair, as llama.cpp rotates neighbours, to all first members and then all second ones."""
    pairs = matrix.reshape(heads, -1, 2, *matrix.shape[1:])
    return pairs.swapaxes(1, 2).reshape(matrix.shape)


def _short(value: Any) -> Any:
    """A float32 of the metadata as the number that was meant: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
