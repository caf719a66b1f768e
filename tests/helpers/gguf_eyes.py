"""Small models that see of every kind of mmproj file, and what llama.cpp answers to an image."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from operators import VisionLanguage, VisionLanguageModel
from operators.published.gguf_export.mmproj import eyes_outline
from operators.published.gguf_export.vocabulary import NORMAL, USER_DEFINED, Vocabulary
from tests.helpers.llama_cpp import MARKER, Seen, ask
from tests.helpers.published_models import (
    FEEDFORWARD,
    MAMBA2,
    VOCABULARY,
    architecture,
    attention,
    randomize,
)
from tests.helpers.vision_models import drawn

PLACEHOLDER, FIRST_MARK = 60, 50  # ids that the texts of these tests do not have
STEPS = 12
A, F_, M = attention(head_dim=12), FEEDFORWARD, MAMBA2
# An epsilon that is large enough to be missed.
TOWER = {
    "image_size": 16,
    "patch_size": 4,
    "width": 24,
    "depth": 2,
    "heads": 3,
    "hidden": 40,
    "norm_eps": 0.05,
}
TURNED = {
    "norms": {"norm": "rmsnorm"},
    "feedforward": "swiglu",
    "position_bias": False,
    "rope_theta": 10_000.0,
    "norm_eps": 1e-6,
}


def value(
    layers: Sequence[Any] = (A, F_, A, F_),
    *,
    tower: dict[str, Any] | None = None,
    projector: dict[str, Any] | None = None,
    **language: Any,
) -> VisionLanguage:
    return VisionLanguage.parse(
        {
            "tower": {**TOWER, **(tower or {})},
            "projector": {"pixel_shuffle": 2, "hidden": [44], **(projector or {})},
            "language": architecture([*layers], **language),
            "image_token": PLACEHOLDER,
        },
        where="",
    )


MEMBERS: dict[str, tuple[str, str, VisionLanguage]] = {
    "lfm2": ("lfm2", "llama", value()),
    "lfm2-normed": (
        "lfm2",
        "llama",
        value(projector={"norm": True, "pixel_shuffle": 2}, tower={"position_grid": 5, "bias": False}),
    ),
    "lfm2-without-positions": (
        "lfm2",
        "granitehybrid",
        value(
            [M, F_, A, F_],
            projector={"pixel_shuffle": 4, "bias": False},
            tower={"position_bias": False, "feedforward": "swiglu"},
        ),
    ),
    "phi4": ("phi4", "llama", value(projector={"pixel_shuffle": 1}, normalized_head=True)),
    "phi4-resized": (
        "phi4",
        "nemotron_h",
        value([M, A], projector={"pixel_shuffle": 1}, tower={"position_grid": 9}, rope=None),
    ),
    "idefics3": ("idefics3", "llama", value(projector={"hidden": [], "bias": False})),
    "dots_ocr": ("dots_ocr", "llama", value(tower={**TURNED, "qk_norm": "full"})),
    "dots_ocr-by-head": (
        "dots_ocr",
        "mamba2",
        value(
            [M, M], tower={**TURNED, "qk_norm": "head", "bias": False}, projector={"bias": False}, rope=None
        ),
    ),
}
"""By what is special in it: the kind of its mmproj file, the family of its decoder's, and the model."""


def random_model(member: VisionLanguage) -> VisionLanguageModel:
    model = VisionLanguageModel(member, backend="reference").eval()
    randomize(model.language)
    drawn(model.tower)
    drawn(model.projector)
    # So that a GELU that falls on the other side of a 16-bit number is less than the tolerance.
    model.language.norm.weight.data *= 0.5
    return model


def spelled(ids: Sequence[int]) -> str:
    """A text that has just these tokens of `vocabulary_of`."""
    return "".join(f"<t{index}>" for index in ids)


def vocabulary_of(marks: Sequence[str]) -> Vocabulary:
    """Tokens that a text can spell one by one."""
    names = [f"<t{index}>" for index in range(VOCABULARY)]
    names[FIRST_MARK : FIRST_MARK + len(marks)] = marks
    # A paragraph is a word of a text, for which llama.cpp looks under the names of bytes.
    kinds = [USER_DEFINED if name.startswith("<") else NORMAL for name in names]
    return Vocabulary(names, kinds, (), "gpt-2", end=VOCABULARY - 2)


