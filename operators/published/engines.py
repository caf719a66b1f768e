"""The engines that run our models, and whether each loads an architecture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError
from operators.engine_names import ENGINES, Engine
from operators.published.families import FAMILIES
from operators.published.folding import plain
from operators.published.gguf_export.homes import HOMES, MOST_BLOCKS, outline
from operators.published.held import NO_CLASS, hold
from operators.published.padding import Block, blocks_of

_BOTH = frozenset(
    {
        "llama",
        "qwen2",
        "qwen3",
        "arcee",
        "granitemoehybrid",
        "nemotron_h",
        "qwen3_5_text",
        "qwen3_next",
        "lfm2",
        "kimi_linear",
    }
)
LISTED: Mapping[str, tuple[str, frozenset[str]]] = {
    "vllm": ("0.33", _BOTH | {"mamba2", "olmo_hybrid"}),
    "sglang": ("0.5.23", _BOTH),
}
"""Server -> its version, and the families of `transformers` that its list of models has. None was tried."""


@dataclass(frozen=True)
class Loads:
    """What an engine does with an architecture.

    name: of the class or kind of file that holds it; empty where none does.
    reason: why none does; empty where one does.
    """

    name: str = ""
    reason: str = ""


def loads(architecture: Architecture, engine: Engine) -> Loads:
    """Whether the engine loads what `frontrunner export` writes of an architecture; no weights are needed.

    The answer is exact for transformers and llama.cpp. The servers' answer is that of a list.
    """
    short = _without_repeats(architecture)
    answer = _loads(short, engine)
    # A reason names a layer by its number, and llama.cpp has a limit to blocks: both need the whole sequence.
    if len(short.layers) < architecture.depth and (answer.reason or architecture.depth > MOST_BLOCKS):
        return _loads(architecture, engine)
    return answer


def fits(architecture: Architecture, engines: Iterable[Engine]) -> bool:
    """Whether all of the engines load it. It is quick: `loads` looks for a reason as well."""
    short = _without_repeats(architecture)
    return not any(_loads(short, engine).reason for engine in engines) and (
        architecture.depth <= MOST_BLOCKS or not any(loads(architecture, engine).reason for engine in engines)
    )


def operator_sets(engine: Engine) -> tuple[frozenset[str], ...]:
    """The operators that one model of the engine may have together, for each kind of model."""
    if engine == "llama.cpp":
        return tuple(dict.fromkeys(home.operators for home in HOMES))
    known = LISTED[engine][1] if engine in LISTED else frozenset(FAMILIES)
    return tuple(dict.fromkeys(FAMILIES[family].operators for family in FAMILIES if family in known))


@lru_cache(maxsize=65_536)
def all_loads(architecture: Architecture) -> Mapping[Engine, Loads]:
    """What every engine does with an architecture. Kept, as a run is looked at again and again."""
    return {engine: loads(architecture, engine) for engine in ENGINES}


def where_it_loads(architecture: Architecture) -> str:
    """Every engine in one line, as `transformers (LlamaForCausalLM), llama.cpp (llama), vllm, sglang`.

    Where no engine loads it, the line is `none: ` and why the first class of transformers does not.
    """
    answers = all_loads(architecture)
    words = [
        engine if engine in LISTED else f"{engine} ({answer.name})"
        for engine, answer in answers.items()
        if not answer.reason
    ]
    # The first class alone: `loads` has the reasons of all, too long for a cell of a table.
    return (
        ", ".join(words) or f"none: {answers['transformers'].reason.removeprefix(NO_CLASS).partition(';')[0]}"
    )


@lru_cache(maxsize=65_536)
def _loads(architecture: Architecture, engine: Engine) -> Loads:
    if engine == "llama.cpp":
        try:
            return Loads(outline(architecture).family)
        except ArchitectureError as error:
            return Loads(reason=str(error))
    family, answer = _class(architecture)
    if engine in LISTED and not answer.reason and family not in LISTED[engine][1]:
        return Loads(reason=f"{engine} {LISTED[engine][0]} does not list {answer.name}")
    return answer


@lru_cache(maxsize=65_536)
def _class(architecture: Architecture) -> tuple[str, Loads]:
    """The family of `transformers` that holds it, or nothing, and its class or the reason."""
    try:
        held = hold(plain(architecture))
    except ArchitectureError as error:
        return "", Loads(reason=str(error))
    return held.family, Loads(held.class_name)


def _without_repeats(architecture: Architecture) -> Architecture:
    """The architecture with each block once: no class or kind of file counts blocks, but for a limit.

    A long sequence then has the answer of a short one, and most members of a search have a known answer.
    The name goes too, as it changes no answer.
    """
    first: dict[Block, None] = dict.fromkeys(blocks_of(architecture))
    layers = tuple(layer for block in first for layer in block if layer is not None)
    return architecture.model_copy(update={"layers": layers, "name": ""})
