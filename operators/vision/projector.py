"""The projector between a tower and a language model: pixel shuffle and a small network."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from operators.layers.normalization import LayerNorm
from operators.vision.vision_language import VisionLanguage

EPS = 1e-5  # of the normalization, as in LFM2-VL
GELU_SQUARE = (
    0.425  # mean of gelu(x)² where x ~ N(0, 1), so that numbers keep their size from matrix to matrix
)


class ImageProjector(nn.Module):
    """The projector of a vision-language model, with random weights.

    embedding_std: standard deviation of the language model's embeddings; image tokens begin with it.
    """

    def __init__(self, value: VisionLanguage, *, embedding_std: float) -> None:
        super().__init__()
        projector = value.projector
        widths = (value.joined_width, *projector.hidden, value.language.width)
        self.pixel_shuffle = projector.pixel_shuffle
        self.norm = LayerNorm(widths[0], eps=EPS) if projector.norm else None
        self.matrices = nn.ModuleList(
            nn.Linear(before, after, bias=projector.bias) for before, after in pairwise(widths)
        )
        for number, matrix in enumerate(self.matrices, start=1):
            assert isinstance(matrix, nn.Linear)  # noqa: S101  for the type checker
            square = GELU_SQUARE if number > 1 else 1.0
            size = embedding_std if number == len(self.matrices) else 1.0
            nn.init.normal_(matrix.weight, std=size * (square * matrix.in_features) ** -0.5)
            if matrix.bias is not None:
                nn.init.zeros_(matrix.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """patches [N, rows, columns, W] -> image tokens [N, tokens, width of the language model]."""
        x = shuffled(patches, self.pixel_shuffle).flatten(1, 2)
        if self.norm is not None:
            x = self.norm(x)
        for number, matrix in enumerate(self.matrices):
            x = matrix(F.gelu(x) if number else x)
        return x


def shuffled(patches: Tensor, factor: int) -> Tensor:
    """patches [N, rows, columns, W] -> [N, rows / factor, columns / factor, factor² · W].

    The vector of a token has its patches row by row.
    """
    if factor == 1:
        return patches
    images, rows, columns, width = patches.shape
    split = patches.reshape(images, rows // factor, factor, columns // factor, factor, width)
    return split.transpose(2, 3).flatten(3)
