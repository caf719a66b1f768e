"""The parts of a model in a latency table: kinds of layers, and the rest, at one phase, batch and context."""

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base.value import Value
from operators.shape import Shape
from operators.vision.vision_language import Model, VisionLanguage
from profiler.table.image_parts import NAMES, ImagePart, Pictures, details, image_parts
from profiler.vision_point import PICTURE, Picture

Phase = Literal["decode", "prefill", "first_token"]


class Point(NamedTuple):
    """The circumstances under which a model is timed.

    phase: `decode`, `prefill`, or `first_token`: from pictures and a prompt to the first token
    batch: rows at once
    context: tokens of text a row, without meta tokens
    images: images a row, which a model that sees reads before the text; 0 for language models
    picture: width and height of the pictures that these images are made from
    """

    phase: Phase
    batch: int
    context: int
    images: int = 0
    picture: Picture = PICTURE


class Rest(Value):
    """What a model has besides layers: embedding, final normalization, head, and the next token's choice."""

    vocabulary: int
    tied_embeddings: bool
    normalized_head: bool = False


class Part(Value):
    """A piece of a model at one point.

    phase: `decode` or `prefill`; `first_token` for what a model that sees has before its language model
    batch: rows at once; images at once before the language model
    context: the tokens a row that its cost depends on, meta tokens included; 1 where it depends on none.
        Patches of an image before the language model; 1 for the pictures
    width: of the model; of the tower before the language model; 0 for the pictures
    rope: whether the model has rotary positions, which change the kernels of attention; false for the rest of
        a model
    what: the kind of layer, or the rest of the model, or a part before the language model
    """

    phase: Phase
    batch: int
    context: int
    width: int
    rope: bool
    what: Layer | Rest | ImagePart

    @property
    def name(self) -> str:
        if isinstance(self.what, Layer):
            return self.what.operator
        return "rest" if isinstance(self.what, Rest) else NAMES[type(self.what)]

    @property
    def details(self) -> str:
        """The part in short: what is neither off nor the default, as in `heads=8 kv_heads=4 head_dim=64`."""
        if isinstance(self.what, Rest):
            head = "normalized" if self.what.normalized_head else ""
            tied = "tied" if self.what.tied_embeddings else "untied"
            return f"vocabulary={self.what.vocabulary} {tied} {head}".strip()
        if not isinstance(self.what, Layer):
            return details(self.what) + (" rope" if self.rope else "")
        shown = [
            f"{name}={value}"
            for name, value in self.what.shape.model_dump().items()
            if value not in (None, False, "none")
        ]
        norm = (self.what.norm, self.what.norm_position)
        return " ".join(
            [*shown, *(norm if norm != ("rmsnorm", "before") else ()), *(() if self.rope else ("no rope",))]
        )

    def __str__(self) -> str:
        where = f"{self.phase}, batch {self.batch}, context {self.context}"
        return f"{self.name} ({self.details}) at width {self.width}, {where}"


class Entry(Part):
    """The measured cost of a part.

    ms: the median of the rounds (ms)
    error_ms: its standard error (ms)
    rounds: how many pairs of samples were taken
    """

    ms: float
    error_ms: float
    rounds: int


def parts_of(model: Model, point: Point) -> Iterator[Part]:
    """The parts of a model, each kind once."""
    if isinstance(model, VisionLanguage):
        yield from (part for part, _ in image_parts_of(model, point))
        yield from parts_of(model.language, language_point(model, point))
    else:
        yield from _parts_of_language(model, point)


def language_point(value: VisionLanguage, point: Point) -> Point:
    """The same point for the language model behind the images, whose tokens it reads as its own."""
    phase: Phase = "prefill" if point.phase == "first_token" else point.phase
    return Point(phase, point.batch, point.context + point.images * value.image_tokens)


def image_parts_of(value: VisionLanguage, point: Point) -> Iterator[tuple[Part, int]]:
    """The parts before the language model that the point's phase needs, and how often the model has each."""
    if point.phase != "first_token":
        return
    images, patches, width = point.batch * point.images, value.tower.grid**2, value.tower.width
    for what, rope, count in image_parts(value, point.picture):
        context, of = (1, 0) if isinstance(what, Pictures) else (patches, width)
        yield Part(phase=point.phase, batch=images, context=context, width=of, rope=rope, what=what), count


def _parts_of_language(architecture: Architecture, point: Point) -> Iterator[Part]:
    phase, batch, tokens = point.phase, point.batch, point.context + architecture.meta_tokens
    width, rope = architecture.width, architecture.rope is not None
    for layer in {layer_key(layer, width, rope): layer for layer in architecture.layers}.values():
        context = tokens if phase == "prefill" else _reach(layer.operator, layer.shape, tokens)
        yield Part(phase=phase, batch=batch, context=context, width=width, rope=rope, what=layer)
    rest = rest_of(architecture)
    yield Part(
        phase=phase,
        batch=batch,
        context=tokens if phase == "prefill" else 1,
        width=width,
        rope=False,
        what=rest,
    )


def rest_of(architecture: Architecture) -> Rest:
    return Rest(
        vocabulary=architecture.vocabulary,
        tied_embeddings=architecture.tied_embeddings,
        normalized_head=architecture.normalized_head,
    )


@cache
def _reach(operator: str, shape: Shape, tokens: int) -> int:
    """The fewest tokens that fill an operator's state as much as `tokens` do.

    It is 1 for recurrent state, the length for a window, and all tokens for full attention.
    """

    def state(length: int) -> Any:
        return registry.get(operator).state(shape, 1, length, torch.float32)

    full = state(tokens)
    return 1 + bisect_left(range(1, tokens + 1), True, key=lambda length: state(length) == full)


def depends_on_context(part: Part) -> bool:
    """Whether one token more or less changes the cost of a decode step, so that entries lie on a line."""
    if part.phase != "decode" or part.context == 1 or not isinstance(part.what, Layer):
        return False
    return _reach(part.what.operator, part.what.shape, part.context + 1) > part.context


def layer_key(layer: Layer, width: int, rope: bool) -> Hashable:
    # Plain fields are used because hashing a pydantic value takes longer than all the rest of a prediction.
    return (width, rope, layer.operator, layer.norm, layer.norm_position, *layer.shape.__dict__.values())


def part_key(part: Part) -> Hashable:
    if isinstance(part.what, Rest):
        return part.width, *part.what.__dict__.values()
    if isinstance(part.what, Layer):
        return layer_key(part.what, part.width, part.rope)
    return part.width, part.rope, part.what


def place(part: Part) -> Hashable:
    """What entries on one line have in common."""
    return part.phase, part.batch, part_key(part)
