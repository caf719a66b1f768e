"""A tokenizer.json as the tokens of a GGUF file."""

import json
from typing import Any

from tokenizers import Tokenizer

from operators.base.errors import DataError, in_words
from operators.published.gguf_export.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary
from search.runs.gguf_tokenizer import SPLITS, Splitting

# What else a BPE may have, with the values that change nothing.
PLAIN: dict[str, tuple[Any, ...]] = {
    "byte_fallback": (False, None),
    "continuing_subword_prefix": ("", None),
    "end_of_word_suffix": ("", None),
}


def gguf_vocabulary(tokenizer: Tokenizer, *, end: str, where: str) -> Vocabulary:
    """The tokens of a tokenizer.

    end: the token that ends a document.
    where: what messages call the tokenizer.

    Raises DataError for a tokenizer that a GGUF file cannot hold.
    """
    content = json.loads(tokenizer.to_str())
    model, added = content["model"], content["added_tokens"]

    def refused(key: str, expected: str, got: object) -> DataError:
        return DataError(f"{where}: {key}: expected {expected} for a GGUF file, got {in_words(got)}")

    if (kind := model.get("type", "BPE")) != "BPE" or not isinstance(model["vocab"], dict):
        raise refused("model.type", "BPE", kind)
    for key, neutral in PLAIN.items():
        if model.get(key) not in neutral:
            raise refused(f"model.{key}", "none", model[key])
    if content.get("normalizer") is not None:
        raise refused("normalizer", "none", content["normalizer"].get("type"))
    steps = _steps(content.get("pre_tokenizer"))
    splitting = next((name for name, way in SPLITS.items() if _is(way, steps, model)), None)
    if splitting is None:
        raise refused(
            "pre_tokenizer",
            f"a byte-level one that splits as {', '.join(SPLITS)}",
            [step.get("type") for step in steps],
        )
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in added}
    if end not in vocabulary:
        raise refused("model.vocab", f"a token {end}, which ends a document,", "none")
    names = {index: token for token, index in vocabulary.items()}
    kinds = dict.fromkeys(names, NORMAL)
    for token in added:
        if not token["special"] and any(token.get(key) for key in ("lstrip", "rstrip", "single_word")):
            raise refused("added_tokens", "tokens that take no spaces and stand in a word", token["content"])
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    kinds[vocabulary[end]] = CONTROL  # llama.cpp takes it for one anyway
    ids = range(max(names) + 1)
    begin, behind = _around(content.get("post_processor"), vocabulary, refused)
    if behind not in (None, end):
        raise refused("post_processor", f"{end} behind a text, or nothing", behind)
    return Vocabulary(
        tokens=[names.get(index, f"[UNUSED{index}]") for index in ids],
        kinds=[kinds.get(index, UNUSED) for index in ids],
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        splitting=splitting,
        end=vocabulary[end],
        begin=None if begin is None else vocabulary[begin],
        puts_begin=begin is not None,
        puts_end=behind is not None,
    )


def _steps(part: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer or post-processor, one after the other."""
    if part is None:
        return []
    if part.get("type") != "Sequence":
        return [part]
    inner = part.get("pretokenizers") or part.get("processors") or []
    return [step for each in inner for step in _steps(each)]


def _is(way: Splitting, steps: list[dict[str, Any]], model: dict[str, Any]) -> bool:
    """Whether steps split text in this way."""
    if not steps or steps[-1].get("type") != "ByteLevel" or bool(model.get("ignore_merges")) != way.whole:
        return False
    last = steps[-1]
    if last.get("add_prefix_space", True) or last.get("use_regex", True) != way.then_gpt2:
        return False
    return steps[:-1] == [json.loads(step.__getstate__()) for step in way.steps]


def _around(processor: Any, vocabulary: dict[str, int], refused: Any) -> tuple[str | None, str | None]:
    """The tokens that a post-processor puts before and behind a text."""
    templates = [step for step in _steps(processor) if step.get("type") != "ByteLevel"]
    if not templates:
        return None, None
    if len(templates) > 1 or templates[0].get("type") != "TemplateProcessing":
        raise refused("post_processor", "a template", [step.get("type") for step in templates])
    parts = [part.get("SpecialToken", {}).get("id") for part in templates[0]["single"]]
    if parts.count(None) != 1 or len(parts) > 3 or any(token and token not in vocabulary for token in parts):
        raise refused("post_processor", "a token before and behind a text at most", parts)
    before, behind = parts[: parts.index(None)], parts[parts.index(None) + 1 :]
    if len(before) > 1 or len(behind) > 1:
        raise refused("post_processor", "a token before and behind a text at most", parts)
    return (before or [None])[0], (behind or [None])[0]
