"""Decodes an image file into 8-bit red, green and blue, or refuses it by name.

What is read, and how:

- JPEG (also CMYK, and the first picture of a phone's multi-picture file), PNG, WebP, GIF, BMP, TIFF, PPM.
- The orientation that a camera noted is applied.
- Palettes and black-and-white become colours. Transparent pixels lie on white.
- Sixteen bits a channel are rounded to eight.

What is refused: animations and files of several pages, floating-point and 32-bit pixels, LAB, damaged and
truncated files, and images of more than MOST_PIXELS, before they are decoded.
"""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np

from operators.base.errors import DataError, flat
from operators.vision.preprocess import WHITE, pillow
from proxy_train.text.formats import unfetched

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MOST_PIXELS = (
    2**26
)  # 8192 × 8192: 192 MiB of colours. A bomb of a few kilobytes may claim a thousand times that.
# Modes of Pillow whose conversion to RGB is exact, or is the usual one (CMYK without a profile).
CONVERTED = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
TRANSPARENT = ("LA", "PA", "RGBA", "RGBa", "La")
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def decoded(raw: bytes, where: str) -> Any:
    """The image of a file's content, as an RGB image of Pillow.

    where: the file and place, for messages.

    Raises DataError.
    """
    package = pillow()
    if not raw:
        raise DataError(f"{where}: expected an image, the file is empty")
    if pointer := unfetched(raw[:64]):
        raise DataError(f"{where}: is {pointer}")
    try:
        with warnings.catch_warnings():
            # Pillow warns of images that are below our own limit, and of damaged metadata.
            warnings.simplefilter("ignore")
            with package.Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                _require_one_small_picture(image, where)
                image.load()
                return _colours(package.ImageOps.exif_transpose(image), package, where)
    except DataError:
        raise
    except package.UnidentifiedImageError:
        raise DataError(
            f"{where}: expected an image of {', '.join(FORMATS)}, it begins with {raw[:8]!r}"
        ) from None
    except package.Image.DecompressionBombError:
        raise DataError(f"{where}: expected at most {MOST_PIXELS:,} pixels, got many more") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
    ) as error:
        raise DataError(f"{where}: a damaged image: {flat(error, at_most=120)}") from None
    except (struct.error, zlib.error, MemoryError) as error:
        raise DataError(f"{where}: a damaged image: {flat(error, at_most=120)}") from None


def _require_one_small_picture(image: Any, where: str) -> None:
    """Refuses what must not be decoded. Raises DataError."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{where}: expected at most {MOST_PIXELS:,} pixels, got {width}×{height} = {width * height:,}"
        )
    # A phone's JPEG may hold a second picture, such as a depth map; the first one is the photograph.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        what = "pages" if image.format == "TIFF" else "frames"
        raise DataError(
            f"{where}: expected one picture, got an {image.format} file of {image.n_frames} {what}"
        )


def _colours(image: Any, package: Any, where: str) -> Any:
    """The image in 8-bit RGB. Raises DataError."""
    if image.mode in SIXTEEN_BITS:
        # Pillow's own conversion would cut all above 255 to white.
        levels = np.asarray(image).astype(np.uint32)
        grey = ((levels * 255 + 32_767) // 65_535).astype(np.uint8)
        return package.Image.fromarray(grey).convert("RGB")
    if image.mode in TRANSPARENT or "transparency" in image.info:
        over = image.convert("RGBA")
        ground = package.Image.new("RGBA", over.size, (*WHITE, 255))
        return package.Image.alpha_composite(ground, over).convert("RGB")
    if image.mode in CONVERTED:
        return image.convert("RGB")
    kinds = {"I": "32-bit whole numbers", "F": "floating-point numbers"}
    raise DataError(
        f"{where}: expected pixels of 8 or 16 bits, got {kinds.get(image.mode, f'mode {image.mode}')}"
    )
