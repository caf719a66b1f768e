"""The space of three stages: what it holds, that it is closed under its moves, that a move changes one
factor, and its widths.
"""

from itertools import pairwise, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import Architecture
from operators.base.errors import ConfigError, one_line
from search.config.run import load
from search.config.searcher import EvolutionSettings
from search.config.space import STAGES, SpaceSettings, StageSettings
from search.searchers.registry import searcher
from search.spaces.encoding import ArchitectureEncoding
from search.spaces.staged import StagedSpace, make_space
from search.spaces.stages import Alphabet, Block, Genome, Stage, length, readings, sequence, turns

CONFIGS = Path(__file__).parent.parent.parent.parent / "configs"
VOCABULARY = 512
SMALL: dict[str, Any] = {
    "operators": ["a", "m", "d", "f"],
    "widths": [64, 128, 192],
    "min_depth": 3,
    "max_depth": 14,
    "genes": {  # all but one fixed, so that every width has all of them
        "a": {"head_dim": [16, 32], "group": [1], "qk_norm": ["none"], "window": [None]},
        "m": {"expand": [2], "head_dim": [32], "state": [16]},
        "d": {"expand": [1], "head_dim": [32]},
        "f": {"ratio": [3]},
    },
    "norms": [["rmsnorm", "before"], ["layernorm", "before"]],
    "meta_tokens": [0, 4],
    "stages": {"max_repeats": 3},
}
SEEDS = st.integers(0, 2**32 - 1)


def staged(in_time: Any = None, **changed: Any) -> StagedSpace:
    space = make_space(SpaceSettings.model_validate({**SMALL, **changed}), VOCABULARY, in_time=in_time)
    assert isinstance(space, StagedSpace)
    return space


SPACES = {
    "width is a gene": staged(),
    "one mixer a block": staged(stages={"ratios": ["0:1"], "feedforwards": [0, 1]}, max_depth=5),
    "largest width": staged(lambda found: found.width * found.depth <= 1500),
}


def test_a_ratio_is_a_round_of_turns() -> None:
    expected = {
        "0:1": "x",
        "1:1": "xy",
        "1:2": "xyy",
        "1:3": "xyyy",
        "1:1:1": "xyz",
        "1:2:1": "xyzy",
        "1:1:2": "xyzz",
    }
    for ratio, pattern in expected.items():
        (shares,) = StageSettings(ratios=(ratio,)).shares(3)
        assert "".join("xyz"[mixer] for mixer in turns(shares)) == pattern


@pytest.mark.parametrize(
    ("name", "longest", "inside"), [("1b", 30, True), ("1b", 24, True), ("3b", 36, True), ("3b", 30, False)]
)
def test_the_published_winners_are_members_where_they_are_short_enough(
    name: str, longest: int, inside: bool
) -> None:
    winner = Architecture.load(f"nemotron-flash-{name}")
    published = load(CONFIGS / "nemotron_flash.yaml").space
    full = {
        "a": {**published.genes["attention"], "window": [None]},
        **{key: published.genes[key] for key in ("mamba2", "deltanet", "swiglu")},
    }
    changed = {
        "max_depth": longest,
        "genes": full,
        "widths": [2048, 3072],
        "meta_tokens": [256],
        "normalized_head": True,
    }
    space = make_space(SpaceSettings.model_validate({**published.model_dump(), **changed}), winner.vocabulary)
    assert (space.contains(winner) is None) == inside
    if not inside:
        assert space.contains(winner) == "layers: expected 3 to 30, got 36"


def test_the_published_space_is_as_published() -> None:
    space = make_space(load(CONFIGS / "nemotron_flash.yaml").space, VOCABULARY)
    assert isinstance(space, StagedSpace)
    assert space.choices.widths == (1024, 1280, 1536, 1792, 2048, 2304, 2560)
    assert space.choices.depths[1] == 30
    assert space.alphabet.mixers == ("attention", "deltanet", "mamba2")
    assert {"0:1", "1:1", "1:2", "1:3"} <= set(space.alphabet.settings.ratios)
    assert space.alphabet.settings.feedforwards == (0, 1, 2)
    for member in [space.sample(np.random.default_rng(seed)) for seed in range(20)]:
        hidden = {layer.shape.model_dump()["hidden"] for layer in member.layers if layer.operator == "swiglu"}
        assert hidden <= {3 * member.width}


def test_readings_are_exactly_the_sequences_that_genomes_have() -> None:
    """By brute force over every genome and every sequence of a small space, with overflow cut."""
    limits = StageSettings(ratios=("0:1", "1:2"), feedforwards=(0, 2), max_repeats=2)
    alphabet = Alphabet(limits, ("x", "y"), "f", 6)
    blocks = [
        Block(names, ratio, counts)
        for ratio in ((1,), (1, 2))
        for names in permutations("xy", len(ratio))
        for counts in product((0, 2), repeat=len(ratio))
    ]
    stages = [Stage(block, repeats) for block in blocks for repeats in (1, 2)]
    possible = {sequence((a, b, c), alphabet) for a in stages for b in stages for c in stages} - {None}
    read = {
        names for depth in range(1, 7) for names in product("xyf", repeat=depth) if readings(names, alphabet)
    }
    assert len(possible) > 100
    assert read == possible
    assert all(sequence(genome, alphabet) == names for names in read for genome in readings(names, alphabet))


