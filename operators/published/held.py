"""Which class of `transformers` holds an architecture exactly, and what a class that does not lacks."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from operators.architecture import Architecture, Layer
from operators.base.errors import ArchitectureError
from operators.base.value import Value
from operators.cost import layer_parameters
from operators.published.classes import CLASSES
from operators.published.families import FAMILIES, Published, describe

NO_CLASS = "no class of transformers holds this model: "


@dataclass(frozen=True)
class Held:
    """An architecture as a model of a class.

    config: its config.json.
    published: the same as it is read back: the architecture, and the tensors of its parameters.
    zeros: parameters of its layers of zeros, all of which a decode step reads.
    """

    config: Mapping[str, Any]
    published: Published
    zeros: int

    @property
    def family(self) -> str:
        return str(self.config["model_type"])

    @property
    def class_name(self) -> str:
        return f"{CLASSES[self.family]}ForCausalLM"


def hold(architecture: Architecture) -> Held:
    """The architecture in the class that needs the fewest zeros.

    architecture: without meta tokens and with a plain head (see `folding.folded`).

    Raises ArchitectureError, which names the layer or the gene that no class has.
    """
    _require_operators(architecture)
    held, reasons = [], []
    for family in _with_operators(architecture):
        try:
            held.append(as_family(architecture, family))
        except ArchitectureError as error:
            reasons.append(str(error))
    if not held:
        raise ArchitectureError(f"{NO_CLASS}{'; '.join(reasons)}")
    return min(held, key=lambda each: each.zeros)


def as_family(architecture: Architecture, family: str) -> Held:
    """The architecture as a model of a family. Raises ArchitectureError, which says what the family lacks."""
    try:
        own = FAMILIES[family].write(architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{family}: {error}") from None
    config = {
        "model_type": family,
        "architectures": [f"{CLASSES[family]}ForCausalLM"],
        "vocab_size": architecture.vocabulary,
        "hidden_size": architecture.width,
        "tie_word_embeddings": architecture.tied_embeddings,
        **own,
    }
    published = describe(config, name=architecture.name, where=family)
    if difference := _difference(architecture, published.architecture):
        raise ArchitectureError(f"{family}: {difference}")
    zeros = sum(
        layer_parameters(layer.operator, layer.shape, layer.norm, architecture.width)
        for layer in published.padding.values()
    ) + sum(prod(each.shape) for each in published.zeros.values())
    return Held(config, published, zeros)


def _with_operators(architecture: Architecture) -> list[str]:
    used = {layer.operator for layer in architecture.layers}
    return [family for family, adapter in FAMILIES.items() if used <= adapter.operators]


def _require_operators(architecture: Architecture) -> None:
    """Raises ArchitectureError for the first layer that no class has beside those before it."""
    before: dict[str, int] = {}
    for number, layer in enumerate(architecture.layers):
        used = {*before, layer.operator}
        if not any(used <= adapter.operators for adapter in FAMILIES.values()):
            beside = " and ".join(f"{operator} (layer {first})" for operator, first in before.items())
            one = f"beside {beside}" if any(layer.operator in a.operators for a in FAMILIES.values()) else ""
            raise ArchitectureError(
                f"layer {number}: no class of transformers has {layer.operator} {one}".rstrip()
            )
        before.setdefault(layer.operator, number)


def _difference(wanted: Architecture, got: Architecture) -> str:
    """What the second architecture has otherwise than the first; empty where they compute the same."""
    for number, (ours, theirs) in enumerate(zip(wanted.layers, got.layers, strict=True)):
        if ours != theirs:
            return f"layer {number} ({ours.operator}): {_unlike(ours, theirs)}"
    rotates = any(layer.operator == "attention" for layer in wanted.layers)
    for name in type(wanted).model_fields:
        if name in ("layers", "name") or (name == "rope" and not rotates):
            continue  # only attention is rotated
        if getattr(wanted, name) != getattr(got, name):
            return (
                f"{name}: the model has {_word(getattr(wanted, name))}, the class {_word(getattr(got, name))}"
            )
    return ""


def _unlike(ours: Layer, theirs: Layer) -> str:
    if ours.operator != theirs.operator:
        return f"the class has {theirs.operator} there"
    for where, left, right in ((ours, ours, theirs), (ours.shape, ours.shape, theirs.shape)):
        for name in type(where).model_fields:
            if name != "shape" and getattr(left, name) != getattr(right, name):
                has, other = _word(getattr(left, name)), _word(getattr(right, name))
                return f"{name}: the model has {has}, the class {other}"
    raise AssertionError("layers that differ nowhere")


def _word(value: Any) -> str:
    if isinstance(value, Value):
        return str(value.model_dump(exclude_none=True))
    return "none" if value is None else str(value)
