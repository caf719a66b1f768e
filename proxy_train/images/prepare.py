"""Turns images with questions into memory-mapped pixels and tokens, once.

A source is read twice: for its questions and the hashes of its images, then for the images themselves. An
image that many rows name is kept once. A preparation that was killed is continued: whole shards are kept.
Questions, answers and the hashes of images are held in memory, images are not.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from operators.base.errors import DataError, in_words
from operators.base.files import whole_file
from operators.vision.preprocess import resized
from proxy_train.cache import OnProgress, cached, default_cache, whole_shards
from proxy_train.images.decode import decoded
from proxy_train.images.image_corpus import (
    COLORS,
    EXAMPLE_DTYPE,
    EXAMPLES,
    MANIFEST,
    TOKEN_DTYPE,
    TOKENS,
    ImageCorpus,
    ImageManifest,
    open_images,
    read_manifest,
    shard_name,
)
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.rows import Row, read_rows
from proxy_train.text import tokenizer as bpe
from proxy_train.text.shards import FileRecord, damage, record

# A part of the cache's keys: raise it when the same settings would give other files.
FORMAT = 1
# Bytes of a shard: a kill loses the work on one shard, and no folder has many files.
SHARD_BYTES = 2**26
BETWEEN = "\n"  # between a question and its answer


@dataclass
class _Survey:
    """What the first reading of a source finds.

    sha256: of all rows, in order.
    numbers: of each different image, by its hash, in the order of their first rows.
    images: the image of each row.
    questions, answers, where: of each row.
    """

    sha256: str = ""
    numbers: dict[str, int] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)


def prepare_images(
    settings: ImageSettings,
    tokenizer: Path,
    *,
    end_of_document: str | None = None,
    cache: Path | None = None,
    on_progress: OnProgress | None = None,
) -> ImageCorpus:
    """The prepared images of a source: from the cache if they are there and whole, else made and put there.

    settings: the source and how its images are prepared.
    tokenizer: a tokenizer.json, such as that of a text's corpus.
    end_of_document: its token that ends an answer; None for the usual names.
    cache: the folder of the cache; None for the one of prepared text.
    on_progress: called after each row.

    Raises DataError for a source or tokenizer that cannot be used, and for a cache that cannot be written.
    """
    cache, progress = cache or default_cache(), on_progress or (lambda *_: None)
    loaded = bpe.load_tokenizer(tokenizer, end_of_document)
    end = loaded.get_vocab()[bpe.end_of_document(loaded, end_of_document, str(tokenizer))]
    survey = _survey(settings, progress)
    held_out = _held_out(survey, settings)
    tokenizer_sha256 = record(tokenizer).sha256
    identity = [
        *(FORMAT, survey.sha256, settings.image_size, settings.resize, settings.validation_fraction),
        *(tokenizer_sha256, end),
    ]
    folder = cache / f"images-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]}"

    def build(building: Path) -> None:
        manifest = _kept(building)
        if manifest is None:
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            manifest = _begun(building, settings, survey, held_out, loaded, end, tokenizer_sha256)
        _write_shards(building, settings, survey, manifest, progress)

    return cached(folder, open_images, build, what="images")


def _survey(settings: ImageSettings, progress: OnProgress) -> _Survey:
    """Reads all rows and the hashes of their images. Raises DataError."""
    survey, rows, known = _Survey(), hashlib.sha256(), dict[Path, str]()
    for number, row in enumerate(read_rows(settings), start=1):
        key = _hash(row, known)
        survey.images.append(survey.numbers.setdefault(key, len(survey.numbers)))
        survey.questions.append(row.question)
        survey.answers.append(row.answer)
        survey.where.append(row.where)
        rows.update(json.dumps([key, row.question, row.answer]).encode())
        progress("reading questions", number, 0)
    survey.sha256 = rows.hexdigest()
    if len(set(survey.answers)) == 1:
        raise DataError(
            f"source {', '.join(settings.sources)}: a data set of one class: expected different answers, "
            f"all {len(survey.answers):,} are {in_words(survey.answers[0])}"
        )
    return survey


def _hash(row: Row, known: dict[Path, str]) -> str:
    """SHA-256 of a row's image; `known` has those of files that were read before."""
    if isinstance(row.image, bytes):
        return hashlib.sha256(row.image).hexdigest()
    if row.image not in known:
        known[row.image] = hashlib.sha256(row.content()).hexdigest()
    return known[row.image]


def _held_out(survey: _Survey, settings: ImageSettings) -> np.ndarray:
    """Whether each image is held out, with all its rows: those with the smallest hashes.

    Raises DataError where there is one image only.
    """
    keys = list(survey.numbers)
    if len(keys) < 2:
        raise DataError(
            f"source {', '.join(settings.sources)}: expected at least 2 different images, one of them to "
            f"hold out, got {len(keys)}"
        )
    count = min(len(keys) - 1, max(1, round(settings.validation_fraction * len(keys))))
    held_out = np.zeros(len(keys), dtype=bool)
    held_out[np.argsort(keys)[:count]] = True
    return held_out


