"""Describes a published model by its config.json: an architecture, and the tensors of its parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operators.architecture import Architecture, Layer
from operators.base.errors import ArchitectureError
from operators.published.classes import check_classes
from operators.published.conv_families import lfm2, lfm2_config
from operators.published.delta_families import olmo_hybrid, olmo_hybrid_config
from operators.published.forms import Form
from operators.published.granite import granitemoehybrid, granitemoehybrid_config
from operators.published.keys import FAMILY_NEUTRAL, FAMILY_WITHOUT_EFFECT, NEUTRAL, WITHOUT_EFFECT
from operators.published.kimi import kimi_linear, kimi_linear_config
from operators.published.mamba_families import mamba2, mamba2_config, nemotron_h, nemotron_h_config
from operators.published.own_code import OWN, own_architecture, own_names
from operators.published.padding import padded_layers
from operators.published.qwen_hybrids import (
    qwen3_5_text,
    qwen3_5_text_config,
    qwen3_next,
    qwen3_next_config,
)
from operators.published.settings import Settings
from operators.published.tensor_names import Family, Zeros
from operators.published.transformer_families import (
    arcee,
    arcee_config,
    llama,
    llama_config,
    qwen2,
    qwen2_config,
    qwen3,
    qwen_config,
)


@dataclass(frozen=True)
class Adapter:
    """Both directions of a family.

    read: the model that a config.json describes.
    write: the config.json of the model of this family that is nearest to an architecture, without what all
        families share. `held.py` compares the two.
    operators: those that the family has.
    ties: whether the class shares one tensor between embedding and head; else the file has both.
    """

    read: Callable[[Settings], Family]
    write: Callable[[Architecture], dict[str, Any]]
    operators: frozenset[str]
    ties: bool = True


def _adapter(
    read: Callable[[Settings], Family],
    write: Callable[[Architecture], dict[str, Any]],
    *operators: str,
    ties: bool = True,
) -> Adapter:
    return Adapter(read, write, frozenset(operators), ties)


FAMILIES: dict[str, Adapter] = {
    "llama": _adapter(llama, llama_config, "attention", "swiglu"),
    "qwen2": _adapter(qwen2, qwen2_config, "attention", "swiglu"),
    "qwen3": _adapter(qwen3, qwen_config, "attention", "swiglu"),
    "arcee": _adapter(arcee, arcee_config, "attention", "relu2"),
    "mamba2": _adapter(mamba2, mamba2_config, "mamba2"),
    "nemotron_h": _adapter(nemotron_h, nemotron_h_config, "mamba2", "attention", "relu2", ties=False),
    "granitemoehybrid": _adapter(granitemoehybrid, granitemoehybrid_config, "mamba2", "attention", "swiglu"),
    "qwen3_5_text": _adapter(qwen3_5_text, qwen3_5_text_config, "gated_deltanet", "attention", "swiglu"),
    "qwen3_next": _adapter(qwen3_next, qwen3_next_config, "gated_deltanet", "attention", "swiglu"),
    "olmo_hybrid": _adapter(olmo_hybrid, olmo_hybrid_config, "gated_deltanet", "attention", "swiglu"),
    "lfm2": _adapter(lfm2, lfm2_config, "short_conv", "attention", "swiglu"),
    "kimi_linear": _adapter(kimi_linear, kimi_linear_config, "kda", "swiglu", ties=False),
}


@dataclass(frozen=True)
class Published:
    """A published model in our terms.

    architecture: the model.
    names: the published tensors of each of our parameters. Parameters with the same ones lie one under the
        other in them.
    renames: (old, new) spellings in names of tensors, to be applied in order; `names` has the new ones.
    shortest_step: `transformers` raises shorter steps of Mamba2 layers to this when it reads a prompt, but
        not when it generates.
    forms: the parameters that are published in another form.
    padding: layers of zeros that the class has besides, by their numbers among all of its layers.
    zeros: published tensors of zeros that the class has besides.
    woven: published tensors in which the rows of our parameters do not lie one under the other -> the form of
        all of them together.
    remark: a line for the user; empty for none.
    """

    architecture: Architecture
    names: Mapping[str, tuple[str, ...]]
    renames: Sequence[tuple[str, str]] = ()
    shortest_step: float = 0.0
    forms: Mapping[str, Form] = field(default_factory=dict)
    padding: Mapping[int, Layer] = field(default_factory=dict)
    zeros: Mapping[str, Zeros] = field(default_factory=dict)
    woven: Mapping[str, Form] = field(default_factory=dict)
    remark: str = ""

    @property
    def whole(self) -> Architecture:
        """The model as its class has it, with the layers of zeros. `names` are those of its parameters."""
        layers = list(self.architecture.layers)
        for number in sorted(self.padding):
            layers.insert(number, self.padding[number])
        return self.architecture.model_copy(update={"layers": tuple(layers)})


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
    if not isinstance(family, str) or family not in (*FAMILIES, OWN):
        _refuse_more_than_text(settings, family)
        raise settings.error("model_type", f"one of {', '.join((*FAMILIES, OWN))}", family)
    if settings.get("quantization_config", null=True) is not None:
        raise ArchitectureError(f"{where}: quantization_config: expected weights that are not quantized")
    check_classes(settings, family)
    if family == OWN:
        ours = own_architecture(settings, name)
        return Published(ours, own_names(ours))
    read = FAMILIES[family].read(settings)
    tied = settings.flag("tie_word_embeddings", default=family in TIED_BY_DEFAULT)
    names = {ours: theirs for ours, theirs in read.names.items() if not (tied and ours == "head.weight")}
    fields = {
        **read.fields,
        "name": name,
        "vocabulary": settings.size("vocab_size"),
        "width": settings.size("hidden_size"),
        "tied_embeddings": tied,
    }
    # transformers raises short steps in this family alone.
    shortest_step = _shortest_step(settings) if family == "nemotron_h" else 0.0
    padding = padded_layers(settings, len(read.layers))
    settings.without_effect(WITHOUT_EFFECT | FAMILY_WITHOUT_EFFECT[family])
    settings.refuse_unread(family, NEUTRAL | FAMILY_NEUTRAL.get(family, {}))
    whole = Architecture.parse({**fields, "layers": read.layers}, where=where)
    kept = tuple(layer for number, layer in enumerate(whole.layers) if number not in padding)
    architecture = whole.model_copy(update={"layers": kept})
    added = {number: whole.layers[number] for number in padding}
    return Published(
        architecture,
        names,
        read.renames,
        shortest_step,
        read.forms,
        added,
        read.zeros,
        read.woven,
        read.remark,
    )


def _refuse_more_than_text(config: Settings, family: Any) -> None:
    """Refuses a model of text and more, and names what its text model has that we have not, if anything.

    Raises ArchitectureError.
    """
    text = config.mapping("text_config")
    inner = text.get("model_type", null=True)
    if not isinstance(inner, str) or inner not in FAMILIES:
        return
    describe(text.values, where=text.where)
    raise config.error("model_type", f"{inner}, the text model alone, which text_config describes", family)


TIED_BY_DEFAULT = ("lfm2",)
"""Families whose class ties embedding and head where config.json does not say."""


def _shortest_step(config: Settings) -> float:
    value = config.get("time_step_min", "mamba_dt_min", default=0.001)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise config.error("time_step_min", "a number from 0", value)
    return float(value)