def picture(height: int, width: int) -> tuple[bytes, Tensor]:
    """A picture of noise as a PNG, and as our model takes it: [3, height, width]."""
    package = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = BytesIO()
    package.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


@dataclass(frozen=True)
class Answer:
    """What llama.cpp writes behind an image, the most likely token each time.

    pixels: of the image.
    tokens: of the prompt, with placeholders, and of the answer.
    begins: places of the first placeholder of each image.
    log_probabilities: of every token before each of the answer: [STEPS, vocabulary].
    """

    pixels: Tensor
    tokens: list[int]
    begins: list[int]
    log_probabilities: Tensor

    @torch.no_grad()
    def difference(self, model: VisionLanguageModel) -> float:
        """The largest one between log-probabilities of llama.cpp and of the model, which reads the same."""
        whole, image = torch.tensor([self.tokens]), model.image_tokens(self.pixels[None])[0]
        embedded = model.language.embedded(whole)
        for begin in self.begins:
            embedded[0, begin : begin + len(image)] = image
        logits = model.language.logits(model.language.hidden(whole, embedded))[0]
        ours = logits[-STEPS - 1 : -1].log_softmax(-1)
        assert ours.std() > 0.3, "log-probabilities too even for a tolerance to mean anything"
        return float((ours - self.log_probabilities).abs().max())


def answer(text: Path, mmproj: Path, member: VisionLanguage, size: tuple[int, int] | None = None) -> Answer:
    """Asks llama.cpp about a picture.

    size: height and width in pixels; None for those of the tower.
    """
    height, width = size or (member.tower.image_size, member.tower.image_size)
    side = member.tower.patch_size * member.projector.pixel_shuffle
    count = height // side * (width // side)
    kind, (file, pixels) = eyes_outline(member)[0], picture(height, width)
    before, after = [20, 30, 7], [40, 41, 3, 9]
    asked = Seen(f"{spelled(before)}{MARKER}{spelled(after)}", [file], STEPS)
    answers = ask(text, mmproj=mmproj, vocabulary=VOCABULARY, image_tokens=count, seen=[asked])
    image = [PLACEHOLDER] * count
    fake, row, paragraph, whole = range(FIRST_MARK, FIRST_MARK + 4)
    inside = {
        "phi4": image,
        "lfm2": [fake, *image, row],
        "dots_ocr": [fake, *image, row],
        "idefics3": [fake, row, *image, paragraph, fake, whole, *image, fake],
    }[kind.name]
    prompt = [*before, *inside, *after]
    assert answers.prompt_tokens == [len(prompt)]
    begins = [
        place
        for place, token in enumerate(prompt)
        if token == PLACEHOLDER and prompt[place - 1] != PLACEHOLDER
    ]
    return Answer(pixels, [*prompt, *answers.tokens[0]], begins, answers.log_probabilities[0])


def rounded(model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> VisionLanguageModel:
    """The model as llama.cpp computes it on a CPU.

    It rounds pixels and patch embedding to 16 bits (ggml_conv_2d), takes GELU from a table of 16-bit numbers
    (ggml_vec_gelu_f32), and approximates that of the projector by tanh, but for dots_ocr.
    """
    exact: Callable[..., Tensor] = F.gelu
    erf = eyes_outline(model.value)[0].name == "dots_ocr"

    def gelu(x: Tensor, approximate: str = "none") -> Tensor:
        if erf and approximate == "none":
            return exact(x)
        middle = exact(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, 0.0, torch.where(x >= 10, x, middle))

    monkeypatch.setattr(F, "gelu", gelu)
    copied = copy.deepcopy(model)
    embedding = copied.tower.patch_embedding
    embedding.weight.data = embedding.weight.data.half().float()
    embedding.register_forward_pre_hook(lambda module, given: (given[0].half().float(),))
    return copied
