"""The model of a VisionLanguage: image tokens in the places of placeholders, then the language model."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from operators.base.errors import DataError
from operators.model import HybridLM, ModelState
from operators.parameter_shapes import Undrawn
from operators.vision.projector import ImageProjector
from operators.vision.tower import Tower
from operators.vision.vision_language import VisionLanguage

Images = Tensor | Sequence[Tensor]
"""Images [N, 3, height, width], or [3, height, width] each, which may differ in size."""


class VisionLanguageModel(nn.Module):
    """The model that a VisionLanguage describes, with random weights.

    backend: of the language model's operators, see `HybridLM`.
    device: of the weights; torch's generator there draws them.
    dtype: of weights and activations.

    Images hold normalized values; they are given in the order of their placeholders, row by row. Decoding
    goes on with `language`: its `allocate_state` makes the state, its `step` reads the next tokens.

    Raises BackendError where a named backend cannot be used.
    """

    def __init__(
        self,
        value: VisionLanguage,
        *,
        backend: str | Mapping[str, str] = "auto",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.value = value
        std = 1.0 if value.language.normalized_head else value.language.width**-0.5
        with torch.device(device):
            self.tower = Tower(value.tower)
            self.projector = ImageProjector(value, embedding_std=std)
        self.tower.to(device=device, dtype=dtype)
        self.projector.to(device=device, dtype=dtype)
        self.language = HybridLM(value.language, backend=backend, device=device, dtype=dtype)

    def image_tokens(self, images: Images) -> list[Tensor]:
        """The image tokens of each image, [tokens, W].

        Neighbours of one size are computed together.

        Raises DataError for an image that is larger than the tower's, or that patches do not divide.
        """
        shuffle = self.value.projector.pixel_shuffle
        tokens: list[Tensor] = []
        for _, same in groupby(images, key=lambda image: image.shape):
            patches = self.tower(torch.stack(list(same)))
            rows, columns = patches.shape[1:3]
            if rows % shuffle or columns % shuffle:
                raise DataError(
                    f"image of {columns}×{rows} patches: expected sides that are multiples of "
                    f"pixel_shuffle, {shuffle}"
                )
            tokens += self.projector(patches).unbind()
        return tokens

    def embedded(
        self, tokens: Tensor, images: Images = (), lengths: Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """Token ids [B, T], and image tokens in the places of placeholders -> [B, T, W].

        images: in the order of their placeholders.
        lengths: tokens of each row; those behind are padding, in which a placeholder means nothing.

        Raises DataError where placeholders and images do not match.
        """
        there = tokens == self.value.image_token
        if lengths is not None:
            ends = torch.as_tensor(lengths, device=tokens.device)
            there &= torch.arange(tokens.shape[1], device=tokens.device) < ends[:, None]
        embedded = self.language.embedded(tokens)
        of_images = self.image_tokens(images)
        self._check(there.sum(1).tolist(), [len(each) for each in of_images])
        return embedded.masked_scatter(there[..., None], torch.cat(of_images)) if of_images else embedded

    def embedded_behind(self, images: Tensor, tokens: Tensor) -> Tensor:
        """The same as `embedded` where each row begins with one image of the tower's size.

        A CUDA graph can hold it: nothing is checked, and nothing waits for the device.

        images: [B, 3, size, size].
        tokens: [B, T]; the placeholders at their beginning are not read.
        """
        of_images = self.projector(self.tower(images))
        return torch.cat([of_images, self.language.embedded(tokens[:, of_images.shape[1] :])], 1)

    def _check(self, placeholders: list[int], sizes: list[int]) -> None:
        """Refuses rows whose placeholders are not those of whole images. Raises DataError.

        placeholders: how many each row has.
        sizes: tokens of each image.
        """
        used = 0
        for row, count in enumerate(placeholders):
            taken = 0
            first = used
            while taken < count and used < len(sizes):
                taken += sizes[used]
                used += 1
            if taken != count:
                got = ", ".join(map(str, sizes[first:used])) or "none"
                raise DataError(
                    f"prompt {row}: has {count} placeholders of image tokens (id {self.value.image_token}), "
                    f"expected as many as its images have tokens: {got}"
                )
        if used < len(sizes):
            raise DataError(f"images: the prompts have placeholders for {used}, got {len(sizes)}")

    def hidden(self, tokens: Tensor, images: Images = ()) -> Tensor:
        """tokens [B, T] -> the input of the head [B, T, W]."""
        return self.language.hidden(tokens, self.embedded(tokens, images))

    def forward(self, tokens: Tensor, images: Images = ()) -> Tensor:
        """tokens [B, T] -> logits [B, T, vocabulary]. Raises DataError, see `embedded`."""
        return self.language.logits(self.hidden(tokens, images))

    def prefill(
        self,
        tokens: Tensor,
        state: ModelState,
        images: Images = (),
        lengths: Sequence[int] | Tensor | None = None,
    ) -> Tensor:
        """Reads tokens after those in the state -> logits after each row's last token [B, vocabulary].

        It is that of `HybridLM`, with images. Raises StateError, and DataError, see `embedded`.
        """
        return self.language.prefill(tokens, state, lengths, self.embedded(tokens, images, lengths))

    @torch.inference_mode()
    def generate(self, tokens: Sequence[int], count: int, *, images: Images = (), **choice: Any) -> list[int]:
        """The prompt and the tokens that the model writes after it.

        tokens: ids of the prompt, with placeholders.
        count: tokens to add.
        images: in the order of their placeholders.
        choice: how tokens are chosen, see `HybridLM.generate`.

        Raises DataError, ConfigError and DivergedError.
        """
        self.language.require_prompt(tokens, count)
        ids = torch.tensor([list(tokens)], device=self.language.embedding.weight.device)
        return self.language.generate(tokens, count, embedded=self.embedded(ids, images), **choice)


def parameter_shapes(value: VisionLanguage) -> dict[str, torch.Size]:
    """The shape of each parameter of a model, by name; nothing is allocated."""
    with torch.device("meta"), Undrawn():
        model = VisionLanguageModel(value, backend="reference", device="meta")
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