def test_overflow_is_cut_from_the_last_stage_alone() -> None:
    block = Block(("x", "y"), (1, 1), (1, 0))
    alphabet = Alphabet(StageSettings(), ("x", "y"), "f", 7)
    genome: Genome = (Stage(block, 1), Stage(block, 1), Stage(block, 3))
    assert sequence(genome, alphabet) == tuple("xfyxfyx")
    assert sequence((Stage(block, 2), Stage(block, 1), Stage(block, 1)), alphabet) is None


@given(st.sampled_from(sorted(SPACES)), SEEDS)
@settings(deadline=None, max_examples=100)
def test_samples_mutations_and_crossovers_are_members_and_repeatable(name: str, seed: int) -> None:
    space = SPACES[name]

    def family() -> list[Architecture]:
        rng = np.random.default_rng(seed)
        a, b = space.sample(rng), space.sample(rng)
        mutated, crossed = space.mutate(a, rng), space.crossover(a, b, rng)
        assert mutated is not None
        assert crossed is not None
        assert space.key(mutated[0]) != space.key(a)
        return [a, b, mutated[0], crossed]

    first = family()
    for member in first:
        assert space.contains(member) is None
        assert Architecture.parse(member.model_dump()) == member
        assert set(space.features(member)) == set(space.features(first[0]))
    assert first == family()


def differing(a: Genome, b: Genome) -> set[str]:
    """What differs between two genomes; a ratio brings and drops the mixers that it has places for."""
    found = set()
    for (old, old_repeats), (new, new_repeats) in zip(a, b, strict=True):
        if old_repeats != new_repeats:
            found.add("repeats")
        if old.ratio != new.ratio:
            found.add("ratio")
            shared = set(old.mixers) & set(new.mixers)
            if len(shared) < min(len(old.mixers), len(new.mixers)):
                found.add("operator")
            if any(
                old.feedforwards[old.mixers.index(name)] != new.feedforwards[new.mixers.index(name)]
                for name in shared
            ):
                found.add("feedforwards")
        else:
            found |= {"operator"} if old.mixers != new.mixers else set()
            found |= {"feedforwards"} if old.feedforwards != new.feedforwards else set()
    return found


@given(SEEDS)
@settings(deadline=None, max_examples=200)
def test_a_mutation_changes_the_one_factor_that_it_names(seed: int) -> None:
    space, rng = SPACES["width is a gene"], np.random.default_rng(seed)
    parent = space.sample(rng)
    mutated = space.mutate(parent, rng)
    assert mutated is not None
    child, factor = mutated
    same_sequence = parent.shorthand == child.shorthand
    shapes = [
        {layer.operator: layer.shape.genes(some.width) for layer in some.layers} for some in (parent, child)
    ]
    shared = set(shapes[0]) & set(shapes[1])
    changed = {
        "width": parent.width != child.width,
        "meta_tokens": parent.meta_tokens != child.meta_tokens,
        "normalization": parent.layers[0].norm != child.layers[0].norm,
        "shape": any(shapes[0][name] != shapes[1][name] for name in shared),
    }
    if factor in changed:
        assert same_sequence
        assert [name for name, differs in changed.items() if differs] == [factor]
    else:
        assert not same_sequence
        assert not any(changed.values())
        if (
            child.depth < 14 and parent.depth < 14
        ):  # of what was cut away a genome that is read back says nothing
            pairs = product(space.genomes(parent), space.genomes(child))
            assert any(differing(old, new) == {factor} for old, new in pairs)


def test_every_factor_is_mutated() -> None:
    space, rng = SPACES["width is a gene"], np.random.default_rng(0)
    mutated = [space.mutate(space.sample(rng), rng) for _ in range(200)]
    expected = {
        "operator",
        "ratio",
        "feedforwards",
        "repeats",
        "shape",
        "normalization",
        "meta_tokens",
        "width",
    }
    assert {found[1] for found in mutated if found} == expected


def test_the_width_is_the_largest_in_time() -> None:
    space, rng = SPACES["largest width"], np.random.default_rng(1)
    members = [space.sample(rng) for _ in range(30)]
    members += [found[0] for member in members if (found := space.mutate(member, rng))]
    members += [found for a, b in pairwise(members) if (found := space.crossover(a, b, rng))]
    members += space.seeds()
    assert {member.width for member in members} == {64, 128, 192}
    for member in members:
        assert member.width == max(width for width in (64, 128, 192) if width * member.depth <= 1500)


def test_a_target_that_no_width_meets_is_an_error() -> None:
    space = staged(lambda found: False, max_tries=20)
    with pytest.raises(ConfigError, match="none of 20 random architectures meets the constraints"):
        space.sample(np.random.default_rng(0))
    assert space.seeds() == ()


