"""How a model that sees is trained in stages, and the score that comes of it."""

from typing import Annotated, Literal

from pydantic import Field

from operators.base.value import Value

Rate = Annotated[float, Field(gt=0)]


class StageSettings(Value):
    """The training of a model that sees, behind that of its decoder on text.

    Budgets are in examples, not in tokens: all models see the same questions, with few image tokens or many.

    stages: `three` is the order of Shakti-VLM (arXiv 2502.17092): the decoder alone on text; tower and
        projector with the decoder frozen; everything. `one` trains everything at once on the same examples
        and as much text, from random weights.
    align_examples: examples of the second stage.
    tune_examples: examples of the third stage.
    text_share: share of the third stage's steps that read text, so that it is not forgotten.
    batch_size: examples in a step.
    tower_rate, projector_rate, language_rate: learning rates at their peaks.
    warmup_fraction: the share of a stage's steps in which rates rise.
    weight_decay: of matrices.
    gradient_clip: the largest norm of a gradient.
    validation_examples: held-out examples that are scored, at most.
    """

    stages: Literal["three", "one"] = "three"
    align_examples: Annotated[int, Field(ge=1)] = 4_000
    tune_examples: Annotated[int, Field(ge=1)] = 12_000
    text_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    batch_size: Annotated[int, Field(ge=1)] = 32
    tower_rate: Rate = 1e-3
    projector_rate: Rate = 2e-3
    language_rate: Rate = 1e-3
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    validation_examples: Annotated[int, Field(ge=1)] = 1_000


class StageCurve(Value):
    """The training loss of one stage.

    name: `align`, `tune` or `one`.
    points: (examples read, mean loss of the answers' tokens since the point before).
    """

    name: Literal["align", "tune", "one"]
    points: tuple[tuple[int, float], ...]


class VisionScore(Value):
    """How well a model learned to answer.

    answer_loss: of the tokens of held-out answers (nats per token).
    answer_accuracy: the share of held-out answers that the model writes exactly, greedily.
    most_frequent_accuracy: the same of a model that always gives the most frequent answer of the training.
    text_loss: on the validation text, at the end (nats per token).
    text_loss_before: the same behind the first stage; None in one stage.
    aligned_loss: answer_loss behind the second stage; None in one stage.
    examples: trained on.
    text_tokens: trained on, in all stages.
    seconds: wall time of all steps but those of the first of three stages.
    curves: of each stage with images.
    warnings: signs of a failed stage, in words; empty where there is none.
    seed: of weights and batches.
    """

    answer_loss: float
    answer_accuracy: float
    most_frequent_accuracy: float
    text_loss: float
    text_loss_before: float | None = None
    aligned_loss: float | None = None
    examples: int
    text_tokens: int
    seconds: float
    curves: tuple[StageCurve, ...]
    warnings: tuple[str, ...] = ()
    seed: int

    def metrics(self) -> dict[str, float]:
        """The figures that can be compared."""
        return {
            "answer_loss": self.answer_loss,
            "answer_accuracy": self.answer_accuracy,
            "text_loss": self.text_loss,
        }
