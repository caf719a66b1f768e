"""Images of every kind: read as they look, or refused by name."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from operators.base.errors import DataError
from operators.vision.preprocess import resized
from proxy_train.images import decode
from proxy_train.images.decode import decoded

Image = pytest.importorskip("PIL.Image")

# EXIF with one entry: orientation (0x0112) 3.
UPSIDE_DOWN = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 3, 0)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def two_by_one(mode: str, first: Any, second: Any) -> Any:
    """A picture of two pixels side by side."""
    image = Image.new(mode, (2, 1))
    image.putpixel((0, 0), first)
    image.putpixel((1, 0), second)
    return image


def saved(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(raw: bytes) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in np.array(decoded(raw, "x")).reshape(-1, 3).tolist()]


def palette(kind: str) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, *RED, *BLUE])
    image.putpixel((0, 0), 1)
    image.putpixel((1, 0), 2)
    return saved(image, kind)


def transparent_palette() -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, *RED])
    image.putpixel((1, 0), 1)
    return saved(image, transparency=0)


def sixteen_bits(kind: str) -> bytes:
    return saved(Image.fromarray(np.array([[0x8080, 0xFFFF]], dtype=np.uint16)), kind)


def sixteen_bits_of_colour() -> bytes:
    """A PNG of 16 bits for each of three colours, by its specification: Pillow cannot write one."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    row = b"\0" + struct.pack(">6H", 0x8080, 0, 0xFFFF, 0xFFFF, 0x4040, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )


READ: dict[str, tuple[Callable[[], bytes], list[tuple[int, ...]]]] = {
    "png": (lambda: saved(two_by_one("RGB", RED, BLUE)), [RED, BLUE]),
    "webp": (lambda: saved(two_by_one("RGB", RED, BLUE), "WEBP", lossless=True), [RED, BLUE]),
    "bmp": (lambda: saved(two_by_one("RGB", RED, BLUE), "BMP"), [RED, BLUE]),
    "tiff": (lambda: saved(two_by_one("RGB", RED, BLUE), "TIFF"), [RED, BLUE]),
    "ppm": (lambda: saved(two_by_one("RGB", RED, BLUE), "PPM"), [RED, BLUE]),
    "gif": (lambda: palette("GIF"), [RED, BLUE]),
    "palette": (lambda: palette("PNG"), [RED, BLUE]),
    "palette with a transparent colour": (transparent_palette, [WHITE, RED]),
    "grey": (lambda: saved(two_by_one("L", 7, 200)), [(7,) * 3, (200,) * 3]),
    "black and white": (lambda: saved(two_by_one("1", 0, 1)), [(0,) * 3, WHITE]),
    "transparent": (lambda: saved(two_by_one("RGBA", (*RED, 0), (*RED, 51))), [WHITE, (255, 204, 204)]),
    "transparent grey": (lambda: saved(two_by_one("LA", (0, 0), (0, 255))), [WHITE, (0,) * 3]),
    "16 bits of grey": (lambda: sixteen_bits("PNG"), [(128,) * 3, WHITE]),
    "16 bits of grey, tiff": (lambda: sixteen_bits("TIFF"), [(128,) * 3, WHITE]),
    "16 bits of colour": (sixteen_bits_of_colour, [(128, 0, 255), (255, 64, 0)]),
    "cmyk tiff": (
        lambda: saved(two_by_one("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "TIFF"),
        [RED, (0,) * 3],
    ),
    "turned by its camera": (
        lambda: saved(two_by_one("RGB", RED, BLUE), exif=UPSIDE_DOWN),
        [BLUE, RED],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_an_image_is_read_as_it_looks(case: str) -> None:
    make, expected = READ[case]
    assert pixels(make()) == expected


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    """Such files hold inverted values; a reader that forgets it turns white into black."""
    paper = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert min(pixels(saved(paper, "JPEG", quality=95))[0]) > 250
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(np.array(pixels(saved(red, "JPEG", quality=95))[0]) - RED).max() < 6


def test_the_first_picture_of_a_phones_file_is_the_photograph() -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    raw = saved(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(np.array(pixels(raw)[0]) - RED).max() < 6


def frames(kind: str) -> bytes:
    return saved(
        Image.new("RGB", (4, 4), RED), kind, save_all=True, append_images=[Image.new("RGB", (4, 4), BLUE)]
    )


def bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 60,000 × 60,000 pixels."""
    raw = bytearray(saved(Image.new("1", (8, 8))))
    raw[16:24] = struct.pack(">II", 60_000, 60_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    return bytes(raw)


def large_photograph() -> bytes:
    return saved(Image.effect_noise((64, 64), 80).convert("RGB"), "JPEG")


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "expected an image, the file is empty"),
    "text": (lambda: b"<svg></svg>", "expected an image of JPEG, PNG, .*, it begins with b'<svg></s'"),
    "git": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "gif of frames": (lambda: frames("GIF"), "expected one picture, got an? GIF file of 2 frames"),
    "png of frames": (lambda: frames("PNG"), "expected one picture, got an? PNG file of 2 frames"),
    "webp of frames": (lambda: frames("WEBP"), "expected one picture, got an? WEBP file of 2 frames"),
    "tiff of pages": (lambda: frames("TIFF"), "expected one picture, got an? TIFF file of 2 pages"),
    "a bomb": (bomb, r"expected at most 67,108,864 pixels, got"),
    "half a jpeg": (lambda: large_photograph()[:-400], "a damaged image: .*truncated"),
    "half a png": (lambda: saved(Image.effect_noise((64, 64), 80))[:-400], "a damaged image: "),
    "a header alone": (lambda: saved(Image.new("L", (9, 9)))[:20], "damaged image|expected an image"),
    "floating point": (lambda: saved(Image.new("F", (2, 2)), "TIFF"), "got floating-point numbers"),
    "32 bits": (lambda: saved(Image.new("I", (2, 2)), "TIFF"), "got 32-bit whole numbers"),
    "lab": (lambda: saved(Image.new("LAB", (2, 2)), "TIFF"), "expected pixels of 8 or 16 bits, got mode LAB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_image_that_is_not_read_is_refused_by_name(case: str) -> None:
    make, says = REFUSED[case]
    with pytest.raises(DataError, match=f"^photo.png: .*{says}") as caught:
        decoded(make(), "photo.png")
    assert "\n" not in str(caught.value)


def test_damage_anywhere_is_no_other_error() -> None:
    """Every prefix and many flipped bytes of a file are read or refused; nothing else is raised."""
    for raw in (palette("GIF"), palette("PNG"), large_photograph()[:700]):
        rng = np.random.default_rng(0)
        damaged = [raw[:cut] for cut in range(0, len(raw), 7)]
        for place in rng.integers(len(raw), size=60).tolist():
            changed = bytearray(raw)
            changed[place] ^= int(rng.integers(1, 256))
            damaged.append(bytes(changed))
        for each in damaged:
            with contextlib.suppress(DataError):
                decoded(each, "x")


def test_a_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MOST_PIXELS", 12)
    decoded(saved(Image.new("L", (4, 3))), "x")
    with pytest.raises(DataError, match="expected at most 12 pixels, got 13×1 = 13"):
        decoded(saved(Image.new("L", (13, 1))), "x")


def test_stretching_and_padding() -> None:
    wide = Image.new("RGB", (40, 20), RED)
    assert (resized(wide, 10, "stretch") == RED).all()
    padded = resized(wide, 10, "pad")
    assert padded.shape == (10, 10, 3)
    assert (padded[3:7] == RED).all()
    assert (padded[:2] == WHITE).all()
    assert (padded[8:] == WHITE).all()
