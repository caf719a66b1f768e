"""Reads and checks a tokenizer.json, and rewrites it so that every text has one encoding only."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from operators.base.errors import DataError

KINDS = ("BPE", "Unigram", "WordLevel", "WordPiece")
# Settings of a model with which a text is encoded differently each time.
_RANDOM = ("dropout", "alpha", "nbest_size")


def read(path: Path) -> dict[str, Any]:
    """The content of a tokenizer.json in which every token has one id and every id one token.

    Raises DataError for a file that is missing or damaged, for a model of an unknown type, and for ids that
    contradict each other.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once_each)
        _require_sound(content)
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except OSError as error:
        raise DataError(f"{path}: not a tokenizer.json that can be read: {error.strerror}") from None
    except Exception as error:  # the library raises plain Exception for what it cannot read
        raise DataError(f"{path}: not a tokenizer.json that can be read: {error}") from None
    for token in content["added_tokens"]:
        # Where the ids in the file have holes or are taken, the library numbers added tokens itself.
        if (index := tokenizer.token_to_id(token["content"])) != token["id"]:
            raise DataError(
                f"{path}: added_tokens: {token['content']!r} has id {token['id']} in the file, "
                f"but the library tokenizers gives it {index}: "
                "expected ids that follow the vocabulary's without a hole"
            )
    checked: dict[str, Any] = content
    return checked


def as_published(content: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer without truncation, padding and dropout."""
    model = {key: None if key in _RANDOM else value for key, value in content["model"].items()}
    return {**content, "truncation": None, "padding": None, "model": model}


def as_trained(content: dict[str, Any], end: str | None) -> dict[str, Any]:
    """The same tokenizer as training uses it: a text gives its own tokens alone, all of them.

    Special tokens and `end` become tokens of the model alone, so that their names in a text are text. Where
    the model itself could make one of them from text, the pre-tokenizer gets a last step, which cuts such
    text after its first character. The ids stay the same. Where they cannot (a Unigram model with holes in
    its ids), special tokens stay added tokens.

    content: of the tokenizer.json.
    end: the end-of-document token, if the tokenizer has one.
    """
    kept, protected = as_published(content), _protected(content, end)
    rewritten = {
        **kept,
        "post_processor": None,
        "pre_tokenizer": _apart(content, [token for token in protected if _from_text(content, token)]),
    }
    vocabulary = _with_added(content)
    if vocabulary is None:
        return rewritten
    added = [token for token in content["added_tokens"] if token["content"] not in protected]
    return {**rewritten, "added_tokens": added, "model": {**kept["model"], "vocab": vocabulary}}


def encodes_otherwise(content: dict[str, Any], end: str | None) -> bool:
    """Whether `as_trained` may encode a text differently from the file with special tokens taken as text."""
    plain = [token["content"] for token in content["added_tokens"] if not token["special"]]
    return (
        end in plain
        or any(content["model"].get(key) for key in _RANDOM)
        or as_trained(content, end)["pre_tokenizer"] != content.get("pre_tokenizer")
    )


def tokens(content: dict[str, Any]) -> set[str]:
    """The names of all tokens, added ones included."""
    vocabulary = content["model"]["vocab"]
    names = [entry[0] for entry in vocabulary] if isinstance(vocabulary, list) else vocabulary
    return {*names, *(token["content"] for token in content["added_tokens"])}


def unknown_token(content: dict[str, Any]) -> str | None:
    """The token for text that has no token of its own; None where there is none."""
    model = content["model"]
    if isinstance(model["vocab"], list):
        index = model.get("unk_id")
        return None if index is None else str(model["vocab"][index][0])
    unknown: str | None = model.get("unk_token")
    return unknown


def telling_what_it_drops(content: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
    """The tokenizer with a new id for text that it would drop, and that id; None where it drops nothing.

    A BPE drops characters that it does not know, unless it has an unknown token or works on bytes.
    """
    model = content["model"]
    by_bytes = model.get("byte_fallback") or '"ByteLevel"' in json.dumps(content["pre_tokenizer"])
    by_bytes = by_bytes or '"ByteLevel"' in json.dumps(content["normalizer"])
    if _kind(model) != "BPE" or model.get("unk_token") is not None or by_bytes:
        return None
    index = 1 + max(*model["vocab"].values(), *(token["id"] for token in content["added_tokens"]), 0)
    # No text holds this name: a NUL is a control character that is not part of text.
    model = {**model, "unk_token": "\0dropped", "vocab": {**model["vocab"], "\0dropped": index}}
    return {**content, "model": model}, index


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a doubled key, of which `json` would keep the last."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return mapping


def _require_sound(content: Any) -> None:
    """Raises ValueError for content that is no tokenizer, and fills in what older files leave out."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError("expected a mapping with a model")
    model = content["model"]
    if (kind := model.get("type", _kind(model))) not in KINDS:
        raise ValueError(f"model.type: expected one of {', '.join(KINDS)}, got {kind!r:.60}")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, list if kind == "Unigram" else dict) or not vocabulary:
        raise ValueError("model.vocab: expected tokens, got none")
    content["added_tokens"] = content.get("added_tokens") or []
    if isinstance(vocabulary, dict):
        tokens: dict[int, str] = {}
        for token, index in vocabulary.items():
            if type(index) is not int or index < 0:
                raise ValueError(f"model.vocab: {token!r}: expected an id from 0 on, got {index!r:.60}")
            if index in tokens:
                raise ValueError(f"model.vocab: {tokens[index]!r} and {token!r} have the same id {index}")
            tokens[index] = token
    else:
        names = [entry[0] for entry in vocabulary]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"model.vocab: {twice!r} is there twice")


