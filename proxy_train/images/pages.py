"""Renders words of a text corpus as pictures: a data set for reading that needs no download."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from operators.base.errors import DataError
from operators.base.files import whole_folder
from operators.vision.preprocess import WHITE, pillow
from proxy_train.images.decode import MOST_PIXELS
from proxy_train.text.documents import read_documents

NAMES = "pages.jsonl"
MARGIN = 2  # pixels between the words and the picture's edge
TRIES = 20  # pieces of text for each picture that is wanted; most fit


def render_pages(
    source: str | Sequence[str],
    to: Path,
    *,
    count: int,
    image_size: int = 64,
    words: int = 2,
    font: str | None = None,
    font_size: int = 12,
    text_column: str = "text",
    seed: int = 0,
) -> int:
    """Writes pictures of a few words each, and a .jsonl that names them with their text; all or nothing.

    Words of other characters than ASCII are left out, as a font may lack them. So are pieces that do not fit.

    source: the text, see `documents.list_source`.
    to: a new or empty folder.
    count: pictures at most; fewer where the text has no more different pieces.
    image_size: pixels of a side.
    words: words in a picture, each on lines as they fit.
    font: a .ttf or .otf file, or a package of `fontpkg` such as `fontpkg-abel`; None for Pillow's own.
    font_size: in pixels.
    seed: fixes which words are taken and where they stand.

    Returns how many pictures were written.

    Raises DataError for a text or a font that cannot be used, and for a folder that cannot be written.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise DataError(f"{to}: expected a new or an empty folder")
    largest = isqrt(MOST_PIXELS)
    for name, size, most in (("image size", image_size, largest), ("font size", font_size, image_size)):
        if size > most:
            raise DataError(f"{name} {size}: expected at most {most} pixels")
    face, rng = _face(font, font_size), np.random.default_rng(seed)
    written, rows = 0, []
    try:
        with whole_folder(to) as folder:
            for text in _pieces(source, text_column, words, count * TRIES, rng):
                lines = _lines(text.split(" "), face, image_size - 2 * MARGIN)
                picture = _picture(lines, face, image_size, rng)
                if picture is None:
                    continue
                name = f"{written:06d}.png"
                picture.save(folder / name)
                rows.append(json.dumps({"image": name, "text": text}))
                written += 1
                if written == count:
                    break
            if not written:
                named = source if isinstance(source, str) else ", ".join(source)
                raise DataError(
                    f"source {named}: no {words} words fit into {image_size}×{image_size} pixels at font "
                    f"size {font_size}"
                )
            (folder / NAMES).write_text("\n".join(rows) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{to}: cannot be written: {error.strerror or error}") from None
    return written


def _face(font: str | None, size: int) -> Any:
    """The font of that size. Raises DataError."""
    package = pillow()
    from PIL import ImageFont, features

    if not features.check("freetype2"):
        raise DataError(f"this Pillow {package.__version__} cannot draw fonts: it was built without FreeType")
    if font is None:
        return ImageFont.load_default(size)
    path = Path(font)
    if not path.is_file():
        path = _packaged(font)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise DataError(f"font {path}: expected a .ttf or .otf file: {error}") from None


def _packaged(name: str) -> Path:
    """The regular face of an installed package of fontpkg. Raises DataError."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    for location in (spec.submodule_search_locations or []) if spec else []:
        faces = sorted(Path(location).rglob("*.[to]tf"))
        regular = [face for face in faces if "Regular" in face.name] or faces
        if regular:
            return regular[0]
    raise DataError(
        f"font {name!r:.80}: neither a file nor an installed package with fonts, such as fontpkg-abel"
    )


def _pieces(
    source: str | Sequence[str], text_column: str, words: int, most: int, rng: np.random.Generator
) -> list[str]:
    """Different pieces of so many words in a random order; a fair sample where there are too many."""
    kept: list[str] = []
    seen = set[str]()
    for piece in _all_pieces(source, text_column, words):
        if piece in seen:
            continue
        seen.add(piece)
        if len(kept) < most:
            kept.append(piece)
        elif (place := int(rng.integers(len(seen)))) < most:
            kept[place] = piece
    return [kept[number] for number in rng.permutation(len(kept))]


def _all_pieces(source: str | Sequence[str], text_column: str, words: int) -> Iterator[str]:
    for document in read_documents(source, text_column):
        each = [word for word in document.split() if word.isascii() and word.isprintable()]
        for first in range(0, len(each) - words + 1, words):
            yield " ".join(each[first : first + words])


def _lines(words: list[str], face: Any, width: int) -> list[str]:
    """The words in lines of at most `width` pixels, where a single word may be longer."""
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _picture(lines: list[str], face: Any, size: int, rng: np.random.Generator) -> Any:
    """The lines in black on white, at a random place; None where they do not fit."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (size, size), WHITE)
    draw, text = ImageDraw.Draw(picture), "\n".join(lines)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=face)
    free_x, free_y = size - 2 * MARGIN - (right - left), size - 2 * MARGIN - (bottom - top)
    if free_x < 0 or free_y < 0:
        return None
    x, y = int(rng.integers(int(free_x) + 1)), int(rng.integers(int(free_y) + 1))
    draw.multiline_text((MARGIN + x - left, MARGIN + y - top), text, font=face, fill=(0, 0, 0))
    return picture
