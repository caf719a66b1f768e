"""Spaces of architectures with few choices, and a check that every member passes."""

import numpy as np

from operators import Architecture
from operators.cost import parameters
from search.config.space import SpaceSettings
from search.spaces.free import ArchitectureSpace

VOCABULARY = 512


SMALL = SpaceSettings(
    operators=("a", "f", "r"), widths=(32, 64), min_depth=2, max_depth=5, meta_tokens=(0, 4)
)


# As a configuration has it, with one shape of each operator at a width: a table of it is small.
ONE_SHAPE = {
    "operators": ["attention", "swiglu"],
    "widths": [32, 64],
    "min_depth": 1,
    "max_depth": 40,
    "genes": {
        "attention": {"head_dim": [16], "group": [1], "qk_norm": ["none"], "window": [None]},
        "swiglu": {"ratio": [2]},
    },
}


NORMS = (("rmsnorm", "before"), ("layernorm", "before"), ("rmsnorm", "after"))


WIDE = SpaceSettings(
    widths=(64, 96, 128, 192, 256), min_depth=2, max_depth=24, meta_tokens=(0, 8), norms=NORMS
)


FIXED_GENES = SpaceSettings(
    operators=("attention", "swiglu"),
    widths=(48, 64, 80),
    min_depth=1,
    max_depth=12,
    genes={
        "a": {"head_dim": [16], "window": [None], "qk_norm": ["full"], "group": [1, 2]},
        "f": {"ratio": [1.5, 3.5]},
    },
)


SPACES = {
    "small": ArchitectureSpace(SMALL, VOCABULARY),
    "wide": ArchitectureSpace(WIDE, VOCABULARY),
    "bounded": ArchitectureSpace(WIDE, VOCABULARY, accepts=lambda found: 2e5 <= parameters(found) <= 8e5),
    "genes": ArchitectureSpace(FIXED_GENES, VOCABULARY),
    "mixers": ArchitectureSpace(
        SpaceSettings(operators=("a",), widths=(64,), min_depth=1, max_depth=3), VOCABULARY
    ),
}


def members(space: ArchitectureSpace, count: int = 60) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


def check(space: ArchitectureSpace, architecture: Architecture) -> None:
    assert space.contains(architecture) is None
    assert space.accepts(architecture)
    assert Architecture.parse(architecture.model_dump()) == architecture
