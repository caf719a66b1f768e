"""A folder of prepared text: its manifest, and the value that stands for it."""

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
    """What was made of a source.

    source_sha256: see `split.Survey`. vocabulary: every id is below it; tokenizer_tokens: how many tokens the tokenizer has.
    end_of_document: the token behind every document. train_bytes, validation_bytes: UTF-8 bytes of the documents, the ends of documents
    counting none. shard_tokens: in each shard but the last. files, shards: what there must be beside the manifest.
    finished: whether all shards are there. unigram_loss: nats per token, see `prepare.unigram_loss`; 0 before that.
    read: what of the source was read and what was not, when it was prepared; None in manifests written before this was recorded.
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
        """What is in the file."""
        return self.model_dump_json(indent=2) + "\n"

    def digest(self) -> str:
        """SHA-256 (hex) of everything that decides what models see: not of what lay beside the text, which may change without it."""
        deciding = self.model_dump_json(indent=2, exclude={"read"}) + "\n"
        return hashlib.sha256(deciding.encode()).hexdigest()

    @property
    def train_tokens(self) -> int:
        return sum(shard.bytes for shard in self.shards) // np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Corpus:
    """Prepared tokens: a path and numbers, so that it costs nothing to send to another process. Files are opened when they are read.

    vocabulary: what the models must have; every id is below it.
    train_tokens, validation_tokens: how many there are, ends of documents included. validation_bytes: of the documents, in UTF-8.
    unigram_loss: nats per token. digest: see `Manifest.digest`; the manifest holds the hashes of all files.
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
        """Token ids of the training documents, each followed by the end-of-document token: train_tokens of them."""
        firsts = range(0, self.train_tokens, self.shard_tokens)
        counts = [min(self.shard_tokens, self.train_tokens - first) for first in firsts]
        return Tokens(
            tuple(
                open_tokens(self.folder / shard_name(number), self.dtype, count)
                for number, count in enumerate(counts)
            )
        )

    def validation(self) -> np.ndarray:
        """The same of the validation documents: [validation_tokens], read-only."""
        return open_tokens(self.folder / VALIDATION, self.dtype, self.validation_tokens)

    def token_bytes(self) -> np.ndarray:
        """How many bytes of text each id stands for (the end of a document: none): [vocabulary] uint32."""
        return open_tokens(self.folder / TOKEN_BYTES, "uint32", self.vocabulary)

    def tokenizer(self) -> Tokenizer:
        """Decodes ids, and encodes text as the corpus was. Raises DataError where the file is not the one that the corpus was made with."""
        manifest, _ = read_manifest(self.folder)
        if wrong := damage(self.folder / TOKENIZER, manifest.files[TOKENIZER]):
            raise DataError(f"{wrong}; prepare the data again on this machine")
        return bpe.load_tokenizer(self.folder / TOKENIZER, manifest.end_of_document)


def unknown_tokens(folder: Path) -> int:
    """How many of a folder's validation tokens stand for text that the tokenizer has no token for. Raises DataError."""
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
    """The same. Raises DataError where preparing is not finished, and for every file of another size or, if compared, another hash."""
    manifest, digest = read_manifest(folder)
    if not manifest.finished:
        raise DataError(f"{folder}: preparing was interrupted; prepare the data again to finish it")
    records = {
        **manifest.files,
        **{shard_name(number): shard for number, shard in enumerate(manifest.shards)},
    }
    if wrong := [
        found for name, record in records.items() if (found := damage(folder / name, record, hashes=hashes))
    ]:
        raise DataError(f"{'; '.join(wrong)}; prepare the data again on this machine")
    return manifest, digest


def open_corpus(folder: Path) -> Corpus:
    """The corpus in a folder. Raises DataError where there is none, it is not finished, or a file of it is damaged."""
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
