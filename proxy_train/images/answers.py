"""The loss of a model's answers, and how many of them are exactly right."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.vision.model import VisionLanguageModel
from proxy_train.images.batches import ImageBatch, validation_batches
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.tasks import UNSCORED


@dataclass(frozen=True)
class AnswerScore:
    """Of held-out examples.

    loss: mean over the tokens of all answers, ends included (nats per token).
    accuracy: the share of answers that the model writes exactly.
    """

    loss: float
    accuracy: float


def answer_logits(model: VisionLanguageModel, batch: ImageBatch) -> tuple[Tensor, Tensor]:
    """Logits where an answer's token is to be predicted [N, vocabulary], and these tokens [N].

    The head is applied nowhere else.
    """
    device = model.language.embedding.weight.device
    hidden = model.hidden(batch.tokens.to(device), batch.images.to(device))
    targets = batch.targets.to(device)
    scored = targets != UNSCORED
    return model.language.logits(hidden[scored]).float(), targets[scored]


def answer_loss(model: VisionLanguageModel, batch: ImageBatch) -> Tensor:
    """Mean loss of the answers' tokens (nats per token), a scalar."""
    return F.cross_entropy(*answer_logits(model, batch))


@torch.no_grad()
def score_answers(
    model: VisionLanguageModel, corpus: ImageCorpus, *, batch_size: int, examples: int
) -> AnswerScore:
    """Scores held-out examples.

    An answer is written exactly if each of its tokens, and the end behind it, is the most likely one behind
    the ones before. Greedy decoding then writes it, and only then. So no token is generated.

    batch_size: examples at once.
    examples: how many, at most.

    Raises DataError where the model cannot read them.
    """
    nats = tokens = right = answers = 0.0
    for batch in validation_batches(corpus, model.value, batch_size=batch_size, examples=examples):
        logits, targets = answer_logits(model, batch)
        nats += float(F.cross_entropy(logits, targets, reduction="sum"))
        tokens += len(targets)
        wrong = logits.argmax(-1) != targets
        rows = (batch.targets != UNSCORED).nonzero()[:, 0].to(wrong.device)
        misses = torch.zeros(len(batch.targets), device=wrong.device).index_add_(0, rows, wrong.float())
        right += int((misses == 0).sum())
        answers += len(batch.targets)
    return AnswerScore(nats / tokens, right / answers)
