"""Batches of images with questions: what stands where, what is scored, and what cannot be read."""

import numpy as np
import pytest
import torch

from operators import VisionLanguage, VisionLanguageModel
from operators.base.errors import DataError
from operators.vision.preprocess import normalized
from proxy_train.images.answers import answer_logits
from proxy_train.images.batches import train_batches, validation_batches
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.prepare import prepare_images
from proxy_train.tasks import UNSCORED
from tests.helpers.image_sources import colours, tokenizer_file
from tests.helpers.vision_models import vision_language

pytest.importorskip("PIL")

PLACEHOLDER = 301


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> ImageCorpus:
    folder = tmp_path_factory.mktemp("images")
    settings = ImageSettings(source=str(colours(folder / "data")), image_size=16, validation_fraction=0.25)
    return prepare_images(settings, tokenizer_file(folder), cache=folder / "cache")


def value_of(**changes: object) -> VisionLanguage:
    return vision_language(**{"language": {"vocabulary": 302}, "image_token": PLACEHOLDER, **changes})


def test_placeholders_question_answer_and_what_is_scored(corpus: ImageCorpus) -> None:
    value = value_of()
    (batch,) = validation_batches(corpus, value, batch_size=8, examples=100)
    assert batch.images.shape == (3, 3, 16, 16)
    held, end = corpus.examples("validation"), corpus.manifest.end
    order = np.random.default_rng(0).permutation(3)
    for row, number in enumerate(order.tolist()):
        question, answer = (part.tolist() for part in held.tokens(number))
        written = [PLACEHOLDER] * 4 + question + answer
        tokens, places, targets = (each[row].tolist() for each in (batch.tokens, batch.places, batch.targets))
        assert tokens[: len(written)] == written
        assert set(tokens[len(written) :]) <= {end}
        assert [target for target in targets if target != UNSCORED] == answer
        # Each target is the token after its place.
        assert [written[place + 1] for place in places[: len(answer)]] == targets[: len(answer)]
        assert batch.prompts[row] == 4 + len(question)
    model = VisionLanguageModel(value)
    with torch.no_grad():
        whole = model(batch.tokens, batch.images)
        assert whole.shape[:2] == batch.tokens.shape
        behind = model.language.logits(
            model.language.hidden(batch.tokens, model.embedded_behind(batch.images, batch.tokens))
        )
        assert torch.equal(behind, whole)
        logits = answer_logits(model, batch.images, batch.tokens, batch.places)
        torch.testing.assert_close(logits[1, 0], whole[1, batch.prompts[1] - 1])


def test_an_epoch_has_every_example_once_and_the_seed_fixes_the_order(corpus: ImageCorpus) -> None:
    def images(seed: int) -> list[torch.Tensor]:
        return [b.images for b in train_batches(corpus, value_of(), batch_size=3, steps=3, seed=seed)]

    first = torch.cat(images(1))
    assert len({image.numpy().tobytes() for image in first}) == corpus.manifest.train_examples == 9
    assert torch.equal(first, torch.cat(images(1)))
    assert not torch.equal(first, torch.cat(images(2)))


def test_pixels_are_from_minus_one_to_one_and_resized_for_a_smaller_tower() -> None:
    pixels = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 255, 51
    for size in (8, 4):
        images = normalized(pixels, size)
        assert images.shape == (1, 3, size, size)
        torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([1.0, -0.6, -1.0]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_size": 32}, "tower.image_size 32: expected at most 16, as the images are prepared"),
        ({"language": {"vocabulary": 50}, "image_token": 49}, "language.vocabulary 50: expected more than"),
        ({"image_token": ord("a")}, "image_token 97: expected an id that no question or answer has"),
    ],
)
def test_a_model_that_cannot_read_them_is_refused(
    corpus: ImageCorpus, changes: dict[str, object], says: str
) -> None:
    if "image_token" in changes and "language" not in changes:
        changes = {"image_token": int(corpus.examples("train").ids[0])}
        says = says.replace("97", str(changes["image_token"]))
    for batches in (
        train_batches(corpus, value_of(**changes), batch_size=1, steps=1, seed=0),
        validation_batches(corpus, value_of(**changes), batch_size=1, examples=1),
    ):
        with pytest.raises(DataError) as caught:
            next(batches)
        assert says in str(caught.value)
