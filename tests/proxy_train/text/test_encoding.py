"""One encoding everywhere: training never sees what a tokenizer.json adds to a text or cuts from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors

from operators.base.errors import DataError
from proxy_train.text.prepare import prepare
from proxy_train.text.tokenizer import encode, end_of_document, load_published, load_tokenizer, token_bytes
from tests.helpers.speeches import small, training_ids
from tests.helpers.tokenizers import (
    byte_level,
    looked_up,
    merged,
    not_special,
    unigram,
    unigram_added_behind,
    word_pieces,
    words,
)


def compatibility_forms() -> Tokenizer:
    """A tokenizer that turns full-width signs of a text into the end's."""
    tokenizer = unigram()
    tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


def adds_everything() -> Tokenizer:
    """A tokenizer that adds a beginning and an end, cuts, pads, and drops merges at random."""
    tokenizer = byte_level(more={"ab": 256}, merges=[("a", "b")], dropout=0.5)
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A </s>", special_tokens=[("</s>", end)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9, pad_id=end, pad_token="</s>")  # noqa: S106
    return tokenizer


def stripping() -> Tokenizer:
    """A tokenizer whose end includes the spaces around it."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True, lstrip=True, rstrip=True)])
    return tokenizer


ALL: list[Callable[[], Tokenizer]] = [
    unigram,
    unigram_added_behind,
    words,
    word_pieces,
    byte_level,
    merged,
    looked_up,
    not_special,
    compatibility_forms,
    adds_everything,
    stripping,
]


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_there_are_as_many_ends_as_documents_and_the_stock_library_encodes_the_same(
    tmp_path: Path, make: Callable[[], Tokenizer]
) -> None:
    documents = ["a </s> b", "</s>", "a<s>b</s>", "b ＜/s＞ </s></s> a", "abab " * 5, ""]
    given = make()
    given.save(str(tmp_path / "given.json"))
    tokenizer = load_tokenizer(tmp_path / "given.json")
    end = tokenizer.token_to_id("</s>")
    assert end_of_document(tokenizer, None, "here") == "</s>"
    assert tokenizer.get_vocab() == given.get_vocab()
    encoded = [ids.tolist() for ids in encode(tokenizer, documents, end, np.dtype("<u2"))]
    assert [ids.count(end) for ids in encoded] == [1] * len(documents)
    assert all(ids[-1] == end for ids in encoded)
    (tmp_path / "trained.json").write_text(tokenizer.to_str(), encoding="utf-8")
    stock = Tokenizer.from_file(str(tmp_path / "trained.json"))
    assert [stock.encode(text).ids for text in documents] == [ids[:-1] for ids in encoded]
    again = load_tokenizer(tmp_path / "trained.json")
    assert again.to_str() == tokenizer.to_str()


@pytest.mark.parametrize("make", [byte_level, merged, looked_up, not_special, stripping, adds_everything])
def test_bytes_survive_with_the_name_of_the_end_in_them(
    tmp_path: Path, make: Callable[[], Tokenizer]
) -> None:
    make().save(str(tmp_path / "given.json"))
    tokenizer = load_tokenizer(tmp_path / "given.json")
    text = " a </s>  ab</s> naïve 🦅 "
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert token_bytes(tokenizer, 300, tokenizer.token_to_id("</s>"))[ids].sum() == len(text.encode())


def test_what_a_model_does_with_other_text_stays(tmp_path: Path) -> None:
    """Hand count: the pieces of `a<b` cost three each, and the end alone is cut in `<` and `/s>`."""
    unigram().save(str(tmp_path / "given.json"))
    tokenizer = load_tokenizer(tmp_path / "given.json")
    assert tokenizer.encode("a<b").tokens == ["▁", "a", "<", "b"]
    assert tokenizer.encode("a</s>b").tokens == ["▁", "a", "<", "/", "s", ">", "b"]
    words().save(str(tmp_path / "words.json"))
    assert load_tokenizer(tmp_path / "words.json").encode("a </s> b </s>b").tokens == [
        *("a", "<", "/s>", "b", "<", "[UNK]"),
    ]


def test_prepared_text_has_an_end_for_each_document(tmp_path: Path) -> None:
    texts = [f"a{'b' * number} </s> a" for number in range(40)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words().save(str(tmp_path / "words.json"))
    source, tokenizer = str(tmp_path / "t.jsonl"), str(tmp_path / "words.json")
    corpus = prepare(small(source, tokenizer=tokenizer), cache=tmp_path / "cache")
    ids = np.concatenate([training_ids(corpus), corpus.validation()])
    assert (ids == 1).sum() == 40
    assert (ids == 0).sum() == 39  # `ab`, `abb` … are words that it does not know
    assert corpus.tokenizer().encode("a </s>").ids == [2, 4, 5]


@pytest.mark.parametrize(
    ("tokenizer", "end", "says"),
    [
        (
            words,
            "a",
            r"end of document 'a': the text of a document gives this token 2 times, .* data\.end_of",
        ),
        (
            lambda: Tokenizer(models.WordLevel({"a": 0, "</s>": 1})),
            "</s>",
            r"cannot encode the text of a document: WordLevel error: Missing \[UNK\]",
        ),
        (
            lambda: Tokenizer(models.BPE({"a": 0, "</s>": 1}, [])),
            "</s>",
            "would drop 3 characters of a document",
        ),
    ],
)
def test_text_that_cannot_be_encoded_rightly_is_refused(
    tmp_path: Path, tokenizer: Callable[[], Tokenizer], end: str, says: str
) -> None:
    tokenizer().save(str(tmp_path / "given.json"))
    ours = load_tokenizer(tmp_path / "given.json", end)
    with pytest.raises(DataError, match=says):
        list(encode(ours, ["a b a", "é"], ours.token_to_id(end), np.dtype("<u2")))


def _same_id(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["a"] = content["model"]["vocab"]["b"]


def _negative(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["a"] = -1


def _unknown_type(content: dict[str, Any]) -> None:
    content["model"]["type"] = "Phonemes"


def _hole(content: dict[str, Any]) -> None:
    content["added_tokens"][0]["id"] = 300


def _taken(content: dict[str, Any]) -> None:
    content["added_tokens"][0]["id"] = 5


def _no_model(content: dict[str, Any]) -> None:
    del content["model"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_same_id, r"model\.vocab: 'a' and 'b' have the same id 65"),
        (_negative, r"model\.vocab: 'a': expected an id from 0 on, got -1"),
        (_unknown_type, r"model\.type: expected one of BPE, Unigram, WordLevel, WordPiece, got 'Phonemes'"),
        (_hole, r"added_tokens: '</s>' has id 300 in the file, .* gives it 256: expected ids that follow"),
        (_taken, r"added_tokens: '</s>' has id 5 in the file, .* gives it 256"),
        (_no_model, "expected a mapping with a model"),
    ],
)
def test_ids_that_contradict_each_other_are_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], says: str
) -> None:
    content = json.loads(byte_level().to_str())
    damage(content)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(content))
    for load in (load_tokenizer, load_published):
        with pytest.raises(DataError, match=says) as error:
            load(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text(byte_level().to_str().replace('"b":65', '"b":65,"a":64'))
    with pytest.raises(DataError, match="the key 'a' is there twice"):
        load_tokenizer(path)


def test_a_published_tokenizer_keeps_what_its_model_was_trained_with(tmp_path: Path) -> None:
    adds_everything().save(str(tmp_path / "given.json"))
    published = load_published(tmp_path / "given.json")
    assert published.encode("ababab </s>").tokens == ["</s>", *["ab"] * 3, "Ġ", "</s>", "</s>"]
