"""The loss of a model's answers, and how many of them are exactly right."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.vision.model import VisionLanguageModel
from proxy_train.images.batches import validation_batches
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


def answer_logits(model: VisionLanguageModel, images: Tensor, tokens: Tensor, places: Tensor) -> Tensor:
    """Logits where an answer's token is to be predicted: [B, A, vocabulary], float32.

    The head is applied nowhere else.

    images, tokens, places: of an `ImageBatch`, on the device of the model.
    """
    weight = model.language.embedding.weight
    embedded = model.embedded_behind(images.to(weight.dtype), tokens)
    hidden = model.language.hidden(tokens, embedded)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return model.language.logits(hidden[rows, places]).float()


def answer_loss(
    model: VisionLanguageModel, images: Tensor, tokens: Tensor, places: Tensor, targets: Tensor
) -> Tensor:
    """Mean loss of the answers' tokens (nats per token), a scalar; see `answer_logits`."""
    logits = answer_logits(model, images, tokens, places)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=UNSCORED)


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
    device = model.language.embedding.weight.device
    nats = tokens = right = answers = 0.0
    for batch in validation_batches(
        corpus, model.value, batch_size=batch_size, examples=examples, device=device
    ):
        ids, places, targets = (each.to(device) for each in (batch.tokens, batch.places, batch.targets))
        logits = answer_logits(model, batch.images, ids, places)
        flat = logits.flatten(0, 1), targets.flatten()
        nats += float(F.cross_entropy(*flat, ignore_index=UNSCORED, reduction="sum"))
        scored = targets != UNSCORED
        tokens += int(scored.sum())
        right += int(((logits.argmax(-1) == targets) | ~scored).all(1).sum())
        answers += len(targets)
    return AnswerScore(nats / tokens, right / answers)