def test_a_stage_of_crossover_is_a_parents_stage() -> None:
    space = staged(
        operators=["a", "d", "f"], genes={}, stages={"ratios": ["0:1"], "feedforwards": [1]}, max_depth=30
    )
    rng = np.random.default_rng(0)
    a = Architecture.from_shorthand(
        "a f a f a f", width=64, vocabulary=VOCABULARY, genes={"attention": {"head_dim": 32}}
    )
    b = Architecture.from_shorthand(
        "d f d f d f", width=64, vocabulary=VOCABULARY, genes={"deltanet": {"head_dim": 32}}
    )
    children = {child.shorthand for _ in range(60) if (child := space.crossover(a, b, rng))}
    assert children == {" ".join(f"{mixer} f" for mixer in mixers) for mixers in product("ad", repeat=STAGES)}


def test_seeds_hold_the_published_designs() -> None:
    space = staged(max_depth=24)
    seeds = {seed.name: seed for seed in space.seeds()}
    assert seeds["nemotron-flash-1b rescaled"].shorthand == Architecture.load("nemotron-flash-1b").shorthand
    assert {"smallest", "largest", "attention alone", "deltanet alone", "mamba2 alone"} <= set(seeds)
    assert all(space.contains(seed) is None for seed in seeds.values())


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ("f a f a f a", "layers: expected 3 stages that repeat a block each, got f a f a f a"),
        ("a f d f", "layers: expected 3 stages that repeat a block each, got a f d f"),
        ("a f f f d m", "layers: expected 3 stages that repeat a block each, got a f f f d m"),
    ],
)
def test_contains_gives_the_reason(layers: str, reason: str) -> None:
    genes = {
        "attention": {"head_dim": 16, "group": 1},
        "deltanet": {"head_dim": 32},
        "mamba2": {"head_dim": 32, "state": 16},
        "swiglu": {"ratio": 3.0},
    }
    outside = Architecture.from_shorthand(layers, width=64, vocabulary=VOCABULARY, genes=genes)
    assert SPACES["width is a gene"].contains(outside) == reason


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"operators": ["a", "f", "r"], "genes": {}},
            "stages: expected one feed-forward network among operators, got 2",
        ),
        (
            {"operators": ["a"], "genes": {}},
            "stages: expected one feed-forward network among operators, got 0",
        ),
        (
            {"operators": ["a", "f"], "genes": {}, "stages": {"ratios": ["1:2"]}},
            "stages.ratios: expected one of at most 1 mixers, got 1:2",
        ),
        (
            {"stages": {"ratios": ["0:0"]}},
            "stages.ratios: expected shares of 0 to 9 that are not all 0, as in 1:2, got '0:0'",
        ),
        ({"stages": {"ratios": ["many"]}}, "as in 1:2, got 'many'"),
        ({"stages": {"ratios": []}}, "stages.ratios: "),
        (
            {"stages": {"feedforwards": [2]}, "max_depth": 6},
            "max_depth: expected at least 7 for 3 stages, got 6",
        ),
        (
            {"stages": {"ratios": ["0:1"], "max_repeats": 1}, "min_depth": 10},
            "min_depth: expected at most 9, which 3 stages can have, got 10",
        ),
        ({"stages": {"colour": 1}}, "unknown key colour: expected ratios, feedforwards, max_repeats"),
    ],
)
def test_stages_that_cannot_be_are_one_line(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SpaceSettings.model_validate({**SMALL, **changed})
    message = one_line(caught.value)
    assert expected in message
    assert "\n" not in message


def test_the_length_of_a_block_counts_every_operator() -> None:
    assert length(Block(("x", "y"), (1, 3), (2, 1))) == len("xff yf yf yf".replace(" ", ""))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_numbers_mean_members_alone(name: str) -> None:
    encoding, rng = ArchitectureEncoding(SPACES[name]), np.random.default_rng(2)
    drawn = (
        {key: int(rng.integers(each.size)) for key, each in encoding.dimensions.items()} for _ in range(300)
    )
    decoded = [member for values in drawn if (member := encoding.decode(values)) is not None]
    assert len(decoded) > 10
    for member in decoded:
        assert SPACES[name].contains(member) is None
        assert encoding.decode(encoding.encode(member)) == member
        if name == "largest width":
            assert member.width == max(width for width in (64, 128, 192) if width * member.depth <= 1500)


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
@pytest.mark.parametrize("name", sorted(SPACES))
def test_optunas_samplers_propose_members_of_their_own(name: str, sampler: str) -> None:
    """Few random numbers mean a member: a sampler is asked again rather than replaced by a random member."""
    space = SPACES[name]
    proposer, origins = searcher(sampler, space, EvolutionSettings(population=8), seed=0), []
    seeds = len(space.seeds())
    for _ in range(seeds + 24):
        proposal = proposer.ask()
        assert space.contains(proposal.candidate) is None
        if name == "largest width":
            assert proposal.candidate.width == max(
                width for width in (64, 128, 192) if width * proposal.candidate.depth <= 1500
            )
        origins.append(proposal.origin)
        proposer.tell(proposal.number, (space.features(proposal.candidate)["log10_params"],))
    assert origins[:seeds] == ["seed"] * seeds
    assert sum(origin.startswith(sampler) for origin in origins[seeds:]) > 18
