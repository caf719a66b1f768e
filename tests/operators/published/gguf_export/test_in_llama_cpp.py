"""Exported GGUF files in the real llama.cpp: the same log-probabilities, from prompts and step by step."""

from pathlib import Path

import pytest
import torch

from operators import Architecture
from operators.published.gguf_export import homes
from operators.published.gguf_export.outline import Outline
from operators.published.gguf_export.writing import write_gguf
from tests.helpers.gguf_members import MEMBERS, random_model
from tests.helpers.llama_cpp import difference

pytest.importorskip("gguf")
CLOSE = 1e-4


@pytest.mark.parametrize("member", MEMBERS)
def test_log_probabilities_are_the_same(tmp_path: Path, member: str) -> None:
    family, architecture = MEMBERS[member]
    model = random_model(architecture)
    file = write_gguf(architecture, model.state_dict(), None, tmp_path / "x.gguf", dtype="F32")
    assert file.family == family
    assert difference(tmp_path / "x.gguf", model) < CLOSE


@pytest.mark.parametrize(
    ("member", "keys"),
    [
        ("granitehybrid", {"rope.scaling.finetuned": False}),
        ("granitehybrid-not-rotated", {"rope.scaling.finetuned": True}),
        ("qwen35", {"rope.dimension_sections": [6, 0, 0, 0]}),
        ("llama-tied", {"rope.freq_base": 10_000.0}),
    ],
)
def test_a_wrong_key_would_be_seen(
    tmp_path: Path, member: str, keys: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are ways of llama.cpp's converter and of others to be wrong without a word."""
    model = random_model(MEMBERS[member][1])
    right = homes.outline(model.architecture)
    wrong = Outline(right.family, {**right.keys, **keys}, right.tensors)
    monkeypatch.setattr("operators.published.gguf_export.writing.outline", lambda _: wrong)
    write_gguf(model.architecture, model.state_dict(), None, tmp_path / "x.gguf", dtype="F32")
    assert difference(tmp_path / "x.gguf", model) > 20 * CLOSE


def test_parts_are_one_model(tmp_path: Path) -> None:
    model = random_model(MEMBERS["llama"][1])
    file = write_gguf(
        model.architecture, model.state_dict(), None, tmp_path / "x.gguf", dtype="F32", split_bytes=60_000
    )
    assert len(file.paths) > 2
    assert difference(file.paths[0], model) < CLOSE


@pytest.mark.parametrize(("dtype", "close"), [("F16", 0.01), ("BF16", 0.05), ("Q8_0", 0.1)])
def test_fewer_bits_are_run_and_cost_little(tmp_path: Path, dtype: str, close: float) -> None:
    """llama.cpp rounds activations as well, so the logits of the rounded weights are met roughly."""
    architecture = Architecture.from_shorthand(
        "m f a f", width=64, vocabulary=61, genes={"attention": {"head_dim": 16}, "mamba2": {"head_dim": 32}}
    )
    model = random_model(architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(0.5)
    write_gguf(architecture, model.state_dict(), None, tmp_path / "x.gguf", dtype=dtype)
    assert 0 < difference(tmp_path / "x.gguf", model) < close
