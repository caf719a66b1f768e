"""From a decoded picture to what a tower takes: a square of one size, and numbers from -1 to 1."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from operators.base.errors import DataError
from operators.vision.vision_language import Resize

WHITE = (255, 255, 255)


def pillow() -> Any:
    """The package PIL with the modules that are needed. Raises DataError where it is not installed."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise DataError("images need Pillow; `pip install 'frontrunner[vision]'` installs it") from None
    return PIL


def resized(image: Any, size: int, how: Resize) -> np.ndarray:
    """A square image: [size, size, 3] uint8. Bicubic, and antialiased where it gets smaller.

    how: `stretch` makes both sides `size`. `pad` keeps the proportions, on white, in the middle.
    """
    package = pillow()
    bicubic = package.Image.Resampling.BICUBIC
    if how == "stretch":
        return np.array(image.resize((size, size), bicubic))
    padded = package.ImageOps.pad(image, (size, size), bicubic, color=WHITE)
    return np.array(padded)


def normalized(pixels: np.ndarray, size: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Pixels [B, S, S, 3] uint8 -> [B, 3, size, size] float32 from -1 to 1, as SigLIP takes them.

    Where the tower is smaller than the prepared images, they are resized (bicubic, antialiased).

    device: of the result.
    """
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)
