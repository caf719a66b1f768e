"""The learning rate over a run: its share of the peak at every step, and where budgets part."""

import math
from dataclasses import dataclass
from typing import Literal

ScheduleKind = Literal["cosine", "wsd"]

FLOOR = 0.1  # share of the peak that is left at the last step of a cosine: the usual choice
DECAY = 0.2  # share of a wsd run's steps in which its rate decays; larger budgets share the other steps


@dataclass(frozen=True)
class Schedule:
    """The rate of one run to one budget, in steps from 0.

    kind: `cosine`, a line up to 1 over the warm-up, then a cosine down to FLOOR; or `wsd`, the same line,
        then 1 until the last DECAY of the steps, then a line towards 0 (Hu et al. 2024, arXiv 2404.06395).
        Until they decay, wsd runs with the same warm-up are the same run.
    steps: of the whole budget.
    warmup: steps in which the rate rises.
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
