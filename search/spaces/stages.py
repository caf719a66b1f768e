"""The genome of Nemotron-Flash's space: three stages that each repeat a block of mixers and feed-forwards.

A block has one to three mixers in a ratio, and each mixer is followed by its own number of feed-forward
networks. The published space (arXiv 2511.18890) has two mixers and one number of feed-forward networks in
a block. The published winners need the third mixer, another published model the number for each mixer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

from numpy.random import Generator

from search.config.space import STAGES, StageSettings
from search.spaces.mutate import pick


class Block(NamedTuple):
    """The block that a stage repeats.

    mixers: names of the mixers, each once.
    ratio: turns of each mixer in a block.
    feedforwards: number of feed-forward networks that follow each mixer.
    """

    mixers: tuple[str, ...]
    ratio: tuple[int, ...]
    feedforwards: tuple[int, ...]


class Stage(NamedTuple):
    """A block and how often it is repeated."""

    block: Block
    repeats: int


Genome = tuple[Stage, Stage, Stage]


@dataclass(frozen=True, eq=False)  # compared by identity, which makes look-ups in the caches below fast
class Alphabet:
    """The elements of genomes.

    settings: ratios, numbers of feed-forward networks and repetitions that a stage may have.
    mixers: names of mixers.
    feedforward: name of the feed-forward network, if there is one.
    longest: largest number of operators of all stages together.
    """

    settings: StageSettings
    mixers: tuple[str, ...]
    feedforward: str | None
    longest: int

    @cached_property
    def ratios(self) -> tuple[tuple[int, ...], ...]:
        return self.settings.shares(len(self.mixers))

    @cached_property
    def sizes(self) -> dict[tuple[int, ...], int]:
        """Ratio -> number of mixers in a block of this ratio."""
        return {ratio: sum(ratio) for ratio in self.ratios}


@cache
def turns(ratio: tuple[int, ...]) -> tuple[int, ...]:
    """The mixer of each turn in a block: (1, 2, 1) -> (0, 1, 2, 1)."""
    return tuple(mixer for turn in range(max(ratio)) for mixer, share in enumerate(ratio) if turn < share)


def length(block: Block) -> int:
    """Number of operators in a block."""
    return sum(share * (1 + count) for share, count in zip(block.ratio, block.feedforwards, strict=True))


def sequence(genome: Genome, alphabet: Alphabet) -> tuple[str, ...] | None:
    """The names of a genome's operators, cut to the longest length; None if the last stage is cut away."""
    names: list[str] = []
    for number, (block, repeats) in enumerate(genome):
        if number == STAGES - 1 and len(names) >= alphabet.longest:
            return None
        once: list[str] = []
        for mixer in turns(block.ratio):
            once += [block.mixers[mixer], *[str(alphabet.feedforward)] * block.feedforwards[mixer]]
        names += once * repeats
    return tuple(names[: alphabet.longest])


def drawn(alphabet: Alphabet, depth: int, rng: Generator) -> Genome:
    """A random genome of about `depth` operators."""
    parts = rng.dirichlet([2.0] * STAGES)
    stages = []
    for part in parts:
        ratio = pick(alphabet.ratios, rng)
        mixers = tuple(rng.permutation(alphabet.mixers)[: len(ratio)].tolist())
        block = Block(mixers, ratio, tuple(pick(alphabet.settings.feedforwards, rng) for _ in ratio))
        stages.append(
            Stage(block, min(max(1, round(part * depth / length(block))), alphabet.settings.max_repeats))
        )
    return stages[0], stages[1], stages[2]


