"""The `vision` section of a run: candidates see, and are trained to answer questions on images."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from operators.base.value import Value
from operators.vision.vision_language import FeedForwardKind, QKNorm
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.stage_settings import StageSettings

Size = Annotated[int, Field(ge=1)]
Positions = Literal["bias", "rope", "both"]


class VisionSpaceSettings(Value):
    """What a tower and a projector may be. Each key lists the values of one gene.

    image_sizes: pixels of a side; none is larger than that of the prepared images.
    patch_sizes: pixels of a side; pairs that do not divide are left out.
    widths, depths: of the tower.
    head_dims: of its attention; those that do not divide a width are left out there.
    ratios: inner width of its feed-forward network over the width.
    feedforwards, qk_norms: as in a tower.
    hybrid_norms: whether the number of first blocks with LayerNorm before is a gene; the others then have
        RMSNorm after. Otherwise all blocks have LayerNorm before.
    positions: `bias`, `rope`, or `both`.
    rope_theta: of towers that rotate. Small grids want a small one.
    pixel_shuffles: as in a projector.
    matrices: of the projector, 1 to 3; inner ones are as wide as the language model.
    max_image_tokens: most image tokens of a candidate.
    """

    image_sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = (32, 64)
    patch_sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = (4, 8, 16)
    widths: Annotated[tuple[Size, ...], Field(min_length=1)] = (32, 64, 96)
    depths: Annotated[tuple[Size, ...], Field(min_length=1)] = (1, 2, 3, 4)
    head_dims: Annotated[tuple[Size, ...], Field(min_length=1)] = (16, 32)
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (2.0, 3.0, 4.0)
    feedforwards: Annotated[tuple[FeedForwardKind, ...], Field(min_length=1)] = ("gelu", "swiglu")
    qk_norms: Annotated[tuple[QKNorm, ...], Field(min_length=1)] = ("none", "head")
    hybrid_norms: bool = True
    positions: Annotated[tuple[Positions, ...], Field(min_length=1)] = ("bias", "rope", "both")
    rope_theta: Annotated[float, Field(gt=0)] = 100.0
    pixel_shuffles: Annotated[tuple[Literal[1, 2, 4], ...], Field(min_length=1)] = (1, 2, 4)
    matrices: Annotated[tuple[Literal[1, 2, 3], ...], Field(min_length=1)] = (1, 2)
    max_image_tokens: Size = 64


class VisionSettings(Value):
    """The `vision` section of a run.

    images: what candidates see, and the questions on it.
    stages: how they are trained behind the first stage, which `proxy` is.
    space: what towers and projectors may be; `space` of the run says the same of decoders.
    """

    images: ImageSettings = ImageSettings()
    stages: StageSettings = StageSettings()
    space: VisionSpaceSettings = VisionSpaceSettings()

    def require_rungs(self, rungs: Sequence[int]) -> None:
        """Raises ValueError for rungs at which candidates cannot be compared; they count examples."""
        stages = self.stages
        first = stages.align_examples if stages.stages == "three" else 0
        last, step = stages.align_examples + stages.tune_examples, stages.batch_size
        if any(later - sooner < step for sooner, later in pairwise((first, *rungs, last))):
            raise ValueError(
                f"fidelity.rungs: expected examples that grow by at least a batch of {step} and stay between "
                f"{first} and {last}, behind the second stage and before the end; "
                f"got {', '.join(map(str, rungs))}"
            )

    @model_validator(mode="after")
    def _images_are_large_enough(self) -> Self:
        largest = max(self.space.image_sizes)
        if largest > self.images.image_size:
            raise ValueError(
                f"space.image_sizes: expected at most {self.images.image_size}, images.image_size, "
                f"got {largest}"
            )
        return self