def _begun(
    folder: Path,
    settings: ImageSettings,
    survey: _Survey,
    held_out: np.ndarray,
    tokenizer: Tokenizer,
    end: int,
    tokenizer_sha256: str,
) -> ImageManifest:
    """Writes tokens and examples. The manifest that it returns lists no shard yet. Raises DataError."""
    dtype = np.dtype(TOKEN_DTYPE).newbyteorder("<")
    questions = [f"{question}{BETWEEN}" if question else "" for question in survey.questions]
    asked = list(bpe.encode(tokenizer, questions, None, dtype))
    answered = list(bpe.encode(tokenizer, survey.answers, end, dtype))
    unknown = bpe.unknown_id(tokenizer)
    for where, answer, ids in zip(survey.where, survey.answers, answered, strict=True):
        if unknown is not None and unknown in ids:
            raise DataError(f"{where}: the tokenizer cannot write the answer {in_words(answer)}")
    lengths = np.array([(len(q), len(a)) for q, a in zip(asked, answered, strict=True)], dtype=np.int64)
    starts = np.concatenate([[0], lengths.sum(1).cumsum()[:-1]])
    images = np.array(survey.images, dtype=np.int64)
    outside = held_out[images]
    rows = np.column_stack([images, starts, lengths, outside]).astype("<i8")
    ids = np.concatenate([part for pair in zip(asked, answered, strict=True) for part in pair])
    (folder / TOKENS).write_bytes(ids.astype(dtype).tobytes())
    (folder / EXAMPLES).write_bytes(rows.tobytes())
    trained = Counter(answer for answer, out in zip(survey.answers, outside, strict=True) if not out)
    top = min(trained, key=lambda answer: (-trained[answer], answer))
    right = [answer == top for answer, out in zip(survey.answers, outside, strict=True) if out]
    manifest = ImageManifest(
        format=FORMAT,
        source_sha256=survey.sha256,
        image_size=settings.image_size,
        resize=settings.resize,
        validation_fraction=settings.validation_fraction,
        tokenizer_sha256=tokenizer_sha256,
        end=end,
        images=len(survey.numbers),
        shard_images=max(1, SHARD_BYTES // (settings.image_size**2 * COLORS)),
        train_examples=int((~outside).sum()),
        validation_examples=int(outside.sum()),
        tokens=len(ids),
        largest_token=int(ids.max()),
        most_frequent=top,
        most_frequent_accuracy=sum(right) / len(right),
        files={name: record(folder / name) for name in (TOKENS, EXAMPLES)},
    )
    assert np.dtype(EXAMPLE_DTYPE) == rows.dtype  # noqa: S101  what `ImageCorpus.examples` opens
    _save(folder, manifest)
    return manifest


def _kept(folder: Path) -> ImageManifest | None:
    """The manifest of an unfinished or damaged folder, with the shards before the first damaged one.

    None where the folder cannot be continued.
    """
    try:
        manifest = read_manifest(folder)
    except DataError:
        return None
    if any(damage(folder / name, expected) for name, expected in manifest.files.items()):
        return None
    whole = whole_shards(folder, manifest.shards, shard_name)
    return manifest.model_copy(update={"shards": whole, "finished": False})


def _write_shards(
    folder: Path, settings: ImageSettings, survey: _Survey, manifest: ImageManifest, progress: OnProgress
) -> None:
    """Decodes the images behind the manifest's shards, and writes them. Raises DataError."""
    each = manifest.shard_images
    images = _decoded(settings, survey, len(manifest.shards) * each, progress)
    for number in range(len(manifest.shards), -(-manifest.images // each)):
        sha256, size = hashlib.sha256(), 0
        with whole_file(folder / shard_name(number)) as partial, partial.open("wb") as file:
            for pixels in islice(images, each):
                raw = pixels.tobytes()
                size += file.write(raw)
                sha256.update(raw)
        shard = FileRecord(bytes=size, sha256=sha256.hexdigest())
        manifest = manifest.model_copy(update={"shards": (*manifest.shards, shard)})
        _save(folder, manifest)
    _save(folder, manifest.model_copy(update={"finished": True}))


def _decoded(
    settings: ImageSettings, survey: _Survey, first: int, progress: OnProgress
) -> Iterator[np.ndarray]:
    """Each different image from number `first` on, in order, as it is kept. Raises DataError."""
    done = 0
    for row, number in zip(read_rows(settings), survey.images, strict=False):
        if number < done:
            continue
        done += 1
        if number < first:
            continue
        raw = row.content()
        if survey.numbers.get(hashlib.sha256(raw).hexdigest()) != number:
            raise DataError(f"{row.name}: changed while it was read; start again")
        yield resized(decoded(raw, row.name), settings.image_size, settings.resize)
        progress("preparing images", done, len(survey.numbers))


def _save(folder: Path, manifest: ImageManifest) -> None:
    with whole_file(folder / MANIFEST) as partial:
        partial.write_text(manifest.text(), encoding="utf-8")
