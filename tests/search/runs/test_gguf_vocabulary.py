"""A tokenizer in a GGUF file: the same ids in llama.cpp and in our import, or one line that refuses it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, processors

from operators import Architecture
from operators.base.errors import DataError
from proxy_train.text.tokenizer import load_published, load_tokenizer, train_tokenizer
from search.runs.export_gguf import export_gguf
from search.runs.exportable import Exportable
from search.runs.gguf_tokenizer import SPLITS
from search.runs.gguf_vocabulary import gguf_vocabulary
from search.runs.importing import import_model
from tests.helpers.gguf_members import random_model
from tests.helpers.speeches import speech
from tests.helpers.tokenizers import byte_level, looked_up, merged, unigram, word_pieces, words

pytest.importorskip("gguf")

END = "<|endoftext|>"
TEXTS = [
    speech(77),
    "  The  union\n\n\tof 12345 states'll isn't DON'T <|endoftext|> 数 naïve 🦅🦅\r\n   ",
    "",
    "</s> a<b 1st 22nd\u00a0\u2003x  ",
]
SHAPE = Architecture.from_shorthand("a f", width=32, vocabulary=320, genes={"attention": {"head_dim": 16}})


def trained(vocabulary: int = 300) -> Tokenizer:
    return train_tokenizer([speech(number) for number in range(20)], vocabulary)


def split_as(name: str) -> Tokenizer:
    """The trained tokenizer with another way of splitting."""
    way, tokenizer = SPLITS[name], trained()
    content = json.loads(tokenizer.to_str())
    last = {**content["pre_tokenizer"], "use_regex": way.then_gpt2}
    steps = [*(json.loads(step.__getstate__()) for step in way.steps), last]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    content["model"]["ignore_merges"] = way.whole
    return Tokenizer.from_str(json.dumps(content))


def with_template() -> Tokenizer:
    tokenizer = trained()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.add_tokens([AddedToken("the union", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


CASES: dict[str, Callable[[], Tokenizer]] = {
    "trained": trained,
    "without merges": lambda: trained(257),
    "smollm": lambda: split_as("smollm"),
    "llama 3": lambda: split_as("llama-bpe"),
    "begins with a token": with_template,
}


def exported(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    model = Exportable("x", SHAPE, random_model(SHAPE).state_dict(), tokenizer=tokenizer, end=END)
    assert "llama.cpp runs it as llama" in export_gguf(model, folder / "x.gguf", dtype="F32")
    return folder / "x.gguf"


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_and_our_import_give_the_same_ids(tmp_path: Path, case: str) -> None:
    from tests.helpers.llama_cpp import ask

    path = exported(CASES[case](), tmp_path)
    ours = load_published(tmp_path / "tokenizer.json")
    assert import_model(path, tmp_path / "read").without_tokenizer is None
    read = Tokenizer.from_file(str(tmp_path / "read" / "tokenizer.json"))
    assert [read.encode(text).ids for text in TEXTS] == [ours.encode(text).ids for text in TEXTS]
    ours.encode_special_tokens = True  # llama.cpp is asked to take their names as text, and to add nothing
    assert ask(path, texts=TEXTS).ids == [ours.encode(text, add_special_tokens=False).ids for text in TEXTS]


def test_the_tokenizer_of_a_run_has_one_special_token(tmp_path: Path) -> None:
    """In an exported folder the end of a document is a token as any other."""
    trained().save(str(tmp_path / "trained.json"))
    load_tokenizer(tmp_path / "trained.json").save(str(tmp_path / "tokenizer.json"))
    vocabulary = gguf_vocabulary(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), end=END, where="")
    assert vocabulary.tokens[vocabulary.end] == END
    assert [index for index, kind in enumerate(vocabulary.kinds) if kind != 1] == [vocabulary.end]
    assert vocabulary.splitting == "gpt-2"
    assert (vocabulary.puts_begin, vocabulary.puts_end) == (False, False)


def changed(**changes: Any) -> Tokenizer:
    content = json.loads(trained().to_str())
    for place, value in changes.items():
        part = content["model"] if place in content["model"] else content
        part[place] = value
    return Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unigram, "model.type: expected BPE for a GGUF file, got 'Unigram'"),
        (words, "model.type: expected BPE for a GGUF file, got 'WordLevel'"),
        (word_pieces, "model.type: expected BPE for a GGUF file, got 'WordPiece'"),
        (looked_up, "pre_tokenizer: expected a byte-level one that splits as gpt-2, smollm"),
        (lambda: changed(ignore_merges=True), "pre_tokenizer: expected a byte-level one"),
        (lambda: changed(normalizer={"type": "NFC"}), "normalizer: expected none for a GGUF file, got 'NFC'"),
        (lambda: changed(byte_fallback=True), "model.byte_fallback: expected none for a GGUF file, got true"),
        (
            lambda: changed(end_of_word_suffix="</w>"),
            "model.end_of_word_suffix: expected none for a GGUF file",
        ),
        (byte_level, "model.vocab: expected a token <|endoftext|>, which ends a document, for a GGUF file"),
    ],
)
def test_a_tokenizer_that_a_gguf_file_cannot_hold_is_one_line(
    tmp_path: Path, make: Callable[[], Tokenizer], message: str
) -> None:
    with pytest.raises(DataError) as error:
        gguf_vocabulary(make(), end=END, where=str(tmp_path / "tokenizer.json"))
    assert str(error.value).startswith(f"{tmp_path / 'tokenizer.json'}: {message}")
    assert "\n" not in str(error.value)


def test_text_that_is_cut_to_keep_the_end_apart_is_refused(tmp_path: Path) -> None:
    merged().save(str(tmp_path / "merged.json"))
    tokenizer = load_tokenizer(tmp_path / "merged.json", "</s>")
    with pytest.raises(DataError, match="pre_tokenizer: expected a byte-level one"):
        gguf_vocabulary(tokenizer, end="</s>", where="")
