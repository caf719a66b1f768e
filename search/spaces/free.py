"""The space of free sequences: any operators in any order, at every width and depth of the settings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from operators.architecture import MAX_DEPTH, Architecture, Layer
from operators.base.errors import ConfigError
from operators.published.engines import Engine, fits
from search.config.choices import Choices, Layers, Part, norm_of, normalized
from search.config.space import SpaceSettings, _listed
from search.spaces import mutate
from search.spaces.exportable import first_reason, narrowed, of_one_model, one_layer_each, together, why_not
from search.spaces.features import Features
from search.spaces.mutate import pick
from search.spaces.seeds import design_in, designs_of, first_members, rescaled_to, shallow_members

T = TypeVar("T")

CHILD_TRIES = 50
"""Attempts to make a legal child of the same parents. After these the searcher turns to other parents."""


def accepts_everything(architecture: Architecture) -> bool:
    return True


@dataclass(frozen=True)
class ArchitectureSpace:
    """A Space[Architecture]: sequences of operators with their shapes, at any width and depth given.

    Each architecture that it returns is legal and accepted. Properties outside the settings (RoPE, tied
    embeddings) have their defaults; a child inherits them from its parents.

    settings: the `space` section of a run.
    vocabulary: number of tokens of every architecture.
    accepts: the run's cheap constraints, such as a bound on parameters.
    """

    settings: SpaceSettings
    vocabulary: int
    accepts: Callable[[Architecture], bool] = accepts_everything

    @cached_property
    def choices(self) -> Choices:
        """What the settings allow, without what no engine of `exportable_to` has. Raises ConfigError."""
        choices = self.settings.choices()
        return narrowed(choices, self._engines, self._build) if self._engines else choices

    @property
    def _engines(self) -> tuple[Engine, ...]:
        return self.settings.exportable_to or ()

    @cached_property
    def _together(self) -> list[frozenset[str]]:
        return together(self.choices, self._engines)

    def contains(self, architecture: Architecture) -> str | None:
        """The reason why the architecture is not legal here, or None. It does not call `accepts`."""
        choices, width = self.choices, architecture.width
        low, high = choices.depths
        if architecture.vocabulary != self.vocabulary:
            return f"vocabulary: expected {self.vocabulary}, got {architecture.vocabulary}"
        if width not in choices.widths:
            return f"width: expected one of {_listed(choices.widths)}, got {width}"
        if not low <= architecture.depth <= high:
            return f"layers: expected {low} to {high}, got {architecture.depth}"
        if architecture.meta_tokens not in choices.meta_tokens:
            return (
                f"meta_tokens: expected one of {_listed(choices.meta_tokens)}, got {architecture.meta_tokens}"
            )
        if architecture.normalized_head != self.settings.normalized_head:
            expected, given = self.settings.normalized_head, architecture.normalized_head
            return f"normalized_head: expected {expected}, got {given}"
        parts = choices.parts(architecture.layers, width)
        if parts is None:
            unknown = next(
                number
                for number, layer in enumerate(architecture.layers)
                if choices.parts([layer], width) is None
            )
            return self._unknown(unknown, architecture.layers[unknown], width)
        if not any(part.mixer for part in parts):
            return "layers: expected at least one mixer, got feed-forward networks alone"
        unloaded = why_not(architecture, self._engines) if self._engines else None
        return unloaded and f"exportable_to: {unloaded}"

    def of_one_model(self, names: Sequence[str]) -> Sequence[str]:
        """The operators of a sequence, as one model of the engines of `exportable_to` may have them."""
        return of_one_model(names, self._together) if self._engines else names

    def _inside(self, child: Architecture, before: Layers = ()) -> Architecture:
        """A child that the engines of `exportable_to` may load, where it is easily made one.

        before: the layers of its parent.
        """
        if not self._engines or fits(child, self._engines):
            return child
        return child.model_copy(update={"layers": one_layer_each(child.layers, before)})

    def _unknown(self, number: int, layer: Layer, width: int) -> str:
        """The reason why a layer is not among the choices. number: its place."""
        choices = self.choices
        if layer.operator not in choices.operators:
            return f"layers.{number}: expected one of {_listed(choices.operators)}, got {layer.operator}"
        if norm_of(layer) not in choices.norms:
            known = _listed(" ".join(norm) for norm in choices.norms)
            given = " ".join(norm_of(layer))
            return f"layers.{number}: expected a normalization of {known}, got {given}"
        return f"layers.{number}.shape: no genes of {layer.operator} at width {width} give {layer.shape}"

    def sample(self, rng: Generator) -> Architecture:
        for _ in range(self.settings.max_tries):
            architecture = self._inside(self._draw(rng))
            if self._legal(architecture):
                return architecture
        raise self._none_drawn()

    def _none_drawn(self) -> ConfigError:
        within = f" and loads in {_listed(self._engines)} (space.exportable_to)" if self._engines else ""
        return ConfigError(
            f"space: none of {self.settings.max_tries} random architectures meets the constraints{within}; "
            "widen the space or relax the constraints"
        )

    def mutate(self, parent: Architecture, rng: Generator) -> tuple[Architecture, str] | None:
        names = list(mutate.MUTATIONS)
        for _ in range(CHILD_TRIES):
            name = pick(names, rng)
            child = mutate.MUTATIONS[name](parent, self.choices, rng)
            child = child and self._inside(child, parent.layers)
            if child is None or mutate.alike(child, parent):
                continue
            if self._legal(child):
                return child, name
        return None

    def crossover(self, a: Architecture, b: Architecture, rng: Generator) -> Architecture | None:
        for _ in range(CHILD_TRIES):
            child = mutate.crossover(a, b, self.choices, rng)
            child = child and self._inside(child)
            if child is not None and self._legal(child):
                return child
        return None

    def key(self, member: Architecture) -> str:
        # A digest would be a key too. This takes a tenth of its time, as the layers of a space have numbers.
        parts = self.choices.parts(member.layers, member.width)
        layers = (
            [layer.model_dump_json() for layer in member.layers]
            if parts is None
            else [part.code for part in parts]
        )
        return member.model_dump_json(exclude={"name", "layers"}) + "".join(layers)

    def settled(self, architecture: Architecture) -> Architecture | None:
        """The accepted member that an architecture made elsewhere stands for, if any: here only itself."""
        return architecture if self._legal(architecture) else None

    def seeds(self) -> tuple[Architecture, ...]:
        """The corners of the space, the members nearest to published designs, and each mixer alone."""
        return first_members(self.choices, self._build, self._legal)

    def covering(self) -> list[Architecture]:
        """Members that together have every layer, at every width and number of meta tokens.

        They may be deeper than the settings allow, and no gate is asked.
        """
        members, choices = [], self.choices
        for width in choices.widths:
            layers = [
                normalized(layer, norm)
                for name in choices.operators
                for layer in choices.at(name, width)
                for norm in choices.norms
            ]
            members += [
                Architecture(
                    width=width,
                    vocabulary=self.vocabulary,
                    layers=tuple(layers[start : start + MAX_DEPTH]),
                    meta_tokens=meta_tokens,
                    normalized_head=self.settings.normalized_head,
                )
                for start in range(0, len(layers), MAX_DEPTH)
                for meta_tokens in choices.meta_tokens
            ]
        return members

    def left_out(self) -> dict[str, str]:
        """The published designs that `seeds` has without `exportable_to` alone -> why its engines do not."""
        if not self._engines:
            return {}
        everything = replace(self, settings=self.settings.model_copy(update={"exportable_to": None}))
        kept = {design_in(seed) for seed in self.seeds()}
        return {
            name: first_reason(seed, self._engines)
            for seed in everything.seeds()
            if (name := design_in(seed)) is not None and name not in kept
        }

    def shallow(self) -> Iterator[Architecture]:
        """Each mixer alone, as shallow and narrow as is legal."""
        return shallow_members(self.choices, self._build, self._legal)

    def designs(self) -> tuple[Architecture, ...]:
        """Published designs in proportion, at each width where they are members. Equal ones occur once."""
        designs, widths = designs_of(self.choices.operators), self.choices.widths
        rescaled = [
            rescaled_to(design, width, self.choices, self._build) for design in designs for width in widths
        ]
        legal = [member for member in rescaled if member is not None and self._legal(member)]
        return tuple({member.digest(): member for member in reversed(legal)}.values())[::-1]

    def features(self, member: Architecture) -> dict[str, float]:
        """Counts and positions of operators, sizes, and values of genes (`search.spaces.features`)."""
        return dict(zip(self._features.names, self.feature_rows([member])[0].tolist(), strict=True))

    def feature_rows(self, members: Sequence[Architecture]) -> NDArray[np.float64]:
        """The values of `features` of each member: [n, features]."""
        rows = list[list[Part]]()
        for member in members:
            parts = self.choices.parts(member.layers, member.width)
            if parts is None:
                raise ValueError(f"expected a member of the space, got {self.contains(member)}")
            rows.append(parts)
        return self._features(members, rows)

    @cached_property
    def _features(self) -> Features:
        return Features(self.choices)

    def _draw(self, rng: Generator) -> Architecture:
        """A random architecture that resembles real ones: blocks repeated, or operators in turns.

        A draw has one to three kinds of mixer. Most draws have one kind of feed-forward network, and most
        layers of an operator have one shape, as in published models.
        """
        low, high = self.choices.depths
        width, depth = pick(self.choices.widths, rng), int(rng.integers(low, high + 1))
        mixers, feedforwards = (self.choices.available(width, kind) for kind in ("mixer", "feedforward"))
        if self._engines:
            one_model = pick([each for each in self._together if each & set(mixers)], rng)
            mixers = tuple(name for name in mixers if name in one_model)
            feedforwards = tuple(name for name in feedforwards if name in one_model)
        mixers = tuple(rng.permutation(mixers)[: rng.integers(1, 4)].tolist())
        feedforwards = (
            tuple(rng.permutation(feedforwards)[:1].tolist()) if rng.random() < 0.8 else feedforwards
        )
        follows = pick((0.8, 0.95, 1.0), rng) if feedforwards else 0.0
        names: list[str] = []
        length = depth if rng.random() < 0.5 else int(rng.integers(1, 7))
        while len(names) < length:
            names.append(pick(mixers, rng))
            if rng.random() < follows:
                names += [pick(feedforwards, rng)] * (2 if rng.random() < 0.1 else 1)
        repeated = (names * depth)[:depth]
        usual = {name: pick(self.choices.at(name, width), rng) for name in sorted(set(repeated))}
        layers = [
            pick(self.choices.at(name, width), rng) if rng.random() < 0.1 else usual[name]
            for name in repeated
        ]
        return self._build(width, self._normalize(layers, rng), pick(self.choices.meta_tokens, rng))

    def _normalize(self, layers: Sequence[Layer], rng: Generator) -> Sequence[Layer]:
        """Half of the time one normalization for all, otherwise one for the first and one for the rest."""
        norms = self.choices.norms
        if len(norms) == 1:
            return [normalized(layer, norms[0]) for layer in layers]
        first, rest = pick(norms, rng), pick(norms, rng)
        cut = int(rng.integers(len(layers) + 1)) if rng.random() < 0.5 else 0
        return [normalized(layer, first if number < cut else rest) for number, layer in enumerate(layers)]

    def _legal(self, architecture: Architecture) -> bool:
        return self.contains(architecture) is None and self.accepts(architecture)

    def _build(self, width: int, layers: Sequence[Layer], meta_tokens: int, name: str = "") -> Architecture:
        surroundings = {
            "vocabulary": self.vocabulary,
            "meta_tokens": meta_tokens,
            "normalized_head": self.settings.normalized_head,
        }
        return Architecture.parse(
            {"name": name, "width": width, "layers": tuple(layers), **surroundings}, where="space"
        )
