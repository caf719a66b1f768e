"""Importing GGUF files: the logits of the model that was written, quantized weights, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from operators.base.errors import FrontrunnerError
from operators.published import describe
from operators.published.gguf_file import GgufFile
from tests.helpers.gguf_reading import assert_same_logits, imported
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.published_models import CASES, published_model

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_file_has_the_logits_of_the_model_that_it_was_made_of(tied: bool, tmp_path: Path) -> None:
    theirs = published_model(CASES["llama-tied" if tied else "llama"]()[0])
    write_gguf(tmp_path / "tiny.gguf", theirs)
    assert imported(tmp_path / "tiny.gguf").architecture == CASES["llama-tied" if tied else "llama"]()[1]
    assert_same_logits(tmp_path / "tiny.gguf", theirs)


def test_a_gguf_file_is_dequantized(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=40,
        tie_word_embeddings=True,
    )
    theirs = published_model(config)
    write_gguf(tmp_path / "small.gguf", theirs, quantize=gguf.GGMLQuantizationType.Q8_0)
    file = GgufFile(tmp_path / "small.gguf")
    for name, tensor in theirs.named_parameters():
        tensor_read = file[name]
        assert tensor_read.dtype == torch.float32
        assert (tensor_read - tensor).abs().max() <= tensor.abs().max() / 127, name


def other_family(path: Path) -> None:
    write_gguf(path, published_model(CASES["llama"]()[0]), family="gemma")


def stretched(path: Path) -> None:
    write_gguf(
        path,
        published_model(CASES["llama"]()[0]),
        also=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN),
    )


def shortened(path: Path) -> None:
    write_gguf(path, published_model(CASES["llama"]()[0]))
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (other_family, "general.architecture: expected 'llama' in a GGUF file, got 'gemma'"),
        (stretched, "llama.rope.scaling.type: expected 'none', or 'linear' with a factor of 1, got 'yarn'"),
        (shortened, "not a GGUF file"),
        (lambda path: path.write_bytes(b"GGUF"), "not a GGUF file"),
        (lambda path: path.write_bytes(b"something else entirely"), "not a GGUF file"),
    ],
)
def test_a_gguf_file_that_cannot_be_imported_is_named(
    make: Callable[[Path], Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    make(path)
    with pytest.raises(FrontrunnerError) as caught:
        describe(GgufFile(path).config, where=str(path))
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)
