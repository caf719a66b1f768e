"""Nemotron-Flash's search space (arXiv 2511.18890): three stages that each repeat one block.

With a latency target each architecture has the largest width that meets it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from numpy.random import Generator

from operators import registry
from operators.architecture import Architecture, Layer, distinct
from search.config.choices import Norm, norm_of, normalized
from search.config.space import STAGES, SpaceSettings, StageSettings
from search.spaces import mutate, stages
from search.spaces.free import CHILD_TRIES, ArchitectureSpace, accepts_everything
from search.spaces.mutate import pick
from search.spaces.stages import Alphabet, Genome, readings, sequence


def make_space(
    settings: SpaceSettings,
    vocabulary: int,
    *,
    accepts: Callable[[Architecture], bool] = accepts_everything,
    in_time: Callable[[Architecture], bool] | None = None,
) -> ArchitectureSpace:
    """The space of the settings: three stages if they have `stages`, otherwise free sequences.

    vocabulary, accepts: as for ArchitectureSpace.
    in_time: as for StagedSpace; free sequences do not use it.
    """
    if settings.stages is None:
        return ArchitectureSpace(settings, vocabulary, accepts)
    return StagedSpace(settings, vocabulary, accepts, in_time)


@dataclass(frozen=True)
class StagedSpace(ArchitectureSpace):
    """The architectures of ArchitectureSpace whose sequence consists of three stages.

    All layers of an operator have one shape, and all layers have one normalization.

    in_time: whether an architecture is predicted to meet the latency target. With it the width is not
        searched: each architecture has the largest width that is in time and accepted. Without it the width
        is one more gene, and only measuring shows which candidates are too slow.
    """

    in_time: Callable[[Architecture], bool] | None = None

    @cached_property
    def alphabet(self) -> Alphabet:
        return alphabet_of(self.settings)

    @cached_property
    def _factors(self) -> tuple[str, ...]:
        """The respects that a mutation may change: those with more than one value."""
        choices = self.choices
        further = {
            "shape": any(len(options) > 1 for genes in choices.genes.values() for options in genes.values()),
            "normalization": len(choices.norms) > 1,
            "meta_tokens": len(choices.meta_tokens) > 1,
            "width": self.in_time is None and len(choices.widths) > 1,
        }
        return (*stages.FACTORS, *(factor for factor, others in further.items() if others))

    def contains(self, architecture: Architecture) -> str | None:
        reason = self._unfit(architecture)
        if reason is not None:
            return reason
        return (
            None
            if self.genomes(architecture)
            else f"layers: expected {STAGES} stages that repeat a block each, got {architecture.shorthand}"
        )

    def _unfit(self, architecture: Architecture) -> str | None:
        """The reasons of `contains`, but without the check of the sequence.

        A sequence that was made from a genome is known to be legal, and reading it again would be slow.
        """
        reason = super().contains(architecture)
        if reason is not None:
            return reason
        layers, shapes = distinct(architecture.layers).values(), dict[str, Layer]()
        for layer in layers:
            usual = shapes.setdefault(layer.operator, layer)
            if layer is not usual and layer != usual:
                place = architecture.layers.index(layer)
                return f"layers.{place}: expected the shape and normalization of its operator's other layers"
        if len({norm_of(layer) for layer in layers}) > 1:
            return "layers: expected one normalization for all"
        return None

    def genomes(self, architecture: Architecture) -> tuple[Genome, ...]:
        """Every way to write the architecture's sequence as stages."""
        return readings(tuple([layer.operator for layer in architecture.layers]), self.alphabet)

    def sample(self, rng: Generator) -> Architecture:
        low, high = self.choices.depths
        for _ in range(self.settings.max_tries):
            width, norm = pick(self.choices.widths, rng), pick(self.choices.norms, rng)
            genome = stages.drawn(self.alphabet, int(rng.integers(low, high + 1)), rng)
            layers = self._layers(genome, width, {}, norm, rng)
            member = layers and self._settled(self._build(width, layers, pick(self.choices.meta_tokens, rng)))
            if member:
                return member
        raise self._none_drawn()

    def mutate(self, parent: Architecture, rng: Generator) -> tuple[Architecture, str] | None:
        for _ in range(CHILD_TRIES):
            factor = pick(self._factors, rng)
            changed = self._changed(factor, parent, rng)
            child = changed and self._settled(changed)
            if child and not mutate.alike(child, parent):
                return child, factor
        return None

    def crossover(self, a: Architecture, b: Architecture, rng: Generator) -> Architecture | None:
        """Takes each stage from either parent, and everything outside the stages from the first."""
        for _ in range(CHILD_TRIES):
            first, second = pick(self.genomes(a), rng), pick(self.genomes(b), rng)
            early, middle, late = (pick(pair, rng) for pair in zip(first, second, strict=True))
            resized = self.choices.resized(b.layers, b.width, a.width)
            shapes = {**{layer.operator: layer for layer in resized or ()}, **_shapes(a)}
            layers = self._layers((early, middle, late), a.width, shapes, norm_of(a.layers[0]), rng)
            child = layers and self._settled(a.model_copy(update={"name": "", "layers": layers}))
            if child:
                return child
        return None

    def settled(self, architecture: Architecture) -> Architecture | None:
        return self._settled(architecture) if self.genomes(architecture) else None

    def seeds(self) -> tuple[Architecture, ...]:
        members = [member for seed in super().seeds() if (member := self._settled(seed))]
        return tuple({self.key(seed): seed for seed in reversed(members)}.values())[::-1]

    def _changed(self, factor: str, parent: Architecture, rng: Generator) -> Architecture | None:
        """The parent with one factor changed and without its name. The result may not be a member."""
        if factor == "width":
            return mutate.change_width(parent, self.choices, rng)
        if factor == "meta_tokens":
            return mutate.change_meta_tokens(parent, self.choices, rng)
        if factor == "normalization":
            norm = pick(self.choices.norms, rng)
            return parent.model_copy(
                update={"name": "", "layers": tuple([normalized(layer, norm) for layer in parent.layers])}
            )
        if factor == "shape":
            return self._reshaped(parent, rng)
        genome = stages.change(factor, pick(self.genomes(parent), rng), self.alphabet, rng)
        layers = genome and self._layers(
            genome, parent.width, _shapes(parent), norm_of(parent.layers[0]), rng
        )
        return parent.model_copy(update={"name": "", "layers": layers}) if layers else None

    def _reshaped(self, parent: Architecture, rng: Generator) -> Architecture | None:
        """The parent with another value of one gene of one operator, in all of its layers."""
        shapes = _shapes(parent)
        name = pick(sorted(shapes), rng)
        here = self.choices.values(shapes[name], parent.width) or ()
        table = self.choices.layers[name, parent.width]
        others = [
            layer
            for values, layer in table.items()
            if sum(a != b for a, b in zip(values, here, strict=True)) == 1
        ]
        if not others:
            return None
        changed = normalized(pick(others, rng), norm_of(shapes[name]))
        layers = [changed if layer.operator == name else layer for layer in parent.layers]
        return parent.model_copy(update={"name": "", "layers": tuple(layers)})

    def _layers(
        self, genome: Genome, width: int, shapes: dict[str, Layer], norm: Norm, rng: Generator
    ) -> tuple[Layer, ...] | None:
        """The layers of a genome; None if they cannot be built at this width.

        shapes: operator -> layer. An operator that is not in it gets a random shape.
        norm: the normalization of layers with random shapes.
        """
        names = sequence(genome, self.alphabet)
        if names is None:
            return None
        for name in sorted(set(names) - set(shapes)):
            options = self.choices.at(name, width)
            if not options:
                return None
            shapes = {**shapes, name: normalized(pick(options, rng), norm)}
        return tuple([shapes[name] for name in names])

    def _settled(self, architecture: Architecture) -> Architecture | None:
        """An architecture in stages at the width that it shall have; None if it is not accepted there."""
        if self.in_time is None:
            return architecture if self._unfit(architecture) is None and self.accepts(architecture) else None
        for width in reversed(self.choices.widths):
            layers = self.choices.resized(architecture.layers, architecture.width, width)
            resized = architecture.model_copy(update={"width": width, "layers": layers}) if layers else None
            if resized and self._unfit(resized) is None and self.in_time(resized) and self.accepts(resized):
                return resized
        return None


def _shapes(architecture: Architecture) -> dict[str, Layer]:
    """Operator -> its first layer."""
    return {layer.operator: layer for layer in reversed(architecture.layers)}


def alphabet_of(settings: SpaceSettings) -> Alphabet:
    names = sorted(registry.name_of(token) for token in settings.operators)
    mixers, feedforwards = (
        tuple(name for name in names if registry.get(name).kind == kind) for kind in ("mixer", "feedforward")
    )
    return Alphabet(
        settings.stages or StageSettings(), mixers, next(iter(feedforwards), None), settings.max_depth
    )
