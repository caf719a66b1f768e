"""Pairs of GGUF files read back: the same model, and one line for what cannot be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from operators import Architecture, VisionLanguage
from operators.base.errors import ArchitectureError, DataError
from operators.published.gguf_export.mmproj import eyes_outline
from operators.published.gguf_export.writing import write_pair
from operators.published.gguf_eyes import read_eyes
from search.runs.export import load_weights
from search.runs.importing import import_model, read_published
from tests.helpers.gguf_eyes import MEMBERS, PLACEHOLDER, random_model, vocabulary_of

gguf = pytest.importorskip("gguf")


def written(name: str, to: Path, **options: Any) -> dict[str, torch.Tensor]:
    value = MEMBERS[name][2]
    weights = random_model(value).state_dict()
    marks = eyes_outline(value)[0].marks
    write_pair(value, weights, vocabulary_of(marks), to, **{"dtype": "F32", **options})
    return weights


@pytest.mark.parametrize(
    ("name", "split_bytes"),
    [("lfm2", 50_000), ("lfm2-normed", None), ("idefics3", None), ("dots_ocr", None)],
)
def test_a_pair_comes_back_bit_for_bit(tmp_path: Path, name: str, split_bytes: int | None) -> None:
    expected, value = written(name, tmp_path / "x.gguf", split_bytes=split_bytes), MEMBERS[name][2]
    back = import_model(tmp_path / "mmproj-x.gguf", tmp_path / "back").architecture
    assert isinstance(back, VisionLanguage)
    assert back.name == "x"
    assert (back.tower, back.projector, back.image_token) == (value.tower, value.projector, PLACEHOLDER)
    read = load_weights(tmp_path / "back" / "model.safetensors", back, where=tmp_path)
    assert read.keys() == expected.keys()
    assert all(read[name].equal(expected[name]) for name in expected)


def test_what_a_kind_always_has_comes_back_as_zeros(tmp_path: Path) -> None:
    """Which adds nothing: llama.cpp wants positions, and biases of the projector."""
    written("lfm2-without-positions", tmp_path / "x.gguf")
    value, language = (
        MEMBERS["lfm2-without-positions"][2],
        Architecture.from_shorthand("a f", width=48, vocabulary=61),
    )
    back, weights = read_eyes(tmp_path / "mmproj-x.gguf", language, None, name="x")
    assert back.tower == value.tower.model_copy(update={"position_bias": True})
    assert back.projector == value.projector.model_copy(update={"bias": True})
    assert not weights["tower.position"].any()
    assert not weights["projector.matrices.1.bias"].any()


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Writes a file again after a change of its keys and tensors."""
    reader = gguf.GGUFReader(path)
    keys = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name != "general.architecture"
    }
    tensors = {tensor.name: tensor.data.copy() for tensor in reader.tensors}
    change(keys, tensors)
    writer = gguf.GGUFWriter(path, "clip")
    for name, content in keys.items():
        add = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }[type(content)]
        add(name, content)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (
            lambda k, t: k.update({"general.type": "model"}),
            ArchitectureError,
            "general.type: expected mmproj",
        ),
        (
            lambda k, t: k.update({"clip.projector_type": "resampler"}),
            ArchitectureError,
            "clip.projector_type: expected one of phi4, lfm2, idefics3, dots_ocr, got 'resampler'",
        ),
        (
            lambda k, t: k.update({"clip.vision.image_mean": [0.48, 0.46, 0.41]}),
            ArchitectureError,
            "clip.vision.image_mean: expected [0.5, 0.5, 0.5], got",
        ),
        (
            lambda k, t: k.pop("clip.use_gelu"),
            ArchitectureError,
            "clip.use_gelu: expected True, got null",
        ),
        (
            lambda k, t: k.update({"clip.vision.feature_layer": [1]}),
            ArchitectureError,
            "clip.vision.feature_layer: expected no such key, as what it does is not known here, got [1]",
        ),
        (
            lambda k, t: k.pop("clip.vision.attention.head_count"),
            ArchitectureError,
            "tower.heads: expected a whole number",
        ),
        (
            lambda k, t: t.pop("v.blk.1.ln2.bias"),
            DataError,
            "missing weights: v.blk.1.ln2.bias, 1 in all",
        ),
        (
            lambda k, t: t.update({"v.blk.0.attn_q_norm.weight": t["v.blk.0.ln1.weight"][:8]}),
            ArchitectureError,
            "holds tower and projector: the nearest, lfm2, has no tower.qk_norm head",
        ),
        (
            lambda k, t: t.update({"v.blk.1.ffn_up.bias": t["v.blk.1.ffn_up.bias"][:7]}),
            DataError,
            "v.blk.1.ffn_up.bias: expected shape (40,), got (7,)",
        ),
        (
            lambda k, t: k.pop("frontrunner.image_token"),
            DataError,
            "frontrunner.image_token: missing, and the tokenizer has no <image>",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, change: Any, kind: type[Exception], says: str
) -> None:
    written("lfm2", tmp_path / "x.gguf")
    path = tmp_path / "mmproj-x.gguf"
    rewritten(path, change)
    with pytest.raises(kind) as error:
        read_published(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_norm_that_llama_cpp_has_more_must_be_without_effect(tmp_path: Path) -> None:
    written("dots_ocr", tmp_path / "x.gguf")
    path = tmp_path / "mmproj-x.gguf"
    rewritten(path, lambda keys, tensors: tensors["mm.post_norm.weight"].fill(2))
    with pytest.raises(ArchitectureError, match=r"mm\.post_norm\.weight: expected 1 everywhere"):
        read_published(path)


def test_the_file_of_the_language_model_has_to_lie_beside(tmp_path: Path) -> None:
    written("lfm2", tmp_path / "x.gguf")
    (tmp_path / "x.gguf").rename(tmp_path / "y.gguf")
    with pytest.raises(DataError, match=r"expected the file of its language model beside it, x\.gguf"):
        read_published(tmp_path / "mmproj-x.gguf")
