"""Where a search begins: corners of the space, each mixer alone, published designs as near as the space has
them.
"""

import numpy as np
import pytest

from operators import Architecture, registry
from operators.cost import parameters
from search.config.space import SpaceSettings
from search.spaces import mutate
from search.spaces.free import ArchitectureSpace
from tests.helpers.small_spaces import SPACES, VOCABULARY, WIDE, check, members


def test_seeds_begin_with_the_corners() -> None:
    seeds = SPACES["wide"].seeds()[:4]
    sizes = [(seed.name, seed.width, seed.depth) for seed in seeds]
    assert sizes == [("smallest", 64, 2), ("deepest", 64, 24), ("widest", 256, 2), ("largest", 256, 24)]
    drawn = [parameters(member) for member in members(SPACES["wide"], 200)]
    assert max(drawn) <= max(parameters(seed) for seed in seeds)
    assert min(parameters(seed) for seed in seeds) <= np.quantile(drawn, 0.02)


def test_seeds_have_each_mixer_alone() -> None:
    alone = {
        seed.name.removesuffix(" alone"): seed
        for seed in SPACES["wide"].seeds()
        if seed.name.endswith(" alone")
    }
    assert sorted(alone) == [name for name in sorted(registry.names()) if registry.get(name).kind == "mixer"]
    for name, seed in alone.items():
        assert {layer.operator for layer in seed.layers if mutate.is_mixer(layer)} == {name}


@pytest.mark.parametrize(
    ("name", "depth"), [("nemotron-flash-1b", 24), ("qwen3-0.6b", 30), ("mamba2-1.3b", 30)]
)
def test_seeds_have_published_designs_as_near_as_the_space_has_them(name: str, depth: int) -> None:
    """The same order of operators, the longest depth up to the design's own, its genes where the space has
    them, no other vocabulary.
    """
    space = ArchitectureSpace(
        SpaceSettings(widths=(512, 1024, 2048), max_depth=30, meta_tokens=(0, 64)), VOCABULARY
    )
    design = Architecture.load(name)
    (seed,) = (seed for seed in space.seeds() if seed.name == f"{name} rescaled")
    check(space, seed)
    assert (seed.depth, seed.vocabulary) == (depth, VOCABULARY)
    assert design.shorthand.startswith(seed.shorthand)
    assert seed.meta_tokens == (64 if design.meta_tokens else 0)
    proportion = {width: abs(width / depth - design.width / design.depth) for width in (512, 1024, 2048)}
    assert proportion[seed.width] == min(proportion.values())
    for mine, theirs in zip(seed.layers, design.layers, strict=False):
        chosen, wanted = mine.shape.genes(seed.width), theirs.shape.genes(design.width)
        options = space.choices.genes[mine.operator]
        assert all(
            chosen[gene] == wanted[gene]
            for gene, values in options.items()
            if gene in wanted and wanted[gene] in values
        )


def test_seeds_shrink_to_a_bound() -> None:
    bound = 3e6
    space = ArchitectureSpace(WIDE, VOCABULARY, accepts=lambda found: parameters(found) <= bound)
    names = {seed.name: seed for seed in space.seeds()}
    assert parameters(names["nemotron-flash-1b rescaled"]) <= bound < parameters(SPACES["wide"].seeds()[3])
    assert names["nemotron-flash-1b rescaled"].depth == 24


def test_seeds_are_accepted_and_distinct() -> None:
    for space in SPACES.values():
        seeds = space.seeds()
        assert seeds
        assert len({space.key(seed) for seed in seeds}) == len(seeds)
        for seed in seeds:
            check(space, seed)


def test_designs_of_operators_that_the_space_lacks_are_left_out() -> None:
    names = {seed.name for seed in SPACES["genes"].seeds()}
    assert "llama-3.2-1b rescaled" in names
    assert not any(name.startswith(("nemotron", "mamba2")) for name in names)
