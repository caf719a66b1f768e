"""Describes a published model by its config.json: an architecture, and the tensors of its parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError
from operators.published.classes import check_classes
from operators.published.keys import FAMILY_NEUTRAL, FAMILY_WITHOUT_EFFECT, NEUTRAL, WITHOUT_EFFECT
from operators.published.mamba_families import mamba2, nemotron_h
from operators.published.settings import Settings
from operators.published.tensor_names import Family
from operators.published.transformer_families import llama, olmo_hybrid, qwen2, qwen3

FAMILIES: dict[str, Callable[[Settings], Family]] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "mamba2": mamba2,
    "nemotron_h": nemotron_h,
    "olmo_hybrid": olmo_hybrid,
}


@dataclass(frozen=True)
class Published:
    """A published model in our terms.

    architecture: the model.
    names: the published tensors of each of our parameters.
    renames: (old, new) spellings in names of tensors, to be applied in order; `names` has the new ones.
    shortest_step: `transformers` raises shorter steps of Mamba2 layers to this when it reads a prompt, but
        not when it generates.
    """

    architecture: Architecture
    names: Mapping[str, tuple[str, ...]]
    renames: Sequence[tuple[str, str]] = ()
    shortest_step: float = 0.0


def describe(config: Mapping[str, Any], *, name: str = "", where: str = "config.json") -> Published:
    """The model that a config.json describes.

    config: its content.
    name: of the architecture.
    where: the file, for messages.

    Raises ArchitectureError, one line that begins with `where`, for a model that an architecture cannot
    express, and for a key that is neither mapped nor known to change nothing.
    """
    settings = Settings(config, where=where)
    family = settings.get("model_type", null=True)
    if not isinstance(family, str) or family not in FAMILIES:
        raise settings.error("model_type", f"one of {', '.join(FAMILIES)}", family)
    if settings.get("quantization_config", null=True) is not None:
        raise ArchitectureError(f"{where}: quantization_config: expected weights that are not quantized")
    check_classes(settings, family)
    fields, layers, names, renames = FAMILIES[family](settings)
    tied = settings.flag("tie_word_embeddings")
    if tied:
        del names["head.weight"]
    fields |= {"name": name, "vocabulary": settings.size("vocab_size"), "width": settings.size("hidden_size")}
    # transformers raises short steps in this family alone.
    shortest_step = _shortest_step(settings) if family == "nemotron_h" else 0.0
    settings.without_effect(WITHOUT_EFFECT | FAMILY_WITHOUT_EFFECT[family])
    settings.refuse_unread(family, NEUTRAL | FAMILY_NEUTRAL.get(family, {}))
    architecture = Architecture.parse({**fields, "layers": layers, "tied_embeddings": tied}, where=where)
    return Published(architecture, names, renames, shortest_step)


def _shortest_step(config: Settings) -> float:
    value = config.get("time_step_min", "mamba_dt_min", default=0.001)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise config.error("time_step_min", "a number from 0", value)
    return float(value)
