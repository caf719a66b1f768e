"""The `fidelity` and `gates` sections of a run."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from operators.base.value import Value
from profiler.table.parts import Phase

TABLE_METRICS: dict[str, Phase] = {
    "decode_ms": "decode",
    "decode_tokens_per_s": "decode",
    "prefill_ms": "prefill",
}
"""What the latency table predicts, and of which phase."""


class GateSettings(Value):
    """The `gates:` section of a run.

    table: turn away who breaks a constraint on latency by more than the error of the device's latency table, before it is measured.
    audit: the share of those turned away, by each gate but arithmetic, that is let through to learn how often the gate is wrong.
    """

    table: bool = False
    audit: Annotated[float, Field(ge=0, le=1)] = 0.05


class FidelitySettings(Value):
    """How true to the target the training run is, and for whom it ends early; the `fidelity:` section of a run.

    width_scale: the width of the model that is trained, over that of the candidate. What is measured is always the candidate itself.
    rungs: numbers of tokens, below proxy.tokens, at which a candidate that learns worse than others is given up; where there are none all
    are trained to the end. The loss there is that of the smaller budget that is as large (`proxy.budgets`), or else the loss under way.
    eta: at a rung the best 1/eta go on, and everyone does while fewer than eta came to it.
    """

    width_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = ()
    eta: Annotated[int, Field(ge=2)] = 3

    @model_validator(mode="after")
    def _rungs_grow(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(
                f"rungs: expected numbers of tokens that grow, got {', '.join(map(str, self.rungs))}"
            )
        return self
