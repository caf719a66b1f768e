"""How many bytes a GGUF model takes, and moves in llama.cpp, by arithmetic."""

from dataclasses import replace
from math import prod
from typing import Any, Literal

import torch

from operators.architecture import Architecture
from operators.cost import Cost, cost
from operators.published.gguf_export.homes import outline
from operators.published.gguf_export.outline import Stored

Dtype = Literal["F32", "F16", "BF16", "Q8_0"]
EMBEDDING, HEAD = "token_embd.weight", "output.weight"  # the second one only where the head is not tied


def kind_of(tensor: Stored, dtype: Dtype) -> Any:
    """The type of a tensor in a file whose matrices have `dtype` (gguf.GGMLQuantizationType)."""
    import gguf

    if tensor.precise:
        return gguf.GGMLQuantizationType.F32
    kind = gguf.GGMLQuantizationType[dtype]
    whole = tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
    return kind if whole else gguf.GGMLQuantizationType.F16


def bytes_of(tensor: Stored, kind: Any) -> int:
    """How many bytes a tensor takes in the file."""
    import gguf

    values, size = gguf.GGML_QUANT_SIZES[kind]
    return int(prod(tensor.shape) // values * size)


def gguf_cost(architecture: Architecture, *, batch: int, context: int, dtype: Dtype) -> Cost:
    """The costs of an architecture in llama.cpp, with the bytes of its file.

    The zeros of sub-layers that the file has and the architecture lacks count as bytes, not as parameters.
    Keys and values have 16 bits a number in llama.cpp, and all other state has 32.

    batch, context: as for `operators.cost.cost`.
    dtype: of the matrices.

    Raises ArchitectureError where no GGUF model holds the architecture.
    """
    sizes = {
        tensor.name: bytes_of(tensor, kind_of(tensor, dtype)) for tensor in outline(architecture).tensors
    }
    counted = cost(architecture, batch=batch, context=context, dtype=torch.float32)
    kv_bytes = cost(architecture, batch=batch, context=context, dtype=torch.float16).kv_bytes
    weights, rows = sum(sizes.values()), batch * sizes[EMBEDDING] // architecture.vocabulary
    read = weights - sizes[EMBEDDING] if HEAD in sizes else weights
    return replace(
        counted,
        param_bytes=weights,
        state_bytes=kv_bytes + counted.recurrent_bytes,
        kv_bytes=kv_bytes,
        decode_bytes=read + rows + kv_bytes + 2 * counted.recurrent_bytes,
    )
