"""Meta tokens of a folder for `transformers`, where they are rows of the vocabulary, as meta tokens again."""

import json
from itertools import count, takewhile

from tokenizers import Tokenizer
from torch import Tensor

from operators import Architecture
from operators.published.folding import EMBEDDING, HEAD, META
from proxy_train.text.tokenizer import put_before


def meta_name(number: int) -> str:
    """The name of the token that stands for a meta token."""
    return f"<|meta_{number}|>"


def unused_name(index: int) -> str:
    """The name of the token for a row without one: ids have to follow one another."""
    return f"<|unused_{index}|>"


def with_meta_tokens(
    architecture: Architecture, weights: dict[str, Tensor], tokenizer: Tokenizer
) -> tuple[Architecture, dict[str, Tensor], Tokenizer]:
    """The model as it was before `folded` made rows of its meta tokens; any other model stays as it is.

    weights: by the names of our parameters.
    """
    names = takewhile(lambda name: tokenizer.token_to_id(name) is not None, map(meta_name, count()))
    ids = [tokenizer.token_to_id(name) for name in names]
    rows = architecture.vocabulary - len(ids)
    if not ids or ids != list(range(rows, architecture.vocabulary)) or put_before(tokenizer) != ids:
        return architecture, weights, tokenizer
    split = {**weights, META: weights[EMBEDDING][rows:].clone()}
    for table in (EMBEDDING, HEAD):
        if table in weights:
            split[table] = weights[table][:rows].clone()
    parsed = architecture.model_copy(update={"vocabulary": rows, "meta_tokens": len(ids)})
    return parsed, split, _without(tokenizer, rows)


def _without(tokenizer: Tokenizer, rows: int) -> Tokenizer:
    """The tokenizer without meta tokens, which are at `rows` and beyond, and without names of unused rows."""
    content = json.loads(tokenizer.to_str())
    while tokenizer.id_to_token(rows - 1) == unused_name(rows - 1):
        rows -= 1
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = (
        [entry for index, entry in enumerate(vocabulary) if index < rows]
        if isinstance(vocabulary, list)
        else {name: index for name, index in vocabulary.items() if index < rows}
    )
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < rows]
    content["post_processor"] = None
    return Tokenizer.from_str(json.dumps(content))
