"""Sizes of an architecture as a config.json has them: one shape for all layers of a kind."""

from collections.abc import Sequence
from typing import Any

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError
from operators.library.attention import AttentionShape
from operators.library.mamba2 import LIBRARY_CHUNK, Mamba2Shape
from operators.library.swiglu import FeedForwardShape
from operators.published.padding import PADDING, Block, missing
from operators.rope import Rope

CHUNK = LIBRARY_CHUNK
"""Tokens of a Mamba2 layer's chunk; it changes how fast a prompt is read, not what comes out."""

SMALL_ATTENTION = AttentionShape(heads=1, kv_heads=1, head_dim=64)
"""Of attention that only holds zeros: 64 is the smallest head that every engine has kernels for."""

SMALL_HIDDEN = 32
"""Inner width of a feed-forward network that only holds zeros: quantized engines want a multiple of 32."""


def shape_of(architecture: Architecture, operator: str) -> Any:
    """The shape of the first layer of an operator; None where there is no such layer."""
    return next((layer.shape for layer in architecture.layers if layer.operator == operator), None)


def expand_of(architecture: Architecture, shape: Mamba2Shape) -> int:
    """How many times as many channels as the width Mamba2 has, in a class that takes no other number of them.

    Raises ArchitectureError for a part of the width.
    """
    expand, rest = divmod(shape.inner, architecture.width)
    if rest:
        number = [layer.operator for layer in architecture.layers].index("mamba2")
        raise ArchitectureError(
            f"layer {number} (mamba2): heads x head_dim: the model has {shape.inner}, "
            f"the class whole multiples of the width {architecture.width}"
        )
    return expand


def attention_config(
    architecture: Architecture, *, small: AttentionShape = SMALL_ATTENTION
) -> dict[str, Any]:
    """The heads of attention.

    small: of attention that only holds zeros.
    """
    shape = shape_of(architecture, "attention") or small
    return {
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
    }


def hidden_of(architecture: Architecture, operator: str = "swiglu") -> int:
    """The inner width of a feed-forward network."""
    shape: FeedForwardShape | None = shape_of(architecture, operator)
    return SMALL_HIDDEN if shape is None else shape.hidden


def rope_config(rope: Rope | None) -> dict[str, Any]:
    """The `rope_parameters` of a config.json; None for no rotation has the default ones."""
    rope = rope or Rope()
    if rope.scaling is None:
        return {"rope_type": "default", "rope_theta": rope.theta}
    return {
        "rope_type": rope.scaling.kind,
        "rope_theta": rope.theta,
        "factor": rope.scaling.factor,
        "low_freq_factor": rope.scaling.low,
        "high_freq_factor": rope.scaling.high,
        "original_max_position_embeddings": rope.scaling.original_context,
    }


def padding_config(blocks: Sequence[Block]) -> dict[str, Any]:
    """The key that lists the layers that blocks lack, where they lack any."""
    numbers = missing(blocks)
    return {PADDING: numbers} if numbers else {}


def with_attention(blocks: Sequence[Block], other: str, *, cheap: bool) -> tuple[list[Block], list[str]]:
    """Blocks and the mixer of each, so that one at least has attention.

    Without any attention `transformers` cannot generate with a cache.

    other: the family's other mixer.
    cheap: whether attention costs less than `other`, so that it stands in where a block has no mixer.
    """
    filled = list(blocks)
    mixers = [block[0].operator if block[0] else None for block in filled]
    if "attention" not in mixers and None not in mixers:
        filled.append((None, None))
        mixers.append(None)
    stand_in = "attention" if cheap or "attention" not in mixers else other
    return filled, [stand_in if mixer is None else mixer for mixer in mixers]
