"""How a candidate is trained, and the score that comes of it."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from operators.base.value import Value
from proxy_train.schedule import Schedule, ScheduleKind


class ProxySettings(Value):
    """How each candidate is trained; the `proxy:` section of a run.

    tokens: the budget; the training takes as many whole batches of batch_size × sequence_length as it holds.
    batch_size: sequences in a step.
    micro_batch_size: sequences in one pass; the gradients of several passes add up to a step's. It has to
        divide batch_size. null: the whole batch, or fewer where the device's memory does not hold it.
    sequence_length: tokens in a sequence.
    learning_rate: at its peak; `optim.parameter_groups` says what it means for which weights.
    base_width: the width that learning_rate was chosen for; at another width the rate is scaled.
        null: the rate is the same at every width.
    warmup_fraction: the share of the smallest budget's steps in which the rate rises to its peak.
    schedule: `cosine`, or `wsd` (warm-up, stable, decay).
    budgets: smaller budgets (tokens) that are scored too. Each score is that of a run of its own, whose rate
        has decayed by then. The runs share their stable part, so `schedule` has to be `wsd`.
    weight_decay: of matrices.
    gradient_clip: the largest norm of a gradient.
    weight_normalization: matrices keep unit rows or columns, and nothing decays (`optim.normalize_matrices`).
        It needs an architecture with normalized_head.
    validation_tokens: tokens scored at the end, at most.
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
                f"micro_batch_size: expected a divisor of batch_size {self.batch_size}, "
                f"got {self.micro_batch_size}"
            )
        steps = [*(budget // batch for budget in self.budgets), self.steps]
        if any(later <= sooner for sooner, later in pairwise(steps)):
            raise ValueError(
                f"budgets: expected tokens that grow by at least a batch of {batch}, below {self.tokens}, "
                f"got {self.budgets}"
            )
        if self.budgets and self.schedule != "wsd":
            raise ValueError(
                f"budgets: expected schedule wsd, where trainings share a part, got {self.schedule}"
            )
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
        """One schedule for each budget, the whole budget last; all have the same warm-up."""
        steps = [*(budget // self.batch_tokens for budget in self.budgets), self.steps]
        warmup = round(steps[0] * self.warmup_fraction)
        return tuple(Schedule(self.schedule, count, warmup) for count in steps)


class BudgetScore(Value):
    """What a run to a smaller budget would have scored.

    tokens: that budget.
    loss, bits_per_byte: as in `ProxyScore`.
    """

    tokens: int
    loss: float
    bits_per_byte: float


class ProxyScore(Value):
    """How well an architecture learned.

    loss: on the validation text (nats per token).
    perplexity: the exponential of loss.
    bits_per_byte: the loss as bits for each byte of text.
    unigram_loss: the loss of a model that knows only how often tokens occur, on the
        same tokens (nats per token).
    tokens: trained on.
    steps: trained.
    seconds: wall time of the training steps, without building and scoring the model.
    startup_s: the part of `seconds` that the first steps took. On a GPU they compile and tune kernels and
        capture a CUDA graph; on a CPU it is 0.
    tokens_per_s: speed of training after the startup.
    flops_per_s: the same speed in FLOPs of the model (`operators.cost.training_flops`).
    curve: points (tokens trained, mean training loss since the point before).
    budgets: a score for each of `ProxySettings.budgets`.
    backends: the backend of each operator.
    dtype: of weights and activations.
    execution: how steps ran, see `step.Step`.
    micro_batch_size: sequences in one pass.
    recomputed: whether the backward pass computed layers again, to save memory.
    device: as torch writes it, such as `cpu` or `cuda:0`.
    seed: of weights and batches.
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
