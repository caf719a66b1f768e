"""How positions are rotated, from a config.json of `transformers`."""

from collections.abc import Mapping
from typing import Any

from operators.base.errors import ArchitectureError
from operators.published.settings import Settings


def rope(config: Settings, *, may_be_off: bool = False) -> dict[str, Any] | None:
    """`rope_scaling` (before transformers 5) or, where it has none, `rope_parameters`; as there, the one replaces all of the other.

    may_be_off: whether a `rope_theta` of null says that nothing is rotated.
    """
    scaling, parameters = config.mapping("rope_scaling"), config.mapping("rope_parameters")
    given = scaling if scaling.values else parameters
    config.only("partial_rotary_factor", 1.0, null=True)
    given.only("partial_rotary_factor", 1.0)
    if nested := [key for key, value in given.values.items() if isinstance(value, Mapping)]:
        raise ArchitectureError(
            f"{given.where}: expected one rotation for all layers, got one each for {', '.join(nested)}"
        )
    kind = given.get("rope_type", "type", default="default")
    if kind not in ("default", "llama3"):
        raise given.error("rope_type", "default or llama3", kind)
    has_theta = given if "rope_theta" in given.values else config
    if may_be_off and has_theta.values.get("rope_theta", True) is None:
        rotation: dict[str, Any] | None = None
        for settings in (config, given):
            settings.without_effect(("rope_theta",))
    else:
        rotation = {"theta": has_theta.real("rope_theta", default=10_000.0)}
        config.without_effect(("rope_theta",))  # beside the one in the mapping, which wins
    stretch = _stretch(config, given) if kind == "llama3" else None
    config.without_effect(("original_max_position_embeddings",))
    given.refuse_unread(f"rope_type {kind}", {})
    if rotation is not None and stretch is not None:
        rotation["scaling"] = stretch
    return rotation


def _stretch(config: Settings, given: Settings) -> dict[str, Any]:
    """What Llama 3 does to the rotation. given: the mapping of the rotation, inside `config`."""
    key = "original_max_position_embeddings"
    has_original = config if key in config.values else given  # transformers lets the outer one win
    given.without_effect((key,))
    original = has_original.size(
        key, default=None if key in has_original.values else config.size("max_position_embeddings")
    )
    stretch = {"kind": "llama3", "original_context": original}
    for ours, theirs in (("factor", "factor"), ("low", "low_freq_factor"), ("high", "high_freq_factor")):
        if theirs not in given.values:
            raise ArchitectureError(f"{given.where}: {theirs}: missing")
        stretch[ours] = given.real(theirs, default=1.0)
    return stretch
