"""Architectures that have every operator, every gene of a shape, and every value of what surrounds them."""

import random
from typing import Any

from operators import Architecture

WIDTH, VOCABULARY = 48, 67
SEEDS = range(3)
"""Together they have each of the values below, as none has more than three."""

_CONV, _FLAG = (4, 2, 3), (True, False)
_HEADS = {"heads": (2, 3), "key_dim": (8, 10), "value_dim": (18, 8, 5)}
_DELTA = {**_HEADS, "conv": _CONV, "negative_eigenvalues": _FLAG}
SHAPES: dict[str, dict[str, tuple[Any, ...]]] = {
    "attention": {
        "heads": (4, 2),
        "kv_heads": (1, 2),
        "head_dim": (8, 12),
        "qk_norm": ("none", "head", "full"),
        "window": (None, 9, 1),
        "qkv_bias": _FLAG,
    },
    "deltanet": {"heads": (2, 3), "head_dim": (8, 10), "conv": _CONV},
    "gated_deltanet": _DELTA,
    "gla": _HEADS,
    "kda": _DELTA,
    "mamba": {"inner": (40, 64), "state": (4, 16), "dt_rank": (1, 3), "conv": _CONV},
    "mamba2": {
        "heads": (4, 2),
        "head_dim": (8, 12),
        "state": (8, 20),
        "groups": (1, 2),
        "conv": _CONV,
    },
    "mamba3": {
        "heads": (2, 4),
        "head_dim": (8, 12),
        "state": (8, 20),
        "angles": (1, 4),
        "groups": (1, 2),
    },
    "relu2": {"hidden": (40, 80)},
    "retnet": _HEADS,
    "rwkv7": {
        "width": (WIDTH,),
        "heads": (2, 3),
        "head_dim": (16, 10),
        "decay_rank": (32, 64),
        "a_rank": (64, 32),
        "gate_rank": (32, 64),
    },
    "short_conv": {"channels": (24, 60), "conv": _CONV},
    "swiglu": {"hidden": (80, 40)},
}
AROUND: dict[str, tuple[Any, ...]] = {
    "meta_tokens": (0, 3),
    "normalized_head": _FLAG,
    "tied_embeddings": _FLAG,
    "norm_eps": (1e-5, 1e-6),
    "rope": ({"theta": 500.0}, None, {"theta": 500.0, "scaling": {"factor": 4.0, "original_context": 16}}),
}
_LAYER = {"norm": ("rmsnorm", "layernorm"), "norm_position": ("before", "after")}


def any_architecture(seed: int) -> Architecture:
    """One layer of every operator, in any order."""

    def values(of: str, choices: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        # Each gene begins at a value of its own, and takes the others as the seed grows.
        starts = {name: random.Random(f"{of} {name}").randrange(4) for name in choices}
        return {name: each[(starts[name] + seed) % len(each)] for name, each in choices.items()}

    layers = [
        {"operator": operator, "shape": values(operator, shape), **values(f"{operator} layer", _LAYER)}
        for operator, shape in SHAPES.items()
    ]
    random.Random(seed).shuffle(layers)
    around = values("around", AROUND)
    return Architecture.parse({"width": WIDTH, "vocabulary": VOCABULARY, "layers": layers, **around})
