"""The benchmark that trains winners longer: which pairs it takes from the record of a search."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from operators.base.errors import ConfigError
from search.benchmarks.library.winners import Pair, hardest, train_longer


def candidate(number: int, loss: float, ms: float, status: str = "ok") -> dict[str, Any]:
    return {
        "id": number,
        "status": status,
        "metrics": {"loss": loss, "decode_ms@b1": ms} if status == "ok" else {"decode_ms@b1": ms},
    }


def design(name: str, width: int, ms: float, gain: float | None) -> dict[str, Any]:
    return {"name": name, "width": width, "ms": ms, "gain": gain}


GUIDED = [
    candidate(0, 3.0, 1.0),
    candidate(1, 2.5, 1.5),
    candidate(2, 2.4, 2.0),
    candidate(3, 2.8, 0.4),
    candidate(4, 0.0, 0.1, "stopped"),
]


def test_of_each_design_the_width_that_comes_nearest_is_taken_with_the_best_that_is_no_slower() -> None:
    designs = [
        design("llama", 64, 1.5, 0.3),
        design("llama", 128, 1.9, 0.2),
        design("mamba", 64, 3.0, -0.1),
        design("qwen", 64, 1.0, 0.5),
        design("qwen", 32, 0.3, None),  # faster than any candidate
        design("flash", 64, 0.5, 0.25),
    ]
    found = hardest({"guided": GUIDED, "designs": designs}, "decode_ms@b1")
    assert found == [Pair("mamba", 64, 2, -0.1), Pair("llama", 128, 1, 0.2), Pair("flash", 64, 3, 0.25)]


def test_without_the_record_of_a_search_it_says_what_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"expected the record of `frontrunner bench search` in results/benchmarks/cpu/search\.json",
    ):
        train_longer("cpu", Console(file=StringIO()))
