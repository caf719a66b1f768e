"""The figures of a model that sees, at one batch size and context: the way to the first token."""

from typing import Annotated

from pydantic import Field

from operators.base.value import Value
from profiler.energy import Energy
from profiler.timing import Timing

Pixels = Annotated[int, Field(ge=1, le=16_384)]
Picture = tuple[Pixels, Pixels]  # width and height
PICTURE: Picture = (640, 480)  # as of a small photograph


class VisionPoint(Value):
    """Times from pictures to the first token. Each timing is of the whole batch.

    batch: prompts read at once
    context: tokens of text in each prompt; image tokens come on top
    images: images in each prompt
    image_tokens: tokens of one image
    preprocess: resizing and normalizing all pictures, on the CPU
    tower: from normalized images to patches
    projector: from patches to image tokens
    first_token: from the pictures to the choice of the first token, all parts in a row
    first_image_ms: the same the first time, when nothing is warm (ms)
    flops: of tower, projector and prefill, by arithmetic
    energy: of the device on such ways, each of them one token of it; None where it was not measured
    """

    batch: int
    context: int
    images: int
    image_tokens: int
    preprocess: Timing
    tower: Timing
    projector: Timing
    first_token: Timing
    first_image_ms: float
    flops: int
    energy: Energy | None = None

    @property
    def device_s(self) -> float:
        parts = (self.preprocess, self.tower, self.projector, self.first_token)
        return sum(part.device_s for part in parts) + (self.energy.seconds if self.energy else 0.0)

    @property
    def images_per_s(self) -> float:
        return 1e3 * self.batch * self.images / (self.tower.median_ms + self.projector.median_ms)

    def timed(self) -> dict[str, Timing]:
        """The timing that each metric comes from."""
        return {
            "ttft_ms": self.first_token,
            "preprocess_ms": self.preprocess,
            "tower_ms": self.tower,
            "projector_ms": self.projector,
            "images_per_s": self.tower,
        }

    def metrics(self) -> dict[str, float]:
        """The figures by name, see METRICS."""
        times = {name: timing.median_ms for name, timing in self.timed().items()}
        energy = {"ttft_energy_j": self.energy.j_per_token} if self.energy else {}
        return {**times, "images_per_s": self.images_per_s, **energy}
