"""The tokens of a GGUF file."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

# Kinds of tokens in GGUF; the last one is that of a byte.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, LAST_KIND = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE as GGUF holds it.

    tokens: by id.
    kinds: of each token.
    merges: pairs of tokens with a space between, the first one goes first.
    splitting: the name that llama.cpp gives to how text is split into words.
    end: id of the token that ends a text.
    begin: id of the token that begins a text; None for none.
    puts_begin, puts_end: whether a text gets these tokens.
    """

    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    splitting: str
    end: int
    begin: int | None = None
    puts_begin: bool = False
    puts_end: bool = False


def padded(vocabulary: Vocabulary | None, size: int) -> Vocabulary:
    """The same vocabulary with unused tokens up to the rows of the embedding.

    vocabulary: None for one without a token for any text, as llama.cpp cannot run a model without tokens.
    size: rows of the embedding.
    """
    known = vocabulary or Vocabulary((), (), (), "gpt-2", end=size - 1)
    more, names = range(len(known.tokens), size), frozenset(known.tokens)
    return replace(
        known,
        tokens=[*known.tokens, *(_unknown(f"[PAD{number}", names) for number in more)],
        kinds=[*known.kinds, *(UNUSED for _ in more)],
    )


def for_images(
    vocabulary: Vocabulary | None, size: int, image_token: int, marks: Sequence[str]
) -> tuple[Vocabulary, list[str]]:
    """The vocabulary of a model that sees, and the marks around an image that it had no token for.

    No text has the placeholder: a word of this id is forgotten. The missing marks get rows without a token,
    or none of them where there are too few such rows: llama.cpp then spells them.

    vocabulary, size: as for `padded`.
    image_token: the placeholder's id.
    marks: what llama.cpp writes around an image.
    """
    known = _without(padded(vocabulary, size), image_token)
    tokens, kinds = list(known.tokens), list(known.kinds)
    missing = [mark for mark in marks if mark not in tokens]
    # The placeholder's own row comes last: it is as good as another one, as llama.cpp never reads it.
    free = [row for row, kind in enumerate(kinds) if kind == UNUSED and row != known.end]
    free.sort(key=lambda row: row == image_token)
    if len(missing) <= len(free):
        for mark, row in zip(missing, free, strict=False):
            tokens[row], kinds[row] = mark, CONTROL if mark.startswith("<") else NORMAL
    return replace(known, tokens=tokens, kinds=kinds), missing


def _without(vocabulary: Vocabulary, row: int) -> Vocabulary:
    """The same where no text has the token of a row, unless it is a special one anyway."""
    if vocabulary.kinds[row] not in (NORMAL, USER_DEFINED):
        return vocabulary
    name, tokens, kinds = vocabulary.tokens[row], list(vocabulary.tokens), list(vocabulary.kinds)
    tokens[row], kinds[row] = _unknown(f"[IMAGE{row}", tokens), UNUSED
    pairs = [(merge, *merge.split(" ")) for merge in vocabulary.merges]
    merges = [merge for merge, left, right in pairs if name not in (left, right, left + right)]
    return replace(vocabulary, tokens=tokens, kinds=kinds, merges=merges)


def _unknown(name: str, tokens: Collection[str]) -> str:
    """A name with an ending that no token has."""
    ending = "]"
    while f"{name}{ending}" in tokens:
        ending = f"_{ending}"
    return f"{name}{ending}"
