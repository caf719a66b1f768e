"""The genome of Nemotron-Flash's space: three stages, each of which repeats one block of mixers with their feed-forward networks.

A block has one to three mixers in a ratio, and after each of them its own number of feed-forward networks. The published space has two
mixers and one such number in a block; the published winners need the third mixer, another published model the number for each mixer
(arXiv 2511.18890).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, NamedTuple

from numpy.random import Generator
from pydantic import Field, field_validator

from operators.value import Value
from search.mutate import pick

STAGES = 3  # early, middle, late


class StageSettings(Value):
    """The `space.stages` section of a run.

    ratios: of a block's mixers, as in `1:2`, where each mixer takes its turn for as long as it has one: `1:2` is x y y, `1:2:1` is x y z y,
    and `0:1` is one mixer alone. A ratio of more mixers than the space has is left out.
    feedforwards: how many may follow a mixer. max_repeats: of a stage's block. `max_depth` of the space bounds all stages together: what is
    beyond is cut from the last one.
    """

    ratios: Annotated[tuple[str, ...], Field(min_length=1)] = ("0:1", "1:1", "1:2", "1:3", "1:1:1", "1:2:1", "1:1:2", "1:3:1", "1:1:3")
    feedforwards: Annotated[tuple[Annotated[int, Field(ge=0, le=8)], ...], Field(min_length=1)] = (0, 1, 2)
    max_repeats: Annotated[int, Field(ge=1, le=64)] = 10

    @field_validator("ratios")
    @classmethod
    def _are_ratios(cls, ratios: tuple[str, ...]) -> tuple[str, ...]:
        for text in ratios:
            shares = text.split(":")
            if not all(share in set("0123456789") for share in shares) or not any(share != "0" for share in shares):
                raise ValueError(f"expected shares of 0 to 9 that are not all 0, as in 1:2, got {text!r}")
        return ratios

    def shares(self, mixers: int) -> tuple[tuple[int, ...], ...]:
        """The ratios without their zeros, of at most that many mixers."""
        found = [tuple(int(share) for share in text.split(":") if share != "0") for text in self.ratios]
        return tuple(dict.fromkeys(ratio for ratio in found if len(ratio) <= mixers))


def require_sequences(settings: StageSettings, mixers: int, feedforwards: int, depths: tuple[int, int]) -> None:
    """Raises ValueError, one line, where so many operators of either kind make no three stages of that depth."""
    ratios, counts = settings.shares(mixers), settings.feedforwards
    if any(counts) and feedforwards != 1:
        raise ValueError(f"stages: expected one feed-forward network among operators, got {feedforwards}")
    if not ratios:
        raise ValueError(f"stages.ratios: expected one of at most {mixers} mixers, got {', '.join(settings.ratios)}")
    smallest, largest = min(map(sum, ratios)) * (1 + min(counts)), max(map(sum, ratios)) * (1 + max(counts))
    least, most = (STAGES - 1) * smallest + 1, STAGES * largest * settings.max_repeats
    if depths[1] < least:
        raise ValueError(f"max_depth: expected at least {least} for {STAGES} stages, got {depths[1]}")
    if depths[0] > most:
        raise ValueError(f"min_depth: expected at most {most}, which {STAGES} stages can have, got {depths[0]}")


class Block(NamedTuple):
    """mixers: names, each once. ratio, feedforwards: of each mixer, its share and how many feed-forward networks follow it."""

    mixers: tuple[str, ...]
    ratio: tuple[int, ...]
    feedforwards: tuple[int, ...]


class Stage(NamedTuple):
    block: Block
    repeats: int


Genome = tuple[Stage, Stage, Stage]


class Alphabet(NamedTuple):
    """What genomes are made of. mixers: names. feedforward: name, if there is one. longest: operators of all stages together, at most."""

    settings: StageSettings
    mixers: tuple[str, ...]
    feedforward: str | None
    longest: int

    @property
    def ratios(self) -> tuple[tuple[int, ...], ...]:
        return self.settings.shares(len(self.mixers))


def turns(ratio: tuple[int, ...]) -> tuple[int, ...]:
    """Which mixer comes when: (1, 2, 1) -> (0, 1, 2, 1)."""
    return tuple(mixer for turn in range(max(ratio)) for mixer, share in enumerate(ratio) if turn < share)


def length(block: Block) -> int:
    """The operators of a block."""
    return sum(share * (1 + count) for share, count in zip(block.ratio, block.feedforwards, strict=True))


def sequence(genome: Genome, alphabet: Alphabet) -> tuple[str, ...] | None:
    """The operators' names, cut to the longest; None where nothing is left of the last stage."""
    names: list[str] = []
    for number, (block, repeats) in enumerate(genome):
        if number == STAGES - 1 and len(names) >= alphabet.longest:
            return None
        for _ in range(repeats):
            for mixer in turns(block.ratio):
                names += [block.mixers[mixer], *[str(alphabet.feedforward)] * block.feedforwards[mixer]]
    return tuple(names[: alphabet.longest])


def drawn(alphabet: Alphabet, depth: int, rng: Generator) -> Genome:
    """A random genome of about `depth` operators."""
    parts = rng.dirichlet([2.0] * STAGES)
    stages = []
    for part in parts:
        ratio = pick(alphabet.ratios, rng)
        mixers = tuple(rng.permutation(alphabet.mixers)[: len(ratio)].tolist())
        block = Block(mixers, ratio, tuple(pick(alphabet.settings.feedforwards, rng) for _ in ratio))
        stages.append(Stage(block, min(max(1, round(part * depth / length(block))), alphabet.settings.max_repeats)))
    return stages[0], stages[1], stages[2]


