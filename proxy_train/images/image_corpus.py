"""Prepared images: the manifest of their folder, and `ImageCorpus`, the value that others use."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from operators.base.errors import DataError
from operators.base.value import Value
from operators.vision.vision_language import Resize
from proxy_train.text.shards import FileRecord, damage, open_tokens

MANIFEST, TOKENS, EXAMPLES = "manifest.json", "tokens.bin", "examples.bin"
TOKEN_DTYPE, EXAMPLE_DTYPE = "uint32", "int64"
COLORS = 3
# Of an example: its image, its first token, tokens of question and answer, whether it is held out.
COLUMNS = ("image", "start", "question", "answer", "held_out")

Side = Literal["train", "validation"]


class ImageManifest(Value):
    """What was prepared from a source.

    format: `prepare.FORMAT`.
    source_sha256: of all rows.
    image_size, resize, validation_fraction: see `ImageSettings`.
    tokenizer_sha256: of the tokenizer's file.
    end: id of the token behind every answer.
    images: how many different images.
    shard_images: images in each shard but the last.
    train_examples, validation_examples: how many.
    tokens: of all questions and answers.
    largest_token: the largest id.
    most_frequent: the most frequent answer of the training examples.
    most_frequent_accuracy: the share of validation examples with that answer.
    files: the files of tokens and examples, by name.
    shards: the shards of images, in order.
    finished: whether all shards are there.
    """

    format: int
    source_sha256: str
    image_size: int
    resize: Resize
    validation_fraction: float
    tokenizer_sha256: str
    end: int
    images: int
    shard_images: int
    train_examples: int
    validation_examples: int
    tokens: int
    largest_token: int
    most_frequent: str
    most_frequent_accuracy: float
    files: Mapping[str, FileRecord]
    shards: tuple[FileRecord, ...] = ()
    finished: bool = False

    def text(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    def digest(self) -> str:
        """SHA-256 (hex) of all that decides what models see."""
        return hashlib.sha256(self.text().encode()).hexdigest()


@dataclass(frozen=True)
class Examples:
    """Examples of one side, with the tokens that they lie in.

    rows: [E, 5] int64, see COLUMNS.
    ids: the tokens of all examples, one after the other.
    """

    rows: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of an example's question and of its answer with the end behind it."""
        _, start, question, answer, _ = self.rows[number].tolist()
        middle = start + question
        return self.ids[start:middle], self.ids[middle : middle + answer]


@dataclass(frozen=True)
class ImageCorpus:
    """Prepared images, questions and answers. The value holds a path and the manifest alone.

    folder: of the manifest and the files.
    manifest: see there.
    """

    folder: Path
    manifest: ImageManifest

    @property
    def digest(self) -> str:
        return self.manifest.digest()

    def examples(self, side: Side) -> Examples:
        """The examples of one side. Raises DataError for files of another size."""
        manifest = self.manifest
        count = (manifest.train_examples + manifest.validation_examples) * len(COLUMNS)
        rows = open_tokens(self.folder / EXAMPLES, EXAMPLE_DTYPE, count).reshape(-1, len(COLUMNS))
        ids = open_tokens(self.folder / TOKENS, TOKEN_DTYPE, manifest.tokens)
        return Examples(rows[rows[:, -1] == (side == "validation")], ids)

    def pixels(self, numbers: np.ndarray) -> np.ndarray:
        """Images by their numbers [B]: [B, size, size, 3] uint8. Raises DataError for damaged files."""
        size, each = self.manifest.image_size, self.manifest.shard_images
        out = np.empty((len(numbers), size, size, COLORS), dtype=np.uint8)
        for shard in np.unique(numbers // each).tolist():
            count = min(each, self.manifest.images - shard * each)
            flat = open_tokens(self.folder / shard_name(shard), "uint8", count * size * size * COLORS)
            here = numbers // each == shard
            out[here] = flat.reshape(count, size, size, COLORS)[numbers[here] % each]
        return out


def shard_name(number: int) -> str:
    return f"images-{number:05d}.bin"


def read_manifest(folder: Path) -> ImageManifest:
    """The manifest of a folder, finished or not. Raises DataError."""
    path = folder / MANIFEST
    try:
        return ImageManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError:
        raise DataError(f"{path}: expected the manifest of prepared images; prepare them again") from None


def open_images(folder: Path, *, hashes: bool = False) -> ImageCorpus:
    """The corpus of a folder.

    hashes: whether to compare the SHA-256 of all files, beside their sizes.

    Raises DataError for a folder that is unfinished or damaged.
    """
    manifest = read_manifest(folder)
    if not manifest.finished:
        raise DataError(f"{folder}: the preparation did not finish; the same one goes on from there")
    named = {shard_name(number): shard for number, shard in enumerate(manifest.shards)}
    for name, expected in {**manifest.files, **named}.items():
        if problem := damage(folder / name, expected, hashes=hashes):
            raise DataError(f"{problem}; prepare the images again on this machine")
    return ImageCorpus(folder, manifest)
