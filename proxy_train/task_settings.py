"""Which synthetic tasks a candidate is trained on, and its scores."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from operators.base.value import Value

TaskName = Literal["recall", "noisy_recall", "copy"]


class TaskSettings(Value):
    """Synthetic tasks that a candidate is trained on beside the text; the `tasks:` section of a run.

    names: the tasks; none by default.
    tokens: the budget of each task; the training takes as many whole batches of batch_size × sequence_length.
    batch_size: sequences in a step.
    sequence_length: tokens in a sequence.
    symbols: different keys of the recalls, and as many values; different symbols to copy.
    copied: tokens of a sequence that are to be copied.
    learning_rate: at its peak.
    scored_sequences: held-out sequences that the score is over.
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
                f"tokens: expected at least one batch of {batch} (batch_size × sequence_length), "
                f"got {self.tokens}"
            )
        # With more symbols hardly a key would occur twice; with more tokens to
        # copy their answers have no room.
        for name in ("symbols", "copied"):
            if 2 * getattr(self, name) > self.sequence_length:
                raise ValueError(
                    f"{name}: expected at most half of sequence_length {self.sequence_length}, "
                    f"got {getattr(self, name)}"
                )
        return self

    @property
    def steps(self) -> int:
        """How many whole batches the budget holds."""
        return self.tokens // (self.batch_size * self.sequence_length)


class TaskScore(Value):
    """How well an architecture learned one task.

    task: its name.
    accuracy: share of held-out answers that are right.
    chance: accuracy of a guess among all possible answers.
    loss: nats per held-out answer.
    tokens: trained on.
    seconds: wall time of training and scoring.
    backends: the backend of each operator.
    seed: of weights and sequences.
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
