"""Models that see: placeholders, several images, text alone, decoding, and what does not fit together."""

from typing import Any

import pytest
import torch
from torch import Tensor

from operators import VisionLanguageModel
from operators.base.errors import DataError
from operators.vision.projector import shuffled
from tests.helpers.vision_models import PLACEHOLDER, drawn, vision_language

ONE = [PLACEHOLDER] * 4  # an image of 4 tokens


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    torch.manual_seed(0)
    built = VisionLanguageModel(vision_language(rope_theta=100, qk_norm="head")).eval()
    drawn(built.tower)
    return built


def images(count: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_image_tokens_stand_in_the_places_of_placeholders_in_order(model: VisionLanguageModel) -> None:
    first, second = model.image_tokens(images(2))
    tokens = torch.tensor([[1, *ONE, 2, *ONE, 3]])
    embedded = model.embedded(tokens, images(2))
    assert torch.equal(embedded[0, 1:5], first)
    assert torch.equal(embedded[0, 6:10], second)
    assert not torch.allclose(first, second, atol=1e-3)
    rest = torch.tensor([0, 5, 10])
    assert torch.equal(embedded[0, rest], model.language.embedding(tokens[0, rest]))


@torch.no_grad()
def test_rows_of_a_batch_take_their_own_images(model: VisionLanguageModel) -> None:
    rows = torch.tensor([[1, *ONE, *ONE], [1, *ONE, 2, 3, 4, 6], [1, 2, 3, 4, 6, 7, 8, 9, 10]])
    both = model(rows, images(3))
    for row, own in enumerate((images(3)[:2], images(3)[2:], ())):
        torch.testing.assert_close(both[row : row + 1], model(rows[row : row + 1], own), rtol=0, atol=1e-5)
    assert torch.equal(model(rows[2:]), model.language(rows[2:]))


@torch.no_grad()
def test_images_of_several_sizes_are_those_that_are_computed_alone(model: VisionLanguageModel) -> None:
    mixed = [images(1, 16, 8)[0], images(1, 8, 16)[0], images(1, 16, 16)[0]]
    together = model.image_tokens(mixed)
    assert [len(each) for each in together] == [2, 2, 4]
    for image, tokens in zip(mixed, together, strict=True):
        torch.testing.assert_close(tokens, model.image_tokens(image[None])[0], rtol=0, atol=1e-6)
    assert not torch.allclose(*together[:2], atol=1e-3)


@torch.no_grad()
def test_prefill_and_steps_are_the_forward_pass(model: VisionLanguageModel) -> None:
    rows = torch.tensor([[1, *ONE, 2, 3, 4, 7], [1, 2, 3, *ONE, 8, 9]])
    expected = model(rows, images(2))
    state = model.language.allocate_state(2, 9)
    prompt = model.prefill(rows[:, :7], state, images(2))
    torch.testing.assert_close(prompt, expected[:, 6], rtol=0, atol=1e-4)
    for place in (7, 8):
        logits = model.language.step(rows[:, place], state)
        torch.testing.assert_close(logits, expected[:, place], rtol=0, atol=1e-4)


@torch.no_grad()
def test_placeholders_in_the_padding_mean_nothing(model: VisionLanguageModel) -> None:
    rows = torch.tensor([[1, *ONE, 2], [1, 2, 3, *ONE[:3]]])
    state = model.language.allocate_state(2, 8)
    logits = model.prefill(rows, state, images(1), lengths=[6, 3])
    torch.testing.assert_close(logits[1], model(rows[1:, :3])[0, -1], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[0], model(rows[:1], images(1))[0, -1], rtol=0, atol=1e-4)


def test_generation_is_greedy_over_the_forward_pass(model: VisionLanguageModel) -> None:
    prompt = [1, *ONE, 2]
    written = model.generate(prompt, 4, images=images(1))
    for place in range(len(prompt), len(written)):
        logits = model(torch.tensor([written[:place]]), images(1))[0, -1]
        assert written[place] == int(logits.argmax())
    other = model(torch.tensor([prompt]), images(2)[1:])[0, -1]
    assert not torch.allclose(other, model(torch.tensor([prompt]), images(1))[0, -1], atol=1e-3)


def test_meta_tokens_come_before_the_image() -> None:
    model = VisionLanguageModel(vision_language(language={"meta_tokens": 3}))
    tokens = torch.tensor([[*ONE, 1]])
    state = model.language.allocate_state(1, 5)
    with torch.no_grad():
        expected = model(tokens, images(1))
        last = model.prefill(tokens, state, images(1))
        torch.testing.assert_close(last, expected[:, -1], rtol=0, atol=1e-4)
    assert expected.shape == (1, 5, 50)
    assert state.length == 8


@pytest.mark.parametrize(
    ("tokens", "given", "says"),
    [
        ([[1, *ONE]], (), "prompt 0: has 4 placeholders of image tokens (id 5), expected as many"),
        ([[1, *ONE]], images(2), "images: the prompts have placeholders for 1, got 2"),
        ([[1, 2]], images(1), "images: the prompts have placeholders for 0, got 1"),
        ([[1, 5, 5, 5]], images(1), "prompt 0: has 3 placeholders"),
        ([[1, *ONE], [1, 5, 5, 2, 3]], images(2), "prompt 1: has 2 placeholders"),
        ([[1, *ONE]], images(1, 32, 16), "of 16×32 pixels: expected at most 16×16, the tower's image_size"),
        (
            [[1, *ONE]],
            images(1, 10, 16),
            "of 16×10 pixels: expected sides that are multiples of patch_size, 4",
        ),
        (
            [[1, *ONE]],
            images(1, 12, 16),
            "of 4×3 patches: expected sides that are multiples of pixel_shuffle, 2",
        ),
        (
            [[1, *ONE]],
            torch.zeros(1, 1, 16, 16),
            "expected the shape [N, 3, height, width], got [1, 1, 16, 16]",
        ),
        ([[1, 50]], (), "tokens: got id 50, expected from 0 to 49"),
    ],
)
def test_what_does_not_fit_together_is_one_line(
    model: VisionLanguageModel, tokens: list[list[int]], given: Any, says: str
) -> None:
    with pytest.raises(DataError) as caught:
        model(torch.tensor(tokens), given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_everything_gets_a_gradient(model: VisionLanguageModel) -> None:
    fresh = VisionLanguageModel(vision_language(rope_theta=10, qk_norm="full", projector={"norm": True}))
    fresh(torch.tensor([[1, *ONE, 2]]), images(1)).float().logsumexp(-1).sum().backward()
    assert [name for name, weight in fresh.named_parameters() if weight.grad is None] == []


def test_pixel_shuffle_by_hand() -> None:
    patches = torch.arange(16.0).reshape(1, 4, 4, 1)  # a patch is its number, row by row
    assert shuffled(patches, 2)[0, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert shuffled(patches, 4)[0, 0, 0].tolist() == list(range(16))


def test_image_tokens_begin_as_long_as_embeddings() -> None:
    torch.manual_seed(0)
    model = VisionLanguageModel(vision_language(projector={"hidden": [64]}))
    with torch.no_grad():
        tokens = torch.cat(model.image_tokens(images(8)))
    assert 0.8 < float(tokens.std() / model.language.embedding.weight.detach().std()) < 1.25
