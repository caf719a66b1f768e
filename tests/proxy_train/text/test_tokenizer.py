"""Tokenizers: every text survives, every token has its bytes, and published tokenizers are read unchanged."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from operators.base.errors import DataError
from proxy_train.text import tokenizer as bpe
from proxy_train.text.tokenizer import (
    END_OF_DOCUMENT,
    encode,
    end_of_document,
    load_tokenizer,
    token_bytes,
    train_tokenizer,
)

TEXTS = ["the cat sat on the mat " * 4, "the people of these states"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_survives_the_tokenizer_and_every_token_knows_its_bytes(documents: list[str]) -> None:
    tokenizer = train_tokenizer(["the cat sat on the mat " * 4], 280)
    documents = [*documents, f"a text about {END_OF_DOCUMENT} itself"]
    end = tokenizer.token_to_id(END_OF_DOCUMENT)
    lengths = token_bytes(tokenizer, 400, end)
    for text, ids in zip(documents, encode(tokenizer, documents, end, np.dtype("uint16")), strict=True):
        assert ids[-1] == end
        assert END_OF_DOCUMENT not in {tokenizer.id_to_token(index) for index in ids[:-1]}
        assert tokenizer.decode(ids[:-1].tolist(), skip_special_tokens=False) == text
        assert lengths[ids].sum() == len(text.encode())


def test_training_the_tokenizer_twice_gives_the_same() -> None:
    assert train_tokenizer(TEXTS, 300).to_str() == train_tokenizer(TEXTS, 300).to_str()


@pytest.mark.parametrize("part", ["ab", " "])
def test_a_run_without_a_word_in_it_is_learned_from_in_parts(part: str) -> None:
    run = part * (2**16 // len(part))
    tokenizer = train_tokenizer([f"before {run} behind"], 300)
    assert (
        1024 <= max(map(len, tokenizer.get_vocab())) <= 4096
    )  # as a whole it has a token of 2**15 characters that occurs twice
    assert tokenizer.decode(ids_of(tokenizer, run)) == run


def ids_of(tokenizer: Tokenizer, text: str, end: int = 0) -> list[int]:
    (ids,) = encode(tokenizer, [text], end, np.dtype("uint16"))
    return ids.tolist()[:-1]


def test_a_long_document_is_encoded_in_pieces_that_begin_with_line_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "the cat sat\non the mat\n" * 40
    tokenizer = train_tokenizer([text], 300)
    whole = ids_of(tokenizer, text)
    monkeypatch.setattr(bpe, "_PIECE", 50)
    assert all(piece.startswith("\n") and len(piece) <= 50 for piece in bpe._pieces(text)[1:])
    assert ids_of(tokenizer, text) == whole
    assert "".join(bpe._pieces("x" * 175)) == "x" * 175


def llama_like(tmp_path: Path) -> Tokenizer:
    """A BPE as SentencePiece's: byte fallback, <s> before each text, and saved with truncation."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # the bytes are tokens of the model alone
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("text", ["the cat sat on the mat of the people", "naïve 🦅 cat"])
def test_a_sentencepiece_tokenizer_gives_the_whole_text_and_nothing_else(tmp_path: Path, text: str) -> None:
    tokenizer = llama_like(tmp_path)
    assert end_of_document(tokenizer, None, "here") == "</s>"
    ids = ids_of(tokenizer, text, end=2)
    assert tokenizer.decode(ids) == text
    assert not {0, 1, 2} & set(ids)
    assert (
        token_bytes(tokenizer, 300, 2)[ids].sum() == len(text.encode()) + 1
    )  # the space that it puts before


def test_added_tokens_that_are_text_count_their_bytes() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.add_tokens([AddedToken("  é", normalized=False)])
    text = "cat  é cat"
    assert token_bytes(tokenizer, 400, 0)[ids_of(tokenizer, text)].sum() == len(text.encode())


def test_a_word_piece_counts_what_it_spells() -> None:
    words = {"[UNK]": 0, "play": 1, "##ing": 2, "[SEP]": 3}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert token_bytes(tokenizer, 4, 3)[ids_of(tokenizer, "playing")].tolist() == [4, 3]
    with pytest.raises(
        DataError,
        match=r"here: none of its tokens ends documents by its name; data\.end_of_document names one",
    ):
        end_of_document(tokenizer, None, "here")
    assert end_of_document(tokenizer, "[SEP]", "here") == "[SEP]"
