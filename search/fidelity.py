"""What a candidate's proxy is: the target itself, or something cheaper that stands for it."""

from typing import Annotated

from pydantic import Field

from operators import Architecture
from operators.value import Value

WIDTH_STEP = 16  # widths of proxies are whole multiples of this, as the matrix units of GPUs want them


class FidelitySettings(Value):
    """How true to the target the training run is; the `fidelity:` section of a run.

    width_scale: the width of the model that is trained, over that of the candidate. What is measured is always the candidate itself.
    """

    width_scale: Annotated[float, Field(gt=0, le=1)] = 1.0


def proxy_of(target: Architecture, settings: FidelitySettings) -> Architecture:
    """The architecture that is trained in place of the target: the same layers with the same genes, at the scaled width.

    The width is the multiple of 16 nearest to the scaled one, at least 16 and never above the target's; at scale 1 it is the target's.
    Heads keep their size and become fewer, at least one group, so that an operator may be a larger part of a narrow model.
    """
    if settings.width_scale == 1:
        return target
    width = WIDTH_STEP * max(1, round(settings.width_scale * target.width / WIDTH_STEP))
    return target if width >= target.width else target.resized(width)
