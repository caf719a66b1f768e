"""The byte-level BPE in the metadata of a GGUF file, as a tokenizer of the package tokenizers."""

from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from operators.base.errors import DataError
from operators.published.gguf_export.vocabulary import (
    CONTROL,
    LAST_KIND,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from operators.published.gguf_file import GgufFile


@dataclass(frozen=True)
class Splitting:
    """How text is split before its pieces become tokens.

    steps: what splits it.
    then_gpt2: whether GPT-2's pattern splits the pieces once more.
    whole: whether a piece that is a token stays that token, whatever the merges make of it.
    begins: whether the token bos stands before a text, where the metadata does not say.
    """

    steps: tuple[Any, ...] = ()
    then_gpt2: bool = True
    whole: bool = False
    begins: bool = False


# The pattern in Meta's tokenizer of Llama 3, which its tokenizer.json and llama.cpp have too.
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3 = Splitting(
    (pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"),), then_gpt2=False, whole=True, begins=True
)
SPLITS = {
    "gpt-2": Splitting(),
    "smollm": Splitting((pre_tokenizers.Digits(individual_digits=True),)),
    "llama-bpe": LLAMA_3,
    "llama3": LLAMA_3,
    "llama-v3": LLAMA_3,
    "falcon3": LLAMA_3,
}
"""By the name that llama.cpp gives to the whole way of splitting."""


def gguf_tokenizer(file: GgufFile) -> Tokenizer | str:
    """The tokenizer of a GGUF file, or why it cannot be made. Raises DataError for a damaged one."""
    kind, split = file.field("tokenizer.ggml.model"), file.field("tokenizer.ggml.pre") or "default"
    if kind != "gpt2" or split not in list(SPLITS):  # a damaged name may be a list
        return (
            f"its tokenizer is {kind} with {split} splitting; known is gpt2 with one of {', '.join(SPLITS)}"
        )
    way = SPLITS[split]
    tokens, merges = _listed(file, "tokens", str), _listed(file, "merges", str)
    kinds = _listed(file, "token_type", int) or [NORMAL] * len(tokens)
    pairs = [tuple(merge.split(" ")) for merge in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if not tokens or len(vocabulary) != len(tokens) or len(kinds) != len(tokens):
        raise DataError(
            f"{file.path}: tokenizer: expected different tokens and a kind for each, "
            f"got {len(tokens)} tokens, {len(vocabulary)} of them different, and {len(kinds)} kinds"
        )
    if "" in vocabulary or any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise DataError(f"{file.path}: tokenizer: expected no empty token, and merges of two tokens each")
    if odd := [k for k in kinds if not NORMAL <= k <= LAST_KIND]:
        raise DataError(
            f"{file.path}: tokenizer.ggml.token_type: expected kinds from 1 to {LAST_KIND}, got {odd[0]}"
        )
    # Such tokens are no pieces of text, so their merges never happen. A file that needs no merges has one of
    # these all the same, as its list must not be empty.
    no_pieces = (CONTROL, USER_DEFINED, UNUSED)
    never = {token for token, kind in zip(tokens, kinds, strict=True) if kind in no_pieces}
    pairs = [pair for pair in pairs if not never & {*pair}]
    for left, right in pairs:  # on a merge that makes no token, the library ends the process
        if left + right not in vocabulary:
            raise DataError(
                f"{file.path}: tokenizer.ggml.merges: expected merges that make tokens, got {left} {right}"
            )
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=way.whole))
    except Exception as error:  # tokenizers raises plain Exception for a merge of unknown tokens
        raise DataError(f"{file.path}: tokenizer: {error}") from None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*way.steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=way.then_gpt2)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    by_kind = list(zip(tokens, kinds, strict=True))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t, k in by_kind if k in (UNKNOWN, CONTROL)])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, k in by_kind if k == USER_DEFINED])
    begin, end = _added(file, "bos", tokens, way.begins), _added(file, "eos", tokens, False)
    if begin or end:
        around = [token for token in (begin, end) if token]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*begin, "$A", *end],
            pair=[*begin, "$A", *end, *(f"{token}:1" for token in begin), "$B:1", *(f"{t}:1" for t in end)],
            special_tokens=[(token, vocabulary[token]) for names in around for token in names],
        )
    return tokenizer


def _listed(file: GgufFile, name: str, kind: type) -> list[Any]:
    """A list of the metadata, empty where there is none."""
    values = file.field(f"tokenizer.ggml.{name}")
    if values is None:
        return []
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise DataError(
            f"{file.path}: tokenizer.ggml.{name}: expected a list of {kind.__name__}, got {values!r:.60}"
        )
    return values


def _added(file: GgufFile, which: str, tokens: list[str], otherwise: bool) -> list[str]:
    """The token that the tokenizer puts before (bos) or behind (eos) a text: a list of one, or of none.

    otherwise: whether it puts one where the metadata does not say; llama.cpp decides that by the kind of
        splitting.
    """
    number, added = (
        file.field(f"tokenizer.ggml.{which}_token_id"),
        file.field(f"tokenizer.ggml.add_{which}_token"),
    )
    if number is not None and not (type(number) is int and 0 <= number < len(tokens)):
        raise DataError(
            f"{file.path}: tokenizer.ggml.{which}_token_id: expected one of {len(tokens)} tokens, "
            f"got {number!r:.40}"
        )
    if added not in (None, False, True):
        raise DataError(
            f"{file.path}: tokenizer.ggml.add_{which}_token: expected true or false, got {added!r:.40}"
        )
    if not (otherwise if added is None else added):
        return []
    if number is None:
        raise DataError(f"{file.path}: tokenizer.ggml.{which}_token_id: missing, but the tokenizer adds it")
    return [tokens[number]]
