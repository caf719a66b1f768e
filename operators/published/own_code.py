"""Reads a config.json that `frontrunner export --format huggingface-code` wrote: it has our architecture."""

from collections.abc import Mapping

from operators.architecture import Architecture
from operators.parameter_shapes import parameter_shapes
from operators.published.keys import WITHOUT_EFFECT
from operators.published.settings import Settings

OWN = "frontrunner"
"""The `model_type` of such a folder."""


def own_architecture(settings: Settings, name: str) -> Architecture:
    """The architecture, as it was exported.

    settings: of the config.json.
    name: where the architecture has none.

    Raises ArchitectureError for one that cannot exist, and for keys that are unknown or contradict it.
    """
    data = settings.get("architecture")
    if not isinstance(data, Mapping):
        raise settings.error("architecture", "a mapping", data)
    architecture = Architecture.parse(data, where=f"{settings.where}: architecture")
    # transformers writes what the class has derived of the architecture.
    settings.only("vocab_size", architecture.vocabulary)
    settings.only("hidden_size", architecture.width)
    settings.only("num_hidden_layers", len(architecture.layers))
    settings.only("tie_word_embeddings", False)
    settings.without_effect(WITHOUT_EFFECT)
    settings.refuse_unread(OWN, {})
    return architecture.model_copy(update={"name": architecture.name or name})


def own_names(architecture: Architecture) -> dict[str, tuple[str, ...]]:
    """The tensor of each parameter."""
    return {ours: (f"model.{ours}",) for ours in parameter_shapes(architecture)}
