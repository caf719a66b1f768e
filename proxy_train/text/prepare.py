"""Text -> memory-mapped tokens, prepared once: streamed, so that the text may be larger than memory, and continued after a kill."""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from tokenizers import Tokenizer

from operators.base.errors import DataError
from operators.base.files import locked, whole_file
from proxy_train.text import shards
from proxy_train.text import tokenizer as bpe
from proxy_train.text.corpus import (
    MANIFEST,
    TOKEN_BYTES,
    TOKENIZER,
    VALIDATION,
    Corpus,
    Manifest,
    open_corpus,
    read_manifest,
)
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.documents import Blanks, list_source, located, read_documents, source_files
from proxy_train.text.shards import damage, record, shard_name, write_shards
from proxy_train.text.source_record import SourceRecord
from proxy_train.text.split import Survey, keyed, survey

FORMAT = 2  # part of the cache's keys: raise it when the same settings would give other files
_SETTLED_S = (
    2.0  # a file written to later than this before it is read may change again without a new time of change
)

_READING = (
    2  # raise it when the same files would give other documents: remembered surveys are of the reading before
)
OnProgress = Callable[
    [str, int, int], None
]  # what is being done, how many documents are done, of how many (0: not known yet)


def prepare(
    settings: DataSettings,
    *,
    cache: Path | None = None,
    on_progress: OnProgress | None = None,
    on_source: Callable[[SourceRecord], None] | None = None,
) -> Corpus:
    """The corpus of a source: from the cache if it is there and whole, else tokenized and put there.

    The cache (default `$XDG_CACHE_HOME/frontrunner`, else `~/.cache/frontrunner`) has one folder for each content and settings. It is built
    under another name and appears by a rename, so that nothing half-written looks whole. What a kill or a full disk left, and a folder
    whose files are not those of its manifest, is mended: whole shards are kept and the others written again. Processes that prepare the
    same wait for each other.
    `on_source` hears which files are read and which are not, before any is read.
    Raises DataError for a source or tokenizer that cannot be used and for a cache that cannot be written.
    """
    cache, progress = cache or default_cache(), on_progress or (lambda *_: None)
    given = _given_tokenizer(settings)
    if on_source:
        on_source(list_source(settings.source).record)
    found = _survey(settings, cache, progress)
    folder = _folder(settings, found, cache)
    building = cache / f".building-{folder.name}"
    with contextlib.suppress(DataError):
        return open_corpus(folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            with contextlib.suppress(DataError):  # another process was faster
                return open_corpus(folder)
            if folder.exists():
                shutil.rmtree(building, ignore_errors=True)
                folder.rename(building)
            _build(building, settings, found, given, progress)
            building.rename(folder)
    except OSError as error:
        raise DataError(
            f"{cache}: the prepared data cannot be written: {error.strerror}; the next start goes on from here"
        ) from None
    except _SourceChangedError:
        shutil.rmtree(building, ignore_errors=True)
        _memo(settings, cache)[0].unlink(missing_ok=True)
        raise
    return open_corpus(folder)


def prepared(settings: DataSettings, *, cache: Path | None = None) -> Path:
    """The folder that `prepare` puts these settings' corpus into, whether it is there or not. Raises DataError."""
    cache = cache or default_cache()
    return _folder(settings, _survey(settings, cache, lambda *_: None), cache)


def unigram_loss(train_counts: np.ndarray, validation_counts: np.ndarray) -> float:
    """What a model that knows only how often tokens occur would lose: the cross-entropy, in nats per token, of all validation tokens under
    the training tokens' frequencies, one added to the count of every id of the vocabulary (both [vocabulary])."""
    smoothed = train_counts + 1.0
    return float(-(validation_counts * np.log(smoothed / smoothed.sum())).sum() / validation_counts.sum())


class _SourceChangedError(DataError):
    """The text was not the same in two readings."""


def default_cache() -> Path:
    """Where prepared text is kept unless somebody says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frontrunner"


def _folder(settings: DataSettings, found: Survey, cache: Path) -> Path:
    tokenizer = None
    if settings.tokenizer is not None:
        path = located(settings.tokenizer)
        otherwise = bpe.encodes_otherwise(path, settings.end_of_document)
        tokenizer = record(path).sha256 + ("-as-trained" if otherwise else "")
    identity = [
        FORMAT,
        found.source_sha256,
        settings.vocabulary,
        settings.validation_fraction,
        tokenizer,
        settings.end_of_document,
    ]
    return cache / f"tokens-{_digest(identity)}"


def _digest(identity: list[object]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]


def _given_tokenizer(settings: DataSettings) -> Tokenizer | None:
    if settings.tokenizer is None:
        return None
    tokenizer = bpe.load_tokenizer(located(settings.tokenizer), settings.end_of_document)
    bpe.require_room(tokenizer, settings.vocabulary, settings.tokenizer)
    bpe.end_of_document(tokenizer, settings.end_of_document, settings.tokenizer)
    return tokenizer


def _survey(settings: DataSettings, cache: Path, progress: OnProgress) -> Survey:
    """The survey of the source; remembered, for as long as its files have the same sizes and times of change."""
    begun, (memo, changed) = time.time(), _memo(settings, cache)
    with contextlib.suppress(OSError, ValidationError):
        return Survey.model_validate_json(memo.read_bytes())
    record, blanks = list_source(settings.source).record, Blanks()
    documents = read_documents(settings.source, settings.text_column, blanks)
    found = survey(_counted(documents, "reading", 0, progress), settings.validation_fraction)
    found = found.model_copy(update={"read": record.after_reading(blanks.files, blanks.documents)})
    if changed < begun - _SETTLED_S:
        with contextlib.suppress(OSError):  # it saves time and nothing else
            cache.mkdir(parents=True, exist_ok=True)
            with whole_file(memo, apart=True) as partial:
                partial.write_text(found.model_dump_json(indent=2), encoding="utf-8")
    return found


def _memo(settings: DataSettings, cache: Path) -> tuple[Path, float]:
    """Where the survey of the source as it is now is remembered, and when a file of it was last changed, in seconds of `time.time`."""
    files, changed = [], 0.0
    for path in source_files(settings.source):
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        files.append((str(path), stat.st_size, stat.st_mtime_ns))
        changed = max(changed, stat.st_mtime)
    return (
        cache
        / f"source-{_digest([FORMAT, _READING, files, settings.text_column, settings.validation_fraction])}.json",
        changed,
    )


def _counted(documents: Iterable[str], what: str, total: int, progress: OnProgress) -> Iterator[str]:
    for done, text in enumerate(documents, start=1):
        yield text
        progress(what, done, total)


def _build(
    folder: Path, settings: DataSettings, found: Survey, given: Tokenizer | None, progress: OnProgress
) -> None:
    """Everything that a corpus needs, in `folder`; what is there and whole is kept."""
    manifest = _kept(folder)
    if manifest is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        manifest = _begun(folder, settings, found, given, progress)
    _save(folder, manifest)
    encoded = _encoded(folder, settings, found, manifest, progress)
    for shard in write_shards(folder, encoded, number=len(manifest.shards)):
        manifest = manifest.model_copy(update={"shards": (*manifest.shards, shard)})
        _save(folder, manifest)
    train = _counts(manifest, *(folder / shard_name(number) for number in range(len(manifest.shards))))
    loss = unigram_loss(train, _counts(manifest, folder / VALIDATION))
    _save(folder, manifest.model_copy(update={"finished": True, "unigram_loss": loss}))


def _kept(folder: Path) -> Manifest | None:
    """The manifest of an unfinished or damaged folder with its whole shards, up to the first that is not; None where it cannot be used."""
    try:
        manifest, _ = read_manifest(folder)
    except DataError:
        return None
    if manifest.shard_tokens != shards.SHARD_TOKENS or any(
        damage(folder / name, expected) for name, expected in manifest.files.items()
    ):
        return None
    whole = takewhile(
        lambda item: damage(folder / shard_name(item[0]), item[1]) is None, enumerate(manifest.shards)
    )
    return manifest.model_copy(update={"shards": tuple(shard for _, shard in whole), "finished": False})


def _begun(
    folder: Path, settings: DataSettings, found: Survey, given: Tokenizer | None, progress: OnProgress
) -> Manifest:
    """The tokenizer and the validation text, from one reading of the source."""
    held: dict[bytes, str] = {}
    source, train_documents, train_bytes = hashlib.sha256(), 0, 0

    def sample() -> Iterator[str]:
        nonlocal train_documents, train_bytes
        documents = _counted(
            read_documents(settings.source, settings.text_column),
            "reading for the tokenizer",
            found.documents,
            progress,
        )
        for text, key in keyed(documents, source):
            train, validation = found.split.parts(text, key)
            if train:
                train_documents += 1
                train_bytes += len(train.encode())
                if found.split.sampled(key):
                    yield train
            if validation:
                held[key] = validation

    if given is None:
        tokenizer = bpe.train_tokenizer(sample(), settings.vocabulary)
        (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    else:
        deque(sample(), maxlen=0)
        tokenizer = given
        shutil.copyfile(located(str(settings.tokenizer)), folder / TOKENIZER)
    _require_same(source.hexdigest(), settings, found)
    end = bpe.end_of_document(tokenizer, settings.end_of_document, TOKENIZER)
    end_id = tokenizer.get_vocab()[end]
    dtype = np.dtype("<u2" if settings.vocabulary <= 2**16 else "<u4")
    validation = [text for _, text in sorted(held.items())]
    with (folder / VALIDATION).open("wb") as file:
        for ids in bpe.encode(tokenizer, validation, end_id, dtype):
            file.write(ids.tobytes())
    (folder / TOKEN_BYTES).write_bytes(
        bpe.token_bytes(tokenizer, settings.vocabulary, end_id).astype("<u4").tobytes()
    )
    files = {name: record(folder / name) for name in (VALIDATION, TOKEN_BYTES, TOKENIZER)}
    return Manifest(
        format=FORMAT,
        source_sha256=found.source_sha256,
        vocabulary=settings.vocabulary,
        validation_fraction=settings.validation_fraction,
        tokenizer_tokens=tokenizer.get_vocab_size(),
        end_of_document=end,
        dtype=dtype.name,
        train_documents=train_documents,
        train_bytes=train_bytes,
        validation_documents=len(validation),
        validation_tokens=files[VALIDATION].bytes // dtype.itemsize,
        validation_bytes=sum(len(text.encode()) for text in validation),
        shard_tokens=shards.SHARD_TOKENS,
        files=files,
        read=found.read,
    )


def _encoded(
    folder: Path, settings: DataSettings, found: Survey, manifest: Manifest, progress: OnProgress
) -> Iterator[tuple[int, int, np.ndarray]]:
    """What `write_shards` takes, from where the manifest's shards end."""
    tokenizer = bpe.load_tokenizer(folder / TOKENIZER, manifest.end_of_document)
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    first, written = (
        (manifest.shards[-1].document, manifest.shards[-1].document_tokens) if manifest.shards else (0, 0)
    )
    source, numbers = hashlib.sha256(), deque[int]()

    def remaining() -> Iterator[str]:
        documents = _counted(
            read_documents(settings.source, settings.text_column), "encoding", found.documents, progress
        )
        for number, (text, key) in enumerate(keyed(documents, source)):
            train, _ = found.split.parts(text, key)
            if train and number >= first:
                numbers.append(number)
                yield train

    for ids in bpe.encode(tokenizer, remaining(), tokenizer.get_vocab()[manifest.end_of_document], dtype):
        number = numbers.popleft()
        before = written if number == first else 0
        if before < len(ids):
            yield number, before, ids[before:]
    _require_same(source.hexdigest(), settings, found)


def _require_same(source_sha256: str, settings: DataSettings, found: Survey) -> None:
    if source_sha256 != found.source_sha256:
        raise _SourceChangedError(
            f"source {settings.source}: the text changed while it was read; start again"
        )


def _counts(manifest: Manifest, *files: Path) -> np.ndarray:
    """How often each id occurs: [vocabulary]."""
    counts, at_once = np.zeros(manifest.vocabulary, dtype=np.int64), 2**22
    for path in files:
        ids = np.memmap(path, dtype=np.dtype(manifest.dtype).newbyteorder("<"), mode="r")
        for first in range(0, len(ids), at_once):
            counts += np.bincount(ids[first : first + at_once], minlength=manifest.vocabulary)
    return counts


def _save(folder: Path, manifest: Manifest) -> None:
    with whole_file(folder / MANIFEST) as partial:
        partial.write_text(manifest.text(), encoding="utf-8")
