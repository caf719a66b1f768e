"""The space of models that see: members, mutations, trades at equal work, children, and the first members."""

from collections import Counter
from itertools import pairwise
from math import isfinite

import numpy as np
import pytest

from operators import VisionLanguage
from operators.base.errors import ConfigError
from operators.vision.cost import vision_cost
from search.config.space import SpaceSettings
from search.config.vision import VisionSpaceSettings
from search.spaces.staged import make_space
from search.spaces.vision import EQUAL_WORK, TEXT_TOKENS, VisionSpace

DECODERS = SpaceSettings.model_validate({"widths": [32, 48], "min_depth": 2, "max_depth": 4})


def space_of(**settings: object) -> VisionSpace:
    decoders = make_space(DECODERS, 64)
    return VisionSpace(VisionSpaceSettings.model_validate(settings), decoders, image_token=63)


@pytest.fixture(scope="module")
def space() -> VisionSpace:
    return space_of()


@pytest.fixture(scope="module")
def members(space: VisionSpace) -> list[VisionLanguage]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(40)]


def test_members_are_within_the_settings_and_known_by_their_genes(
    space: VisionSpace, members: list[VisionLanguage]
) -> None:
    assert len({space.key(member) for member in members}) == 40
    for member in members:
        genes = space.genes(member)
        assert all(value in space.choices[name] for name, value in genes.items())
        assert space.build(genes, member.language) == member
        assert member.image_tokens <= 64
        assert space.language.contains(member.language) is None
    norms = {tuple(sorted({norm.norm_position for norm in member.tower.norms})) for member in members}
    assert norms == {("before",), ("after",), ("after", "before")}


def test_a_mutation_changes_one_part_and_a_trade_keeps_the_work(
    space: VisionSpace, members: list[VisionLanguage]
) -> None:
    rng, kinds = np.random.default_rng(1), Counter[str]()
    for parent in members * 5:
        mutated = space.mutate(parent, rng)
        assert mutated is not None
        child, name = mutated
        assert child != parent
        assert space.build(space.genes(child), child.language) == child
        before, after = space.genes(parent), space.genes(child)
        changed = [key for key in before if before[key] != after[key]]
        kinds[name.partition("-")[0]] += 1
        if name.startswith("language-"):
            assert changed == []
        elif name == "trade":
            work = [vision_cost(m, text_tokens=TEXT_TOKENS).first_token_flops for m in (parent, child)]
            assert abs(np.log(work[1] / work[0])) < EQUAL_WORK
        else:
            # Fewer blocks may have fewer of the first kind.
            assert changed in ([name], ["depth", "before"])
            assert child.language == parent.language
    assert kinds["trade"] > 5
    assert {"depth", "patch_size", "pixel_shuffle", "language", "before"} <= set(kinds)


def test_a_child_has_each_part_of_one_parent(space: VisionSpace, members: list[VisionLanguage]) -> None:
    rng = np.random.default_rng(2)
    for a, b in pairwise(members):
        child = space.crossover(a, b, rng)
        assert child is not None
        assert child.tower in (a.tower, b.tower)
        assert child.language in (a.language, b.language)
        assert child.projector.pixel_shuffle in (a.projector.pixel_shuffle, b.projector.pixel_shuffle)


def test_the_first_members_are_in_proportion_to_published_models(space: VisionSpace) -> None:
    seeds = space.seeds()
    assert len(seeds) >= 3
    shakti = [seed for seed in seeds if seed.tower.qk_norm == "head" and seed.tower.rope_theta]
    assert shakti
    # 18 of Shakti-VLM-4B's 48 blocks are 1.5 of the 4 blocks here.
    deepest = max(shakti, key=lambda seed: seed.tower.depth)
    assert [norm.norm for norm in deepest.tower.norms] == ["layernorm"] + ["rmsnorm"] * 3
    # LFM2-VL and SmolVLM: LayerNorm in all blocks; pixel shuffle 2 with two matrices, and 4 with one.
    plain = [seed for seed in seeds if {norm.norm for norm in seed.tower.norms} == {"layernorm"}]
    projectors = {(seed.projector.pixel_shuffle, len(seed.projector.hidden)) for seed in plain}
    assert {(2, 1), (4, 0)} <= projectors


def test_features_are_finite_numbers_under_the_same_keys(
    space: VisionSpace, members: list[VisionLanguage]
) -> None:
    rows = [space.features(member) for member in members]
    assert len({tuple(row) for row in rows}) == 1
    assert all(isfinite(value) for row in rows for value in row.values())


def test_a_space_without_members_is_one_line() -> None:
    empty = space_of(image_sizes=[30], patch_sizes=[4])
    with pytest.raises(ConfigError, match=r"vision\.space: none of 1000 random towers fits: widen the space"):
        empty.sample(np.random.default_rng(0))
