"""Which synthetic tasks a candidate is trained on, and its scores."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from operators.base.value import Value

TaskName = Literal["recall", "noisy_recall", "copy"]


class TaskSettings(Value):
    """Which synthetic tasks a candidate is trained on beside the text, and how; the `tasks:` section of a run.

    names: none by default. tokens: the budget of each task, in whole batches of batch_size × sequence_length.
    symbols: keys, and as many values, of the recalls; symbols that are copied. copied: how many tokens of a sequence are copied.
    learning_rate: at its peak. scored_sequences: held out.
    """

    names: tuple[TaskName, ...] = ()
    tokens: Annotated[int, Field(ge=1)] = 800_000
    batch_size: Annotated[int, Field(ge=1)] = 16
    sequence_length: Annotated[int, Field(ge=4)] = 32
    symbols: Annotated[int, Field(ge=2)] = 8
    copied: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    scored_sequences: Annotated[int, Field(ge=64)] = 256

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names: expected each task once, got {', '.join(self.names)}")
        if self.steps < 1:
            batch = self.batch_size * self.sequence_length
            raise ValueError(
                f"tokens: expected at least one batch of {batch} (batch_size × sequence_length), got {self.tokens}"
            )
        for name in ("symbols", "copied"):  # with more symbols hardly a key would occur twice
            if 2 * getattr(self, name) > self.sequence_length:
                raise ValueError(
                    f"{name}: expected at most half of sequence_length {self.sequence_length}, got {getattr(self, name)}"
                )
        return self

    @property
    def steps(self) -> int:
        """How many whole batches the budget holds."""
        return self.tokens // (self.batch_size * self.sequence_length)


class TaskScore(Value):
    """accuracy: the share of held-out answers that are right. chance: of a guess among all possible answers.

    loss: nats per held-out answer. tokens: trained. seconds: wall time of training and scoring.
    """

    task: TaskName
    accuracy: float
    chance: float
    loss: float
    tokens: int
    seconds: float
    backends: dict[str, str]
    seed: int


def metrics(scores: tuple[TaskScore, ...]) -> dict[str, float]:
    """The figures that can be objectives."""
    return {f"{score.task}_accuracy": score.accuracy for score in scores}
