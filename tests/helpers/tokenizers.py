"""Tokenizers with few tokens; each treats the end of a document in an odd way."""

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LETTERS = ["<", "/", "s", ">", "[", "]", "E", "O", "S", "P", "a", "b", "|"]


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def unigram() -> Tokenizer:
    """As T5's: its `</s>` is a piece of the model, which costs nothing where a text spells it."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in ["▁", *LETTERS])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def unigram_added_behind() -> Tokenizer:
    """The model has no piece for the end: `</s>` is added behind its pieces."""
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), *((letter, -3.0) for letter in ["▁", *LETTERS])], unk_id=0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(
        models.WordLevel({"[UNK]": 0, "</s>": 1, "a": 2, "b": 3, "<": 4, "/s>": 5}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def word_pieces() -> Tokenizer:
    vocabulary = {"[UNK]": 0, "</s>": 1, "a": 2, "b": 3, "<": 4, "/s>": 5, "##a": 6}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def byte_level(**model: Any) -> Tokenizer:
    """Its tokens are bytes, with `</s>` added behind them."""
    vocabulary = {letter: index for index, letter in enumerate(ALPHABET)}
    tokenizer = Tokenizer(models.BPE(vocabulary | model.pop("more", {}), model.pop("merges", []), **model))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return tokenizer


def merged() -> Tokenizer:
    """A merge makes `</s>` from letters: the tokenizer was trained on text that holds it."""
    more = {"</": 256, "s>": 257, "</s>": 258}
    return byte_level(more=more, merges=[("<", "/"), ("s", ">"), ("</", "s>")])


def looked_up() -> Tokenizer:
    """As Llama 3's: it takes a whole word that is in the vocabulary before any merge."""
    tokenizer = byte_level(more={"</s>": 256}, ignore_merges=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def not_special() -> Tokenizer:
    """`</s>` was added as an ordinary token."""
    tokenizer = byte_level(more={"</s>": 256})
    content = json.loads(tokenizer.to_str())
    content["added_tokens"][0]["special"] = False
    return Tokenizer.from_str(json.dumps(content))
