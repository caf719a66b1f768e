"""Prepared text: the manifest of its folder, and `Corpus`, the value that others use."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from tokenizers import Tokenizer

from operators.base.errors import DataError
from operators.base.value import Value
from proxy_train.text import tokenizer as bpe
from proxy_train.text.shards import FileRecord, ShardRecord, Tokens, damage, open_tokens, shard_name
from proxy_train.text.source_record import SourceRecord

VALIDATION, TOKEN_BYTES, TOKENIZER, MANIFEST = (
    "validation.bin",
    "token_bytes.bin",
    "tokenizer.json",
    "manifest.json",
)


class Manifest(Value):
    """What was prepared from a source.

    format: `prepare.FORMAT`.
    source_sha256: see `split.Survey`.
    vocabulary: every id is below it.
    validation_fraction: see `DataSettings`.
    tokenizer_tokens: tokens that the tokenizer has.
    end_of_document: the token that follows every document.
    dtype: of the ids on disk (`uint16` or `uint32`).
    train_documents, validation_documents: how many documents.
    train_bytes, validation_bytes: UTF-8 bytes of the documents; the ends of documents count none.
    validation_tokens: tokens of the validation text, ends of documents included.
    shard_tokens: tokens in each shard but the last.
    files: the other files beside the manifest, by name.
    shards: the shards beside the manifest, in order.
    finished: whether all shards are there.
    unigram_loss: nats per token, see `prepare.unigram_loss`; 0 until all shards are there.
    read: what of the source was read and what was not; None in manifests of versions that did not record it.
    """

    format: int
    source_sha256: str
    vocabulary: int
    validation_fraction: float
    tokenizer_tokens: int
    end_of_document: str
    dtype: str
    train_documents: int
    train_bytes: int
    validation_documents: int
    validation_tokens: int
    validation_bytes: int
    shard_tokens: int
    files: Mapping[str, FileRecord]
    shards: tuple[ShardRecord, ...] = ()
    finished: bool = False
    unigram_loss: float = 0.0
    read: SourceRecord | None = None

    def text(self) -> str:
        """The content of the file."""
        return self.model_dump_json(indent=2) + "\n"

    def digest(self) -> str:
        """SHA-256 (hex) of all that decides what models see.

        `read` does not count: files beside the text may change without it.
        """
        deciding = self.model_dump_json(indent=2, exclude={"read"}) + "\n"
        return hashlib.sha256(deciding.encode()).hexdigest()

    @property
    def train_tokens(self) -> int:
        return sum(shard.bytes for shard in self.shards) // np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Corpus:
    """Prepared tokens.

    The value holds a path and numbers alone, so that it costs nothing to send to another process. Its methods
    open the files.

    folder: of the manifest and the files.
    vocabulary: the vocabulary that models must have; every id is below it.
    dtype: of the ids on disk (`uint16` or `uint32`).
    train_tokens, validation_tokens: tokens, ends of documents included.
    shard_tokens: tokens in each shard but the last.
    validation_bytes: of the validation documents, in UTF-8.
    unigram_loss: nats per token, see `prepare.unigram_loss`.
    digest: see `Manifest.digest`; the manifest holds the hashes of all files.
    """

    folder: Path
    vocabulary: int
    dtype: str
    train_tokens: int
    shard_tokens: int
    validation_tokens: int
    validation_bytes: int
    unigram_loss: float
    digest: str

    def train(self) -> Tokens:
        """Ids of the training documents, each followed by the end-of-document token: train_tokens in all."""
        firsts = range(0, self.train_tokens, self.shard_tokens)
        counts = [min(self.shard_tokens, self.train_tokens - first) for first in firsts]
        return Tokens(
            tuple(
                open_tokens(self.folder / shard_name(number), self.dtype, count)
                for number, count in enumerate(counts)
            )
        )

    def validation(self) -> np.ndarray:
        """The same for the validation documents: [validation_tokens], read-only."""
        return open_tokens(self.folder / VALIDATION, self.dtype, self.validation_tokens)

    def token_bytes(self) -> np.ndarray:
        """How many bytes of text each id stands for (none for the end of a document): [vocabulary] uint32."""
        return open_tokens(self.folder / TOKEN_BYTES, "uint32", self.vocabulary)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that encoded the corpus. Raises DataError where its file has been changed."""
        manifest, _ = read_manifest(self.folder)
        if wrong := damage(self.folder / TOKENIZER, manifest.files[TOKENIZER]):
            raise DataError(f"{wrong}; prepare the data again on this machine")
        return bpe.load_tokenizer(self.folder / TOKENIZER, manifest.end_of_document)


def unknown_tokens(folder: Path) -> int:
    """How many validation tokens in a folder stand for text without a token of its own. Raises DataError."""
    manifest, _ = read_manifest(folder)
    unknown = bpe.unknown_id(bpe.load_tokenizer(folder / TOKENIZER, manifest.end_of_document))
    validation = open_tokens(folder / VALIDATION, manifest.dtype, manifest.validation_tokens)
    return 0 if unknown is None else int((validation == unknown).sum())


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a folder and its digest. Raises DataError."""
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
        manifest = Manifest.model_validate_json(raw)
        return manifest, manifest.digest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; prepare the data again on this machine"
        ) from None
    except ValidationError:
        raise DataError(
            f"{path}: not the manifest of prepared data; prepare the data again on this machine"
        ) from None


def finished_manifest(folder: Path, *, hashes: bool) -> tuple[Manifest, str]:
    """The manifest of a folder and its digest, if the folder is finished and whole.

    hashes: whether to compare the files' hashes, beside their sizes.

    Raises DataError where preparing is not finished, or a file has another size or hash.
    """
    manifest, digest = read_manifest(folder)
    if not manifest.finished:
        raise DataError(f"{folder}: preparing was interrupted; prepare the data again to finish it")
    records = {
        **manifest.files,
        **{shard_name(number): shard for number, shard in enumerate(manifest.shards)},
    }
    damages = [damage(folder / name, record, hashes=hashes) for name, record in records.items()]
    if wrong := [damaged for damaged in damages if damaged]:
        raise DataError(f"{'; '.join(wrong)}; prepare the data again on this machine")
    return manifest, digest


def open_corpus(folder: Path) -> Corpus:
    """The corpus in a folder. Raises DataError where there is none, or it is unfinished or damaged."""
    manifest, digest = finished_manifest(folder, hashes=True)
    return Corpus(
        folder=folder.absolute(),
        vocabulary=manifest.vocabulary,
        dtype=manifest.dtype,
        train_tokens=manifest.train_tokens,
        shard_tokens=manifest.shard_tokens,
        validation_tokens=manifest.validation_tokens,
        validation_bytes=manifest.validation_bytes,
        unigram_loss=manifest.unigram_loss,
        digest=digest,
    )