def _kind(model: dict[str, Any]) -> str:
    """The type of a model. Files of older versions do not name it: then its keys decide."""
    guessed = (
        "Unigram" if isinstance(model.get("vocab"), list) else "BPE" if "merges" in model else "WordLevel"
    )
    kind = model.get("type", "WordPiece" if "max_input_chars_per_word" in model else guessed)
    return str(kind)


def _protected(content: dict[str, Any], end: str | None) -> list[str]:
    special = {token["content"] for token in content["added_tokens"] if token["special"]}
    return sorted(special | ({end} if end is not None else set()))


def _from_text(content: dict[str, Any], token: str) -> bool:
    """Whether the model could make a token from text that spells it.

    A BPE needs a merge that ends in it; all other models look it up.
    """
    model = content["model"]
    if _kind(model) != "BPE" or model.get("ignore_merges"):
        return True
    prefix = model.get("continuing_subword_prefix") or ""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return any(left + right.removeprefix(prefix) == token for left, right in pairs)


def _apart(content: dict[str, Any], tokens: list[str]) -> Any:
    """The pre-tokenizer with a last step that cuts each of `tokens` in two, if they have two characters."""
    before = content.get("pre_tokenizer")
    patterns = [_cut(token) for token in tokens if len(token) > 1]
    before_text = json.dumps(before)
    missing = [pattern for pattern in patterns if json.dumps(pattern)[1:-1] not in before_text]
    if not missing:
        return before
    step = {
        "type": "Split",
        "pattern": {"Regex": "|".join(missing)},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    return step if before is None else {"type": "Sequence", "pretokenizers": [before, step]}


def _cut(token: str) -> str:
    """A regular expression for the first character of a token, where the others follow."""
    first, *others = (f"\\x{{{ord(character):x}}}" for character in token)
    return f"{first}(?={''.join(others)})"


def _with_added(content: dict[str, Any]) -> Any:
    """The model's vocabulary with all added tokens under their ids; None where a list has no such place."""
    model, added = content["model"], sorted(content["added_tokens"], key=lambda token: int(token["id"]))
    if isinstance(model["vocab"], dict):
        return {**model["vocab"], **{token["content"]: token["id"] for token in added}}
    names = {entry[0] for entry in model["vocab"]}
    # The new tokens get the worst score, none below it: the price of unknown text depends on the worst.
    vocabulary, score = list(model["vocab"]), min(entry[1] for entry in model["vocab"])
    for token in added:
        if token["content"] in names:
            continue
        if token["id"] != len(vocabulary):
            return None
        vocabulary.append([token["content"], score])
    return vocabulary
