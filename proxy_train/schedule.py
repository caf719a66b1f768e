"""The learning rate over a run: its share of the peak at every step, and where the runs of several budgets part."""

import math
from dataclasses import dataclass
from typing import Literal

ScheduleKind = Literal["cosine", "wsd"]

FLOOR = 0.1  # the share of the learning rate that is left at the last step of a cosine
DECAY = 0.2  # the share of its steps over which a warm-up-stable-decay run decays


@dataclass(frozen=True)
class Schedule:
    """The rate of one run to one budget, in steps from 0.

    cosine: a line up to 1 over the warm-up, then a cosine down to FLOOR.
    wsd: the same line, 1 until the last DECAY of the steps, then a line towards 0 (Hu et al. 2024, arXiv 2404.06395). Up to there runs of
    all budgets with the same warm-up are one.
    """

    kind: ScheduleKind
    steps: int
    warmup: int

    @property
    def parting(self) -> int:
        """The first step whose rate depends on the budget."""
        return 0 if self.kind == "cosine" else max(self.warmup, self.steps - round(self.steps * DECAY))

    def share(self, step: int) -> float:
        """The share of the peak at `step`: above 0, at most 1."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "wsd":
            return 1.0 if step < self.parting else (self.steps - step) / (self.steps - self.parting)
        progress = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2