@lru_cache(maxsize=65_536)
def readings(names: tuple[str, ...], alphabet: Alphabet) -> tuple[Genome, ...]:
    """All genomes with this sequence; empty if the sequence is not in the space.

    Of a sequence whose last block was cut, only one of the possible complete blocks is given.
    """
    parsed: list[_Unit] = []
    for name in names:
        if name in alphabet.mixers:
            parsed.append((name, 0))
        elif name == alphabet.feedforward and parsed:
            parsed[-1] = (parsed[-1][0], parsed[-1][1] + 1)
        else:
            return ()
    units = tuple(parsed)
    settings, cut = alphabet.settings, len(names) == alphabet.longest

    sizes = sorted(set(alphabet.sizes.values()))
    runs = {size: _runs(units, size) for size in sizes}

    @cache
    def beginnings(start: int) -> list[tuple[Stage, int]]:
        """Every stage that the units can begin with from `start` on, with the start of the next stage."""
        stages, left = [], len(units) - 1 - start
        firsts = {size: units[start : start + size] for size in sizes if size <= left}
        different = {size: len(set(first)) for size, first in firsts.items()}
        for ratio, size in alphabet.sizes.items():
            block = (
                _block(firsts[size], ratio, settings.feedforwards)
                if different.get(size) == len(ratio)
                else None
            )
            if block:
                most = min(1 + runs[size][start] // size, left // size, settings.max_repeats)
                stages += [(Stage(block, repeats), start + repeats * size) for repeats in range(1, most + 1)]
        return stages

    @cache
    def ends(start: int) -> list[Stage]:
        """Every stage that all units from `start` to the end can be."""
        rest, left = units[start:], len(units) - start
        fit = {size for size in sizes if (cut or left % size == 0) and size + runs[size][start] >= left - 1}
        stages = [
            _last(rest, ratio, settings, alphabet.mixers, cut)
            for ratio, size in alphabet.sizes.items()
            if size in fit
        ]
        return [stage for stage in stages if stage is not None]

    return tuple(
        (early, middle, late)
        for early, second in beginnings(0)
        for middle, third in beginnings(second)
        for late in ends(third)
    )


_Unit = tuple[str, int]  # a mixer and how many feed-forward networks follow it


def _runs(units: tuple[_Unit, ...], size: int) -> list[int]:
    """For each place, the number of units from there on that equal the units `size` places further on."""
    runs = [0] * len(units)
    for place in range(len(units) - size - 1, -1, -1):
        runs[place] = runs[place + 1] + 1 if units[place] == units[place + size] else 0
    return runs


def _last(
    units: tuple[_Unit, ...],
    ratio: tuple[int, ...],
    settings: StageSettings,
    mixers: tuple[str, ...],
    cut: bool,
) -> Stage | None:
    """The last stage with this ratio that begins with these units; None if there is none.

    The caller has checked that all units but the last repeat after a block.

    mixers: names of all mixers, to complete a block that was cut.
    cut: whether the sequence was cut, so that further units may have followed.
    """
    size = sum(ratio)
    repeats = -(-len(units) // size)
    if repeats > settings.max_repeats:
        return None
    if repeats == 1:
        allowed = settings.feedforwards
        block = _cut_block(units, ratio, allowed, mixers) if cut else _block(units, ratio, allowed)
        return block and Stage(block, 1)
    (name, count), (expected, most) = units[-1], units[(len(units) - 1) % size]
    if name != expected or count > most or (count < most and not cut):
        return None
    block = _block(units[:size], ratio, settings.feedforwards)
    return block and Stage(block, repeats)


@lru_cache(maxsize=65_536)
def _block(units: tuple[_Unit, ...], ratio: tuple[int, ...], allowed: tuple[int, ...]) -> Block | None:
    """The block with this ratio that consists of these units; None if there is none.

    allowed: numbers of feed-forward networks that may follow a mixer.
    """
    by_mixer: dict[int, _Unit] = {}
    for mixer, unit in zip(turns(ratio), units, strict=True):
        if by_mixer.setdefault(mixer, unit) != unit or unit[1] not in allowed:
            return None
    mixers, counts = zip(*(by_mixer[place] for place in range(len(ratio))), strict=True)
    return Block(mixers, ratio, counts) if len(set(mixers)) == len(ratio) else None


@lru_cache(maxsize=65_536)
def _cut_block(
    units: tuple[_Unit, ...], ratio: tuple[int, ...], allowed: tuple[int, ...], known: tuple[str, ...]
) -> Block | None:
    """A block with this ratio that begins with these units; None if there is none.

    The cut may have removed feed-forward networks of the last unit, and whole units behind it.

    allowed: numbers of feed-forward networks that may follow a mixer.
    known: names of all mixers.
    """
    mixers: dict[int, str] = {}
    counts: dict[int, int] = {}
    for place, (name, count) in enumerate(units):
        mixer = turns(ratio)[place]
        if place == len(units) - 1:
            most = counts.get(mixer, min((some for some in allowed if some >= count), default=count))
            count = most if count < most else count
        if (
            mixers.setdefault(mixer, name) != name
            or counts.setdefault(mixer, count) != count
            or count not in allowed
        ):
            return None
    others = [name for name in known if name not in mixers.values()]
    for mixer in range(len(mixers), len(ratio)):  # mixers that the cut removed before their first turn
        mixers[mixer], counts[mixer] = others.pop(0), min(allowed)
    if len(set(mixers.values())) < len(ratio):
        return None
    order = range(len(ratio))
    return Block(tuple(mixers[place] for place in order), ratio, tuple(counts[place] for place in order))


def change_operator(block: Block, alphabet: Alphabet, rng: Generator) -> Block | None:
    """Puts another mixer in the place of one. If the block has that mixer already, the two change places."""
    place = int(rng.integers(len(block.mixers)))
    others = [name for name in alphabet.mixers if name != block.mixers[place]]
    if not others:
        return None
    old, new = block.mixers[place], pick(others, rng)
    exchanged = {old: new, new: old}
    return block._replace(mixers=tuple(exchanged.get(name, name) for name in block.mixers))


def change_ratio(block: Block, alphabet: Alphabet, rng: Generator) -> Block | None:
    """Takes another ratio. Random mixers without a place in it go; random ones fill new places at the end."""
    others = [ratio for ratio in alphabet.ratios if ratio != block.ratio]
    if not others:
        return None
    ratio = pick(others, rng)
    kept = sorted(rng.permutation(len(block.mixers))[: len(ratio)].tolist())
    mixers, counts = [block.mixers[place] for place in kept], [block.feedforwards[place] for place in kept]
    new = [name for name in rng.permutation(alphabet.mixers).tolist() if name not in mixers][
        : len(ratio) - len(kept)
    ]
    return Block((*mixers, *new), ratio, (*counts, *(pick(alphabet.settings.feedforwards, rng) for _ in new)))


def change_feedforwards(block: Block, alphabet: Alphabet, rng: Generator) -> Block | None:
    """Changes the number of feed-forward networks behind one mixer."""
    place = int(rng.integers(len(block.mixers)))
    others = [count for count in alphabet.settings.feedforwards if count != block.feedforwards[place]]
    if not others:
        return None
    return block._replace(
        feedforwards=(*block.feedforwards[:place], pick(others, rng), *block.feedforwards[place + 1 :])
    )


BLOCK_FACTORS: Mapping[str, Callable[[Block, Alphabet, Generator], Block | None]] = {
    "operator": change_operator,
    "ratio": change_ratio,
    "feedforwards": change_feedforwards,
}
FACTORS = (*BLOCK_FACTORS, "repeats")


def change(factor: str, genome: Genome, alphabet: Alphabet, rng: Generator) -> Genome | None:
    """The genome with one factor changed in one random stage; None if the factor has no other value.

    factor: one of FACTORS.
    """
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
