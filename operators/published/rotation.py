"""Reads from a config.json of `transformers` how positions are rotated."""

from collections.abc import Mapping
from typing import Any

from operators.base.errors import ArchitectureError
from operators.published.settings import Settings


def rope(config: Settings, *, may_be_off: bool = False, theta: float = 10_000.0) -> dict[str, Any] | None:
    """The `rope` of an architecture, or None where nothing is rotated.

    It is read from `rope_scaling` (before transformers 5) or else from `rope_parameters`. As in transformers,
    the first replaces all of the second.

    may_be_off: whether a `rope_theta` of null means that nothing is rotated.
    theta: the family's default.

    Raises ArchitectureError for a rotation that an architecture does not have.
    """
    scaling, parameters = config.mapping("rope_scaling"), config.mapping("rope_parameters")
    inner = scaling if scaling.values else parameters
    config.only("partial_rotary_factor", 1.0, null=True)
    inner.only("partial_rotary_factor", 1.0)
    if nested := [key for key, value in inner.values.items() if isinstance(value, Mapping)]:
        raise ArchitectureError(
            f"{inner.where}: expected one rotation for all layers, got one each for {', '.join(nested)}"
        )
    kind = inner.get("rope_type", "type", default="default")
    if kind not in ("default", "llama3"):
        raise inner.error("rope_type", "default or llama3", kind)
    has_theta = inner if "rope_theta" in inner.values else config
    if may_be_off and has_theta.values.get("rope_theta", True) is None:
        rotation: dict[str, Any] | None = None
        for settings in (config, inner):
            settings.without_effect(("rope_theta",))
    else:
        rotation = {"theta": has_theta.real("rope_theta", default=theta)}
        config.without_effect(("rope_theta",))  # the one in the inner mapping wins
    stretch = _stretch(config, inner) if kind == "llama3" else None
    config.without_effect(("original_max_position_embeddings",))
    inner.refuse_unread(f"rope_type {kind}", {})
    if rotation is not None and stretch is not None:
        rotation["scaling"] = stretch
    return rotation


def _stretch(config: Settings, inner: Settings) -> dict[str, Any]:
    """The `scaling` of Llama 3's rotation.

    inner: the mapping of the rotation in `config`.
    """
    key = "original_max_position_embeddings"
    has_original = config if key in config.values else inner  # in transformers the outer one wins
    inner.without_effect((key,))
    original = has_original.size(
        key, default=None if key in has_original.values else config.size("max_position_embeddings")
    )
    stretch = {"kind": "llama3", "original_context": original}
    for ours, theirs in (("factor", "factor"), ("low", "low_freq_factor"), ("high", "high_freq_factor")):
        if theirs not in inner.values:
            raise ArchitectureError(f"{inner.where}: {theirs}: missing")
        stretch[ours] = inner.real(theirs, default=1.0)
    return stretch
