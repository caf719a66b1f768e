"""How a candidate is trained, and the score that comes of it."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from operators.base.value import Value
from proxy_train.schedule import Schedule, ScheduleKind


class ProxySettings(Value):
    """How each candidate is trained; the `proxy:` section of a run.

    tokens: the budget; as many whole batches of batch_size × sequence_length are trained as it holds.
    micro_batch_size: rows that are read at once, whose gradients are added up to a batch; null is the whole batch, and fewer where the
    device's memory does not hold them.
    learning_rate: at its peak (what it means for which weights: `optim.parameter_groups`). base_width: the width that it was chosen for,
    from which it is carried over to others; null uses it as it is everywhere. warmup_fraction: of the steps of the smallest budget.
    schedule: `cosine`, or `wsd` (warm-up, stable, decay). budgets: smaller numbers of tokens that are scored too, each as a run of its own
    whose rate has decayed by then; these runs share their stable part, so `schedule` has to be `wsd`.
    weight_decay: of matrices. gradient_clip: the largest norm of a gradient.
    weight_normalization: matrices keep unit rows or columns, and nothing decays (`optim.normalize_matrices`); takes architectures with
    normalized_head alone.
    validation_tokens: how many are scored at the end, at most.
    """

    tokens: Annotated[int, Field(ge=1)] = 150_000
    batch_size: Annotated[int, Field(ge=1)] = 2
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    sequence_length: Annotated[int, Field(ge=2)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    base_width: Annotated[int, Field(ge=1)] | None = None
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    schedule: ScheduleKind = "cosine"
    budgets: tuple[Annotated[int, Field(ge=1)], ...] = ()
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    weight_normalization: bool = False
    validation_tokens: Annotated[int, Field(ge=1)] = 32_768

    @model_validator(mode="after")
    def _batches_and_budgets_fit(self) -> Self:
        batch, least = self.batch_tokens, min((self.tokens, *self.budgets))
        if least < batch:
            raise ValueError(
                f"tokens: expected at least one batch of {batch} (batch_size × sequence_length), got {least}"
            )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: expected a divisor of batch_size {self.batch_size}, got {self.micro_batch_size}"
            )
        steps = [*(budget // batch for budget in self.budgets), self.steps]
        if any(later <= sooner for sooner, later in pairwise(steps)):
            raise ValueError(
                f"budgets: expected them to grow by a batch of {batch} at least and to stay below tokens, got {self.budgets}"
            )
        if self.budgets and self.schedule != "wsd":
            raise ValueError("budgets: expected schedule wsd, as runs by a cosine have no part in common")
        return self

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch_size * self.sequence_length

    @property
    def steps(self) -> int:
        """How many whole batches the budget holds."""
        return self.tokens // self.batch_tokens

    def schedules(self) -> tuple[Schedule, ...]:
        """One for each budget, the whole one last; all warm up alike."""
        steps = [*(budget // self.batch_tokens for budget in self.budgets), self.steps]
        warmup = round(steps[0] * self.warmup_fraction)
        return tuple(Schedule(self.schedule, count, warmup) for count in steps)


class BudgetScore(Value):
    """What a run to a smaller budget of `tokens` would have scored: see `ProxyScore`."""

    tokens: int
    loss: float
    bits_per_byte: float


class ProxyScore(Value):
    """How well an architecture learned.

    loss: nats per token on the validation text; perplexity: its exponential; bits_per_byte: the same information for each byte of text.
    unigram_loss: what knowing only the tokens' frequencies would lose, in nats per token, on the same tokens as `loss`.
    tokens, steps: trained. seconds: wall time of the training steps, without building and scoring the model; startup_s: how much of it the
    first steps took, in which kernels are compiled and tuned and a CUDA graph is captured, on a CPU nothing.
    tokens_per_s: over the time after that. flops_per_s: the same in FLOPs of the model (`flops.training_flops`).
    curve: (tokens trained, mean training loss since the point before). budgets: one for each of the settings' own.
    backends: operator -> backend. dtype: of weights and activations. execution: see `step.Step`.
    micro_batch_size, recomputed: how the memory was made to suffice (`recomputed`: layers are computed again in the backward pass).
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    unigram_loss: float
    tokens: int
    steps: int
    seconds: float
    startup_s: float = 0.0
    tokens_per_s: float
    flops_per_s: float = 0.0
    curve: tuple[tuple[int, float], ...]
    budgets: tuple[BudgetScore, ...] = ()
    backends: dict[str, str]
    dtype: str = "float32"
    execution: str = "eager"
    micro_batch_size: int | None = None
    recomputed: bool = False
    device: str
    seed: int

    def metrics(self) -> dict[str, float]:
        """The figures that can be objectives."""
        return {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
