"""The parts of a model that sees, up to its first token, in a latency table.

They are the two halves of a tower's block, the ends of the tower, the projector, and the pictures. What the
decoder needs to read a prompt is predicted as of every language model.
"""

from collections import Counter
from collections.abc import Iterator

from operators.architecture import NormKind
from operators.base.value import Value
from operators.vision.vision_language import BlockNorm, FeedForwardKind, Projector, QKNorm, VisionLanguage
from profiler.vision_point import PICTURE, Picture


class PatchAttention(Value):
    """Attention of a block, with its normalization and residual connection."""

    heads: int
    qk_norm: QKNorm
    bias: bool
    norm: BlockNorm


class PatchNetwork(Value):
    """The feed-forward network of a block, with its normalization and residual connection."""

    hidden: int
    feedforward: FeedForwardKind
    bias: bool
    norm: BlockNorm


class TowerEnds(Value):
    """What a tower has besides blocks: patches and their embedding, positions, the last normalization.

    positions: learned position vectors along a side; 0 for none
    """

    patch_size: int
    positions: int
    final_norm: NormKind


class PatchProjector(Value):
    """The whole projector.

    language_width: width of the language model
    """

    projector: Projector
    language_width: int


class Pictures(Value):
    """Resizing and normalizing decoded pictures on the CPU, and their way to the device.

    size: pixels of a side of the result
    picture: width and height of the pictures
    """

    size: int
    picture: Picture = PICTURE


ImagePart = PatchAttention | PatchNetwork | TowerEnds | PatchProjector | Pictures
NAMES = {
    PatchAttention: "patch attention",
    PatchNetwork: "patch network",
    TowerEnds: "tower ends",
    PatchProjector: "projector",
    Pictures: "pictures",
}


def details(what: ImagePart) -> str:
    """The part in short: what is neither off nor the default, as in `heads=4 qk_norm=head`."""
    if isinstance(what, PatchProjector):
        return f"{details_of(what.projector)} to {what.language_width}"
    return details_of(what)


def details_of(value: Value) -> str:
    shown = {name: field for name, field in value if field not in (None, False, "none", ())}
    norm = shown.pop("norm", None)
    normalized = (norm.norm, norm.norm_position) if isinstance(norm, BlockNorm) else ()
    return " ".join([*(f"{name}={field}" for name, field in shown.items()), *normalized])


def image_parts(value: VisionLanguage, picture: Picture) -> Iterator[tuple[ImagePart, bool, int]]:
    """The parts before the language model, each kind once. Pictures have that width and height.

    Each comes with whether the model's rotary positions change it, and how often the model has it.
    """
    tower = value.tower
    yield Pictures(size=tower.image_size, picture=picture), False, 1
    yield (
        TowerEnds(patch_size=tower.patch_size, positions=tower.positions, final_norm=tower.final_norm),
        False,
        1,
    )
    for norm, count in Counter(tower.norms).items():
        attention = PatchAttention(heads=tower.heads, qk_norm=tower.qk_norm, bias=tower.bias, norm=norm)
        yield attention, tower.rope_theta is not None, count
        network = PatchNetwork(hidden=tower.hidden, feedforward=tower.feedforward, bias=tower.bias, norm=norm)
        yield network, False, count
    yield PatchProjector(projector=value.projector, language_width=value.language.width), False, 1
