"""Frequency factors of a GGUF file: the scaling of Llama 3 is found again, others are refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.base.errors import FrontrunnerError
from operators.published.gguf_file import GgufFile
from operators.published.rope_factors import llama3_scaling
from tests.helpers.gguf_reading import assert_same_logits, imported, llama
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.published_models import CASES

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")


def factors_of(scaling: dict[str, Any], theta: float, head_dim: int) -> np.ndarray:
    """The factors of llama.cpp's converter: plain frequencies over the ones of transformers."""
    config = transformers.LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        max_position_embeddings=1 << 17,
        rope_parameters={"rope_type": "llama3", "rope_theta": theta, **scaling},
    )
    stretched = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    plain = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    return (plain / stretched).astype(np.float32)


def scaling(factor: float, low: float, high: float, context: int) -> dict[str, Any]:
    return {
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(("factor", "context"), [(8.0, 8192), (32.0, 8192), (4.0, 2048), (2.5, 1000)])
def test_the_scaling_of_llama_3_is_found_again(factor: float, context: int, head_dim: int) -> None:
    given = scaling(factor, 1.0, 4.0, context)
    recovered = llama3_scaling(factors_of(given, 500_000.0, head_dim), 500_000.0)
    assert recovered == {"rope_type": "llama3", **given}


@pytest.mark.parametrize("head_dim", [8, 12, 64])
@pytest.mark.parametrize(
    ("factor", "low", "high", "context"),
    [
        (8.0, 1.0, 4.0, 32),
        (3.7, 1.0, 4.0, 77),
        (4.0, 0.5, 3.0, 64),
        (64.0, 1.3, 30.0, 512),
        (2.0, 2.0, 2.1, 4096),
    ],
)
def test_any_other_scaling_is_found_as_one_with_the_same_factors(
    factor: float, low: float, high: float, context: int, head_dim: int
) -> None:
    factors = factors_of(scaling(factor, low, high, context), 10_000.0, head_dim)
    recovered = llama3_scaling(factors, 10_000.0)
    assert recovered
    del recovered["rope_type"]
    np.testing.assert_allclose(factors_of(recovered, 10_000.0, head_dim), factors, rtol=3e-6)


@pytest.mark.parametrize(
    "factors",
    [
        [1.0, 8, 1, 8],
        [1.0, 1.5, 1.6, 8],
        [0.5, 1, 1, 1],
        [1.0, 1, 8, float("nan")],
        [1.0, 0, 8, 8],
        [-1.0] * 4,
    ],
)
def test_other_factors_are_none_of_llama_3(factors: list[float]) -> None:
    assert llama3_scaling(np.array(factors, dtype=np.float32), 100.0) is None


def test_factors_of_one_are_no_scaling() -> None:
    assert llama3_scaling(np.ones(6, dtype=np.float32), 100.0) == {}


def with_factors(path: Path, factors: list[float] | np.ndarray) -> None:
    write_gguf(
        path,
        llama("llama-stretched"),
        also=lambda w: w.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32)),
    )


def test_a_llama_3_has_the_logits_and_the_scaling_of_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    theirs = llama("llama-stretched")
    with_factors(tmp_path / "x.gguf", factors_of(scaling(8.0, 1.0, 4.0, 16), 100.0, 12))
    assert_same_logits(tmp_path / "x.gguf", theirs)
    assert imported(tmp_path / "x.gguf").architecture == CASES["llama-stretched"]()[1]


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        (
            [1, 3, 2, 8, 8, 8],
            "rope_freqs.weight: expected the factors of a llama3 scaling, got 6 others from 1 to 8",
        ),
        ([0.5] * 6, "got 6 others from 0.5 to 0.5"),
        ([1, 8, 8], "expected a factor for each pair of a head of 12, got shape (3,)"),
    ],
)
def test_factors_that_cannot_be_expressed_are_refused(
    factors: list[float], says: str, tmp_path: Path
) -> None:
    with_factors(tmp_path / "x.gguf", factors)
    with pytest.raises(FrontrunnerError, match=re.escape(says)):
        GgufFile(tmp_path / "x.gguf")
