"""Which kind of GGUF model holds an architecture, and why none does."""

from collections.abc import Callable, Iterable

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError
from operators.published.gguf_export.gated import lfm2, qwen35
from operators.published.gguf_export.outline import Misfit, Outline
from operators.published.gguf_export.recurrent import granitehybrid, mamba2, nemotron_h
from operators.published.gguf_export.transformers import llama, qwen2, qwen3

FAMILIES: dict[str, Callable[[Architecture], Outline]] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "mamba2": mamba2,
    "granitehybrid": granitehybrid,
    "nemotron_h": nemotron_h,
    "qwen35": qwen35,
    "lfm2": lfm2,
}
"""By the name of the family in llama.cpp, the narrowest first."""


def outline(architecture: Architecture, *, families: Iterable[str] = tuple(FAMILIES)) -> Outline:
    """The file of the first family that holds the architecture.

    families: those that may be taken.

    Raises ArchitectureError, one line that begins with the layer or field which is the reason. It is that of
    the family that can hold the most layers before it.
    """
    furthest: Misfit | None = None
    for family in families:
        try:
            return FAMILIES[family](architecture)
        except Misfit as misfit:
            if furthest is None or misfit.layer > furthest.layer:
                furthest = misfit
    raise ArchitectureError(f"{furthest}: no GGUF model of llama.cpp holds it")