@lru_cache(maxsize=4096)
def readings(names: tuple[str, ...], alphabet: Alphabet) -> tuple[Genome, ...]:
    """The genomes with this sequence; none where it is no member. Of what was cut from the last block, one possibility is given."""
    units: list[_Unit] = []
    for name in names:
        if name in alphabet.mixers:
            units.append((name, 0))
        elif name == alphabet.feedforward and units:
            units[-1] = (units[-1][0], units[-1][1] + 1)
        else:
            return ()
    found = []
    for early, rest in _beginnings(tuple(units), alphabet):
        for middle, tail in _beginnings(rest, alphabet):
            for ratio in alphabet.ratios:
                late = _stage(tail, ratio, alphabet, cut=len(names) == alphabet.longest)
                if late is not None:
                    found.append((early, middle, late))
    return tuple(found)


_Unit = tuple[str, int]  # a mixer and how many feed-forward networks follow it


def _beginnings(units: tuple[_Unit, ...], alphabet: Alphabet) -> Iterator[tuple[Stage, tuple[_Unit, ...]]]:
    """Every stage that the units can begin with, and what then is left, which is something."""
    for ratio in alphabet.ratios:
        for end in range(sum(ratio), len(units), sum(ratio)):
            stage = _stage(units[:end], ratio, alphabet, cut=False)
            if stage is None:
                break
            yield stage, units[end:]


def _stage(units: tuple[_Unit, ...], ratio: tuple[int, ...], alphabet: Alphabet, *, cut: bool) -> Stage | None:
    """The stage of that ratio that makes these units and, if they are cut, further ones behind them."""
    pattern, allowed = turns(ratio), alphabet.settings.feedforwards
    repeats, over = -(-len(units) // len(pattern)), len(units) % len(pattern)
    if repeats > alphabet.settings.max_repeats or (over and not cut):
        return None
    mixers: dict[int, str] = {}
    counts: dict[int, int] = {}
    for place, (name, count) in enumerate(units):
        mixer = pattern[place % len(pattern)]
        if cut and place == len(units) - 1:  # some of the last mixer's feed-forward networks may be missing
            whole = counts.get(mixer, min((some for some in allowed if some >= count), default=count))
            count = whole if count < whole else count
        if mixers.setdefault(mixer, name) != name or counts.setdefault(mixer, count) != count or count not in allowed:
            return None
    others = [name for name in alphabet.mixers if name not in mixers.values()]
    for mixer in range(len(mixers), len(ratio)):  # those that were cut away before their first turn
        mixers[mixer], counts[mixer] = others.pop(0), min(allowed)
    if len(set(mixers.values())) < len(ratio):
        return None
    order = range(len(ratio))
    return Stage(Block(tuple(mixers[place] for place in order), ratio, tuple(counts[place] for place in order)), repeats)


def change_operator(block: Block, alphabet: Alphabet, rng: Generator) -> Block | None:
    """Another mixer in the place of one; where the block has that one already, the two change places."""
    place = int(rng.integers(len(block.mixers)))
    others = [name for name in alphabet.mixers if name != block.mixers[place]]
    if not others:
        return None
    old, new = block.mixers[place], pick(others, rng)
    exchanged = {old: new, new: old}
    return block._replace(mixers=tuple(exchanged.get(name, name) for name in block.mixers))


def change_ratio(block: Block, alphabet: Alphabet, rng: Generator) -> Block | None:
    """Another ratio; mixers that it has no place for go, and where it has places for more, random ones come behind."""
    others = [ratio for ratio in alphabet.ratios if ratio != block.ratio]
    if not others:
        return None
    ratio = pick(others, rng)
    kept = sorted(rng.permutation(len(block.mixers))[: len(ratio)].tolist())
    mixers, counts = [block.mixers[place] for place in kept], [block.feedforwards[place] for place in kept]
    new = [name for name in rng.permutation(alphabet.mixers).tolist() if name not in mixers][: len(ratio) - len(kept)]
    return Block((*mixers, *new), ratio, (*counts, *(pick(alphabet.settings.feedforwards, rng) for _ in new)))


def change_feedforwards(block: Block, alphabet: Alphabet, rng: Generator) -> Block | None:
    """Another number of feed-forward networks behind one mixer."""
    place = int(rng.integers(len(block.mixers)))
    others = [count for count in alphabet.settings.feedforwards if count != block.feedforwards[place]]
    if not others:
        return None
    return block._replace(feedforwards=(*block.feedforwards[:place], pick(others, rng), *block.feedforwards[place + 1 :]))


BLOCK_FACTORS: Mapping[str, Callable[[Block, Alphabet, Generator], Block | None]] = {
    "operator": change_operator,
    "ratio": change_ratio,
    "feedforwards": change_feedforwards,
}
FACTORS = (*BLOCK_FACTORS, "repeats")


def change(factor: str, genome: Genome, alphabet: Alphabet, rng: Generator) -> Genome | None:
    """The genome with one of FACTORS changed in one stage; None where it has no other value."""
    stages = list(genome)
    where = int(rng.integers(STAGES))
    block, repeats = stages[where]
    if factor == "repeats":
        others = [count for count in range(1, alphabet.settings.max_repeats + 1) if count != repeats]
        if not others:
            return None
        stages[where] = Stage(block, pick(others, rng))
    else:
        changed = BLOCK_FACTORS[factor](block, alphabet, rng)
        if changed is None:
            return None
        stages[where] = Stage(changed, repeats)
    return stages[0], stages[1], stages[2]
