"""What a candidate that sees answers on images that its training did not have."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from operators.base.errors import RunError
from operators.vision.model import VisionLanguageModel
from operators.vision.preprocess import normalized
from operators.vision.vision_language import VisionLanguage
from proxy_train.images.prepare import prepare_images
from proxy_train.text.corpus import TOKENIZER
from proxy_train.text.prepare import prepare
from proxy_train.text.tokenizer import load_tokenizer
from search.runs.export import load_weights, why_without_weights
from search.runs.sources import candidate_named

MOST_TOKENS = 32  # of a written answer, beside those of the right one


@dataclass(frozen=True)
class Answered:
    """A held-out question, and what the model wrote.

    image: [size, size, 3] uint8, as it was prepared.
    question: empty for an image with a text instead.
    right: the answer of the data.
    written: the model's, greedily.
    exact: whether its tokens are those of the right one, end included.
    """

    image: np.ndarray
    question: str
    right: str
    written: str
    exact: bool


@torch.no_grad()
def answers(
    run: str, number: int | None, count: int, *, results: Path, device: str = "cpu"
) -> list[Answered]:
    """The answers of a candidate on the first held-out examples, those that its score begins with.

    run: a run's name or folder, or RUN:ID.
    number: of the candidate, where `run` is a run.
    count: how many, at most.

    Raises RunError for a candidate that does not see or has no weights, and DataError.
    """
    folder, ledger, entry = candidate_named(run, number, results)
    value, config = entry.architecture, ledger.config
    if not isinstance(value, VisionLanguage) or config.vision is None:
        raise RunError(f"candidate {entry.number} of run {folder.name}: expected a model that sees")
    if lacking := why_without_weights(folder, ledger, entry):
        raise RunError(f"candidate {entry.number} of run {folder.name} {lacking}")
    weights = folder.weights(entry.number)
    model = VisionLanguageModel(value, device=device)
    model.load_state_dict(load_weights(weights, value, where=weights, device=device))
    model.eval()
    end = config.data.end_of_document
    images = prepare_images(
        config.vision.images, prepare(config.data).folder / TOKENIZER, end_of_document=end
    )
    tokenizer, held = load_tokenizer(folder.tokenizer, end), images.examples("validation")
    chosen = np.random.default_rng(0).permutation(len(held))[:count]
    pixels = images.pixels(held.rows[chosen, 0])
    answered = []
    for image, place in zip(pixels, chosen.tolist(), strict=True):
        question, right = held.tokens(place)
        prompt = [value.image_token] * value.image_tokens + question.tolist()
        seen: Tensor = normalized(image[None], value.tower.image_size).to(device)
        whole = model.generate(prompt, len(right) + MOST_TOKENS, images=seen, stop=images.manifest.end)
        written = whole[len(prompt) :]
        without_end = (
            [token for token in ids if token != images.manifest.end]
            for ids in (question.tolist(), right.tolist(), written)
        )
        asked, wanted, said = (tokenizer.decode(ids).strip() for ids in without_end)
        answered.append(Answered(image, asked, wanted, said, exact=written == right.tolist()))
    return answered
