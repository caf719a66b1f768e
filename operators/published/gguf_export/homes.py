"""Which kind of GGUF model holds an architecture, and why none does."""

from collections.abc import Callable
from dataclasses import dataclass

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError
from operators.published.gguf_export.gated import lfm2, qwen35
from operators.published.gguf_export.kimi import kimi_linear
from operators.published.gguf_export.outline import Misfit, Outline
from operators.published.gguf_export.recurrent import granitehybrid, mamba2, nemotron_h
from operators.published.gguf_export.rwkv import arwkv7
from operators.published.gguf_export.transformers import llama, llama_with_biases, qwen2, qwen3

MOST_BLOCKS = 512  # in llama.cpp


@dataclass(frozen=True)
class Home:
    """A kind of GGUF model, a family to llama.cpp.

    operators: all that it has.
    outline: of the file. It raises Misfit.
    """

    operators: frozenset[str]
    outline: Callable[[Architecture], Outline]


# The narrowest first.
HOMES = (
    Home(frozenset({"attention", "swiglu"}), llama),
    Home(frozenset({"attention", "swiglu"}), qwen2),
    Home(frozenset({"attention", "swiglu"}), qwen3),
    Home(frozenset({"attention", "swiglu"}), llama_with_biases),
    Home(frozenset({"mamba2"}), mamba2),
    Home(frozenset({"mamba2", "attention", "relu2"}), nemotron_h),
    Home(frozenset({"mamba2", "attention", "swiglu"}), granitehybrid),
    Home(frozenset({"gated_deltanet", "attention", "swiglu"}), qwen35),
    Home(frozenset({"short_conv", "attention", "swiglu"}), lfm2),
    Home(frozenset({"rwkv7", "swiglu"}), arwkv7),
    Home(frozenset({"kda", "swiglu"}), kimi_linear),
)


def outline(architecture: Architecture) -> Outline:
    """The file of the first family that holds the architecture.

    Raises ArchitectureError, one line that begins with the layer or field that is the reason. Where families
    differ, it is that of the family that can hold the most layers before it.
    """
    _require_plain(architecture)
    operators = [layer.operator for layer in architecture.layers]
    fitting = [home for home in HOMES if home.operators >= set(operators)]
    if not fitting:
        raise ArchitectureError(_operator_without_home(operators))
    misfits: list[Misfit] = []
    for home in fitting:
        try:
            plan = home.outline(architecture)
        except Misfit as misfit:
            misfits.append(misfit)
            continue
        count = plan.keys["block_count"]
        if isinstance(count, int) and count > MOST_BLOCKS:
            raise ArchitectureError(
                f"layers: expected at most {MOST_BLOCKS} blocks in a GGUF model, got {count}"
            )
        return plan
    raise ArchitectureError(f"{max(misfits, key=lambda misfit: misfit.layer)}, for a GGUF model")


def _require_plain(architecture: Architecture) -> None:
    """Raises ArchitectureError for what no family has."""
    if architecture.meta_tokens:
        raise ArchitectureError(
            "meta_tokens: expected 0 for a GGUF model, as llama.cpp puts one token before a text at most, "
            f"got {architecture.meta_tokens}"
        )
    for number, layer in enumerate(architecture.layers):
        for name, expected in (("norm", "rmsnorm"), ("norm_position", "before")):
            if getattr(layer, name) != expected:
                got = getattr(layer, name)
                raise ArchitectureError(
                    f"layers.{number}.{name}: expected {expected}, got {got}, for a GGUF model"
                )


def _operator_without_home(operators: list[str]) -> str:
    """The message for a sequence that no family has: its first layer with which none has it."""
    for number in range(len(operators)):
        before = dict.fromkeys(operators[:number])
        if not any(home.operators >= {*before, operators[number]} for home in HOMES):
            break
    beside = f" beside {' and '.join(before)}" if before else ""
    return f"layers.{number}: expected an operator that a GGUF model has{beside}, got {operators[number]}"
