"""The `fidelity` and `gates` sections of a run."""

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from operators.base.value import Value

if TYPE_CHECKING:
    from profiler.table.parts import Phase

TABLE_METRICS: "dict[str, Phase]" = {
    "decode_ms": "decode",
    "decode_tokens_per_s": "decode",
    "prefill_ms": "prefill",
    "ttft_ms": "first_token",
}
"""The metrics that the latency table predicts, and the phase that it predicts each from."""


class GateSettings(Value):
    """What is rejected before it costs anything: the `gates` section of a run.

    table: reject candidates that the device's latency table predicts to break a constraint by more than its
        validated error.
    audit: share of the rejected candidates that are evaluated all the same, to learn how often a gate is
        wrong (0 to 1). It holds for each gate but exact arithmetic, which cannot be wrong.
    """

    table: bool = False
    audit: Annotated[float, Field(ge=0, le=1)] = 0.05


class FidelitySettings(Value):
    """How true the proxy training is, and when it ends early: the `fidelity` section of a run.

    width_scale: width of the trained model over that of the candidate. The measured model is always the
        candidate itself.
    rungs: numbers of tokens, below proxy.tokens, at which a candidate that learns worse than others is
        given up. Without rungs every training goes to its end. The loss at a rung is that of the equal
        budget in `proxy.budgets`, or else the loss under way.
    eta: the best 1/eta of the candidates go on at a rung. All do while fewer than eta have come to it.
    """

    width_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = ()
    eta: Annotated[int, Field(ge=2)] = 3

    @model_validator(mode="after")
    def _rungs_grow(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(
                f"rungs: expected increasing numbers of tokens, got {', '.join(map(str, self.rungs))}"
            )
        return self
