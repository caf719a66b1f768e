"""The space of models that see: tower, projector and language model, searched together."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product, takewhile
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from operators.architecture import Architecture
from operators.base import shipped
from operators.base.errors import ArchitectureError, ConfigError
from operators.vision.cost import vision_cost, vision_parameters
from operators.vision.vision_language import BlockNorm, VisionLanguage
from search.config.vision import VisionSpaceSettings
from search.spaces.free import CHILD_TRIES, ArchitectureSpace
from search.spaces.mutate import pick

BEFORE, AFTER = BlockNorm(), BlockNorm(norm="rmsnorm", norm_position="after")
TEXT_TOKENS = 16  # of the prompt by which the work of two models is compared
# How far the work of a model may be from its parent's, in natural logarithms, where parts are traded.
EQUAL_WORK = 0.15
WORDS = ("qk_norm", "feedforward", "positions")  # genes that are no numbers
# Genes that decide the parts of a tower and a projector: those that every part depends on, and those of
# attention, of the feed-forward network, and of the projector.
_OF_ALL = ("image_size", "patch_size", "width")
_TOGETHER = (
    ("head_dim", "qk_norm", "positions", "before"),
    ("ratio", "feedforward", "before"),
    ("pixel_shuffle", "matrices"),
)
_FITTING = ("head_dim", "pixel_shuffle")  # they must divide the width or the grid
Genes = dict[str, Any]


def accepts_everything(member: VisionLanguage) -> bool:
    return True


def work_of(member: VisionLanguage) -> float:
    """The natural logarithm of the FLOPs up to the first token."""
    return math.log(vision_cost(member, text_tokens=TEXT_TOKENS).first_token_flops)


@dataclass(frozen=True)
class VisionSpace:
    """A Space[VisionLanguage].

    settings: of towers and projectors.
    language: the space of decoders.
    image_token: the placeholder of every member.
    accepts: the run's gates before anything is measured.
    work: the natural logarithm of what trades keep: of FLOPs, or of the time that a latency table predicts.
    max_tries: random members that are tried before the space counts as empty.
    """

    settings: VisionSpaceSettings
    language: ArchitectureSpace
    image_token: int
    accepts: Callable[[VisionLanguage], bool] = accepts_everything
    work: Callable[[VisionLanguage], float] = work_of
    max_tries: int = 1000

    @cached_property
    def choices(self) -> Mapping[str, Sequence[Any]]:
        """The values of each gene. `before` is how many first blocks have LayerNorm before."""
        space = self.settings
        return {
            "image_size": space.image_sizes,
            "patch_size": space.patch_sizes,
            "width": space.widths,
            "depth": space.depths,
            "head_dim": space.head_dims,
            "ratio": space.ratios,
            "feedforward": space.feedforwards,
            "qk_norm": space.qk_norms,
            "before": range(max(space.depths) + 1) if space.hybrid_norms else (max(space.depths),),
            "positions": space.positions,
            "pixel_shuffle": space.pixel_shuffles,
            "matrices": space.matrices,
        }

    def build(self, genes: Genes, language: Architecture) -> VisionLanguage | None:
        """The member of these genes; None where there is none."""
        width, depth, before = genes["width"], genes["depth"], min(genes["before"], genes["depth"])
        if width % genes["head_dim"]:
            return None
        tower = {
            **{name: genes[name] for name in ("image_size", "patch_size", "width", "depth")},
            **{name: genes[name] for name in ("feedforward", "qk_norm")},
            "heads": width // genes["head_dim"],
            "hidden": round(genes["ratio"] * width),
            "norms": [BEFORE] * before + [AFTER] * (depth - before),
            "position_bias": genes["positions"] != "rope",
            "rope_theta": None if genes["positions"] == "bias" else self.settings.rope_theta,
        }
        inner = [language.width] * (genes["matrices"] - 1)
        projector = {"pixel_shuffle": genes["pixel_shuffle"], "hidden": inner}
        try:
            member = VisionLanguage.parse(
                {
                    "tower": tower,
                    "projector": projector,
                    "language": language,
                    "image_token": self.image_token,
                }
            )
        except ArchitectureError:
            return None
        return member if member.image_tokens <= self.settings.max_image_tokens else None

    def genes(self, member: VisionLanguage) -> Genes:
        """The genes of tower and projector for which `build` gives the member back."""
        tower = member.tower
        bias, rope = tower.position_bias, tower.rope_theta is not None
        return {
            **{name: getattr(tower, name) for name in ("image_size", "patch_size", "width", "depth")},
            **{name: getattr(tower, name) for name in ("feedforward", "qk_norm")},
            "head_dim": tower.head_dim,
            "ratio": tower.hidden / tower.width,
            "before": len(list(takewhile(lambda norm: norm == BEFORE, tower.norms))),
            "positions": "both" if bias and rope else "bias" if bias else "rope",
            "pixel_shuffle": member.projector.pixel_shuffle,
            "matrices": len(member.projector.hidden) + 1,
        }

    def sample(self, rng: Generator) -> VisionLanguage:
        for _ in range(self.max_tries):
            genes = {name: pick(values, rng) for name, values in self.choices.items()}
            member = self.build(genes, self.language.sample(rng))
            if member is not None and self.accepts(member):
                return member
        raise ConfigError(
            f"vision.space: none of {self.max_tries} random towers fits: widen the space, relax the "
            f"constraints, or raise max_image_tokens, {self.settings.max_image_tokens}"
        )

    def mutate(self, parent: VisionLanguage, rng: Generator) -> tuple[VisionLanguage, str] | None:
        kinds: tuple[tuple[str, Callable[..., tuple[VisionLanguage, str] | None]], ...] = (
            ("tower", self._changed),
            ("language", self._language_changed),
            ("trade", self._traded),
        )
        for _ in range(CHILD_TRIES):
            _, change = pick(kinds, rng)
            child = change(parent, rng)
            if child is not None and child[0] != parent and self.accepts(child[0]):
                return child
        return None

    def _changed(self, parent: VisionLanguage, rng: Generator) -> tuple[VisionLanguage, str] | None:
        """Another value of one gene of tower or projector."""
        genes = self.genes(parent)
        name = pick([name for name, values in self.choices.items() if len(values) > 1] or ["width"], rng)
        child = self.build({**genes, name: pick(self.choices[name], rng)}, parent.language)
        return None if child is None else (child, name)

    def _language_changed(self, parent: VisionLanguage, rng: Generator) -> tuple[VisionLanguage, str] | None:
        mutated = self.language.mutate(parent.language, rng)
        child = None if mutated is None else self.build(self.genes(parent), mutated[0])
        return None if child is None or mutated is None else (child, f"language-{mutated[1]}")

    def _traded(self, parent: VisionLanguage, rng: Generator) -> tuple[VisionLanguage, str] | None:
        """Less work in one part for more in another, at about equal work up to the first token."""
        first = pick((self._changed, self._language_changed), rng)(parent, rng)
        if first is None:
            return None
        away = self.work(first[0]) - self.work(parent)
        second = pick((self._changed, self._language_changed), rng)(first[0], rng)
        if second is None or abs(away) < 1e-9:
            return None
        apart = self.work(second[0]) - self.work(parent)
        back = abs(apart) < min(abs(away), EQUAL_WORK)
        return (second[0], "trade") if back else None

    def crossover(self, a: VisionLanguage, b: VisionLanguage, rng: Generator) -> VisionLanguage | None:
        """Tower, projector and language model, each of one of the parents."""
        ours, theirs = self.genes(a), self.genes(b)
        of_projector = ("pixel_shuffle", "matrices")
        for _ in range(CHILD_TRIES):
            tower, projector = (pick((ours, theirs), rng) for _ in range(2))
            language = pick((a.language, b.language), rng)
            child = self.build({**tower, **{name: projector[name] for name in of_projector}}, language)
            if child is not None and self.accepts(child):
                return child
        return None

    def seeds(self) -> tuple[VisionLanguage, ...]:
        """The designs, each once."""
        members = reversed(self.designs().values())
        return tuple({member.digest(): member for member in members}.values())[::-1]

    def designs(self) -> dict[str, VisionLanguage]:
        """Shipped models in proportion by name, with decoders that the language space begins with."""
        decoders = self.language.seeds() or ()
        members = {}
        for number, name in enumerate(shipped.names("vision-language model") if decoders else ()):
            genes = self._nearest(VisionLanguage.load(name))
            member = self.build(genes, decoders[number % len(decoders)])
            if member is not None and self.accepts(member):
                members[name] = member
        return members

    def shallow(self) -> Iterator[VisionLanguage]:
        """The tower with the least work before each of the shallow decoders."""
        choices = self.choices
        least = {name: values[0] if name in WORDS else min(values) for name, values in choices.items()}
        # Fewer patches and fewer image tokens are less work; not every pair divides the image.
        coarse = product(*(sorted(choices[name], reverse=True) for name in ("patch_size", "pixel_shuffle")))
        pairs = [{"patch_size": patch, "pixel_shuffle": shuffle} for patch, shuffle in coarse]
        for decoder in self.language.shallow():
            built = (self.build({**least, **pair}, decoder) for pair in pairs)
            yield from islice((each for each in built if each is not None and self.accepts(each)), 1)

    def covering(self) -> list[VisionLanguage]:
        """Members that together have every part: of towers, of projectors, and of decoders.

        Decoders are there behind every number of image tokens, which they read as part of the prompt.
        """
        decoders = self.language.covering()
        # One layer is enough where only the width of the decoder matters.
        narrow = {each.width: each.model_copy(update={"layers": each.layers[:1]}) for each in decoders}
        # Blocks of either normalization: in deepest towers, none or all have LayerNorm before.
        before = self.choices["before"]
        ends = {"depth": (max(self.choices["depth"]),), "before": {min(before), max(before)}}
        choices = {**self.choices, **ends}
        found = [
            member
            for together in _TOGETHER
            for chosen in _combinations({name: choices[name] for name in (*_OF_ALL, *together)})
            for decoder in narrow.values()
            if (member := self._first_with(chosen, choices, decoder)) is not None
        ]
        of_each_count = {member.image_tokens: member for member in found}
        behind = [
            member.model_copy(update={"language": decoder})
            for member in of_each_count.values()
            for decoder in decoders
        ]
        return [*found, *behind]

    def _first_with(
        self, chosen: Genes, choices: Mapping[str, Iterable[Any]], decoder: Architecture
    ) -> VisionLanguage | None:
        """A member with these genes; of genes that decide whether others fit, any value that fits."""
        rest: dict[str, Iterable[Any]] = {
            name: [*values][:1] for name, values in choices.items() if name not in chosen
        }
        rest |= {name: choices[name] for name in _FITTING if name in rest}
        built = (self.build({**chosen, **genes}, decoder) for genes in _combinations(rest))
        return next((member for member in built if member is not None), None)

    def _nearest(self, design: VisionLanguage) -> Genes:
        """The genes nearest to a design's; sizes by their share of the largest choice."""
        genes, choices = self.genes(design), self.choices
        deepest, widest = 48, 1920  # of the shipped models, Shakti-VLM-4B's
        wanted = {
            **genes,
            "image_size": max(choices["image_size"]),
            "patch_size": max(choices["image_size"]) / design.tower.grid,
            "depth": max(choices["depth"]) * design.tower.depth / deepest,
            "width": max(choices["width"]) * design.tower.width / widest,
        }
        near = {name: _nearest(values, wanted[name]) for name, values in choices.items()}
        return {
            **near,
            "before": _nearest(choices["before"], near["depth"] * genes["before"] / design.tower.depth),
        }

    def features(self, member: VisionLanguage) -> dict[str, float]:
        return {**self.language.features(member.language), **self._own_features(member)}

    def feature_rows(self, members: Sequence[VisionLanguage]) -> NDArray[np.float64]:
        own = np.array([list(self._own_features(member).values()) for member in members])
        return np.hstack([self.language.feature_rows([member.language for member in members]), own])

    def _own_features(self, member: VisionLanguage) -> dict[str, float]:
        """The features but those of the language model."""
        genes = self.genes(member)
        numbers = {f"tower_{n}": float(genes[n]) for n in ("width", "depth", "ratio", "before", "head_dim")}
        return {
            **numbers,
            "patch_size": float(genes["patch_size"]),
            "image_size": float(genes["image_size"]),
            "image_tokens": float(member.image_tokens),
            "matrices": float(genes["matrices"]),
            "log10 whole params": math.log10(vision_parameters(member)),
            "log10 first token flops": work_of(member) / math.log(10),
            **{
                f"tower_{n}": float(self.choices[n].index(genes[n]))
                for n in ("qk_norm", "feedforward", "positions")
            },
        }

    def key(self, member: VisionLanguage) -> str:
        return member.digest()


def seeing_space(settings: VisionSpaceSettings, decoders: ArchitectureSpace) -> VisionSpace:
    """The space of models that see with these decoders. The placeholder is the last id of the vocabulary."""
    return VisionSpace(settings, decoders, decoders.vocabulary - 1)


def _combinations(choices: Mapping[str, Iterable[Any]]) -> Iterator[Genes]:
    return (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))


def _nearest(values: Sequence[Any], wanted: Any) -> Any:
    """The value nearest to the wanted one; the first of words that do not have it."""
    if isinstance(values[0], str):
        return wanted if wanted in values else values[0]
    return min(values, key=lambda value: abs(value - wanted))
