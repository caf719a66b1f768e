"""Decides by their contents which documents are for validation, in one pass that keeps no text in memory."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from operators.base.errors import DataError
from operators.base.value import Value
from proxy_train.text.source_record import SourceRecord

# The largest validation text: no run scores more, and the text is in memory while it is sorted.
VALIDATION_CHARACTERS = 2**26
# The largest text to train a tokenizer on: more text takes long and changes its merges little.
TOKENIZER_CHARACTERS = 2**27
# Bytes of a document's SHA-256 that are its key. Keys order the documents; 16 bytes are
# too many to be equal by chance.
_KEY = 16


class Split(Value):
    """Which text of a source is for validation. Keys are the first _KEY bytes of a SHA-256, in hexadecimal.

    first, last: documents with keys from `first` to `last` are held out,
    longest: if they have at most this many characters.
    cut: where all documents are equal, the characters of each that are for training; the rest is for
        validation. None where documents differ.
    sample: the tokenizer is trained on training documents with keys up to this one.
    """

    first: str
    last: str
    longest: int
    cut: int | None
    sample: str

    def parts(self, text: str, key: bytes) -> tuple[str, str]:
        """The parts of a document for training and for validation; one is empty, unless documents are cut."""
        if self.cut is not None:
            return text[: self.cut], text[self.cut :]
        held_out = self.first <= key[:_KEY].hex() <= self.last and len(text) <= self.longest
        return ("", text) if held_out else (text, "")

    def sampled(self, key: bytes) -> bool:
        """Whether the tokenizer is trained on the document with this key."""
        return key[:_KEY].hex() <= self.sample


class Survey(Value):
    """What one reading of a source shows.

    source_sha256: SHA-256 (hex) over the SHA-256s of the documents, see `keyed`.
    documents: how many.
    characters: of all documents.
    split: which of them are for validation.
    read: the files that they came from.
    blank_files, blank_documents: what reading alone shows of them, see `SourceRecord.after_reading`.
    """

    source_sha256: str
    documents: int
    characters: int
    split: Split
    read: SourceRecord | None = None
    blank_files: tuple[str, ...] = ()
    blank_documents: int = 0


def keyed(documents: Iterable[str], source: "hashlib._Hash") -> Iterator[tuple[str, bytes]]:
    """Each document with its key, the SHA-256 of its UTF-8 text, which also goes into `source`."""
    for text in documents:
        key = hashlib.sha256(text.encode()).digest()
        source.update(key)
        yield text, key


def survey(documents: Iterable[str], validation_fraction: float) -> Survey:
    """Reads all documents once and decides their split.

    It needs 24 bytes of memory a document, and as many again to sort them. Documents go to validation by
    ascending key until they hold their share of the text. A document longer than that share stays in
    training; where all are, the shortest one is the validation. Equal documents go to the same side. Where
    all are equal (or there is only one), each is cut and its tail is the validation.

    validation_fraction: the share of the text's characters for validation, at most VALIDATION_CHARACTERS.

    Raises DataError where the text is a single character.
    """
    source, keys, lengths = hashlib.sha256(), bytearray(), array("q")
    for text, key in keyed(documents, source):
        keys += key[:_KEY]
        lengths.append(len(text))
    characters = sum(lengths)
    split = _split(
        np.frombuffer(keys, dtype=f"S{_KEY}"),
        np.frombuffer(lengths, dtype=np.int64),
        characters,
        validation_fraction,
    )
    return Survey(
        source_sha256=source.hexdigest(), documents=len(lengths), characters=characters, split=split
    )


def _split(keys: np.ndarray, lengths: np.ndarray, characters: int, validation_fraction: float) -> Split:
    """The split of the documents.

    keys: [documents] of bytes.
    lengths: [documents], in characters.
    characters: the sum of all lengths.
    """
    keys, places = np.unique(keys, return_index=True)
    lengths = lengths[places]
    everything = "f" * 2 * _KEY

    def key(place: int) -> str:
        return keys[place : place + 1].tobytes().hex()  # a slice, as a single element loses zeros at its end

    if len(keys) == 1:
        have = int(lengths[0])
        cut = min(max(1, have - min(round(have * validation_fraction), VALIDATION_CHARACTERS)), have - 1)
        if cut < 1:
            raise DataError(f"text too short to split: expected at least 2 characters, got {have}")
        return Split(first=key(0), last=key(0), longest=have, cut=cut, sample=everything)
    target = min(validation_fraction * characters, VALIDATION_CHARACTERS)
    fits = lengths <= target
    held_before = np.cumsum(lengths * fits) - lengths * fits
    chosen = fits & (held_before < target)
    first, last, longest = "", "", int(target)
    if chosen.any() and not chosen.all():
        last = key(int(np.flatnonzero(chosen)[-1]))
    else:
        shortest = int(lengths.argmin())
        first, last, longest = key(shortest), key(shortest), int(lengths[shortest])
    learned = np.cumsum(lengths)
    beyond = int(np.searchsorted(learned, TOKENIZER_CHARACTERS))
    return Split(
        first=first,
        last=last,
        longest=longest,
        cut=None,
        sample=key(beyond) if beyond < len(keys) else everything,
    )
