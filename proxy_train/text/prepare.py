"""Turns text into memory-mapped tokens, once.

The text is streamed, so that it may be larger than memory. A preparation that was killed is continued.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from tokenizers import Tokenizer

from operators.base.errors import DataError
from operators.base.files import whole_file
from proxy_train.cache import OnProgress, cached, default_cache, whole_shards
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

# A part of the cache's keys: raise it when the same settings would give other files.
FORMAT = 2
# Seconds. A file that was changed this shortly before it is read may change again
# without a new time of change.
_SETTLED_S = 2.0
# A part of a remembered survey's key: raise it when the same files would give other documents.
_READING = 3
# Called with what is being done: reads the source from its start.
Reading = Callable[[str], Iterator[str]]


def prepare(
    settings: DataSettings,
    *,
    cache: Path | None = None,
    on_progress: OnProgress | None = None,
    on_source: Callable[[SourceRecord], None] | None = None,
) -> Corpus:
    """The corpus of a source: from the cache if it is there and whole, else tokenized and put there.

    The cache has one folder for each content and settings (`proxy_train.cache`). A folder that a kill or a
    full disk left unfinished is finished, and a damaged one is mended: whole shards are kept, the others are
    written again.

    settings: the source, its tokenizer and its split.
    cache: the folder of the cache; None for `$XDG_CACHE_HOME/frontrunner`, or else `~/.cache/frontrunner`.
    on_progress: called after each document.
    on_source: called once, before any file is read, with what is going to be read and what is not.

    Raises DataError for a source or tokenizer that cannot be used and for a cache that cannot be written.
    """
    preparation = _Preparation(settings, cache or default_cache(), on_progress or _unheard)
    given = preparation.given_tokenizer()
    if on_source:
        on_source(list_source(settings.source).record)
    surveyed = preparation.survey()

    def build(building: Path) -> None:
        try:
            preparation.build(building, surveyed, given)
        except _SourceChangedError:
            shutil.rmtree(building, ignore_errors=True)
            preparation.memo()[0].unlink(missing_ok=True)
            raise DataError(
                f"source {settings.source}: the text changed while it was read; start again"
            ) from None

    return cached(preparation.folder(surveyed), open_corpus, build, what="data")


def prepared(settings: DataSettings, *, cache: Path | None = None) -> Path:
    """The folder in which `prepare` puts the corpus of these settings; it may not exist. Raises DataError."""
    preparation = _Preparation(settings, cache or default_cache())
    return preparation.folder(preparation.survey())


def what_is_read(settings: DataSettings, *, cache: Path | None = None) -> SourceRecord | None:
    """What of the source as it is now is read and what is not. Raises DataError.

    The manifest tells it of the source that the corpus was made of; another one, with the same text, may have
    other files beside it.
    """
    return _Preparation(settings, cache or default_cache()).survey().read


def unigram_loss(train_counts: np.ndarray, validation_counts: np.ndarray) -> float:
    """The loss (nats per token) of a model that knows only how often tokens occur.

    It is the cross-entropy of the validation tokens under the frequencies of the training tokens. One is
    added to the count of every id, so that none has the probability 0.

    train_counts: how often each id occurs in the training text: [vocabulary].
    validation_counts: how often each id occurs in the validation text: [vocabulary].
    """
    smoothed = train_counts + 1.0
    return float(-(validation_counts * np.log(smoothed / smoothed.sum())).sum() / validation_counts.sum())


class _SourceChangedError(Exception):
    """Two readings of a source gave different text."""


def _unheard(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


@dataclass(frozen=True)
class _Preparation:
    """One preparation: what it is asked for, the folder of the cache, and who hears how far it is."""

    settings: DataSettings
    cache: Path
    progress: OnProgress = _unheard

    def given_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that the settings name; None where one is trained. Raises DataError."""
        settings = self.settings
        if settings.tokenizer is None:
            return None
        tokenizer = bpe.load_tokenizer(located(settings.tokenizer), settings.end_of_document)
        bpe.require_room(tokenizer, settings.vocabulary, settings.tokenizer)
        bpe.end_of_document(tokenizer, settings.end_of_document, settings.tokenizer)
        return tokenizer

    def survey(self) -> Survey:
        """The survey of the source; it is remembered while the files keep their sizes and times of change."""
        begun, (memo, changed) = time.time(), self.memo()
        record, blanks = list_source(self.settings.source).record, Blanks()
        with contextlib.suppress(OSError, ValidationError):
            found = Survey.model_validate_json(memo.read_bytes())
            return _with_record(found, record, found.blank_files, found.blank_documents)
        documents = read_documents(self.settings.source, self.settings.text_column, blanks)
        surveyed = survey(_counted(documents, "reading", 0, self.progress), self.settings.validation_fraction)
        surveyed = _with_record(surveyed, record, tuple(blanks.files), blanks.documents)
        if changed < begun - _SETTLED_S:
            with contextlib.suppress(OSError):  # the file only saves time
                self.cache.mkdir(parents=True, exist_ok=True)
                with whole_file(memo, apart=True) as partial:
                    partial.write_text(surveyed.model_dump_json(indent=2), encoding="utf-8")
        return surveyed

    def memo(self) -> tuple[Path, float]:
        """The file with the survey of the source as it is now, and the last change of one of its files.

        The change is in seconds, as `time.time` counts them.
        """
        files, changed = [], 0.0
        for path in source_files(self.settings.source):
            try:
                stat = path.stat()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None
            files.append((str(path), stat.st_size, stat.st_mtime_ns))
            changed = max(changed, stat.st_mtime)
        identity = [FORMAT, _READING, files, self.settings.text_column, self.settings.validation_fraction]
        return self.cache / f"source-{_digest(identity)}.json", changed

    def folder(self, surveyed: Survey) -> Path:
        """The folder of these settings and this text; its name is a hash of all that decides the tokens."""
        settings, tokenizer = self.settings, None
        if settings.tokenizer is not None:
            path = located(settings.tokenizer)
            otherwise = bpe.encodes_otherwise(path, settings.end_of_document)
            tokenizer = record(path).sha256 + ("-as-trained" if otherwise else "")
        identity = [
            FORMAT,
            surveyed.source_sha256,
            settings.vocabulary,
            settings.validation_fraction,
            tokenizer,
            settings.end_of_document,
        ]
        return self.cache / f"tokens-{_digest(identity)}"

    def build(self, folder: Path, surveyed: Survey, given: Tokenizer | None) -> None:
        """Writes everything that a corpus needs into `folder`, and keeps what is there and whole."""

        def reading(what: str) -> Iterator[str]:
            documents = read_documents(self.settings.source, self.settings.text_column)
            return _counted(documents, what, surveyed.documents, self.progress)

        manifest = _kept(folder)
        if manifest is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            manifest = self._begun(folder, surveyed, given, reading)
        _save(folder, manifest)
        encoded = _encoded(folder, surveyed, manifest, reading)
        for shard in write_shards(folder, encoded, number=len(manifest.shards)):
            manifest = manifest.model_copy(update={"shards": (*manifest.shards, shard)})
            _save(folder, manifest)
        train = _counts(manifest, *(folder / shard_name(number) for number in range(len(manifest.shards))))
        loss = unigram_loss(train, _counts(manifest, folder / VALIDATION))
        _save(folder, manifest.model_copy(update={"finished": True, "unigram_loss": loss}))

    def _begun(self, folder: Path, surveyed: Survey, given: Tokenizer | None, reading: Reading) -> Manifest:
        """Writes the tokenizer and the validation text, from one reading of the source.

        The manifest that it returns lists no shard yet.
        """
        settings = self.settings
        held: dict[bytes, str] = {}
        source, train_documents, train_bytes = hashlib.sha256(), 0, 0

        def sample() -> Iterator[str]:
            nonlocal train_documents, train_bytes
            for text, key in keyed(reading("reading for the tokenizer"), source):
                train, validation = surveyed.split.parts(text, key)
                if train:
                    train_documents += 1
                    train_bytes += len(train.encode())
                    if surveyed.split.sampled(key):
                        yield train
                if validation:
                    held[key] = validation

        if given is None:
            tokenizer = bpe.train_tokenizer(sample(), settings.vocabulary)
            (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
        else:
            deque(sample(), maxlen=0)  # reads to the end for the counts and the validation text
            tokenizer = given
            shutil.copyfile(located(str(settings.tokenizer)), folder / TOKENIZER)
        _require_same(source.hexdigest(), surveyed)
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
            source_sha256=surveyed.source_sha256,
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
            read=surveyed.read,
        )


