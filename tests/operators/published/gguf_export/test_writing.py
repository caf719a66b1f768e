"""The files of an export, as the package gguf and our own import read them, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from operators import HybridLM
from operators.base.errors import DataError, FrontrunnerError, RunError
from operators.published import describe, fitted
from operators.published.gguf_export.vocabulary import NORMAL, UNUSED, Vocabulary
from operators.published.gguf_export.writing import Written, write_gguf
from operators.published.gguf_file import GgufFile
from tests.helpers.gguf_members import MEMBERS, STRETCHED, random_model
from tests.helpers.gguf_writer import neighbours
from tests.helpers.published_models import VOCABULARY

gguf = pytest.importorskip("gguf")


def written(to: Path, member: str, **options: Any) -> tuple[HybridLM, Written]:
    model = random_model(MEMBERS[member][1])
    return model, write_gguf(model.architecture, model.state_dict(), None, to, **{"dtype": "F32", **options})


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }


def keys(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize("member", ["llama", "llama-tied", "llama-stretched"])
@pytest.mark.parametrize("split_bytes", [None, 50_000])
def test_our_import_gives_the_same_model_bit_for_bit(
    tmp_path: Path, member: str, split_bytes: int | None
) -> None:
    model, file = written(tmp_path / "x.gguf", member, split_bytes=split_bytes)
    assert (len(file.paths) > 1) == (split_bytes is not None)
    read = GgufFile(file.paths[0])
    published = describe(read.config)
    assert published.architecture == model.architecture
    weights, expected = fitted(published, read, where=file.paths[0]), model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_queries_and_keys_of_a_llama_lie_in_pairs(tmp_path: Path) -> None:
    model, _ = written(tmp_path / "x.gguf", "llama")
    stored, weights = tensors(tmp_path / "x.gguf"), model.state_dict()
    for letter, heads in (("q", 4), ("k", 2)):
        ours = weights[f"layers.2.operator.{letter}_proj.weight"].numpy()
        np.testing.assert_array_equal(stored[f"blk.1.attn_{letter}.weight"], neighbours(ours, heads))
    np.testing.assert_array_equal(
        stored["blk.1.attn_v.weight"], weights["layers.2.operator.v_proj.weight"].numpy()
    )


def test_a_stretch_is_what_frequencies_are_divided_by(tmp_path: Path) -> None:
    """By hand: a pair is slow if it turns less than once in the original context, and fast above 4 turns."""
    written(tmp_path / "x.gguf", "llama-stretched")
    turns = [16 * 100.0 ** (-pair / 6) / (2 * np.pi) for pair in range(6)]
    kept = [min(max((turn - 1) / 3, 0), 1) for turn in turns]
    expected = [1 / (share + (1 - share) / STRETCHED["scaling"]["factor"]) for share in kept]
    np.testing.assert_allclose(tensors(tmp_path / "x.gguf")["rope_freqs.weight"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("granitehybrid", {"rope.scaling.finetuned": True, "attention.head_count_kv": [0, 2, 0]}),
        ("granitehybrid-not-rotated", {"rope.scaling.finetuned": False}),
        (
            "nemotron_h",
            {"feed_forward_length": [80, 0, 0, 0, 80], "attention.head_count_kv": [0, 0, 2, 0, 0]},
        ),
        (
            "qwen35",
            {
                "attention.recurrent_layers": [False, True, True, False],
                "rope.dimension_sections": [2, 2, 2, 0],
            },
        ),
    ],
)
def test_metadata_without_which_llama_cpp_computes_something_else(
    tmp_path: Path, member: str, expected: dict[str, Any]
) -> None:
    _, file = written(tmp_path / "x.gguf", member)
    stored = keys(tmp_path / "x.gguf")
    assert {key: stored[f"{file.family}.{key}"] for key in expected} == expected
    assert not [key for key in stored if "expert" in key]


def test_a_vocabulary_has_as_many_tokens_as_the_embedding_has_rows(tmp_path: Path) -> None:
    model = random_model(MEMBERS["granitehybrid"][1])
    vocabulary = Vocabulary(["a", "b", "ab", "[PAD3]"], [NORMAL] * 4, ["a b"], "gpt-2", end=1)
    write_gguf(model.architecture, model.state_dict(), vocabulary, tmp_path / "x.gguf")
    stored = keys(tmp_path / "x.gguf")
    names = stored["tokenizer.ggml.tokens"]
    assert names[:4] == vocabulary.tokens
    assert len(set(names)) == len(names) == VOCABULARY  # which is no multiple of 8
    assert stored["tokenizer.ggml.token_type"] == [NORMAL] * 4 + [UNUSED] * (VOCABULARY - 4)
    assert stored["tokenizer.ggml.eos_token_id"] == 1
    assert stored["tokenizer.ggml.add_bos_token"] is False


def test_a_gate_of_one_half_and_twice_the_output_are_plain_attention(tmp_path: Path) -> None:
    model, _ = written(tmp_path / "x.gguf", "qwen35")
    stored, weights = tensors(tmp_path / "x.gguf"), model.state_dict()
    rows = stored["blk.0.attn_q.weight"].reshape(4, 2, 12, 48)
    np.testing.assert_array_equal(rows[:, 0].reshape(48, 48), weights["layers.0.operator.q_proj.weight"])
    assert not rows[:, 1].any()
    np.testing.assert_array_equal(
        stored["blk.0.attn_output.weight"], 2 * weights["layers.0.operator.o_proj.weight"]
    )
    np.testing.assert_array_equal(stored["blk.0.attn_norm.weight"], weights["layers.0.norm.weight"])


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0"])
def test_matrices_have_fewer_bits_and_vectors_keep_theirs(tmp_path: Path, dtype: str) -> None:
    model, file = written(tmp_path / "x.gguf", "granitehybrid", dtype=dtype)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert kinds["blk.0.ssm_out.weight"] == dtype  # its rows have 96 numbers
    assert kinds["blk.1.attn_q.weight"] == ("F16" if dtype == "Q8_0" else dtype)  # 48 numbers
    plain = {"blk.0.ssm_conv1d.weight", "blk.0.ssm_a", "blk.0.attn_norm.weight", "output_norm.weight"}
    assert {kinds[name] for name in plain} == {"F32"}
    assert [line for line in file.remarks if "F16 instead" in line] or dtype != "Q8_0"
    ours = model.state_dict()["layers.0.operator.out_proj.weight"].numpy()
    stored = tensors(tmp_path / "x.gguf")["blk.0.ssm_out.weight"]
    step = {"F16": 2.0**-11, "BF16": 2.0**-8, "Q8_0": 0.5 / 127}[dtype]
    assert 0 < np.abs(stored - ours).max() <= 1.01 * step * np.abs(ours).max()


def test_zeros_for_missing_layers_are_told_with_their_bytes(tmp_path: Path) -> None:
    _, file = written(tmp_path / "x.gguf", "llama-attention-alone")
    bytes_of_zeros = 2 * 3 * 48 * 32 * 4  # two blocks of three matrices in float32
    assert file.remarks == (
        f"llama has sub-layers that the architecture lacks: their zeros cost {bytes_of_zeros:,} bytes a step",
    )


def test_weights_are_read_one_at_a_time_in_any_dtype(tmp_path: Path) -> None:
    model = random_model(MEMBERS["llama"][1]).to(torch.bfloat16)
    write_gguf(model.architecture, model.state_dict(), None, tmp_path / "x.gguf", dtype="BF16")
    stored = tensors(tmp_path / "x.gguf")["blk.0.ffn_up.weight"]
    np.testing.assert_array_equal(stored, model.state_dict()["layers.1.operator.up_proj.weight"].float())


def without(model: HybridLM, name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if key != name}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda model, to: {"parameters": without(model, "norm.weight")},
            DataError,
            "weight norm.weight: expected",
        ),
        (
            lambda model, to: {"parameters": {**model.state_dict(), "more": torch.ones(1)}},
            DataError,
            "weight more: expected none, got (1,)",
        ),
        (
            lambda model, to: {"parameters": {**model.state_dict(), "norm.weight": torch.ones(7)}},
            DataError,
            "weight norm.weight: expected (48,), got (7,)",
        ),
        (
            lambda model, to: {
                "parameters": {**model.state_dict(), "head.weight": torch.full((61, 48), 1e6)},
                "dtype": "F16",
            },
            DataError,
            "weight head.weight: expected values up to 65504 for F16, got 1e+06",
        ),
        (
            lambda model, to: {"vocabulary": Vocabulary(["a"] * 62, [NORMAL] * 62, [], "gpt-2", end=0)},
            DataError,
            "vocabulary: expected at most 61 tokens, as the embedding has rows, got 62",
        ),
        (
            lambda model, to: {"to": to.with_suffix(".bin")},
            RunError,
            "{to}.bin: expected a name that ends in .gguf",
        ),
        (lambda model, to: to.write_text("mine"), RunError, "{to}.gguf: exists already, expected a new file"),
        (
            lambda model, to: (
                to.with_name("x-00002-of-00004.gguf").write_text("mine"),
                {"split_bytes": 50_000},
            )[1],
            RunError,
            "{to}-00002-of-00004.gguf: exists already, expected a new file",
        ),
        (
            lambda model, to: (to.write_text("mine"), {"to": to / "y.gguf"})[1],
            RunError,
            "{to}.gguf/y.gguf: cannot be written: ",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    tmp_path: Path, change: Any, kind: type[FrontrunnerError], message: str
) -> None:
    model, to = random_model(MEMBERS["llama"][1]), tmp_path / "x.gguf"
    changed = change(model, to)
    before = sorted(tmp_path.rglob("*"))
    asked: dict[str, Any] = {"parameters": model.state_dict(), "vocabulary": None, "to": to, "dtype": "F32"}
    asked |= changed if isinstance(changed, dict) else {}
    with pytest.raises(kind) as error:
        write_gguf(model.architecture, **asked)
    assert str(error.value).startswith(message.format(to=tmp_path / "x"))
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(RunError, match=r"x\.gguf: writing GGUF needs the package gguf"):
        written(tmp_path / "x.gguf", "llama")
