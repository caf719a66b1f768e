"""The tokens of a GGUF file."""

from collections.abc import Sequence
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
    more = range(len(known.tokens), size)
    ending = "]"
    while any(f"[PAD{number}{ending}" in known.tokens for number in more):
        ending = f"_{ending}"
    return replace(
        known,
        tokens=[*known.tokens, *(f"[PAD{number}{ending}" for number in more)],
        kinds=[*known.kinds, *(UNUSED for _ in more)],
    )