def _with_record(found: Survey, record: SourceRecord, files: tuple[str, ...], documents: int) -> Survey:
    """The survey with what lies in the source now: what is not read may change while the text does not."""
    read = record.after_reading(files, documents)
    return found.model_copy(update={"read": read, "blank_files": files, "blank_documents": documents})


def _digest(identity: list[object]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]


def _counted(documents: Iterable[str], what: str, total: int, progress: OnProgress) -> Iterator[str]:
    for done, text in enumerate(documents, start=1):
        yield text
        progress(what, done, total)


def _kept(folder: Path) -> Manifest | None:
    """The manifest of an unfinished or damaged folder; None where the folder cannot be continued.

    It lists the shards before the first one that is missing or damaged.
    """
    try:
        manifest, _ = read_manifest(folder)
    except DataError:
        return None
    if manifest.shard_tokens != shards.SHARD_TOKENS or any(
        damage(folder / name, expected) for name, expected in manifest.files.items()
    ):
        return None
    whole = whole_shards(folder, manifest.shards, shard_name)
    return manifest.model_copy(update={"shards": whole, "finished": False})


def _encoded(
    folder: Path, surveyed: Survey, manifest: Manifest, reading: Reading
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The training text for `write_shards`, from where the manifest's shards end."""
    tokenizer = bpe.load_tokenizer(folder / TOKENIZER, manifest.end_of_document)
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    first, written = (
        (manifest.shards[-1].document, manifest.shards[-1].document_tokens) if manifest.shards else (0, 0)
    )
    source, numbers = hashlib.sha256(), deque[int]()

    def remaining() -> Iterator[str]:
        for number, (text, key) in enumerate(keyed(reading("encoding"), source)):
            train, _ = surveyed.split.parts(text, key)
            if train and number >= first:
                numbers.append(number)
                yield train

    for ids in bpe.encode(tokenizer, remaining(), tokenizer.get_vocab()[manifest.end_of_document], dtype):
        number = numbers.popleft()
        before = written if number == first else 0
        if before < len(ids):
            yield number, before, ids[before:]
    _require_same(source.hexdigest(), surveyed)


def _require_same(source_sha256: str, surveyed: Survey) -> None:
    if source_sha256 != surveyed.source_sha256:
        raise _SourceChangedError


def _counts(manifest: Manifest, *files: Path) -> np.ndarray:
    """How often each id occurs: [vocabulary]."""
    counts = np.zeros(manifest.vocabulary, dtype=np.int64)
    at_once = 2**22  # ids; bincount needs 32 MiB for as many
    for path in files:
        ids = np.memmap(path, dtype=np.dtype(manifest.dtype).newbyteorder("<"), mode="r")
        for first in range(0, len(ids), at_once):
            counts += np.bincount(ids[first : first + at_once], minlength=manifest.vocabulary)
    return counts


def _save(folder: Path, manifest: Manifest) -> None:
    with whole_file(folder / MANIFEST) as partial:
        partial.write_text(manifest.text(), encoding="utf-8")
