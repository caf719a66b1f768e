"""The tokenizer files of a folder for `transformers`, which encode as the model's training did."""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from operators.base.errors import DataError
from proxy_train.text import tokenizer_file
from proxy_train.text.tokenizer import ids_needed
from search.runs.exportable import Exportable
from search.runs.meta_rows import meta_name, unused_name

NO_LIMIT = int(1e30)  # what transformers writes for "as long as you like"


def meta_tokens(model: Exportable) -> list[str]:
    """The names of the tokens that stand for meta tokens."""
    return [meta_name(number) for number in range(model.architecture.meta_tokens)]


def tokenizer_files(model: Exportable) -> dict[str, str]:
    """The content of each file by its name; {} for a model without a tokenizer.

    Raises DataError for a tokenizer that does not match the model.
    """
    if model.tokenizer is None:
        if model.architecture.meta_tokens:
            raise DataError(
                f"{model.title}: meta_tokens: expected a tokenizer, which puts their ids before a text"
            )
        return {}
    rows = model.architecture.vocabulary
    if (needed := ids_needed(model.tokenizer)) > rows:
        raise DataError(
            f"{model.title}: the tokenizer has ids up to {needed - 1}, the model has {rows} rows: "
            "expected a tokenizer of the model"
        )
    content, meta = json.loads(model.tokenizer.to_str()), meta_tokens(model)
    if meta:
        content = _with_meta(content, meta, rows, model)
    end = {} if model.end is None else {"eos_token": model.end, "pad_token": model.end}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **end,
        **({"additional_special_tokens": meta} if meta else {}),
        # As in the training, where the name of a special token in a text is text.
        "split_special_tokens": model.trained,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_max_length": NO_LIMIT,
    }
    return {
        "tokenizer.json": json.dumps(content, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=1, ensure_ascii=False) + "\n",
    }


def _with_meta(content: dict[str, Any], meta: Sequence[str], rows: int, model: Exportable) -> dict[str, Any]:
    """The tokenizer with the meta tokens after the model's rows, which it puts before each text."""
    needed = ids_needed(Tokenizer.from_str(json.dumps(content)))
    # Rows without a token get one, as ids have to follow one another.
    names = [*(unused_name(index) for index in range(needed, rows)), *meta]
    if taken := tokenizer_file.tokens(content) & set(names):
        raise DataError(f"{model.title}: the tokenizer has {min(taken)}, which is to be a meta token")
    added = [special_token(name, needed + place) for place, name in enumerate(names)]
    extended = tokenizer_file.as_trained(
        {**content, "added_tokens": [*content["added_tokens"], *added]}, model.end
    )
    ids = [{"SpecialToken": {"id": name, "type_id": 0}} for name in meta]
    special = {name: {"id": name, "ids": [rows + place], "tokens": [name]} for place, name in enumerate(meta)}
    first, second = ({"Sequence": {"id": letter, "type_id": 0}} for letter in "AB")
    whole = {
        **extended,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*ids, first],
            "pair": [*ids, first, second],
            "special_tokens": special,
        },
    }
    built = Tokenizer.from_str(json.dumps(whole))
    if [built.token_to_id(name) for name in meta] != list(range(rows, rows + len(meta))):
        raise DataError(f"{model.title}: the tokenizer's ids have holes: expected each below {rows} once")
    return whole


def special_token(name: str, index: int) -> dict[str, Any]:
    """An entry of the added tokens in a tokenizer.json."""
    return {
        "id": index,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
