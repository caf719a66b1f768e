"""Which documents are for training and which for validation: decided by their contents, in one pass that holds no text."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from operators.base.errors import DataError
from operators.base.value import Value
from proxy_train.text.source_record import SourceRecord

VALIDATION_CHARACTERS = (
    2**26
)  # as much as is ever held out: no run scores more, and the validation text is held in memory to be sorted
TOKENIZER_CHARACTERS = (
    2**27
)  # as much as a tokenizer is trained on: more changes its merges little and takes long
_KEY = 16  # bytes of a document's SHA-256 that stand for it: their order is its order, and equal ones mean equal documents


class Split(Value):
    """The rule of a source. Keys are the beginnings of SHA-256s, in hexadecimal.

    Held out are the documents whose key is from `first` to `last` and that have at most `longest` characters. Where all documents are
    equal, `cut` is how many characters of each are for training; the rest is the validation. The tokenizer is trained on the documents
    for training with keys up to `sample`.
    """

    first: str
    last: str
    longest: int
    cut: int | None
    sample: str

    def parts(self, text: str, key: bytes) -> tuple[str, str]:
        """What of a document is for training and what for validation; one of them is empty, unless documents are cut."""
        if self.cut is not None:
            return text[: self.cut], text[self.cut :]
        held_out = self.first <= key[:_KEY].hex() <= self.last and len(text) <= self.longest
        return ("", text) if held_out else (text, "")

    def sampled(self, key: bytes) -> bool:
        return key[:_KEY].hex() <= self.sample


class Survey(Value):
    """What one reading of a source tells.

    source_sha256: over the SHA-256s of the documents, see `keyed`. characters: of all documents. read: the files that they came from.
    blank_files, blank_documents: what only the reading tells about them, see `SourceRecord.after_reading`.
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
    """Reads all documents once and decides their split; 24 bytes a document are held, and as many again to sort them.

    Documents go to validation by ascending key until they hold `validation_fraction` of the text, at most VALIDATION_CHARACTERS. A
    document longer than that share stays in training; where all are, the shortest is the validation. Equal documents go to the same side;
    where all are equal (one single document, above all), each is cut and the tail is the validation.
    Raises DataError where one character is all there is.
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
    """keys: [documents] of bytes. lengths: [documents], in characters."""
    keys, places = np.unique(keys, return_index=True)
    lengths = lengths[places]
    everything = "f" * 2 * _KEY

    def key(place: int) -> str:
        return keys[place : place + 1].tobytes().hex()  # an element of its own would lose zeros at its end

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
