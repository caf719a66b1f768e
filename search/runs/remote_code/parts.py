"""The operators of an exported folder, and its architecture from the mapping in config.json."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from operators.rope import Rope, RopeScaling
from search.runs.remote_code.plain import Value
from search.runs.remote_code.table import OPERATORS


class Layer(Value):
    operator: str
    shape: Any
    norm: str = "rmsnorm"
    norm_position: str = "before"


class Architecture(Value):
    name: str = ""
    width: int
    vocabulary: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool = True
    normalized_head: bool = False
    meta_tokens: int = 0
    rope: Rope | None
    norm_eps: float


def architecture_from(data: Mapping[str, Any]) -> Any:
    """The architecture of a mapping as config.json has it."""
    layers = tuple(
        Layer(**{**layer, "shape": OPERATORS[layer["operator"]].shape(**layer["shape"])})
        for layer in data["layers"]
    )
    rope = data["rope"]
    if rope is not None:
        scaling = rope["scaling"]
        rope = Rope(theta=rope["theta"], scaling=None if scaling is None else RopeScaling(**scaling))
    return Architecture(**{**data, "layers": layers, "rope": rope})


def _resolve(operator: str, *circumstances: Any) -> Any:
    return SimpleNamespace(name="reference", kernels=OPERATORS[operator].backends["reference"].load())


registry = SimpleNamespace(get=OPERATORS.__getitem__)
backends = SimpleNamespace(
    resolve=_resolve, fused_step=lambda *circumstances: None, fused_head=lambda *circumstances: None
)
